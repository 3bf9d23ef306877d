//! Importing: records of a feed become the shards of a new revision.
//!
//! Staging computes the new revision and changes nothing; putting it into force is a second step.
//! So a leader can publish a revision before it holds here, and a crash between the two leaves no
//! trace.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use bytes::Bytes;
use jiff::Timestamp;
use model::{AdvisoryManifest, Digest, EPSS, Feed, KEV, ShardKey};
use vulndb::{Advisory, Exploitation, Lookup, RECORD_BYTES_MAX, Shard, ShardAdvisory, Vendor};

use crate::{Advisories, FeedLimits, Source};

/// The largest file that is a feed by itself; Debian's tracker has 70 MB.
pub(crate) const ONE_FILE_BYTES_MAX: usize = 256 << 20;
/// How many records that cannot be used are named.
const PROBLEMS_MAX: usize = 5;
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
    /// The feed's own revision after them, where its server names one.
    pub revision: Option<String>,
}

/// Whether imported records are the whole feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Records are added, and replace those of the same id. What a feed covers and how old it is
    /// stays as it was given whole: a few records say nothing about the rest.
    Merge,
    /// The same, and they are all that changed: the feed is as new as they are. Where it was never
    /// given whole they are merged.
    Increment,
    /// The feed is these records and no others. Without any record the feed is removed. What stands
    /// under the name of a record that cannot be read stays.
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
    exploitation: BTreeMap<ShardKey, Vec<Exploitation>>,
    ids: BTreeSet<String>,
    /// Names of files that cannot be read: the ids that they should have.
    unreadable: BTreeSet<String>,
    ecosystems: BTreeSet<String>,
    records: usize,
    malformed: usize,
    problems: Vec<String>,
}

/// What records are wanted: all, or those about some packages.
pub(crate) type Wanted<'a> = Option<&'a BTreeSet<Lookup>>;

/// Imports the records of a source into the local copy.
pub fn import(
    advisories: &Advisories,
    import: &Import,
    source: &Source,
    limits: &FeedLimits,
) -> anyhow::Result<Imported> {
    let parts = read(import, source, limits, None)?;
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
    let (mut touched, added) = touched(advisories, import, &mut parts)?;
    touched.extend(parts.by_shard.keys().cloned());
    touched.extend(parts.exploitation.keys().cloned());
    let mut shards = BTreeMap::new();
    for key in touched {
        let before = advisories.shard_of(&old, &key)?;
        let after = parts.put_into(&before, &key, import);
        put(&mut manifest, &mut shards, key, &after);
    }
    let coverage = covered(&import.feed, std::mem::take(&mut parts.ecosystems));
    set_feed(&mut manifest, import, coverage, added);
    Ok(parts.staged(&old, manifest, shards))
}

/// The shards that records of the feed may leave, and how many of its records are new.
fn touched(
    advisories: &Advisories,
    import: &Import,
    parts: &mut Parts,
) -> anyhow::Result<(BTreeSet<ShardKey>, usize)> {
    let mut added = parts.ids.len();
    if import.is_whole() {
        let unreadable = parts.unreadable.difference(&parts.ids).cloned();
        let mut kept = BTreeSet::new();
        for id in unreadable {
            if !advisories.standing(&import.feed, Some(&id))?.is_empty() {
                kept.insert(id);
            }
        }
        added += kept.len();
        parts.unreadable = kept;
        return Ok((advisories.standing(&import.feed, None)?, added));
    }
    let mut touched = BTreeSet::new();
    for id in &parts.ids {
        let standing = advisories.standing(&import.feed, Some(id))?;
        added -= usize::from(!standing.is_empty());
        touched.extend(standing);
    }
    Ok((touched, added))
}

