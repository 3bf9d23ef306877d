//! Which files are watched when they are opened.
//!
//! The kernel compares a hash of the path's last part; the whole path is compared here.

use anyhow::{Context as _, ensure};
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// Files whose opening says something, wherever they are in a container.
pub(crate) const DEFAULT: &[&str] = &[
    // Accounts.
    "etc/shadow",
    "etc/gshadow",
    "etc/sudoers",
    "etc/passwd-",
    "etc/shadow-",
    "**/authorized_keys",
    "**/id_rsa",
    "**/id_ed25519",
    // Memory and kernel.
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
    // Libraries that everything loads, tasks that run by themselves.
    "etc/ld.so.preload",
    "etc/crontab",
    "etc/rc.local",
    // Credentials of clouds and orchestrators.
    "**/serviceaccount/token",
    "**/serviceaccount/*/token",
    "**/.aws/credentials",
    "**/.azure/accessTokens.json",
    "**/.azure/msal_token_cache.json",
    "**/gcloud/credentials.db",
    "**/application_default_credentials.json",
    "**/.kube/config",
    "**/.docker/config.json",
    "etc/kubernetes/admin.conf",
    "**/.git-credentials",
    "**/.netrc",
    // Sockets of engines.
    "**/docker.sock",
    "**/containerd.sock",
    "**/crio.sock",
    "**/podman.sock",
];
/// How many globs: the kernel's table holds twice as many names.
const GLOBS_MAX: usize = 512;
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// Globs of watched files.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    globs: GlobSet,
    names: Vec<String>,
}

// === impl Watched ===

impl Watched {
    pub(crate) fn new(globs: &[String]) -> anyhow::Result<Self> {
        ensure!(globs.len() <= GLOBS_MAX, "more than {GLOBS_MAX} globs");
        let (mut set, mut names) = (GlobSetBuilder::new(), Vec::new());
        for glob in globs {
            let name = glob.rsplit('/').next().unwrap_or_default();
            ensure!(
                !name.is_empty() && !name.contains(['*', '?', '[', '{', '\\']),
                "`{glob}` does not end with a plain name"
            );
            ensure!(!glob.starts_with('/'), "`{glob}` begins with a slash");
            names.push(name.to_owned());
            set.add(parse(glob)?);
        }
        names.sort_unstable();
        names.dedup();
        let globs = set.build().context("the globs together")?;
        Ok(Self { globs, names })
    }

    /// Hashes of last parts, as the kernel computes them.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> {
        self.names.iter().map(|name| hash(name))
    }

    /// Whether a path within a container is watched.
    pub(crate) fn matches(&self, path: &str) -> bool {
        self.globs.is_match(path)
    }
}

fn parse(glob: &str) -> anyhow::Result<Glob> {
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

    fn watched(globs: &[&str]) -> anyhow::Result<Watched> {
        let globs: Vec<String> = globs.iter().map(|&glob| glob.to_owned()).collect();
        Watched::new(&globs)
    }

    #[test]
    fn the_default_list_finds_what_it_names() {
        let watched = watched(DEFAULT).unwrap();
        for path in [
            "etc/shadow",
            "proc/1/mem",
            "proc/self/environ",
            "root/.aws/credentials",
            "run/secrets/kubernetes.io/serviceaccount/token",
            "var/run/docker.sock",
            "sys/fs/cgroup/rdma/release_agent",
        ] {
            assert!(watched.matches(path), "{path}");
        }
        for path in ["srv/shadow", "proc/1/maps", "app/token", "app/config.json"] {
            assert!(!watched.matches(path), "{path}");
        }
        assert_eq!(watched.hashes().count(), watched.names.len());
    }

    #[test]
    fn a_glob_needs_a_name_that_the_kernel_can_compare() {
        for glob in ["etc/*", "/etc/shadow", "etc/", "etc/sha[d]ow", ""] {
            assert!(watched(&[glob]).is_err(), "{glob}");
        }
        let many = vec!["a/b"; GLOBS_MAX + 1];
        assert!(watched(&many[1..]).is_ok());
        assert!(watched(&many).is_err());
    }

    #[test]
    fn names_are_hashed_as_fnv_says() {
        // Test vectors of the algorithm's authors.
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
