//! The messages that this process holds, with the newest handle to acknowledge each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_nats::Subject;

/// Messages of one consumer, by stream sequence; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(Arc<Mutex<HashMap<u64, Subject>>>);

/// One message that is held; dropping it lets the message go.
#[derive(Debug)]
pub(crate) struct Hold {
    held: Held,
    sequence: u64,
}

// === impl Held ===

impl Held {
    /// Holds a message. `None`: it is held already, and the newer handle is kept.
    pub(crate) fn take(&self, sequence: u64, handle: Subject) -> Option<Hold> {
        let known = self.map(|map| map.insert(sequence, handle));
        known.is_none().then(|| Hold {
            held: self.clone(),
            sequence,
        })
    }

    /// The handles of all that is held.
    pub(crate) fn handles(&self) -> Vec<Subject> {
        self.map(|map| map.values().cloned().collect())
    }

    fn map<T>(&self, work: impl FnOnce(&mut HashMap<u64, Subject>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Hold ===

impl Hold {
    /// The newest handle.
    pub(crate) fn handle(&self) -> Option<Subject> {
        self.held.map(|map| map.get(&self.sequence).cloned())
    }

    /// The stream sequence.
    pub(crate) const fn sequence(&self) -> u64 {
        self.sequence
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
}
