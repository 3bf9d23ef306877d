//! What this node can enforce: each means is tried, and nobody is touched.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use nix::{
    fcntl::AT_FDCWD,
    sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags},
};

use super::{block, group, network};
use crate::{cgroup::Layout, config::ResponseConfig, files::of_host};

/// What a cgroup is called that something is tried with; the number of the process follows.
const SCRATCH: &str = "tidewaiter-probe-";

/// What runs in a blocked container all the same: no file is asked about for it.
const NOT_DENIED: &[(&str, &str)] = &[
    (
        "deny-input",
        "what a program of the image takes from its standard input, its arguments or its \
         environment and interprets is not stopped (`sh < x`, `cat x | sh`, `perl -e`)",
    ),
    (
        "deny-modules",
        "modules and configuration that an interpreter loads beside what it was told to run are \
         not stopped",
    ),
    (
        "deny-memory",
        "machine code that a process writes into its own memory, or had mapped before, is not \
         stopped",
    ),
];

/// What can be enforced, and what cannot, with the reason.
#[derive(Debug, Default)]
pub(crate) struct Means {
    pub(crate) enforces: Vec<String>,
    pub(crate) missing: BTreeMap<String, String>,
}

/// A cgroup without processes, for as long as it takes to try something.
struct Scratch(PathBuf);

/// Finds out what can be enforced here.
pub(crate) fn find(config: &ResponseConfig, layout: &Layout) -> Means {
    let mut means = Means::default();
    if config.keys.is_empty() {
        let why = "`response.keys` names no key, so nothing is ever done to a container";
        means.missing.insert("response".to_owned(), why.to_owned());
        return means;
    }
    let scratch = Scratch::make(layout);
    let group = || match &scratch {
        Ok(scratch) => Ok(scratch.0.as_path()),
        Err(error) => Err(anyhow::anyhow!("{error:#}")),
    };
    means.add("freeze", freeze(layout, group()));
    // Where the kernel does not kill a cgroup, its processes are killed one by one.
    let has_cgroups = !layout.mode.is_empty();
    let kill = has_cgroups.then_some(()).context("there are no cgroups");
    means.add("kill", kill);
    let deny = deny();
    let can_deny = deny.is_ok();
    if can_deny {
        for (name, why) in NOT_DENIED {
            means.missing.insert((*name).to_owned(), (*why).to_owned());
        }
    }
    means.add("deny-exec", deny);
    means.add("start-gate", start_gate(can_deny, &config.runtimes));
    // The kernel's part of a block knows containers by their cgroups of v2.
    means.add("signal-exec", group().and_then(|_| block::probe()));
    means.add("cut-network", group().and_then(network::probe));
    means
}

fn freeze(layout: &Layout, scratch: anyhow::Result<&Path>) -> anyhow::Result<()> {
    if layout.v1.is_some() {
        return group::v1_freezer()
            .map(|_| ())
            .context("no tree of cgroups has the controller `freezer`");
    }
    let file = scratch?.join("cgroup.freeze");
    ensure!(file.exists(), "cgroups have no `cgroup.freeze` (Linux 5.2)");
    Ok(())
}

/// Asked about a directory, which nobody runs, nobody is held up.
fn deny() -> anyhow::Result<()> {
    let fanotify = Fanotify::init(InitFlags::FAN_CLASS_CONTENT, EventFFlags::O_RDONLY);
    let fanotify = fanotify.context("fanotify does not ask here")?;
    let (flags, mask) = (MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_EXEC_PERM);
    fanotify
        .mark(flags, mask, AT_FDCWD, Some(Path::new("/")))
        .context("fanotify does not ask before a program runs")
}

/// Whether the kernel asks before a container's first program.
pub(crate) fn can_hold(runtimes: &[PathBuf]) -> bool {
    deny().and_then(|()| start_gate(true, runtimes)).is_ok()
}

fn start_gate(can_deny: bool, runtimes: &[PathBuf]) -> anyhow::Result<()> {
    ensure!(can_deny, "it takes `deny-exec`");
    let is_there = runtimes.iter().any(|runtime| of_host(runtime).exists());
    ensure!(
        is_there,
        "none of `response.runtimes` is here: {runtimes:?}"
    );
    Ok(())
}

