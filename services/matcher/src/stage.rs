//! Importing: records of a feed become the shards of a new revision.
//!
//! Staging computes the new revision and changes nothing; putting it into force is a second step.
//! So a leader can publish a revision before it holds here, and a crash between the two leaves no
//! trace.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use bytes::Bytes;
use jiff::Timestamp;
use model::{AdvisoryManifest, Digest, Feed, ShardKey};
use vulndb::{Advisory, Shard, ShardAdvisory};

use crate::{Advisories, FeedLimits, Source};

/// The longest name of a feed.
const FEED_BYTES_MAX: usize = 64;

/// What is known of records that are imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The feed that they belong to. Given whole, a feed that has the name of an OSV ecosystem
    /// (`Debian`) covers that ecosystem alone, with all its releases; any other feed covers every
    /// ecosystem that it has a record of.
    pub feed: String,
    /// Whether they are the whole feed.
    pub mode: Mode,
    /// When they were fetched.
    pub fetched_at: Timestamp,
}

/// Whether imported records are the whole feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Records are added, and replace those of the same id. What a feed covers and how old it is
    /// stays as it was given whole: a few records say nothing about the rest.
    Merge,
    /// The feed is these records and no others. Without any record the feed is removed.
    Replace,
}

/// What an import did.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The revision after it.
    pub manifest: AdvisoryManifest,
    /// Shards whose content changed.
    pub changed: Vec<ShardKey>,
    /// How many records were read.
    pub records: usize,
    /// How many of them are no advisories that we can use.
    pub malformed: usize,
    /// The first few of what was wrong.
    pub problems: Vec<String>,
}

/// A revision that is not in force yet.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) imported: Imported,
    /// Whether it differs from the revision in force.
    pub(crate) is_new: bool,
    /// The changed shards by content.
    pub(crate) shards: BTreeMap<Digest, Bytes>,
}

/// The records, cut into parts.
#[derive(Clone, Default)]
pub(crate) struct Parts {
    by_shard: BTreeMap<ShardKey, Vec<ShardAdvisory>>,
    ids: BTreeSet<String>,
    ecosystems: BTreeSet<String>,
    records: usize,
    malformed: usize,
    problems: Vec<String>,
}

/// Imports the records of a source into the local copy.
pub fn import(
    advisories: &Advisories,
    import: &Import,
    source: &Source,
    limits: &FeedLimits,
) -> anyhow::Result<Imported> {
    let parts = read(import, source, limits)?;
    let staged = stage(advisories, import, parts)?;
    if staged.is_new {
        advisories.install(&staged.imported.manifest, &staged.shards)?;
    }
    Ok(staged.imported)
}

/// Computes the revision that an import leads to. Where nothing changes it is the one in force.
pub(crate) fn stage(
    advisories: &Advisories,
    import: &Import,
    mut parts: Parts,
) -> anyhow::Result<Staged> {
    let old = advisories.manifest();
    let mut manifest = AdvisoryManifest::clone(&old);
    let mut touched: BTreeSet<ShardKey> = parts.by_shard.keys().cloned().collect();
    let mut added = parts.ids.len();
    match import.mode {
        Mode::Replace => touched.extend(advisories.standing(&import.feed, None)?),
        Mode::Merge => {
            for id in &parts.ids {
                let standing = advisories.standing(&import.feed, Some(id))?;
                added -= usize::from(!standing.is_empty());
                touched.extend(standing);
            }
        }
    }
    let mut shards = BTreeMap::new();
    for key in touched {
        let before = advisories.shard_of(&old, &key)?;
        let stays = |one: &&ShardAdvisory| {
            one.feed != import.feed || (import.mode == Mode::Merge && !parts.ids.contains(&one.id))
        };
        let mut after: Vec<ShardAdvisory> =
            before.advisories().iter().filter(stays).cloned().collect();
        let new = parts.by_shard.remove(&key);
        after.extend(new.into_iter().flatten());
        if after.is_empty() {
            manifest.shards.remove(&key);
            continue;
        }
        let bytes = Bytes::from(Shard::new(after).encode());
        let digest = Digest::of(&bytes);
        if manifest.shards.insert(key, digest) != Some(digest) {
            shards.insert(digest, bytes);
        }
    }
    set_feed(
        &mut manifest,
        import,
        covered(&import.feed, parts.ecosystems),
        added,
    );
    let is_new = manifest != *old;
    if is_new {
        manifest.revision += 1;
    }
    let changed = manifest.changed_since(&old).into_iter().cloned().collect();
    let (records, malformed, problems) = (parts.records, parts.malformed, parts.problems);
    Ok(Staged {
        imported: Imported {
            manifest,
            changed,
            records,
            malformed,
            problems,
        },
        is_new,
        shards,
    })
}

