//! Whether a process can do its work: named checks that its parts keep up to date.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

/// Named checks; cheap to clone. A process is ready when all are true.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<String, bool>>>);

impl Readiness {
    /// Notes whether a part is ready. A part that starts later says `false` first.
    pub fn set(&self, name: &str, ready: bool) {
        let mut checks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = checks.insert(name.to_owned(), ready);
        if before.is_some_and(|before| before != ready) {
            let state = if ready { "ready" } else { "not ready" };
            tracing::info!(check = name, ready, "`{name}` is {state}");
        }
    }

    /// Every check with its state.
    pub fn checks(&self) -> BTreeMap<String, bool> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether all are ready.
    pub fn is_ready(&self) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .all(|ready| *ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_check_that_fails_is_enough() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready());
        readiness.set("bus", false);
        readiness.set("store", true);
        assert!(!readiness.is_ready());
        readiness.set("bus", true);
        assert!(readiness.is_ready());
    }
}
