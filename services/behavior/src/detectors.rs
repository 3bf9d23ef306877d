//! Behaviors that attackers show and few others do: one file for each, and one visible list.
//!
//! A detector looks at one event, with what is remembered of its container; it keeps nothing itself
//! and has no effects. What it says is one sighting: what it is about (the *subject*), a sentence,
//! and what shows it. The same rule about the same subject is one detection of an incident, however
//! often it is seen.
//!
//! | rule | severity | looks at | technique |
//! |---|---|---|---|
//! | `reverse_shell` | critical | a shell or interpreter whose input and output are a connection, or that is told to make them one | T1059.004 |
//! | `netcat_execution` | critical | `nc -e`, `ncat --sh-exec`, `socat EXEC:`, and `nc -l` | T1059 |
//! | `web_server_shell` | high | a shell made by a web server or a database | T1505.003 |
//! | `shell_spawned` | medium | a shell by a program that never made one, or where the image has its first | T1059.004 |
//! | `debug_session` | low | a shell with a terminal, sent in from outside | T1609 |
//! | `package_manager` | medium | packages installed at run time | T1072 |
//! | `download_and_run` | high | what is downloaded is run by the same command | T1105 |
//! | `obfuscated_command` | high | what is decoded is run by the same command | T1027 |
//! | `crypto_miner` | critical | miners by name, by arguments, by the ports of pools | T1496 |
//! | `shm_execution` | high | a program in shared memory | T1059 |
//! | `hidden_execution` | medium | a program with a hidden name in a directory that all may write | T1564.001 |
//! | `history_cleared` | medium | the shell's history removed or switched off | T1070.003 |
//! | `logs_cleared` | medium | logs removed | T1070.002 |
//! | `credential_search` | high | keys and passwords looked for | T1552.001 |
//! | `network_scan` | medium | scanners | T1046 |
//! | `account_changed` | medium | users made, passwords set, `sudoers` written | T1136.001 |
//! | `setuid_set` | high | `chmod u+s`, `setcap` | T1548.001 |
//! | `container_client` | medium | clients of engines and orchestrators | T1613 |
//! | `container_socket` | high | the socket of an engine | T1611 |
//! | `namespace_escape` | high | `nsenter`, `setns`, another root | T1611 |
//! | `kernel_module` | critical | modules of the kernel | T1547.006 |
//! | `bpf_program` | high | programs for the kernel | T1014 |
//! | `mount` | high | file systems mounted | T1611 |
//! | `release_agent` | critical | the cgroup's program on the host | T1611 |
//! | `kernel_helper` | critical | `core_pattern` and other programs that the kernel starts on the host | T1611 |
//! | `raw_device` | high | disks of the host | T1611 |
//! | `kernel_memory` | high | the kernel's memory | T1003 |
//! | `ptrace` | high | another process taken hold of | T1055.008 |
//! | `memory_injection` | critical | another process's memory written | T1055 |
//! | `sensitive_file` | high | password hashes, keys, credentials of clouds, by who does not check them | T1003.008 |
//! | `service_account_token` | medium | the pod's token, by a shell's tools | T1528 |
//! | `metadata_service` | high | a cloud's metadata service | T1552.005 |
//! | `io_uring` | low | system calls that leave no trace | T1562 |
//! | `cron_changed` | medium | cron's tables | T1053.003 |
//! | `loader_preload` | high | `ld.so.preload`; `LD_PRELOAD` in a command line, of a library that lies elsewhere | T1574.006 |
//! | `startup_changed` | medium | what shells and the system run when they start | T1546.004 |
//! | `authorized_keys` | high | keys that open `ssh` | T1098.004 |
//!
//! To add one: a file here with a unit struct and its [`Definition`], a line in [`DETECTORS`], a
//! row above, and two recorded traces in `testdata/<name>/`: `fires.jsonl`, `silent.jsonl`. The
//! conformance test and `tidy` ask for all of them.

