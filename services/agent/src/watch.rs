//! Which files are watched when they are opened.
//!
//! The kernel compares hashes of a path's last part and of the folder before it; the whole path is
//! compared here. Some files matter whoever reads them, others only to who writes: users read
//! `etc/passwd` all day.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::config::SensorConfig;

/// Files whose opening says something, wherever they are in a container.
pub(crate) const OPENED: &[&str] = &[
    // Accounts.
    "etc/shadow",
    "etc/gshadow",
    "etc/sudoers",
    "etc/passwd-",
    "etc/shadow-",
    "**/.ssh/*",
    "**/id_rsa",
    "**/id_ed25519",
    // Memory and kernel.
    "dev/mem",
    "dev/kmem",
    "dev/port",
    "proc/*/mem",
    "proc/*/environ",
    "proc/kcore",
    "proc/kallsyms",
    "proc/sched_debug",
    "proc/sysrq-trigger",
    "proc/sys/kernel/core_pattern",
    "proc/sys/kernel/modprobe",
    "proc/sys/kernel/randomize_va_space",
    "proc/sys/fs/binfmt_misc/register",
    "sys/kernel/uevent_helper",
    "sys/fs/cgroup/**/release_agent",
    "**/release_agent",
    "**/notify_on_release",
    // Disks of the host.
    "dev/sda",
    "dev/sda1",
    "dev/sda2",
    "dev/sda3",
    "dev/sdb",
    "dev/sdb1",
    "dev/vda",
    "dev/vda1",
    "dev/vda2",
    "dev/vdb",
    "dev/xvda",
    "dev/xvda1",
    "dev/nvme0n1",
    "dev/nvme0n1p1",
    "dev/nvme0n1p2",
    "dev/nvme1n1",
    "dev/mmcblk0",
    "dev/dm-0",
    "dev/dm-1",
    "dev/mapper/*",
    // Credentials of clouds and orchestrators.
    "**/serviceaccount/token",
    "**/serviceaccount/*/token",
    "**/.aws/credentials",
    "**/.azure/*",
    "**/gcloud/*",
    "**/application_default_credentials.json",
    "**/.kube/config",
    "**/.docker/config.json",
    "etc/kubernetes/admin.conf",
    "etc/kubernetes/pki/*",
    "**/.git-credentials",
    "**/.netrc",
    "**/.pgpass",
    // Sockets of engines: a connection to one counts as opening it.
    "**/docker.sock",
    "**/containerd.sock",
    "**/crio.sock",
    "**/podman.sock",
];
/// Files that say something to who writes them.
pub(crate) const WRITTEN: &[&str] = &[
    // Accounts.
    "etc/passwd",
    "etc/group",
    "etc/sudoers.d/*",
    // Libraries that everything loads.
    "etc/ld.so.preload",
    // Tasks that run by themselves.
    "etc/crontab",
    "etc/anacrontab",
    "etc/cron.d/*",
    "etc/cron.hourly/*",
    "etc/cron.daily/*",
    "etc/cron.weekly/*",
    "etc/cron.monthly/*",
    "var/spool/cron/*",
    "var/spool/cron/crontabs/*",
    "etc/systemd/system/*",
    // What shells and the system run when they start.
    "etc/profile",
    "etc/profile.d/*",
    "etc/bash.bashrc",
    "etc/rc.local",
    "etc/init.d/*",
    "etc/update-motd.d/*",
    "**/.bashrc",
    "**/.bash_profile",
    "**/.bash_logout",
    "**/.profile",
    "**/.zshrc",
];
/// How many globs: the kernel's table holds twice as many names.
const GLOBS_MAX: usize = 512;
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// What is watched of a name: `enum watch` in `bpf/events.h`.
const NAME: u8 = 1;
const FOLDER: u8 = 2;
/// The same, for files that are opened to be written.
const IF_WRITTEN: u8 = 2;

/// Globs of watched files.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    opened: GlobSet,
    written: GlobSet,
    names: BTreeMap<u64, u8>,
}

// === impl Watched ===

impl Watched {
    pub(crate) fn new(config: &SensorConfig) -> anyhow::Result<Self> {
        let count = config.watched_files.len() + config.written_files.len();
        ensure!(count <= GLOBS_MAX, "more than {GLOBS_MAX} globs");
        let mut names = BTreeMap::new();
        Ok(Self {
            opened: parse(&config.watched_files, 0, &mut names).context("`watched_files`")?,
            written: parse(&config.written_files, IF_WRITTEN, &mut names)
                .context("`written_files`")?,
            names,
        })
    }

