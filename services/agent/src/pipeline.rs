//! From what the kernel wrote to what is told: whose it is, which files, which paths.

use std::{
    collections::HashMap,
    fs::{self, File},
};

use model::runtime::{
    Activity, Exec, ExecutedFile, FileOpen, Listen, NetworkFlow, Origin, RareCall, Stdio,
    SyscallMade,
};
use nix::libc;

use crate::{
    batch::Told,
    cgroup::{self, Found},
    config::{HashConfig, SensorConfig},
    files::{Expected, Files, Opened},
    raw::{self, Raw, RawExec, RawFlow, What},
    script,
    watch::Watched,
};

/// Characters of one argument; their number is bounded by what the kernel sends.
const ARG_MAX: usize = 512;
/// Containers that are known at once; beyond them the oldest that are gone are forgotten.
const CONTAINERS_MAX: usize = 20_000;

/// Turns events of the kernel into what is told.
pub(crate) struct Pipeline {
    known: HashMap<u64, Known>,
    files: Files,
    watched: Watched,
    /// Whether containers came or went since it was last asked.
    changed: bool,
}

/// A container, by its cgroup.
#[derive(Clone, Debug)]
struct Known {
    id: String,
    /// A process of it that lives long: its first.
    first: Option<u32>,
    /// Whether a program of it ran already.
    has_started: bool,
    is_gone: bool,
}

// === impl Pipeline ===

impl Pipeline {
    pub(crate) fn new(sensor: &SensorConfig, hash: &HashConfig) -> anyhow::Result<Self> {
        Ok(Self {
            known: HashMap::new(),
            files: Files::new(hash),
            watched: Watched::new(sensor)?,
            changed: false,
        })
    }

    /// Learns of a container that runs.
    pub(crate) fn learn(&mut self, found: &Found) {
        let known = self.known.entry(found.cgroup).or_insert_with(|| Known {
            id: found.container.clone(),
            first: None,
            has_started: !found.pids.is_empty(),
            is_gone: false,
        });
        known.id.clone_from(&found.container);
        known.is_gone = false;
        known.first = found.pids.iter().min().copied().or(known.first);
    }

    /// The id of a container.
    pub(crate) fn container(&self, cgroup: u64) -> Option<String> {
        self.known.get(&cgroup).map(|known| known.id.clone())
    }

    /// Whether containers came or went since the last time.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What is told of an event, if anything is.
    pub(crate) fn take(&mut self, raw: Raw) -> Option<Told> {
        self.take_opened(raw, Opened::default())
    }

    /// The same of a program whose files are open already.
    pub(crate) fn take_opened(&mut self, raw: Raw, opened: Opened) -> Option<Told> {
        let pid = raw.process.pid;
        let activity = match raw.what {
            What::CgroupMade(path) => {
                self.made(raw.cgroup, &path);
                return None;
            }
            What::CgroupGone(_) => {
                self.gone(raw.cgroup);
                return None;
            }
            What::Exec(exec) => self.exec((raw.cgroup, pid), *exec, opened)?,
            What::Fork(child) => Activity::Fork { child },
            What::Exit(code) => Activity::Exit {
                // wait(2)
                code: u8::try_from(code >> 8 & 0xff).unwrap_or(0),
                signal: u8::try_from(code & 0x7f).unwrap_or(0),
            },
            What::Connect(flow) => Activity::Connect(NetworkFlow {
                transport: flow.transport,
                address: flow.address,
                port: flow.port,
            }),
            What::Bind(flow) => Activity::Bind(listen(&flow)),
            What::Listen(flow) => Activity::Listen(listen(&flow)),
            What::Open { flags, path, base } => {
                let path = resolve(base.as_deref().unwrap_or_default(), &path);
                let write = flags & 3 != 0;
                if !self.watched.matches(&path, write) {
                    return None;
                }
                Activity::Open(FileOpen { path, write })
            }
            What::Syscall { number, args, text } => syscall(number, &args, text)?,
        };
        let known = self.known.get(&raw.cgroup)?;
        Some(Told {
            container: known.id.clone(),
            at_ns: raw.at_ns,
            process: raw.process,
            activity,
        })
    }

    fn made(&mut self, cgroup: u64, path: &str) {
        let Some(id) = cgroup::container_in(path) else {
            return;
        };
        if self.known.len() >= CONTAINERS_MAX {
            self.known.retain(|_, known| !known.is_gone);
        }
        self.changed = true;
        // Of one that ran before it is known already what it ran.
        self.known.entry(cgroup).or_insert_with(|| Known {
            id: id.to_owned(),
            first: None,
            has_started: false,
            is_gone: false,
        });
    }

    /// Its last events may still be in the other buffer, so it is not forgotten at once.
    fn gone(&mut self, cgroup: u64) {
        self.changed = true;
        if let Some(known) = self.known.get_mut(&cgroup) {
            known.is_gone = true;
        }
    }

