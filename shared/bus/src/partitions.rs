//! Sharing the partitions of the images among the processes of a role: the same for matcher and
//! policy.
//!
//! There is no coordinator; everything is a lease. A process first takes one of the role's places,
//! `partition.<role>.member-<n>`. How many places are taken is how many processes there are, and
//! none of them holds more partitions than its share: 16 by their number, rounded up. Who holds
//! more gives the surplus up in good order when another one comes; who holds less takes what is
//! free. A process that dies is counted until its leases expire, and nothing moves before. The
//! shares leave room for every partition, so nobody ever gives one up to get another, and what is
//! at rest stays at rest.
//!
//! It costs a look at the places, and at the partitions while there is room for more, several times
//! in a lease's life. There are as many places as partitions: more processes than that stand by.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chassis::Cx;
use futures::future::BoxFuture;
use model::{Partition, event::LEASES};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    Bus,
    error::BusError,
    lease::{Lease, Try},
    random,
    store::is_marker,
};

/// How long the tasks of a partition that is lost may take to end, beyond the grace of handlers.
const END: Duration = Duration::from_secs(5);
/// The first pause of who has less than everybody should have: somebody is about to give up, or
/// just came free. It doubles while nothing is to be had.
const HURRY: Duration = Duration::from_millis(100);

/// Serves a partition while its context runs.
type Start = dyn Fn(Partition, Cx) -> BoxFuture<'static, ()> + Send + Sync;

/// One process's part in sharing.
struct Member {
    bus: Bus,
    cx: Cx,
    role: String,
    start: Arc<Start>,
    /// The place that is taken, and what makes it ours.
    place: Option<(usize, Lease)>,
    /// How many there were at the last look.
    members: usize,
    /// What is held here; the token asks to give it up.
    owned: BTreeMap<Partition, CancellationToken>,
    /// What others held at the last look.
    elsewhere: BTreeSet<Partition>,
    /// How often in a row nothing was to be had.
    in_vain: u32,
    /// Where those who served a partition say that it is given back.
    ended: mpsc::Sender<Partition>,
}

impl Bus {
    /// Takes this process's share of the partitions for a role, and runs `start` for each of them
    /// while it is held. The context that `start` gets stops when the partition is to go to
    /// another process; what it spawned there has ended before the lease
    /// `partition.<role>.<partition>` is given back. Where the lease is lost the context aborts:
    /// handlers have no grace then.
    pub fn own_partitions(
        &self,
        cx: &Cx,
        role: &str,
        start: impl Fn(Partition, Cx) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) {
        // One message for each partition at most: sending never waits.
        let (ended, endings) = mpsc::channel(partitions());
        let member = Member {
            bus: self.clone(),
            cx: cx.clone(),
            role: role.to_owned(),
            start: Arc::new(start),
            place: None,
            members: 0,
            owned: BTreeMap::new(),
            elsewhere: BTreeSet::new(),
            in_vain: 0,
            ended,
        };
        cx.spawn("partitions", member.run(endings));
    }
}

// === impl Member ===

impl Member {
    /// Looks again and again. At the end the place is given back at once, so that the others make
    /// room before the partitions come free.
    async fn run(mut self, mut endings: mpsc::Receiver<Partition>) {
        let cx = self.cx.clone();
        while !cx.is_stopping() {
            let pause = match self.look().await {
                Ok(pause) => pause,
                Err(error) => {
                    let role = &self.role;
                    tracing::debug!(%error, "partitions of `{role}` later: {error}");
                    self.calm()
                }
            };
            tokio::select! {
                () = cx.stopped() => {}
                Some(partition) = endings.recv() => {
                    self.owned.remove(&partition);
                }
                () = sleep(random::jitter(pause)) => {}
            }
        }
    }

    /// Gives up what is too much and takes what is missing; says when to look again.
    async fn look(&mut self) -> Result<Duration, BusError> {
        let Some(members) = self.members().await? else {
            return Ok(self.calm());
        };
        let share = partitions().div_ceil(members);
        if members != self.members {
            let role = &self.role;
            tracing::info!(
                "{members} processes share the partitions of `{role}`: at most {share} are for this one"
            );
            (self.members, self.in_vain) = (members, 0);
        }
        self.give_up_beyond(share);
        let before = self.owned.len();
        for partition in self.preferred() {
            if self.owned.len() >= share {
                break;
            }
            if !self.owned.contains_key(&partition) {
                self.take(partition).await?;
            }
        }
        if self.owned.len() >= partitions() / members {
            return Ok(self.calm());
        }
        self.in_vain = if self.owned.len() > before {
            0
        } else {
            self.in_vain.saturating_add(1)
        };
        let longer = 2_u32.saturating_pow(self.in_vain.min(16));
        Ok(self.calm().min(HURRY.saturating_mul(longer)))
    }

