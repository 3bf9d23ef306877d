//! Order: what is told of one alert reaches a receiver in the order in which it happened.
//!
//! Deliveries run beside each other, and one that failed comes again later; without an order an
//! alert could be resolved at the receiver before it is raised. So what is told of a fingerprint
//! waits for what stands before it in the stream and is not delivered yet: in place while that is
//! being delivered, and by coming again where it failed.
//!
//! Known is what this process handles or handled. What failed here may be delivered by another
//! process, so it is waited for no longer than it may take to come again. Between processes the
//! order is not kept; a receiver has the event's time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use model::{Fingerprint, Slug};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

/// Those that arrive together are known here after so long, in whatever order they begin.
const ARRIVE: Duration = Duration::from_millis(20);
/// What failed comes again after ten minutes at the latest, if it comes here.
const FORGET: Duration = Duration::from_mins(12);
/// From so many fingerprints on, those that are not waited for any more are looked for.
const LINES_MANY: usize = 10_000;

/// Whose alert it is, and which one.
pub(crate) type Key = (Slug, Fingerprint);

/// What is known of what a sink is to be told.
#[derive(Debug)]
pub(crate) struct Orders {
    /// How long what failed is waited for.
    forget: Duration,
    lines: Mutex<HashMap<Key, BTreeMap<u64, Standing>>>,
    changed: Notify,
}

/// A place in a line; it must end.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    orders: &'a Orders,
    key: Key,
    sequence: u64,
    is_done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is being delivered.
    Here,
    /// It failed then, and comes again.
    Away(Instant),
}

// === impl Orders ===

impl Orders {
    /// Waits for what stands before it, if that is `in_place`. `None`: something that stands before
    /// it failed, so it must come again too.
    pub(crate) async fn turn(&self, key: Key, sequence: u64, in_place: bool) -> Option<Turn<'_>> {
        let turn = self.enter(key, sequence);
        sleep(ARRIVE).await;
        loop {
            let changed = self.changed.notified();
            match self.before(&turn.key, sequence) {
                Some(Standing::Away(_)) => return None,
                Some(Standing::Here) if in_place => changed.await,
                _ => return Some(turn),
            }
        }
    }

    fn enter(&self, key: Key, sequence: u64) -> Turn<'_> {
        let mut lines = self.lock();
        if lines.len() >= LINES_MANY {
            lines.retain(|_, line| {
                line.retain(|_, standing| standing.counts(self.forget));
                !line.is_empty()
            });
        }
        let line = lines.entry(key.clone()).or_default();
        line.insert(sequence, Standing::Here);
        Turn {
            orders: self,
            key,
            sequence,
            is_done: false,
        }
    }

    /// What stands before a sequence: what failed, or else what is being delivered.
    fn before(&self, key: &Key, sequence: u64) -> Option<Standing> {
        let mut lines = self.lock();
        let line = lines.get_mut(key)?;
        line.retain(|_, standing| standing.counts(self.forget));
        let before = || line.range(..sequence).map(|(_, standing)| *standing);
        let away = before().find(|standing| matches!(standing, Standing::Away(_)));
        away.or_else(|| before().next())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, BTreeMap<u64, Standing>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            forget: FORGET,
            lines: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

// === impl Turn ===

impl Turn<'_> {
    /// It needs not come again.
    pub(crate) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut lines = self.orders.lock();
        if let Some(line) = lines.get_mut(&self.key) {
            if self.is_done {
                line.remove(&self.sequence);
            } else {
                line.insert(self.sequence, Standing::Away(Instant::now()));
            }
            if line.is_empty() {
                lines.remove(&self.key);
            }
        }
        drop(lines);
        self.orders.changed.notify_waiters();
    }
}

// === impl Standing ===

impl Standing {
    fn counts(self, forget: Duration) -> bool {
        match self {
            Self::Here => true,
            Self::Away(since) => since.elapsed() < forget,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn key(name: &str) -> Key {
        (Slug::default_tenant(), Fingerprint(name.to_owned()))
    }

    #[tokio::test]
    async fn what_follows_waits_for_what_is_being_delivered_and_others_do_not() {
        let orders = Orders::default();
        let first = orders.turn(key("a"), 1, true).await.unwrap();
        let mut second = std::pin::pin!(orders.turn(key("a"), 2, true));
        assert!(timeout(ARRIVE * 3, second.as_mut()).await.is_err());
        assert!(orders.turn(key("b"), 3, true).await.is_some());
        // What goes out together does not wait.
        assert!(orders.turn(key("a"), 4, false).await.is_some());
        first.done();
        second.await.unwrap().done();
        // What was told leaves nothing behind; the others did not say that they are done.
        let mut left: Vec<_> = orders.lock().keys().cloned().collect();
        left.sort();
        assert_eq!(left, [key("a"), key("b")]);
    }

    #[tokio::test]
    async fn those_that_arrive_together_are_in_order_whichever_begins() {
        let orders = Orders::default();
        let mut second = std::pin::pin!(orders.turn(key("a"), 2, true));
        assert!(timeout(Duration::ZERO, second.as_mut()).await.is_err());
        let first = orders.turn(key("a"), 1, true).await.unwrap();
        assert!(timeout(ARRIVE * 3, second.as_mut()).await.is_err());
        first.done();
        second.await.unwrap().done();
        assert!(orders.lock().is_empty());
    }

    #[tokio::test]
    async fn what_failed_holds_up_what_follows_until_it_is_delivered() {
        let orders = Orders::default();
        drop(orders.turn(key("a"), 1, true).await.unwrap());
        for in_place in [true, false] {
            assert!(orders.turn(key("a"), 2, in_place).await.is_none());
        }
        orders.turn(key("a"), 1, true).await.unwrap().done();
        assert!(orders.turn(key("a"), 2, true).await.is_some());
    }

    #[tokio::test]
    async fn what_failed_and_does_not_come_again_is_forgotten() {
        let orders = Orders {
            forget: Duration::ZERO,
            ..Orders::default()
        };
        drop(orders.turn(key("a"), 1, true).await.unwrap());
        assert!(orders.turn(key("a"), 2, true).await.is_some());
    }
}
