//! What the kernel side writes, read byte by byte: `bpf/events.h` in Rust.
//!
//! The bytes come from our own program and are read as if they did not: whatever does not fit gives
//! `None` and is counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::runtime::{Origin, ProcessKey, Stdio, Transport};

/// It has a controlling terminal.
pub(crate) const TERMINAL: u16 = 1;
/// Its parent is not of the container.
pub(crate) const FROM_OUTSIDE: u16 = 2;
/// It is the first process of its namespace.
pub(crate) const FIRST: u16 = 4;
/// The file lies on the mount that is the process's root.
pub(crate) const ON_ROOT_MOUNT: u16 = 16;
/// The path is longer than what is told.
pub(crate) const PATH_CUT: u16 = 32;
/// What was named is a script.
pub(crate) const IS_SCRIPT: u16 = 64;

const HEADER: usize = 32;
const EXEC_DATA: usize = 96;
const NO_MOUNT: u8 = 255;
/// Of an open, behind the header: flags and path are before it.
const OPEN_BASE_LENGTH: usize = 8 + 256;
const OPEN_BASE: usize = OPEN_BASE_LENGTH + 8;

/// An event of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    /// Nanoseconds since the boot.
    pub(crate) at_ns: u64,
    /// The container's cgroup.
    pub(crate) cgroup: u64,
    /// The process.
    pub(crate) process: ProcessKey,
    /// What happened.
    pub(crate) what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Exec(Box<RawExec>),
    Fork(ProcessKey),
    Exit(u32),
    Connect(RawFlow),
    Bind(RawFlow),
    Listen(RawFlow),
    Open {
        flags: u64,
        path: String,
        /// The directory that the path begins in; `None` where that is the root, or is not known.
        base: Option<String>,
    },
    Syscall {
        number: i64,
        args: [u64; 2],
        text: String,
    },
    CgroupMade(String),
    CgroupGone(String),
}

/// A program was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawExec {
    pub(crate) parent: ProcessKey,
    pub(crate) capabilities: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) flags: u16,
    pub(crate) origin: Origin,
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    /// Within the container, without a leading slash.
    pub(crate) path: String,
    /// The mount that holds it, where that is not the process's root.
    pub(crate) mount: Option<String>,
    pub(crate) cwd: String,
    /// What was named: of a script its path, as written.
    pub(crate) named: String,
    pub(crate) args: Vec<String>,
}

/// The other side of a connection, or a port of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawFlow {
    pub(crate) transport: Transport,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

/// Reads an event; `None` where the bytes are none.
pub(crate) fn decode(bytes: &[u8]) -> Option<Raw> {
    let what = match u32_at(bytes, 0)? {
        1 => What::Exec(Box::new(exec(bytes)?)),
        2 => What::Fork(ProcessKey {
            started_ns: u64_at(bytes, HEADER)?,
            pid: u32_at(bytes, HEADER + 8)?,
        }),
        3 => What::Exit(u32_at(bytes, HEADER)?),
        4 => What::Connect(flow(bytes)?),
        5 => What::Bind(flow(bytes)?),
        6 => What::Listen(flow(bytes)?),
        7 => open(bytes.get(HEADER..)?)?,
        8 => What::Syscall {
            number: u64_at(bytes, HEADER)?.cast_signed(),
            args: [u64_at(bytes, HEADER + 8)?, u64_at(bytes, HEADER + 16)?],
            text: text(bytes.get(HEADER + 24..)?),
        },
        9 => What::CgroupMade(text(bytes.get(HEADER..)?)),
        10 => What::CgroupGone(text(bytes.get(HEADER..)?)),
        _ => return None,
    };
    Some(Raw {
        at_ns: u64_at(bytes, 8)?,
        cgroup: u64_at(bytes, 16)?,
        process: ProcessKey {
            pid: u32_at(bytes, 4)?,
            started_ns: u64_at(bytes, 24)?,
        },
        what,
    })
}

