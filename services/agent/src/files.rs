//! Files that run: their digests, and where scripts come from.
//!
//! Paths are a container's, so they are resolved within its root and never above it
//! (`RESOLVE_IN_ROOT`), opened without waiting (a pipe may lie there), and hashed only where they are
//! regular files. A digest is kept by what the file is (device, inode, change time, size), so a file
//! is read once however often it runs.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use chassis::files::read_text_bounded;
use model::{
    Digest, Hasher,
    runtime::{ExecutedFile, Origin},
};
use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::statfs::{OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, fstatfs},
};

use crate::{config::HashConfig, metrics};

/// What the kernel writes behind the path of a file that has no name any more.
pub(crate) const DELETED: &str = " (deleted)";
/// Digests that are kept.
const DIGESTS_MAX: usize = 16_384;
const MOUNTINFO_BYTES_MAX: u64 = 4 << 20;
const PIECE_BYTES: usize = 128 << 10;
/// How many seconds' worth of hashing may be done at once.
const BURST_S: u64 = 8;

/// Reads files of containers.
pub(crate) struct Files {
    digests: HashMap<Identity, Digest>,
    config: HashConfig,
    /// Bytes that may be hashed now, and since when.
    allowance: u64,
    since: Instant,
    piece: Vec<u8>,
}

/// What a file is; it changes whenever the content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    device: u64,
    pub(crate) inode: u64,
    changed_s: i64,
    changed_ns: i64,
    pub(crate) size: u64,
}

/// Files of a program that started, where they are open already.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) program: Option<Arc<File>>,
    /// The script that it was started for.
    pub(crate) script: Option<(ExecutedFile, Option<Arc<File>>)>,
}

/// What the kernel told of the file that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) inode: u64,
    pub(crate) size: u64,
}

/// A text that processes have a part in, as their names: what is not UTF-8 is replaced, and what is
/// beyond the bound cut off.
pub(crate) fn text_of(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where a file of the host is for an agent that has mounts of its own, as in a pod.
pub(crate) fn of_host(path: &Path) -> PathBuf {
    let (Ok(below), false) = (path.strip_prefix("/"), path.exists()) else {
        return path.to_owned();
    };
    let of_host = Path::new("/proc/1/root").join(below);
    if of_host.exists() {
        of_host
    } else {
        path.to_owned()
    }
}

// === impl Identity ===

impl Identity {
    pub(crate) fn of(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            changed_s: found.ctime(),
            changed_ns: found.ctime_nsec(),
            size: found.size(),
        }
    }
}

// === impl Files ===

impl Files {
    pub(crate) fn new(config: &HashConfig) -> Self {
        Self {
            digests: HashMap::new(),
            config: config.clone(),
            allowance: config.bytes_per_s_max.saturating_mul(BURST_S),
            since: Instant::now(),
            piece: vec![0; PIECE_BYTES],
        }
    }

    /// The digest of the file that a process runs: through the process while it lives, else by its
    /// path in the container, where that still is the file the kernel told of.
    pub(crate) fn executed(
        &mut self,
        pids: &[u32],
        path: &str,
        expected: Expected,
    ) -> Option<Digest> {
        let own = pids
            .first()
            .map(|pid| PathBuf::from(format!("/proc/{pid}/exe")));
        let own = own.and_then(|path| open_here(&path).ok());
        let is_it = |file: &File| {
            let found = file.metadata().ok();
            found
                .is_some_and(|found| found.ino() == expected.inode && found.size() == expected.size)
        };
        let own = own.filter(is_it);
        let file = own.or_else(|| {
            let mut opened = pids.iter().filter_map(|pid| open_in(*pid, path).ok());
            opened.find(is_it)
        })?;
        self.digest(file)
    }

    /// The digest of a file that is open.
    pub(crate) fn opened(&mut self, file: &File) -> Option<Digest> {
        let mut file = file.try_clone().ok()?;
        // Others read it through the same descriptor.
        file.rewind().ok()?;
        self.digest(file)
    }

    /// A script: its path without links, where it comes from, its digest.
    pub(crate) fn script(&mut self, pids: &[u32], path: &str) -> ExecutedFile {
        let opened = pids
            .iter()
            .find_map(|pid| Some((*pid, open_in(*pid, path).ok()?)));
        let Some((pid, file)) = opened else {
            // It is gone with its process: what is known is its name.
            return ExecutedFile {
                path: path.to_owned(),
                ..ExecutedFile::default()
            };
        };
        let real = real_path(&file).unwrap_or_else(|| path.to_owned());
        self.described(pid, file, real)
    }

