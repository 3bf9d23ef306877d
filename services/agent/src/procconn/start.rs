//! A program started: what it is, and whose.

use std::{mem, time::Instant};

use model::runtime::ProcessKey;

use super::{
    AWAIT_MAX, AWAITED_MAX, Connector, Heard, Process, Round, SEEK_EVERY, SEEK_PAUSE, UNCLEAR_MAX,
    message::Event, process, sight::Started,
};
use crate::{
    cgroup,
    files::Opened,
    raw::{self, Raw, RawExec, What},
    response::proc,
};

/// What is known of a user that is not known: the kernel's own number for none.
const NOBODY_KNOWN: u32 = u32::MAX;

// === impl Connector ===

impl Connector {
    /// Where its process is may have changed since it was forked: runtimes move the first process of
    /// a container.
    pub(super) fn exec(&mut self, at_ns: u64, pid: u32, round: &mut Round) {
        let before = self.processes.get(&pid).copied();
        let path = self.layout.path_of(pid);
        let here = path
            .as_deref()
            .and_then(|path| self.container(at_ns, path, round));
        let later = self.later(pid);
        let sight = self.sight.as_mut();
        let started = sight.and_then(|sight| sight.started(pid, later.saturating_add(1)));
        // With v1 a process that has ended is nobody's.
        let has_ended = path.is_none() || (here.is_none() && !process::runs(pid));
        let Some(cgroup) = here.or_else(|| of_ended(before, started.as_ref(), has_ended)) else {
            let key = before
                .map(|before| before.key)
                .or_else(|| process::key(pid));
            if let Some(key) = key {
                self.remember(key, None);
            }
            return;
        };
        let key = before.map(|before| before.key);
        // When it was made is not known: it is the one that started a program then.
        let key = key.or_else(|| process::key(pid)).unwrap_or(ProcessKey {
            pid,
            started_ns: at_ns,
        });
        let lives = here.and_then(|_| process::exec(pid));
        let came = before.is_some_and(|before| before.cgroup != Some(cgroup));
        if came && started.is_none() && lives.as_ref().is_some_and(|exec| is_runtime(pid, exec)) {
            return;
        }
        let process = self.remember(key, Some(cgroup));
        let Some((exec, opened)) = self.program(process, (lives, started), later, round) else {
            round.drops.push((cgroup, "exec", 1));
            self.refresh(cgroup);
            return;
        };
        let raw = Raw {
            at_ns,
            cgroup,
            process: process.key,
            what: What::Exec(Box::new(exec)),
        };
        round.events.push((raw, opened));
    }

    /// Whether the next start is of a process that has opened more than it has started, as far as is
    /// heard: it may have started the rest just now. That is waited for, not for long.
    pub(super) fn is_unclear(&mut self) -> bool {
        let next = match self.heard.front() {
            Some(Heard::Event(_, Event::Exec(pid))) => Some(*pid),
            _ => None,
        };
        let starts = next.and_then(|pid| self.starts.get(&pid)).copied();
        let opened = next.and_then(|pid| self.sight.as_ref()?.groups(pid));
        let is_unclear = opened.unwrap_or(0) > starts.unwrap_or(0);
        let since = self.unclear.get_or_insert_with(Instant::now);
        if is_unclear && self.patience > 0 && since.elapsed() < UNCLEAR_MAX {
            return true;
        }
        self.patience = self.patience.saturating_sub(u32::from(is_unclear));
        self.unclear = None;
        false
    }

    /// How many programs it started since, of which is heard already.
    fn later(&mut self, pid: u32) -> usize {
        let rest = self.starts.remove(&pid).unwrap_or(0).saturating_sub(1);
        if rest > 0 {
            self.starts.insert(pid, rest);
        }
        rest
    }

    /// What it runs, from what it opened and from what it says of itself.
    fn program(
        &mut self,
        process: Process,
        (lives, started): (Option<RawExec>, Option<Started>),
        later: usize,
        round: &mut Round,
    ) -> Option<(RawExec, Opened)> {
        let pid = process.key.pid;
        let (exec, started) = match (lives, started) {
            (Some(exec), Some(started)) if started.is(&exec) => (Some(exec), Some(started)),
            // It runs something else: what lies where nothing is told of, or what came next.
            (Some(exec), Some(started)) if started.may_be_loader() && later == 0 => {
                (Some(exec), None)
            }
            (_, Some(started)) if !started.may_be_loader() => (None, Some(started)),
            (Some(exec), None) if later == 0 => (Some(exec), None),
            _ => return None,
        };
        let mut exec = match exec {
            Some(exec) => self.with_parent(process, exec, round),
            None => ended(process),
        };
        let sight = self.sight.as_mut();
        let opened = match (sight, started) {
            (Some(sight), Some(started)) => sight.describe(&started, &mut exec),
            (Some(sight), None) => {
                let cgroup = process.cgroup.filter(|cgroup| sight.marks.is_due(*cgroup));
                if let Some(cgroup) = cgroup {
                    sight.marks.enter(cgroup, pid);
                }
                Opened::default()
            }
            (None, _) => Opened::default(),
        };
        Some((exec, opened))
    }

