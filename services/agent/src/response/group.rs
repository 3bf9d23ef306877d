//! A container's cgroup: frozen, thawed, killed.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};

use super::proc;
use crate::{
    cgroup::{self, Layout},
    files::text_of,
};

const FILE_BYTES_MAX: u64 = 64 << 10;
/// How long a change may take until all processes have followed.
const SETTLE_MAX: Duration = Duration::from_secs(5);
const SETTLE_PAUSE: Duration = Duration::from_millis(2);
/// Rounds of killing one by one, where the kernel does not kill all at once.
const ROUNDS_MAX: usize = 50;
/// The longest that a runtime takes to bring a container to its first program.
const BEGIN_MAX: Duration = Duration::from_secs(10);
/// Where a cgroup says that it stands still before its first program.
const HELD: &str = "trusted.tidewaiter.held";

/// The cgroup of a container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The container's id.
    pub(crate) container: String,
    /// Its directory in the tree that counts.
    pub(crate) dir: PathBuf,
    /// The cgroup's id there.
    pub(crate) id: u64,
    /// Its directory in the v1 tree that freezes, where there is no v2.
    v1_freezer: Option<PathBuf>,
}

// === impl Group ===

impl Group {
    /// Of a container; `None` where it has none, which is to say that it does not run.
    pub(crate) fn of(layout: &Layout, container: &str) -> Option<Self> {
        let dir = layout.find(container)?;
        let id = fs::metadata(&dir).ok()?.ino();
        let mut group = Self {
            container: container.to_owned(),
            dir,
            id,
            v1_freezer: None,
        };
        if layout.v1.is_some() {
            group.v1_freezer = group.find_freezer();
        }
        Some(group)
    }

