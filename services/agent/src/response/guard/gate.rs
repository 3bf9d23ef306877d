//! The start gate: a container stands still before its first program until its image is known.
//!
//! Whoever starts a container runs a runtime (`runc start`), and the kernel asks about that first.
//! At that moment the container's cgroup and root are there and nothing of it has run, so from then
//! on the kernel asks about its files, too. Its first program is let through into a frozen cgroup:
//! nobody waits for an answer, and the program stands before its first instruction for as long as
//! it takes to find out which image it is of, or to put into force again what was for a container
//! that is started again.
//!
//! That a cgroup stands still for this is noted at the cgroup itself: a guard that takes the place
//! of one that died in between finds it, and nothing stands still for ever.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::ensure;
use nix::{
    fcntl::AT_FDCWD,
    sys::fanotify::{Fanotify, MarkFlags, MaskFlags},
};

use super::{
    judge::Version,
    orders::{self, Said},
};
use crate::{
    cgroup::Layout,
    response::{group::Group, proc},
};

const ASKED: MaskFlags = MaskFlags::FAN_OPEN_EXEC_PERM;

/// How long one stands still that was found so, while nobody has said what is held.
const FOUND_HOLD: Duration = Duration::from_secs(2);

/// Containers that start.
#[derive(Default)]
pub(super) struct Gate {
    orders: Option<orders::Gate>,
    runtimes: HashMap<(u64, u64), PathBuf>,
    /// Cgroups of containers that ran before, or may run.
    known: HashSet<u64>,
    /// Those that start and have run nothing yet.
    awaited: HashMap<String, Group>,
    /// Those that stand still, and since when.
    held: HashMap<String, (Group, Instant)>,
}

// === impl Gate ===

impl Gate {
    /// Takes over what a guard held that died; returns what there is to say of it.
    pub(super) fn find_held(&mut self, layout: &Layout) -> Vec<Said> {
        let groups = Group::held(layout).into_iter();
        let held = groups.map(|group| {
            let said = said_held(&group);
            let id = group.container.clone();
            self.held.insert(id, (group, Instant::now()));
            said
        });
        held.collect()
    }

    /// Begins, changes or ends to hold containers.
    pub(super) fn set(
        &mut self,
        fanotify: &Fanotify,
        layout: &Layout,
        orders: Option<&orders::Gate>,
    ) -> anyhow::Result<()> {
        let Some(orders) = orders else {
            self.ask_about_runtimes(fanotify, &[]);
            self.orders = None;
            let groups = self.awaited.values();
            let groups = groups.chain(self.held.values().map(|(group, _)| group));
            let cgroups: Vec<u64> = groups.map(|group| group.id).collect();
            for cgroup in cgroups {
                self.pass(fanotify, cgroup, |_| true);
            }
            *self = Self::default();
            return Ok(());
        };
        if self.orders.as_ref() == Some(orders) {
            return Ok(());
        }
        let before = self.orders.take().unwrap_or_default();
        let is_new = |id: &String| {
            let is_kept = orders.kept.contains(id) && !before.kept.contains(id);
            is_kept || (orders.all && !before.all)
        };
        // What runs by now has run its first program.
        let running = layout.scan().into_iter();
        let running = running.filter(|found| is_new(&found.container));
        self.known.extend(running.map(|found| found.cgroup));
        self.ask_about_runtimes(fanotify, &orders.runtimes);
        self.orders = Some(orders.clone());
        ensure!(
            !self.runtimes.is_empty(),
            "none of the runtimes is on this node: {:?}",
            orders.runtimes
        );
        Ok(())
    }

    /// Has the kernel ask about these programs and no others.
    fn ask_about_runtimes(&mut self, fanotify: &Fanotify, paths: &[PathBuf]) {
        let before = std::mem::take(&mut self.runtimes);
        for path in paths {
            let version = std::fs::File::open(path)
                .ok()
                .and_then(|file| Version::of(&file));
            let is_asked = ask_about(fanotify, MarkFlags::FAN_MARK_ADD, path);
            if let Some(version) = version.filter(|_| is_asked) {
                self.runtimes.insert(version.file(), path.clone());
            }
        }
        for (file, path) in before {
            if !self.runtimes.contains_key(&file) {
                ask_about(fanotify, MarkFlags::FAN_MARK_REMOVE, &path);
            }
        }
    }

    /// Whether a file is a program that starts containers.
    pub(super) fn is_runtime(&self, version: Version) -> bool {
        self.runtimes.contains_key(&version.file())
    }

