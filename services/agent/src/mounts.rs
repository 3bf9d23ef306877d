//! The mounts that a container sees, and which of them its image's layers are.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use chassis::files::read_bounded;

use crate::files::{of_host, unescaped};

const MOUNTINFO_BYTES_MAX: u64 = 4 << 20;
/// Where the host's mounts stand.
pub(crate) const HOST: [&str; 2] = ["/proc/1/mountinfo", "/proc/self/mountinfo"];
/// File systems that hold no files of anybody.
const WITHOUT_FILES: &[&str] = &[
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "devpts",
    "mqueue",
    "securityfs",
    "bpf",
    "tracefs",
    "debugfs",
    "configfs",
    "pstore",
    "nsfs",
    "devtmpfs",
];

/// File systems that are opened without asking a server, or a program of somebody's.
const LOCAL: &[&str] = &[
    "overlay", "tmpfs", "ramfs", "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs",
    "squashfs", "erofs",
];

/// What a container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mounts {
    pub(crate) all: Vec<Mount>,
    pub(crate) root: Option<Overlay>,
}

/// A mount that has files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mount {
    /// Without a leading slash.
    pub(crate) target: String,
    /// The kernel's number of the mount.
    pub(crate) id: u32,
    /// Whether the file system is the container's alone.
    pub(crate) is_own: bool,
    /// Whether it is one of memory; which one, the device tells.
    pub(crate) in_memory: bool,
    /// Whether files may be run from it, opening one waits for nobody, and it can be said where they
    /// come from: of layers within layers it cannot.
    pub(crate) runs: bool,
    pub(crate) device: Device,
}

/// The kernel's number of a file system: major and minor.
pub(crate) type Device = (u32, u32);

/// The layers of a container's root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overlay {
    /// The kernel's number of its mount.
    pub(crate) mount: u32,
    /// Highest first.
    pub(crate) lower: Vec<PathBuf>,
    pub(crate) upper: Option<PathBuf>,
}

// === impl Mounts ===

impl Mounts {
    /// Of a process.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/mountinfo"));
        let text = read_bounded(&path, MOUNTINFO_BYTES_MAX).ok()?;
        let mut found = Self::read(&String::from_utf8_lossy(&text));
        if found
            .all
            .iter()
            .any(|mount| mount.is_own && mount.in_memory)
        {
            found.leave_to_host(&Self::host());
        }
        if let Some(root) = &mut found.root {
            // As whoever mounted it sees them.
            for dir in root.lower.iter_mut().chain(&mut root.upper) {
                *dir = of_host(dir);
            }
        }
        Some(found)
    }

    /// Of the host, or of this process where that cannot be read; nothing where neither can.
    pub(crate) fn host() -> Self {
        let read = |path: &&str| read_bounded(Path::new(path), MOUNTINFO_BYTES_MAX).ok();
        let text = HOST.iter().find_map(read).unwrap_or_default();
        Self::read(&String::from_utf8_lossy(&text))
    }

    fn read(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let mut left = left.split(' ');
            let id = left.next().and_then(|id| id.parse().ok());
            let device = device_of(left.nth(1).unwrap_or_default());
            let root = left.next().unwrap_or_default();
            let target = unescaped(left.next().unwrap_or_default());
            let may_run = left.next().is_some_and(|options| {
                let mut options = options.split(',');
                !options.any(|option| option == "noexec")
            });
            let mut right = right.split(' ');
            let kind = right.next().unwrap_or_default();
            let options = right.nth(1).unwrap_or_default();
            let Some(id) = id.filter(|_| !WITHOUT_FILES.contains(&kind)) else {
                continue;
            };
            let target = target.trim_start_matches('/').to_owned();
            let is_root = target.is_empty();
            if kind == "overlay" && is_root {
                found.root = Some(Overlay {
                    mount: id,
                    ..Overlay::read(options)
                });
            }
            found.all.push(Mount {
                target,
                id,
                is_own: matches!(kind, "overlay" | "tmpfs" | "ramfs") && root == "/",
                in_memory: matches!(kind, "tmpfs" | "ramfs"),
                runs: may_run && LOCAL.contains(&kind) && (is_root || kind != "overlay"),
                device: device.unwrap_or_default(),
            });
        }
        found
    }

    /// One of memory that the host has mounted, too, is the host's: nobody there is to be asked
    /// about each of its files. The container's root is mounted there as well, and is its own.
    fn leave_to_host(&mut self, host: &Self) {
        let devices: HashSet<Device> = host.all.iter().map(|one| one.device).collect();
        for mount in self.all.iter_mut().filter(|mount| mount.in_memory) {
            mount.is_own &= !devices.contains(&mount.device);
        }
    }
}

/// `0:77`
fn device_of(text: &str) -> Option<Device> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

// === impl Overlay ===

