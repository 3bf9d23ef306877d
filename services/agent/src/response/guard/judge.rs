//! What may be opened in a blocked container.
//!
//! A program is judged when it is opened to be run, and so is the file that an interpreter or a
//! loader was told to run, when it opens that. What lies in the image's layers untouched runs at
//! once; of anything else the content decides, which is read once per version of the file and by
//! other threads.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use chassis::files::read_bounded;
use model::Digest;

use super::{
    image::{FILE_BYTES_MAX, ImageFiles, digest_of},
    mounts::Overlay,
};
use crate::{files, pipeline::resolve, raw::RawExec, script};

const CMDLINE_BYTES_MAX: u64 = 4 << 20;
/// Judgments that are kept.
const KEPT_MAX: usize = 16_384;
const READERS: usize = 2;

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
}

/// Knows what was judged, and has others read what was not.
pub(crate) struct Judge {
    kept: HashMap<(String, Version), Judged>,
    jobs: Sender<Job>,
}

// === impl Version ===

impl Version {
    pub(crate) fn of(file: &File) -> Option<Self> {
        let found = file.metadata().ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            changed: (found.ctime(), found.ctime_nsec()),
            size: found.size(),
        })
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
        let (jobs, jobs_in) = channel::<Job>();
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
        file: &File,
        (version, path): (Version, &str),
        (root, image): (Option<&Overlay>, &Arc<Mutex<ImageFiles>>),
    ) -> Judged {
        let key = (container.to_owned(), version);
        if let Some(judged) = self.kept.get(&key) {
            return *judged;
        }
        let is_lower = root.is_some_and(|root| root.is_lower(path, version.inode, version.size));
        if is_lower {
            self.keep(key, Judged::Runs);
            return Judged::Runs;
        }
        let Ok(file) = file.try_clone() else {
            return Judged::Denied(None);
        };
        if version.size > FILE_BYTES_MAX {
            return Judged::Denied(None);
        }
        self.keep(key, Judged::Later);
        let job = Job {
            container: container.to_owned(),
            version,
            file,
            image: Arc::clone(image),
        };
        // The readers live as long as this.
        drop(self.jobs.send(job));
        Judged::Later
    }

    /// Takes what was read.
    pub(crate) fn learn(&mut self, outcome: &Outcome) {
        let key = (outcome.container.clone(), outcome.version);
        self.keep(key, outcome.judged);
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
        let digest = digest_of(self.file).ok();
        let holds = digest.is_some_and(|digest| {
            let mut image = self.image.lock().unwrap_or_else(PoisonError::into_inner);
            image.holds(self.version.size, digest)
        });
        Outcome {
            container: self.container,
            version: self.version,
            judged: if holds {
                Judged::RunsElsewhere
            } else {
                Judged::Denied(digest)
            },
        }
    }
}

/// Whether a file that a process opens is what it was told to run: `sh x`, `ld.so ./x`.
pub(crate) fn is_told_to_run(pid: u32, version: Version) -> bool {
    let Some(path) = told(pid) else {
        return false;
    };
    let found = files::find_in(pid, &path).ok();
    let found = found.and_then(|file| Version::of(&file));
    found.is_some_and(|found| found.file() == version.file())
}

/// What an interpreter or a loader was told to run, from its root on.
fn told(pid: u32) -> Option<String> {
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).ok();
    let exe = link("exe")?;
    let cmdline = read_bounded(
        Path::new(&format!("/proc/{pid}/cmdline")),
        CMDLINE_BYTES_MAX,
    );
    let cmdline = cmdline.ok()?;
    let args = cmdline.strip_suffix(&[0]).unwrap_or(&cmdline);
    let exec = RawExec {
        path: exe.to_str()?.trim_start_matches('/').to_owned(),
        args: args
            .split(|byte| *byte == 0)
            .map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect(),
        ..RawExec::default()
    };
    let path = script::of(&exec)?;
    let cwd = link("cwd")?;
    Some(resolve(cwd.to_str()?, path))
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
    use std::time::Duration;

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
        let root = Overlay {
            lower: vec![lower.clone()],
            upper: Some(upper.clone()),
        };
        let image = Arc::new(Mutex::new(ImageFiles::list(&root.lower)));
        let (mut judge, outcomes) = Judge::start(|| {});
        let mut check = |path: &Path, name: &str| {
            let file = File::open(path).unwrap();
            let version = Version::of(&file).unwrap();
            let judged = judge.judge("c", &file, (version, name), (Some(&root), &image));
            if judged != Judged::Later {
                return judged;
            }
            let outcome = outcomes.recv_timeout(Duration::from_secs(20)).unwrap();
            judge.learn(&outcome);
            judge.judge("c", &file, (version, name), (Some(&root), &image))
        };
        assert_eq!(check(&lower.join("a"), "a"), Judged::Runs);
        assert_eq!(check(&upper.join("copy"), "copy"), Judged::RunsElsewhere);
        let denied = Judged::Denied(Some(Digest::of(b"of somebody!")));
        assert_eq!(check(&upper.join("new"), "new"), denied);
        assert_eq!(check(&upper.join("new"), "new"), denied, "it is kept");
    }

    #[test]
    fn a_process_that_interprets_nothing_was_told_to_run_nothing() {
        assert_eq!(told(std::process::id()), None);
        assert_eq!(told(u32::MAX), None);
    }
}
