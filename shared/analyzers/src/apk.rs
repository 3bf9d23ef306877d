//! Alpine packages: apk's `installed` (Alpine wiki, "Apk spec"), one letter and a value per line.

use std::collections::{BTreeSet, HashMap};

use archive::{Entry, Limits};
use model::{AnalyzerId, FoundPackage, Owned, PackageType, hex};

use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id};

/// A large installation has 5 MB.
const BYTES_MAX: u64 = 64 << 20;

/// The largest packages have 60,000 files, of three lines each.
const LINES_MAX: usize = 500_000;

/// All of Alpine's packages together provide 200,000.
const PROVIDERS_MAX: usize = 500_000;

/// The largest metapackages need some hundred.
const DEPENDS_MAX: usize = 10_000;

/// Where apk looks; the second place is that of version 3 and merged `/usr`.
pub(crate) const PLACES: &[&str] = &["lib/apk/db/installed", "usr/lib/apk/db/installed"];

/// Reads apk's records.
pub(crate) struct Apk(AnalyzerId);

/// Whether a file at this path is read as a list of packages.
pub(crate) fn is_database(path: &str) -> bool {
    PLACES.contains(&path) || path.ends_with("/lib/apk/db/installed")
}

// === impl Apk ===

impl Apk {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id("apk", 2, config, limits)))
    }
}

impl Analyzer for Apk {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn pieces(&self) -> Vec<&str> {
        vec!["/lib/apk/db/installed/"]
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        if is_database(entry.path) {
            Wanted::Alone
        } else {
            Wanted::No
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            let text = file.text(BYTES_MAX)?;
            let providers = providers(&text);
            if providers.len() >= PROVIDERS_MAX {
                let detail = format!("{PROVIDERS_MAX} names or more are provided");
                found.malformed(file.path(), detail);
            }
            for (at, lines) in records(&text).enumerate() {
                let record = Record {
                    lines,
                    path: file.path(),
                    providers: &providers,
                };
                record.read(at.saturating_add(1), found);
            }
        }
        Ok(())
    }
}

/// One package's lines.
struct Record<'a> {
    lines: Vec<&'a str>,
    path: &'a str,
    /// Which package provides `so:libc.musl-x86_64.so.1`, `cmd:sh` and the like.
    providers: &'a HashMap<&'a str, &'a str>,
}

// === impl Record ===

impl Record<'_> {
    fn read(&self, number: usize, found: &mut Found) {
        let stray = self.lines.iter().find(|line| {
            line.split_once(':')
                .is_none_or(|(letter, _)| letter.chars().count() != 1)
        });
        if let Some(line) = stray {
            let line: String = line.chars().take(80).collect();
            found.malformed(
                self.path,
                format!("record {number} has the stray line `{line}`"),
            );
        }
        let (Some(name), Some(version)) = (get(&self.lines, "P"), get(&self.lines, "V")) else {
            let detail = format!("record {number} has no package name or no version");
            return found.malformed(self.path, detail);
        };
        if self.lines.len() >= LINES_MAX {
            found.malformed(
                self.path,
                format!("record {number} has more than {LINES_MAX} lines"),
            );
        }
        let source = get(&self.lines, "o").unwrap_or(name);
        let license = get(&self.lines, "L");
        found.add_package(FoundPackage {
            arch: get(&self.lines, "A").map(ToOwned::to_owned),
            source_name: Some(source.to_owned()),
            source_version: Some(version.to_owned()),
            licenses: license.map(ToOwned::to_owned).into_iter().collect(),
            depends_on: self.dependencies(name),
            ..FoundPackage::new(PackageType::Apk, name, version, self.path)
        });
        // Another system's files, as in a directory to change the root to, are no files of this one.
        if PLACES.contains(&self.path) {
            self.read_owned(name, found);
        }
    }

    /// Names of packages that provide what is needed; what nobody provides is left out.
    fn dependencies(&self, name: &str) -> Vec<String> {
        let needs = get(&self.lines, "D").unwrap_or_default();
        let needed = needs
            .split_whitespace()
            .filter_map(|need| self.providers.get(bare(need)).copied())
            .filter(|provider| *provider != name);
        let mut names = BTreeSet::new();
        for needed in needed {
            if names.len() >= DEPENDS_MAX {
                break;
            }
            names.insert(needed);
        }
        names.into_iter().map(ToOwned::to_owned).collect()
    }

    /// `F` opens a directory, `R` names a file in it, `Z` gives the file's digest.
    fn read_owned(&self, package: &str, found: &mut Found) {
        let mut directory = "";
        let mut file: Option<Owned> = None;
        for (letter, value) in self.lines.iter().filter_map(|line| line.split_once(':')) {
            match letter {
                "F" => directory = value.trim_matches('/'),
                "R" if !value.is_empty() => {
                    let path = if directory.is_empty() {
                        value.to_owned()
                    } else {
                        format!("{directory}/{value}")
                    };
                    let next = Owned {
                        package: package.to_owned(),
                        arch: None,
                        path,
                        digest: None,
                    };
                    file.replace(next)
                        .into_iter()
                        .for_each(|file| found.add_owned(file));
                }
                "Z" => {
                    if let Some(file) = &mut file {
                        file.digest = checksum(value);
                    }
                }
                _ => {}
            }
        }
        if let Some(file) = file {
            found.add_owned(file);
        }
    }
}

