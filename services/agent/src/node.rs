//! The node: its name, its boot, its facts.

use std::path::Path;

use anyhow::Context as _;
use chassis::{Clock, files::read_text_bounded};
use jiff::{SignedDuration, Timestamp};
use model::{Slug, runtime::HostFacts};

use crate::{cgroup::Layout, config::Config};

const FILE_BYTES_MAX: u64 = 1 << 20;
const NAME_MAX: usize = 64;

/// A node, in this boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Slug,
    /// The kernel's boot id.
    pub boot: String,
}

// === impl Node ===

impl Node {
    /// This one.
    pub fn here(config: &Config) -> anyhow::Result<Self> {
        let boot = read("/proc/sys/kernel/random/boot_id");
        let given = config.node.clone().unwrap_or_else(host_name);
        let name = slug(&given).with_context(|| {
            format!("`{given}` makes no name of a node: set `node` in the configuration")
        })?;
        Ok(Self {
            name,
            boot: boot.unwrap_or_else(|| "unknown".to_owned()),
        })
    }
}

/// When this machine booted, as far as the clock tells.
pub(crate) fn booted_at(clock: &dyn Clock) -> Timestamp {
    let uptime = read("/proc/uptime").unwrap_or_default();
    let seconds: f64 = uptime
        .split(' ')
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0.0);
    let now = clock.now();
    let since = SignedDuration::try_from_secs_f64(seconds).unwrap_or_default();
    now.checked_sub(since).unwrap_or(now)
}

/// What is known of the host, whose file system is at `root`; `runtimes` and `orchestrator` are the
/// inventory's.
pub(crate) fn facts(root: &Path, layout: &Layout) -> HostFacts {
    let within = |path: &str| read(root.join(path));
    let release = within("etc/os-release").or_else(|| within("usr/lib/os-release"));
    let release = release.unwrap_or_default();
    let field = |name: &str| os_field(&release, name);
    let memory = read("/proc/meminfo").unwrap_or_default();
    HostFacts {
        name: host_name(),
        os: field("PRETTY_NAME"),
        os_id: format!("{} {}", field("ID"), field("VERSION_ID"))
            .trim()
            .to_owned(),
        kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
        machine: std::env::consts::ARCH.to_owned(),
        processors: std::thread::available_parallelism()
            .map_or(0, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory_bytes(&memory),
        runtimes: Vec::new(),
        orchestrator: None,
        lockdown: read("/sys/kernel/security/lockdown").and_then(|text| chosen(&text)),
        security_modules: read("/sys/kernel/security/lsm")
            .map(|text| text.split(',').map(str::to_owned).collect())
            .unwrap_or_default(),
        cgroups: layout.mode.clone(),
    }
}

fn host_name() -> String {
    read("/proc/sys/kernel/hostname").unwrap_or_default()
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    let text = read_text_bounded(path.as_ref(), FILE_BYTES_MAX).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// A name as subjects take it.
fn slug(name: &str) -> Option<Slug> {
    let letter = |c: char| {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '-'
        }
    };
    let name: String = name.chars().take(NAME_MAX).map(letter).collect();
    name.parse().ok()
}

fn os_field(release: &str, name: &str) -> String {
    let mut lines = release.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value
        .unwrap_or_default()
        .trim_matches(['"', '\''])
        .to_owned()
}

fn memory_bytes(meminfo: &str) -> u64 {
    let mut lines = meminfo.lines();
    let total = lines.find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|total| total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1_024)
}

/// The word in brackets of `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_becomes_a_name() {
        assert_eq!(
            slug("Node-1.example.org").unwrap().as_str(),
            "node-1-example-org"
        );
        assert_eq!(slug(&"a".repeat(100)).unwrap().as_str().len(), 64);
        assert_eq!(slug(""), None);
    }

    #[test]
    fn facts_are_read_from_text() {
        assert_eq!(
            chosen("none [integrity] confidentiality").unwrap(),
            "integrity"
        );
        assert_eq!(chosen("none"), None);
        assert_eq!(memory_bytes("MemTotal:       4 kB\nMemFree: 1 kB"), 4_096);
        assert_eq!(os_field("ID=debian\nVERSION_ID=\"12\"", "VERSION_ID"), "12");
        assert_eq!(os_field("ID=debian", "VERSION_ID"), "");
    }

    #[test]
    fn the_boot_lies_in_the_past() {
        let clock = chassis::SystemClock;
        assert!(booted_at(&clock) < clock.now());
    }
}