/// Puts a shard into a manifest, and its bytes among those that are new.
pub(crate) fn put(
    manifest: &mut AdvisoryManifest,
    shards: &mut BTreeMap<Digest, Bytes>,
    key: ShardKey,
    shard: &Shard,
) {
    if shard.is_empty() {
        manifest.shards.remove(&key);
        return;
    }
    let bytes = Bytes::from(shard.encode());
    let digest = Digest::of(&bytes);
    if manifest.shards.insert(key, digest) != Some(digest) {
        shards.insert(digest, bytes);
    }
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
pub(crate) fn read(
    import: &Import,
    source: &Source,
    limits: &FeedLimits,
    wanted: Wanted<'_>,
) -> anyhow::Result<Parts> {
    let feed = import.feed.as_str();
    check_feed(feed)?;
    let mut parts = Parts::default();
    let is_large =
        is_one_file(feed) || vulndb::vendor(feed).is_some_and(|one| one.extension() == "xml");
    let file_bytes_max = if is_large {
        ONE_FILE_BYTES_MAX
    } else {
        RECORD_BYTES_MAX
    };
    source
        .each_record(limits, file_bytes_max, &mut |name, bytes| {
            parts.add(feed, name, bytes, wanted);
        })
        .with_context(|| format!("reading feed `{feed}` from {source}"))?;
    anyhow::ensure!(
        parts.malformed < parts.records || parts.records == 0,
        "none of the {} records of {source} can be used: {}",
        parts.records,
        parts.problems.join("; ")
    );
    Ok(parts)
}

/// What a feed covers of the ecosystems that its records name. Records of one ecosystem's export
/// name others in passing.
pub(crate) fn covered(feed: &str, mut ecosystems: BTreeSet<String>) -> BTreeSet<String> {
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
    let name = &import.feed;
    let known = manifest.feeds.iter().position(|feed| feed.name == *name);
    let before = known.map(|at| manifest.feeds.remove(at));
    let added = added as u64;
    let is_partial = before.as_ref().is_none_or(|before| before.partial);
    if import.is_whole() || (import.mode == Mode::Increment && !is_partial) {
        manifest.feed_revisions.remove(name);
        let is_gone = import.is_whole() && added == 0;
        let revision = import.revision.clone().filter(|_| !is_gone);
        manifest
            .feed_revisions
            .extend(revision.map(|revision| (name.clone(), revision)));
    }
    // An older import that comes late does not make the data look older.
    let newer = |before: &Feed| before.fetched_at.max(import.fetched_at);
    let feed = match (import.mode, before) {
        _ if import.is_whole() && added == 0 => return,
        _ if import.is_whole() => Feed {
            name: name.clone(),
            fetched_at: import.fetched_at,
            coverage: coverage.into_iter().collect(),
            advisories: added,
            partial: false,
        },
        (Mode::Increment, Some(before)) if !before.partial => {
            let known: BTreeSet<String> = before.coverage.iter().cloned().collect();
            Feed {
                fetched_at: newer(&before),
                advisories: before.advisories + added,
                coverage: known.union(&coverage).cloned().collect(),
                ..before
            }
        }
        (_, Some(before)) => Feed {
            fetched_at: if before.partial {
                newer(&before)
            } else {
                before.fetched_at
            },
            advisories: before.advisories + added,
            ..before
        },
        (_, None) => Feed {
            name: name.clone(),
            fetched_at: import.fetched_at,
            coverage: Vec::new(),
            advisories: added,
            partial: true,
        },
    };
    manifest.feeds.push(feed);
    manifest.feeds.sort_by(|a, b| a.name.cmp(&b.name));
}

/// Whether a feed is one file, and no OSV records.
pub(crate) fn is_one_file(feed: &str) -> bool {
    [KEV, EPSS].contains(&feed) || vulndb::vendor(feed).is_some_and(Vendor::is_whole)
}

// === impl Import ===

impl Import {
    /// Whether what is imported is the whole feed; one file always is, unless nothing changed in it.
    fn is_whole(&self) -> bool {
        self.mode == Mode::Replace || (self.mode == Mode::Merge && is_one_file(&self.feed))
    }
}

// === impl Parts ===

impl Parts {
    fn add(&mut self, feed: &str, name: &str, bytes: &[u8], wanted: Wanted<'_>) {
        let vendor = vulndb::vendor(feed);
        let extension = match (feed, vendor) {
            (_, Some(vendor)) => vendor.extension(),
            (EPSS, _) => "csv",
            _ => "json",
        };
        // A mirror has lists beside its records.
        if !name.to_ascii_lowercase().ends_with(extension) {
            return;
        }
        self.records += 1;
        let added = match (feed, vendor) {
            (_, Some(vendor)) => self.add_vendors(vendor, bytes, wanted),
            (KEV, _) => vulndb::read_kev(feed, bytes)
                .map(|found| self.add_exploitation(feed, found))
                .map_err(anyhow::Error::from),
            (EPSS, _) => vulndb::read_epss(feed, bytes)
                .map(|found| self.add_exploitation(feed, found))
                .map_err(anyhow::Error::from),
            (_, None) => self.add_record(feed, bytes, wanted),
        };
        if let Err(error) = added {
            self.refuse(name, &error);
        }
    }

    fn add_record(&mut self, feed: &str, bytes: &[u8], wanted: Wanted<'_>) -> anyhow::Result<()> {
        let advisory = Advisory::parse(bytes)?;
        for (key, part) in advisory.split(feed) {
            self.add_part(key, part, wanted);
        }
        self.ids.insert(advisory.id().to_owned());
        Ok(())
    }

    fn add_vendors(
        &mut self,
        vendor: &dyn Vendor,
        bytes: &[u8],
        wanted: Wanted<'_>,
    ) -> anyhow::Result<()> {
        // What is read before something is wrong must not count.
        let mut parts = Self::default();
        let said = vendor.read(bytes, &mut |key, part| parts.add_part(key, part, wanted))?;
        for (key, mut part) in parts.by_shard {
            self.by_shard.entry(key).or_default().append(&mut part);
        }
        self.ecosystems.append(&mut parts.ecosystems);
        // A file of many records counts as many.
        let records = said.ids.len() + said.unreadable.len();
        self.records += records.saturating_sub(1);
        self.malformed += said.unreadable.len();
        self.ids.extend(said.ids);
        self.unreadable.extend(said.unreadable);
        let room = PROBLEMS_MAX.saturating_sub(self.problems.len());
        self.problems.extend(said.problems.into_iter().take(room));
        Ok(())
    }

    fn add_part(&mut self, key: ShardKey, part: ShardAdvisory, wanted: Wanted<'_>) {
        let is_wanted = wanted.is_none_or(|wanted| {
            wanted.contains(&Lookup {
                ecosystem: key.ecosystem.clone(),
                name: part.package.clone(),
            })
        });
        if !self.ecosystems.contains(&key.ecosystem) {
            self.ecosystems.insert(key.ecosystem.clone());
        }
        if is_wanted {
            self.by_shard.entry(key).or_default().push(part);
        }
    }

    fn add_exploitation(&mut self, catalog: &str, found: Vec<Exploitation>) {
        for one in found {
            self.ids.insert(one.cve.clone());
            let key = ShardKey::of(catalog, &one.cve);
            self.exploitation.entry(key).or_default().push(one);
        }
    }

    fn refuse(&mut self, name: &str, error: &anyhow::Error) {
        self.malformed += 1;
        let file = name.rsplit('/').next().unwrap_or(name);
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        self.unreadable.insert(stem.to_owned());
        // Vendors write ids small in the names of files.
        self.unreadable.insert(stem.to_ascii_uppercase());
        if self.problems.len() < PROBLEMS_MAX {
            self.problems
                .push(format!("`{}`: {error:#}", name.escape_debug()));
        }
    }

    /// What is to stand in a shard after these parts: others' as it was, and of the feed's own what
    /// stays and what comes.
    fn put_into(&mut self, before: &Shard, key: &ShardKey, import: &Import) -> Shard {
        let stays = |one: &&ShardAdvisory| {
            one.feed != import.feed
                || if import.is_whole() {
                    self.unreadable.contains(&one.id)
                } else {
                    !self.ids.contains(&one.id)
                }
        };
        let mut after: Vec<ShardAdvisory> =
            before.advisories().iter().filter(stays).cloned().collect();
        after.extend(self.by_shard.remove(key).into_iter().flatten());
        let others = before.exploitation().iter();
        let mut exploitation: Vec<Exploitation> = others
            .filter(|one| one.feed != import.feed)
            .cloned()
            .collect();
        exploitation.extend(self.exploitation.remove(key).into_iter().flatten());
        Shard::of(after, exploitation)
    }

    /// The shards of these parts alone, and what a feed of them would cover.
    pub(crate) fn into_shards(self) -> (BTreeMap<ShardKey, Shard>, BTreeSet<String>) {
        let mut shards: BTreeMap<ShardKey, Shard> = BTreeMap::new();
        for (key, advisories) in self.by_shard {
            shards.insert(key, Shard::new(advisories));
        }
        for (key, exploitation) in self.exploitation {
            shards.insert(key, Shard::of(Vec::new(), exploitation));
        }
        (shards, self.ecosystems)
    }

    /// What an export brings is not parsed again: only its size is told.
    pub(crate) fn of_export(records: u64) -> Self {
        Self {
            records: usize::try_from(records).unwrap_or(usize::MAX),
            ..Self::default()
        }
    }

    /// How many records were read, and what was wrong with the first of those that are unusable.
    pub(crate) fn tally(&self) -> (usize, usize, &[String]) {
        (self.records, self.malformed, &self.problems)
    }

    /// The result: a new revision where something differs.
    pub(crate) fn staged(
        self,
        old: &AdvisoryManifest,
        mut manifest: AdvisoryManifest,
        shards: BTreeMap<Digest, Bytes>,
    ) -> Staged {
        let is_new = manifest != *old;
        if is_new {
            manifest.revision += 1;
        }
        let changed = manifest.changed_since(old).into_iter().cloned().collect();
        Staged {
            imported: Imported {
                manifest,
                changed,
                records: self.records,
                malformed: self.malformed,
                problems: self.problems,
            },
            is_new,
            shards,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
