//! What may be opened in a blocked container.
//!
//! A program is judged when it is opened to be run, and so is the file that an interpreter or a
//! loader was told to run, when it opens that. Machine code is judged whenever it is opened, for
//! nothing says that a library is to be loaded (`LD_PRELOAD`, `dlopen`): a foreign one cannot be read
//! either. What lies in the image's layers untouched runs at once; of anything else the content
//! decides, which is read once per version of the file and by other threads.
//!
//! Four things are not stopped. What a program of the image interprets from its standard input, its
//! arguments or its environment (`sh < x`, `cat x | sh`, `perl -e`). Modules and configuration that
//! an interpreter loads beside what it was told to run. Machine code that was open or mapped before
//! the block began, or that a process writes into its own memory. And what is changed after it was
//! judged, by somebody who has it open for writing: a script while it is read, a copy of a program
//! through a mapping.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read as _,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use model::Digest;
use nix::errno::Errno;
use rustix::fs::{AtFlags, StatxFlags, statx};

use super::image::{FILE_BYTES_MAX, ImageFiles, digest_of};
use crate::{files, mounts::Overlay, pipeline::resolve, raw::RawExec, script};

/// Bytes of a command line that are looked at. What a script is called stands near its beginning;
/// where it does not, everything that the process opens is judged.
const CMDLINE_BYTES_MAX: u64 = 64 << 10;
/// Stands for arguments that were cut off.
const BEYOND: &str = "\0";
/// The kernel stamps changes no finer than that, before Linux 6.13.
const STAMP: Duration = Duration::from_millis(20);
/// How machine code begins.
const ELF: &[u8] = b"\x7fELF";
/// Judgments that are kept.
const KEPT_MAX: usize = 16_384;
const READERS: usize = 2;
/// Files that wait to be read, each of them open; beyond them nothing new runs.
const JOBS_MAX: usize = 1_024;

/// A version of a file: it changes whenever the content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    device: u64,
    pub(crate) inode: u64,
    changed: (i64, i64),
    pub(crate) size: u64,
}

/// Whether a file runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It does.
    Runs,
    /// It does, though it does not lie in the image's layers: they hold its content.
    RunsElsewhere,
    /// It does not.
    Denied(Option<Digest>),
    /// Its content is being read.
    Later,
}

/// A file whose content is to be read.
struct Job {
    container: String,
    version: Version,
    file: File,
    image: Arc<Mutex<ImageFiles>>,
}

/// A file that was read.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) container: String,
    pub(crate) version: Version,
    pub(crate) judged: Judged,
    /// Whether a later change would have made another version of it.
    is_settled: bool,
}

/// Knows what was judged, and has others read what was not.
pub(crate) struct Judge {
    kept: HashMap<(String, Version), Judged>,
    jobs: SyncSender<Job>,
}

// === impl Version ===

impl Version {
    pub(crate) fn of(file: impl AsFd) -> Option<Self> {
        let found = rustix::fs::fstat(file).ok()?;
        Some(Self {
            device: found.st_dev,
            inode: found.st_ino,
            changed: (found.st_ctime, i64::try_from(found.st_ctime_nsec).ok()?),
            size: u64::try_from(found.st_size).ok()?,
        })
    }