    fn exec(
        &mut self,
        (cgroup, pid): (u64, u32),
        raw: RawExec,
        opened: Opened,
    ) -> Option<Activity> {
        let known = self.known.get_mut(&cgroup)?;
        let is_first = raw.flags & raw::FIRST != 0;
        let injected = raw.flags & raw::FROM_OUTSIDE != 0 && !is_first && known.has_started;
        if is_first || known.first.is_none() {
            known.first = Some(pid);
        }
        known.has_started = true;
        let pids = [Some(pid), known.first.filter(|first| *first != pid)];
        let pids: Vec<u32> = pids.into_iter().flatten().collect();
        let named = script::of(&raw).map(|path| resolve(&raw.cwd, path));
        let script = match (opened.script, named) {
            (Some((script, file)), _) => Some(self.opened(script, file.as_deref())),
            (None, Some(path)) => Some(self.files.script(&pids, &path)),
            (None, None) if raw.stdin == Stdio::File && script::is_from_input(&raw) => {
                self.files.input(pid)
            }
            (None, None) => None,
        };
        let file = self.file(&pids, &raw, opened.program.as_deref());
        Some(Activity::Exec(Box::new(Exec {
            parent: raw.parent,
            file,
            script,
            args: raw.args.iter().map(|arg| shortened(arg)).collect(),
            cwd: (!raw.cwd.is_empty()).then_some(raw.cwd),
            uid: raw.uid,
            gid: raw.gid,
            capabilities: raw.capabilities,
            terminal: raw.flags & raw::TERMINAL != 0,
            stdin: raw.stdin,
            stdout: raw.stdout,
            injected,
        })))
    }

    fn file(&mut self, pids: &[u32], raw: &RawExec, opened: Option<&File>) -> ExecutedFile {
        let is_on_root = raw.flags & raw::ON_ROOT_MOUNT != 0;
        let origin = match raw.origin {
            // The root is no overlay: the content decides.
            Origin::Other if is_on_root => Origin::Unknown,
            origin => origin,
        };
        let expected = Expected {
            inode: raw.inode,
            size: raw.size,
        };
        let digest = match (origin, opened) {
            (Origin::Lower, _) => None,
            (_, Some(file)) => self.files.opened(file),
            (_, None) => self.files.executed(pids, &raw.path, expected),
        };
        ExecutedFile {
            path: path(pids, raw),
            origin,
            digest,
            mount: raw
                .mount
                .clone()
                .filter(|mount| !mount.is_empty() && !is_on_root),
        }
    }

    /// A file that is open, with its digest where that says more.
    fn opened(&mut self, mut told: ExecutedFile, file: Option<&File>) -> ExecutedFile {
        let file = file.filter(|_| told.origin != Origin::Lower);
        told.digest = file.and_then(|file| self.files.opened(file));
        told
    }
}

/// The path of the file that runs, from the process itself where the kernel told a part of it.
fn path(pids: &[u32], raw: &RawExec) -> String {
    let own = pids.first().filter(|_| raw.flags & raw::PATH_CUT != 0);
    let link = own.and_then(|pid| fs::read_link(format!("/proc/{pid}/exe")).ok());
    let link = link.and_then(|path| {
        path.to_str()
            .map(|path| path.trim_start_matches('/').to_owned())
    });
    link.unwrap_or_else(|| raw.path.clone())
}

fn listen(flow: &RawFlow) -> Listen {
    Listen {
        transport: flow.transport,
        address: flow.address,
        port: flow.port,
    }
}

/// A path from a directory on, without `.`, `..` and a leading slash.
pub(crate) fn resolve(base: &str, path: &str) -> String {
    let base = if path.starts_with('/') { "" } else { base };
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn shortened(arg: &str) -> String {
    if arg.len() <= ARG_MAX {
        return arg.to_owned();
    }
    let mut shown: String = arg.chars().take(ARG_MAX).collect();
    shown.push('…');
    shown
}

/// The calls of the list, by the machine's numbers.
const CALLS: &[(libc::c_long, RareCall)] = &[
    (libc::SYS_ptrace, RareCall::Ptrace),
    (libc::SYS_process_vm_writev, RareCall::ProcessVmWrite),
    (libc::SYS_mount, RareCall::Mount),
    (libc::SYS_move_mount, RareCall::Mount),
    (libc::SYS_fsmount, RareCall::Mount),
    (libc::SYS_umount2, RareCall::Unmount),
    (libc::SYS_pivot_root, RareCall::PivotRoot),
    (libc::SYS_setns, RareCall::Setns),
    (libc::SYS_unshare, RareCall::Unshare),
    (libc::SYS_bpf, RareCall::Bpf),
    (libc::SYS_init_module, RareCall::LoadModule),
    (libc::SYS_finit_module, RareCall::LoadModule),
    (libc::SYS_delete_module, RareCall::UnloadModule),
    (libc::SYS_io_uring_setup, RareCall::IoUring),
    (libc::SYS_memfd_create, RareCall::Memfd),
    (libc::SYS_userfaultfd, RareCall::UserFault),
    (libc::SYS_perf_event_open, RareCall::PerfEvent),
    (libc::SYS_kexec_load, RareCall::Kexec),
    (libc::SYS_kexec_file_load, RareCall::Kexec),
    (libc::SYS_keyctl, RareCall::Keyring),
    (libc::SYS_add_key, RareCall::Keyring),
    (libc::SYS_request_key, RareCall::Keyring),
    (libc::SYS_open_by_handle_at, RareCall::OpenByHandle),
];

fn syscall(number: i64, args: &[u64; 2], text: String) -> Option<Activity> {
    let (_, call) = CALLS.iter().find(|(known, _)| *known == number)?;
    let args = match call {
        // Pointers say nothing; these have numbers.
        RareCall::Ptrace | RareCall::Bpf | RareCall::Setns | RareCall::Keyring => args.to_vec(),
        RareCall::Unshare | RareCall::ProcessVmWrite | RareCall::OpenByHandle => {
            args.get(..1).unwrap_or_default().to_vec()
        }
        _ => Vec::new(),
    };
    Some(Activity::Syscall(SyscallMade {
        call: *call,
        args,
        text: (!text.is_empty()).then_some(text),
    }))
}

#[cfg(test)]
mod tests;
