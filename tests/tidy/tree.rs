//! The shape of the repository.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _};

use crate::repo::{extension, files, is_testdata, root, text, verdict};

/// What a visitor sees first. Dot files are not listed by forges' users nor here.
const TOP: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "deploy",
    "load-tests",
    "services",
    "shared",
    "tests",
];

const BLOB_BYTES_MAX: u64 = 256 * 1024;

#[test]
fn the_top_level_has_the_agreed_entries() {
    let found: BTreeSet<&str> = files()
        .iter()
        .filter_map(|file| file.split('/').next())
        .filter(|name| !name.starts_with('.'))
        .collect();
    let mut wrong = Vec::new();
    for name in found.iter().filter(|name| !TOP.contains(name)) {
        wrong.push(format!(
            "`{name}` is new at the top: find it a place inside"
        ));
    }
    for name in TOP.iter().filter(|name| !found.contains(*name)) {
        wrong.push(format!("`{name}` is missing"));
    }
    verdict("the top level", &wrong);
}

#[test]
fn no_blob_outside_testdata() {
    let mut wrong = Vec::new();
    for file in files()
        .iter()
        .filter(|file| !is_testdata(file) && *file != "Cargo.lock")
    {
        let size = fs::metadata(root().join(file)).map_or(0, |metadata| metadata.len());
        if size > BLOB_BYTES_MAX {
            wrong.push(format!(
                "{file}: {size} bytes: make it when it is needed, or put it into testdata/"
            ));
        }
    }
    verdict("large files", &wrong);
}

#[test]
fn scripts_can_be_run_and_stop_at_errors() {
    let mut wrong = Vec::new();
    for file in files().iter().filter(|file| !is_testdata(file)) {
        let Some(text) = text(file) else { continue };
        let is_script = text.starts_with("#!/");
        if extension(file) == "sh" && !is_script {
            wrong.push(format!("{file}: begin with `#!/usr/bin/env bash`"));
        }
        let mode = fs::metadata(root().join(file)).map_or(0, |found| found.permissions().mode());
        if is_script && mode & 0o111 != 0o111 {
            wrong.push(format!("{file}: chmod +x"));
        }
        let is_bash = text
            .lines()
            .next()
            .is_some_and(|line| line.contains("bash"));
        let is_careful = text.contains("set -euo pipefail") || text.lines().count() < 5;
        if is_script && is_bash && !is_careful {
            wrong.push(format!("{file}: add `set -euo pipefail`"));
        }
    }
    verdict("scripts", &wrong);
}
