//! Advisory revisions: a manifest of shards, each named by its content (architecture, section 8).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Digest;

/// In place of an ecosystem, and a feed's name: CISA's catalog of known exploited vulnerabilities.
pub const KEV: &str = "KEV";
/// In place of an ecosystem, and a feed's name: FIRST's exploit prediction.
pub const EPSS: &str = "EPSS";

/// The name of the feed that is Debian's own tracker and no OSV records.
pub const DEBIAN_TRACKER: &str = "Debian tracker";

/// Which shard an advisory stands in: its ecosystem and the first byte of sha256(package name).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShardKey {
    /// The OSV ecosystem with its suffix, as `Debian:12`.
    pub ecosystem: String,
    /// The first byte of sha256(package name).
    pub byte: u8,
}

/// The text is not a shard key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a shard key like `Debian:12/3f`")]
pub struct ShardKeyError(String);

/// An advisory revision: what it holds, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvisoryManifest {
    /// A number that only grows; 0 is "nothing yet".
    pub revision: u64,
    /// The feeds behind it.
    pub feeds: Vec<Feed>,
    /// Each shard's content, by the digest of its object.
    pub shards: BTreeMap<ShardKey, Digest>,
    /// The revisions of feeds themselves, as far as their servers name one: when its newest record
    /// changed, and the tag of its list. With it only what changed is fetched.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub feed_revisions: BTreeMap<String, String>,
}

/// A source of advisories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Feed {
    /// Its name: the top-level OSV ecosystem, or what the operator calls it.
    pub name: String,
    /// When its data were fetched.
    #[schemars(with = "crate::schema::Time")]
    pub fetched_at: Timestamp,
    /// What it covers: its ecosystems, with their suffixes.
    pub coverage: Vec<String>,
    /// How many advisories it has.
    #[serde(default)]
    pub advisories: u64,
    /// Whether it was never given whole, only record by record: then it says nothing about what it
    /// does not mention, covers nothing, and has no age.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// The advisory data behind a result; the report's `advisories`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdvisoryStamp {
    /// The revision; 0 is "none".
    pub revision: u64,
    /// The feeds behind it.
    pub feeds: Vec<Feed>,
}

/// KV `tw_advisories`, key `head`: the revision in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvisoryHead {
    /// The revision.
    pub revision: u64,
    /// Its manifest's object in `tw_feeds`.
    pub manifest: Digest,
    /// When it was published.
    pub published_at: Timestamp,
    /// The revisions before it whose manifests and shards are still there, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<PastRevision>,
}

/// A revision that was in force not long ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastRevision {
    /// The revision.
    pub revision: u64,
    /// Its manifest's object in `tw_feeds`.
    pub manifest: Digest,
}

/// KV `tw_advisories`, key `inbox.<hash>`: advisories that somebody handed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvisoryInbox {
    /// The object in `tw_feeds`: a zip of OSV records, as OSV.dev's `all.zip`.
    pub object: Digest,
    /// Bytes in front of the zip: they make the object this entry's alone.
    #[serde(default)]
    pub offset: u64,
    /// The feed that they belong to.
    pub feed: String,
    /// Whether they are the whole feed, so that what is missing is withdrawn from it.
    pub replace: bool,
    /// Whether they are all that changed in the feed, so that it is as new as they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub increment: bool,
    /// When they were fetched.
    pub fetched_at: Timestamp,
    /// The feed's own revision after them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// KV `tw_advisories`, key `swept.<part>`: everything in a partition holds for this revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweptMark {
    /// The revision.
    pub revision: u64,
    /// When the data behind it were fetched, the oldest feed counted; `None` without feeds.
    pub data_at: Option<Timestamp>,
    /// The ecosystems, without their suffixes, of the packages that the partition's images hold.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ecosystems: BTreeSet<String>,
    /// The rules of matching that it was swept with; where they are others now, everything in the
    /// partition is assessed again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rules: String,
}

// === impl ShardKey ===

impl ShardKey {
    /// The shard of a package.
    pub fn of(ecosystem: impl Into<String>, package: &str) -> Self {
        let byte = Digest::of(package.as_bytes()).as_bytes()[0];
        Self {
            ecosystem: ecosystem.into(),
            byte,
        }
    }
}

impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:02x}", self.ecosystem, self.byte)
    }
}

impl FromStr for ShardKey {
    type Err = ShardKeyError;

    fn from_str(text: &str) -> Result<Self, ShardKeyError> {
        let parsed = text.rsplit_once('/').and_then(|(ecosystem, byte)| {
            let byte = u8::from_str_radix(byte, 16).ok()?;
            (!ecosystem.is_empty()).then(|| Self {
                ecosystem: ecosystem.to_owned(),
                byte,
            })
        });
        parsed.ok_or_else(|| ShardKeyError(text.chars().take(100).collect()))
    }
}

impl TryFrom<String> for ShardKey {
    type Error = ShardKeyError;

    fn try_from(text: String) -> Result<Self, ShardKeyError> {
        text.parse()
    }
}

impl From<ShardKey> for String {
    fn from(key: ShardKey) -> Self {
        key.to_string()
    }
}

// === impl AdvisoryManifest ===

impl AdvisoryManifest {
    /// The stamp that results carry.
    pub fn stamp(&self) -> AdvisoryStamp {
        AdvisoryStamp {
            revision: self.revision,
            feeds: self.feeds.clone(),
        }
    }

    /// Shards whose content differs between two revisions, in order.
    pub fn changed_since<'a>(&'a self, older: &'a Self) -> Vec<&'a ShardKey> {
        let differs = |key: &&ShardKey| self.shards.get(*key) != older.shards.get(*key);
        let gone = older
            .shards
            .keys()
            .filter(|key| !self.shards.contains_key(*key));
        let mut keys: Vec<_> = self.shards.keys().filter(differs).chain(gone).collect();
        keys.sort();
        keys
    }
}

// === impl AdvisoryStamp ===

impl AdvisoryStamp {
    /// When the oldest of the feeds that were given whole was fetched. What is known of exploitation
    /// decides about nobody being affected, so its age is not counted.
    pub fn data_at(&self) -> Option<Timestamp> {
        let counts = |feed: &&Feed| !feed.partial && feed.name != KEV && feed.name != EPSS;
        let whole = self.feeds.iter().filter(counts);
        whole.map(|feed| feed.fetched_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_keys_round_trip() {
        let key = ShardKey::of("Debian:12", "openssl");
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!("Debian".parse::<ShardKey>().is_err());
    }

    #[test]
    fn changes_between_revisions_are_the_shards_whose_hash_differs() {
        let key = |name: &str| ShardKey {
            ecosystem: name.to_owned(),
            byte: 1,
        };
        let manifest = |shards: &[(&str, &[u8])]| AdvisoryManifest {
            shards: shards
                .iter()
                .map(|(name, body)| (key(name), Digest::of(body)))
                .collect(),
            ..AdvisoryManifest::default()
        };
        let old = manifest(&[("a", b"1"), ("b", b"1"), ("c", b"1")]);
        let new = manifest(&[("a", b"1"), ("b", b"2"), ("d", b"1")]);
        assert_eq!(new.changed_since(&old), [&key("b"), &key("c"), &key("d")]);
        assert!(new.changed_since(&new).is_empty());
    }
}
