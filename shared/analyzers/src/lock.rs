//! Lock files: what will be installed where a directory is built. In an image they prove nothing,
//! for what is installed there has records of its own; so these analyzers run for directories only.
//!
//! Each format is one file: how its files are called, and a function that reads them. A package that
//! a file names several times is one; it is for development only where all of them are. What a file
//! asks for without saying which version will be there is a gap, and no guess.

pub(crate) mod bun;
pub(crate) mod cargo;
pub(crate) mod composer;
pub(crate) mod conan;
pub(crate) mod gem;
pub(crate) mod golang;
pub(crate) mod gradle;
mod graph;
pub(crate) mod maven;
pub(crate) mod mix;
pub(crate) mod npm;
pub(crate) mod nuget;
pub(crate) mod pdm;
pub(crate) mod pipfile;
pub(crate) mod pnpm;
pub(crate) mod podfile;
pub(crate) mod poetry;
pub(crate) mod pubspec;
pub(crate) mod pylock;
pub(crate) mod requirements;
pub(crate) mod swift;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod uv;
pub(crate) mod yarn;

use std::{cell::Cell, collections::BTreeMap};

use archive::{Entry, Limits};
use model::{AnalyzerId, FoundPackage, Gap, GapCode, Hides, PackageType};
use serde::de::DeserializeOwned;

use crate::{Analyzer, Config, File, Found, LOCKS, Malformed, Wanted, analyzer_id, malformed};

/// The largest repositories' have 5 MB. What is parsed takes several times as much memory.
pub(crate) const BYTES_MAX: u64 = 16 << 20;

/// Names in one gap.
const NAMED_MAX: usize = 5;

/// Characters of a name in a gap.
const NAME_CHARS_MAX: usize = 100;

/// Directories with what others wrote: their lock files say what these others build with.
const OTHERS: &[&str] = &[
    ".git",
    ".venv",
    "bower_components",
    "dist-packages",
    "node_modules",
    "Pods",
    "site-packages",
    "vendor",
];

/// A kind of lock file.
pub(crate) struct Format {
    /// The analyzer's name.
    pub(crate) name: &'static str,
    /// The version of its output.
    pub(crate) version: u32,
    /// Whether a file of this name is one.
    pub(crate) is_named: fn(&str) -> bool,
    /// Which other files it takes to understand one.
    pub(crate) with: With,
    /// Reads them.
    pub(crate) read: fn(&[File], &mut Found) -> Result<(), Malformed>,
}

/// Files that are read together.
#[derive(Clone, Copy)]
pub(crate) enum With {
    /// Each by itself.
    Nothing,
    /// All of one directory.
    Directory,
    /// All there are.
    All,
}

/// The analyzer of a format.
struct LockFile {
    id: AnalyzerId,
    format: &'static Format,
}

/// Bytes of names that may be compared to find what packages need: more than any real file takes, and
/// a second's work.
const LOOKED_AT_BYTES_MAX: u64 = 1 << 30;

/// What looking for what packages need may still cost.
pub(crate) struct Room(Cell<u64>);

/// What one file names.
pub(crate) struct Lock {
    kind: PackageType,
    path: String,
    packages: BTreeMap<(String, String), FoundPackage>,
    /// Names of packages without a version.
    unresolved: Vec<String>,
    unresolved_count: usize,
    /// Whether it is not known of all packages what they need.
    is_cut: bool,
}

// === impl Format, LockFile ===

impl Format {
    pub(crate) fn boxed(&'static self, config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(LockFile {
            id: analyzer_id(self.name, self.version, config, limits),
            format: self,
        })
    }
}

