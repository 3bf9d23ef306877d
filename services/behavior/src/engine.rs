//! The pass over a batch: remembers what happened and shows each event to those who look at its
//! kind. It waits for nothing and has no effects: what it finds goes to who called.

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use model::{
    Severity,
    runtime::{ExecutedFile, HostFacts, ProcessKey, ProcessSeen},
};

use crate::{
    container::Watched,
    detectors::{Actor, Definition, Look, Sighting, Start, that_look_at},
    drift::{self, Judgement},
    processes::Program,
    programs,
    wire::{Activity, Batch, Event, Exec, File},
};

/// Containers that are remembered of one node.
const CONTAINERS_MAX: usize = 4_096;

/// A node that is watched.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) boot: String,
    pub(crate) host: Option<Arc<HostFacts>>,
    pub(crate) containers: HashMap<Box<str>, Watched>,
    /// When something came from it last, by our clock.
    pub(crate) heard_at: Timestamp,
    /// When it was last written whom its containers speak with.
    pub(crate) connections_at: Timestamp,
}

/// What a pass found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What detectors saw.
    pub(crate) drafts: Vec<Draft>,
    /// Files that ran and are not of the image's own layers.
    pub(crate) suspects: Vec<Suspect>,
    /// What is in `drafts` already.
    seen: HashSet<u64>,
    /// Since when the suspects wait, where they do.
    pub(crate) waited_since: Option<Timestamp>,
}

/// A detection that belongs to no incident yet.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) container: Box<str>,
    pub(crate) definition: &'static Definition,
    pub(crate) severity: Severity,
    pub(crate) subject: String,
    pub(crate) title: String,
    /// With arguments as they were.
    pub(crate) process: ProcessSeen,
    pub(crate) ancestors: Vec<ProcessSeen>,
    pub(crate) evidence: Vec<model::runtime::Evidence>,
    pub(crate) at: Timestamp,
}

/// A file that ran and must be compared with the image's.
#[derive(Clone, Debug)]
pub(crate) struct Suspect {
    pub(crate) container: Box<str>,
    pub(crate) file: ExecutedFile,
    /// Whether an interpreter or a loader was told to run it.
    pub(crate) is_script: bool,
    pub(crate) process: ProcessSeen,
    pub(crate) ancestors: Vec<ProcessSeen>,
    pub(crate) at: Timestamp,
}

/// A pass through the events of one container.
struct Pass<'a> {
    id: &'a str,
    booted_at: Timestamp,
    /// Whether the events come again: what is stored already is looked up and not guessed.
    again: bool,
    found: &'a mut Found,
}

/// What stands for a rule and what it is about.
pub(crate) fn hash_of(rule: &str, subject: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (rule, subject).hash(&mut hasher);
    hasher.finish()
}

// === impl Node ===

impl Node {
    /// Looks at all events of a batch; those of containers that it does not name are skipped.
    pub(crate) fn take(&mut self, batch: &Batch<'_>, again: bool, found: &mut Found) {
        self.begin(batch.boot);
        let mut current: Option<(u16, &str, &mut Watched)> = None;
        for event in &batch.events {
            let is_same = matches!(&current, Some((number, ..)) if *number == event.container);
            if !is_same {
                let Some(id) = batch.containers.get(usize::from(event.container)) else {
                    continue;
                };
                current = watch(&mut self.containers, id).map(|one| (event.container, *id, one));
            }
            let Some((_, id, watched)) = &mut current else {
                continue;
            };
            if !is_same {
                watched.note_beginning(batch.booted_at);
            }
            let mut pass = Pass {
                id,
                booted_at: batch.booted_at,
                again,
                found,
            };
            pass.event(watched, event);
        }
    }

    /// Another boot: processes are others, and times count from another moment.
    pub(crate) fn begin(&mut self, boot: &str) {
        if self.boot != boot {
            boot.clone_into(&mut self.boot);
            self.containers.values_mut().for_each(Watched::reset);
        }
    }
}

/// The container with this id; `None` where too many are remembered.
pub(crate) fn watch<'a>(
    containers: &'a mut HashMap<Box<str>, Watched>,
    id: &str,
) -> Option<&'a mut Watched> {
    if !containers.contains_key(id) {
        if containers.len() >= CONTAINERS_MAX {
            return None;
        }
        containers.insert(id.into(), Watched::default());
    }
    containers.get_mut(id)
}

// === impl Pass ===

