//! Shows that this process is alive: one lease of its own, renewed as long as it runs.
//!
//! Whoever finds work that another process had begun looks whether that process still renews. After
//! the broker was away, all leases have expired and nobody is dead yet: so nobody is believed to
//! be dead before the own connection is older than a lease.

use std::time::Duration;

use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

use crate::{
    Bus, Lease,
    error::{BusError, StoreError},
    random,
    wire::PAUSE,
};

/// How long a connection must stand at least before an absent process is believed to be dead:
/// connecting again takes up to two seconds.
const SETTLED_MIN: Duration = Duration::from_secs(3);
/// How often a stopping process looks whether it still holds messages.
const LOOK: Duration = Duration::from_millis(20);

/// This process among others.
#[derive(Debug)]
pub(crate) struct Presence {
    /// Unlike a process id, it is never used again.
    pub(crate) id: String,
    shown: OnceCell<()>,
}

// === impl Presence ===

impl Default for Presence {
    fn default() -> Self {
        Self {
            id: random::token(),
            shown: OnceCell::new(),
        }
    }
}

impl Bus {
    /// Makes sure that others can see that this process is alive, from now on.
    pub(crate) async fn show(&self) -> Result<(), BusError> {
        let presence = &self.0.presence;
        presence.shown.get_or_try_init(|| self.appear()).await?;
        Ok(())
    }

    /// Whether a process is alive. A lease that is there may be that of a process which died since
    /// its last renewal: it is watched until it is renewed or expires.
    pub(crate) async fn is_alive(&self, holder: &str) -> Result<bool, StoreError> {
        if holder == self.0.presence.id {
            return Ok(true);
        }
        let name = lease_of(holder);
        let Some(first) = self.lease_revision(&name).await? else {
            return Ok(false);
        };
        let life = self.config().lease();
        let end = Instant::now() + life * 2;
        while Instant::now() < end {
            sleep(life / 8).await;
            match self.lease_revision(&name).await? {
                None => return Ok(false),
                Some(now) if now != first => return Ok(true),
                Some(_) => {}
            }
        }
        Ok(true)
    }

    /// How long to wait until absence means death.
    pub(crate) fn unsettled(&self) -> Option<Duration> {
        let settled = self.config().lease().max(SETTLED_MIN);
        let stands = self
            .0
            .wire
            .link()
            .borrow()
            .since
            .map_or(Duration::ZERO, |at| at.elapsed());
        settled.checked_sub(stands).filter(|left| !left.is_zero())
    }

    async fn appear(&self) -> Result<(), BusError> {
        let name = lease_of(&self.0.presence.id);
        let lease = self.lease(&self.0.cx, &name).await?;
        let bus = self.clone();
        let cx = self.0.cx.clone();
        cx.spawn("presence", async move { bus.stay(name, lease).await });
        Ok(())
    }

    /// Takes the lease again whenever it was lost, until the process stops and holds nothing.
    async fn stay(&self, name: String, mut lease: Option<Lease>) {
        let cx = &self.0.cx;
        while !cx.is_stopping() {
            match &lease {
                Some(held) => tokio::select! {
                    () = held.lost() => lease = None,
                    () = cx.stopped() => {}
                },
                None => match self.lease(cx, &name).await {
                    Ok(Some(again)) => lease = Some(again),
                    // The old one has not expired yet, so it still speaks for us.
                    Ok(None) | Err(_) => {
                        cx.sleep(random::jitter(PAUSE)).await;
                    }
                },
            }
        }
        let end = Instant::now() + self.config().grace() + PAUSE;
        while self.0.holds_any() && Instant::now() < end {
            sleep(LOOK).await;
        }
        if let Some(lease) = lease {
            lease.release().await;
        }
    }
}

fn lease_of(holder: &str) -> String {
    format!("process.{holder}")
}
