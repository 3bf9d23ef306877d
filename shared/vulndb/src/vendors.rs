//! Feeds in which vendors say of their own packages what OSV's records of them leave out, each in a
//! format of its own: what has no fix yet, what gets none, and what was never affected.
//!
//! What a vendor says becomes the same [`ShardAdvisory`] as an OSV record, in the same ecosystem and
//! under the name of the vulnerability itself. So nothing else knows where it came from, and the rule
//! for distributions decides between the two: the record of a vulnerability outranks the bulletins
//! that contain it, and who knows of a fix speaks for the finding.
//!
//! Ubuntu needs none: its OSV records have everything, with and without a fix, ESM and Pro apart.
//!
//! To add one: a file in `vendors/` that implements [`Vendor`], and a line in [`VENDORS`].

mod amazon;
mod csaf;
mod debian;
mod oracle;
mod red_hat;
mod suse;
mod xml;

use jiff::Timestamp;
use model::{Severity, ShardKey};

use crate::shard::ShardAdvisory;

/// How many statements, each of a package, vulnerability and release, one file may make; Debian's
/// tracker makes 300,000.
const STATEMENTS_MAX: usize = 5_000_000;
const NAME_BYTES_MAX: usize = 256;
const TITLE_CHARS_MAX: usize = 300;
/// How many records that cannot be used are named.
const PROBLEMS_MAX: usize = 5;

/// A vendor's feed.
pub trait Vendor: Sync {
    /// The name of the feed.
    fn feed(&self) -> &'static str;

    /// The ecosystems that it speaks of, without their suffixes.
    fn ecosystems(&self) -> &'static [&'static str];

    /// What it can tell and what not, in one sentence.
    fn tells(&self) -> &'static str;

    /// How names of its files end; others beside them are no part of it.
    fn extension(&self) -> &'static str;

    /// Whether one import of it is always the whole feed.
    fn is_whole(&self) -> bool;

    /// Reads one of its files, and gives each statement about a package in a release.
    fn read(&self, bytes: &[u8], take: Take<'_>) -> Result<Said, MalformedVendor>;
}

/// Takes a statement.
pub type Take<'a> = &'a mut dyn FnMut(ShardKey, ShardAdvisory);

/// What one file said beside its statements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The records that it has, whether or not they say anything of a release that we know.
    pub ids: Vec<String>,
    /// The records that cannot be used.
    pub unreadable: Vec<String>,
    /// What was wrong with the first of them.
    pub problems: Vec<String>,
}

