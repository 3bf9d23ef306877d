//! Who may read a layer next: a fixed number of permits, given out by priority.
//!
//! Upkeep never holds all of them: a quarter, at least one, is left for pushes and for people who
//! wait, and one more for the latter where there are three or more. A permit that comes free goes
//! to the most urgent who waits and may have it, among equals to who waits longest. What runs is
//! never interrupted.
//!
//! A source that answers slowly would hold all permits for a long time: so a source of which nothing
//! is read gets one beyond them, half as many of these as there are permits. Where there is one
//! source they are never used.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::event::Priority;
use tokio::sync::oneshot;

const CLASSES: usize = Priority::ALL.len();

/// The permits of a process; cheap to clone.
#[derive(Clone)]
pub(crate) struct Permits(Arc<Mutex<State>>);

/// The right to read one layer, until it is dropped.
pub(crate) struct Permit {
    /// `None` once it has been taken back.
    from: Option<Permits>,
    held: Held,
}

/// What a permit counts as.
#[derive(Clone)]
struct Held {
    /// `None`: one beyond the others.
    class: Option<usize>,
    source: String,
}

struct Waiting {
    source: String,
    sender: oneshot::Sender<Permit>,
}

struct State {
    /// How many permits each class and those below it may hold together, the most urgent first.
    allowed: [usize; CLASSES],
    held: [usize; CLASSES],
    /// How many permits there are beyond those, and how many of them are held.
    spare: usize,
    spare_held: usize,
    /// How many permits each source holds; none that holds none.
    by_source: HashMap<String, usize>,
    waiting: [VecDeque<Waiting>; CLASSES],
}

// === impl Permits ===

impl Permits {
    /// `count` permits, at least one.
    pub(crate) fn new(count: usize) -> Self {
        let count = count.max(1);
        let for_high = usize::from(count >= 3);
        let for_norm = if count >= 2 { (count / 4).max(1) } else { 0 };
        let norm = count - for_high;
        let allowed = [count, norm, norm - for_norm];
        Self(Arc::new(Mutex::new(State {
            allowed,
            held: [0; CLASSES],
            spare: count.div_ceil(2),
            spare_held: 0,
            by_source: HashMap::new(),
            waiting: Default::default(),
        })))
    }

    /// Waits for a permit to read from a source. Who stops waiting loses nothing for the others.
    pub(crate) async fn acquire(&self, priority: Priority, source: &str) -> Permit {
        let class = class(priority);
        let (sender, receiver) = oneshot::channel();
        if let Some(queue) = self.state().waiting.get_mut(class) {
            let source = source.to_owned();
            queue.push_back(Waiting { source, sender });
        }
        self.hand_out();
        // These permits outlive every one who waits, and no sender is dropped before it has sent.
        receiver.await.unwrap_or_else(|_| Permit {
            from: None,
            held: Held {
                class: Some(class),
                source: source.to_owned(),
            },
        })
    }

    /// Gives free permits to those who wait.
    fn hand_out(&self) {
        loop {
            let next = self.state().next();
            let Some((held, sender)) = next else {
                return;
            };
            let from = Some(self.clone());
            if let Err(mut unwanted) = sender.send(Permit { from, held }) {
                unwanted.from = None;
                self.state().give_back(&unwanted.held);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Permits")
            .field("allowed", &state.allowed)
            .field("held", &state.held)
            .finish_non_exhaustive()
    }
}

// === impl State ===

impl State {
    /// The next one who waits and may have a permit; it counts as held.
    fn next(&mut self) -> Option<(Held, oneshot::Sender<Permit>)> {
        let (class, waiting) = match (0..CLASSES).find(|class| self.may_take(*class)) {
            Some(class) => {
                let waiting = self.waiting.get_mut(class)?.pop_front()?;
                *self.held.get_mut(class)? += 1;
                (Some(class), waiting)
            }
            None => (None, self.next_spare()?),
        };
        let Waiting { source, sender } = waiting;
        *self.by_source.entry(source.clone()).or_default() += 1;
        Some((Held { class, source }, sender))
    }

    /// The most urgent who waits to read from a source of which nothing is read.
    fn next_spare(&mut self) -> Option<Waiting> {
        if self.spare_held >= self.spare {
            return None;
        }
        for queue in &mut self.waiting {
            let is_idle = |waiting: &Waiting| !self.by_source.contains_key(&waiting.source);
            if let Some(at) = queue.iter().position(is_idle) {
                self.spare_held += 1;
                return queue.remove(at);
            }
        }
        None
    }

    fn may_take(&self, class: usize) -> bool {
        let waits = self
            .waiting
            .get(class)
            .is_some_and(|queue| !queue.is_empty());
        // Each bound is on a class together with all less urgent ones, so a class must fit into
        // its own bound and into those of the classes above it.
        let fits = |at: usize| {
            let held: usize = self.held.iter().skip(at).sum();
            self.allowed.get(at).is_some_and(|allowed| held < *allowed)
        };
        waits && (0..=class).all(fits)
    }

    fn give_back(&mut self, permit: &Held) {
        let held = match permit.class {
            Some(class) => self.held.get_mut(class),
            None => Some(&mut self.spare_held),
        };
        if let Some(held) = held {
            *held = held.saturating_sub(1);
        }
        if let Some(held) = self.by_source.get_mut(&permit.source) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.by_source.remove(&permit.source);
            }
        }
    }
}

