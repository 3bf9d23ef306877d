//! Debian packages: dpkg's `status`, the `status.d` of distroless images, the files' owners, and which
//! files stand elsewhere.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashSet},
};

use archive::{Entry, Limits};
use model::{AnalyzerId, Diversion, FoundPackage, Gap, GapCode, Hides, Owned, PackageType};

use crate::{
    Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id,
    stanza::{Stanza, paragraphs},
};

/// A desktop's `status` has 6 MB.
const BYTES_MAX: u64 = 64 << 20;

/// The largest packages have 60,000 files.
const FILES_MAX: usize = 500_000;

/// The largest metapackages have some hundred.
const DEPENDS_MAX: usize = 10_000;

/// A system has a few dozen diversions.
const DIVERSIONS_MAX: usize = 10_000;

/// Where dpkg keeps everything.
const HOME: &str = "var/lib/dpkg";

/// Its list of packages.
const STATUS: &str = "var/lib/dpkg/status";
/// Where it keeps which files stand elsewhere.
pub(crate) const DIVERSIONS: &str = "var/lib/dpkg/diversions";

/// Reads dpkg's records.
pub(crate) struct Dpkg(AnalyzerId);

/// What a file among dpkg's records is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind<'a> {
    /// Paragraphs of packages.
    Status,
    /// A list of files, of this package.
    Owned(&'a str),
    /// Files that stand elsewhere.
    Diversions,
}

/// Whether a file at this path is read as a list of packages.
pub(crate) fn is_database(path: &str) -> bool {
    kind(path) == Some(Kind::Status)
}

/// The place where dpkg would have to see this file for the packages in it to be installed.
pub(crate) fn place(path: &str) -> Cow<'static, str> {
    if path == STATUS {
        return STATUS.into();
    }
    match path.rsplit_once("/status.d/") {
        Some((_, name)) => format!("{HOME}/status.d/{name}").into(),
        None => STATUS.into(),
    }
}

// === impl Dpkg ===

impl Dpkg {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id("dpkg", 3, config, limits)))
    }
}

impl Analyzer for Dpkg {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn pieces(&self) -> Vec<&str> {
        vec!["/lib/dpkg/"]
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        match kind(entry.path) {
            Some(Kind::Status | Kind::Diversions) => Wanted::Alone,
            Some(Kind::Owned(package)) => Wanted::Together(package.to_owned()),
            None => Wanted::No,
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        let mut files_of = BTreeMap::new();
        let mut owner = None;
        for file in files {
            let text = file.text(BYTES_MAX)?;
            match kind(file.path()) {
                Some(Kind::Owned(package)) => {
                    owner = Some(package);
                    if !read_owned(file.path(), &text, &mut files_of) {
                        found.malformed(
                            file.path(),
                            format!("there are more than {FILES_MAX} files"),
                        );
                    }
                }
                Some(Kind::Diversions) => read_diversions(&text, found),
                _ => read_status(PackageType::Deb, file.path(), &text, found),
            }
        }
        // Another system's files, as in a directory to change the root to, are no files of this one.
        let is_ours = files.iter().all(|file| file.path().starts_with(HOME));
        let Some(owner) = owner.filter(|_| is_ours) else {
            return Ok(());
        };
        let (package, arch) = owner
            .split_once(':')
            .map_or((owner, None), |(p, a)| (p, Some(a)));
        // A list names directories too: whatever is the parent of something.
        let parents: HashSet<&str> = files_of
            .keys()
            .filter_map(|path| path.rsplit_once('/'))
            .map(|(parent, _)| parent)
            .collect();
        let files = files_of
            .iter()
            .filter(|(path, _)| !parents.contains(path.as_str()));
        for (path, digest) in files {
            found.add_owned(Owned {
                package: package.to_owned(),
                arch: arch.map(ToOwned::to_owned),
                path: path.clone(),
                digest: digest.clone(),
            });
        }
        Ok(())
    }
}

fn kind(path: &str) -> Option<Kind<'_>> {
    if path == DIVERSIONS {
        return Some(Kind::Diversions);
    }
    let (directory, name) = path.rsplit_once('/')?;
    let is_home = |at: &str| at == HOME || at.ends_with("/lib/dpkg");
    if name == "status" && is_home(directory) {
        return Some(Kind::Status);
    }
    let (home, below) = directory.rsplit_once('/')?;
    match below {
        "status.d" if is_home(home) => Some(
            name.strip_suffix(".md5sums")
                .map_or(Kind::Status, Kind::Owned),
        ),
        "info" if home == HOME => {
            let owner = name
                .strip_suffix(".list")
                .or_else(|| name.strip_suffix(".md5sums"));
            owner.map(Kind::Owned)
        }
        _ => None,
    }
}

/// Reads paragraphs of installed packages of a kind.
pub(crate) fn read_status(kind: PackageType, path: &str, text: &str, found: &mut Found) {
    for (at, stanza) in paragraphs(text).enumerate() {
        if !is_installed(&stanza) {
            continue;
        }
        let number = at.saturating_add(1);
        if let Some(line) = stanza.stray {
            let line: String = line.chars().take(80).collect();
            found.malformed(
                path,
                format!("paragraph {number} has the stray line `{line}`"),
            );
        }
        let (Some(name), Some(version)) = (stanza.get("Package"), stanza.get("Version")) else {
            found.malformed(
                path,
                format!("paragraph {number} has no package name or no version"),
            );
            continue;
        };
        let package = FoundPackage {
            kind,
            ..package(path, name, version, &stanza)
        };
        if package.depends_on.len() >= DEPENDS_MAX {
            let detail = format!("paragraph {number} has {DEPENDS_MAX} dependencies or more");
            found.malformed(path, detail);
        }
        found.add_package(package);
    }
}

