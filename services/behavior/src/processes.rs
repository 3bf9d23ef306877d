//! The processes of a container: which made which, and what each runs.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use model::runtime::{ProcessKey, ProcessSeen};

use crate::{
    programs::{self, Kind},
    wire::Exec,
};

/// Processes that are remembered of one container; those that ended go first.
const PROCESSES_MAX: usize = 1_024;
/// Ancestors that a detection names.
const ANCESTORS_MAX: usize = 16;
/// Bytes of the arguments that are kept of a process.
const ARGS_BYTES_MAX: usize = 2_048;

/// A program as a process was told to run it.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) path: Box<str>,
    /// The arguments, one after another, each with a zero byte behind it.
    args: Box<str>,
    pub(crate) uid: u32,
    pub(crate) kind: Kind,
}

/// A process of a container.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) parent: ProcessKey,
    pub(crate) program: Arc<Program>,
    pub(crate) ended: bool,
}

/// The processes of a container.
#[derive(Debug, Default)]
pub(crate) struct Processes(HashMap<ProcessKey, Process, BuildHasherDefault<KeyHasher>>);

/// Process keys are two numbers that nobody chooses freely: mixing them is enough.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

// === impl Program ===

impl Program {
    pub(crate) fn of(exec: &Exec<'_>, kind: Kind) -> Self {
        let mut args = String::with_capacity(
            exec.args
                .iter()
                .map(|arg| arg.len().saturating_add(1))
                .sum::<usize>()
                .min(ARGS_BYTES_MAX),
        );
        for arg in &exec.args {
            if args.len().saturating_add(arg.len()) >= ARGS_BYTES_MAX {
                args.push_str("…\0");
                break;
            }
            args.push_str(arg);
            args.push('\0');
        }
        Self {
            path: exec.file.path.into(),
            args: args.into(),
            uid: exec.uid,
            kind,
        }
    }

    /// The arguments as they were.
    pub(crate) fn args(&self) -> Vec<String> {
        let args = self.args.strip_suffix('\0').unwrap_or(&self.args);
        if args.is_empty() && self.args.is_empty() {
            return Vec::new();
        }
        args.split('\0').map(str::to_owned).collect()
    }

    /// The last part of its path.
    pub(crate) fn name(&self) -> &str {
        programs::base(&self.path)
    }

    /// As it is told, with arguments that are not masked yet.
    pub(crate) fn seen(&self, key: ProcessKey) -> ProcessSeen {
        ProcessSeen {
            key,
            path: String::from(&*self.path),
            args: self.args(),
            uid: self.uid,
        }
    }
}

// === impl Processes ===

impl Processes {
    pub(crate) fn get(&self, key: ProcessKey) -> Option<&Process> {
        self.0.get(&key)
    }

    /// A process runs a program now.
    pub(crate) fn exec(&mut self, key: ProcessKey, parent: ProcessKey, program: Arc<Program>) {
        self.make_room();
        let process = Process {
            parent,
            program,
            ended: false,
        };
        self.0.insert(key, process);
    }

    /// A process made another, which runs the same program until it starts one of its own. The
    /// news of that may have come first.
    pub(crate) fn fork(&mut self, parent: ProcessKey, child: ProcessKey) {
        let Some(made) = self.0.get(&parent) else {
            return;
        };
        let program = Arc::clone(&made.program);
        self.make_room();
        self.0.entry(child).or_insert(Process {
            parent,
            program,
            ended: false,
        });
    }

    pub(crate) fn exit(&mut self, key: ProcessKey) {
        if let Some(process) = self.0.get_mut(&key) {
            process.ended = true;
        }
    }

    /// The ancestors of a process, the parent first.
    pub(crate) fn ancestors(&self, parent: ProcessKey) -> Vec<ProcessSeen> {
        let mut found = Vec::new();
        let mut next = parent;
        while found.len() < ANCESTORS_MAX
            && let Some(process) = self.0.get(&next)
        {
            found.push(process.program.seen(next));
            if process.parent == next {
                break;
            }
            next = process.parent;
        }
        found
    }

    /// All of them, the oldest first.
    pub(crate) fn in_order(&self) -> Vec<(ProcessKey, &Process)> {
        let mut all: Vec<_> = self.0.iter().map(|(key, one)| (*key, one)).collect();
        all.sort_by_key(|(key, _)| (key.started_ns, key.pid));
        all
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets those that ended, and where that is not enough the younger half of the others: who
    /// lives long is an ancestor of many.
    fn make_room(&mut self) {
        if self.0.len() < PROCESSES_MAX {
            return;
        }
        self.0.retain(|_, process| !process.ended);
        if self.0.len() < PROCESSES_MAX / 2 {
            return;
        }
        let mut starts: Vec<u64> = self.0.keys().map(|key| key.started_ns).collect();
        starts.sort_unstable();
        let middle = starts.get(PROCESSES_MAX / 4).copied().unwrap_or_default();
        self.0.retain(|key, _| key.started_ns <= middle);
    }
}

// === impl KeyHasher ===

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio's bits: each bit of the input moves many of the upper ones, which are
        // brought down where the table looks.
        let mixed = (self.0.rotate_left(26) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pid: u32) -> ProcessKey {
        ProcessKey {
            pid,
            started_ns: u64::from(pid),
        }
    }

    fn program(path: &str, args: &[&str]) -> Arc<Program> {
        let exec = Exec {
            file: crate::wire::File {
                path,
                ..Default::default()
            },
            args: args.to_vec(),
            ..Exec::default()
        };
        Arc::new(Program::of(&exec, Kind::default()))
    }

    #[test]
    fn ancestors_are_found_over_processes_that_ended() {
        let mut processes = Processes::default();
        processes.exec(key(1), key(0), program("init", &["init"]));
        processes.fork(key(1), key(2));
        processes.exec(key(2), key(1), program("sh", &["sh", "-c", ""]));
        processes.fork(key(2), key(3));
        processes.exit(key(2));
        let ancestors = processes.ancestors(key(3));
        let paths: Vec<_> = ancestors.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, ["sh", "sh", "init"]);
        assert_eq!(ancestors[0].args, ["sh", "-c", ""]);
        // A process that claims to be its own parent ends the walk.
        processes.exec(key(9), key(9), program("odd", &[]));
        assert_eq!(processes.ancestors(key(9)).len(), 1);
    }

    #[test]
    fn a_flood_of_processes_leaves_the_oldest() {
        let mut processes = Processes::default();
        for pid in 1..=10_000 {
            processes.exec(key(pid), key(1), program("x", &[]));
        }
        assert!(processes.0.len() <= PROCESSES_MAX);
        assert!(processes.get(key(1)).is_some());
        for pid in 10_001..=20_000 {
            processes.exec(key(pid), key(1), program("x", &[]));
            processes.exit(key(pid));
        }
        assert!(processes.get(key(1)).is_some() && processes.0.len() <= PROCESSES_MAX);
    }

    #[test]
    fn long_arguments_are_cut() {
        let long = "a".repeat(ARGS_BYTES_MAX);
        assert_eq!(program("x", &["x", &long, "y"]).args(), ["x", "…"]);
        assert_eq!(program("x", &[]).args(), Vec::<String>::new());
        assert_eq!(program("x", &[""]).args(), [""]);
    }
}