    /// What a process has as its standard input, where that is a file with a name: what the shell
    /// itself made of a text (`<<`) has none.
    pub(crate) fn input(&mut self, pid: u32) -> Option<ExecutedFile> {
        let path = PathBuf::from(format!("/proc/{pid}/fd/0"));
        // Opening anything else may do something.
        let found = fs::metadata(&path).ok()?;
        if !found.is_file() || found.nlink() == 0 {
            return None;
        }
        let file = open_here(&path).ok()?;
        let real = real_path(&file)?;
        Some(self.described(pid, file, real))
    }

    /// Where an open file comes from, and its digest where that says more.
    fn described(&mut self, pid: u32, file: File, path: String) -> ExecutedFile {
        let (origin, mount) = origin(pid, &file, &path);
        let digest = if origin == Origin::Lower {
            None
        } else {
            self.digest(file)
        };
        ExecutedFile {
            path,
            origin,
            digest,
            mount,
        }
    }

    fn digest(&mut self, file: File) -> Option<Digest> {
        let found = file.metadata().ok().filter(fs::Metadata::is_file)?;
        let identity = Identity::of(&found);
        if let Some(digest) = self.digests.get(&identity) {
            return Some(*digest);
        }
        if identity.size > self.config.file_bytes_max || !self.may_read(identity.size) {
            metrics::not_hashed();
            return None;
        }
        let digest = self.read(file).ok()?;
        if self.digests.len() >= DIGESTS_MAX {
            self.digests.clear();
        }
        self.digests.insert(identity, digest);
        Some(digest)
    }

    fn may_read(&mut self, bytes: u64) -> bool {
        let passed = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rate = self.config.bytes_per_s_max;
        let gained = rate.saturating_mul(passed) / 1_000;
        self.since = Instant::now();
        // A file is never too large for its rate, only too early.
        let most = rate.saturating_mul(BURST_S).max(self.config.file_bytes_max);
        self.allowance = self.allowance.saturating_add(gained).min(most);
        let rest = self.allowance.checked_sub(bytes);
        self.allowance = rest.unwrap_or(self.allowance);
        rest.is_some()
    }

    fn read(&mut self, file: File) -> io::Result<Digest> {
        let mut hasher = Hasher::default();
        let mut file = file.take(self.config.file_bytes_max);
        loop {
            let length = file.read(&mut self.piece)?;
            if length == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(self.piece.get(..length).unwrap_or_default());
            metrics::hashed(length);
        }
    }
}

fn open_here(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
}

/// Opens a path as a process sees it, never above its root.
fn open_in(pid: u32, path: &str) -> io::Result<File> {
    open_as(
        pid,
        path,
        OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
    )
}

/// The same to know which file it is, and no more: nobody is told of it, nor asked.
pub(crate) fn find_in(pid: u32, path: &str) -> io::Result<File> {
    open_as(pid, path, OFlag::O_PATH)
}

fn open_as(pid: u32, path: &str, flags: OFlag) -> io::Result<File> {
    let root = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_DIRECTORY).bits())
        .open(format!("/proc/{pid}/root"))?;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(File::from(openat2(&root, path, how)?))
}

/// The path of an open file in its own mount namespace, without a leading slash.
fn real_path(file: &File) -> Option<String> {
    use std::os::fd::AsRawFd as _;
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let path = path.to_str()?.trim_start_matches('/');
    Some(path.trim_end_matches(DELETED).to_owned())
}

/// Where an open file of a process comes from, and the mount that holds it below the root.
pub(crate) fn origin(pid: u32, file: &File, path: &str) -> (Origin, Option<String>) {
    let (Ok(found), Ok(system)) = (file.metadata(), fstatfs(file)) else {
        return (Origin::Unknown, None);
    };
    let mountinfo = PathBuf::from(format!("/proc/{pid}/mountinfo"));
    let mounts = read_text_bounded(&mountinfo, MOUNTINFO_BYTES_MAX).unwrap_or_default();
    let mount = mount_of(&mounts, path);
    let below_root = mount.as_ref().filter(|mount| mount.target != "/");
    let target = below_root.map(|mount| mount.target.trim_start_matches('/').to_owned());
    if found.nlink() == 0 {
        return (Origin::Unlinked, None);
    }
    match system.filesystem_type() {
        OVERLAYFS_SUPER_MAGIC => {
            let Some(mount) = mount.filter(|mount| mount.upper.is_some()) else {
                // Read-only: there is no layer of the container's own.
                return (Origin::Lower, target);
            };
            let inner = path
                .strip_prefix(mount.target.trim_start_matches('/'))
                .unwrap_or(path);
            let upper = mount.upper.unwrap_or_default();
            let upper = Path::new(&upper).join(inner.trim_start_matches('/'));
            if fs::symlink_metadata(upper).is_ok() {
                (Origin::Upper, target)
            } else {
                (Origin::Lower, target)
            }
        }
        TMPFS_MAGIC => (Origin::Tmpfs, target),
        _ if target.is_some() => (Origin::Other, target),
        // The root is no overlay: the content decides.
        _ => (Origin::Unknown, None),
    }
}