/// Refuses what cannot be a feed's name.
pub(crate) fn check_feed(feed: &str) -> anyhow::Result<()> {
    let fits = (1..=FEED_BYTES_MAX).contains(&feed.len())
        && feed.trim() == feed
        && feed.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    anyhow::ensure!(
        fits,
        "`{}` is not a feed's name of 1 to {FEED_BYTES_MAX} characters",
        feed.escape_debug()
    );
    Ok(())
}

/// Reads the records of a source. An error is the source's, and reading it again gives the same.
pub(crate) fn read(import: &Import, source: &Source, limits: &FeedLimits) -> anyhow::Result<Parts> {
    let feed = import.feed.as_str();
    check_feed(feed)?;
    let mut parts = Parts::default();
    source
        .each_record(limits, &mut |name, bytes| parts.add(feed, name, bytes))
        .with_context(|| format!("reading feed `{feed}` from {source}"))?;
    anyhow::ensure!(
        parts.malformed < parts.records || parts.records == 0,
        "none of the {} records of {source} is an OSV record: {}",
        parts.records,
        parts.problems.join("; ")
    );
    Ok(parts)
}

/// What a feed covers of the ecosystems that its records name. Records of one ecosystem's export
/// name others in passing.
fn covered(feed: &str, mut ecosystems: BTreeSet<String>) -> BTreeSet<String> {
    let is_own = |ecosystem: &String| ecosystem.split(':').next() == Some(feed);
    if ecosystems.iter().any(is_own) {
        ecosystems.retain(is_own);
    }
    ecosystems
}

fn set_feed(
    manifest: &mut AdvisoryManifest,
    import: &Import,
    coverage: BTreeSet<String>,
    added: usize,
) {
    let known = manifest
        .feeds
        .iter()
        .position(|feed| feed.name == import.feed);
    let before = known.map(|at| manifest.feeds.remove(at));
    let added = added as u64;
    let feed = match (import.mode, before) {
        (Mode::Replace, _) if added == 0 => return,
        (Mode::Replace, _) => Feed {
            name: import.feed.clone(),
            fetched_at: import.fetched_at,
            coverage: coverage.into_iter().collect(),
            advisories: added,
            partial: false,
        },
        (Mode::Merge, Some(before)) => Feed {
            // An older import that comes late does not make the data look older.
            fetched_at: if before.partial {
                before.fetched_at.max(import.fetched_at)
            } else {
                before.fetched_at
            },
            advisories: before.advisories + added,
            ..before
        },
        (Mode::Merge, None) => Feed {
            name: import.feed.clone(),
            fetched_at: import.fetched_at,
            coverage: Vec::new(),
            advisories: added,
            partial: true,
        },
    };
    manifest.feeds.push(feed);
    manifest.feeds.sort_by(|a, b| a.name.cmp(&b.name));
}

// === impl Parts ===

impl Parts {
    fn add(&mut self, feed: &str, name: &str, bytes: &[u8]) {
        const PROBLEMS_MAX: usize = 5;
        self.records += 1;
        let advisory = match Advisory::parse(bytes) {
            Ok(advisory) => advisory,
            Err(error) => {
                self.malformed += 1;
                if self.problems.len() < PROBLEMS_MAX {
                    self.problems
                        .push(format!("`{}`: {error}", name.escape_debug()));
                }
                return;
            }
        };
        for (key, part) in advisory.split(feed) {
            self.ecosystems.insert(key.ecosystem.clone());
            self.by_shard.entry(key).or_default().push(part);
        }
        self.ids.insert(advisory.id().to_owned());
    }
}

#[cfg(test)]
pub(crate) mod tests;
