//! What `/proc` says of a process.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use model::runtime::{Origin, ProcessKey, Stdio};

use crate::{
    files,
    raw::{self, RawExec},
};

/// Clock ticks in a second, as `/proc` counts on every architecture of today (`USER_HZ`).
const TICKS: u64 = 100;
const TICK_NS: u64 = 1_000_000_000 / TICKS;
const BYTES_MAX: u64 = 1 << 20;
/// Bytes of arguments that are read: as much as the kernel side of BPF tells.
const ARGS_BYTES_MAX: u64 = 4 << 10;

/// Names a process that lives.
pub(crate) fn key(pid: u32) -> Option<ProcessKey> {
    let stat = files::text_of(&of(pid, "stat"), BYTES_MAX).ok()?;
    Some(ProcessKey {
        pid,
        started_ns: Stat::parse(&stat)?.started.checked_mul(TICK_NS)?,
    })
}

/// Whether a process runs something still.
pub(super) fn runs(pid: u32) -> bool {
    fs::read_link(of(pid, "exe")).is_ok()
}

/// What a process runs; `None` where it is gone.
pub(super) fn exec(pid: u32) -> Option<RawExec> {
    let stat = files::text_of(&of(pid, "stat"), BYTES_MAX).ok()?;
    let stat = Stat::parse(&stat)?;
    let status = files::text_of(&of(pid, "status"), BYTES_MAX).ok()?;
    let status = Status::parse(&status);
    let link = fs::read_link(of(pid, "exe")).ok()?;
    // Whoever is called by no text is seen all the same.
    let link = link.to_string_lossy();
    let link = link.trim_start_matches('/');
    let path = link.strip_suffix(files::DELETED).unwrap_or(link).to_owned();
    let file = File::open(of(pid, "exe")).ok()?;
    let found = file.metadata().ok()?;
    let (origin, mount) = files::origin(pid, &file, &path);
    let args = read_bounded_start(&of(pid, "cmdline"));
    let parent = key(stat.parent).unwrap_or(ProcessKey {
        pid: stat.parent,
        started_ns: 0,
    });
    let mut flags = 0;
    for (flag, is_set) in [
        (raw::TERMINAL, stat.terminal != 0),
        (raw::FIRST, status.is_first),
        (raw::ON_ROOT_MOUNT, mount.is_none()),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    Some(RawExec {
        parent,
        capabilities: status.capabilities,
        inode: found.ino(),
        size: found.size(),
        uid: status.uid,
        gid: status.gid,
        flags,
        origin: if link.ends_with(files::DELETED) {
            Origin::Unlinked
        } else {
            origin
        },
        stdin: stdio(pid, 0),
        stdout: stdio(pid, 1),
        path,
        mount,
        cwd: link_of(pid, "cwd"),
        named: String::new(),
        args: raw::arguments(&args),
    })
}

fn of(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

/// A path that a link of the process leads to, without a leading slash.
fn link_of(pid: u32, name: &str) -> String {
    let link = fs::read_link(of(pid, name)).unwrap_or_default();
    let text = link.to_string_lossy();
    text.trim_start_matches('/').to_owned()
}

/// The beginning of a file that may be longer.
fn read_bounded_start(path: &Path) -> Vec<u8> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| {
        let mut file = file.take(ARGS_BYTES_MAX);
        file.read_to_end(&mut bytes)
    });
    drop(read);
    bytes
}

fn stdio(pid: u32, number: u32) -> Stdio {
    let Ok(link) = fs::read_link(of(pid, &format!("fd/{number}"))) else {
        return Stdio::Other;
    };
    let link = link.to_string_lossy();
    if link.starts_with("pipe:") {
        return Stdio::Pipe;
    }
    if let Some(inode) = link.strip_prefix("socket:[") {
        let inode = inode.trim_end_matches(']');
        let unix = files::text_of(&of(pid, "net/unix"), BYTES_MAX).unwrap_or_default();
        // Num RefCount Protocol Flags Type St Inode Path (proc(5)).
        let mut lines = unix.lines();
        let is_unix = lines.any(|line| line.split_whitespace().nth(6) == Some(inode));
        return if is_unix {
            Stdio::UnixSocket
        } else {
            Stdio::Socket
        };
    }
    if link.starts_with("/dev/pts/") || link.starts_with("/dev/tty") || link == "/dev/console" {
        return Stdio::Terminal;
    }
    if link.starts_with("/dev/") || !link.starts_with('/') {
        return Stdio::Other;
    }
    Stdio::File
}

/// `/proc/<pid>/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    terminal: i64,
    /// In ticks since the boot.
    started: u64,
}

/// `/proc/<pid>/status`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Status {
    uid: u32,
    gid: u32,
    capabilities: u64,
    /// Whether it is the first process of its namespace.
    is_first: bool,
}

// === impl Stat ===

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // A process may have any name, with brackets and spaces.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Field 3 is the first behind the name.
        let field = |number: usize| fields.get(number.checked_sub(3)?).copied();
        Some(Self {
            parent: field(4)?.parse().ok()?,
            terminal: field(7)?.parse().ok()?,
            started: field(22)?.parse().ok()?,
        })
    }
}

// === impl Status ===

impl Status {
    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            // Real, effective, saved and of the file system.
            let effective = || value.split_whitespace().nth(1)?.parse().ok();
            match name {
                "Uid" => found.uid = effective().unwrap_or_default(),
                "Gid" => found.gid = effective().unwrap_or_default(),
                "CapEff" => {
                    found.capabilities = u64::from_str_radix(value.trim(), 16).unwrap_or_default();
                }
                "NSpid" => {
                    let ids: Vec<&str> = value.split_whitespace().collect();
                    found.is_first = ids.len() > 1 && ids.last() == Some(&"1");
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_it_is_called() {
        let stat = "20 (a) (b c) S 10 20 20 34816 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        let expected = Stat {
            parent: 10,
            terminal: 34816,
            started: 4711,
        };
        assert_eq!(Stat::parse(stat), Some(expected));
        assert_eq!(Stat::parse("20 (a"), None);
        assert_eq!(Stat::parse("20 (a) S 10"), None);
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nNSpid:\t900\t1\nCapEff:\tff\n";
        let expected = Status {
            uid: 2,
            gid: 6,
            capabilities: 255,
            is_first: true,
        };
        assert_eq!(Status::parse(status), expected);
        assert!(!Status::parse("NSpid:\t1\n").is_first, "it is the host's");
    }

    #[test]
    fn this_process_tells_what_it_runs() {
        let pid = std::process::id();
        let own = exec(pid).unwrap();
        let real = fs::read_link("/proc/self/exe").unwrap();
        assert_eq!(format!("/{}", own.path), real.to_string_lossy());
        assert_eq!(own.inode, fs::metadata("/proc/self/exe").unwrap().ino());
        assert!(!own.args.is_empty() && !own.cwd.is_empty());
        assert!(key(pid).unwrap().started_ns > 0);
        assert_eq!(own.parent.pid, std::os::unix::process::parent_id());
        assert_eq!(exec(u32::MAX), None);
    }

    #[test]
    fn a_process_whose_name_is_no_text_is_seen() {
        let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"a\xff");
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join(name);
        fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program)
            .arg("100")
            .spawn()
            .unwrap();
        let seen = (key(child.id()), exec(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen.0.is_some());
        assert!(seen.1.unwrap().path.ends_with("a\u{fffd}"));
    }
}
