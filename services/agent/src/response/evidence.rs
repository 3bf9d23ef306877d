//! Evidence: what a container is at this moment, as a tar file of bounded size.
//!
//! | file | what |
//! |---|---|
//! | `container.json` | the container, as its engine tells of it, without values of its environment |
//! | `processes.json` | its processes: parents, programs, arguments, users, open files, names of variables |
//! | `maps/<pid>` | the memory maps of each |
//! | `net/<name>` | its sockets |
//! | `changes.json` | what it changed in its image: path, size, mode, time |
//! | `exe/<pid>` | the program of a process that is not of the image any more: deleted, or in memory |
//! | `files/<path>` | files that it added or changed and that can run |
//!
//! What does not fit is named in `left-out.json`.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use serde::Serialize;
use serde_json::Value;

use super::{container::Found, group::Group, proc};
use crate::{files::of_host, mounts::Mounts};

/// Of files that a container changed.
const CHANGES_MAX: usize = 20_000;
/// Bytes of their paths.
const PATHS_BYTES_MAX: usize = 8 << 20;
const DEPTH_MAX: usize = 64;
/// Of processes that are described.
const PROCESSES_MAX: usize = 1_024;
/// Bytes of what is said of them, as far as it is counted.
const WORDS_BYTES_MAX: usize = 8 << 20;
/// Of things that are named as left out.
const LEFT_OUT_MAX: usize = 1_000;
const SOCKETS: &[&str] = &["tcp", "tcp6", "udp", "udp6", "unix", "raw", "packet"];
/// Bytes that a tar file adds to each of its files, at most.
const ENTRY_BYTES: u64 = 2_048;
const MEDIA_TYPE: &str = "application/x-tar";

/// What was collected.
pub(crate) struct Collected {
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: &'static str,
    /// In words, for people.
    pub(crate) summary: String,
}

