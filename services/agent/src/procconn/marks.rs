//! Which file systems the kernel tells about, and whose they are.
//!
//! The root of a container is a file system of its own, so whoever runs a file of it is told whether
//! or not the process still lives. An engine mounts it on the host well before the first program
//! runs there: it is marked when it appears, and whose it is follows as soon as a process of a
//! container has it as its root. Other file systems of a container are marked then, too: those that
//! are its alone as a whole, others by the container's own mount of them.
//!
//! The kernel forgets a mark with the file system or the mount that it is on, so nothing is held by
//! it; what is forgotten here follows the kernel's own list.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    fcntl::AT_FDCWD,
    sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags},
};

use crate::{
    files,
    mounts::{self, Device, Mount, Mounts, Overlay},
    response::proc,
};

/// Marks at once, about 200 bytes of the kernel's memory each. What is run beyond them is seen as
/// without fanotify.
const MARKS_MAX: usize = 16_384;
/// How long it is waited for the container whose root a file system is.
const CLAIM_MAX: Duration = Duration::from_secs(10);
/// How often it is looked for new mounts of a container that runs.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// How often the kernel's list of marks is read, and how much of it.
const LIST_EVERY: Duration = Duration::from_secs(10);
const LIST_BYTES_MAX: u64 = 8 << 20;
/// A file that is opened to be run.
const TOLD: MaskFlags = MaskFlags::FAN_OPEN_EXEC;

/// What is marked.
pub(super) struct Marks {
    fanotify: Fanotify,
    mounts: HashMap<u64, Place>,
    devices: HashMap<Device, Place>,
    host: Host,
    /// Roots whose containers are not known yet, and since when.
    unclaimed: HashMap<Device, Instant>,
    /// Containers of which it is known what they see, and since when.
    followed: HashMap<u64, Instant>,
    listed_at: Instant,
}

/// A mount of a container.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The container's cgroup.
    pub(super) cgroup: u64,
    /// Without a leading slash; empty for the root.
    pub(super) target: Arc<str>,
    /// The layers, where it is the root and has some.
    pub(super) root: Option<Arc<Overlay>>,
    pub(super) in_memory: bool,
    device: Device,
}

/// The host's mounts, where the roots of containers appear.
struct Host {
    /// Says when they change.
    mounts: Option<File>,
    roots: HashMap<Device, PathBuf>,
}

// === impl Marks ===

impl Marks {
    const ADDED: MarkFlags = MarkFlags::FAN_MARK_ADD.union(MarkFlags::FAN_MARK_FILESYSTEM);
    const REMOVED: MarkFlags = MarkFlags::FAN_MARK_REMOVE.union(MarkFlags::FAN_MARK_FILESYSTEM);

    /// A group of its own: it is told, nobody is held up.
    pub(super) fn open() -> anyhow::Result<Self> {
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_MARKS;
        let opened = EventFFlags::O_RDONLY
            | EventFFlags::O_LARGEFILE
            | EventFFlags::O_CLOEXEC
            | EventFFlags::O_NONBLOCK;
        let fanotify = Fanotify::init(flags, opened).context("it does not open here")?;
        // A directory, which nobody runs, shows whether the kernel tells of it (Linux 5.0).
        for flag in [MarkFlags::FAN_MARK_ADD, MarkFlags::FAN_MARK_REMOVE] {
            let root = Some(Path::new("/"));
            let marked = fanotify.mark(flag, TOLD, AT_FDCWD, root);
            marked.context("it does not tell of files that are run")?;
        }
        let mut marks = Self {
            fanotify,
            mounts: HashMap::new(),
            devices: HashMap::new(),
            host: Host {
                mounts: mounts::HOST.iter().find_map(|path| File::open(path).ok()),
                roots: HashMap::new(),
            },
            unclaimed: HashMap::new(),
            followed: HashMap::new(),
            listed_at: Instant::now(),
        };
        marks.look_at_host();
        Ok(marks)
    }

    pub(super) const fn fanotify(&self) -> &Fanotify {
        &self.fanotify
    }

