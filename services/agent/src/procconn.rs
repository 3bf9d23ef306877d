//! What a node without BPF is told of by its kernel: the process connector, and beside it fanotify.
//!
//! The connector tells of every start, fork and end of a process, as a process id and no more. What
//! runs is then read from `/proc`, where the process still lives. fanotify ([`sight`]) hands out the
//! files that were opened to be run, by process id, and keeps each until it is read: so a program
//! that has ended meanwhile is told of too, with its file, where that comes from and its content. The
//! connector alone says that it did start; what was opened and did not start is told by nobody.
//!
//! Whose a program is says its process while it lives; then the mount that its file lies on
//! ([`marks`]), and then the process that forked it. Of a program that has ended, its arguments, its
//! user and what its standard streams were are not known, and left out.
//!
//! Of 1,000 programs of the image and as many starts of a file that was dropped, each of which ended
//! at once and which a shell started one after the other on a busy machine, all were told in each of
//! three runs; without fanotify it was 143 to 241 of a thousand. Both took the agent about 0.13 ms of
//! a processor per start (0.21 to 0.33 s for 2,000 with fanotify, 0.26 to 0.28 s without).
//!
//! So it sees less than BPF, and says so. A program that lies where the kernel tells nothing of
//! (`memfd`, a file system that the container mounted itself a moment ago) and ends before it is
//! looked at is counted as an `exec` that was not told; so is one that the same process starts again
//! at once, for the kernel tells of a file once as long as that waits to be read. Connections and
//! files are not seen at all. The kernel speaks to the first network namespace and about the first
//! process namespace, so an agent in a container needs both of the host.

mod kind;
mod marks;
mod message;
pub(crate) mod process;
mod sight;
mod start;

use std::{
    collections::{HashMap, VecDeque},
    fs,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use model::runtime::ProcessKey;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::{CONNECTOR, SocketAddrNetlink},
        recv, send, socket_with,
        sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout},
    },
};

use self::{message::Event, sight::Sight};
use crate::{
    cgroup::{self, Found, Layout},
    files::Opened,
    raw::{Raw, What},
};

/// Bytes of messages that the kernel keeps for us.
const BUFFER_BYTES: usize = 8 << 20;
const MESSAGE_BYTES: usize = 1 << 12;
/// How long it waits for a message.
const WAIT: Duration = Duration::from_millis(25);
/// Messages of one round.
const ROUND_MAX: usize = 4_096;
/// Processes that are remembered.
const PROCESSES_MAX: usize = 100_000;
/// Cgroups that are remembered because the inventory told of them.
const TAUGHT_MAX: usize = 50_000;
/// How often it is looked which containers are gone.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How much longer than a look at all cgroups took it is not looked again, and the least of that.
const SEEK_PAUSE: u32 = 5;
const SEEK_EVERY: Duration = Duration::from_millis(5);
/// How long it is waited for word of a start where more was opened than was started, and how often
/// in a second.
const UNCLEAR_MAX: Duration = Duration::from_millis(2);
const PATIENCE: u32 = 100;
/// Containers that are on their way to their first program.
const AWAITED_MAX: usize = 1_024;
/// How long one is awaited.
const AWAIT_MAX: Duration = Duration::from_secs(10);
/// Group and value of the process connector (`linux/connector.h`).
const GROUP: u32 = 1;

/// What the kernel tells through it.
pub(crate) const SEES: [&str; 3] = ["exec", "exit", "fork"];
/// What it tells through fanotify: the file of a program that has ended.
pub(crate) const SEES_FILES: &str = "exec-file";

/// An open connector.
pub(crate) struct Connector {
    socket: OwnedFd,
    layout: Layout,
    buffer: Vec<u8>,
    processes: HashMap<u32, Process>,
    /// Cgroups of containers, by their path below the root.
    containers: HashMap<String, u64>,
    /// Cgroups whose names say nothing and of which the inventory told: to the container's.
    taught: HashMap<u64, u64>,
    /// What was heard and is not told yet.
    heard: VecDeque<Heard>,
    /// Starts among it, by process.
    starts: HashMap<u32, usize>,
    sight: Option<Sight>,
    /// Cgroups of containers of which it is not known what they see, and since when.
    awaited: HashMap<u64, (String, Instant)>,
    /// Cgroups that are gone; what is theirs may still be in a queue.
    gone: Vec<u64>,
    looked_at: Instant,
    /// When it may be looked for new containers again.
    seek_at: Instant,
    /// Since when it is not clear what the next one to be told of started.
    unclear: Option<Instant>,
    /// How often that may be waited for until it is looked again which containers are gone.
    patience: u32,
}

/// What the connector said.
enum Heard {
    Event(u64, Event),
    /// Its buffer was full.
    Lost,
}

/// A process that was seen.
#[derive(Clone, Copy)]
struct Process {
    key: ProcessKey,
    /// The cgroup of its container.
    cgroup: Option<u64>,
    /// Who made it, and the cgroup of whose container that was in.
    parent: Option<(ProcessKey, Option<u64>)>,
}