fn records(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let mut lines = text.lines().peekable();
    std::iter::from_fn(move || {
        while lines.next_if(|line| line.trim().is_empty()).is_some() {}
        lines.peek()?;
        let mut record = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.trim().is_empty()) {
            if record.len() < LINES_MAX {
                record.push(line);
            }
        }
        Some(record)
    })
}

fn get<'a>(lines: &[&'a str], letter: &str) -> Option<&'a str> {
    let fields = lines.iter().filter_map(|line| line.split_once(':'));
    let value = fields
        .into_iter()
        .find(|(name, _)| *name == letter)?
        .1
        .trim();
    (!value.is_empty()).then_some(value)
}

/// Each package by its own name and by all that it provides.
fn providers(text: &str) -> HashMap<&str, &str> {
    let mut providers = HashMap::new();
    for record in records(text) {
        let Some(name) = get(&record, "P") else {
            continue;
        };
        if providers.len() >= PROVIDERS_MAX {
            break;
        }
        providers.insert(name, name);
        for provided in get(&record, "p").unwrap_or_default().split_whitespace() {
            if providers.len() >= PROVIDERS_MAX {
                break;
            }
            providers.entry(bare(provided)).or_insert(name);
        }
    }
    providers
}

/// A dependency without the version it asks for.
fn bare(need: &str) -> &str {
    need.split(['=', '<', '>', '~']).next().unwrap_or_default()
}

/// `Q1` and base64 is a sha1, `Q2` a sha256.
fn checksum(value: &str) -> Option<String> {
    let (algorithm, length, text) = match value.split_at_checked(2)? {
        ("Q1", text) => ("sha1", 20, text),
        ("Q2", text) => ("sha256", 32, text),
        _ => return None,
    };
    let bytes = base64(text)?;
    (bytes.len() == length).then(|| format!("{algorithm}:{}", hex(&bytes)))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0_u32);
    for character in text.trim_end_matches('=').bytes() {
        let value = match character {
            b'A'..=b'Z' => character.checked_sub(b'A')?,
            b'a'..=b'z' => character.checked_sub(b'a')?.checked_add(26)?,
            b'0'..=b'9' => character.checked_sub(b'0')?.checked_add(52)?,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        // At most 6 + 8 bits are ever kept.
        bits = ((bits & 0xff) << 6) | u32::from(value);
        count = count.checked_add(6)?;
        if count >= 8 {
            count = count.checked_sub(8)?;
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_provided_is_bounded() {
        let many: Vec<_> = (0..2 * PROVIDERS_MAX).map(|at| at.to_string()).collect();
        let text = format!("P:a\nV:1\np:{}\n\nP:b\nV:1\n", many.join(" "));
        assert_eq!(providers(&text).len(), PROVIDERS_MAX);
    }

    #[test]
    fn checksums_become_hex() {
        let sha1 = checksum("Q12jmj7l5rSw0yVb/vlWAYkK/YBwk=");
        assert_eq!(
            sha1.as_deref(),
            Some("sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709")
        );
        assert_eq!(checksum("Q1!!"), None);
        assert_eq!(checksum("ä"), None);
    }
}
