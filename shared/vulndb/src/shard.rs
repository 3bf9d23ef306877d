//! Shards: the advisories of the packages whose names hash to one byte, in one ecosystem.

use std::{collections::BTreeSet, sync::Arc};

use jiff::{Timestamp, civil::Date};
use model::{Cvss, FixState, Severity, ShardKey};
use serde::{Deserialize, Serialize};

use crate::Memo;

/// What one advisory says of one package in one ecosystem.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardAdvisory {
    /// The package's name, as the ecosystem normalizes it.
    pub package: String,
    /// The advisory's id.
    pub id: String,
    /// The feed that it came with.
    pub feed: String,
    /// Taken back: no finding, but its aliases still join others.
    #[serde(default, skip_serializing_if = "is_default")]
    pub withdrawn: bool,
    /// Other names of the same vulnerability.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The vulnerabilities that it contains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<String>,
    /// Ranges of affected versions; affected is who is in any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// Affected versions that no window holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// The distribution's own rating, for this package and release.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rating: Option<Severity>,
    /// The database's word for the whole record.
    #[serde(default, skip_serializing_if = "is_default")]
    pub word: Option<Severity>,
    /// CVSS ratings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cvss: Vec<Cvss>,
    /// The distribution no longer supports the package.
    #[serde(default, skip_serializing_if = "is_default")]
    pub end_of_life: bool,
    /// What its source says of versions without a fix: that there will be none, or that somebody
    /// looks at it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unfixed: Option<FixState>,
    /// By its source no vulnerability but a remark: `unmaintained`, `unsound`, `notice`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub notice: Option<String>,
    /// The RPM modules, as `name:stream`, that its modular builds belong to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// The only operating systems that are affected, where it names some: `linux`, `windows`, ….
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// The only binary packages of the source that are affected, where it lists them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binaries: Vec<String>,
    /// One line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// When it was published.
    #[serde(default, skip_serializing_if = "is_default")]
    pub published: Option<Timestamp>,
    /// When it was changed last.
    #[serde(default, skip_serializing_if = "is_default")]
    pub modified: Option<Timestamp>,
    /// What was wrong with the record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A range of affected versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first affected version; `None`: all from the beginning.
    #[serde(default, skip_serializing_if = "is_default")]
    pub introduced: Option<String>,
    /// Where it ends.
    pub end: WindowEnd,
}

/// Where a range of affected versions ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowEnd {
    /// The first version that is not affected; `0` says "never affected".
    Fixed(String),
    /// The last version that is affected.
    Last(String),
    /// The first version that the range says nothing about.
    Limit(String),
    /// Nothing newer is known to be good.
    Open,
}

/// What is known of the exploitation of a CVE: it changes no verdict on who is affected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exploitation {
    /// The CVE.
    pub cve: String,
    /// The feed that says so.
    pub feed: String,
    /// When it came into CISA's catalog of known exploited vulnerabilities.
    #[serde(default, skip_serializing_if = "is_default")]
    pub known_since: Option<Date>,
    /// Whether the catalog knows of ransomware that uses it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ransomware: bool,
    /// Exploit prediction, 0 to 1 (FIRST EPSS).
    #[serde(default, skip_serializing_if = "is_default")]
    pub epss: Option<f64>,
}

/// What stands under one [`ShardKey`]: advisories, sorted by package, id, feed and modules; and under the
/// keys of [`model::KEV`] and [`model::EPSS`] what is known of exploitation, sorted by CVE and feed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shard {
    /// The advisories.
    advisories: Vec<ShardAdvisory>,
    /// Exploitation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exploitation: Vec<Exploitation>,
}

