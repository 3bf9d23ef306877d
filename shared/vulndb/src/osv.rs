//! OSV records (ossf.github.io/osv-schema), read leniently: what we do not know is passed over,
//! what is missing is empty, and everything is bounded.

mod vendor;
mod windows;

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{Cvss, Severity, ShardKey};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use self::vendor::Specific;
use crate::{
    ecosystems::{self, Ecosystem},
    evaluate,
    shard::ShardAdvisory,
};

/// The largest record that is read; the largest known has less than 10 MB.
pub const RECORD_BYTES_MAX: usize = 32 << 20;

const ID_BYTES_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 512;
const NAMES_MAX: usize = 5_000;
const AFFECTED_MAX: usize = 20_000;
const VERSIONS_MAX: usize = 100_000;
const EVENTS_MAX: usize = 20_000;
const RATINGS_MAX: usize = 50;
const TITLE_CHARS_MAX: usize = 300;

/// An OSV record.
#[derive(Debug)]
pub struct Advisory {
    record: Record,
}

/// The bytes are not an advisory that we can use.
#[derive(Debug, thiserror::Error)]
pub enum MalformedAdvisory {
    /// More bytes than [`RECORD_BYTES_MAX`].
    #[error("record of {0} bytes is larger than {RECORD_BYTES_MAX}")]
    TooLarge(usize),
    /// Not the JSON of an OSV record.
    #[error("record is not OSV JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// No id, or one that cannot be a name.
    #[error("record has no usable id")]
    Id,
    /// More affected packages, versions, events or aliases than allowed.
    #[error("record `{0}` has more {1} than allowed")]
    TooMany(String, &'static str),
}

#[derive(Debug, Deserialize)]
struct Record {
    #[serde(default)]
    id: String,
    #[serde(default, deserialize_with = "nullable")]
    aliases: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    upstream: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    related: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    summary: String,
    #[serde(default)]
    published: Option<String>,
    #[serde(default)]
    modified: Option<String>,
    #[serde(default)]
    withdrawn: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    severity: Vec<Rating>,
    #[serde(default, deserialize_with = "nullable")]
    affected: Vec<Affected>,
    #[serde(default)]
    database_specific: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
struct Rating {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    score: String,
}

#[derive(Debug, Deserialize)]
struct Affected {
    #[serde(default)]
    package: Option<AffectedPackage>,
    #[serde(default, deserialize_with = "nullable")]
    ranges: Vec<Range>,
    #[serde(default, deserialize_with = "nullable")]
    versions: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    severity: Vec<Rating>,
    #[serde(default)]
    ecosystem_specific: Option<Box<RawValue>>,
    #[serde(default)]
    database_specific: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
struct AffectedPackage {
    #[serde(default)]
    ecosystem: String,
    #[serde(default)]
    name: String,
}

#[derive(Debug, Deserialize)]
struct Range {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default, deserialize_with = "nullable")]
    events: Vec<Event>,
}

#[derive(Debug, Default, Clone, Deserialize)]
struct Event {
    #[serde(default)]
    introduced: Option<String>,
    #[serde(default)]
    fixed: Option<String>,
    #[serde(default)]
    last_affected: Option<String>,
    #[serde(default)]
    limit: Option<String>,
}

// === impl Advisory ===

impl Advisory {
    /// Reads one OSV record.
    pub fn parse(bytes: &[u8]) -> Result<Self, MalformedAdvisory> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(MalformedAdvisory::TooLarge(bytes.len()));
        }
        let record: Record = serde_json::from_slice(bytes)?;
        if !is_name(&record.id, ID_BYTES_MAX) {
            return Err(MalformedAdvisory::Id);
        }
        let names = [
            record.aliases.len(),
            record.upstream.len(),
            record.related.len(),
        ]
        .into_iter()
        .max();
        let versions = record
            .affected
            .iter()
            .map(|affected| affected.versions.len())
            .max();
        let ranges = record.affected.iter().flat_map(|affected| &affected.ranges);
        let events = ranges.map(|range| range.events.len()).max();
        for (count, most, what) in [
            (names, NAMES_MAX, "aliases"),
            (
                Some(record.affected.len()),
                AFFECTED_MAX,
                "affected packages",
            ),
            (versions, VERSIONS_MAX, "versions"),
            (events, EVENTS_MAX, "events"),
        ] {
            if count.unwrap_or_default() > most {
                return Err(MalformedAdvisory::TooMany(record.id, what));
            }
        }
        Ok(Self { record })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Cuts it into one part per package and ecosystem. Parts that say nothing are left out: GIT
    /// ranges alone, neither ranges nor versions, or a package without a name. So is a whole bulletin
    /// that is about bugs and names no vulnerability.
    pub fn split(&self, feed: &str) -> Vec<(ShardKey, ShardAdvisory)> {
        let mut parts: BTreeMap<(String, String), ShardAdvisory> = BTreeMap::new();
        let common = self.common(feed);
        if vendor::is_about_bugs(&common) {
            return Vec::new();
        }
        for affected in &self.record.affected {
            let Some(package) = &affected.package else {
                continue;
            };
            let named = is_name(&package.ecosystem, NAME_BYTES_MAX)
                && is_name(&package.name, NAME_BYTES_MAX);
            if !named {
                continue;
            }
            let family = ecosystems::family(&package.ecosystem);
            let name = family.map_or_else(
                || package.name.clone(),
                |family| family.normalize(&package.name),
            );
            let key = (package.ecosystem.clone(), name.clone());
            let is_first = !parts.contains_key(&key);
            let part = parts.entry(key).or_insert_with(|| ShardAdvisory {
                package: name,
                ..common.clone()
            });
            self.fill(part, affected, family, is_first);
        }
        let keyed = parts
            .into_iter()
            .map(|((ecosystem, name), part)| (ShardKey::of(ecosystem, &name), part));
        keyed
            .filter(|(_, part)| part.withdrawn || !part.is_silent())
            .collect()
    }