impl Overlay {
    fn read(options: &str) -> Self {
        let mut found = Self::default();
        for option in options.split(',') {
            if let Some(dirs) = option.strip_prefix("lowerdir=") {
                found.lower = dirs
                    .split(':')
                    .filter(|dir| !dir.is_empty())
                    .map(|dir| PathBuf::from(unescaped(dir)))
                    .collect();
            } else if let Some(dir) = option.strip_prefix("lowerdir+=") {
                found.lower.push(PathBuf::from(unescaped(dir)));
            } else if let Some(dir) = option.strip_prefix("upperdir=") {
                found.upper = Some(PathBuf::from(unescaped(dir)));
            }
        }
        // Where they begin is not known of relative ones.
        if found.lower.iter().any(|dir| dir.is_relative()) {
            found.lower.clear();
        }
        found
    }

    /// Whether the container has something of its own at a path.
    pub(crate) fn is_upper(&self, path: &str) -> bool {
        let is_above = |upper: &PathBuf| std::fs::symlink_metadata(upper.join(path)).is_ok();
        self.upper.as_ref().is_some_and(is_above)
    }

    /// Whether a file, by its path in the container and its inode, is that of the image: nothing of
    /// the container lies above it, and the layer that shows has this very inode.
    pub(crate) fn is_lower(&self, path: &str, inode: u64, size: u64) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        if self.is_upper(path) {
            return false;
        }
        let path = Path::new(path);
        let mut layers = self.lower.iter();
        let found = layers.find_map(|layer| std::fs::symlink_metadata(layer.join(path)).ok());
        found.is_some_and(|found| found.is_file() && found.ino() == inode && found.size() == size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
        1 0 0:50 / / rw - overlay overlay rw,lowerdir=/l2:/l1,upperdir=/a\\040b/diff,workdir=/w\n\
        2 1 0:51 / /proc rw - proc proc rw\n\
        3 1 8:1 /vol /data rw - ext4 /dev/sda1 rw\n\
        4 3 0:52 / /data/in rw - tmpfs tmpfs rw\n\
        5 1 0:53 /x /run/x rw,noexec - tmpfs tmpfs rw\n\
        6 1 0:54 / /mnt rw - fuse.x x rw\n\
        7 1 0:55 / /in/in rw - overlay overlay rw,lowerdir=/l1\n";

    #[test]
    fn what_a_container_sees_is_read() {
        let mounts = Mounts::read(TEXT);
        let seen: Vec<_> = mounts
            .all
            .iter()
            .map(|mount| (mount.id, mount.target.as_str(), mount.is_own))
            .collect();
        let expected = [
            (1, "", true),
            (3, "data", false),
            (4, "data/in", true),
            (5, "run/x", false),
            (6, "mnt", false),
            (7, "in/in", true),
        ];
        assert_eq!(seen, expected);
        let run = mounts.all.iter().filter(|mount| mount.runs);
        let run: Vec<_> = run.map(|mount| (mount.id, mount.device)).collect();
        assert_eq!(run, [(1, (0, 50)), (3, (8, 1)), (4, (0, 52))]);
        let mut shared = Mounts::read(TEXT);
        shared.leave_to_host(&Mounts::read(
            "7 1 0:52 / /run rw - tmpfs tmpfs rw\n8 1 0:50 / /merged rw - overlay overlay rw\n",
        ));
        let own = shared.all.iter().filter(|mount| mount.is_own);
        assert_eq!(own.map(|mount| mount.id).collect::<Vec<_>>(), [1, 7]);
        let root = mounts.root.unwrap();
        assert_eq!(root.mount, 1);
        assert_eq!(root.lower, [Path::new("/l2"), Path::new("/l1")]);
        assert_eq!(root.upper.as_deref(), Some(Path::new("/a b/diff")));
        assert!(Overlay::read("rw,lowerdir=l/A:l/B").lower.is_empty());
        let new = Overlay::read("rw,lowerdir+=/b,lowerdir+=/a");
        assert_eq!(new.lower, [Path::new("/b"), Path::new("/a")]);
    }

    #[test]
    fn a_file_is_the_images_only_if_nothing_lies_above_it_and_it_is_the_same() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (lower, upper) = (dir.path().join("l"), dir.path().join("u"));
        for dir in [&lower, &upper] {
            std::fs::create_dir(dir).unwrap();
        }
        std::fs::write(lower.join("a"), b"a").unwrap();
        let inode = std::fs::metadata(lower.join("a")).unwrap().ino();
        let overlay = Overlay {
            mount: 1,
            lower: vec![lower],
            upper: Some(upper.clone()),
        };
        assert!(overlay.is_lower("a", inode, 1));
        assert!(!overlay.is_lower("a", inode + 1, 1) && !overlay.is_lower("b", inode, 1));
        std::fs::write(upper.join("a"), b"a").unwrap();
        assert!(!overlay.is_lower("a", inode, 1));
    }
}