/// The bytes are not a shard.
#[derive(Debug, thiserror::Error)]
#[error("bytes are not a shard: {0}")]
pub struct MalformedShard(#[from] rmp_serde::decode::Error);

/// A shard that must be there could not be read.
#[derive(Debug, thiserror::Error)]
#[error("reading shard `{key}`")]
pub struct ShardError {
    /// The shard.
    pub key: ShardKey,
    /// Why.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// The advisories that packages are matched with.
pub trait Shards {
    /// A shard; `None` where there are no advisories.
    fn shard(&self, key: &ShardKey) -> Result<Option<Arc<Shard>>, ShardError>;
    /// Whether a feed covers an ecosystem, so that "no advisory" means something.
    fn covers(&self, ecosystem: &str) -> bool;
    /// What was found before with the very same shards.
    fn memo(&self) -> Option<&Memo> {
        None
    }
}

// === impl Shard ===

impl Shard {
    /// A shard of these advisories; of equal (package, id, feed, modules) the last one stays.
    pub fn new(advisories: Vec<ShardAdvisory>) -> Self {
        Self::of(advisories, Vec::new())
    }

    /// A shard of advisories and of what is known of exploitation; of equals the last one stays.
    pub fn of(mut advisories: Vec<ShardAdvisory>, mut exploitation: Vec<Exploitation>) -> Self {
        advisories.reverse();
        advisories.sort_by(|a, b| a.name().cmp(&b.name()));
        advisories.dedup_by(|a, b| a.name() == b.name());
        exploitation.reverse();
        exploitation.sort_by(|a, b| a.name().cmp(&b.name()));
        exploitation.dedup_by(|a, b| a.name() == b.name());
        Self {
            advisories,
            exploitation,
        }
    }

    /// Whether nothing stands here.
    pub fn is_empty(&self) -> bool {
        self.advisories.is_empty() && self.exploitation.is_empty()
    }

    /// What is known of exploitation.
    pub fn exploitation(&self) -> &[Exploitation] {
        &self.exploitation
    }

    /// What is known of the exploitation of one CVE.
    pub fn exploitation_of(&self, cve: &str) -> &[Exploitation] {
        let start = self
            .exploitation
            .partition_point(|one| one.cve.as_str() < cve);
        let end = self
            .exploitation
            .partition_point(|one| one.cve.as_str() <= cve);
        self.exploitation.get(start..end).unwrap_or_default()
    }

    /// All advisories.
    pub fn advisories(&self) -> &[ShardAdvisory] {
        &self.advisories
    }

    /// The advisories, to make another shard of them.
    pub fn into_advisories(self) -> Vec<ShardAdvisory> {
        self.advisories
    }

    /// The advisories of one package.
    pub fn of_package(&self, package: &str) -> &[ShardAdvisory] {
        let start = self
            .advisories
            .partition_point(|a| a.package.as_str() < package);
        let end = self
            .advisories
            .partition_point(|a| a.package.as_str() <= package);
        self.advisories.get(start..end).unwrap_or_default()
    }

    /// As bytes: MessagePack with named fields. Equal shards have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Plain data without maps of unknown order: encoding it into memory has no way to fail.
        rmp_serde::to_vec_named(self).unwrap_or_default()
    }

    /// Reads what [`Shard::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedShard> {
        let shard: Self = rmp_serde::from_slice(bytes)?;
        // Look-ups rely on the order, and the bytes may come from elsewhere.
        let is_sorted = shard.advisories.is_sorted_by(|a, b| a.name() < b.name())
            && shard.exploitation.is_sorted_by(|a, b| a.name() < b.name());
        if is_sorted {
            return Ok(shard);
        }
        Ok(Self::of(shard.advisories, shard.exploitation))
    }

    /// CVEs that came into the catalog of known exploited vulnerabilities since an older shard, or
    /// left it.
    pub fn exploited_changed_since(&self, older: &Self) -> BTreeSet<String> {
        let known = |shard: &Self| -> BTreeSet<String> {
            let known = shard.exploitation.iter();
            known
                .filter(|one| one.known_since.is_some())
                .map(|one| one.cve.clone())
                .collect()
        };
        let (now, before) = (known(self), known(older));
        now.symmetric_difference(&before).cloned().collect()
    }

    /// CVEs of which the predicted exploitation is another whole percent than in an older shard: what
    /// people ask about. The small changes of every day change no decision.
    pub fn predictions_changed_since(&self, older: &Self) -> BTreeSet<String> {
        let known = |shard: &Self| -> BTreeSet<(String, u8)> {
            let known = shard.exploitation.iter();
            known
                .filter_map(|one| Some((one.cve.clone(), percent(one.epss?))))
                .filter(|(_, percent)| *percent > 0)
                .collect()
        };
        let (now, before) = (known(self), known(older));
        let changed = now.symmetric_difference(&before);
        changed.map(|(cve, _)| cve.clone()).collect()
    }

    /// Packages about which this shard says something else than an older one. Texts and dates
    /// change no result, so they do not count.
    pub fn packages_changed_since(&self, older: &Self) -> BTreeSet<String> {
        let differs = |shard: &Self, other: &Self| -> BTreeSet<String> {
            let packages: BTreeSet<&str> = shard
                .advisories
                .iter()
                .map(|advisory| advisory.package.as_str())
                .collect();
            let changed = |name: &&str| {
                let (one, other) = (shard.of_package(name), other.of_package(name));
                one.len() != other.len() || !one.iter().zip(other).all(|(a, b)| a.finds_as(b))
            };
            packages
                .into_iter()
                .filter(changed)
                .map(ToOwned::to_owned)
                .collect()
        };
        let mut packages = differs(self, older);
        packages.extend(differs(older, self));
        packages
    }
}

/// The whole percents of a probability; none of what is no number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is between 0 and 100"
)]
fn percent(probability: f64) -> u8 {
    // 0.29 times 100 is a little less than 29.
    (probability * 100.0 + 1e-6).clamp(0.0, 100.0) as u8
}

// === impl ShardAdvisory ===

impl ShardAdvisory {
    /// Says nothing about any version.
    pub(crate) fn is_silent(&self) -> bool {
        self.windows.is_empty() && self.versions.is_empty()
    }

