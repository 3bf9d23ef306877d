//! What health asks of the broker beyond state: the bus, or a test.

use bus::{Bus, Queue};
use futures::future::BoxFuture;

/// The broker, as far as health knows it.
pub(crate) trait Broker: Send + Sync {
    /// The last sequence of a bucket.
    fn last_sequence<'a>(&'a self, bucket: &'a str) -> BoxFuture<'a, anyhow::Result<u64>>;

    /// The queues of all consumers that belong to services.
    fn queues(&self) -> BoxFuture<'_, anyhow::Result<Vec<Queue>>>;

    /// How many dead letters there are.
    fn dead_letters(&self) -> BoxFuture<'_, anyhow::Result<u64>>;
}

impl Broker for Bus {
    fn last_sequence<'a>(&'a self, bucket: &'a str) -> BoxFuture<'a, anyhow::Result<u64>> {
        Box::pin(async move { Ok(Self::last_sequence(self, bucket).await?) })
    }

    fn queues(&self) -> BoxFuture<'_, anyhow::Result<Vec<Queue>>> {
        Box::pin(async move { Ok(self.survey().await?) })
    }

    fn dead_letters(&self) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async move { Ok(self.dead_letter_count().await?) })
    }
}
