//! A container that is blocked: what the kernel asks about its files.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, ensure};
use nix::{
    fcntl::AT_FDCWD,
    sys::fanotify::{Fanotify, MarkFlags, MaskFlags},
};

use super::image::ImageFiles;
use crate::{
    mounts::{Mount, Mounts, Overlay},
    response::{group::Group, proc},
};

/// Whatever is opened there, to be run or to be read by who runs it.
const ALL: MaskFlags = MaskFlags::FAN_OPEN_EXEC_PERM.union(MaskFlags::FAN_OPEN_PERM);
/// Where devices lie nothing is opened on behalf of others: opening one does something.
const DEVICES: &str = "dev";

/// A container that is blocked.
pub(super) struct Ward {
    group: Group,
    root: Option<Overlay>,
    image: Arc<Mutex<ImageFiles>>,
    marked: HashSet<Mount>,
}

// === impl Ward ===

impl Ward {
    pub(super) fn new(fanotify: &Fanotify, group: Group) -> anyhow::Result<Self> {
        let (pid, mounts) = seen(&group).context("it has no processes")?;
        let layers = mounts.root.as_ref().map(|root| root.lower.clone());
        let layers = layers.unwrap_or_default();
        let mut ward = Self {
            group,
            root: mounts.root.clone(),
            image: Arc::new(Mutex::new(ImageFiles::default())),
            marked: HashSet::new(),
        };
        let root = mounts.all.iter().find(|mount| mount.target.is_empty());
        let root = root.context("it has no root")?;
        let is_marked = mark(fanotify, MarkFlags::FAN_MARK_ADD, (pid, root));
        ensure!(is_marked, "fanotify does not ask about its root");
        ward.marked.insert(root.clone());
        ward.mark_all(fanotify, pid, &mounts);
        let image = Arc::clone(&ward.image);
        std::thread::spawn(move || {
            // Who asks meanwhile waits for the list, and is denied where that takes long.
            let mut image = image
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            *image = ImageFiles::list(&layers);
        });
        Ok(ward)
    }

    pub(super) const fn root(&self) -> Option<&Overlay> {
        self.root.as_ref()
    }

    pub(super) const fn image(&self) -> &Arc<Mutex<ImageFiles>> {
        &self.image
    }

    pub(super) const fn cgroup(&self) -> u64 {
        self.group.id
    }

    /// Takes in what was mounted since; whether the container is still there.
    pub(super) fn follow(&mut self, fanotify: &Fanotify) -> bool {
        if let Some((pid, mounts)) = seen(&self.group) {
            self.mark_all(fanotify, pid, &mounts);
        }
        self.group.is_there()
    }

    pub(super) fn release(self, fanotify: &Fanotify) {
        let Some((pid, _)) = seen(&self.group) else {
            // Its file systems are gone, and what was asked about them.
            return;
        };
        for mount in &self.marked {
            mark(fanotify, MarkFlags::FAN_MARK_REMOVE, (pid, mount));
        }
    }

    fn mark_all(&mut self, fanotify: &Fanotify, pid: u32, mounts: &Mounts) {
        for mount in &mounts.all {
            // Some file systems are not asked about; the kernel side kills what is run from there.
            if !self.marked.contains(mount) && mark(fanotify, MarkFlags::FAN_MARK_ADD, (pid, mount))
            {
                self.marked.insert(mount.clone());
            }
        }
    }
}

/// A process of a container, and what it sees. The runtime on its way into the container still sees
/// the host's files: nobody is asked about those.
fn seen(group: &Group) -> Option<(u32, Mounts)> {
    let mut pids = group.pids();
    pids.sort_unstable();
    pids.into_iter()
        .filter(|pid| !proc::sees_host(*pid))
        .find_map(|pid| Some((pid, Mounts::of(pid)?)))
}

/// Has the kernel ask about what is opened on a mount, or not any more.
fn mark(fanotify: &Fanotify, flags: MarkFlags, (pid, mount): (u32, &Mount)) -> bool {
    let path = PathBuf::from(format!("/proc/{pid}/root/{}", mount.target));
    let kind = if mount.is_own {
        MarkFlags::FAN_MARK_FILESYSTEM
    } else {
        MarkFlags::FAN_MARK_MOUNT
    };
    let mask = if mount.target == DEVICES {
        MaskFlags::FAN_OPEN_EXEC_PERM
    } else {
        ALL
    };
    fanotify
        .mark(flags | kind, mask, AT_FDCWD, Some(&path))
        .is_ok()
}
