//! Leases: one process does something, and another takes over when it dies.
//!
//! A lease is a key in a bucket whose messages expire. It is taken and renewed by compare-and-set,
//! renewed at every third of its life, and given up by its holder after two thirds without a
//! renewal: before the server lets it expire. Releasing deletes the key, so that the next one need
//! not wait. A broker that is away for longer than a lease lives ends all leases; who held one
//! stops, and whatever is done twice then is done under the same ids.

use std::{fmt, time::Duration};

use bytes::Bytes;
use chassis::Cx;
use model::event::LEASES;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Bus,
    envelope::Headers,
    error::{BusError, PutError, StoreError},
    metrics::metrics,
    random,
    store::{backend::Backend, is_marker, nats::Nats},
    wire::PAUSE,
};

/// How long giving a lease back may take.
const RELEASE: Duration = Duration::from_secs(2);

/// A name that this process alone holds, as long as it renews it. Dropping it gives it back.
pub struct Lease {
    name: String,
    first: bool,
    held: watch::Receiver<bool>,
    release: CancellationToken,
}

/// How one try ended.
pub(crate) enum Try {
    Taken(Lease),
    /// Another holds it, or took it this very moment.
    Held,
}

struct Keeper {
    nats: Nats,
    name: String,
    revision: u64,
    /// When the last successful renewal was sent.
    renewed: Instant,
    life: Duration,
}

impl Bus {
    /// Tries to take a lease, once. `None`: another holds it.
    pub async fn lease(&self, cx: &Cx, name: &str) -> Result<Option<Lease>, BusError> {
        match self.try_lease(cx, name, false).await? {
            Try::Taken(lease) => Ok(Some(lease)),
            Try::Held => Ok(None),
        }
    }

    /// Waits for a lease. `None`: `cx` stopped first.
    pub async fn lease_wait(&self, cx: &Cx, name: &str) -> Result<Option<Lease>, BusError> {
        let mut watch = self.0.wakes.watch(&[format!("{LEASES}/{name}")]).await;
        let mut waited = false;
        while !cx.is_stopping() {
            match self.try_lease(cx, name, waited).await {
                Ok(Try::Taken(lease)) => return Ok(Some(lease)),
                Ok(Try::Held) => waited = true,
                Err(BusError::Store(error @ StoreError::Key(_))) => return Err(error.into()),
                Err(error) => tracing::debug!(%error, "lease `{name}` later: {error}"),
            }
            tokio::select! {
                () = cx.stopped() => {}
                () = watch.changed(Instant::now() + self.config().lease()) => {}
            }
        }
        Ok(None)
    }

    /// The last renewal of a lease. `None`: nobody holds it.
    pub(crate) async fn lease_revision(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let found = Nats(self.0.wire.clone()).get(LEASES, name).await?;
        let live = found.filter(|raw| !is_marker(&raw.headers));
        Ok(live.map(|raw| raw.sequence))
    }

    /// Tries to take a lease, once. `waited`: another was seen to hold it before.
    pub(crate) async fn try_lease(
        &self,
        cx: &Cx,
        name: &str,
        waited: bool,
    ) -> Result<Try, BusError> {
        if !crate::subject::is_key(name) {
            return Err(StoreError::Key(name.to_owned()).into());
        }
        let nats = Nats(self.0.wire.clone());
        let renewed = Instant::now();
        let value = (Headers::default(), self.holder());
        let put = nats.compare_and_set(LEASES, name, value, Some(0)).await;
        let (revision, after_marker) = match put {
            Ok(put) => put,
            Err(PutError::Conflict) => return Ok(Try::Held),
            Err(PutError::Store(error)) => return Err(error.into()),
        };
        if waited && !after_marker {
            metrics().takeover();
            tracing::info!("lease `{name}` taken over from a holder that did not renew it");
        }
        let (report, held) = watch::channel(true);
        let release = CancellationToken::new();
        let life = self.config().lease();
        let keeper = Keeper {
            nats,
            name: name.to_owned(),
            revision,
            renewed,
            life,
        };
        cx.spawn("lease", keeper.keep(self.holder(), report, release.clone()));
        Ok(Try::Taken(Lease {
            name: name.to_owned(),
            first: !waited && !after_marker,
            held,
            release,
        }))
    }

    /// Who holds the lease, for people.
    fn holder(&self) -> Bytes {
        Bytes::from(self.0.name.clone())
    }
}

// === impl Lease ===

impl Lease {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether nobody held it within the life of a lease before: what one leaves lives as long.
    pub const fn is_first(&self) -> bool {
        self.first
    }

    /// Whether it is held now.
    pub fn is_held(&self) -> bool {
        *self.held.borrow()
    }

    /// Waits until it is not held any more.
    pub async fn lost(&self) {
        let mut held = self.held.clone();
        // An error means that the task which renews it is gone, and so is the lease.
        let _gone = held.wait_for(|held| !held).await.is_err();
    }

    /// Gives it back and waits until that is done.
    pub async fn release(self) {
        self.release.cancel();
        self.lost().await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release.cancel();
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("name", &self.name)
            .field("held", &self.is_held())
            .finish_non_exhaustive()
    }
}

// === impl Keeper ===