    /// What says by `POLLPRI` that the host's mounts changed.
    pub(super) fn changes(&self) -> Option<BorrowedFd<'_>> {
        self.host.mounts.as_ref().map(|file| file.as_fd())
    }

    /// Marks roots of containers that the host has mounted since.
    pub(super) fn look_at_host(&mut self) {
        let seen = Mounts::host();
        let is_root = |mount: &&Mount| mount.target.is_empty();
        let own = seen.all.iter().find(is_root).map(|root| root.device);
        let overlays = seen.all.into_iter().filter(|mount| {
            // The host's own root may be an overlay, too.
            mount.is_own && !mount.in_memory && Some(mount.device) != own
        });
        let before = std::mem::take(&mut self.host.roots);
        for mount in overlays {
            let path = Path::new("/proc/1/root").join(&mount.target);
            // Numbers are used again, so it is another one where it is mounted elsewhere.
            let is_new = before.get(&mount.device) != Some(&path);
            if is_new && self.mark(Self::ADDED, &path) {
                self.unclaimed.insert(mount.device, Instant::now());
            }
            self.host.roots.insert(mount.device, path);
        }
        let roots = &self.host.roots;
        self.unclaimed
            .retain(|device, _| roots.contains_key(device));
    }

    /// Whether a root waits for its container.
    pub(super) fn has_unclaimed(&self) -> bool {
        !self.unclaimed.is_empty()
    }

    /// Marks what a container sees through one of its processes; false where that is still the
    /// runtime's, on its way into the container.
    pub(super) fn enter(&mut self, cgroup: u64, pid: u32) -> bool {
        if proc::sees_host(pid) {
            return false;
        }
        let Some(seen) = Mounts::of(pid) else {
            return false;
        };
        let root = seen.root.map(Arc::new);
        for mount in seen.all.iter().filter(|mount| mount.runs) {
            let place = Place {
                cgroup,
                target: mount.target.as_str().into(),
                root: root.clone().filter(|root| root.mount == mount.id),
                in_memory: mount.in_memory,
                device: mount.device,
            };
            self.add(pid, mount, place);
        }
        self.followed.insert(cgroup, Instant::now());
        true
    }

    fn add(&mut self, pid: u32, mount: &Mount, place: Place) {
        if mount.is_own {
            self.unclaimed.remove(&mount.device);
        }
        let id = u64::from(mount.id);
        let is_known = |known: &Place| known.cgroup == place.cgroup && known.device == place.device;
        if self.mounts.get(&id).is_some_and(is_known) {
            return;
        }
        let path = PathBuf::from(format!("/proc/{pid}/root/{}", mount.target));
        let flags = if mount.is_own {
            Self::ADDED
        } else {
            MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_MOUNT
        };
        if !self.mark(flags, &path) {
            return;
        }
        if mount.is_own {
            self.devices.insert(mount.device, place.clone());
        }
        self.mounts.insert(id, place);
    }

    /// Whether it is known what a container sees.
    pub(super) fn knows(&self, cgroup: u64) -> bool {
        self.followed.contains_key(&cgroup)
    }

    /// Whether it is to be looked again.
    pub(super) fn is_due(&self, cgroup: u64) -> bool {
        let at = self.followed.get(&cgroup);
        at.is_none_or(|at| at.elapsed() >= FOLLOW_EVERY)
    }

    /// Whose a file is, by its mount and by its file system. The mount says it for certain: the same
    /// file system may be seen from elsewhere.
    pub(super) fn place(&self, mount: Option<u64>, device: Device) -> Option<(&Place, bool)> {
        let own = mount.and_then(|mount| self.mounts.get(&mount));
        // Numbers are used again. Files of layers may have a device of their own, which is nobody
        // else's.
        let is_others = || {
            self.devices.contains_key(&device)
                || self.unclaimed.contains_key(&device)
                || self.host.roots.contains_key(&device)
        };
        let own = own.filter(|own| own.device == device || (own.root.is_some() && !is_others()));
        let own = own.map(|place| (place, true));
        own.or_else(|| self.devices.get(&device).map(|place| (place, false)))
    }

    /// A container ended. Its root may stay mounted, so it is not left to the kernel alone.
    pub(super) fn forget(&mut self, cgroup: u64) {
        self.followed.remove(&cgroup);
        self.mounts.retain(|_, place| place.cgroup != cgroup);
        let ended = self.devices.extract_if(|_, place| place.cgroup == cgroup);
        let ended: Vec<Device> = ended.map(|(device, _)| device).collect();
        for device in ended {
            self.unmark(device);
        }
    }

    /// Forgets what the kernel has forgotten, and roots that nobody came for.
    pub(super) fn prune(&mut self) {
        let late = self
            .unclaimed
            .extract_if(|_, since| since.elapsed() >= CLAIM_MAX);
        let late: Vec<Device> = late.map(|(device, _)| device).collect();
        for device in late {
            self.unmark(device);
        }
        if self.listed_at.elapsed() < LIST_EVERY {
            return;
        }
        self.listed_at = Instant::now();
        let own = format!("/proc/self/fdinfo/{}", self.fanotify.as_fd().as_raw_fd());
        let Ok(list) = files::text_of(Path::new(&own), LIST_BYTES_MAX) else {
            return;
        };
        let (devices, mounts) = marked(&list);
        self.devices.retain(|device, _| devices.contains(device));
        self.mounts
            .retain(|id, place| mounts.contains(id) || devices.contains(&place.device));
        let left: HashSet<u64> = self.mounts.values().map(|place| place.cgroup).collect();
        self.followed.retain(|cgroup, _| left.contains(cgroup));
    }

    fn unmark(&self, device: Device) {
        // A number that is used again is somebody else's by now.
        let is_used = self.unclaimed.contains_key(&device) || self.devices.contains_key(&device);
        if let Some(path) = self.host.roots.get(&device).filter(|_| !is_used) {
            // Where that fails it is gone.
            self.mark(Self::REMOVED, path);
        }
    }

    fn mark(&self, flags: MarkFlags, path: &Path) -> bool {
        let count = self.mounts.len() + self.unclaimed.len();
        if flags.contains(MarkFlags::FAN_MARK_ADD) && count >= MARKS_MAX {
            return false;
        }
        let marked = self.fanotify.mark(flags, TOLD, AT_FDCWD, Some(path));
        if let Err(error) = &marked {
            tracing::debug!(%error, "`{}` is not marked: {error}", path.display());
        }
        marked.is_ok()
    }
}