/// What is made of a round of messages.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) events: Vec<(Raw, Opened)>,
    /// What was seen and not told, by the container's cgroup; 0 is nobody's.
    pub(crate) drops: Vec<(u64, &'static str, u64)>,
}

// === impl Connector ===

impl Connector {
    /// Opens it; the kernel tells from now on.
    pub(crate) fn open(layout: &Layout) -> anyhow::Result<Self> {
        ensure!(
            !layout.mode.is_empty(),
            "there are no cgroups to know containers by"
        );
        let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        let socket = socket_with(family, SocketType::DGRAM, flags, Some(CONNECTOR))
            .context("opening a socket to it (an agent in a container needs the host's network)")?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP)).context("listening to it")?;
        if let Err(error) = set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES) {
            // A smaller one is no reason to see nothing.
            tracing::debug!(%error, "the process connector keeps less for us: {error}");
        }
        set_socket_timeout(&socket, Timeout::Recv, Some(WAIT))?;
        send(&socket, &message::listen(), SendFlags::empty()).context("asking it to tell")?;
        let mut connector = Self {
            socket,
            layout: layout.clone(),
            buffer: vec![0; MESSAGE_BYTES],
            processes: HashMap::new(),
            containers: HashMap::new(),
            taught: HashMap::new(),
            heard: VecDeque::new(),
            starts: HashMap::new(),
            sight: None,
            awaited: HashMap::new(),
            gone: Vec::new(),
            looked_at: Instant::now(),
            seek_at: Instant::now(),
            unclear: None,
            patience: PATIENCE,
        };
        connector.hear_yes()?;
        Ok(connector)
    }

    /// Has the kernel hand out the files of programs, too.
    pub(crate) fn see_files(&mut self) -> anyhow::Result<()> {
        self.sight = Some(Sight::open().context("fanotify")?);
        Ok(())
    }

    /// It answers the request, and says why not.
    fn hear_yes(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            match recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((_, count)) => match message::read(self.buffer.get(..count).unwrap_or(&[])) {
                    Some((_, Event::Ack(0))) => return Ok(()),
                    Some((_, Event::Ack(error))) => {
                        let error = Errno::from_raw_os_error(error.cast_signed());
                        return Err(error).context("it refuses");
                    }
                    // Others listen already: something happened before the answer.
                    _ => {}
                },
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error).context("hearing from it"),
            }
        }
        anyhow::bail!("it does not answer: the kernel is built without it (CONFIG_PROC_EVENTS)")
    }

    /// Learns of a container that runs.
    pub(crate) fn learn(&mut self, found: &Found) {
        if self.taught.len() >= TAUGHT_MAX {
            // Of containers that are gone, mostly; those that run are told of again within a minute.
            self.taught.clear();
        }
        for inner in &found.inner {
            self.taught.insert(*inner, found.cgroup);
        }
        self.taught.insert(found.cgroup, found.cgroup);
        for pid in &found.pids {
            if let Some(key) = process::key(*pid) {
                self.remember(key, Some(found.cgroup));
            }
        }
        self.enter(found.cgroup, &found.pids);
    }

    /// Waits for what the kernel tells, and takes what is there.
    pub(crate) fn round(&mut self) -> Round {
        let mut round = Round::default();
        self.wait();
        self.seek(&mut round);
        self.hear();
        let count = self.heard.len();
        if let Some(sight) = &mut self.sight {
            // Whatever was started by now was opened before.
            let lost = sight.read();
            if lost > 0 {
                round.drops.push((0, "exec", lost));
            }
            // And whoever started something since is to be known when it is told which.
            self.hear();
        }
        for _ in 0..count {
            if self.is_unclear() {
                break;
            }
            match self.heard.pop_front() {
                Some(Heard::Event(at_ns, event)) => self.take(at_ns, event, &mut round),
                Some(Heard::Lost) => {
                    // How much is lost it does not say.
                    round.drops.push((0, "exec", 1));
                    // Ends were among it: a number may be another process's by now.
                    self.processes.clear();
                }
                None => break,
            }
        }
        if self.looked_at.elapsed() >= LOOK_EVERY {
            self.looked_at = Instant::now();
            self.patience = PATIENCE;
            self.look(&mut round);
        }
        round
    }

    /// Until something is told, or the host has mounted something.
    fn wait(&mut self) {
        let mut fds = vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let mounts = self.sight.as_ref().and_then(|sight| sight.marks.changes());
        fds.extend(mounts.map(|mounts| PollFd::new(mounts, PollFlags::POLLPRI)));
        let until_seek = self.seek_at.saturating_duration_since(Instant::now());
        let timeout = if self.unclear.is_some() {
            UNCLEAR_MAX
        } else if !self.heard.is_empty() {
            Duration::ZERO
        } else if self.is_seeking() {
            WAIT.min(until_seek.max(UNCLEAR_MAX))
        } else {
            WAIT
        };
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO);
        // A signal to this process is no error.
        let waited = poll(&mut fds, timeout).is_ok();
        let changed = fds.get(1).and_then(PollFd::any) == Some(true);
        if let Some(sight) = self.sight.as_mut().filter(|_| waited && changed) {
            sight.marks.look_at_host();
        }
    }

    fn hear(&mut self) {
        for _ in 0..ROUND_MAX {
            match recv(
                &self.socket,
                self.buffer.as_mut_slice(),
                RecvFlags::DONTWAIT,
            ) {
                Ok((_, count)) => {
                    let said = message::read(self.buffer.get(..count).unwrap_or(&[]));
                    if let Some((_, Event::Exec(pid))) = said {
                        *self.starts.entry(pid).or_default() += 1;
                    }
                    let said = said.map(|(at_ns, event)| Heard::Event(at_ns, event));
                    self.heard.extend(said);
                }
                Err(Errno::NOBUFS) => self.heard.push_back(Heard::Lost),
                Err(_) => break,
            }
        }
    }

    fn take(&mut self, at_ns: u64, event: Event, round: &mut Round) {
        let (process, what) = match event {
            Event::Ack(_) => return,
            Event::Fork { parent, child } => {
                let parent = self.known(parent, round);
                let key = ProcessKey {
                    pid: child,
                    started_ns: at_ns,
                };
                let cgroup = parent.and_then(|parent| parent.cgroup);
                let child = self.remember(key, cgroup);
                let Some(parent) = parent else { return };
                if let Some(child) = self.processes.get_mut(&child.key.pid) {
                    child.parent = Some((parent.key, parent.cgroup));
                }
                (parent, What::Fork(child.key))
            }
            Event::Exec(pid) => return self.exec(at_ns, pid, round),
            Event::Exit { pid, code } => {
                let Some(process) = self.processes.remove(&pid) else {
                    return;
                };
                (process, What::Exit(code))
            }
        };
        if let Some(cgroup) = process.cgroup {
            round.push(Raw {
                at_ns,
                cgroup,
                process: process.key,
                what,
            });
        }
    }

    /// A process that began before it was listened, too.
    fn known(&mut self, pid: u32, round: &mut Round) -> Option<Process> {
        if let Some(known) = self.processes.get(&pid) {
            return Some(*known);
        }
        let key = process::key(pid)?;
        let path = self.layout.path_of(pid)?;
        let cgroup = self.container(key.started_ns, &path, round);
        Some(self.remember(key, cgroup))
    }

    fn remember(&mut self, key: ProcessKey, cgroup: Option<u64>) -> Process {
        if self.processes.len() >= PROCESSES_MAX {
            // Ends that were lost leave them behind; what lives is read again.
            self.processes.clear();
        }
        let before = self.processes.get(&key.pid);
        let process = Process {
            key,
            cgroup,
            parent: before
                .filter(|before| before.key == key)
                .and_then(|before| before.parent),
        };
        self.processes.insert(key.pid, process);
        process
    }

    /// The cgroup of the container that a cgroup is of or in.
    fn container(&mut self, at_ns: u64, path: &str, round: &mut Round) -> Option<u64> {
        let Some(id) = cgroup::container_in(path) else {
            if self.taught.is_empty() || path.trim_matches('/').is_empty() {
                return None;
            }
            let inode = fs::metadata(self.place(path)).ok()?.ino();
            return self.taught.get(&inode).copied();
        };
        let end = path.find(id)?;
        let rest = path.get(end..)?.find('/');
        let whole = rest.and_then(|rest| path.get(..end.checked_add(rest)?));
        let path = whole.unwrap_or(path);
        if let Some(known) = self.containers.get(path) {
            return Some(*known);
        }
        let inode = fs::metadata(self.place(path)).ok()?.ino();
        self.containers.insert(path.to_owned(), inode);
        self.expect(inode, path);
        round.push(Raw {
            at_ns,
            cgroup: inode,
            process: ProcessKey::default(),
            what: What::CgroupMade(path.to_owned()),
        });
        Some(inode)
    }

    /// Containers whose cgroups are gone.
    fn look(&mut self, round: &mut Round) {
        let root = self.layout.root.clone();
        let is_gone = |path: &str| !root.join(path.trim_start_matches('/')).exists();
        let gone = self.containers.extract_if(|path, _| is_gone(path));
        let gone: Vec<(String, u64)> = gone.collect();
        if let Some(sight) = &mut self.sight {
            for cgroup in self.gone.drain(..) {
                sight.marks.forget(cgroup);
            }
            self.gone.extend(gone.iter().map(|(_, cgroup)| *cgroup));
            sight.prune();
        }
        for (path, cgroup) in gone {
            round.push(Raw {
                at_ns: 0,
                cgroup,
                process: ProcessKey::default(),
                what: What::CgroupGone(path),
            });
        }
    }

    fn place(&self, path: &str) -> std::path::PathBuf {
        self.layout.root.join(path.trim_start_matches('/'))
    }
}

// === impl Round ===

impl Round {
    fn push(&mut self, raw: Raw) {
        self.events.push((raw, Opened::default()));
    }
}
