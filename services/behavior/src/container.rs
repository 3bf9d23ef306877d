//! What is remembered of a container while its shard is held here. All of it is bounded, and comes
//! again from reports and from the stream.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;
use model::runtime::{
    Connections, Container, Listen, NetworkFlow, ProcessKey, ProcessNode, Surroundings,
};

use crate::{drift::Judgement, processes::Processes};

/// Things that are remembered to have been detected or found in order.
const NOTES_MAX: usize = 4_096;
/// Connections, ports and files that are remembered.
const RECENT_MAX: usize = 64;
/// Processes that an incident shows.
const SHOWN_MAX: usize = 128;
/// So long after its start a container is said to begin still, nanoseconds.
const BEGINNING_NS: u64 = 60_000_000_000;
/// So long a container is watched that was there before, until what it never did is said to be new.
const ACQUAINTED_NS: u64 = 600_000_000_000;

/// A container that is watched.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// What its runtime tells of it; `None` until the node's next report.
    pub(crate) told: Option<Arc<Container>>,
    pub(crate) processes: Processes,
    /// The first event that was seen of it, nanoseconds since boot.
    first_ns: Option<u64>,
    /// When its first process began, as far as its first events say.
    began_ns: Option<u64>,
    /// Programs that started shells.
    shell_starters: HashSet<Box<str>>,
    /// What was detected and is stored, by a hash of rule and subject.
    raised: HashMap<u64, Raised>,
    /// What became of files that ran, by a hash of path and digest.
    judgements: HashMap<u64, Judgement>,
    /// The number of its last incident.
    pub(crate) incident: Option<u32>,
    /// How many reports of its node in a row did not name it.
    pub(crate) unnamed: u32,
    /// Whether it spoke with somebody new, or at a new port, since that was written.
    pub(crate) has_new_connections: bool,
    flows: Recent<NetworkFlow>,
    listens: Recent<Listen>,
    files: Recent<Box<str>>,
}

/// The time for which a detection is stored.
#[derive(Clone, Copy, Debug)]
struct Raised {
    since: Timestamp,
    /// From here on its incident has to hear of it again, or it would end.
    until: Timestamp,
}

/// The last few of some things, each once.
#[derive(Debug)]
struct Recent<T> {
    items: VecDeque<T>,
    is_cut: bool,
}

// === impl Watched ===

impl Watched {
    /// Something happened in it.
    pub(crate) fn touch(&mut self, at_ns: u64) {
        self.first_ns.get_or_insert(at_ns);
    }

    /// A program was started; the first one began the container, where the runtime did it.
    pub(crate) fn note_start(&mut self, injected: bool, started_ns: u64) {
        let is_first = self.processes.is_empty();
        if is_first && !injected {
            self.began_ns.get_or_insert(started_ns);
        }
    }

    /// When the container was started, where its runtime tells: it knows better than who saw the
    /// first process.
    pub(crate) fn note_beginning(&mut self, booted_at: Timestamp) {
        let started = self.told.as_ref().and_then(|told| told.started_at);
        if let Some(started) = started {
            let since = started.duration_since(booted_at).as_nanos();
            self.began_ns = Some(u64::try_from(since).unwrap_or_default());
        }
    }

    /// Whether the container has begun lately.
    pub(crate) fn is_beginning(&self, at_ns: u64) -> bool {
        self.began_ns
            .is_some_and(|began| at_ns.saturating_sub(began) < BEGINNING_NS)
    }

    /// Whether it was watched for long enough to say that something is new in it.
    pub(crate) fn is_known_well(&self, at_ns: u64) -> bool {
        match (self.began_ns, self.first_ns) {
            (Some(began), _) => at_ns.saturating_sub(began) >= BEGINNING_NS,
            (None, Some(first)) => at_ns.saturating_sub(first) >= ACQUAINTED_NS,
            (None, None) => false,
        }
    }

    /// Whether a process is one that the container's runtime sent in and that has run nothing of
    /// the container yet: it prepares the container, with calls that nobody else should make.
    pub(crate) fn is_preparing(&self, process: ProcessKey, at_ns: u64) -> bool {
        const PREPARING_NS: u64 = 5_000_000_000;
        self.processes.get(process).is_none()
            && at_ns.saturating_sub(process.started_ns) < PREPARING_NS
    }

    /// Notes that a program started a shell.
    pub(crate) fn note_shell(&mut self, starter: &str) {
        let is_known = self.shell_starters.contains(starter);
        if !is_known && self.shell_starters.len() < RECENT_MAX {
            self.shell_starters.insert(starter.into());
        }
    }

    pub(crate) fn has_shell_of(&self, starter: &str) -> bool {
        self.shell_starters.contains(starter)
    }