    /// Hashes of names, as the kernel computes them, with what is watched of each.
    pub(crate) fn names(&self) -> impl Iterator<Item = (u64, u8)> {
        self.names.iter().map(|(hash, what)| (*hash, *what))
    }

    /// Whether opening a path within a container is told.
    pub(crate) fn matches(&self, path: &str, write: bool) -> bool {
        self.opened.is_match(path) || write && self.written.is_match(path)
    }
}

fn parse(globs: &[String], shift: u8, names: &mut BTreeMap<u64, u8>) -> anyhow::Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        ensure!(!glob.starts_with('/'), "`{glob}` begins with a slash");
        let (name, what) = match glob.strip_suffix("/*") {
            Some(folder) => (folder, FOLDER),
            None => (glob.as_str(), NAME),
        };
        let name = name.rsplit('/').next().unwrap_or_default();
        ensure!(
            !name.is_empty() && !name.contains(['*', '?', '[', '{', '\\']),
            "`{glob}` does not end with a plain name, nor with a plain folder and `/*`"
        );
        *names.entry(hash(name)).or_default() |= what << shift;
        set.add(glob_of(glob)?);
    }
    set.build().context("the globs together")
}

fn glob_of(glob: &str) -> anyhow::Result<Glob> {
    let built = GlobBuilder::new(glob).literal_separator(true).build();
    built.with_context(|| format!("`{glob}` is not a glob"))
}

/// FNV-1a, as `hash_letter` in `bpf/sensor.bpf.c`.
fn hash(name: &str) -> u64 {
    let letters = name.bytes().map(u64::from);
    letters.fold(FNV_START, |hash, letter| {
        (hash ^ letter).wrapping_mul(FNV_PRIME)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(opened: &[&str], written: &[&str]) -> anyhow::Result<Watched> {
        let globs = |globs: &[&str]| globs.iter().map(|&glob| glob.to_owned()).collect();
        Watched::new(&SensorConfig {
            watched_files: globs(opened),
            written_files: globs(written),
            ..SensorConfig::default()
        })
    }

    #[test]
    fn the_default_list_finds_what_it_names() {
        let watched = watched(OPENED, WRITTEN).unwrap();
        for path in [
            "etc/shadow",
            "proc/1/mem",
            "proc/self/environ",
            "root/.aws/credentials",
            "root/.ssh/id_ecdsa",
            "run/secrets/kubernetes.io/serviceaccount/token",
            "var/run/docker.sock",
            "sys/fs/cgroup/rdma/release_agent",
            "dev/mapper/root",
        ] {
            assert!(watched.matches(path, false), "{path}");
        }
        for path in ["etc/passwd", "etc/cron.d/x", "root/.bashrc"] {
            assert!(watched.matches(path, true), "{path}");
            assert!(!watched.matches(path, false), "{path}");
        }
        for path in ["srv/shadow", "proc/1/maps", "app/token", "etc/cron.d/x/y"] {
            assert!(!watched.matches(path, true), "{path}");
        }
    }

    #[test]
    fn the_kernel_is_told_names_and_folders_and_what_only_writing_matters_of() {
        let watched = watched(&["a/x", "x/*"], &["b/x", "c/y", "y/*"]).unwrap();
        let names: Vec<_> = watched.names().collect();
        let mut expected = [(hash("x"), 1 | 2 | 4), (hash("y"), 4 | 8)];
        expected.sort_unstable();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_glob_needs_a_name_that_the_kernel_can_compare() {
        for glob in [
            "etc/*/x*",
            "/etc/shadow",
            "etc/",
            "etc/sha[d]ow",
            "",
            "/*",
            "*/*",
        ] {
            assert!(watched(&[glob], &[]).is_err(), "{glob}");
            assert!(watched(&[], &[glob]).is_err(), "{glob}");
        }
        let many = vec!["a/b"; GLOBS_MAX];
        assert!(watched(&many, &[]).is_ok());
        assert!(watched(&many, &["a/b"]).is_err());
    }

    #[test]
    fn names_are_hashed_as_fnv_says() {
        // Test vectors of the algorithm's authors.
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
