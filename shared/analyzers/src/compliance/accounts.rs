//! Files that give away what should be kept: rights to write, users without passwords, sudo without
//! one, a server for SSH.

use archive::{Entry, Limits};
use model::{AnalyzerId, EntryKind, FoundFinding, Hides};

use super::catalog::finding;
use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id};

const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Bytes of a file of accounts or rights; real ones have a few KB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Directories that are made anew when a container starts.
const VOLATILE: &[&str] = &[
    "dev", "proc", "sys", "run", "tmp", "var/run", "var/tmp", "var/lock", "run/lock", "dev/shm",
];

/// Looks at rights and accounts.
pub(crate) struct Compliance(AnalyzerId);

// === impl Compliance ===

impl Compliance {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id(super::NAME, 1, config, limits)))
    }
}

impl Analyzer for Compliance {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn hides(&self) -> Hides {
        Hides::Nothing
    }

    fn notices(&self, entry: &Entry<'_>) -> bool {
        let is_open = entry.mode & OTHERS_WRITE != 0 && entry.mode & STICKY == 0;
        entry.kind == EntryKind::Directory && is_open && !is_volatile(entry.path)
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        if is_account_file(entry.path) {
            return Wanted::Alone;
        }
        let is_open = entry.mode & OTHERS_WRITE != 0 && !is_volatile(entry.path);
        if is_open || is_ssh_server(entry.path) {
            Wanted::Entry
        } else {
            Wanted::No
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        files.iter().try_for_each(|file| look(file, found))
    }
}

fn look(file: &File, found: &mut Found) -> Result<(), Malformed> {
    let (path, mode) = (file.path(), file.entry.mode);
    let mut add = |id: &str, evidence: String, line: Option<u32>| {
        if let Some(finding) = finding(id, evidence, Some(path), line) {
            found.add_finding(FoundFinding::Misconfiguration(finding));
        }
    };
    if file.entry.kind == EntryKind::Directory {
        add("world-writable-directory", format!("mode {mode:04o}"), None);
        return Ok(());
    }
    if mode & OTHERS_WRITE != 0 && !is_volatile(path) {
        add("world-writable-file", format!("mode {mode:04o}"), None);
    }
    if is_ssh_server(path) {
        add("ssh-server", "the program is there".to_owned(), None);
    }
    if !is_account_file(path) {
        return Ok(());
    }
    let text = file.text(FILE_BYTES_MAX)?;
    for (line, number) in text.lines().zip(1_u32..) {
        match path {
            "etc/passwd" => {
                let fields: Vec<_> = line.split(':').collect();
                if let [name, password, uid, ..] = fields.as_slice() {
                    if *name != "root" && uid.parse() == Ok(0_u64) {
                        add("uid-0-duplicate", format!("user `{name}`"), Some(number));
                    }
                    if password.is_empty() && !name.is_empty() {
                        add("empty-password", format!("user `{name}`"), Some(number));
                    }
                }
            }
            "etc/shadow" => {
                let mut fields = line.split(':');
                if let (Some(name), Some("")) = (fields.next(), fields.next())
                    && !name.is_empty()
                {
                    add("empty-password", format!("user `{name}`"), Some(number));
                }
            }
            _ => {
                let rule = line.split('#').next().unwrap_or_default();
                if rule.contains("NOPASSWD") {
                    let who = rule.split_whitespace().next().unwrap_or_default();
                    add(
                        "sudo-without-password",
                        format!("`{who}` may"),
                        Some(number),
                    );
                }
            }
        }
    }
    Ok(())
}

fn is_account_file(path: &str) -> bool {
    matches!(path, "etc/passwd" | "etc/shadow" | "etc/sudoers")
        || path
            .strip_prefix("etc/sudoers.d/")
            // As sudo reads the directory.
            .is_some_and(|name| !name.contains(['.', '~', '/']))
}

fn is_ssh_server(path: &str) -> bool {
    matches!(
        path,
        "usr/sbin/sshd"
            | "usr/sbin/dropbear"
            | "usr/bin/dropbear"
            | "usr/local/sbin/sshd"
            | "sbin/sshd"
    )
}

fn is_volatile(path: &str) -> bool {
    let below = |root: &&str| {
        path.strip_prefix(*root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    VOLATILE.iter().any(below)
}
