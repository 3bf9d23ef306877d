//! Which files can run or be loaded: their digests are what drift is measured against.

use archive::Entry;

/// The first bytes of an ELF file.
const ELF: &[u8] = b"\x7fELF";

/// Endings of names of files that something loads or runs.
const EXTENSIONS: &[&str] = &[
    "bash", "bat", "class", "cjs", "dll", "ear", "exe", "jar", "js", "ko", "lua", "mjs", "node",
    "phar", "php", "pl", "pm", "ps1", "py", "pyc", "pyo", "rb", "sh", "so", "ts", "war", "wasm",
];

/// Whether a regular file's digest belongs into the `entries` section.
pub(crate) fn is_runnable(entry: &Entry<'_>, head: &[u8]) -> bool {
    const EXECUTABLE: u32 = 0o111;
    if entry.mode & EXECUTABLE != 0 || head.starts_with(ELF) || head.starts_with(b"#!") {
        return true;
    }
    let name = entry.name();
    let Some((_, extension)) = name.rsplit_once('.') else {
        return false;
    };
    // A library's name goes on with its version: `libz.so.1.2.13`.
    EXTENSIONS.contains(&extension) || name.contains(".so.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_run_are_told_by_mode_head_or_name() {
        let check = |path, mode, head: &[u8], expected| {
            let entry = model::LayerEntry {
                path: String::from(path),
                kind: model::EntryKind::File,
                mode,
                uid: 0,
                gid: 0,
                size: head.len() as u64,
                link: None,
                capabilities: None,
                digest: None,
            };
            assert_eq!(is_runnable(&Entry::from(&entry), head), expected, "{path}");
        };
        check("bin/sh", 0o755, b"", true);
        check("opt/tool", 0o644, b"\x7fELF\x02", true);
        check("opt/script", 0o644, b"#!/bin/sh", true);
        check("lib/libz.so.1.2.13", 0o644, b"", true);
        check("app/main.py", 0o644, b"", true);
        check("etc/passwd", 0o644, b"root", false);
        check("etc/py", 0o644, b"", false);
    }
}