    /// Containers to be held that came since the last time.
    pub(super) fn find_new(&mut self, layout: &Layout) -> Vec<Group> {
        let found = layout.scan();
        let cgroups: HashSet<u64> = found.iter().map(|one| one.cgroup).collect();
        self.known.retain(|cgroup| cgroups.contains(cgroup));
        self.awaited.retain(|_, group| cgroups.contains(&group.id));
        self.held
            .retain(|_, (group, _)| cgroups.contains(&group.id));
        let Some(orders) = &self.orders else {
            return Vec::new();
        };
        let is_known = |cgroup: u64, id: &str| {
            self.known.contains(&cgroup)
                || self.awaited.contains_key(id)
                || self.held.contains_key(id)
        };
        found
            .into_iter()
            .filter(|one| orders.all || orders.kept.contains(&one.container))
            .filter(|one| !is_known(one.cgroup, &one.container))
            .filter_map(|one| Group::of(layout, &one.container))
            .collect()
    }

    /// Has the kernel ask about what a container runs first.
    pub(super) fn await_start(&mut self, fanotify: &Fanotify, group: Group) {
        if mark(fanotify, &group, MarkFlags::FAN_MARK_ADD) {
            self.awaited.insert(group.container.clone(), group);
        }
    }

    /// Whether a container has not run anything yet.
    pub(super) fn is_awaited(&self, container: &str) -> bool {
        self.awaited.contains_key(container)
    }

    /// Has a container stand still as soon as its program would run.
    /// Of a container that is blocked, too, the kernel goes on asking.
    pub(super) fn hold(
        &mut self,
        fanotify: &Fanotify,
        container: &str,
        is_blocked: bool,
    ) -> Option<Said> {
        let group = self.awaited.remove(container)?;
        if !is_blocked {
            mark(fanotify, &group, MarkFlags::FAN_MARK_REMOVE);
        }
        group.note_held();
        if group.ask_freeze(true).is_err() {
            // In doubt it runs.
            group.forget_held();
            self.known.insert(group.id);
            return None;
        }
        let said = said_held(&group);
        self.held
            .insert(container.to_owned(), (group, Instant::now()));
        Some(said)
    }

    /// Lets a container run, by the id of its cgroup. Of one that is blocked, too, the kernel goes
    /// on asking.
    pub(super) fn pass(
        &mut self,
        fanotify: &Fanotify,
        cgroup: u64,
        is_blocked: impl Fn(&str) -> bool,
    ) {
        let is_it = |group: &Group| group.id == cgroup;
        for (id, group) in self.awaited.extract_if(|_, group| is_it(group)) {
            if !is_blocked(&id) {
                mark(fanotify, &group, MarkFlags::FAN_MARK_REMOVE);
            }
        }
        let orders = self.orders.as_ref();
        for (id, (group, _)) in self.held.extract_if(|_, (group, _)| is_it(group)) {
            // Where it fails, it is gone.
            if orders.is_none_or(|orders| !orders.still.contains(&id)) {
                drop(group.ask_freeze(false));
            }
            group.forget_held();
        }
        self.known.insert(cgroup);
    }

    /// Lets run what nobody answered for, unless something is in force for it.
    pub(super) fn look(&mut self, fanotify: &Fanotify) {
        let orders = self.orders.as_ref();
        let hold = orders.map_or(FOUND_HOLD, |orders| Duration::from_millis(orders.hold_ms));
        let is_kept = |id: &String| orders.is_some_and(|orders| orders.kept.contains(id));
        let over = self
            .held
            .iter()
            .filter(|(id, (_, since))| since.elapsed() >= hold && !is_kept(id));
        let over: Vec<u64> = over.map(|(_, (group, _))| group.id).collect();
        for cgroup in over {
            self.pass(fanotify, cgroup, |_| true);
        }
    }
}

fn said_held(group: &Group) -> Said {
    Said::Held {
        container: group.container.clone(),
        cgroup: group.id,
    }
}

/// Marks the file system that a container's root is on.
fn mark(fanotify: &Fanotify, group: &Group, flags: MarkFlags) -> bool {
    let pids = group.pids();
    pids.into_iter().any(|pid| {
        let root = PathBuf::from(format!("/proc/{pid}/root/"));
        // One that still sees the host's files is the runtime's.
        !proc::sees_host(pid) && ask_about(fanotify, flags | MarkFlags::FAN_MARK_FILESYSTEM, &root)
    })
}

/// Has the kernel ask about programs, or not any more; false where it does not take that.
fn ask_about(fanotify: &Fanotify, flags: MarkFlags, path: &Path) -> bool {
    fanotify.mark(flags, ASKED, AT_FDCWD, Some(path)).is_ok()
}