/// The bytes are no file of the feed.
#[derive(Debug, thiserror::Error)]
pub enum MalformedVendor {
    /// Not its JSON.
    #[error("it is not the JSON of {0}: {1}")]
    Json(&'static str, #[source] serde_json::Error),
    /// Not its XML.
    #[error("it is not the XML of {0}: {1}")]
    Xml(&'static str, String),
    /// It has no name that could be kept.
    #[error("it has no usable id")]
    Id,
    /// It says nothing of any release that we know.
    #[error("it says nothing of any release of {0}")]
    Empty(&'static str),
    /// More than allowed.
    #[error("it says more than allowed")]
    TooMuch,
}

/// Every vendor's feed.
pub const VENDORS: &[&dyn Vendor] = &[
    &amazon::Amazon,
    &debian::Debian,
    &oracle::Oracle,
    &red_hat::RedHat,
    &suse::Suse,
];

/// The vendor of a feed; `None` where it is another one.
pub fn vendor(feed: &str) -> Option<&'static dyn Vendor> {
    VENDORS.iter().copied().find(|one| one.feed() == feed)
}

// === impl Said ===

impl Said {
    /// Names a record that cannot be used.
    fn refuse(&mut self, id: &str, why: &str) {
        self.unreadable.push(id.to_owned());
        if self.problems.len() < PROBLEMS_MAX {
            let problem = format!("`{}`: {why}", clip(id).escape_debug());
            self.problems.push(problem);
        }
    }
}

/// The word of a vendor for how bad something is.
fn rating(word: &str) -> Option<Severity> {
    if word.eq_ignore_ascii_case("important") {
        return Some(Severity::High);
    }
    let word: Option<Severity> = word.trim().parse().ok();
    word.filter(|severity| *severity != Severity::Unknown)
}

/// Whether a text may be a part of keys and lines.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

/// Whether a package is data for debuggers, which nobody is vulnerable by.
fn is_debugging(package: &str) -> bool {
    package.ends_with("-debuginfo") || package.ends_with("-debugsource")
}

/// `epoch:version-release`, without an epoch of 0.
fn evr(epoch: &str, version: &str) -> String {
    match epoch {
        "" | "0" => version.to_owned(),
        epoch => format!("{epoch}:{version}"),
    }
}

fn clip(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars()
        .filter(|c| !c.is_control())
        .take(TITLE_CHARS_MAX)
        .collect()
}

/// A time, whole or as a day.
fn time(text: &str) -> Option<Timestamp> {
    let at: Option<Timestamp> = text.trim().parse().ok();
    at.or_else(|| {
        let day = text.trim().get(..10)?;
        format!("{day}T00:00:00Z").parse().ok()
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::shard::WindowEnd;

    /// What a file says, a line for each statement.
    pub(crate) fn said(vendor: &dyn Vendor, file: &str) -> (Vec<String>, Said) {
        let mut lines = Vec::new();
        let said = vendor.read(file.as_bytes(), &mut |key, part| {
            assert_eq!(part.feed, vendor.feed());
            lines.push(shown(&key, &part));
        });
        lines.sort();
        (lines, said.unwrap())
    }

    fn shown(key: &ShardKey, part: &ShardAdvisory) -> String {
        assert_eq!(*key, ShardKey::of(key.ecosystem.as_str(), &part.package));
        let windows = part.windows.iter().map(|window| match &window.end {
            WindowEnd::Fixed(fixed) => format!("<{fixed}"),
            WindowEnd::Open => "all".to_owned(),
            other => format!("{other:?}"),
        });
        let windows: Vec<String> = windows.collect();
        let mut line = format!(
            "{} {} {} {}",
            key.ecosystem,
            part.package,
            part.id,
            windows.join(" ")
        );
        for word in [
            part.unfixed.map(|state| format!(" {state:?}")),
            part.rating.map(|rating| format!(" {rating:?}")),
            (!part.modules.is_empty()).then(|| format!(" in {}", part.modules.join(","))),
            (!part.upstream.is_empty()).then(|| format!(" of {}", part.upstream.join(","))),
        ]
        .into_iter()
        .flatten()
        {
            line.push_str(&word);
        }
        line
    }

    #[test]
    fn every_vendor_has_a_name_of_its_own_and_speaks_of_known_ecosystems() {
        for one in VENDORS {
            let named = VENDORS.iter().filter(|other| other.feed() == one.feed());
            assert_eq!(named.count(), 1, "{}", one.feed());
            // Named as an ecosystem it would take the place of OSV's records.
            assert!(crate::family(one.feed()).is_none(), "{}", one.feed());
            for ecosystem in one.ecosystems() {
                assert!(crate::family(ecosystem).is_some(), "{ecosystem}");
            }
            assert!(vendor(one.feed()).is_some());
            let refused = |bytes: &[u8]| one.read(bytes, &mut |_, _| {}).is_err();
            assert!(refused(b"") && refused(b"[]") && refused(b"<a><b></a>"));
        }
        assert!(vendor("Debian").is_none());
    }

    #[test]
    fn words_and_days_are_those_of_vendors() {
        assert_eq!(rating("Important"), Some(Severity::High));
        assert_eq!(rating("MODERATE"), Some(Severity::Medium));
        assert_eq!(rating("unknown").or(rating("N/A")), None);
        assert_eq!(
            time("2023-02-17 20:41").unwrap().to_string(),
            "2023-02-17T00:00:00Z"
        );
        assert!(time("2025-08-13T15:14:45+00:00").is_some() && time("soon").is_none());
    }
}
