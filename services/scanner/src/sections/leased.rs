//! Sections of a fleet: each layer is read once, by who holds its lease.

use std::{sync::Arc, time::Duration};

use analyzers::PreparedLayer;
use anyhow::ensure;
use bus::{Bus, Lease};
use chassis::Cx;
use futures::future::BoxFuture;
use model::{Digest, event::LEASES};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{debug, warn};

use super::{CacheSections, Claim, Sections, Stored, Tier, Wanted, shared::Shared};
use crate::metrics;

/// Who waits for another process looks again after so long: a lease that expires wakes nobody.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How often the notes of health are brought up to date.
const CHECK: Duration = Duration::from_secs(10);
/// Hex digits that tell sets of analyzers apart in the name of a lease.
const SET_DIGITS: usize = 16;

/// Sections in a worker's memory and cache and in the fleet's, with a lease per layer in reading:
/// for workers.
///
/// The lease saves work and guards nothing: sections are computed from content, so that a layer
/// which is read twice gives the same ones twice. Without the broker layers are read without it.
#[derive(Debug)]
pub struct LeasedSections {
    cx: Cx,
    local: CacheSections,
    shared: Shared,
    bus: Bus,
    deadline: Duration,
    bytes_min: u64,
    /// How many layers are waited for here because another process reads them.
    pub(super) waiting: watch::Sender<u32>,
}

/// Counts one who waits, until it is dropped.
struct Waits<'a>(&'a watch::Sender<u32>);

// === impl LeasedSections ===

impl LeasedSections {
    /// Sections in `local` and, of layers with at least `bytes_min` bytes, in the fleet's objects,
    /// with leases from `bus`. `deadline`: how long the broker may take to answer.
    pub fn new(cx: Cx, bus: Bus, local: CacheSections, bytes_min: u64, deadline: Duration) -> Self {
        let shared_max = bus.config().layers_bytes_max;
        Self {
            shared: Shared::new(&cx, bus.store(), shared_max, deadline),
            local,
            cx,
            bus,
            deadline,
            bytes_min,
            waiting: watch::Sender::new(0),
        }
    }

    /// How many objects of the fleet were found damaged.
    pub fn corrupt(&self) -> u64 {
        self.shared.corrupt()
    }

    /// Brings the notes of health up to date.
    pub async fn check(&self) {
        metrics::waiting(*self.waiting.borrow());
        self.local.check();
        self.shared.check().await;
    }

    /// Does that until `cx` stops.
    pub(crate) async fn watch(self: Arc<Self>) {
        while self.cx.sleep(CHECK).await {
            self.check().await;
        }
    }

    pub(super) fn lease_name(blob: Digest, wanted: &Wanted) -> String {
        let mut set = wanted.set.hex();
        set.truncate(SET_DIGITS);
        format!("layer.{}.{set}", blob.hex())
    }
}

impl Sections for LeasedSections {
    fn of_size(&self, bytes: u64) -> &dyn Sections {
        if bytes < self.bytes_min {
            &self.local
        } else {
            self
        }
    }

    fn get<'a>(
        &'a self,
        blob: Digest,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, anyhow::Result<Stored>> {
        Box::pin(async move {
            let local = self.local.get(blob, wanted).await?;
            if matches!(local, Stored::Whole(..)) {
                return Ok(local);
            }
            let Some(layer) = self.shared.get(blob, wanted).await else {
                return Ok(local);
            };
            let layer = Arc::new(layer);
            self.local.put(wanted, Arc::clone(&layer)).await;
            Ok(Stored::Whole(layer, Tier::Shared))
        })
    }

    fn put<'a>(&'a self, wanted: &'a Wanted, layer: Arc<PreparedLayer>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let local = self.local.put(wanted, Arc::clone(&layer));
            tokio::join!(local, self.shared.put(wanted, layer));
        })
    }

    fn claim<'a>(
        &'a self,
        blob: Digest,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, anyhow::Result<Option<Claim>>> {
        Box::pin(async move {
            ensure!(!self.cx.is_stopping(), "this process is stopping");
            let Some(flight) = self.local.flights.enter(wanted.name(blob)) else {
                return Ok(None);
            };
            let life = self.bus.config().lease();
            let claim = |lease: Option<Lease>| Claim {
                unused_for: lease
                    .as_ref()
                    .and_then(|lease| lease.is_first().then_some(life)),
                lease,
                flight: Some(flight),
            };
            if self.bus.is_connected() {
                let name = Self::lease_name(blob, wanted);
                match timeout(self.deadline, self.bus.lease(&self.cx, &name)).await {
                    Ok(Ok(None)) => return Ok(None),
                    Ok(Ok(lease @ Some(_))) => return Ok(Some(claim(lease))),
                    Ok(Err(error)) => warn!("layer {blob} is read without a lease: {error}"),
                    Err(_) => warn!("layer {blob} is read without a lease: no answer in time"),
                }
            }
            metrics::unleased();
            Ok(Some(claim(None)))
        })
    }

    fn ended<'a>(&'a self, blob: Digest, wanted: &'a Wanted) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            if self.local.flight_ended(&wanted.name(blob)).await {
                return Ok(());
            }
            let _waits = Waits::begin(&self.waiting);
            let name = Self::lease_name(blob, wanted);
            let keys = [format!("{LEASES}/{name}")];
            let (store, key) = (self.bus.store(), name.clone());
            // It owns what it needs: borrowed, its future would not be `Send` for every lifetime.
            let is_free = move || {
                let (store, key) = (store.clone(), key.clone());
                async move { Ok((!store.exists(LEASES, &key).await?).then_some(())) }
            };
            let freed = self.bus.wait(&keys, Instant::now() + LOOK_AGAIN, is_free);
            tokio::select! {
                freed = freed => if let Err(error) = freed {
                    debug!(%error, "lease `{name}` cannot be looked at: {error}");
                },
                () = self.cx.stopped() => {}
            }
            Ok(())
        })
    }
}

// === impl Waits ===

impl<'a> Waits<'a> {
    fn begin(waiting: &'a watch::Sender<u32>) -> Self {
        waiting.send_modify(|waiting| *waiting += 1);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}
