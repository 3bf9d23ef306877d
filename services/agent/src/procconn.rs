//! The process connector: what a node without BPF is told of by its kernel. Every start, fork and end
//! of a process, as a process id and no more; what runs is then read from `/proc`.
//!
//! So it sees less than BPF, and says so: a program that ends before it is looked at is counted as
//! an `exec` that was not told, connections and files are not seen at all. Of 1,000 programs that a
//! shell started one after the other, each of which ended at once, 13 were told here and all 1,000
//! with BPF. fanotify hands out the file that is run, but neither its arguments nor its parent, and
//! for whose it is it needs the same `/proc`; it is not used for seeing. The kernel speaks to the
//! first network namespace and about the first process namespace, so an agent in a container needs
//! both of the host.

mod message;
mod process;

use std::{
    collections::HashMap,
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use model::runtime::ProcessKey;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::{CONNECTOR, SocketAddrNetlink},
        recv, send, socket_with,
        sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout},
    },
};

use self::message::Event;
use crate::{
    cgroup::{self, Found, Layout},
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
/// Group and value of the process connector (`linux/connector.h`).
const GROUP: u32 = 1;

/// What the kernel tells through it.
pub(crate) const SEES: [&str; 3] = ["exec", "exit", "fork"];

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
    looked_at: Instant,
}

/// A process that was seen.
#[derive(Clone, Copy)]
struct Process {
    key: ProcessKey,
    /// The cgroup of its container.
    cgroup: Option<u64>,
}

/// What is made of a round of messages.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) events: Vec<Raw>,
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
            looked_at: Instant::now(),
        };
        connector.hear_yes()?;
        Ok(connector)
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
    }

    /// Waits for what the kernel tells, and takes what is there.
    pub(crate) fn round(&mut self) -> Round {
        let mut round = Round::default();
        for number in 0..ROUND_MAX {
            // Only the first one is waited for.
            let flags = if number == 0 {
                RecvFlags::empty()
            } else {
                RecvFlags::DONTWAIT
            };
            match recv(&self.socket, self.buffer.as_mut_slice(), flags) {
                Ok((_, count)) => {
                    let said = message::read(self.buffer.get(..count).unwrap_or(&[]));
                    if let Some((at_ns, event)) = said {
                        self.take(at_ns, event, &mut round);
                    }
                }
                // Its buffer was full: how much is lost it does not say.
                Err(Errno::NOBUFS) => {
                    round.drops.push((0, "exec", 1));
                    // Ends were among it: a number may be another process's by now.
                    self.processes.clear();
                }
                Err(_) => break,
            }
        }
        if self.looked_at.elapsed() >= LOOK_EVERY {
            self.looked_at = Instant::now();
            self.look(&mut round);
        }
        round
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
                let child = self.remember(key, parent.and_then(|parent| parent.cgroup));
                let Some(parent) = parent else { return };
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
            round.events.push(Raw {
                at_ns,
                cgroup,
                process: process.key,
                what,
            });
        }
    }

    /// A program started. Where its process is may have changed since it was forked: runtimes move
    /// the first process of a container.
    fn exec(&mut self, at_ns: u64, pid: u32, round: &mut Round) {
        let before = self.processes.get(&pid).copied();
        let Some(path) = self.layout.path_of(pid) else {
            if let Some(cgroup) = before.and_then(|before| before.cgroup) {
                round.drops.push((cgroup, "exec", 1));
            }
            return;
        };
        let cgroup = self.container(at_ns, &path, round);
        let key = before
            .map(|before| before.key)
            .or_else(|| process::key(pid));
        let Some(process) = key.map(|key| self.remember(key, cgroup)) else {
            return;
        };
        let Some(cgroup) = cgroup else { return };
        let Some(mut exec) = process::exec(pid) else {
            round.drops.push((cgroup, "exec", 1));
            return;
        };
        let parent = self.known(exec.parent.pid, round);
        exec.parent = parent.map_or(exec.parent, |parent| parent.key);
        if parent.is_none_or(|parent| parent.cgroup != Some(cgroup)) {
            exec.flags |= crate::raw::FROM_OUTSIDE;
        }
        round.events.push(Raw {
            at_ns,
            cgroup,
            process: process.key,
            what: What::Exec(Box::new(exec)),
        });
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
        let process = Process { key, cgroup };
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
        round.events.push(Raw {
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
        self.containers.retain(|path, cgroup| {
            let gone = is_gone(path);
            if gone {
                round.events.push(Raw {
                    at_ns: 0,
                    cgroup: *cgroup,
                    process: ProcessKey::default(),
                    what: What::CgroupGone(path.clone()),
                });
            }
            !gone
        });
    }

    fn place(&self, path: &str) -> std::path::PathBuf {
        self.layout.root.join(path.trim_start_matches('/'))
    }
}