/// File systems and mounts of the kernel's list (`fdinfo`, proc(5)).
fn marked(list: &str) -> (HashSet<Device>, HashSet<u64>) {
    let (mut devices, mut mounts) = (HashSet::new(), HashSet::new());
    let number = |line: &str, name: &str| {
        let rest = line.strip_prefix("fanotify ")?.strip_prefix(name)?;
        u64::from_str_radix(rest.split(' ').next()?, 16).ok()
    };
    for line in list.lines() {
        mounts.extend(number(line, "mnt_id:"));
        let device = number(line, "sdev:").and_then(|device| u32::try_from(device).ok());
        // As the kernel keeps it: 12 bits and 20.
        devices.extend(device.map(|device| (device >> 20, device & 0xf_ffff)));
    }
    (devices, mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_marks_is_read() {
        let list = "pos:\t0\nflags:\t02004002\nmnt_id:\t15\nino:\t71\n\
            fanotify flags:21 event-flags:8800\n\
            fanotify sdev:4d mflags:0 mask:1000 ignored_mask:0\n\
            fanotify mnt_id:1ff mflags:0 mask:1000 ignored_mask:0\n\
            fanotify ino:2 sdev:800001 mflags:0 mask:1000 ignored_mask:0\n\
            fanotify sdev:x\n";
        let (devices, mounts) = marked(list);
        assert_eq!(devices, [(0, 77)].into());
        assert_eq!(mounts, [511].into());
    }
}
