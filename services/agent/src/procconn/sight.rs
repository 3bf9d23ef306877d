//! Files that were opened to be run, as fanotify hands them out, and which start each belongs to.
//!
//! The kernel opens the file that is named, of a script its interpreter, and of what asks for one the
//! loader, each before it says that the program started. It says neither when nor why it opened
//! something, and a file that one process opens again while it is still in the queue is told once. So
//! what belongs together is found by what each file is. Some opens lead to no start (a file that is
//! busy, arguments that are too long): of more than there are starts the first ones are those,
//! unless the process still lives and says otherwise.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use model::runtime::{ExecutedFile, Origin};
use nix::{
    errno::Errno,
    sys::fanotify::{FanotifyEvent, MaskFlags},
};
use rustix::fs::{AtFlags, StatxFlags, statx};

use super::{
    kind::Kind,
    marks::{Marks, Place},
};
use crate::{
    files::{self, Identity, Opened},
    mounts::Device,
    raw::{self, RawExec},
    script,
};

/// Reads of the kernel's queue in one go; it holds 16,384 events, some 170 of which are one read.
const READS_MAX: usize = 128;
/// Files of one process that wait for its start; scripts of scripts are five at most.
const OPENED_MAX: usize = 64;
/// Processes whose files wait.
const PROCESSES_MAX: usize = 16_384;
/// What all that wait take, about: a container can fail to run files with long paths as fast as it
/// likes.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// How long files wait for a start that does not come. The end of a process says nothing: where
/// another thread than the first starts a program, the first one ends before that is told.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Different files that are held open at once; of those beyond them the content is not read.
const HELD_MAX: usize = 256;
/// Files of which it is remembered what they are.
const KINDS_MAX: usize = 16_384;

/// What was opened, and the marks by which the kernel tells.
pub(super) struct Sight {
    pub(super) marks: Marks,
    opened: HashMap<u32, Vec<Opening>>,
    /// What those take, and those that were taken since it was last looked.
    opened_bytes: usize,
    kinds: HashMap<Identity, Kind>,
    held: HashMap<Identity, Weak<File>>,
}

/// A file that a process opened to run it.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    path: String,
    kind: Kind,
    file: Option<Arc<File>>,
    identity: Identity,
    mount: Option<u64>,
    device: Device,
    at: Instant,
}

/// What a process runs since it started a program.
#[derive(Debug)]
pub(super) struct Started {
    program: Opening,
    /// What the program, being an interpreter, was named for.
    script: Option<Opening>,
    place: Option<Place>,
    /// Whether its mount is the container's own.
    is_certain: bool,
}

// === impl Sight ===

impl Sight {
    pub(super) fn open() -> anyhow::Result<Self> {
        Ok(Self {
            marks: Marks::open()?,
            opened: HashMap::new(),
            opened_bytes: 0,
            kinds: HashMap::new(),
            held: HashMap::new(),
        })
    }

    /// Takes what the kernel has told until now; returns how often it had no room for more.
    pub(super) fn read(&mut self) -> u64 {
        let mut lost = 0;
        for _ in 0..READS_MAX {
            match self.marks.fanotify().read_events() {
                Ok(events) if events.is_empty() => break,
                Ok(events) => {
                    for event in events {
                        if event.mask().contains(MaskFlags::FAN_Q_OVERFLOW) {
                            lost += 1;
                        }
                        self.take(&event);
                    }
                }
                Err(Errno::EAGAIN) => break,
                // A file that cannot be opened for us, and is not told of for that: its start is.
                Err(_) => {}
            }
        }
        lost
    }

    fn take(&mut self, event: &FanotifyEvent) -> Option<()> {
        let pid = u32::try_from(event.pid()).ok()?;
        let fd = event.fd()?;
        let flags = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        let found = statx(fd, "", AtFlags::EMPTY_PATH, flags).ok()?;
        // Linux before 5.8 does not tell.
        let is_told = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        let file = File::from(fd.try_clone_to_owned().ok()?);
        let identity = Identity::of(&file.metadata().ok()?);
        let link = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        // Whoever is called by no text is seen all the same.
        let link = link.to_string_lossy();
        let path = link.trim_start_matches('/');
        let gone = path.strip_suffix(files::DELETED);
        let path = gone.filter(|_| found.stx_nlink == 0).unwrap_or(path);
        let opening = Opening {
            path: path.to_owned(),
            kind: self.kind(identity, &file),
            file: self.hold(identity, file),
            identity,
            mount: is_told.then_some(found.stx_mnt_id),
            device: (found.stx_dev_major, found.stx_dev_minor),
            at: Instant::now(),
        };
        let bytes = self.opened_bytes.saturating_add(opening.bytes());
        let has_room = self.opened.len() < PROCESSES_MAX || self.opened.contains_key(&pid);
        if has_room && bytes <= WAITING_BYTES_MAX {
            self.opened_bytes = bytes;
        } else {
            self.opened.clear();
            self.opened_bytes = opening.bytes();
        }
        let opened = self.opened.entry(pid).or_default();
        if opened.len() >= OPENED_MAX {
            opened.remove(0);
        }
        opened.push(opening);
        Some(())
    }