    /// What all parts have in common.
    fn common(&self, feed: &str) -> ShardAdvisory {
        let record = &self.record;
        let mut upstream = record.upstream.clone();
        if vendor::relates_to_its_own(&record.id, !upstream.is_empty()) {
            let cves = record.related.iter().filter(|id| id.starts_with("CVE-"));
            upstream.extend(cves.cloned());
        }
        let specific = Specific::of(record.database_specific.as_deref());
        ShardAdvisory {
            id: record.id.clone(),
            feed: feed.to_owned(),
            withdrawn: record.withdrawn.is_some(),
            aliases: usable(&record.aliases),
            upstream: usable(&upstream),
            rating: vendor::rating_of_summary(&record.id, &record.summary),
            modules: vendor::modules_of_summary(&record.id, &record.summary),
            word: specific.text("severity").and_then(|word| word.parse().ok()),
            title: clip(&record.summary),
            published: timestamp(record.published.as_deref()),
            modified: timestamp(record.modified.as_deref()),
            ..ShardAdvisory::default()
        }
    }

    fn fill(
        &self,
        part: &mut ShardAdvisory,
        affected: &Affected,
        family: Option<&'static dyn Ecosystem>,
        is_first: bool,
    ) {
        let own = if affected.severity.is_empty() {
            &self.record.severity
        } else {
            &affected.severity
        };
        for rating in own.iter().take(RATINGS_MAX) {
            rate(rating, &self.record.id, part);
        }
        let specific = Specific::of(affected.ecosystem_specific.as_deref());
        match specific.text("urgency") {
            // By Debian's policy not a security problem of what it ships.
            Some("unimportant") => part.rating = Some(Severity::Negligible),
            Some("end-of-life") => part.end_of_life = true,
            Some(word) => part.rating = word.trim_end_matches('*').parse().ok().or(part.rating),
            None => {}
        }
        if part.withdrawn {
            return;
        }
        let database = Specific::of(affected.database_specific.as_deref());
        if let Some(range) = database.text("last_known_affected_version_range") {
            let range = clip(range);
            part.notes
                .push(format!("last known to be affected: {range}"));
        }
        vendor::narrow(part, &specific, &database, is_first);
        // Go's ranges are SemVer's; what does not fit into them is in ranges of its own, and the
        // SemVer range then says "all versions".
        let custom = specific.custom_ranges();
        if custom.is_some() {
            part.notes.push("by its custom ranges".to_owned());
        }
        let ranges = custom.as_ref().unwrap_or(&affected.ranges);
        for range in ranges.iter().filter(|range| range.kind != "GIT") {
            part.windows
                .extend(windows::windows(&range.events, family, &mut part.notes));
        }
        part.notes.dedup();
        part.windows.dedup();
        let listed = affected.versions.iter().map(|version| version.trim());
        part.versions
            .extend(listed.filter(|v| !v.is_empty()).map(ToOwned::to_owned));
        if let Some(family) = family {
            evaluate::drop_versions_in_windows(family, part);
        }
        part.versions.sort();
        part.versions.dedup();
    }
}

fn rate(rating: &Rating, id: &str, part: &mut ShardAdvisory) {
    if !rating.kind.starts_with("CVSS") {
        // A distribution's own words, as Ubuntu's priorities.
        part.rating = rating.score.parse().ok().or(part.rating);
        return;
    }
    rate_vector(&rating.score, database(id), part);
}

/// Adds what a CVSS vector says.
pub(crate) fn rate_vector(vector: &str, source: &str, part: &mut ShardAdvisory) {
    let vector = vector.trim();
    match vector.parse::<cvss::Cvss>() {
        Ok(parsed) => {
            let version = match parsed {
                cvss::Cvss::CvssV20(_) => "2.0",
                cvss::Cvss::CvssV30(_) => "3.0",
                cvss::Cvss::CvssV31(_) => "3.1",
                _ => "4.0",
            };
            let rated = Cvss {
                source: source.to_owned(),
                version: version.to_owned(),
                vector: vector.to_owned(),
                score: parsed.score(),
            };
            if !part.cvss.contains(&rated) {
                part.cvss.push(rated);
            }
        }
        Err(_) => part
            .notes
            .push(format!("malformed vector `{}`", clip(vector))),
    }
}

/// Who keeps the database that an id belongs to.
fn database(id: &str) -> &str {
    match id.split('-').next().unwrap_or_default() {
        "CVE" => "NVD",
        "PYSEC" => "PyPA",
        "UBUNTU" | "USN" => "Ubuntu",
        "DEBIAN" | "DSA" | "DLA" => "Debian",
        "ALPINE" => "Alpine",
        prefix => prefix,
    }
}

fn usable(ids: &[String]) -> Vec<String> {
    let mut ids: Vec<String> = ids
        .iter()
        .filter(|id| is_name(id, ID_BYTES_MAX))
        .cloned()
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

/// Whether a text may be part of keys and lines.
fn is_name(text: &str, most: usize) -> bool {
    !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control)
}

fn clip(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars()
        .filter(|c| !c.is_control())
        .take(TITLE_CHARS_MAX)
        .collect()
}

/// A time; repository copies of Go records carry the year 1.
fn timestamp(text: Option<&str>) -> Option<Timestamp> {
    let at: Timestamp = text?.parse().ok()?;
    (at > Timestamp::UNIX_EPOCH).then_some(at)
}

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(d).map(Option::unwrap_or_default)
}
