//! Cgroups of containers: where they are, which container they are, what lies in them.
//!
//! The kernel side knows a container by the id of its cgroup, which is the inode of its directory.
//! With v2, alone or beside v1 controllers, that is the unified tree; with v1 alone it is the tree
//! of one controller.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use chassis::files::read_text_bounded;

/// Directories looked at in one walk, and how deep.
const DIRECTORIES_MAX: usize = 20_000;
const DEPTH_MAX: usize = 12;
const PROC_BYTES_MAX: u64 = 1 << 20;
/// Hex digits of a container's id.
const ID_DIGITS: usize = 64;
/// Controllers that runtimes always use.
const CONTROLLERS: &[&str] = &["memory", "pids", "cpu", "devices"];

/// How this host counts its cgroups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// `v1`, `v2`, `hybrid`, or empty.
    pub(crate) mode: String,
    /// Where the tree that counts is mounted.
    pub(crate) root: PathBuf,
    /// The v1 controller whose tree counts, where there is no v2.
    pub(crate) v1: Option<V1>,
}

/// A v1 controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct V1 {
    pub(crate) name: String,
    /// Its number in the kernel.
    pub(crate) index: i64,
    /// Its hierarchy's id.
    pub(crate) hierarchy: u32,
}

/// A container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The cgroup's id.
    pub(crate) cgroup: u64,
    /// The container's id.
    pub(crate) container: String,
    /// Ids of the cgroups within it.
    pub(crate) inner: Vec<u64>,
    /// Processes in all of them.
    pub(crate) pids: Vec<u32>,
}

// === impl Layout ===

impl Layout {
    /// Of this host.
    pub(crate) fn here() -> Self {
        let read = |path: &str| read_text_bounded(Path::new(path), PROC_BYTES_MAX);
        let mounts = read("/proc/self/mountinfo").unwrap_or_default();
        Self::of(&mounts, &read("/proc/cgroups").unwrap_or_default())
    }

    fn of(mountinfo: &str, controllers: &str) -> Self {
        let mut v2 = None;
        let mut v1: Vec<(PathBuf, String)> = Vec::new();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let place = PathBuf::from(left.split(' ').nth(4).unwrap_or_default());
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup2") => v2 = v2.or(Some(place)),
                Some("cgroup") => {
                    v1.push((place, right.nth(1).unwrap_or_default().to_owned()));
                }
                _ => {}
            }
        }
        let has_v1 = |name: &str| {
            v1.iter()
                .find(|(_, options)| options.split(',').any(|option| option == name))
        };
        let used = CONTROLLERS
            .iter()
            .find_map(|name| Some((*name, has_v1(name)?)));
        match (v2, used) {
            (Some(root), used) => Self {
                mode: if used.is_some() { "hybrid" } else { "v2" }.to_owned(),
                root,
                v1: None,
            },
            (None, Some((name, (root, _)))) => Self {
                mode: "v1".to_owned(),
                root: root.clone(),
                v1: v1_of(controllers, name),
            },
            (None, None) => Self::default(),
        }
    }

    /// The path of a process's cgroup below the root.
    pub(crate) fn path_of(&self, pid: u32) -> Option<String> {
        let file = PathBuf::from(format!("/proc/{pid}/cgroup"));
        self.path_in(&read_text_bounded(&file, PROC_BYTES_MAX).ok()?)
    }

    fn path_in(&self, text: &str) -> Option<String> {
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            let counts = match &self.v1 {
                None => number == "0" && names.is_empty(),
                Some(v1) => names.split(',').any(|name| name == v1.name),
            };
            counts.then(|| path.to_owned())
        })
    }

    /// What lies in the cgroup of a container.
    pub(crate) fn found(&self, path: &str, container: &str) -> Option<Found> {
        let place = self.root.join(path.trim_start_matches('/'));
        let cgroup = fs::metadata(&place).ok()?.ino();
        let mut found = Found {
            cgroup,
            container: container.to_owned(),
            inner: Vec::new(),
            pids: pids(&place),
        };
        let mut left = DIRECTORIES_MAX;
        walk(&place, DEPTH_MAX, &mut left, &mut |inner| {
            found
                .inner
                .extend(fs::metadata(inner).map(|found| found.ino()));
            found.pids.extend(pids(inner));
            true
        });
        Some(found)
    }

    /// The directory of a container's cgroup, where its name says whose it is.
    pub(crate) fn find(&self, container: &str) -> Option<PathBuf> {
        let (mut found, mut left) = (None, DIRECTORIES_MAX);
        if self.mode.is_empty() {
            return None;
        }
        walk(&self.root, DEPTH_MAX, &mut left, &mut |place| {
            let name = place.file_name().and_then(|name| name.to_str());
            let id = name.and_then(container_id);
            if found.is_none() && id == Some(container) {
                found = Some(place.to_owned());
            }
            id.is_none() && found.is_none()
        });
        found
    }

    /// The containers whose cgroups name them.
    pub(crate) fn scan(&self) -> Vec<Found> {
        let found = self.containers().into_iter();
        let found = found.filter_map(|(path, _)| {
            let id = container_in(&path)?.to_owned();
            self.found(&path, &id)
        });
        found.collect()
    }

    /// Their cgroups alone: paths below the root, and ids.
    pub(crate) fn containers(&self) -> Vec<(String, u64)> {
        let (mut paths, mut left) = (Vec::new(), DIRECTORIES_MAX);
        if self.mode.is_empty() {
            return Vec::new();
        }
        walk(&self.root, DEPTH_MAX, &mut left, &mut |place| {
            let name = place.file_name().and_then(|name| name.to_str());
            if name.and_then(container_id).is_none() {
                return true;
            }
            paths.push(place.to_owned());
            false
        });
        let found = paths.into_iter().filter_map(|place| {
            let cgroup = fs::metadata(&place).ok()?.ino();
            let below = place.strip_prefix(&self.root).ok()?.to_str()?;
            Some((format!("/{below}"), cgroup))
        });
        found.collect()
    }
}