    /// Whether it is old enough that a change from now on would be seen.
    #[expect(
        clippy::disallowed_methods,
        reason = "it is compared with what the kernel's own clock says, which nobody can pass in"
    )]
    fn is_settled(self) -> bool {
        let (Ok(seconds), Ok(nanos)) =
            (u64::try_from(self.changed.0), u32::try_from(self.changed.1))
        else {
            return false;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let age = now.map(|now| now.checked_sub(Duration::new(seconds, nanos)));
        age.is_ok_and(|age| age.is_some_and(|age| age >= STAMP))
    }

    /// Which file it is a version of.
    pub(crate) const fn file(self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

// === impl Judge ===

impl Judge {
    /// With threads that read; `wake` is called when one has read.
    pub(crate) fn start(wake: impl Fn() + Clone + Send + 'static) -> (Self, Receiver<Outcome>) {
        let (jobs, jobs_in) = sync_channel::<Job>(JOBS_MAX);
        let (outcomes, outcomes_in) = channel();
        let jobs_in = Arc::new(Mutex::new(jobs_in));
        for _ in 0..READERS {
            let (jobs_in, outcomes, wake) = (Arc::clone(&jobs_in), outcomes.clone(), wake.clone());
            thread::spawn(move || {
                loop {
                    let job = jobs_in
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .recv();
                    let Ok(job) = job else { return };
                    if outcomes.send(job.read()).is_err() {
                        return;
                    }
                    wake();
                }
            });
        }
        let kept = HashMap::new();
        (Self { kept, jobs }, outcomes_in)
    }

    /// What is known of a file, having it read where nothing is.
    pub(crate) fn judge(
        &mut self,
        container: &str,
        file: BorrowedFd<'_>,
        (version, path): (Version, &str),
        (root, image): (Option<&Overlay>, &Arc<Mutex<ImageFiles>>),
    ) -> Judged {
        let key = (container.to_owned(), version);
        if let Some(judged) = self.kept.get(&key) {
            return *judged;
        }
        // A path means a place in the image only on the mount that is the container's root.
        let is_root = |root: &&Overlay| mount_of(file) == Some(u64::from(root.mount));
        let is_lower = root
            .filter(is_root)
            .is_some_and(|root| root.is_lower(path, version.inode, version.size));
        if is_lower {
            self.keep(key, Judged::Runs);
            return Judged::Runs;
        }
        let Ok(file) = file.try_clone_to_owned().map(File::from) else {
            return Judged::Denied(None);
        };
        if version.size > FILE_BYTES_MAX {
            return Judged::Denied(None);
        }
        let job = Job {
            container: container.to_owned(),
            version,
            file,
            image: Arc::clone(image),
        };
        // It waits for nobody: the readers live as long as this, but may be behind.
        if self.jobs.try_send(job).is_err() {
            return Judged::Denied(None);
        }
        self.keep(key, Judged::Later);
        Judged::Later
    }

    /// Takes what was read. A file that may run and was changed just now is read again the next
    /// time: another change within the same moment would look the same.
    pub(crate) fn learn(&mut self, outcome: &Outcome) {
        let key = (outcome.container.clone(), outcome.version);
        if outcome.is_settled || matches!(outcome.judged, Judged::Denied(_)) {
            self.keep(key, outcome.judged);
        } else {
            self.kept.remove(&key);
        }
    }

    /// Forgets what was judged for a container.
    pub(crate) fn forget(&mut self, container: &str) {
        self.kept.retain(|(other, _), _| other != container);
    }

    fn keep(&mut self, key: (String, Version), judged: Judged) {
        if self.kept.len() >= KEPT_MAX {
            self.kept.clear();
        }
        self.kept.insert(key, judged);
    }
}

// === impl Job ===

impl Job {
    fn read(self) -> Outcome {
        let is_settled = self.version.is_settled();
        let digest = digest_of(self.file).ok();
        let holds = digest.is_some_and(|digest| {
            let mut image = self.image.lock().unwrap_or_else(PoisonError::into_inner);
            image.holds(self.version.size, digest)
        });
        Outcome {
            container: self.container,
            version: self.version,
            is_settled,
            judged: if holds {
                Judged::RunsElsewhere
            } else {
                Judged::Denied(digest)
            },
        }
    }
}

/// Whether a file holds machine code: a program or a library.
pub(crate) fn is_machine_code(file: BorrowedFd<'_>) -> bool {
    let mut first = [0; ELF.len()];
    rustix::io::pread(file, &mut first, 0).is_ok_and(|read| first.get(..read) == Some(ELF))
}

/// What a process was told to run.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    File(String),
    /// So many arguments that what it is stands beyond what is looked at.
    Anything,
}

/// Whether a file that a process opens is what it was told to run: `sh x`, `ld.so ./x`.
pub(crate) fn is_told_to_run(pid: u32, version: Version) -> bool {
    let path = match told(pid) {
        Told::Nothing => return false,
        Told::Anything => return true,
        Told::File(path) => path,
    };
    match files::find_in(pid, &path) {
        Ok(file) => Version::of(&file).is_some_and(|found| found.file() == version.file()),
        // A descriptor by its name, as `/dev/fd/3`: it is whatever is opened next.
        Err(error) => error.raw_os_error() == Some(Errno::ELOOP as i32),
    }
}

/// What an interpreter or a loader was told to run, from its root on.
fn told(pid: u32) -> Told {
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).ok();
    let read = || -> Option<RawExec> {
        let exe = link("exe")?;
        let mut cmdline = Vec::new();
        let file = File::open(format!("/proc/{pid}/cmdline")).ok()?;
        file.take(CMDLINE_BYTES_MAX)
            .read_to_end(&mut cmdline)
            .ok()?;
        let is_cut = cmdline.len() as u64 >= CMDLINE_BYTES_MAX;
        let exec = RawExec {
            path: exe.to_string_lossy().trim_start_matches('/').to_owned(),
            args: words(&cmdline, is_cut),
            ..RawExec::default()
        };
        Some(exec)
    };
    let Some(exec) = read() else {
        return Told::Nothing;
    };
    match script::of(&exec) {
        None => Told::Nothing,
        Some(BEYOND) => Told::Anything,
        Some(path) => link("cwd").map_or(Told::Anything, |cwd| {
            Told::File(resolve(&cwd.to_string_lossy(), path))
        }),
    }
}

