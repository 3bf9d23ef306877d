//! Owning partitions of the images: the same for matcher and policy.

use std::{sync::Arc, time::Duration};

use chassis::Cx;
use futures::future::BoxFuture;
use model::Partition;

use crate::{Bus, random};

/// How long the tasks of a partition that is lost may take to end, beyond the grace of handlers.
const END: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

impl Bus {
    /// Takes the lease `partition.<role>.<partition>` of every partition as it comes free, and
    /// runs `start` while it is held. The context that `start` gets stops when the lease is lost;
    /// what it spawned there has ended before the lease is given back.
    pub fn own_partitions(
        &self,
        cx: &Cx,
        role: &str,
        start: impl Fn(Partition, Cx) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) {
        let start = Arc::new(start);
        for partition in Partition::all() {
            let name = format!("partition.{role}.{partition}");
            let (bus, cx_here, start) = (self.clone(), cx.clone(), Arc::clone(&start));
            cx.spawn("partition", async move {
                while !cx_here.is_stopping() {
                    own(&bus, &cx_here, &name, |child| start(partition, child)).await;
                    cx_here.sleep(random::jitter(PAUSE)).await;
                }
            });
        }
    }
}

async fn own(bus: &Bus, cx: &Cx, name: &str, start: impl Fn(Cx) -> BoxFuture<'static, ()> + Send) {
    let lease = match bus.lease_wait(cx, name).await {
        Ok(Some(lease)) => lease,
        Ok(None) => return,
        Err(error) => {
            tracing::error!(%error, "lease `{name}`: {error}");
            return;
        }
    };
    tracing::debug!("owns `{name}`");
    let child = cx.child();
    child.spawn("partition", start(child.clone()));
    tokio::select! {
        () = lease.lost() => {}
        () = cx.stopped() => {}
    }
    child.stop();
    if !child.finish(bus.config().grace() + END).await {
        tracing::warn!("tasks of `{name}` do not end");
    }
    lease.release().await;
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Mutex};

    use super::*;
    use crate::testing::{World, eventually};

    type Owned = Arc<Mutex<BTreeSet<String>>>;

    fn own_all(bus: &Bus, cx: &Cx, owned: &Owned) {
        let owned = Arc::clone(owned);
        bus.own_partitions(cx, "matcher", move |partition, child| {
            let owned = Arc::clone(&owned);
            Box::pin(async move {
                owned.lock().unwrap().insert(partition.to_string());
                child.stopped().await;
                owned.lock().unwrap().remove(&partition.to_string());
            })
        });
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn partitions_move_when_their_owner_stops() {
        let Some(world) = World::start().await else {
            return;
        };
        let (other_cx, other) = world.other().await;
        let (here, there) = (Owned::default(), Owned::default());
        own_all(&world.bus, &world.cx, &here);
        eventually("one has all", async || here.lock().unwrap().len() == 16).await;
        own_all(&other, &other_cx, &there);
        tokio::time::sleep(world.bus.config().lease() * 2).await;
        assert!(there.lock().unwrap().is_empty());
        world.cx.stop();
        eventually("the other has all", async || {
            there.lock().unwrap().len() == 16
        })
        .await;
        assert!(here.lock().unwrap().is_empty());
        assert!(world.cx.finish(Duration::from_secs(5)).await);
    }
}