    /// One advisory may say different things of builds for different module streams.
    fn name(&self) -> (&str, &str, &str, &[String]) {
        (&self.package, &self.id, &self.feed, &self.modules)
    }

    /// Whether it finds the same as another one: all but texts and dates is equal.
    fn finds_as(&self, other: &Self) -> bool {
        let bare = |one: &Self| Self {
            title: String::new(),
            published: None,
            modified: None,
            ..one.clone()
        };
        self == other || bare(self) == bare(other)
    }
}

impl Exploitation {
    fn name(&self) -> (&str, &str) {
        (&self.cve, &self.feed)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advisory(package: &str, id: &str, title: &str) -> ShardAdvisory {
        ShardAdvisory {
            package: package.to_owned(),
            id: id.to_owned(),
            title: title.to_owned(),
            ..ShardAdvisory::default()
        }
    }

    #[test]
    fn equal_content_has_equal_bytes_in_any_order() {
        let (a, b) = (advisory("a", "1", ""), advisory("b", "1", ""));
        let one = Shard::new(vec![a.clone(), b.clone(), a.clone()]);
        let two = Shard::new(vec![b, a]);
        assert_eq!(one.encode(), two.encode());
        assert_eq!(Shard::decode(&one.encode()).unwrap(), one);
        assert!(Shard::decode(b"\xff").is_err());
    }

    #[test]
    fn of_equal_advisories_the_last_one_stays() {
        let shard = Shard::new(vec![advisory("a", "1", "old"), advisory("a", "1", "new")]);
        assert_eq!(shard.of_package("a").len(), 1);
        assert_eq!(shard.of_package("a")[0].title, "new");
        assert!(shard.of_package("b").is_empty());
    }

    #[test]
    fn edits_of_texts_and_dates_change_no_package() {
        let old = Shard::new(vec![advisory("a", "1", "old"), advisory("b", "1", "")]);
        let withdrawn = ShardAdvisory {
            withdrawn: true,
            ..advisory("b", "1", "")
        };
        let edited = ShardAdvisory {
            modified: Some(Timestamp::UNIX_EPOCH),
            ..advisory("a", "1", "new")
        };
        let changed = Shard::new(vec![edited, withdrawn]).packages_changed_since(&old);
        assert_eq!(changed.into_iter().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn exploitation_is_found_by_cve_and_its_changes_by_what_is_known() {
        let one = |cve: &str, is_known: bool, epss: f64| Exploitation {
            cve: cve.to_owned(),
            feed: "f".to_owned(),
            known_since: is_known.then_some(Date::ZERO),
            ransomware: false,
            epss: Some(epss),
        };
        let old = vec![one("CVE-2", true, 0.1), one("CVE-1", false, 0.1)];
        let old = Shard::of(Vec::new(), old);
        let new = vec![one("CVE-1", true, 0.1), one("CVE-2", true, 0.9)];
        let new = Shard::of(Vec::new(), new);
        assert_eq!(Shard::decode(&new.encode()).unwrap(), new);
        assert_eq!(new.exploitation_of("CVE-2")[0].epss, Some(0.9));
        assert!(new.exploitation_of("CVE-3").is_empty());
        let changed = new.exploited_changed_since(&old);
        assert_eq!(changed.into_iter().collect::<Vec<_>>(), ["CVE-1"]);
    }

    #[test]
    fn a_prediction_changes_with_its_whole_percents() {
        let shard = |predictions: &[(&str, f64)]| {
            let known = predictions.iter().map(|(cve, epss)| Exploitation {
                cve: (*cve).to_owned(),
                epss: Some(*epss),
                ..Exploitation::default()
            });
            Shard::of(Vec::new(), known.collect())
        };
        let check = |before: f64, after: f64, expected: bool| {
            let (before, after) = (shard(&[("CVE-1", before)]), shard(&[("CVE-1", after)]));
            let changed = after.predictions_changed_since(&before);
            assert_eq!(!changed.is_empty(), expected, "{before:?} {after:?}");
        };
        check(0.001, 0.009, false);
        check(0.009, 0.010, true);
        check(0.29, 0.2999, false);
        check(0.2899, 0.29, true);
        check(1.0, 0.99, true);
        let (none, some) = (shard(&[]), shard(&[("CVE-1", 0.5), ("CVE-2", 0.001)]));
        let both = [
            some.predictions_changed_since(&none),
            none.predictions_changed_since(&some),
        ];
        for changed in both {
            assert_eq!(changed.into_iter().collect::<Vec<_>>(), ["CVE-1"]);
        }
    }

    #[test]
    fn changes_are_named_by_package() {
        let old = Shard::new(vec![advisory("a", "1", ""), advisory("b", "1", "")]);
        let new = Shard::new(vec![advisory("a", "1", ""), advisory("c", "1", "")]);
        let changed = new.packages_changed_since(&old);
        assert_eq!(changed.into_iter().collect::<Vec<_>>(), ["b", "c"]);
    }
}
