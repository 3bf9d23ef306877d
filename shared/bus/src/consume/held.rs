//! The messages that this process holds, with the newest handle to acknowledge each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_nats::Subject;

/// Messages of one consumer, by stream sequence; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(Arc<Mutex<HashMap<u64, Entry>>>);

/// One message that is held; dropping it lets the message go.
#[derive(Debug)]
pub(crate) struct Hold {
    held: Held,
    sequence: u64,
}

#[derive(Debug)]
struct Entry {
    handle: Subject,
    /// Whether its handler began.
    begun: bool,
    /// Whether it has a record of attempts, which must be kept true.
    recorded: bool,
}

// === impl Held ===

impl Held {
    /// Holds a message. `None`: it is held already, and the newer handle is kept.
    pub(crate) fn take(&self, sequence: u64, handle: Subject) -> Option<Hold> {
        self.map(|map| {
            if let Some(entry) = map.get_mut(&sequence) {
                entry.handle = handle;
                return None;
            }
            let entry = Entry {
                handle,
                begun: false,
                recorded: false,
            };
            map.insert(sequence, entry);
            Some(Hold {
                held: self.clone(),
                sequence,
            })
        })
    }

    /// The handles of all that is held.
    pub(crate) fn handles(&self) -> Vec<Subject> {
        self.map(|map| map.values().map(|entry| entry.handle.clone()).collect())
    }

    /// Messages whose handlers run without a record; from now on they have one.
    pub(crate) fn unrecorded(&self) -> Vec<u64> {
        self.map(|map| {
            let found = map
                .iter_mut()
                .filter(|(_, entry)| entry.begun && !entry.recorded);
            found
                .map(|(sequence, entry)| {
                    entry.recorded = true;
                    *sequence
                })
                .collect()
        })
    }

    /// How many are held.
    pub(crate) fn count(&self) -> usize {
        self.map(|map| map.len())
    }

    fn map<T>(&self, work: impl FnOnce(&mut HashMap<u64, Entry>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Hold ===

impl Hold {
    /// The newest handle.
    pub(crate) fn handle(&self) -> Option<Subject> {
        self.entry(|entry| entry.handle.clone())
    }

    /// The stream sequence.
    pub(crate) const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Its handler begins.
    pub(crate) fn begin(&self) {
        self.entry(|entry| entry.begun = true);
    }

    /// Whether its handler began.
    pub(crate) fn has_begun(&self) -> bool {
        self.entry(|entry| entry.begun).unwrap_or(false)
    }

    /// It has a record of attempts from now on.
    pub(crate) fn record(&self) {
        self.entry(|entry| entry.recorded = true);
    }

    /// Whether it has a record of attempts.
    pub(crate) fn is_recorded(&self) -> bool {
        self.entry(|entry| entry.recorded).unwrap_or(false)
    }

    fn entry<T>(&self, work: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.held.map(|map| map.get_mut(&self.sequence).map(work))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.map(|map| map.remove(&self.sequence));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_handle_is_kept_and_the_second_copy_dropped() {
        let held = Held::default();
        let first = held.take(7, "first".into()).unwrap();
        assert!(held.take(7, "second".into()).is_none());
        assert_eq!(first.handle().as_deref(), Some("second"));
        drop(first);
        assert!(held.handles().is_empty());
        assert!(held.take(7, "third".into()).is_some());
    }

    #[test]
    fn only_what_runs_without_a_record_is_announced_and_that_once() {
        let held = Held::default();
        let waiting = held.take(1, "a".into()).unwrap();
        let running = held.take(2, "b".into()).unwrap();
        let again = held.take(3, "c".into()).unwrap();
        running.begin();
        again.begin();
        again.record();
        assert_eq!(held.unrecorded(), [2]);
        assert!(running.is_recorded() && !waiting.is_recorded());
        assert!(held.unrecorded().is_empty());
    }
}