/// Arguments. One that was cut off is none; where it was something stands that no argument is, twice,
/// for one may be the value of an option.
fn words(cmdline: &[u8], is_cut: bool) -> Vec<String> {
    let whole = if is_cut {
        let end = cmdline.iter().rposition(|byte| *byte == 0).unwrap_or(0);
        cmdline.get(..end).unwrap_or_default()
    } else {
        cmdline.strip_suffix(&[0]).unwrap_or(cmdline)
    };
    let parts = whole.split(|byte| *byte == 0);
    let words = parts.map(|part| String::from_utf8_lossy(part).into_owned());
    let beyond = if is_cut { &[BEYOND; 2][..] } else { &[] };
    words
        .chain(beyond.iter().map(|&word| word.to_owned()))
        .collect()
}

/// The kernel's number of the mount that a file was opened through (Linux 5.8).
fn mount_of(file: BorrowedFd<'_>) -> Option<u64> {
    let found = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    let is_told = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    is_told.then_some(found.stx_mnt_id)
}

/// The path of an open file in its own mount namespace, without a leading slash.
pub(crate) fn path_of(file: BorrowedFd<'_>) -> String {
    let link = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let path = link.unwrap_or_default();
    let path = path.to_string_lossy();
    path.trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_content_of_the_image_runs_wherever_it_lies_and_no_other_does() {
        let dir = tempfile::tempdir().unwrap();
        let (lower, upper) = (dir.path().join("l"), dir.path().join("u"));
        for dir in [&lower, &upper] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(lower.join("a"), b"of the image").unwrap();
        fs::write(upper.join("copy"), b"of the image").unwrap();
        fs::write(upper.join("new"), b"of somebody!").unwrap();
        let here = mount_of(File::open(&lower).unwrap().as_fd()).unwrap();
        let root = Overlay {
            mount: u32::try_from(here).unwrap(),
            lower: vec![lower.clone()],
            upper: Some(upper.clone()),
        };
        let image = Arc::new(Mutex::new(ImageFiles::list(&root.lower)));
        let (mut judge, outcomes) = Judge::start(|| {});
        let mut check = |path: &Path, name: &str| {
            let file = File::open(path).unwrap();
            let version = Version::of(&file).unwrap();
            let judged = judge.judge("c", file.as_fd(), (version, name), (Some(&root), &image));
            if judged != Judged::Later {
                return judged;
            }
            let outcome = outcomes.recv_timeout(Duration::from_secs(20)).unwrap();
            judge.learn(&outcome);
            outcome.judged
        };
        assert_eq!(check(&lower.join("a"), "a"), Judged::Runs);
        assert_eq!(check(&upper.join("copy"), "copy"), Judged::RunsElsewhere);
        let denied = Judged::Denied(Some(Digest::of(b"of somebody!")));
        assert_eq!(check(&upper.join("new"), "new"), denied);
        assert_eq!(check(&upper.join("new"), "new"), denied, "it is kept");
    }

    #[test]
    fn a_file_of_another_mount_is_not_the_images_though_all_else_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), b"of somebody!").unwrap();
        let file = File::open(dir.path().join("a")).unwrap();
        let version = Version::of(&file).unwrap();
        let here = u32::try_from(mount_of(file.as_fd()).unwrap()).unwrap();
        let judged_on = |mount: u32| {
            let root = Overlay {
                mount,
                lower: vec![dir.path().to_owned()],
                upper: None,
            };
            let (mut judge, outcomes) = Judge::start(|| {});
            let image = Arc::default();
            let judged = judge.judge("c", file.as_fd(), (version, "a"), (Some(&root), &image));
            if judged != Judged::Later {
                return judged;
            }
            outcomes
                .recv_timeout(Duration::from_secs(20))
                .unwrap()
                .judged
        };
        assert_eq!(judged_on(here), Judged::Runs);
        let denied = Judged::Denied(Some(Digest::of(b"of somebody!")));
        assert_eq!(judged_on(here + 1), denied);
    }

    #[test]
    fn beyond_what_the_readers_can_take_nothing_new_runs() {
        let (jobs, _none) = sync_channel(1);
        let kept = HashMap::new();
        let mut judge = Judge { kept, jobs };
        let image = Arc::default();
        let mut ask = || {
            let file = tempfile::tempfile().unwrap();
            let version = Version::of(&file).unwrap();
            judge.judge("c", file.as_fd(), (version, "x"), (None, &image))
        };
        assert_eq!(ask(), Judged::Later);
        assert_eq!(ask(), Judged::Denied(None));
    }

    #[test]
    fn what_was_changed_just_now_is_read_again() {
        let (mut judge, _outcomes) = Judge::start(|| {});
        let file = tempfile::tempfile().unwrap();
        let version = Version::of(&file).unwrap();
        let key = ("c".to_owned(), version);
        let mut learn = |judged, is_settled| {
            judge.learn(&Outcome {
                container: "c".to_owned(),
                version,
                judged,
                is_settled,
            });
            judge.kept.get(&key).copied()
        };
        assert_eq!(learn(Judged::RunsElsewhere, false), None);
        assert_eq!(
            learn(Judged::Denied(None), false),
            Some(Judged::Denied(None))
        );
        assert_eq!(
            learn(Judged::RunsElsewhere, true),
            Some(Judged::RunsElsewhere)
        );
        let old = Version {
            changed: (1, 0),
            ..version
        };
        let future = Version {
            changed: (i64::MAX, 0),
            ..version
        };
        assert!(old.is_settled() && !future.is_settled());
    }

    #[test]
    fn a_script_does_not_hide_behind_its_arguments() {
        let run = |args: &[&str]| {
            let mut child = std::process::Command::new("/bin/sh")
                .args(args)
                .stdin(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            // It is started before its arguments are where they can be read.
            let place = format!("/proc/{}/cmdline", child.id());
            let end = std::time::Instant::now() + Duration::from_secs(20);
            while File::open(&place).unwrap().read(&mut [0]).unwrap() == 0 {
                assert!(std::time::Instant::now() < end, "it has no arguments");
            }
            let found = told(child.id());
            child.kill().unwrap();
            child.wait().unwrap();
            found
        };
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        fs::write(&script, "read line\n").unwrap();
        let path = script.to_str().unwrap();
        let file = Told::File(path.trim_start_matches('/').to_owned());
        let padding = "0".repeat(50_000);
        let padded = [path, &padding, &padding, &padding, &padding];
        assert_eq!(run(&padded), file);
        let many = vec!["-u"; 30_000];
        assert_eq!(run(&[&many[..], &[path]].concat()), Told::Anything);
        assert_eq!(run(&["-c", "read line", &padding, &padding]), Told::Nothing);
    }

    #[test]
    fn a_descriptor_by_its_name_is_whatever_is_opened() {
        let script = tempfile::NamedTempFile::new().unwrap();
        fs::write(script.path(), "read line\n").unwrap();
        let line = format!("exec /bin/sh /dev/fd/3 3<{}", script.path().display());
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", &line])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let version = Version::of(script.as_file()).unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !is_told_to_run(child.id(), version) {
            assert!(std::time::Instant::now() < end, "{:?}", told(child.id()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_interprets_nothing_was_told_to_run_nothing() {
        assert_eq!(told(std::process::id()), Told::Nothing);
        assert_eq!(told(u32::MAX), Told::Nothing);
    }
}
