//! Where the kernel keeps what must outlive the agent: pinned programs and maps in bpffs.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// Pins of this agent: one directory for each thing that was done.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    /// Agents of several installations on one node do not see each other's.
    own: PathBuf,
}

// === impl Pins ===

impl Pins {
    /// Below a mount of bpffs, for an installation of this name.
    pub(crate) fn new(root: &Path, name: &str) -> Self {
        Self {
            root: root.to_owned(),
            own: root.join("tidewaiter").join(pin_name(name)),
        }
    }

    /// The directory for a thing, made where it is not there; bpffs is mounted where it is not.
    pub(crate) fn make(&self, kind: &str, id: &str) -> anyhow::Result<PathBuf> {
        if !is_mounted(&self.root) {
            fs::create_dir_all(&self.root)
                .with_context(|| format!("making `{}`", self.root.display()))?;
            let none: Option<&str> = None;
            mount(Some("bpf"), &self.root, Some("bpf"), MsFlags::empty(), none)
                .with_context(|| format!("mounting bpffs at `{}`", self.root.display()))?;
        }
        ensure!(
            is_mounted(&self.root),
            "`{}` is not a bpffs",
            self.root.display()
        );
        let dir = self.dir(kind, id);
        fs::create_dir_all(&dir).with_context(|| format!("making `{}`", dir.display()))?;
        Ok(dir)
    }

    /// The directory for a thing.
    pub(crate) fn dir(&self, kind: &str, id: &str) -> PathBuf {
        self.own.join(kind).join(pin_name(id))
    }

    /// What is pinned of a kind.
    pub(crate) fn list(&self, kind: &str) -> Vec<String> {
        let entries = fs::read_dir(self.own.join(kind))
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.map(|entry| entry.file_name());
        names
            .filter_map(|name| name.to_str().map(str::to_owned))
            .collect()
    }

    /// Lets go of a thing: what is pinned ends with its last pin.
    pub(crate) fn remove(&self, kind: &str, id: &str) -> io::Result<()> {
        let dir = self.dir(kind, id);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

fn is_mounted(root: &Path) -> bool {
    statfs(root).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// bpffs takes no dots.
fn pin_name(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                c
            } else {
                '-'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_such_as_bpffs_takes() {
        let pins = Pins::new(Path::new("/x"), "node.1");
        assert_eq!(
            pins.dir("cut", "../a.b"),
            Path::new("/x/tidewaiter/node-1/cut/---a-b")
        );
    }

    #[test]
    fn what_is_not_there_is_let_go_of_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::new(dir.path(), "n");
        assert!(pins.remove("cut", "a").is_ok());
        assert!(pins.list("cut").is_empty());
        assert!(pins.make("cut", "a").is_err() || is_mounted(dir.path()));
        if is_mounted(dir.path()) {
            nix::mount::umount(dir.path()).unwrap();
        }
    }
}
