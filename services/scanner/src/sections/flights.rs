//! Layers that this process reads: one at a time each.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use model::Digest;
use tokio::sync::watch;

/// What this process reads now.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Digest, watch::Receiver<()>>>>);

/// A layer that this process reads, until this is dropped.
pub(crate) struct Flight {
    name: Digest,
    flights: Flights,
    /// Dropped after the name is free, which wakes who waits.
    _ended: watch::Sender<()>,
}

// === impl Flights ===

impl Flights {
    /// `None`: this process reads it already.
    pub(super) fn enter(&self, name: Digest) -> Option<Flight> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.contains_key(&name) {
            return None;
        }
        let (ended, receiver) = watch::channel(());
        all.insert(name, receiver);
        Some(Flight {
            name,
            flights: self.clone(),
            _ended: ended,
        })
    }

    pub(super) fn ended(&self, name: &Digest) -> Option<watch::Receiver<()>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(name).cloned()
    }
}

// === impl Flight ===

impl Drop for Flight {
    fn drop(&mut self) {
        let mut all = self
            .flights
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.name);
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