// === impl Permit ===

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permits) = self.from.take() {
            permits.state().give_back(&self.held);
            permits.hand_out();
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

/// The most urgent is 0.
const fn class(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Norm => 1,
        Priority::Low => 2,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    /// The permits that this many callers of a priority get at once.
    fn take(permits: &Permits, priority: Priority, callers: usize) -> Vec<Permit> {
        (0..callers)
            .filter_map(|_| permits.acquire(priority, "main").now_or_never())
            .collect()
    }

    #[test]
    fn upkeep_leaves_permits_for_pushes_and_for_who_waits() {
        for (count, low, low_and_norm) in [(1, 1, 1), (2, 1, 2), (3, 1, 2), (4, 2, 3), (8, 5, 7)] {
            let permits = Permits::new(count);
            let lows = take(&permits, Priority::Low, 20);
            assert_eq!(lows.len(), low, "{count}");
            let norms = take(&permits, Priority::Norm, 20);
            assert_eq!(low + norms.len(), low_and_norm, "{count}");
            let highs = take(&permits, Priority::High, 20);
            assert_eq!(low + norms.len() + highs.len(), count);
            drop((lows, norms, highs));
            assert_eq!(take(&permits, Priority::High, 20).len(), count);
        }
        assert_eq!(take(&Permits::new(0), Priority::Low, 2).len(), 1);
    }

    #[test]
    fn a_slow_source_leaves_a_permit_for_each_of_some_others() {
        let permits = Permits::new(2);
        let get = |priority, source| permits.acquire(priority, source).now_or_never();
        let slow = take(&permits, Priority::Norm, 20);
        assert_eq!(slow.len(), 2);
        let mut waiting = Box::pin(permits.acquire(Priority::High, "main"));
        assert!(waiting.as_mut().now_or_never().is_none());
        // Behind others of the slow source, and for upkeep as well; but one at a time.
        let other = get(Priority::Low, "other");
        assert!(other.is_some() && get(Priority::High, "other").is_none());
        assert!(get(Priority::High, "third").is_none());
        drop(other);
        let third = get(Priority::Norm, "third");
        assert!(third.is_some());
        drop(slow);
        assert!(waiting.now_or_never().is_some());
    }

    #[tokio::test]
    async fn the_most_urgent_who_waits_is_next_and_among_equals_the_first() {
        let permits = Permits::new(1);
        let mut held = permits.acquire(Priority::Low, "main").await;
        let order = [
            ("low 1", Priority::Low),
            ("norm 1", Priority::Norm),
            ("high 1", Priority::High),
            ("norm 2", Priority::Norm),
            ("high 2", Priority::High),
        ];
        let mut waiting: Vec<_> = order
            .into_iter()
            .map(|(name, priority)| (name, Box::pin(permits.acquire(priority, "main"))))
            .collect();
        for (name, future) in &mut waiting {
            assert!(future.now_or_never().is_none(), "{name}");
        }
        let mut served = Vec::new();
        while !waiting.is_empty() {
            drop(held);
            let at = waiting
                .iter_mut()
                .enumerate()
                .find_map(|(at, (_, future))| future.now_or_never().map(|permit| (at, permit)));
            let (at, permit) = at.expect("somebody is served");
            served.push(waiting.remove(at).0);
            held = permit;
        }
        assert_eq!(served, ["high 1", "high 2", "norm 1", "norm 2", "low 1"]);
    }

    #[tokio::test]
    async fn who_stops_waiting_takes_no_permit_with_them() {
        let permits = Permits::new(1);
        let held = permits.acquire(Priority::Norm, "main").await;
        let mut gone = Box::pin(permits.acquire(Priority::High, "main"));
        assert!(gone.as_mut().now_or_never().is_none());
        let mut served = Box::pin(permits.acquire(Priority::High, "main"));
        assert!(served.as_mut().now_or_never().is_none());
        drop(held);
        // It was served, and goes away before it noticed.
        drop(gone);
        assert!(served.now_or_never().is_some());
        assert!(
            permits
                .acquire(Priority::Low, "main")
                .now_or_never()
                .is_some()
        );
    }

    proptest! {
        #[test]
        fn permits_are_never_more_than_there_are_and_never_lost(
            count in 1_usize..9,
            steps in prop::collection::vec((0_usize..3, any::<bool>(), 0_usize..20), 1..80),
        ) {
            let permits = Permits::new(count);
            let mut held: Vec<Permit> = Vec::new();
            let mut waiting = Vec::new();
            for (class, release, at) in steps {
                if release && !held.is_empty() {
                    held.remove(at % held.len());
                } else {
                    waiting.push(Box::pin(permits.acquire(Priority::ALL[class], "main")));
                }
                if at == 0 {
                    waiting.pop();
                }
                let mut still = Vec::new();
                for mut future in waiting {
                    match future.as_mut().now_or_never() {
                        Some(permit) => held.push(permit),
                        None => still.push(future),
                    }
                }
                waiting = still;
                prop_assert!(held.len() <= count);
            }
            drop((held, waiting));
            prop_assert_eq!(take(&permits, Priority::High, 20).len(), count);
        }
    }
}
