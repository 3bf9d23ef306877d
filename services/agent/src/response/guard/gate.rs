//! The start gate: a container stands still before its first program until its image is known.
//!
//! Whoever starts a container runs a runtime (`runc start`), and the kernel asks about that first.
//! At that moment the container's cgroup and root are there and nothing of it has run, so from then
//! on the kernel asks about its files, too. Its first program is let through into a frozen cgroup:
//! nobody waits for an answer, and the program stands before its first instruction for as long as
//! it takes to find out which image it is of.

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
use crate::{cgroup::Layout, response::group::Group};

const ASKED: MaskFlags = MaskFlags::FAN_OPEN_EXEC_PERM;

/// Containers that start.
#[derive(Default)]
pub(super) struct Gate {
    orders: Option<orders::Gate>,
    runtimes: HashMap<(u64, u64), PathBuf>,
    /// Containers that ran before, or may run.
    known: HashSet<String>,
    /// Those that start and have run nothing yet.
    awaited: HashMap<String, Group>,
    /// Those that stand still, and since when.
    held: HashMap<String, (Group, Instant)>,
}

// === impl Gate ===

impl Gate {
    /// Begins, changes or ends to hold containers.
    pub(super) fn set(
        &mut self,
        fanotify: &Fanotify,
        layout: &Layout,
        orders: Option<&orders::Gate>,
    ) -> anyhow::Result<()> {
        if self.orders.as_ref() == orders {
            return Ok(());
        }
        for path in self.runtimes.values() {
            ask_about(fanotify, MarkFlags::FAN_MARK_REMOVE, path);
        }
        self.runtimes.clear();
        let Some(orders) = orders else {
            let ids = self.awaited.keys().chain(self.held.keys());
            let ids: Vec<String> = ids.cloned().collect();
            for id in ids {
                self.pass(fanotify, &id, true);
            }
            *self = Self::default();
            return Ok(());
        };
        for path in &orders.runtimes {
            let version = std::fs::File::open(path)
                .ok()
                .and_then(|file| Version::of(&file));
            let is_asked = ask_about(fanotify, MarkFlags::FAN_MARK_ADD, path);
            if let Some(version) = version.filter(|_| is_asked) {
                self.runtimes.insert(version.file(), path.clone());
            }
        }
        ensure!(
            !self.runtimes.is_empty(),
            "none of the runtimes is on this node: {:?}",
            orders.runtimes
        );
        if self.orders.is_none() {
            self.known = layout
                .scan()
                .into_iter()
                .map(|found| found.container)
                .collect();
        }
        self.orders = Some(orders.clone());
        Ok(())
    }

    /// Whether a file is a program that starts containers.
    pub(super) fn is_runtime(&self, version: Version) -> bool {
        self.runtimes.contains_key(&version.file())
    }

    /// Containers that came since the last time.
    pub(super) fn find_new(&mut self, layout: &Layout) -> Vec<Group> {
        let found = layout.scan().into_iter().map(|found| found.container);
        let ids: HashSet<String> = found.collect();
        self.known.retain(|id| ids.contains(id));
        self.awaited.retain(|id, _| ids.contains(id));
        ids.into_iter()
            .filter(|id| {
                !self.known.contains(id)
                    && !self.awaited.contains_key(id)
                    && !self.held.contains_key(id)
            })
            .filter_map(|id| Group::of(layout, &id))
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
        if group.ask_freeze(true).is_err() {
            // In doubt it runs.
            self.known.insert(container.to_owned());
            return None;
        }
        self.held
            .insert(container.to_owned(), (group, Instant::now()));
        Some(Said::Held {
            container: container.to_owned(),
        })
    }

    /// Lets a container run.
    pub(super) fn pass(&mut self, fanotify: &Fanotify, container: &str, is_blocked: bool) {
        if let Some(group) = self.awaited.remove(container)
            && !is_blocked
        {
            mark(fanotify, &group, MarkFlags::FAN_MARK_REMOVE);
        }
        if let Some((group, _)) = self.held.remove(container) {
            // It is gone, then.
            drop(group.ask_freeze(false));
        }
        self.known.insert(container.to_owned());
    }

    /// Lets run what nobody answered for.
    pub(super) fn look(&mut self, fanotify: &Fanotify) {
        let hold_ms = self.orders.as_ref().map_or(0, |orders| orders.hold_ms);
        let hold = Duration::from_millis(hold_ms);
        let over = self
            .held
            .iter()
            .filter(|(_, (_, since))| since.elapsed() >= hold);
        let over: Vec<String> = over.map(|(id, _)| id.clone()).collect();
        for id in over {
            self.pass(fanotify, &id, true);
        }
    }
}

/// Marks the file system that a container's root is on.
fn mark(fanotify: &Fanotify, group: &Group, flags: MarkFlags) -> bool {
    let pids = group.pids();
    pids.into_iter().any(|pid| {
        let root = PathBuf::from(format!("/proc/{pid}/root/"));
        // One that still sees the host's files is the runtime's.
        !is_host(&root) && ask_about(fanotify, flags | MarkFlags::FAN_MARK_FILESYSTEM, &root)
    })
}

/// Has the kernel ask about programs, or not any more; false where it does not take that.
fn ask_about(fanotify: &Fanotify, flags: MarkFlags, path: &Path) -> bool {
    fanotify.mark(flags, ASKED, AT_FDCWD, Some(path)).is_ok()
}

fn is_host(root: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let of = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    };
    of(root) == of(Path::new("/"))
}