fn v1_of(controllers: &str, name: &str) -> Option<V1> {
    let lines = controllers.lines().filter(|line| !line.starts_with('#'));
    let (index, line) = lines
        .enumerate()
        .find(|(_, line)| line.split_whitespace().next() == Some(name))?;
    Some(V1 {
        name: name.to_owned(),
        index: i64::try_from(index).ok()?,
        hierarchy: line.split_whitespace().nth(1)?.parse().ok()?,
    })
}

/// The container's id in a cgroup's name: 64 hex digits in a row. Monitors of runtimes have the id
/// of what they look after, and are none.
pub(crate) fn container_id(name: &str) -> Option<&str> {
    if name.starts_with("libpod-conmon") || name.starts_with("crio-conmon") {
        return None;
    }
    let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    name.split(|c: char| !is_digit(c))
        .find_map(|run| run.get(..ID_DIGITS))
}

/// The container's id in a cgroup's path.
pub(crate) fn container_in(path: &str) -> Option<&str> {
    path.split('/').find_map(container_id)
}

/// Visits the directories below one; where `visit` says so, what is below them too.
fn walk(place: &Path, depth: usize, left: &mut usize, visit: &mut dyn FnMut(&Path) -> bool) {
    let Ok(entries) = fs::read_dir(place) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Some(rest) = left.checked_sub(1) else {
            return;
        };
        *left = rest;
        let path = entry.path();
        if visit(&path) && depth > 0 {
            walk(&path, depth.saturating_sub(1), left, visit);
        }
    }
}

/// Processes of a cgroup and of those within it.
pub(crate) fn all_pids(place: &Path) -> Vec<u32> {
    let (mut found, mut left) = (pids(place), DIRECTORIES_MAX);
    walk(place, DEPTH_MAX, &mut left, &mut |inner| {
        found.extend(pids(inner));
        true
    });
    found
}

fn pids(place: &Path) -> Vec<u32> {
    let mut text = String::new();
    let opened = fs::File::open(place.join("cgroup.procs"));
    let read = opened.and_then(|file| file.take(PROC_BYTES_MAX).read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "9927f49113033b6a04e376219116410e7ab272b8717ce2a43979d4c52e220d87";
    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
    const MEMORY: &str = "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
    const UNIFIED: &str = "40 23 0:30 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw";
    const CONTROLLERS: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
        cpuset\t3\t1\t1\ncpu\t1\t1\t1\nmemory\t4\t1\t1\n";

    #[test]
    fn each_layout_is_known() {
        let v2 = Layout::of(V2, CONTROLLERS);
        assert_eq!((v2.mode.as_str(), v2.v1), ("v2", None));
        let hybrid = Layout::of(&format!("{MEMORY}\n{UNIFIED}"), CONTROLLERS);
        assert_eq!(hybrid.mode, "hybrid");
        assert_eq!(hybrid.root, Path::new("/sys/fs/cgroup/unified"));
        let v1 = Layout::of(MEMORY, CONTROLLERS);
        assert_eq!(
            (v1.mode.as_str(), v1.root.as_path()),
            ("v1", Path::new("/sys/fs/cgroup/memory"))
        );
        let controller = v1.v1.clone().unwrap();
        assert_eq!((controller.index, controller.hierarchy), (2, 4));
        assert_eq!(Layout::of("", ""), Layout::default());
        let text = "4:memory:/docker/a\n0::/system.slice/b\n";
        assert_eq!(hybrid.path_in(text).unwrap(), "/system.slice/b");
        assert_eq!(v1.path_in(text).unwrap(), "/docker/a");
        assert_eq!(v1.path_in("0::/x"), None);
    }

    #[test]
    fn a_container_is_known_by_the_id_in_its_name() {
        for name in [
            ID.to_owned(),
            format!("libpod-{ID}"),
            format!("docker-{ID}.scope"),
            format!("cri-containerd-{ID}.scope"),
            format!("crio-{ID}.scope"),
        ] {
            assert_eq!(container_id(&name), Some(ID), "{name}");
        }
        for name in [
            format!("libpod-conmon-{ID}.scope"),
            format!("crio-conmon-{ID}.scope"),
            "user@0.service".to_owned(),
            ID[1..].to_owned(),
        ] {
            assert_eq!(container_id(&name), None, "{name}");
        }
        let path = format!("/kubepods.slice/pod1/cri-containerd-{ID}.scope/inner");
        assert_eq!(container_in(&path), Some(ID));
    }
}
