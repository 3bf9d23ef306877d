//! Groups: alerts that arrive within a window and go out as one notification.
//!
//! A group lives in memory alone. Its alerts stay unacknowledged in the sink's consumer while the
//! window runs, kept alive by signs of life, and each is acknowledged after the notification was
//! delivered. So a crash loses nothing: they come again and are grouped again. Alerts that come
//! again have groups of their own, apart from new ones: where a process died between sending and
//! acknowledging, the same alerts make the same notification, under the same id.
//!
//! Places are bounded. When all are taken the oldest group goes out before its time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use model::Slug;
use tokio::sync::{Notify, oneshot};

use crate::sinks::Item;

/// How many alerts of a sink wait for the end of a window.
pub(crate) const PLACES: usize = 256;
/// A group of so many is full.
pub(crate) const MEMBERS_MAX: usize = 200;

/// What alerts of one group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) tenant: Slug,
    pub(crate) about: String,
    /// Whether they were delivered before.
    pub(crate) again: bool,
}

/// How a notification ended, as each of its members is told.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    Delivered,
    Later(String),
    Refused(String),
}

/// The open groups of a sink.
#[derive(Debug, Default)]
pub(crate) struct Groups(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<Key, Open>,
    /// The number of the next group.
    next: u64,
}

#[derive(Debug)]
struct Open {
    number: u64,
    members: Vec<Member>,
    close: Arc<Notify>,
    is_closing: bool,
}

/// An alert that waits.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) item: Item,
    pub(crate) ended: oneshot::Sender<Ended>,
}

/// What who brought an alert does.
#[derive(Debug)]
pub(crate) enum Joined<'a> {
    /// It was the first: it waits for the window's end, then sends.
    Leads(Lead<'a>),
    /// Another sends.
    Waits(oneshot::Receiver<Ended>),
}

/// The duty to send a group. Dropping it lets all members go: they come again.
#[derive(Debug)]
pub(crate) struct Lead<'a> {
    groups: &'a Groups,
    key: Key,
    number: u64,
    close: Arc<Notify>,
}

// === impl Groups ===

impl Groups {
    pub(crate) fn join(&self, key: Key, item: Item) -> Joined<'_> {
        let mut state = self.lock();
        let taken = state.taken();
        if taken + 1 >= PLACES {
            let oldest = state.open.values_mut().min_by_key(|open| open.number);
            oldest.into_iter().for_each(Open::close_soon);
        }
        let (ended, receiver) = oneshot::channel();
        let member = Member { item, ended };
        if let Some(open) = state.open.get_mut(&key) {
            open.members.push(member);
            if open.members.len() >= MEMBERS_MAX {
                open.close_soon();
            }
            return Joined::Waits(receiver);
        }
        let (number, close) = (state.next, Arc::new(Notify::new()));
        state.next += 1;
        let open = Open {
            number,
            members: vec![member],
            close: Arc::clone(&close),
            is_closing: false,
        };
        state.open.insert(key.clone(), open);
        Joined::Leads(Lead {
            groups: self,
            key,
            number,
            close,
        })
    }

    /// How many alerts wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.lock().taken()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn taken(&self) -> usize {
        self.open.values().map(|open| open.members.len()).sum()
    }
}

impl Open {
    fn close_soon(&mut self) {
        if !self.is_closing {
            self.is_closing = true;
            self.close.notify_one();
        }
    }
}

// === impl Lead ===

impl Lead<'_> {
    /// Ends when the group is full, or its places are needed.
    pub(crate) async fn is_full(&self) {
        self.close.notified().await;
    }

    /// Closes the group: who comes from now on begins another.
    pub(crate) fn close(&self) -> Vec<Member> {
        let mut state = self.groups.lock();
        let own = state
            .open
            .get(&self.key)
            .is_some_and(|open| open.number == self.number);
        let closed = own.then(|| state.open.remove(&self.key)).flatten();
        closed.map(|open| open.members).unwrap_or_default()
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        drop(self.close());
    }
}