    /// Its parent as it is known here, and whether that is of the container.
    fn with_parent(&mut self, process: Process, mut exec: RawExec, round: &mut Round) -> RawExec {
        let parent = self.known(exec.parent.pid, round);
        exec.parent = parent.map_or(exec.parent, |parent| parent.key);
        if parent.is_none_or(|parent| parent.cgroup != process.cgroup) {
            exec.flags |= raw::FROM_OUTSIDE;
        }
        exec
    }

    /// A container that is on its way to its first program.
    pub(super) fn expect(&mut self, cgroup: u64, path: &str) {
        let sight = self.sight.as_ref();
        let is_new = sight.is_some_and(|sight| !sight.marks.knows(cgroup));
        if is_new && self.awaited.len() < AWAITED_MAX {
            self.awaited
                .insert(cgroup, (path.to_owned(), Instant::now()));
        }
    }

    /// Marks what a container sees, as soon as one of its processes sees that.
    pub(super) fn enter(&mut self, cgroup: u64, pids: &[u32]) {
        let Some(sight) = &mut self.sight else { return };
        let mut pids = pids.to_vec();
        pids.sort_unstable();
        let is_entered =
            sight.marks.knows(cgroup) || pids.into_iter().any(|pid| sight.marks.enter(cgroup, pid));
        if is_entered {
            self.awaited.remove(&cgroup);
        }
    }

    /// Whether a container is on its way.
    pub(super) fn is_seeking(&self) -> bool {
        !self.awaited.is_empty() || self.has_unclaimed()
    }

    fn has_unclaimed(&self) -> bool {
        let sight = self.sight.as_ref();
        sight.is_some_and(|sight| sight.marks.has_unclaimed())
    }

    /// What a container sees may have changed.
    fn refresh(&mut self, cgroup: u64) {
        let Some(sight) = self
            .sight
            .as_mut()
            .filter(|sight| sight.marks.is_due(cgroup))
        else {
            return;
        };
        let mut containers = self.containers.iter();
        let found = containers.find(|(_, known)| **known == cgroup);
        let place = found.map(|(path, _)| self.layout.root.join(path.trim_start_matches('/')));
        let pids = place.map(|place| cgroup::all_pids(&place));
        if let Some(pid) = pids.and_then(|pids| pids.into_iter().min()) {
            sight.marks.enter(cgroup, pid);
        }
    }

    /// Looks for containers that start: their roots are mounted before they are there, and their
    /// cgroups are there before their first programs.
    pub(super) fn seek(&mut self, round: &mut Round) {
        if !self.is_seeking() || Instant::now() < self.seek_at {
            return;
        }
        let begun = Instant::now();
        if self.has_unclaimed() {
            for (path, cgroup) in self.layout.containers() {
                if !self.containers.contains_key(&path) && !self.taught.contains_key(&cgroup) {
                    self.container(0, &path, round);
                }
            }
        }
        let awaited = mem::take(&mut self.awaited);
        for (cgroup, (path, since)) in awaited {
            let pids = cgroup::all_pids(&self.place(&path));
            if since.elapsed() < AWAIT_MAX {
                self.awaited.insert(cgroup, (path, since));
            }
            self.enter(cgroup, &pids);
        }
        let pause = begun.elapsed().saturating_mul(SEEK_PAUSE).max(SEEK_EVERY);
        self.seek_at = Instant::now() + pause;
    }
}

/// Whether it is a runtime on its way into a container: told to `init`, and not from there.
fn is_runtime(pid: u32, exec: &RawExec) -> bool {
    let is_told = exec.args.get(1).is_some_and(|argument| argument == "init");
    is_told && (proc::sees_host(pid) || !proc::runs_what_it_sees(pid))
}

/// The container of a program whose process says nothing any more.
fn of_ended(before: Option<Process>, started: Option<&Started>, has_ended: bool) -> Option<u64> {
    if !has_ended {
        return None;
    }
    let own = started.and_then(Started::cgroup);
    match (own, before) {
        // The mount says more than who forked it: runtimes move what they fork.
        (Some((cgroup, true)), _) | (Some((cgroup, false)), None) => Some(cgroup),
        (_, Some(before)) => before.cgroup,
        (None, None) => None,
    }
}

/// What is known of a program that has ended.
fn ended(process: Process) -> RawExec {
    let parent = process.parent;
    let is_outside = parent.is_some_and(|(_, cgroup)| cgroup != process.cgroup);
    RawExec {
        parent: parent.map(|(key, _)| key).unwrap_or_default(),
        uid: NOBODY_KNOWN,
        gid: NOBODY_KNOWN,
        flags: if is_outside { raw::FROM_OUTSIDE } else { 0 },
        ..RawExec::default()
    }
}
