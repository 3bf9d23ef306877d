//! What a container did: one event.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Digest;

/// Something that a process of a container did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeEvent {
    /// When: nanoseconds since the node's boot ([`super::RuntimeBatch::booted_at`]).
    pub at_ns: u64,
    /// Which container: an index into [`super::RuntimeBatch::containers`].
    pub container: u16,
    /// The process.
    pub process: ProcessKey,
    /// What it did.
    pub activity: Activity,
}

/// A process of a boot: a process id is used again, the pair is not.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub struct ProcessKey {
    /// The thread group's id, as the host counts.
    pub pid: u32,
    /// When the process began: nanoseconds since the node's boot, suspended time counted.
    pub started_ns: u64,
}

/// What a process did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// It runs another program now.
    Exec(Box<Exec>),
    /// It made a process.
    Fork {
        /// The child.
        child: ProcessKey,
    },
    /// It ended.
    Exit {
        /// The exit code, where no signal ended it.
        code: u8,
        /// The signal that ended it, else 0.
        signal: u8,
    },
    /// It opened a connection, or sent a datagram to a new destination.
    Connect(NetworkFlow),
    /// It bound a port.
    Bind(Listen),
    /// It waits for connections.
    Listen(Listen),
    /// It opened a file that is watched.
    Open(FileOpen),
    /// It made a system call of the list that is always watched.
    Syscall(SyscallMade),
}

/// A program was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exec {
    /// The parent, as it was when the program started.
    pub parent: ProcessKey,
    /// The file that the kernel runs.
    pub file: ExecutedFile,
    /// What that file, being an interpreter or a loader, was told to run: the script of `#!`, the
    /// argument of `sh x` or `ld.so ./x`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<ExecutedFile>,
    /// The arguments, the first being the program's name, shortened where they are long.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The working directory within the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The user, as the container counts; `u32::MAX` where the program had ended before that could be
    /// read. Then its group, its capabilities and its streams are not known either.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The effective capabilities, one bit each (linux/capability.h).
    pub capabilities: u64,
    /// Whether it has a controlling terminal.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub terminal: bool,
    /// What standard input is.
    pub stdin: Stdio,
    /// What standard output is.
    pub stdout: Stdio,
    /// Whether the container's runtime started it from outside (`exec`, a health check): its parent
    /// is not a process of the container, and the container ran already.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub injected: bool,
}

/// A file that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ExecutedFile {
    /// Its path within the container, without a leading slash, as entries of layers are written;
    /// `memfd:NAME` for what never had a path.
    pub path: String,
    /// Where its content comes from.
    pub origin: Origin,
    /// The sha256 of its content, where it is not of the image's own layers and could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The declared volume or mount that holds it, for [`Origin::Other`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
}

/// Where the content of a file comes from, as the kernel sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A layer of the image.
    Lower,
    /// The container's own layer: added, modified or copied up.
    Upper,
    /// A file system in memory.
    Tmpfs,
    /// Another file system: a volume, a mount of the host.
    Other,
    /// No name leads to it: deleted, or made by `memfd_create`.
    Unlinked,
    /// It could not be told.
    #[default]
    Unknown,
}

/// What a standard stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stdio {
    /// A file.
    File,
    /// A pipe.
    Pipe,
    /// A socket of the network.
    Socket,
    /// A socket of this machine.
    UnixSocket,
    /// A terminal.
    Terminal,
    /// `/dev/null`, closed, or unknown.
    #[default]
    Other,
}

/// A connection out, or a datagram to somewhere new.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct NetworkFlow {
    /// The protocol.
    pub transport: Transport,
    /// The other side.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// A port that is bound or listened on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Listen {
    /// The protocol.
    pub transport: Transport,
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

/// A protocol over IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Anything else.
    Other,
}

/// A file was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOpen {
    /// Its path, as the process named it, made absolute; without a leading slash.
    pub path: String,
    /// Whether to write.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub write: bool,
}

/// A rare system call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyscallMade {
    /// Which.
    pub call: RareCall,
    /// Its first arguments as numbers: of `ptrace` the request and the process, of `unshare`,
    /// `setns` and `clone3` the flags, of `bpf` the command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<u64>,
    /// A text among its arguments: of `mount` the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// System calls that few containers have a reason to make: always watched.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RareCall {
    /// `ptrace(2)`.
    Ptrace,
    /// `process_vm_writev(2)`.
    ProcessVmWrite,
    /// `mount(2)`, `move_mount(2)`, `fsmount(2)`.
    Mount,
    /// `umount2(2)`.
    Unmount,
    /// `pivot_root(2)`.
    PivotRoot,
    /// `setns(2)`.
    Setns,
    /// `unshare(2)`.
    Unshare,
    /// `bpf(2)`.
    Bpf,
    /// `init_module(2)`, `finit_module(2)`.
    LoadModule,
    /// `delete_module(2)`.
    UnloadModule,
    /// `io_uring_setup(2)`.
    IoUring,
    /// `memfd_create(2)`.
    Memfd,
    /// `userfaultfd(2)`.
    UserFault,
    /// `perf_event_open(2)`.
    PerfEvent,
    /// `kexec_load(2)`, `kexec_file_load(2)`.
    Kexec,
    /// `keyctl(2)`, `add_key(2)`, `request_key(2)`.
    Keyring,
    /// `open_by_handle_at(2)`.
    OpenByHandle,
}

/// Events of one class of one container that were counted and not sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// Which container: an index into [`super::RuntimeBatch::containers`]; `None` where that is not
    /// known either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<u16>,
    /// The class: `exec`, `network`, `file`, `syscall`, `process`.
    pub class: String,
    /// How many.
    pub count: u64,
}
