//! What `/proc` says of a process of a container.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::files::text_of;

/// Bytes of a file that are read; what is beyond is the process's own affair.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;
/// Of arguments, and of an environment.
const WORDS_BYTES_MAX: u64 = 64 << 10;
/// Open files of one process that are listed.
const FILES_MAX: usize = 1_024;

/// The file of a process, as text.
pub(crate) fn text(pid: u32, name: &str) -> Option<String> {
    text_of(Path::new(&format!("/proc/{pid}/{name}")), FILE_BYTES_MAX).ok()
}

/// A field of its status.
pub(crate) fn status(pid: u32, name: &str) -> Option<String> {
    let status = text(pid, "status")?;
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.map(|value| value.trim().to_owned())
}

/// Who made it.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    status(pid, "PPid")?.parse().ok()
}

/// Whether it has this name.
pub(crate) fn is_called(pid: u32, name: &str) -> bool {
    text(pid, "comm").is_some_and(|comm| comm.trim() == name)
}

/// Kills it, if it is still there.
pub(crate) fn kill(pid: u32) {
    // Nothing has a number beyond that, and 0 and -1 are not one process.
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else {
        return;
    };
    let killed = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
    if let Err(error) = killed {
        tracing::debug!(%error, "process {pid} is not killed: {error}");
    }
}

/// Whether its root is the host's, or that of this process: it is on its way into a container.
pub(crate) fn sees_host(pid: u32) -> bool {
    let of = |path: &str| {
        let found = fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    };
    let root = of(&format!("/proc/{pid}/root/"));
    root == of("/") || root == of("/proc/1/root/")
}

/// Whether its program lies on one of the mounts that it sees. That of a runtime, on its way into a
/// container, does not.
pub(crate) fn runs_what_it_sees(pid: u32) -> bool {
    let program = format!("/proc/{pid}/exe");
    let Ok(found) = statx(CWD, &*program, AtFlags::empty(), StatxFlags::MNT_ID) else {
        return false;
    };
    // Linux before 5.8 does not tell.
    let is_told = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    let mounts = text(pid, "mountinfo").unwrap_or_default();
    let mut ids = mounts.lines().filter_map(|line| line.split(' ').next());
    !is_told || ids.any(|id| id.parse() == Ok(found.stx_mnt_id))
}

/// Whether it may make packet sockets, which pass below what is attached to a cgroup
/// (`CAP_NET_RAW`, capabilities(7)).
pub(crate) fn may_send_raw(pid: u32) -> bool {
    const NET_RAW: u64 = 1 << 13;
    let effective = status(pid, "CapEff").and_then(|bits| u64::from_str_radix(&bits, 16).ok());
    effective.is_some_and(|bits| bits & NET_RAW != 0)
}

/// What a link leads to: `exe`, `cwd`, `root`.
pub(crate) fn link(pid: u32, name: &str) -> Option<String> {
    let target = fs::read_link(format!("/proc/{pid}/{name}")).ok()?;
    Some(target.to_string_lossy().into_owned())
}

/// Its arguments.
pub(crate) fn arguments(pid: u32) -> Vec<String> {
    split(&read(pid, "cmdline"))
}

/// The names of its environment's variables; never what is in them.
pub(crate) fn variables(pid: u32) -> Vec<String> {
    let mut names: Vec<String> = split(&read(pid, "environ"))
        .into_iter()
        .filter_map(|variable| Some(variable.split_once('=')?.0.to_owned()))
        .collect();
    names.sort();
    names
}

/// Its open files: number and what it leads to.
pub(crate) fn open_files(pid: u32) -> Vec<(String, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    let entries = entries.into_iter().flatten().flatten().take(FILES_MAX);
    entries
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let number = entry.file_name().to_string_lossy().into_owned();
            Some((number, target.to_string_lossy().into_owned()))
        })
        .collect()
}

/// What does not fit is cut off: nobody hides arguments by their number.
fn read(pid: u32, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let opened = File::open(format!("/proc/{pid}/{name}"));
    let read = opened.and_then(|file| file.take(WORDS_BYTES_MAX).read_to_end(&mut bytes));
    // It ended meanwhile.
    if read.is_err() {
        bytes.clear();
    }
    bytes
}

fn split(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    let parts = bytes.split(|byte| *byte == 0);
    parts
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_described_without_the_values_of_its_environment() {
        let own = std::process::id();
        assert!(parent(own).is_some_and(|parent| parent > 0));
        assert!(!arguments(own).is_empty());
        let names = variables(own);
        assert!(names.iter().any(|name| name == "PATH"), "{names:?}");
        assert!(names.iter().all(|name| !name.contains('=')));
        assert!(open_files(own).iter().any(|(number, _)| number == "0"));
        assert_eq!(parent(u32::MAX), None);
    }

    #[test]
    fn a_name_that_is_no_text_hides_nothing() {
        use std::{
            os::unix::process::CommandExt as _,
            process::{Command, Stdio},
        };
        let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe");
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join(name);
        fs::copy("/bin/sleep", &program).unwrap();
        let mut child = Command::new(&program)
            .arg0("x")
            .arg("100")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id();
        assert_eq!(parent(pid), Some(std::process::id()));
        assert!(status(pid, "CapEff").is_some());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn arguments_beyond_the_bound_are_cut_off() {
        use std::process::{Command, Stdio};
        let mut child = Command::new("/bin/sleep")
            .arg("100")
            .args(vec!["0".repeat(50_000); 4])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It is started before its arguments are where they can be read.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let arguments = loop {
            let found = arguments(child.id());
            if !found.is_empty() {
                break found;
            }
            assert!(std::time::Instant::now() < end, "it has no arguments");
        };
        assert_eq!(arguments.get(1).map(String::as_str), Some("100"));
        let bytes: usize = arguments.iter().map(String::len).sum();
        assert!(bytes as u64 <= WORDS_BYTES_MAX && bytes > 50_000, "{bytes}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