    /// Of a file that many processes run one descriptor is enough.
    fn hold(&mut self, identity: Identity, file: File) -> Option<Arc<File>> {
        if let Some(held) = self.held.get(&identity).and_then(Weak::upgrade) {
            return Some(held);
        }
        if self.held.len() >= HELD_MAX {
            self.held.retain(|_, file| file.strong_count() > 0);
        }
        if self.held.len() >= HELD_MAX {
            return None;
        }
        let file = Arc::new(file);
        self.held.insert(identity, Arc::downgrade(&file));
        Some(file)
    }

    fn kind(&mut self, identity: Identity, file: &File) -> Kind {
        if let Some(kind) = self.kinds.get(&identity) {
            return *kind;
        }
        if self.kinds.len() >= KINDS_MAX {
            self.kinds.clear();
        }
        let kind = Kind::of(file);
        self.kinds.insert(identity, kind);
        kind
    }

    /// How many starts the files lead to that a process has opened.
    pub(super) fn groups(&self, pid: u32) -> Option<usize> {
        let opened = self.opened.get(&pid)?;
        let kinds: Vec<Kind> = opened.iter().map(|opening| opening.kind).collect();
        Some(groups(&kinds).len())
    }

    /// What a process ran when it started a program, of so many starts that it made until now.
    pub(super) fn started(&mut self, pid: u32, starts: usize) -> Option<Started> {
        let opened = self.opened.get_mut(&pid)?;
        let kinds: Vec<Kind> = opened.iter().map(|opening| opening.kind).collect();
        let found = groups(&kinds);
        let mut number = found.len().checked_sub(starts)?;
        if number > 0 {
            // More was opened than was started, or what comes next is opened already.
            let runs = fs::metadata(format!("/proc/{pid}/exe")).ok();
            let runs = runs.map(|found| Identity::of(&found));
            let is_it = |group: &Group| {
                let program = opened.get(group.program).map(|opening| opening.identity);
                program.is_some() && program == runs
            };
            let first = found.iter().take(number).position(is_it);
            number = first.unwrap_or(number);
        }
        let group = *found.get(number)?;
        let script = group.script.and_then(|script| opened.get(script).cloned());
        let program = opened.get(group.program)?.clone();
        opened.drain(..group.end.min(opened.len()));
        if opened.is_empty() {
            self.opened.remove(&pid);
        }
        let place = self.marks.place(program.mount, program.device);
        let script = script.filter(|script| {
            // What no kernel runs is what a shell was then started for.
            script.kind == Kind::Script || script::is_shell(&program.path)
        });
        Some(Started {
            is_certain: place.is_some_and(|(_, is_certain)| is_certain),
            place: place.map(|(place, _)| place.clone()),
            program,
            script,
        })
    }

    /// Forgets what led to no start.
    pub(super) fn prune(&mut self) {
        self.opened.retain(|_, opened| {
            let last = opened.last();
            last.is_some_and(|last| last.at.elapsed() < WAIT_MAX)
        });
        self.opened_bytes = self.opened.values().flatten().map(Opening::bytes).sum();
        self.held.retain(|_, file| file.strong_count() > 0);
        self.marks.prune();
    }

    /// Where a file comes from, its mount below the root, and whether it lies on the root itself.
    fn origin(&self, opening: &Opening) -> (Origin, Option<String>, bool) {
        let place = self.marks.place(opening.mount, opening.device);
        let Some((place, is_certain)) = place else {
            return (Origin::Unknown, None, false);
        };
        let on_root = place.target.is_empty();
        let target = (!on_root && is_certain).then(|| place.target.to_string());
        // Looked at before the count of its names: what is removed meanwhile has none then.
        let layer = place.root.as_ref().map(|root| {
            let (inode, size) = (opening.identity.inode, opening.identity.size);
            (
                root.is_upper(&opening.path),
                root.is_lower(&opening.path, inode, size),
                root,
            )
        });
        if opening.is_unlinked() {
            return (Origin::Unlinked, None, on_root);
        }
        let origin = match layer {
            Some((true, ..)) => Origin::Upper,
            Some((false, true, _)) => Origin::Lower,
            // Which layers there are is not known; nothing of the container lies above them.
            Some((false, false, root)) if root.lower.is_empty() && opening.file.is_some() => {
                Origin::Lower
            }
            // It was moved, or its layers count otherwise: the content decides.
            Some(_) => Origin::Unknown,
            None if place.in_memory => Origin::Tmpfs,
            None if on_root => Origin::Unknown,
            None => Origin::Other,
        };
        (origin, target, on_root)
    }