#[derive(Serialize)]
struct Process {
    pid: u32,
    parent: Option<u32>,
    name: Option<String>,
    program: Option<String>,
    arguments: Vec<String>,
    directory: Option<String>,
    user: Option<String>,
    capabilities: Option<String>,
    started: Option<String>,
    variables: Vec<String>,
    open_files: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Change {
    path: String,
    /// Names need not be text.
    #[serde(skip)]
    below: PathBuf,
    kind: &'static str,
    size: u64,
    mode: u32,
    changed_at: i64,
}

/// A tar file that stays below a size.
struct Chest {
    tar: tar::Builder<Vec<u8>>,
    left: u64,
    left_out: Vec<String>,
    files: usize,
}

/// Collects the evidence of a container in at most so many bytes.
pub(crate) fn collect(found: &Found, bytes_max: u64) -> anyhow::Result<Collected> {
    let mut chest = Chest {
        tar: tar::Builder::new(Vec::new()),
        left: bytes_max.saturating_sub(ENTRY_BYTES * 2),
        left_out: Vec::new(),
        files: 0,
    };
    chest.json("container.json", &without_values(&found.inspected));
    let mut pids = found.group.as_ref().map(Group::pids).unwrap_or_default();
    pids.sort_unstable();
    let beyond = pids.len().saturating_sub(PROCESSES_MAX);
    if beyond > 0 {
        chest.leave_out(format!("{beyond} processes"));
    }
    pids.truncate(PROCESSES_MAX);
    let processes = chest.processes(&pids);
    chest.json("processes.json", &processes);
    if let Some(pid) = pids.first() {
        for name in SOCKETS {
            chest.proc(*pid, &format!("net/{name}"), &format!("net/{name}"));
        }
    }
    for pid in &pids {
        chest.proc(*pid, "maps", &format!("maps/{pid}"));
    }
    let upper = pids.first().and_then(|pid| Mounts::of(*pid));
    let upper = upper.and_then(|mounts| mounts.root?.upper);
    let upper = upper.or_else(|| {
        let told = found.text("/GraphDriver/Data/UpperDir");
        told.map(|dir| of_host(Path::new(dir)))
    });
    let upper = upper.and_then(|upper| File::open(upper).ok());
    let changes = if let Some(upper) = &upper {
        chest.changes(upper)
    } else {
        chest.leave_out("changes: the container has no layer of its own here".to_owned());
        Vec::new()
    };
    chest.json("changes.json", &changes);
    // What ran and has no place any more comes first: nothing else has it.
    for process in &processes {
        if process.program.as_deref().is_some_and(is_placeless) {
            let opened = open_program(process.pid);
            chest.file(opened, &format!("exe/{}", process.pid));
        }
    }
    for change in changes.iter().filter(|change| change.kind == "file") {
        let Some(upper) = &upper else { break };
        if change.mode & 0o111 != 0 || runs(upper, &change.below) {
            let opened = open(upper, &change.below, OFlag::O_NONBLOCK);
            chest.file(opened, &format!("files/{}", change.path));
        }
    }
    let summary = format!(
        "{} processes, {} changed files, {} files kept",
        processes.len(),
        changes.len(),
        chest.files
    );
    Ok(Collected {
        bytes: chest.close()?,
        media_type: MEDIA_TYPE,
        summary,
    })
}

fn is_placeless(program: &str) -> bool {
    program.ends_with(" (deleted)") || program.starts_with("/memfd:")
}

fn describe(pid: u32) -> Process {
    let started = proc::text(pid, "stat").and_then(|stat| {
        let rest = stat.rsplit(')').next()?;
        rest.split_whitespace().nth(19).map(str::to_owned)
    });
    Process {
        pid,
        parent: proc::parent(pid),
        name: proc::text(pid, "comm").map(|name| name.trim().to_owned()),
        program: proc::link(pid, "exe"),
        arguments: proc::arguments(pid),
        directory: proc::link(pid, "cwd"),
        user: proc::status(pid, "Uid"),
        capabilities: proc::status(pid, "CapEff"),
        started,
        variables: proc::variables(pid),
        open_files: proc::open_files(pid),
    }
}

/// What the engine tells, but of the environment only names: values are secrets.
fn without_values(inspected: &Value) -> Value {
    let mut shown = inspected.clone();
    let variables = shown
        .pointer_mut("/Config/Env")
        .and_then(Value::as_array_mut);
    for variable in variables.into_iter().flatten() {
        let name = variable.as_str().unwrap_or_default();
        let name = name.split_once('=').map_or(name, |(name, _)| name);
        *variable = Value::from(name);
    }
    if let Some(config) = shown.get_mut("Config").and_then(Value::as_object_mut) {
        // podman repeats the command that made it, with `--env A=b`.
        config.remove("CreateCommand");
    }
    shown
}

/// What is being listed, and how much more may be.
struct Listing<'a> {
    root: &'a File,
    changes: Vec<Change>,
    bytes_left: usize,
    is_cut: bool,
}

// === impl Listing ===

impl Listing<'_> {
    fn list(&mut self, dir: &Path, depth: usize) {
        let opened = open(self.root, dir, OFlag::O_DIRECTORY);
        // The open directory is listed, whatever its name leads to by now.
        let Ok(opened) = opened else { return };
        let entries = fs::read_dir(fd_path(&opened));
        for entry in entries.into_iter().flatten().flatten() {
            let below = dir.join(entry.file_name());
            let bytes_left = self.bytes_left.checked_sub(below.as_os_str().len());
            let Some(bytes_left) = bytes_left.filter(|_| self.changes.len() < CHANGES_MAX) else {
                self.is_cut = true;
                return;
            };
            let Ok(found) = entry.metadata() else {
                continue;
            };
            self.bytes_left = bytes_left;
            self.changes.push(Change {
                path: below.to_string_lossy().into_owned(),
                below: below.clone(),
                kind: kind(&found),
                size: found.size(),
                mode: found.mode() & 0o7777,
                changed_at: found.mtime(),
            });
            if found.is_dir() && depth > 0 {
                self.list(&below, depth - 1);
            } else if found.is_dir() {
                self.is_cut = true;
            }
        }
    }
}

