//! How a place for sections does, as a note of the process.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
};

use chassis::Notes;
use tracing::{info, warn};

/// A note is shown from this share of the room on: a full cache makes some room at once, so that it
/// is never quite full.
const FULL: f64 = 0.9;

/// The state of one place.
#[derive(Debug)]
pub(super) struct Health {
    notes: Notes,
    /// The note's name.
    name: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Why it does not work.
    failing: Option<String>,
    full: Option<String>,
}

// === impl Health ===

impl Health {
    pub(super) fn new(notes: Notes, name: &'static str) -> Self {
        Self {
            notes,
            name,
            state: Mutex::default(),
        }
    }

    /// It does not work; the first time in a row this is worth a warning.
    pub(super) fn fails(&self, why: &impl Display) {
        let text = format!("does without: {why:#}");
        let was_failing = self.update(|state| state.failing.replace(text).is_some());
        if !was_failing {
            let name = self.name;
            warn!("the {name} does not work, and layers may be read again: {why:#}");
        }
    }

    /// It works.
    pub(super) fn works(&self) {
        if self.is_failing() && self.update(|state| state.failing.take().is_some()) {
            info!("the {} works again", self.name);
        }
    }

    /// How full it is.
    pub(super) fn fills(&self, bytes: u64, bytes_max: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
        let share = bytes as f64 / bytes_max.max(1) as f64;
        let text = (share >= FULL).then(|| {
            format!(
                "full: {bytes} of {bytes_max} bytes; the oldest layers go and may be read again"
            )
        });
        self.update(|state| state.full = text);
    }

    pub(super) fn is_failing(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failing.is_some()
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        let note = state.failing.as_ref().or(state.full.as_ref()).cloned();
        self.notes.set(self.name, note);
        result
    }
}