    /// Where v1 freezes: in a tree of its own.
    fn find_freezer(&self) -> Option<PathBuf> {
        let pid = self.pids().into_iter().next()?;
        let root = v1_freezer()?;
        let own = read(&format!("/proc/{pid}/cgroup"))?;
        let path = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let names = fields.next()?;
            let path = fields.next()?;
            names
                .split(',')
                .any(|name| name == "freezer")
                .then(|| path.to_owned())
        })?;
        Some(root.join(path.trim_start_matches('/')))
    }

    /// Its processes, those of cgroups within it, too.
    pub(crate) fn pids(&self) -> Vec<u32> {
        cgroup::all_pids(&self.dir)
    }

    /// Whether this process is in it.
    pub(crate) fn is_own(&self) -> bool {
        self.pids().contains(&std::process::id())
    }

    /// Whether it is there: the container was not ended, nor started again since.
    pub(crate) fn is_there(&self) -> bool {
        fs::metadata(&self.dir).is_ok_and(|found| found.ino() == self.id)
    }

    /// The id of a cgroup in which something runs.
    pub(crate) fn running_at(dir: &Path) -> Option<u64> {
        let id = fs::metadata(dir).ok()?.ino();
        is_populated(dir).then_some(id)
    }

    /// Whether a program of the container runs: before that there is the runtime, which is not to be
    /// held up.
    pub(crate) fn has_begun(&self) -> bool {
        self.pids().into_iter().any(proc::runs_what_it_sees) || self.is_old()
    }

    /// Whether it was made so long ago that no runtime is on its way any more.
    #[expect(
        clippy::disallowed_methods,
        reason = "it is compared with what the kernel's own clock says, which nobody can pass in"
    )]
    fn is_old(&self) -> bool {
        let made = fs::metadata(&self.dir).and_then(|found| found.modified());
        let age = made.map(|made| SystemTime::now().duration_since(made));
        age.is_ok_and(|age| age.is_ok_and(|age| age >= BEGIN_MAX))
    }

    /// Whether any process is left.
    pub(crate) fn is_populated(&self) -> bool {
        is_populated(&self.dir)
    }

    /// Whether all of it stands still.
    pub(crate) fn is_frozen(&self) -> bool {
        if let Some(dir) = &self.v1_freezer {
            return read_at(dir, "freezer.state").is_some_and(|state| state.trim() == "FROZEN");
        }
        event(&self.dir, "frozen") == Some(true)
    }

    /// Stops it, and waits until all of it stands still.
    pub(crate) fn freeze(&self) -> anyhow::Result<()> {
        self.ask_freeze(true)?;
        ensure!(
            settles(|| self.is_frozen() || !self.is_populated()),
            "it does not stand still after {} s",
            SETTLE_MAX.as_secs()
        );
        ensure!(self.is_populated(), "it ended before it stood still");
        Ok(())
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> anyhow::Result<()> {
        self.ask_freeze(false)?;
        ensure!(
            settles(|| !self.is_frozen()),
            "it does not go on after {} s: a cgroup above it may be frozen",
            SETTLE_MAX.as_secs()
        );
        Ok(())
    }

    /// Says what is wanted, and does not wait for it.
    pub(crate) fn ask_freeze(&self, frozen: bool) -> anyhow::Result<()> {
        let (file, value) = match (&self.v1_freezer, frozen) {
            (Some(dir), true) => (dir.join("freezer.state"), "FROZEN"),
            (Some(dir), false) => (dir.join("freezer.state"), "THAWED"),
            (None, true) => (self.dir.join("cgroup.freeze"), "1"),
            (None, false) => (self.dir.join("cgroup.freeze"), "0"),
        };
        write(&file, value).with_context(|| format!("writing `{}`", file.display()))
    }

    /// Notes at the cgroup that it stands still before its first program: whoever comes after the
    /// one that held it knows why it does.
    pub(crate) fn note_held(&self) {
        if let Err(error) = setxattr(&self.dir, HELD, b"1", XattrFlags::empty()) {
            tracing::debug!(%error, "`{}` is held without a note: {error}", self.container);
        }
    }

    /// Notes that it does so no more.
    pub(crate) fn forget_held(&self) {
        if let Err(error) = removexattr(&self.dir, HELD) {
            // It is gone, or was held without a note.
            tracing::debug!(%error, "`{}` has no note: {error}", self.container);
        }
    }

    /// Those that stand still before their first program.
    pub(crate) fn held(layout: &Layout) -> Vec<Self> {
        let groups = layout.scan().into_iter();
        let groups = groups.filter_map(|found| Self::of(layout, &found.container));
        groups
            .filter(|group| getxattr(&group.dir, HELD, &mut [0_u8; 1]).is_ok())
            .collect()
    }

    /// Kills every process of it.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        let file = self.dir.join("cgroup.kill");
        match write(&file, "1") {
            Ok(()) => {}
            // Linux before 5.14, or v1.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.kill_each()?,
            Err(error) => {
                return Err(error).with_context(|| format!("writing `{}`", file.display()));
            }
        }
        ensure!(
            settles(|| !self.is_populated()),
            "processes are left after {} s",
            SETTLE_MAX.as_secs()
        );
        Ok(())
    }

    /// Stands still first, so that no process makes another one meanwhile.
    fn kill_each(&self) -> anyhow::Result<()> {
        drop(self.freeze());
        for _ in 0..ROUNDS_MAX {
            let pids = self.pids();
            if pids.is_empty() {
                return Ok(());
            }
            for pid in pids {
                proc::kill(pid);
            }
            // With v1 a signal waits until it goes on.
            drop(self.ask_freeze(false));
            thread::sleep(SETTLE_PAUSE);
        }
        bail!("it makes processes faster than they are killed")
    }
}

/// Where the tree of v1 that freezes is mounted.
pub(crate) fn v1_freezer() -> Option<PathBuf> {
    let mounts = read("/proc/self/mountinfo")?;
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - cgroup ")?;
        let options = right.rsplit(' ').next()?;
        let is_it = options.split(',').any(|option| option == "freezer");
        is_it.then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

fn settles(mut is_done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + SETTLE_MAX;
    loop {
        if is_done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(SETTLE_PAUSE);
    }
}

fn is_populated(dir: &Path) -> bool {
    event(dir, "populated").unwrap_or_else(|| !cgroup::all_pids(dir).is_empty())
}

/// A line of `cgroup.events`.
fn event(dir: &Path, name: &str) -> Option<bool> {
    let text = read_at(dir, "cgroup.events")?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(value.trim() == "1")
}

fn read_at(dir: &Path, file: &str) -> Option<String> {
    text_of(&dir.join(file), FILE_BYTES_MAX).ok()
}

fn read(path: &str) -> Option<String> {
    text_of(Path::new(path), 1 << 20).ok()
}

/// Into a file that the kernel made: never makes one.
fn write(path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

#[cfg(test)]
impl Group {
    /// One that is not there.
    pub(crate) fn for_tests(container: &str) -> Self {
        Self {
            container: container.to_owned(),
            dir: PathBuf::from("/none"),
            id: 0,
            v1_freezer: None,
        }
    }
}