// === impl Means ===

impl Means {
    fn add(&mut self, name: &str, tried: anyhow::Result<()>) {
        match tried {
            Ok(()) => self.enforces.push(name.to_owned()),
            Err(error) => drop(self.missing.insert(name.to_owned(), format!("{error:#}"))),
        }
    }
}

// === impl Scratch ===

impl Scratch {
    fn make(layout: &Layout) -> anyhow::Result<Self> {
        ensure!(
            !layout.mode.is_empty() && layout.v1.is_none(),
            "there are no cgroups of v2"
        );
        Self::sweep(&layout.root);
        let dir = layout.root.join(format!("{SCRATCH}{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("making `{}`", dir.display()))?;
        Ok(Self(dir))
    }

    /// Removes what agents left that were killed meanwhile.
    fn sweep(root: &Path) {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix(SCRATCH));
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                drop(fs::remove_dir(entry.path()));
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whatever was attached ends with it.
        drop(fs::remove_dir(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use model::SigningKey;

    use super::*;
    use crate::response::{group::Group, pins::Pins};

    fn config() -> ResponseConfig {
        ResponseConfig {
            keys: vec![SigningKey::generate().unwrap().verifying()],
            ..ResponseConfig::default()
        }
    }

    #[test]
    fn without_a_key_nothing_can_be_enforced() {
        let means = find(&ResponseConfig::default(), &Layout::here());
        assert!(means.enforces.is_empty());
        assert!(means.missing["response"].contains("response.keys"));
    }

    #[test]
    fn each_means_is_there_or_has_a_reason() {
        let means = find(&config(), &Layout::default());
        assert!(!means.enforces.contains(&"cut-network".to_owned()));
        let all = [
            "freeze",
            "kill",
            "deny-exec",
            "start-gate",
            "signal-exec",
            "cut-network",
        ];
        for name in all {
            let is_there = means.enforces.iter().any(|one| one == name);
            assert_ne!(
                is_there,
                means.missing.contains_key(name),
                "{name}: {means:?}"
            );
        }
    }

    #[test]
    fn what_an_agent_left_that_was_killed_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join(format!("{SCRATCH}{}", u32::MAX));
        let own = dir.path().join(format!("{SCRATCH}{}", std::process::id()));
        let other = dir.path().join("system.slice");
        for dir in [&gone, &own, &other] {
            fs::create_dir(dir).unwrap();
        }
        Scratch::sweep(dir.path());
        assert!(!gone.exists() && own.exists() && other.exists());
    }

    /// What this process holds of BPF.
    fn held() -> usize {
        let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets
            .filter(|target| target.to_string_lossy().starts_with("anon_inode:bpf"))
            .count()
    }

    #[test]
    fn what_is_in_force_is_kept_by_the_file_system_alone() {
        let layout = Layout::here();
        let means = find(&config(), &layout);
        let wanted = ["signal-exec", "cut-network"];
        if wanted.iter().any(|name| means.missing.contains_key(*name)) {
            println!("skipped: {:?}", means.missing);
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::new(dir.path(), "n");
        let scratch = Scratch::make(&layout).unwrap();
        let before = held();
        let mut group = Group::for_tests("c");
        group.dir.clone_from(&scratch.0);
        group.id = 7;
        block::set(&pins, &group, true).unwrap();
        network::cut(&pins, "c", &group.dir, &[]).unwrap();
        assert_eq!(held(), before, "nothing is left open");
        let of_block = pins.dir("block", "kernel").join("link");
        let of_cut = pins.dir("cut", "c").join("on_sent");
        let mut ids = Vec::new();
        for file in [of_block, of_cut] {
            let link = libbpf_rs::Link::open(&file).unwrap();
            ids.push(link.info().unwrap().id);
        }
        block::unload(&pins).unwrap();
        network::mend(&pins, "c").unwrap();
        let is_left = || {
            let mut all = libbpf_rs::query::LinkInfoIter::default();
            all.any(|link| ids.contains(&link.id))
        };
        let end = Instant::now() + Duration::from_secs(10);
        while is_left() {
            assert!(Instant::now() < end, "the kernel keeps a link");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(scratch);
        nix::mount::umount(dir.path()).unwrap();
    }
}