/// A line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    target: String,
    upper: Option<String>,
}

/// The mount that holds a path: the last one of the longest that it lies below.
fn mount_of(mountinfo: &str, path: &str) -> Option<Mounted> {
    let mut best: Option<Mounted> = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let target = unescaped(left.split(' ').nth(4).unwrap_or_default());
        let below = target.trim_start_matches('/');
        let rest = path.strip_prefix(below);
        let holds = below.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'));
        let is_longer = best
            .as_ref()
            .is_none_or(|best| target.len() >= best.target.len());
        if holds && is_longer {
            let options = right.split(' ').nth(2).unwrap_or_default();
            let upper = options
                .split(',')
                .find_map(|option| option.strip_prefix("upperdir="));
            best = Some(Mounted {
                target,
                upper: upper.map(unescaped),
            });
        }
    }
    best
}

/// Mountinfo writes spaces and the like as three octal digits.
pub(crate) fn unescaped(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        1 0 0:50 / / rw - overlay overlay rw,lowerdir=/l2:/l1,upperdir=/var/lib/a\\040b/diff,workdir=/w\n\
        2 1 0:51 / /proc rw - proc proc rw\n\
        3 1 8:1 /vol /data rw - ext4 /dev/sda1 rw\n\
        4 3 0:52 / /data/in rw - tmpfs tmpfs rw\n";

    #[test]
    fn the_nearest_mount_holds_a_path() {
        let of = |path| mount_of(MOUNTS, path).unwrap();
        assert_eq!(of("usr/bin/x").upper.as_deref(), Some("/var/lib/a b/diff"));
        assert_eq!(of("data/x").target, "/data");
        assert_eq!(of("data/in/x").target, "/data/in");
        assert_eq!(of("database/x").target, "/");
        assert_eq!(mount_of("", "x"), None);
    }

    #[test]
    fn a_file_is_read_once_and_never_beyond_the_limits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, b"12345").unwrap();
        let config = |file_bytes_max, bytes_per_s_max| HashConfig {
            file_bytes_max,
            bytes_per_s_max,
        };
        let open = || File::open(&path).unwrap();
        let mut files = Files::new(&config(5, 5));
        assert_eq!(files.digest(open()), Some(Digest::of(b"12345")));
        files.allowance = 0;
        assert_eq!(
            files.digest(open()),
            Some(Digest::of(b"12345")),
            "it is known"
        );
        assert_eq!(Files::new(&config(4, 100)).digest(open()), None);
        let mut slow = Files::new(&config(5, 0));
        slow.allowance = 4;
        assert_eq!(slow.digest(open()), None);
        slow.allowance = 5;
        assert!(slow.digest(open()).is_some());
    }

    #[test]
    fn what_a_process_runs_is_compared_with_what_the_kernel_told() {
        let own = std::process::id();
        let exe = fs::metadata("/proc/self/exe").unwrap();
        let mut files = Files::new(&HashConfig {
            file_bytes_max: 1 << 30,
            bytes_per_s_max: 1 << 30,
        });
        let expected = Expected {
            inode: exe.ino(),
            size: exe.size(),
        };
        let path = fs::read_link("/proc/self/exe").unwrap();
        let path = path.to_str().unwrap().to_owned();
        assert!(files.executed(&[own], &path, expected).is_some());
        // The process is gone; its container's first process leads to the file.
        assert!(files.executed(&[u32::MAX, own], &path, expected).is_some());
        let other = Expected {
            inode: exe.ino() + 1,
            size: exe.size(),
        };
        assert_eq!(files.executed(&[own], &path, other), None);
    }

    #[test]
    fn a_pipe_in_the_place_of_a_script_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut files = Files::new(&HashConfig::default());
        let script = files.script(&[std::process::id()], path.to_str().unwrap());
        assert_eq!(script.digest, None);
    }
}