fn kind(found: &fs::Metadata) -> &'static str {
    if found.is_dir() {
        "directory"
    } else if found.is_file() {
        "file"
    } else if found.is_symlink() {
        "link"
    } else if found.rdev() == 0 {
        // A whiteout of the overlay.
        "deleted"
    } else {
        "other"
    }
}

/// Whether a file begins as a program or a script does.
fn runs(root: &File, below: &Path) -> bool {
    let mut head = [0; 4];
    let opened = open(root, below, OFlag::O_NONBLOCK);
    let read = opened.and_then(|mut file| file.read(&mut head));
    read.is_ok() && (head == *b"\x7fELF" || head.starts_with(b"#!"))
}

/// What lies below a directory, without following any link: the container may put one there at any
/// moment, and the agent would follow it as the host.
fn open(root: &File, below: &Path, flags: OFlag) -> io::Result<File> {
    let below = if below.as_os_str().is_empty() {
        Path::new(".")
    } else {
        below
    };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_RDONLY | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    Ok(File::from(openat2(root.as_fd(), below, how)?))
}

/// The program of a process, wherever it is.
fn open_program(pid: u32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/exe"))
}

fn fd_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

// === impl Process ===

impl Process {
    /// Bytes of what it says of itself.
    fn words(&self) -> usize {
        let lists = [&self.arguments, &self.variables];
        let words = lists.into_iter().flatten().map(String::len);
        let files = self.open_files.iter().map(|(_, target)| target.len());
        words.chain(files).sum()
    }
}

// === impl Chest ===

impl Chest {
    fn json(&mut self, name: &str, value: &impl Serialize) {
        match serde_json::to_vec_pretty(value) {
            Ok(bytes) => self.add(name, &bytes),
            Err(error) => self.leave_out(format!("{name}: {error}")),
        }
    }

    /// Describes processes, as many as there is room for.
    fn processes(&mut self, pids: &[u32]) -> Vec<Process> {
        let (mut found, mut words) = (Vec::new(), 0_usize);
        for pid in pids {
            let process = describe(*pid);
            words = words.saturating_add(process.words());
            if words > WORDS_BYTES_MAX {
                let beyond = pids.len() - found.len();
                self.leave_out(format!("{beyond} processes"));
                break;
            }
            found.push(process);
        }
        found
    }

    /// Lists what lies in the container's own layer, as much as there is room for.
    fn changes(&mut self, upper: &File) -> Vec<Change> {
        let mut listing = Listing {
            root: upper,
            changes: Vec::new(),
            bytes_left: PATHS_BYTES_MAX,
            is_cut: false,
        };
        listing.list(Path::new(""), DEPTH_MAX);
        if listing.is_cut {
            self.leave_out(format!("changes beyond {}", listing.changes.len()));
        }
        listing.changes
    }

    fn proc(&mut self, pid: u32, from: &str, name: &str) {
        // It ended meanwhile.
        let Some(text) = proc::text(pid, from) else {
            return;
        };
        if text.len() as u64 >= proc::FILE_BYTES_MAX {
            self.leave_out(format!("{name}: beyond {} bytes", proc::FILE_BYTES_MAX));
        }
        self.add(name, text.as_bytes());
    }

    fn file(&mut self, opened: io::Result<File>, name: &str) {
        let found = opened.and_then(|file| Ok((file.metadata()?, file)));
        let (found, file) = match found {
            Ok(found) => found,
            Err(error) => return self.leave_out(format!("{name}: {error}")),
        };
        if !found.is_file() {
            return;
        }
        if found.size().saturating_add(ENTRY_BYTES) > self.left {
            return self.leave_out(format!("{name}: {} bytes", found.size()));
        }
        let mut bytes = Vec::new();
        match file.take(self.left).read_to_end(&mut bytes) {
            Ok(_) => {
                self.add(name, &bytes);
                self.files += 1;
            }
            Err(error) => self.leave_out(format!("{name}: {error}")),
        }
    }