impl Keeper {
    async fn keep(mut self, holder: Bytes, held: watch::Sender<bool>, release: CancellationToken) {
        loop {
            let next = self.renewed + self.life / 3;
            if timeout_at(next, release.cancelled()).await.is_ok() {
                self.give_back().await;
                break;
            }
            if !self.renew(&holder, &release).await {
                if release.is_cancelled() {
                    self.give_back().await;
                } else {
                    tracing::info!("lease `{}` is lost", self.name);
                }
                break;
            }
        }
        held.send_replace(false);
    }

    /// Renews until it works. False: it is lost, or it shall be given back.
    async fn renew(&mut self, holder: &Bytes, release: &CancellationToken) -> bool {
        let give_up = self.renewed + self.life * 2 / 3;
        while Instant::now() < give_up && !release.is_cancelled() {
            let sent = Instant::now();
            let expected = Some(self.revision);
            let headers = Headers::default();
            let put = self
                .nats
                .put(LEASES, &self.name, headers, holder.clone(), expected);
            match timeout_at(give_up, put).await {
                Ok(Ok(revision)) => {
                    (self.revision, self.renewed) = (revision, sent);
                    return true;
                }
                Ok(Err(PutError::Conflict)) | Err(_) => return false,
                Ok(Err(PutError::Store(_))) => sleep(random::jitter(PAUSE)).await,
            }
        }
        false
    }

    /// Deletes the key if it is still ours.
    async fn give_back(&self) {
        let removed = self.nats.remove(LEASES, &self.name, Some(self.revision));
        if !matches!(timeout(RELEASE, removed).await, Ok(Ok(_))) {
            tracing::debug!("lease `{}` was not given back, it will expire", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, eventually, soon};

    #[tokio::test(flavor = "multi_thread")]
    async fn one_of_many_holds_a_lease_and_releasing_it_wakes_the_next() {
        let Some(world) = World::start().await else {
            return;
        };
        let (other_cx, other) = world.other().await;
        let lease = world
            .bus
            .lease(&world.cx, "layer.a")
            .await
            .unwrap()
            .unwrap();
        assert!(other.lease(&other_cx, "layer.a").await.unwrap().is_none());
        // Longer than it lives: it is renewed.
        sleep(world.bus.config().lease() * 2).await;
        assert!(lease.is_held());
        assert!(other.lease(&other_cx, "layer.a").await.unwrap().is_none());
        let waits = tokio::join!(soon(other.lease_wait(&other_cx, "layer.a")), async {
            sleep(Duration::from_millis(100)).await;
            let released = Instant::now();
            lease.release().await;
            released
        },);
        let (taken, released) = (waits.0.unwrap().unwrap(), waits.1);
        assert!(taken.is_held());
        assert!(
            released.elapsed() < Duration::from_millis(500),
            "{:?}",
            released.elapsed()
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lease_that_nobody_renews_is_taken_over() {
        let Some(world) = World::start().await else {
            return;
        };
        let store = world.bus.store();
        store
            .put(LEASES, "layer.dead", &"a process that died", Some(0))
            .await
            .unwrap();
        let began = Instant::now();
        let lease = soon(world.bus.lease_wait(&world.cx, "layer.dead"))
            .await
            .unwrap()
            .unwrap();
        assert!(
            began.elapsed() > Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
        assert!(lease.is_held());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_holder_learns_that_its_lease_is_gone() {
        let Some(mut world) = World::start().await else {
            return;
        };
        let taken = world
            .bus
            .lease(&world.cx, "layer.a")
            .await
            .unwrap()
            .unwrap();
        world
            .bus
            .store()
            .put(LEASES, "layer.a", &"another", None)
            .await
            .unwrap();
        soon(taken.lost()).await;
        assert!(!taken.is_held());
        // Without a broker it gives up before the lease would expire.
        let lease = world
            .bus
            .lease(&world.cx, "layer.b")
            .await
            .unwrap()
            .unwrap();
        world.server.down();
        let down = Instant::now();
        soon(lease.lost()).await;
        assert!(
            down.elapsed() < world.bus.config().lease(),
            "{:?}",
            down.elapsed()
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn dropping_a_lease_gives_it_back() {
        let Some(world) = World::start().await else {
            return;
        };
        let (other_cx, other) = world.other().await;
        let first = world.bus.lease(&world.cx, "layer.a").await;
        let first = first.unwrap().unwrap();
        assert!(first.is_first());
        drop(first);
        let began = Instant::now();
        eventually("it is free", async || {
            let next = other.lease(&other_cx, "layer.a").await.unwrap();
            next.is_some_and(|next| !next.is_first())
        })
        .await;
        assert!(began.elapsed() < world.bus.config().lease());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_stops_does_not_wait_for_a_lease() {
        let Some(world) = World::start().await else {
            return;
        };
        let _held = world
            .bus
            .lease(&world.cx, "layer.a")
            .await
            .unwrap()
            .unwrap();
        let child = world.cx.child();
        let (waited, ()) = tokio::join!(soon(world.bus.lease_wait(&child, "layer.a")), async {
            sleep(Duration::from_millis(50)).await;
            child.stop();
        });
        assert!(waited.unwrap().is_none());
        assert!(world.bus.lease(&world.cx, "not a key").await.is_err());
    }
}