impl Pass<'_> {
    fn event(&mut self, watched: &mut Watched, event: &Event<'_>) {
        watched.touch(event.at_ns);
        match &event.activity {
            Activity::Exec(exec) => self.exec(watched, event, exec),
            Activity::Fork { child } => watched.processes.fork(event.process, *child),
            Activity::Exit {} => watched.processes.exit(event.process),
            Activity::Connect(flow) => {
                watched.note_flow(flow);
                self.show(watched, event, Look::Flow, |detector, actor| {
                    detector.connected(flow, actor)
                });
            }
            Activity::Listen(listen) => {
                watched.note_listen(listen);
                self.show(watched, event, Look::Listen, |detector, actor| {
                    detector.listening(listen, actor)
                });
            }
            Activity::Bind(_) => {}
            Activity::Open(open) => {
                watched.note_file(open.path);
                self.show(watched, event, Look::Open, |detector, actor| {
                    detector.opened(open, actor)
                });
            }
            Activity::Syscall(call) => {
                self.show(watched, event, Look::Call, |detector, actor| {
                    detector.called(call, actor)
                });
            }
        }
    }

    /// Shows an event to the detectors that look at its kind.
    fn show(
        &mut self,
        watched: &Watched,
        event: &Event<'_>,
        look: Look,
        ask: impl Fn(&dyn crate::detectors::Detector, &Actor<'_>) -> Option<Sighting>,
    ) {
        let process = watched.processes.get(event.process);
        let actor = Actor {
            process: event.process,
            program: process.map(|process| &*process.program),
            container: watched,
            at_ns: event.at_ns,
        };
        for detector in that_look_at(look) {
            if let Some(sighting) = ask(*detector, &actor) {
                let seen = process.map_or_else(
                    || unknown(event.process),
                    |process| process.program.seen(event.process),
                );
                let parent = process.map(|process| process.parent);
                self.add(
                    watched,
                    event.at_ns,
                    detector.definition(),
                    sighting,
                    (seen, parent),
                );
            }
        }
    }

    fn exec(&mut self, watched: &mut Watched, event: &Event<'_>, exec: &Exec<'_>) {
        watched.note_start(exec.injected, event.process.started_ns);
        let name = programs::name(exec.file.path, &exec.args);
        let kind = programs::kind(name);
        let program = Arc::new(Program::of(exec, kind));
        // Who made the process; where that is not known, what the process ran before.
        let parent = watched.processes.get(exec.parent);
        let parent = parent.or_else(|| watched.processes.get(event.process));
        let parent = parent.map(|process| Arc::clone(&process.program));
        watched
            .processes
            .exec(event.process, exec.parent, Arc::clone(&program));
        let start = Start {
            exec,
            name,
            kind,
            parent: parent.as_deref(),
            container: watched,
            at_ns: event.at_ns,
            line: OnceCell::new(),
        };
        for detector in that_look_at(Look::Start) {
            if let Some(sighting) = detector.started(&start) {
                let seen = program.seen(event.process);
                let by = (seen, Some(exec.parent));
                self.add(watched, event.at_ns, detector.definition(), sighting, by);
            }
        }
        self.suspect(watched, event, exec, &program);
        if let Some(parent) = parent.filter(|_| kind.is(programs::Kind::SHELL)) {
            watched.note_shell(&parent.path);
        }
    }

    fn suspect(
        &mut self,
        watched: &Watched,
        event: &Event<'_>,
        exec: &Exec<'_>,
        program: &Program,
    ) {
        let mut one = |file: &File<'_>, is_script: bool| {
            if !drift::is_suspect(exec, file) {
                return;
            }
            let known = watched.judgement(drift::hash_of(file.path, file.digest));
            if known == Some(Judgement::Unchanged) {
                return;
            }
            self.found.suspects.push(Suspect {
                container: self.id.into(),
                file: ExecutedFile {
                    path: file.path.to_owned(),
                    origin: file.origin,
                    digest: file.digest,
                    mount: file.mount.map(str::to_owned),
                },
                is_script,
                process: program.seen(event.process),
                ancestors: watched.processes.ancestors(exec.parent),
                at: time(self.booted_at, event.at_ns),
            });
        };
        one(&exec.file, false);
        if let Some(script) = &exec.script {
            one(script, true);
        }
    }

    fn add(
        &mut self,
        watched: &Watched,
        at_ns: u64,
        definition: &'static Definition,
        sighting: Sighting,
        (process, parent): (ProcessSeen, Option<ProcessKey>),
    ) {
        let at = time(self.booted_at, at_ns);
        let hash = hash_of(definition.rule, &sighting.subject);
        let of_container = hash ^ hash_of("container", self.id);
        let is_stored = !self.again && watched.is_raised(hash, at);
        if is_stored || !self.found.seen.insert(of_container) {
            return;
        }
        let ancestors = parent.map(|parent| watched.processes.ancestors(parent));
        self.found.drafts.push(Draft {
            container: self.id.into(),
            definition,
            severity: sighting.severity.unwrap_or(definition.severity),
            subject: sighting.subject,
            title: sighting.title,
            process,
            ancestors: ancestors.unwrap_or_default(),
            evidence: sighting.evidence,
            at,
        });
    }
}

/// A process of which only the key is known.
fn unknown(key: ProcessKey) -> ProcessSeen {
    ProcessSeen {
        key,
        ..ProcessSeen::default()
    }
}

/// A moment of a boot; the end of the calendar where a clock is that wrong.
fn time(booted_at: Timestamp, at_ns: u64) -> Timestamp {
    let since = SignedDuration::from_nanos(i64::try_from(at_ns).unwrap_or(i64::MAX));
    booted_at.checked_add(since).unwrap_or(Timestamp::MAX)
}
