//! Whether a process can do its work: named checks that its parts keep up to date; and what a
//! person should know although it can, as notes.

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

/// Sentences about parts that work with less than they should have, as a cache on a full disk;
/// cheap to clone. They make no process unready: `/readyz` shows them beside the checks.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<RwLock<BTreeMap<String, String>>>);

// === impl Notes ===

impl Notes {
    /// Notes what is the matter with a part; `None` when nothing is any more.
    pub fn set(&self, name: &str, text: Option<String>) {
        let mut notes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match text {
            Some(text) => drop(notes.insert(name.to_owned(), text)),
            None => drop(notes.remove(name)),
        }
    }

    /// Every note.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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

    #[test]
    fn a_note_goes_when_nothing_is_the_matter() {
        let notes = Notes::default();
        notes.set("cache", Some("full".to_owned()));
        notes.set("cache", Some("fuller".to_owned()));
        assert_eq!(notes.all().get("cache").map(String::as_str), Some("fuller"));
        notes.set("cache", None);
        assert!(notes.all().is_empty());
    }
}
