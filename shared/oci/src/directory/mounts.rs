//! File systems below a directory that are no part of what is to be looked at.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// The kernel's own, in which files are windows into it, and the mounted images of containers and
/// packages, which are looked at by themselves.
const LEFT_OUT: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fuse.lxcfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
];

/// Bytes of the kernel's list that are read.
const LIST_BYTES_MAX: u64 = 4 << 20;

/// Places below `root` at which such a file system is mounted.
pub(super) fn left_out(root: &Path) -> BTreeSet<PathBuf> {
    let list = Path::new("/proc/self/mountinfo");
    // Without the list, as on another system, nothing is mounted that we would know of.
    let list = chassis::files::read_text_bounded(list, LIST_BYTES_MAX).unwrap_or_default();
    parse(&list, root)
}

/// `36 35 98:0 /mnt1 /mount/point rw,noatime master:1 - ext3 /dev/root rw` (proc(5)).
fn parse(list: &str, root: &Path) -> BTreeSet<PathBuf> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let kind = after.split(' ').next()?;
        let point = unescape(before.split(' ').nth(4)?);
        let is_below = point.starts_with(root) && point != root;
        (LEFT_OUT.contains(&kind) && is_below).then_some(point)
    };
    list.lines().filter_map(mount).collect()
}

/// Blanks and the like are written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let digits = others.get(..3).filter(|_| *first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = others.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_file_systems_below_the_root_are_left_out() {
        let list = r"22 1 254:0 / / rw shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /host/proc rw shared:5 - proc proc rw
24 22 0:22 / /host/my\040data rw - overlay overlay rw
25 22 254:1 / /host/var rw - ext4 /dev/vda2 rw
26 22 0:23 / /sys rw - sysfs sysfs rw
a line that is none";
        let found: Vec<_> = parse(list, Path::new("/host")).into_iter().collect();
        assert_eq!(found, [Path::new("/host/my data"), Path::new("/host/proc")]);
        assert!(parse(list, Path::new("/host/proc")).is_empty());
    }
}