/// Whether the package's files are there: it need not be configured for that. Distroless images
/// have no `Status` at all.
fn is_installed(stanza: &Stanza<'_>) -> bool {
    let state = stanza
        .get("Status")
        .map(|status| status.rsplit(' ').next().unwrap_or_default());
    !matches!(
        state,
        Some("not-installed" | "config-files" | "half-installed")
    )
}

fn package(path: &str, name: &str, version: &str, stanza: &Stanza<'_>) -> FoundPackage {
    let (source, source_version) = match stanza.get("Source").map(|source| source.split_once(' ')) {
        None => (name, version),
        Some(None) => (stanza.get("Source").unwrap_or(name), version),
        Some(Some((source, rest))) => (
            source,
            rest.trim().trim_start_matches('(').trim_end_matches(')'),
        ),
    };
    let depends = [stanza.folded("Pre-Depends"), stanza.folded("Depends")].join(",");
    FoundPackage {
        arch: stanza.get("Architecture").map(ToOwned::to_owned),
        source_name: Some(source.to_owned()),
        source_version: Some(source_version.to_owned()),
        depends_on: dependencies(&depends),
        ..FoundPackage::new(PackageType::Deb, name, version, path)
    }
}

/// The names in a `Depends` field, those of alternatives too, without versions and architectures.
fn dependencies(field: &str) -> Vec<String> {
    let names = field
        .split([',', '|'])
        .filter_map(|part| part.split_whitespace().next());
    let names = names.map(|name| name.split([':', '(']).next().unwrap_or_default());
    let mut found = BTreeSet::new();
    for name in names.filter(|name| !name.is_empty()) {
        if found.len() >= DEPENDS_MAX {
            break;
        }
        found.insert(name);
    }
    found.into_iter().map(ToOwned::to_owned).collect()
}

/// Reads a `.list` or `.md5sums`: paths without the leading slash, and the digests of the latter.
/// Says whether that was all.
fn read_owned(path: &str, text: &str, owned: &mut BTreeMap<String, Option<String>>) -> bool {
    let is_list = path
        .rsplit_once('.')
        .is_some_and(|(_, extension)| extension == "list");
    for line in text.lines() {
        if owned.len() >= FILES_MAX {
            return false;
        }
        if is_list {
            let file = line.trim_start_matches('/');
            if !matches!(file, "" | ".") {
                owned.entry(file.to_owned()).or_default();
            }
        } else if let Some((digest, file)) = line.split_once(' ') {
            let is_md5 = digest.len() == 32 && digest.bytes().all(|b| b.is_ascii_hexdigit());
            let file = file
                .trim_start()
                .trim_start_matches("./")
                .trim_start_matches('/');
            if is_md5 && !file.is_empty() {
                owned.insert(file.to_owned(), Some(format!("md5:{digest}")));
            }
        }
    }
    true
}

/// Three lines for each: the path that packages record, where their files are, and the package whose
/// own file stays, `:` where that is the administrator's (dpkg, `lib/dpkg/db-ctrl-upgrade.c`).
fn read_diversions(text: &str, found: &mut Found) {
    let mut lines = text.lines();
    let mut count = 0_usize;
    while let (Some(path), Some(to), Some(package)) = (lines.next(), lines.next(), lines.next()) {
        if count >= DIVERSIONS_MAX {
            let detail = format!("there are more than {DIVERSIONS_MAX} diversions");
            return found
                .add_gap(Gap::new(GapCode::LimitResults, Hides::Nothing, detail).at(DIVERSIONS));
        }
        count = count.saturating_add(1);
        found.add_diversion(Diversion {
            path: path.trim_start_matches('/').to_owned(),
            to: to.trim_start_matches('/').to_owned(),
            package: (package != ":").then(|| package.to_owned()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diversions_are_three_lines_each_and_bounded() {
        let one = "/bin/sh\n/bin/sh.distrib\ndash\n/usr/sbin/x\n/usr/sbin/x.real\n:\n/cut\n";
        let read = |text: &str| {
            let mut found = Found::new(1 << 24);
            read_diversions(text, &mut found);
            (found.diversions, found.gaps.len())
        };
        let diversion = |path: &str, to: &str, package: Option<&str>| Diversion {
            path: path.to_owned(),
            to: to.to_owned(),
            package: package.map(ToOwned::to_owned),
        };
        let expected = vec![
            diversion("bin/sh", "bin/sh.distrib", Some("dash")),
            diversion("usr/sbin/x", "usr/sbin/x.real", None),
        ];
        assert_eq!(read(one), (expected, 0));
        let many = |count: usize| {
            let (diversions, gaps) = read(&"/a\n/b\n:\n".repeat(count));
            (diversions.len(), gaps)
        };
        assert_eq!(many(DIVERSIONS_MAX), (DIVERSIONS_MAX, 0));
        assert_eq!(many(DIVERSIONS_MAX + 1), (DIVERSIONS_MAX, 1));
    }

    #[test]
    fn dependencies_are_bounded() {
        assert_eq!(dependencies("b (>= 1), a:any | c, b"), ["a", "b", "c"]);
        let many: Vec<_> = (0..2 * DEPENDS_MAX).map(|at| at.to_string()).collect();
        assert_eq!(dependencies(&many.join(",")).len(), DEPENDS_MAX);
    }
}