    /// How many processes there are, this one counted. `None`: there is no place for it.
    async fn members(&mut self) -> Result<Option<usize>, BusError> {
        if self
            .place
            .as_ref()
            .is_some_and(|(_, lease)| !lease.is_held())
        {
            self.place = None;
        }
        let mut taken = 0;
        for place in 0..partitions() {
            if self.is_ours(place) || self.is_taken(place).await? {
                taken += 1;
            }
        }
        Ok(self.place.is_some().then_some(taken))
    }

    fn is_ours(&self, place: usize) -> bool {
        self.place.as_ref().is_some_and(|(ours, _)| *ours == place)
    }

    /// Whether somebody has a place; where it is free and this process has none, it takes it.
    async fn is_taken(&mut self, place: usize) -> Result<bool, BusError> {
        let name = format!("partition.{}.member-{place}", self.role);
        if self.place.is_some() {
            let found = self.bus.0.store.raw(LEASES, &name).await?;
            return Ok(found.is_some_and(|raw| !is_marker(&raw.headers)));
        }
        if let Try::Taken(lease) = self.bus.try_lease(&self.cx, &name, false).await? {
            self.place = Some((place, lease));
        }
        Ok(true)
    }

    /// Asks those that serve the surplus to end. What was asked before still counts as held, but
    /// not as surplus.
    fn give_up_beyond(&mut self, share: usize) {
        let staying = |(_, token): &(&Partition, &CancellationToken)| !token.is_cancelled();
        let stay = self.owned.iter().filter(staying).count();
        let mut surplus = stay.saturating_sub(share);
        for partition in self.preferred().into_iter().rev() {
            if surplus == 0 {
                return;
            }
            let held = self.owned.get(&partition);
            if let Some(token) = held.filter(|token| !token.is_cancelled()) {
                tracing::debug!("gives up partition {partition} of `{}`", self.role);
                token.cancel();
                surplus -= 1;
            }
        }
    }

    /// All partitions, beginning at a point that members seldom share, so that they do not reach
    /// for the same.
    fn preferred(&self) -> Vec<Partition> {
        let mut all: Vec<Partition> = Partition::all().collect();
        let place = self.place.as_ref().map_or(0, |(place, _)| *place);
        // Five has no divisor in common with sixteen.
        all.rotate_left(place * 5 % partitions());
        all
    }

    /// Takes a partition if it is free.
    async fn take(&mut self, partition: Partition) -> Result<(), BusError> {
        let name = format!("partition.{}.{partition}", self.role);
        let waited = self.elsewhere.contains(&partition);
        match self.bus.try_lease(&self.cx, &name, waited).await? {
            Try::Held => {
                self.elsewhere.insert(partition);
            }
            Try::Taken(lease) => {
                self.elsewhere.remove(&partition);
                let given_up = CancellationToken::new();
                self.owned.insert(partition, given_up.clone());
                let serve = serve(
                    self.cx.clone(),
                    self.bus.config().grace() + END,
                    lease,
                    given_up,
                    (partition, Arc::clone(&self.start)),
                );
                let ended = self.ended.clone();
                self.cx.spawn("partition", async move {
                    serve.await;
                    if ended.send(partition).await.is_err() {
                        tracing::trace!("partition {partition} came back after the last look");
                    }
                });
            }
        }
        Ok(())
    }

    /// The pause of who has what is due.
    fn calm(&self) -> Duration {
        self.bus.config().lease() / 6
    }
}

/// Serves a partition until it is lost or given up; then its tasks end, and the lease goes back.
async fn serve(
    cx: Cx,
    patience: Duration,
    lease: Lease,
    given_up: CancellationToken,
    (partition, start): (Partition, Arc<Start>),
) {
    tracing::debug!("owns `{}`", lease.name());
    let child = cx.child();
    child.spawn("partition", start(partition, child.clone()));
    tokio::select! {
        biased;
        // Another may have it already: nothing more is written, not even what is at hand.
        () = lease.lost() => child.abort(),
        () = given_up.cancelled() => child.stop(),
        () = cx.stopped() => child.stop(),
    }
    let ended = tokio::select! {
        ended = child.finish(patience) => ended,
        // It was lost on the way out.
        () = lease.lost() => {
            child.abort();
            child.finish(patience).await
        }
    };
    if !ended {
        tracing::warn!("tasks of `{}` do not end", lease.name());
    }
    lease.release().await;
}

fn partitions() -> usize {
    usize::from(Partition::COUNT)
}