mod account_changed;
mod authorized_keys;
mod bpf_program;
mod container_client;
mod container_socket;
mod credential_search;
mod cron_changed;
mod crypto_miner;
mod debug_session;
mod download_and_run;
mod hidden_execution;
mod history_cleared;
mod io_uring;
mod kernel_helper;
mod kernel_memory;
mod kernel_module;
mod loader_preload;
mod logs_cleared;
mod memory_injection;
mod metadata_service;
mod mount;
mod namespace_escape;
mod netcat_execution;
mod network_scan;
mod obfuscated_command;
mod package_manager;
mod ptrace;
mod raw_device;
mod release_agent;
mod reverse_shell;
mod sensitive_file;
mod service_account_token;
mod setuid_set;
mod shell_spawned;
mod shm_execution;
mod startup_changed;
mod web_server_shell;

use std::{cell::OnceCell, sync::LazyLock};

use model::{
    Severity,
    runtime::{Evidence, Listen, NetworkFlow, ProcessKey},
};

use crate::{
    attack::Attack,
    container::Watched,
    processes::Program,
    programs::Kind,
    wire::{Call, Exec, FileOpen},
};

/// Every detector. What is not in the list does not exist.
pub(crate) static DETECTORS: &[&dyn Detector] = &[
    &reverse_shell::ReverseShell,
    &netcat_execution::NetcatExecution,
    &web_server_shell::WebServerShell,
    &shell_spawned::ShellSpawned,
    &debug_session::DebugSession,
    &package_manager::PackageManager,
    &download_and_run::DownloadAndRun,
    &obfuscated_command::ObfuscatedCommand,
    &crypto_miner::CryptoMiner,
    &shm_execution::ShmExecution,
    &hidden_execution::HiddenExecution,
    &history_cleared::HistoryCleared,
    &logs_cleared::LogsCleared,
    &credential_search::CredentialSearch,
    &network_scan::NetworkScan,
    &account_changed::AccountChanged,
    &setuid_set::SetuidSet,
    &container_client::ContainerClient,
    &container_socket::ContainerSocket,
    &namespace_escape::NamespaceEscape,
    &kernel_module::KernelModule,
    &bpf_program::BpfProgram,
    &mount::Mount,
    &release_agent::ReleaseAgent,
    &kernel_helper::KernelHelper,
    &raw_device::RawDevice,
    &kernel_memory::KernelMemory,
    &ptrace::Ptrace,
    &memory_injection::MemoryInjection,
    &sensitive_file::SensitiveFile,
    &service_account_token::ServiceAccountToken,
    &metadata_service::MetadataService,
    &io_uring::IoUring,
    &cron_changed::CronChanged,
    &loader_preload::LoaderPreload,
    &startup_changed::StartupChanged,
    &authorized_keys::AuthorizedKeys,
];

/// The detectors that look at one kind of event.
static BY_LOOK: LazyLock<[Vec<&'static dyn Detector>; 5]> = LazyLock::new(|| {
    let of = |look: Look| {
        let all = DETECTORS.iter().copied();
        all.filter(|one| one.definition().looks_at.contains(&look))
            .collect()
    };
    [
        of(Look::Start),
        of(Look::Open),
        of(Look::Flow),
        of(Look::Listen),
        of(Look::Call),
    ]
});

/// Recognizes one behavior.
pub(crate) trait Detector: Send + Sync {
    /// What it is.
    fn definition(&self) -> &'static Definition;

    /// Looks at a program that was started.
    fn started(&self, _start: &Start<'_>) -> Option<Sighting> {
        None
    }

    /// Looks at a file that was opened.
    fn opened(&self, _open: &FileOpen<'_>, _actor: &Actor<'_>) -> Option<Sighting> {
        None
    }

    /// Looks at a connection out.
    fn connected(&self, _flow: &NetworkFlow, _actor: &Actor<'_>) -> Option<Sighting> {
        None
    }

    /// Looks at a port that is waited on.
    fn listening(&self, _listen: &Listen, _actor: &Actor<'_>) -> Option<Sighting> {
        None
    }

    /// Looks at a rare system call.
    fn called(&self, _call: &Call<'_>, _actor: &Actor<'_>) -> Option<Sighting> {
        None
    }
}

/// What a rule is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    /// `behavior/reverse-shell`.
    pub(crate) rule: &'static str,
    pub(crate) severity: Severity,
    /// What to do.
    pub(crate) advice: &'static str,
    pub(crate) techniques: &'static [Attack],
    /// Which events it looks at: others are not shown to it.
    pub(crate) looks_at: &'static [Look],
}

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Start,
    Open,
    Flow,
    Listen,
    Call,
}