impl Analyzer for LockFile {
    fn id(&self) -> &AnalyzerId {
        &self.id
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        let (directory, name) = split(entry.path);
        if !(self.format.is_named)(name) || directory.split('/').any(|part| OTHERS.contains(&part))
        {
            return Wanted::No;
        }
        match self.format.with {
            With::Nothing => Wanted::Alone,
            With::Directory => Wanted::Together(directory.to_owned()),
            With::All => Wanted::Together(String::new()),
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        (self.format.read)(files, found)
    }
}

/// Whether a package with this file as its proof is one that a lock file names.
pub(crate) fn is_lock_file(path: &str) -> bool {
    let (_, name) = split(path);
    LOCKS.iter().any(|format| (format.is_named)(name))
}

/// Directory and name of a path.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The path of another file as one file names it.
pub(crate) fn beside(path: &str, other: &str) -> String {
    let mut parts: Vec<&str> = split(path)
        .0
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    for part in other.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Reads each file by itself into a [`Lock`]; one that lies is a gap, and the others are read.
pub(crate) fn each(
    files: &[File],
    kind: PackageType,
    found: &mut Found,
    read: impl Fn(&File, &mut Lock) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for file in files {
        let mut lock = Lock::new(kind, file.path());
        let outcome = read(file, &mut lock);
        lock.finish(found);
        outcome?;
    }
    Ok(())
}

// === impl Room ===

impl Default for Room {
    fn default() -> Self {
        Self(Cell::new(LOOKED_AT_BYTES_MAX))
    }
}

impl Room {
    /// Whether so many bytes may be looked at.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let left = self.0.get().checked_sub(bytes as u64);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }

    /// Says so where it did not suffice: no package is missing, but who asked for which.
    pub(crate) fn note(&self, lock: &mut Lock) {
        lock.is_cut |= self.0.get() == 0;
    }
}

// === impl Lock ===

impl Lock {
    pub(crate) fn new(kind: PackageType, path: &str) -> Self {
        Self {
            kind,
            path: path.to_owned(),
            packages: BTreeMap::new(),
            unresolved: Vec::new(),
            unresolved_count: 0,
            is_cut: false,
        }
    }

    /// A package of this file's kind, of which nothing else is known.
    pub(crate) fn package(&self, name: &str, version: &str) -> FoundPackage {
        FoundPackage::new(self.kind, name, version, &self.path)
    }

    /// Adds a package; without a version it is a dependency that is not resolved.
    pub(crate) fn add(&mut self, package: FoundPackage) {
        if package.name.is_empty() {
            return;
        }
        if package.version.is_empty() {
            self.unresolved(&package.name);
            return;
        }
        let key = (package.name.clone(), package.version.clone());
        let Some(known) = self.packages.get_mut(&key) else {
            self.packages.insert(key, package);
            return;
        };
        known.direct = match (known.direct, package.direct) {
            (Some(one), Some(other)) => Some(one || other),
            (one, other) => one.or(other),
        };
        known.dev = match (known.dev, package.dev) {
            (Some(one), Some(other)) => Some(one && other),
            _ => None,
        };
        known.digests.extend(package.digests);
        known.depends_on.extend(package.depends_on);
        known.licenses.extend(package.licenses);
    }

    /// Notes a package of which the file does not say which version will be there.
    pub(crate) fn unresolved(&mut self, name: &str) {
        self.unresolved_count = self.unresolved_count.saturating_add(1);
        if self.unresolved.len() < NAMED_MAX {
            let name = name.chars().take(NAME_CHARS_MAX).collect();
            self.unresolved.push(name);
        }
    }

    /// Hands over what the file names.
    pub(crate) fn finish(self, found: &mut Found) {
        for mut package in self.packages.into_values() {
            let lists = [
                &mut package.digests,
                &mut package.depends_on,
                &mut package.licenses,
            ];
            for list in lists {
                list.sort();
                list.dedup();
            }
            found.add_package(package);
        }
        if self.is_cut {
            let detail = "what needs what would take too long to find out";
            let gap = Gap::new(GapCode::LimitResults, Hides::Nothing, detail);
            found.add_gap(gap.at(&self.path));
        }
        if self.unresolved_count == 0 {
            return;
        }
        let more = self.unresolved_count.saturating_sub(self.unresolved.len());
        let names: Vec<String> = self
            .unresolved
            .iter()
            .map(|name| format!("`{name}`"))
            .collect();
        let mut names = names.join(", ");
        if more > 0 {
            names = format!("{names} and {more} more");
        }
        let detail = format!("it does not say which version will be there of {names}");
        let gap = Gap::new(GapCode::UnresolvedDependency, Hides::Packages, detail);
        found.add_gap(gap.at(self.path));
    }
}

/// How `depends_on` names a package of the same file.
pub(crate) fn exactly(name: &str, version: &str) -> String {
    format!("{name}@{version}")
}

/// Reads a file as JSON.
pub(crate) fn json<T: DeserializeOwned>(file: &File) -> Result<T, Malformed> {
    let bytes = file.bytes(BYTES_MAX)?;
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    serde_json::from_slice(json).map_err(|error| malformed(format!("it is no lock file: {error}")))
}

/// Reads a file as TOML.
pub(crate) fn toml<T: DeserializeOwned>(file: &File) -> Result<T, Malformed> {
    let text = file.text(BYTES_MAX)?;
    toml::from_str(&text)
        .map_err(|error| malformed(format!("it is no lock file: {}", error.message())))
}

/// Reads a text as YAML: no lock file has more nodes or anchors than these.
pub(crate) fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, Malformed> {
    const NODES_MAX: usize = 4_000_000;
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: NODES_MAX,
            max_nodes: NODES_MAX,
            max_aliases: 1000,
            max_anchors: 1000,
            max_depth: 64,
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet().to_string();
        let error: String = error.chars().take(300).collect();
        malformed(format!("it is no lock file: {error}"))
    })
}

/// A digest as npm and `NuGet` write it, `sha512-BASE64`, in the words of this project.
pub(crate) fn integrity(text: &str) -> Option<String> {
    let (algorithm, content) = text.split_whitespace().next()?.split_once('-')?;
    let is_known = matches!(algorithm, "sha1" | "sha256" | "sha384" | "sha512");
    let bytes = base64(content).filter(|_| is_known)?;
    Some(format!("{algorithm}:{}", model::hex(&bytes)))
}

/// The bytes of a short base64 text; `None` where it is none.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    /// No digest is longer.
    const CHARS_MAX: usize = 128;
    let text = text.trim_end_matches('=');
    if text.len() > CHARS_MAX {
        return None;
    }
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0_u32);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte.wrapping_sub(b'A'),
            b'a'..=b'z' => byte.wrapping_sub(b'a').wrapping_add(26),
            b'0'..=b'9' => byte.wrapping_sub(b'0').wrapping_add(52),
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = held << 6 & 0xffff | u32::from(value);
        bits = bits.saturating_add(6);
        if bits >= 8 {
            bits = bits.saturating_sub(8);
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
    }
    Some(bytes)
}
