//! What single databases say in fields and words of their own, as far as it changes a result.

use model::Severity;
use serde_json::{Value, value::RawValue};

use super::{EVENTS_MAX, NAME_BYTES_MAX, Range, is_name};
use crate::shard::ShardAdvisory;

/// How many binary packages or platforms of one package are kept.
const LISTED_MAX: usize = 5_000;
/// How many ranges of Go's own are read.
const RANGES_MAX: usize = 1_000;

/// Vendors whose bulletins have the vulnerabilities that they contain in `related`; others mean
/// "similar" by it. The last letter but one says what a bulletin is about: security, bugs, more.
const BULLETINS: [&str; 9] = [
    "ALSA-", "ALBA-", "ALEA-", "RLSA-", "RLBA-", "RLEA-", "RXSA-", "RXBA-", "RXEA-",
];
const ABOUT_BUGS: [&str; 8] = [
    "ALBA-", "ALEA-", "RLBA-", "RLEA-", "RXBA-", "RXEA-", "RHBA-", "RHEA-",
];

/// `ecosystem_specific` or `database_specific` of an entry. What does not have the expected form is
/// not there.
#[derive(Debug, Default)]
pub(super) struct Specific(Value);

// === impl Specific ===

impl Specific {
    pub(super) fn of(raw: Option<&RawValue>) -> Self {
        let value = raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
        Self(value.unwrap_or_default())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// Ranges of a Go module whose versions are not `SemVer`'s; `None` where there are none.
    pub(super) fn custom_ranges(&self) -> Option<Vec<Range>> {
        let ranges = self.0.get("custom_ranges")?.as_array()?;
        let ranges = ranges.iter().take(RANGES_MAX);
        let ranges: Vec<Range> = ranges
            .filter_map(|range| serde_json::from_value(range.clone()).ok())
            .filter(|range: &Range| range.events.len() <= EVENTS_MAX && range.kind != "GIT")
            .collect();
        (!ranges.is_empty()).then_some(ranges)
    }

    /// The only operating systems that are affected: those of all Go packages that it names, or of
    /// the whole crate. Empty: all.
    fn platforms(&self) -> Vec<String> {
        let own = self.0.pointer("/affects/os").map(texts);
        if let Some(own) = own.filter(|own| !own.is_empty()) {
            return own;
        }
        let Some(imports) = self.0.get("imports").and_then(Value::as_array) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for import in imports {
            let named = import.get("goos").map(texts).unwrap_or_default();
            if named.is_empty() {
                return Vec::new();
            }
            all.extend(named);
        }
        all
    }

    /// The binary packages that Ubuntu lists: `{binary_name, binary_version}`, or in older records
    /// `{name: version}`.
    fn binaries(&self) -> Vec<String> {
        let Some(listed) = self.0.get("binaries").and_then(Value::as_array) else {
            return Vec::new();
        };
        let mut names = Vec::new();
        for entry in listed.iter().filter_map(Value::as_object) {
            match entry.get("binary_name") {
                Some(name) => names.extend(name.as_str().map(ToOwned::to_owned)),
                None => names.extend(entry.keys().cloned()),
            }
        }
        names.retain(|name| is_name(name, NAME_BYTES_MAX));
        names.truncate(LISTED_MAX);
        names
    }
}

/// Whether the CVEs in `related` are what a record is about.
pub(super) fn relates_to_its_own(id: &str, has_upstream: bool) -> bool {
    BULLETINS.iter().any(|prefix| id.starts_with(prefix))
        || (id.starts_with("USN-") && !has_upstream)
}

/// Whether a record is a bulletin about bugs or enhancements that names no vulnerability.
pub(super) fn is_about_bugs(record: &ShardAdvisory) -> bool {
    let ShardAdvisory {
        id,
        aliases,
        upstream,
        ..
    } = record;
    ABOUT_BUGS.iter().any(|prefix| id.starts_with(prefix))
        && aliases.is_empty()
        && upstream.is_empty()
}

/// Whether a record is a bulletin of a distribution of the Red Hat family.
fn is_red_hat(id: &str) -> bool {
    id.starts_with("RHSA-") || BULLETINS.iter().any(|prefix| id.starts_with(prefix))
}

/// The rating that distributions of the Red Hat family put before the colon: `Important: …`.
pub(super) fn rating_of_summary(id: &str, summary: &str) -> Option<Severity> {
    let (word, _) = summary.split_once(':').filter(|_| is_red_hat(id))?;
    Some(match word {
        "Critical" => Severity::Critical,
        "Important" => Severity::High,
        "Moderate" => Severity::Medium,
        "Low" => Severity::Low,
        _ => return None,
    })
}

/// The module streams that a summary names: `Moderate: virt:rhel and virt-devel:rhel security
/// update`. No other field has them.
pub(super) fn modules_of_summary(id: &str, summary: &str) -> Vec<String> {
    if !is_red_hat(id) {
        return Vec::new();
    }
    let fits = |part: &str| {
        let is_part = |b: u8| b.is_ascii_alphanumeric() || b"-_.+".contains(&b);
        !part.is_empty() && part.bytes().all(is_part)
    };
    let words = summary.split([' ', ',']).filter_map(|word| {
        let (name, stream) = word.split_once(':')?;
        (fits(name) && fits(stream)).then(|| word.to_owned())
    });
    words.collect()
}

/// Takes over what limits a record to some of the installations of a package. Several entries for
/// one package are united: the one without a limit lifts it.
pub(super) fn narrow(
    part: &mut ShardAdvisory,
    specific: &Specific,
    database: &Specific,
    is_first: bool,
) {
    unite(&mut part.platforms, specific.platforms(), is_first);
    unite(&mut part.binaries, specific.binaries(), is_first);
    let notice = database
        .text("informational")
        .filter(|word| is_name(word, NAME_BYTES_MAX));
    if is_first {
        part.notice = notice.map(ToOwned::to_owned);
    } else if notice.is_none() {
        part.notice = None;
    }
}

fn unite(known: &mut Vec<String>, more: Vec<String>, is_first: bool) {
    if is_first {
        *known = more;
    } else if known.is_empty() || more.is_empty() {
        known.clear();
    } else {
        known.extend(more);
    }
    known.sort();
    known.dedup();
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten();
    let texts = texts.filter_map(Value::as_str).take(LISTED_MAX);
    texts
        .filter(|text| is_name(text, NAME_BYTES_MAX))
        .map(ToOwned::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_name_ratings_and_module_streams() {
        let check = |summary: &str, rating: Option<Severity>, modules: &[&str]| {
            assert_eq!(rating_of_summary("ALSA-1", summary), rating, "{summary}");
            assert_eq!(modules_of_summary("ALSA-1", summary), modules, "{summary}");
        };
        check(
            "Moderate: container-tools:4.0 security update",
            Some(Severity::Medium),
            &["container-tools:4.0"],
        );
        check(
            "Important: virt:rhel and virt-devel:rhel security update",
            Some(Severity::High),
            &["virt:rhel", "virt-devel:rhel"],
        );
        check(
            "Important: httpd security update",
            Some(Severity::High),
            &[],
        );
        check(
            "Red Hat Security Advisory: git-lfs security update",
            None,
            &[],
        );
        check("See https://example.org/x for more", None, &[]);
        assert_eq!(rating_of_summary("GHSA-1", "Critical: x"), None);
    }
}