    fn add(&mut self, name: &str, bytes: &[u8]) {
        let size = bytes.len() as u64;
        let Some(left) = self.left.checked_sub(size.saturating_add(ENTRY_BYTES)) else {
            return self.leave_out(format!("{name}: {size} bytes"));
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        match self.tar.append_data(&mut header, name, bytes) {
            Ok(()) => self.left = left,
            Err(error) => self.leave_out(format!("{name}: {error}")),
        }
    }

    fn leave_out(&mut self, what: String) {
        if self.left_out.len() < LEFT_OUT_MAX {
            self.left_out.push(what);
        }
    }

    fn close(mut self) -> io::Result<Vec<u8>> {
        // As much room as was set aside; of many names the first ones.
        let mut names = std::mem::take(&mut self.left_out);
        let mut bytes = serde_json::to_vec(&names)?;
        while bytes.len() as u64 > ENTRY_BYTES / 2 && names.len() > 1 {
            names.truncate(names.len() / 2);
            bytes = serde_json::to_vec(&names)?;
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        self.tar
            .append_data(&mut header, "left-out.json", bytes.as_slice())?;
        self.tar.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(bytes: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect()
    }

    fn found(upper: &Path) -> Found {
        Found {
            inspected: json!({
                "Config": { "Env": ["PASSWORD=hunter2", "EMPTY"], "CreateCommand": ["-e", "x"] },
                "GraphDriver": { "Data": { "UpperDir": upper } },
            }),
            ..Found::default()
        }
    }

    #[test]
    fn what_can_run_is_kept_and_the_environment_is_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        fs::write(dir.path().join("tmp/dropped"), b"\x7fELFxxxx").unwrap();
        fs::write(dir.path().join("tmp/notes"), b"text").unwrap();
        std::os::unix::fs::symlink("/etc/shadow", dir.path().join("link")).unwrap();
        let collected = collect(&found(dir.path()), 1 << 20).unwrap();
        let names = names(&collected.bytes);
        assert!(names.contains(&"files/tmp/dropped".to_owned()), "{names:?}");
        assert!(!names.contains(&"files/tmp/notes".to_owned()), "{names:?}");
        let text = String::from_utf8_lossy(&collected.bytes);
        assert!(text.contains("PASSWORD") && text.contains("tmp/notes"));
        assert!(!text.contains("hunter2") && !text.contains("CreateCommand"));
    }

    #[test]
    fn a_link_that_a_container_puts_there_is_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, host) = (dir.path().join("upper"), dir.path().join("host"));
        for dir in [&upper, &host] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(host.join("secret"), b"#!secret").unwrap();
        std::os::unix::fs::symlink(&host, upper.join("swapped")).unwrap();
        let root = File::open(&upper).unwrap();
        // As if it had been a directory when that was listed.
        let below = Path::new("swapped/secret");
        assert!(open(&root, below, OFlag::O_NONBLOCK).is_err());
        assert!(open(&root, Path::new("swapped"), OFlag::O_DIRECTORY).is_err());
        assert!(open(&root, Path::new("../host"), OFlag::O_DIRECTORY).is_err());
        assert!(!runs(&root, below));
        let collected = collect(&found(&upper), 1 << 20).unwrap();
        let text = String::from_utf8_lossy(&collected.bytes).into_owned();
        assert!(text.contains("swapped") && !text.contains("#!secret"));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("large"),
            [b"\x7fELF", vec![0; 40_000].as_slice()].concat(),
        )
        .unwrap();
        let of = |bytes_max| collect(&found(dir.path()), bytes_max).unwrap().bytes;
        assert!(names(&of(1 << 20)).contains(&"files/large".to_owned()));
        let small = of(30_000);
        assert!(small.len() <= 30_000, "{}", small.len());
        assert!(!names(&small).contains(&"files/large".to_owned()));
        assert!(String::from_utf8_lossy(&small).contains("files/large: 40004 bytes"));
    }
}