fn open(rest: &[u8]) -> Option<What> {
    let base = rest.get(OPEN_BASE..)?;
    let length = usize::from(u16_at(rest, OPEN_BASE_LENGTH)?);
    let is_whole = u16_at(rest, OPEN_BASE_LENGTH + 2)? != 0;
    let names = base.get(..length)?;
    Some(What::Open {
        flags: u64_at(rest, 0)?,
        path: text(rest.get(8..OPEN_BASE_LENGTH)?),
        base: is_whole.then(|| joined(&parts(names))),
    })
}

fn exec(bytes: &[u8]) -> Option<RawExec> {
    let rest = bytes.get(HEADER..EXEC_DATA)?;
    let data = bytes.get(EXEC_DATA..)?;
    let ends = [50, 52, 54, 56].map(|at| u16_at(rest, at).map(usize::from));
    let [path_end, cwd_end, named_end, args_end] = [ends[0]?, ends[1]?, ends[2]?, ends[3]?];
    let parts = parts(data.get(..path_end)?);
    let below = *rest.get(49)?;
    let mount = (below != NO_MOUNT).then(|| joined(parts.get(usize::from(below)..).unwrap_or(&[])));
    Some(RawExec {
        parent: ProcessKey {
            started_ns: u64_at(rest, 0)?,
            pid: u32_at(rest, 32)?,
        },
        capabilities: u64_at(rest, 8)?,
        inode: u64_at(rest, 16)?,
        size: u64_at(rest, 24)?,
        uid: u32_at(rest, 36)?,
        gid: u32_at(rest, 40)?,
        flags: u16_at(rest, 44)?,
        origin: match *rest.get(46)? {
            0 => Origin::Lower,
            1 => Origin::Upper,
            2 => Origin::Tmpfs,
            3 => Origin::Other,
            4 => Origin::Unlinked,
            _ => Origin::Unknown,
        },
        stdin: stdio(*rest.get(47)?),
        stdout: stdio(*rest.get(48)?),
        path: joined(&parts),
        mount,
        cwd: joined(&self::parts(data.get(path_end..cwd_end)?)),
        named: text(data.get(cwd_end..named_end)?),
        args: arguments(data.get(named_end..args_end)?),
    })
}

const fn stdio(number: u8) -> Stdio {
    match number {
        1 => Stdio::File,
        2 => Stdio::Pipe,
        3 => Stdio::Socket,
        4 => Stdio::UnixSocket,
        5 => Stdio::Terminal,
        _ => Stdio::Other,
    }
}

fn flow(bytes: &[u8]) -> Option<RawFlow> {
    let address: [u8; 16] = bytes.get(HEADER..HEADER + 16)?.try_into().ok()?;
    let [a, b, c, d, ..] = address;
    let is_v6 = *bytes.get(HEADER + 18)? != 0;
    let v6 = Ipv6Addr::from(address);
    Some(RawFlow {
        transport: match *bytes.get(HEADER + 19)? {
            6 => Transport::Tcp,
            17 => Transport::Udp,
            _ => Transport::Other,
        },
        address: match v6.to_ipv4_mapped() {
            Some(v4) if is_v6 => v4.into(),
            _ if is_v6 => v6.into(),
            _ => Ipv4Addr::new(a, b, c, d).into(),
        },
        port: u16_at(bytes, HEADER + 16)?,
    })
}

/// Names, each ended by a zero.
fn parts(bytes: &[u8]) -> Vec<String> {
    let names = bytes.split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty());
    names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

/// A path from its parts, the last one first.
fn joined(parts: &[String]) -> String {
    let parts: Vec<&str> = parts.iter().rev().map(String::as_str).collect();
    parts.join("/")
}

/// Arguments, each ended by a zero; the last one may be cut off.
pub(crate) fn arguments(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    let args = bytes.split(|byte| *byte == 0);
    args.map(|arg| String::from_utf8_lossy(arg).into_owned())
        .collect()
}

/// A text up to its zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    let text = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    bytes.try_into().ok().map(u64::from_ne_bytes)
}
