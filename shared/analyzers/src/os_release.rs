//! The operating system, from os-release (freedesktop.org, "os-release") and what came before it.

use archive::{Entry, Limits};
use model::{AnalyzerId, FoundOs};

use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id};

/// A real one has some hundred bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// Reads os-release files.
pub(crate) struct OsRelease(AnalyzerId);

/// Where the operating system is looked for, best first.
pub(crate) const PLACES: &[&str] = &[
    "etc/os-release",
    "usr/lib/os-release",
    "etc/alpine-release",
    "etc/debian_version",
];

// === impl OsRelease ===

impl OsRelease {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id("os-release", 2, config, limits)))
    }
}

impl Analyzer for OsRelease {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        // The usual places are often links, as to `usr/lib/os.release.d/os-release-NAME`.
        let is_named = entry.name().starts_with("os-release")
            && ["etc/", "usr/lib/"]
                .iter()
                .any(|at| entry.path.starts_with(at));
        if is_named || PLACES.contains(&entry.path) {
            Wanted::Alone
        } else {
            Wanted::No
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            let text = file.text(BYTES_MAX)?;
            let os = match file.path() {
                "etc/alpine-release" => release("alpine", text.trim()),
                // Testing and unstable say `trixie/sid`: a name, and no version.
                "etc/debian_version" => match text.trim().split('.').next() {
                    Some(major) if major.parse::<u32>().is_ok() => release("debian", major),
                    _ => release("debian", ""),
                },
                _ => parse(&text)?,
            };
            found.add_os(FoundOs {
                path: file.path().to_owned(),
                ..os
            });
        }
        Ok(())
    }
}

fn release(id: &str, version_id: &str) -> FoundOs {
    FoundOs {
        path: String::new(),
        id: id.to_owned(),
        version_id: version_id.to_owned(),
        codename: None,
        pretty_name: None,
        id_like: Vec::new(),
    }
}

fn parse(text: &str) -> Result<FoundOs, Malformed> {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
        let last = lines.rfind(|(name, _)| *name == key)?;
        Some(unquote(last.1)).filter(|value| !value.is_empty())
    };
    let id = value("ID").ok_or_else(|| Malformed::Format("there is no `ID` line".to_owned()))?;
    Ok(FoundOs {
        codename: value("VERSION_CODENAME"),
        pretty_name: value("PRETTY_NAME"),
        id_like: value("ID_LIKE")
            .map(|ids| ids.split_whitespace().map(ToOwned::to_owned).collect())
            .unwrap_or_default(),
        ..release(
            &id.to_ascii_lowercase(),
            &value("VERSION_ID").unwrap_or_default(),
        )
    })
}

/// A value without its quotes and escapes, as a shell would read it.
fn unquote(value: &str) -> String {
    let value = value.trim();
    let inner = |quote: char| {
        value
            .strip_prefix(quote)
            .and_then(|v| v.strip_suffix(quote))
    };
    if let Some(literal) = inner('\'') {
        return literal.to_owned();
    }
    let value = inner('"').unwrap_or(value);
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            _ => text.push(character),
        }
    }
    text
}
