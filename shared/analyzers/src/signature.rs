//! Software that no package manager installed: copied, built or downloaded programs and libraries,
//! told by what they say of themselves in their content (module `table`).
//!
//! It is a guess, and says so. What of it an operating system's package owns is left out by
//! `coalesce`, which knows the lists of files.

mod table;

use std::{borrow::Cow, io::Read as _, sync::OnceLock};

use archive::{Entry, Limits};
use model::{AnalyzerId, Confidence, FoundPackage, PackageType};
use regex::bytes::{Captures, Regex};

use self::table::{SIGNATURES, Signature};
use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id, executable};

/// The largest programs of this table have 200 MB.
const BYTES_MAX: u64 = 512 << 20;

/// Bytes that are searched at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// What two windows share: no match is longer.
const OVERLAP_BYTES: usize = 4 << 10;

/// A version is shorter.
const VERSION_BYTES_MAX: usize = 40;

/// Looks for software by its content.
pub(crate) struct Software {
    id: AnalyzerId,
    /// Pieces of the paths of candidates.
    pieces: Vec<String>,
    /// The table's expressions, made when they are first needed.
    expressions: Vec<OnceLock<Option<Regex>>>,
}

/// A signature that may be that of a file, and the version that the file's name says it is of.
struct Candidate<'a> {
    signature: &'a Signature,
    expression: &'a Regex,
    branch: Option<&'a str>,
}

// === impl Software ===

impl Software {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self {
            id: analyzer_id("software", 1, config, limits),
            pieces: SIGNATURES
                .iter()
                .flat_map(|signature| signature.files)
                .map(|pattern| piece(pattern))
                .collect(),
            expressions: SIGNATURES.iter().map(|_| OnceLock::new()).collect(),
        })
    }

    /// The signatures of files with this path.
    fn candidates<'a>(&'a self, path: &'a str) -> Vec<Candidate<'a>> {
        let all = SIGNATURES.iter().zip(&self.expressions);
        let of_path = all.filter(|(signature, _)| signature.is_named(path));
        let made = of_path.filter_map(|(signature, expression)| {
            let expression = expression.get_or_init(|| Regex::new(signature.version).ok());
            let branch = signature.by_name.then(|| branch(path).unwrap_or_default());
            Some(Candidate {
                signature,
                expression: expression.as_ref()?,
                branch,
            })
        });
        made.collect()
    }
}

impl Analyzer for Software {
    fn id(&self) -> &AnalyzerId {
        &self.id
    }

    fn pieces(&self) -> Vec<&str> {
        self.pieces.iter().map(String::as_str).collect()
    }

    fn wants(&self, entry: &Entry<'_>, head: &[u8]) -> Wanted {
        // Most files are neither a program nor one of the few texts.
        let is_text = !executable::is_program(head);
        let is_one = SIGNATURES
            .iter()
            .any(|signature| signature.is_text == is_text && signature.is_named(entry.path));
        if is_one { Wanted::Alone } else { Wanted::No }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            if file.entry.size > BYTES_MAX {
                return Err(Malformed::TooLarge(file.entry.size, BYTES_MAX));
            }
            let mut candidates = self.candidates(file.path());
            search(file, |window| {
                candidates.retain(|candidate| match candidate.version(window) {
                    Some(version) => {
                        found.add_package(FoundPackage {
                            confidence: Confidence::Low,
                            ..FoundPackage::new(
                                PackageType::Generic,
                                candidate.signature.name,
                                version,
                                file.path(),
                            )
                        });
                        false
                    }
                    None => true,
                });
                !candidates.is_empty()
            })?;
        }
        Ok(())
    }
}

/// Shows a file piece by piece, as long as `look` wants more.
fn search(file: &File, mut look: impl FnMut(&[u8]) -> bool) -> Result<(), Malformed> {
    let mut reader = file.reader();
    let mut window = Vec::new();
    loop {
        let kept = window.len().min(OVERLAP_BYTES);
        window.drain(..window.len().saturating_sub(kept));
        let mut more = reader.by_ref().take(WINDOW_BYTES as u64);
        let length = more.read_to_end(&mut window);
        let length = length.map_err(Malformed::Spilled)?;
        if length == 0 || !look(&window) {
            return Ok(());
        }
    }
}

// === impl Candidate ===

impl Candidate<'_> {
    fn version(&self, window: &[u8]) -> Option<String> {
        let mut matches = self.expression.captures_iter(window);
        matches.find_map(|captures| {
            let version = group(&captures)?;
            let fits = self.branch.is_none_or(|branch| {
                let rest = version.strip_prefix(branch);
                !branch.is_empty() && rest.is_some_and(|rest| rest.starts_with('.'))
            });
            (fits && version.len() <= VERSION_BYTES_MAX).then(|| version.into_owned())
        })
    }
}

/// The first group that is part of a match: of several ways to write a version each has its own.
fn group<'a>(captures: &Captures<'a>) -> Option<Cow<'a, str>> {
    let mut groups = captures.iter().skip(1).flatten();
    groups
        .next()
        .map(|group| String::from_utf8_lossy(group.as_bytes()))
}

/// `3.11` of `libpython3.11.so.1.0`.
fn branch(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    let rest = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let is_other = |c: char| !c.is_ascii_digit() && c != '.';
    let branch = rest.split(is_other).next()?.trim_end_matches('.');
    branch.contains('.').then_some(branch)
}

/// What every path has that such a pattern is of.
fn piece(pattern: &str) -> String {
    match pattern.split_once('*') {
        Some((start, _)) => format!("/{start}"),
        None => format!("/{pattern}/"),
    }
}

#[cfg(test)]
mod tests;
