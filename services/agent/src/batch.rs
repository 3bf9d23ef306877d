//! A batch that is being filled.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use model::runtime::{Activity, Drop, ProcessKey, RuntimeEvent};
use serde::{Deserialize, Serialize};

/// Events of a batch.
pub(crate) const EVENTS_MAX: usize = 500;
/// Bytes of a batch, estimated: above them a message would not travel as one.
const BYTES_MAX: usize = 200 << 10;
/// How long an event waits for others.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(1);
/// Bytes of an event beside its texts.
const EVENT_BYTES: usize = 160;

/// What a container did: an event with its container's id. One line of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The container's id.
    pub container: String,
    /// Nanoseconds since the boot.
    pub at_ns: u64,
    /// The process.
    pub process: ProcessKey,
    /// What it did.
    pub activity: Activity,
}

/// Events and drops that go together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) containers: Vec<String>,
    pub(crate) events: Vec<RuntimeEvent>,
    pub(crate) drops: Vec<Drop>,
    indexes: HashMap<String, u16>,
    bytes: usize,
    begun: Option<Instant>,
}

// === impl Batch ===

impl Batch {
    /// Adds an event. The caller looks whether it is full after each.
    pub(crate) fn push(&mut self, told: Told) {
        let container = self.index(told.container);
        self.bytes += EVENT_BYTES + texts(&told.activity);
        self.events.push(RuntimeEvent {
            at_ns: told.at_ns,
            container,
            process: told.process,
            activity: told.activity,
        });
        self.begun.get_or_insert_with(Instant::now);
    }

    /// Adds what was counted and not told.
    pub(crate) fn push_drop(&mut self, container: Option<String>, class: &str, count: u64) {
        let container = container.map(|container| self.index(container));
        self.drops.push(Drop {
            container,
            class: class.to_owned(),
            count,
        });
        self.bytes += EVENT_BYTES;
        self.begun.get_or_insert_with(Instant::now);
    }

    /// Whether it must go, for its size.
    pub(crate) fn is_full(&self) -> bool {
        self.events.len() >= EVENTS_MAX || self.drops.len() >= EVENTS_MAX || self.bytes >= BYTES_MAX
    }

    /// Whether it must go, for its size or its age.
    pub(crate) fn is_due(&self) -> bool {
        self.is_full() || self.begun.is_some_and(|begun| begun.elapsed() >= WAIT_MAX)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.drops.is_empty()
    }

    /// Takes what is there; the events in the order in which they happened: they come from two
    /// buffers.
    pub(crate) fn take(&mut self) -> Self {
        let mut batch = std::mem::take(self);
        batch.events.sort_by_key(|event| event.at_ns);
        batch
    }

    fn index(&mut self, container: String) -> u16 {
        if let Some(index) = self.indexes.get(&container) {
            return *index;
        }
        // A batch has at most as many containers as events and drops.
        let index = u16::try_from(self.containers.len()).unwrap_or(u16::MAX);
        self.bytes += container.len();
        self.containers.push(container.clone());
        self.indexes.insert(container, index);
        index
    }
}

fn texts(activity: &Activity) -> usize {
    match activity {
        Activity::Exec(exec) => {
            let args: usize = exec.args.iter().map(|arg| arg.len() + 2).sum();
            let script = exec
                .script
                .as_ref()
                .map_or(0, |script| script.path.len() + 80);
            args + script + exec.file.path.len() + exec.cwd.as_ref().map_or(0, String::len) + 240
        }
        Activity::Open(open) => open.path.len(),
        Activity::Syscall(made) => made.text.as_ref().map_or(0, String::len) + 40,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(at_ns: u64, container: &str, path: &str) -> Told {
        Told {
            container: container.to_owned(),
            at_ns,
            process: ProcessKey::default(),
            activity: Activity::Open(model::runtime::FileOpen {
                path: path.to_owned(),
                write: false,
            }),
        }
    }

    #[test]
    fn events_of_two_buffers_are_put_in_order() {
        let mut batch = Batch::default();
        for (at_ns, container) in [(3, "a"), (1, "b"), (2, "a")] {
            batch.push(told(at_ns, container, "x"));
        }
        let taken = batch.take();
        assert!(batch.is_empty() && batch.begun.is_none());
        assert_eq!(taken.containers, ["a", "b"]);
        let order: Vec<_> = taken
            .events
            .iter()
            .map(|e| (e.at_ns, e.container))
            .collect();
        assert_eq!(order, [(1, 1), (2, 0), (3, 0)]);
    }

    #[test]
    fn a_batch_is_full_by_count_and_by_bytes() {
        let mut batch = Batch::default();
        for at_ns in 0..EVENTS_MAX as u64 {
            assert!(!batch.is_full());
            batch.push(told(at_ns, "a", "x"));
        }
        assert!(batch.is_full() && batch.is_due());
        let mut large = Batch::default();
        let path = "x".repeat(50 << 10);
        for _ in 0..4 {
            assert!(!large.is_full());
            large.push(told(0, "a", &path));
        }
        assert!(large.is_full());
        // And what is full fits a message.
        let taken = large.take();
        let bytes = bus::encode(&taken.events).unwrap().len();
        assert!(bytes < 256 << 10, "{bytes}");
    }
}