    /// What is told of the program: beside what its process says of itself, where it still does.
    pub(super) fn describe(&self, started: &Started, exec: &mut RawExec) -> Opened {
        let (origin, mount, on_root) = self.origin(&started.program);
        exec.path.clone_from(&started.program.path);
        exec.inode = started.program.identity.inode;
        exec.size = started.program.identity.size;
        exec.origin = origin;
        exec.mount = mount;
        exec.flags &= !raw::ON_ROOT_MOUNT;
        exec.flags |= if on_root { raw::ON_ROOT_MOUNT } else { 0 };
        let script = started.script.as_ref().map(|script| {
            let (origin, mount, _) = self.origin(script);
            let told = ExecutedFile {
                path: script.path.clone(),
                origin,
                digest: None,
                mount,
            };
            (told, script.file.clone())
        });
        Opened {
            program: started.program.file.clone(),
            script,
        }
    }
}

// === impl Opening ===

impl Opening {
    fn bytes(&self) -> usize {
        size_of::<Self>().saturating_add(self.path.len())
    }

    fn is_unlinked(&self) -> bool {
        let found = self.file.as_ref().and_then(|file| file.metadata().ok());
        found.is_some_and(|found| found.nlink() == 0)
    }
}

// === impl Started ===

impl Started {
    /// The container whose file it is, and whether that is certain.
    pub(super) fn cgroup(&self) -> Option<(u64, bool)> {
        let place = self.place.as_ref()?;
        Some((place.cgroup, self.is_certain))
    }

    /// Whether it is what a process says that it runs.
    pub(super) fn is(&self, exec: &RawExec) -> bool {
        let own = &self.program.identity;
        (own.inode, own.size) == (exec.inode, exec.size)
    }

    /// Whether it may be the loader of a program that lies where nothing is told of.
    pub(super) fn may_be_loader(&self) -> bool {
        self.script.is_none()
            && self.program.kind == Kind::Static
            && script::is_loader(&self.program.path)
    }
}

/// Files that belong to one start, by their places in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    script: Option<usize>,
    program: usize,
    /// Where the next one begins.
    end: usize,
}

/// Which files belong together.
fn groups(kinds: &[Kind]) -> Vec<Group> {
    let (mut found, mut script) = (Vec::new(), None);
    let is = |at: usize, kind: Kind| kinds.get(at) == Some(&kind);
    let mut next = 0;
    while let Some(kind) = kinds.get(next) {
        let at = next;
        next += 1;
        match kind {
            // Of a script that a script interprets the first is what was named.
            Kind::Script => script = script.filter(|at| is(*at, Kind::Script)).or(Some(at)),
            Kind::Other => script = Some(at),
            Kind::Static | Kind::Dynamic => {
                next += usize::from(*kind == Kind::Dynamic && is(next, Kind::Static));
                found.push(Group {
                    script: script.take(),
                    program: at,
                    end: next,
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `s`cript, `d`ynamic, `l`oader or static, `o`ther; of each start the script and the program.
    fn check(opened: &str, expected: &[(Option<usize>, usize)]) {
        let kinds = opened.chars().map(|kind| match kind {
            's' => Kind::Script,
            'd' => Kind::Dynamic,
            'l' => Kind::Static,
            _ => Kind::Other,
        });
        let kinds: Vec<Kind> = kinds.collect();
        let found = groups(&kinds);
        let found: Vec<_> = found.iter().map(|one| (one.script, one.program)).collect();
        assert_eq!(found, expected, "{opened}");
    }

    #[test]
    fn a_start_is_what_is_named_its_interpreter_and_its_loader() {
        check("", &[]);
        check("dl", &[(None, 0)]);
        check("l", &[(None, 0)]);
        check("sdl", &[(Some(0), 1)]);
        check("ssdl", &[(Some(0), 2)]);
        check("odl", &[(Some(0), 1)]);
        check("osdl", &[(Some(1), 2)]);
        check("sldldl", &[(Some(0), 1), (None, 2), (None, 4)]);
    }

    #[test]
    fn what_the_kernel_tells_once_for_two_starts_does_not_mix_them_up() {
        // The loader of the second one is told of already.
        check("dld", &[(None, 0), (None, 2)]);
        check("dddl", &[(None, 0), (None, 1), (None, 2)]);
        // The interpreter is, too: that start is known by its script alone.
        check("dls", &[(None, 0)]);
    }
}
