//! What is asked of the broker beyond state: the bus, or a test.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bus::{Bus, Queue};
use futures::future::BoxFuture;
use model::{Slug, runtime::ResponseOrdered};
use tokio::time::Instant;

/// How old the queues may be that health shows. There are dozens, and each is asked for by itself.
const AGE_MAX: Duration = Duration::from_secs(2);

/// The broker, as far as the routes know it.
pub(crate) trait Broker: Send + Sync {
    /// The last sequence of a bucket.
    fn last_sequence<'a>(&'a self, bucket: &'a str) -> BoxFuture<'a, anyhow::Result<u64>>;

    /// The queues of all consumers that belong to services.
    fn queues(&self) -> BoxFuture<'_, anyhow::Result<Vec<Queue>>>;

    /// How many dead letters there are.
    fn dead_letters(&self) -> BoxFuture<'_, anyhow::Result<u64>>;

    /// Stores what somebody orders.
    fn order<'a>(
        &'a self,
        tenant: &'a Slug,
        order: &'a ResponseOrdered,
    ) -> BoxFuture<'a, anyhow::Result<()>>;
}

/// The real one.
#[derive(Debug)]
pub(super) struct Nats {
    bus: Bus,
    queues: Mutex<Option<(Instant, Vec<Queue>)>>,
}

// === impl Nats ===

impl Nats {
    pub(super) fn new(bus: &Bus) -> Self {
        Self {
            bus: bus.clone(),
            queues: Mutex::default(),
        }
    }

    fn known(&self) -> Option<Vec<Queue>> {
        let known = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked_at, queues) = known.as_ref()?;
        (asked_at.elapsed() < AGE_MAX).then(|| queues.clone())
    }
}

impl Broker for Nats {
    fn last_sequence<'a>(&'a self, bucket: &'a str) -> BoxFuture<'a, anyhow::Result<u64>> {
        Box::pin(async move { Ok(self.bus.last_sequence(bucket).await?) })
    }

    fn queues(&self) -> BoxFuture<'_, anyhow::Result<Vec<Queue>>> {
        Box::pin(async move {
            if let Some(known) = self.known() {
                return Ok(known);
            }
            let queues = self.bus.survey().await?;
            let mut known = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            *known = Some((Instant::now(), queues.clone()));
            Ok(queues)
        })
    }

    fn dead_letters(&self) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async move { Ok(self.bus.dead_letter_count().await?) })
    }

    fn order<'a>(
        &'a self,
        tenant: &'a Slug,
        order: &'a ResponseOrdered,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move { Ok(self.bus.publish(tenant, order).await?) })
    }
}