/// What a detector saw.
#[derive(Debug)]
pub(crate) struct Sighting {
    /// What it is about: once per incident.
    pub(crate) subject: String,
    /// One sentence.
    pub(crate) title: String,
    pub(crate) severity: Option<Severity>,
    pub(crate) evidence: Vec<Evidence>,
}

/// A program that was started, with what is known around it.
pub(crate) struct Start<'a> {
    pub(crate) exec: &'a Exec<'a>,
    /// The program's name.
    pub(crate) name: &'a str,
    pub(crate) kind: Kind,
    /// What its parent runs.
    pub(crate) parent: Option<&'a Program>,
    pub(crate) container: &'a Watched,
    pub(crate) at_ns: u64,
    pub(crate) line: OnceCell<String>,
}

/// Who did something.
pub(crate) struct Actor<'a> {
    pub(crate) process: ProcessKey,
    pub(crate) program: Option<&'a Program>,
    pub(crate) container: &'a Watched,
    pub(crate) at_ns: u64,
}

/// The detectors for a kind of event.
pub(crate) fn that_look_at(look: Look) -> &'static [&'static dyn Detector] {
    let [starts, opens, flows, listens, calls] = &*BY_LOOK;
    match look {
        Look::Start => starts,
        Look::Open => opens,
        Look::Flow => flows,
        Look::Listen => listens,
        Look::Call => calls,
    }
}

// === impl Start ===

impl Start<'_> {
    /// All arguments in one line.
    pub(crate) fn line(&self) -> &str {
        self.line.get_or_init(|| self.exec.args.join(" "))
    }

    /// Whether an argument is any of these.
    pub(crate) fn has_arg(&self, any: &[&str]) -> bool {
        self.exec.args.iter().any(|arg| any.contains(arg))
    }

    /// Whether the line has any of these.
    pub(crate) fn says(&self, any: &[&str]) -> bool {
        any.iter().any(|text| self.line().contains(text))
    }

    /// A sighting about the program itself.
    pub(crate) fn sighting(&self, title: String) -> Sighting {
        Sighting {
            subject: self.exec.file.path.to_owned(),
            title,
            severity: None,
            evidence: Vec::new(),
        }
    }

    /// The parent's name, for a title.
    pub(crate) fn by(&self) -> &str {
        self.parent.map_or("a process", Program::name)
    }
}

// === impl Actor ===

impl Actor<'_> {
    pub(crate) fn kind(&self) -> Kind {
        self.program.map_or(Kind::default(), |program| program.kind)
    }

    /// The program's name, for a title.
    pub(crate) fn name(&self) -> &str {
        self.program.map_or("a process", Program::name)
    }

    /// Whether it prepares the container, and is none of its processes yet.
    pub(crate) fn is_preparing(&self) -> bool {
        self.container.is_preparing(self.process, self.at_ns)
    }

    /// A sighting about a system call.
    pub(crate) fn of_call(&self, text: String, title: String) -> Sighting {
        Sighting {
            subject: self.name().to_owned(),
            title,
            severity: None,
            evidence: vec![Evidence::Call { text }],
        }
    }
}

// === impl Sighting ===

impl Sighting {
    /// A sighting about a file that was opened.
    pub(crate) fn of_file(open: &FileOpen<'_>, title: String) -> Sighting {
        Sighting {
            subject: open.path.to_owned(),
            title,
            severity: None,
            evidence: vec![Evidence::Opened {
                path: open.path.to_owned(),
                write: open.write,
            }],
        }
    }

    /// A sighting about a connection.
    pub(crate) fn of_flow(flow: &NetworkFlow, title: String) -> Sighting {
        Sighting {
            subject: format!("{}:{}", flow.address, flow.port),
            title,
            severity: None,
            evidence: vec![Evidence::Flow(flow.clone())],
        }
    }

    pub(crate) fn with_severity(mut self, severity: Severity) -> Self {
        self.severity = Some(severity);
        self
    }
}

#[cfg(test)]
mod tests;