    /// Whether what this hash stands for is stored already, and its incident need not hear of it.
    pub(crate) fn is_raised(&self, hash: u64, at: Timestamp) -> bool {
        let known = self.raised.get(&hash);
        known.is_some_and(|known| known.since <= at && at < known.until)
    }

    pub(crate) fn note_raised(&mut self, hash: u64, since: Timestamp, until: Timestamp) {
        if self.raised.len() >= NOTES_MAX {
            self.raised.clear();
        }
        self.raised.insert(hash, Raised { since, until });
    }

    pub(crate) fn judgement(&self, hash: u64) -> Option<Judgement> {
        self.judgements.get(&hash).copied()
    }

    pub(crate) fn note_judgement(&mut self, hash: u64, judgement: Judgement) {
        if self.judgements.len() >= NOTES_MAX {
            self.judgements.clear();
        }
        self.judgements.insert(hash, judgement);
    }

    pub(crate) fn note_flow(&mut self, flow: &NetworkFlow) {
        if !self.flows.items.contains(flow) {
            self.flows.push(flow.clone());
            self.has_new_connections = true;
        }
    }

    pub(crate) fn note_listen(&mut self, listen: &Listen) {
        if !self.listens.items.contains(listen) {
            self.listens.push(listen.clone());
            self.has_new_connections = true;
        }
    }

    pub(crate) fn note_file(&mut self, path: &str) {
        if !self.files.items.iter().any(|known| &**known == path) {
            self.files.push(path.into());
        }
    }

    /// Whom it speaks with.
    pub(crate) fn connections(&self) -> Connections {
        Connections {
            flows: self.flows.items.iter().cloned().collect(),
            listens: self.listens.items.iter().cloned().collect(),
            is_cut: self.flows.is_cut || self.listens.is_cut,
        }
    }

    /// Remembers whom it spoke with before it was watched here.
    pub(crate) fn remember(&mut self, before: &Connections) {
        before.flows.iter().for_each(|flow| self.note_flow(flow));
        before
            .listens
            .iter()
            .for_each(|listen| self.note_listen(listen));
        (self.flows.is_cut, self.listens.is_cut) = (before.is_cut, before.is_cut);
        self.has_new_connections = false;
    }

    /// The node booted again: processes and times are others.
    pub(crate) fn reset(&mut self) {
        self.processes.clear();
        (self.first_ns, self.began_ns) = (None, None);
    }

    /// What it did, for an incident; arguments are not masked yet.
    pub(crate) fn surroundings(&self) -> Surroundings {
        let all = self.processes.in_order();
        // The first ones are ancestors, the last ones are news.
        let half = SHOWN_MAX / 2;
        let is_cut = all.len() > SHOWN_MAX;
        let shown = all.iter().enumerate().filter(|(number, _)| {
            !is_cut || *number < half || *number >= all.len().saturating_sub(half)
        });
        let processes = shown.map(|(_, (key, process))| ProcessNode {
            process: process.program.seen(*key),
            parent: process.parent,
            ended: process.ended,
        });
        Surroundings {
            incident: String::new(),
            detections: 0,
            processes: processes.collect(),
            flows: self.flows.items.iter().cloned().collect(),
            listens: self.listens.items.iter().cloned().collect(),
            files: self
                .files
                .items
                .iter()
                .map(|path| String::from(&**path))
                .collect(),
            is_cut: is_cut || self.flows.is_cut || self.listens.is_cut || self.files.is_cut,
        }
    }
}

// === impl Recent ===

impl<T> Recent<T> {
    fn push(&mut self, item: T) {
        if self.items.len() >= RECENT_MAX {
            self.items.pop_front();
            self.is_cut = true;
        }
        self.items.push_back(item);
    }
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            is_cut: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_is_remembered_by_is_bounded() {
        let mut watched = Watched::default();
        for number in 0..10_000_u64 {
            watched.note_raised(number, Timestamp::MIN, Timestamp::MAX);
            watched.note_judgement(number, Judgement::Unchanged);
            watched.note_file(&number.to_string());
            watched.note_shell(&number.to_string());
        }
        assert!(watched.raised.len() <= NOTES_MAX && watched.judgements.len() <= NOTES_MAX);
        let shown = watched.surroundings();
        assert!(shown.files.len() == RECENT_MAX && shown.is_cut);
        assert_eq!(watched.shell_starters.len(), RECENT_MAX);
    }

    #[test]
    fn an_earlier_event_is_no_repetition() {
        let mut watched = Watched::default();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        watched.note_raised(1, at(50), at(90));
        assert!(watched.is_raised(1, at(50)) && watched.is_raised(1, at(89)));
        assert!(!watched.is_raised(1, at(49)) && !watched.is_raised(2, at(60)));
        // An incident that goes on hears of it again.
        assert!(!watched.is_raised(1, at(90)));
    }
}
