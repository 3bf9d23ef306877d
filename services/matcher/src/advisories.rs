//! The local copy of the advisories: manifest, shards by content, and where each advisory stands.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use anyhow::Context as _;
use bytes::Bytes;
use cache::{Database, Schema};
use model::{AdvisoryManifest, Digest, ShardKey};
use vulndb::{Lookup, Memo, SeverityBy, Shard, ShardAdvisory, ShardError, Shards};

use crate::{Latest, stage};

/// Raised when what is stored changes its meaning: the database is then made anew.
const VERSION: u32 = 3;
pub(crate) const META: &str = "meta";
const SHARDS: &str = "shards";
/// In place of a feed, which always has a name: shards by the CVEs that their advisories name.
const NAMES: &str = "";
const IDS: &str = "ids";
pub(crate) const LOOKUPS: &str = "lookups";
pub(crate) const LISTS: &str = "lists";
pub(crate) const MEMBERS: &str = "members";
pub(crate) const IMAGES: &str = "images";
const SCHEMA: Schema<'static> = Schema {
    version: VERSION,
    families: &[META, SHARDS, IDS, LOOKUPS, LISTS, MEMBERS, IMAGES],
};

/// How many revisions are kept, so that a sweep can compare with the one before.
const HISTORY: usize = 4;
/// Encoded bytes of the shards that are kept decoded; decoded they take a few times as much.
const DECODED_BYTES_MAX: usize = 32 << 20;

/// The local copy of the advisories.
pub struct Advisories {
    /// Absent where a one-off scan found none.
    database: Option<Arc<Database>>,
    /// Shards that were read for one scan and are in no database.
    memory: HashMap<Digest, Arc<Shard>>,
    current: RwLock<Current>,
    decoded: Mutex<Decoded>,
    memo: Memo,
    severity: SeverityBy,
}

/// The revision in force.
#[derive(Clone)]
struct Current {
    manifest: Arc<AdvisoryManifest>,
    /// The ecosystems that its feeds cover.
    covered: Arc<HashSet<String>>,
}

/// The advisories at one revision, for as long as it is held.
pub(crate) struct Snapshot<'a> {
    advisories: &'a Advisories,
    current: Current,
}

/// Decoded shards, in two generations: when the young one is full, the old one is dropped.
#[derive(Default)]
struct Decoded {
    young: HashMap<Digest, (Arc<Shard>, usize)>,
    young_bytes: usize,
    old: HashMap<Digest, (Arc<Shard>, usize)>,
}

// === impl Advisories ===

impl Advisories {
    /// Opens the copy in a directory, making it where it is missing.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let database = Database::open(dir, &SCHEMA)?;
        Self::of(Some(Arc::new(database)))
    }

    /// Opens the copy to read it. Where there is none, or somebody writes it, it is empty, and what
    /// is matched with it has the gap `no-advisories`.
    pub fn open_read_only(dir: &Path) -> anyhow::Result<Self> {
        Self::of(Database::open_read_only(dir, &SCHEMA).map(Arc::new))
    }

    /// Advisories that are in memory and nowhere else.
    pub(crate) fn in_memory(
        manifest: AdvisoryManifest,
        memory: HashMap<Digest, Arc<Shard>>,
    ) -> Self {
        Self {
            memory,
            ..Self::with(None, manifest)
        }
    }

    fn of(database: Option<Arc<Database>>) -> anyhow::Result<Self> {
        let manifest = match &database {
            Some(database) => database.get_as(META, b"manifest")?,
            None => None,
        };
        Ok(Self::with(database, manifest.unwrap_or_default()))
    }

    fn with(database: Option<Arc<Database>>, manifest: AdvisoryManifest) -> Self {
        Self {
            database,
            memory: HashMap::new(),
            current: RwLock::new(Current::of(manifest)),
            decoded: Mutex::new(Decoded::default()),
            memo: Memo::default(),
            severity: SeverityBy::default(),
        }
    }

    /// The same, with another word that decides about severities.
    #[must_use]
    pub fn rated_by(self, severity: SeverityBy) -> Self {
        Self { severity, ..self }
    }

    /// How packages are matched with these.
    pub(crate) fn limits(&self) -> vulndb::Limits {
        vulndb::Limits {
            severity: self.severity,
            ..vulndb::Limits::default()
        }
    }

    /// What decides about results beside packages and advisories: the rules of matching, and whose
    /// word decides about severities.
    pub(crate) fn rules(&self) -> String {
        let severity = match self.severity {
            SeverityBy::Vendor => "vendor",
            SeverityBy::Cvss => "cvss",
            SeverityBy::Highest => "highest",
        };
        format!("{} {severity}", vulndb::RULES)
    }

    /// The revision in force here.
    pub fn manifest(&self) -> Arc<AdvisoryManifest> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current.manifest)
    }

    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Snapshot {
            advisories: self,
            current: current.clone(),
        }
    }

    /// The database, to keep the index in; `None` for a copy that is not there.
    pub(crate) fn database(&self) -> anyhow::Result<&Arc<Database>> {
        self.database.as_ref().context("there is no local database")
    }

    /// A revision that was in force here not long ago.
    pub(crate) fn at_revision(&self, revision: u64) -> anyhow::Result<Option<AdvisoryManifest>> {
        if revision == 0 {
            return Ok(Some(AdvisoryManifest::default()));
        }
        Ok(self.database()?.get_as(META, &history_key(revision))?)
    }

    /// Those of some shards that are not here.
    pub(crate) fn missing(&self, wanted: BTreeSet<Digest>) -> anyhow::Result<BTreeSet<Digest>> {
        let database = self.database()?;
        let here: HashSet<Digest> = self.manifest().shards.values().copied().collect();
        let mut missing = BTreeSet::new();
        for digest in wanted {
            // Those of the revision in force are here, since it is; reading them all takes long.
            if !here.contains(&digest) && database.get(SHARDS, digest.as_bytes())?.is_none() {
                missing.insert(digest);
            }
        }
        Ok(missing)
    }

    /// The bytes of a shard.
    pub(crate) fn shard_bytes(&self, digest: &Digest) -> anyhow::Result<Vec<u8>> {
        let bytes = self.database()?.get(SHARDS, digest.as_bytes())?;
        bytes.with_context(|| format!("shard `{digest}` is missing"))
    }

    /// Keeps a shard. It is named by its content, so it is harmless when no revision with it is put
    /// into force after all.
    pub(crate) fn keep(&self, digest: &Digest, bytes: &[u8]) -> anyhow::Result<()> {
        anyhow::ensure!(
            Digest::of(bytes) == *digest,
            "shard `{digest}` has other bytes"
        );
        Ok(self.database()?.put(SHARDS, digest.as_bytes(), bytes)?)
    }

    /// Keeps an older revision, so that its shards go when it does.
    pub(crate) fn remember(&self, manifest: &AdvisoryManifest) -> anyhow::Result<()> {
        let database = self.database()?;
        let kept: Option<Vec<u64>> = database.get_as(META, b"history")?;
        let mut kept = kept.unwrap_or_default();
        kept.retain(|revision| *revision != manifest.revision);
        // The next to go.
        kept.insert(0, manifest.revision);
        database.batch(|batch| {
            batch.put_as(META, &history_key(manifest.revision), manifest)?;
            batch.put_as(META, b"history", &kept)
        })?;
        Ok(())
    }

    /// A shard of a manifest, decoded; an empty one where the manifest has none.
    pub(crate) fn shard_of(
        &self,
        manifest: &AdvisoryManifest,
        key: &ShardKey,
    ) -> anyhow::Result<Arc<Shard>> {
        match manifest.shards.get(key) {
            Some(digest) => self
                .decoded(digest)
                .with_context(|| format!("reading shard `{key}`")),
            None => Ok(Arc::default()),
        }
    }

    /// The shards in which an advisory of a feed stands, or any advisory of it.
    pub(crate) fn standing(
        &self,
        feed: &str,
        id: Option<&str>,
    ) -> anyhow::Result<BTreeSet<ShardKey>> {
        let prefix = id.map_or_else(|| id_key(feed, &[]), |id| id_key(feed, &[id, ""]));
        let keys = self
            .database()?
            .scan_prefix(IDS, &prefix, None, usize::MAX)?;
        let mut found = BTreeSet::new();
        for (key, _) in keys {
            let last = key.rsplit(|byte| *byte == 0).next().unwrap_or_default();
            if let Ok(key) = String::from_utf8_lossy(last).parse() {
                found.insert(key);
            }
        }
        Ok(found)
    }

    /// What is here of a feed, for whoever fetches what is new of it.
    pub fn latest(&self, feed: &str) -> anyhow::Result<Latest> {
        let revision = self.manifest().feed_revisions.get(feed).cloned();
        let ids = if revision.is_some() && !stage::is_one_file(feed) {
            self.ids(feed)?
        } else {
            BTreeSet::new()
        };
        Ok(Latest { revision, ids })
    }

    /// The ids of a feed's advisories.
    pub(crate) fn ids(&self, feed: &str) -> anyhow::Result<BTreeSet<String>> {
        let prefix = id_key(feed, &[]);
        let keys = self
            .database()?
            .scan_prefix(IDS, &prefix, None, usize::MAX)?;
        let id_of = |key: &[u8]| {
            let id = key.get(prefix.len()..)?.split(|byte| *byte == 0).next()?;
            Some(String::from_utf8_lossy(id).into_owned())
        };
        Ok(keys.iter().filter_map(|(key, _)| id_of(key)).collect())
    }

    /// The packages that some advisory about a vulnerability speaks of, by the CVE that it is or
    /// has.
    pub(crate) fn named(&self, name: &str) -> anyhow::Result<BTreeSet<Lookup>> {
        let manifest = self.manifest();
        let mut found = BTreeSet::new();
        let keys = if self.database.is_some() {
            self.standing(NAMES, Some(name))?
        } else {
            manifest.shards.keys().cloned().collect()
        };
        for key in keys {
            let shard = self.shard_of(&manifest, &key)?;
            let about = shard.advisories().iter();
            for advisory in about.filter(|advisory| cves(advisory).contains(name)) {
                found.insert(Lookup {
                    ecosystem: key.ecosystem.clone(),
                    name: advisory.package.clone(),
                });
            }
        }
        Ok(found)
    }

    /// Puts a revision into force: all at once, or not at all. `shards` are those that are new here.
    pub(crate) fn install(
        &self,
        manifest: &AdvisoryManifest,
        shards: &BTreeMap<Digest, Bytes>,
    ) -> anyhow::Result<()> {
        let database = self.database()?;
        let old = self.manifest();
        for (digest, bytes) in shards {
            self.keep(digest, bytes)?;
        }
        let moved = self.moved_ids(&old, manifest)?;
        let history = self.history(manifest)?;
        let garbage = self.garbage(manifest, &history)?;
        database.batch(|batch| {
            for key in &moved.gone {
                batch.delete(IDS, key)?;
            }
            for key in &moved.come {
                batch.put(IDS, key, &[])?;
            }
            for revision in &history.dropped {
                batch.delete(META, &history_key(*revision))?;
            }
            for digest in &garbage {
                batch.delete(SHARDS, digest.as_bytes())?;
            }
            batch.put_as(META, &history_key(manifest.revision), manifest)?;
            batch.put_as(META, b"history", &history.kept)?;
            batch.put_as(META, b"manifest", manifest)
        })?;
        // Whoever opens them to read would go through the log of all that came each time.
        database.flush()?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Current::of(manifest.clone());
        self.memo.clear();
        Ok(())
    }

    fn decoded(&self, digest: &Digest) -> anyhow::Result<Arc<Shard>> {
        if let Some(shard) = self.memory.get(digest) {
            return Ok(Arc::clone(shard));
        }
        let lock = || self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shard) = lock().get(digest) {
            return Ok(shard);
        }
        let bytes = self.database()?.get(SHARDS, digest.as_bytes())?;
        let bytes = bytes.with_context(|| format!("shard `{digest}` is missing"))?;
        let shard = Arc::new(Shard::decode(&bytes)?);
        lock().put(*digest, Arc::clone(&shard), bytes.len());
        Ok(shard)
    }

    /// What changes in the list of where advisories stand: entries that go, entries that come.
    fn moved_ids(&self, old: &AdvisoryManifest, new: &AdvisoryManifest) -> anyhow::Result<Moved> {
        let mut moved = Moved::default();
        for key in new.changed_since(old) {
            let name = key.to_string();
            let ids = |shard: &Shard| -> BTreeSet<Vec<u8>> {
                let mut ids = BTreeSet::new();
                for one in shard.advisories() {
                    ids.insert(id_key(&one.feed, &[&one.id, &name]));
                    let cves = cves(one);
                    ids.extend(cves.iter().map(|cve| id_key(NAMES, &[cve, &name])));
                }
                // Of these what matters is which shards a feed has.
                let feeds: BTreeSet<&str> = shard
                    .exploitation()
                    .iter()
                    .map(|one| one.feed.as_str())
                    .collect();
                ids.extend(feeds.into_iter().map(|feed| id_key(feed, &["", &name])));
                ids
            };
            let before = ids(&*self.shard_of(old, key)?);
            let after = ids(&*self.shard_of(new, key)?);
            moved.gone.extend(before.difference(&after).cloned());
            moved.come.extend(after.difference(&before).cloned());
        }
        Ok(moved)
    }

    fn history(&self, manifest: &AdvisoryManifest) -> anyhow::Result<History> {
        let kept: Option<Vec<u64>> = self.database()?.get_as(META, b"history")?;
        let mut kept = kept.unwrap_or_default();
        kept.retain(|revision| *revision != manifest.revision);
        kept.push(manifest.revision);
        let dropped = kept.drain(..kept.len().saturating_sub(HISTORY)).collect();
        Ok(History { kept, dropped })
    }

    /// Shards that only dropped revisions name.
    fn garbage(
        &self,
        manifest: &AdvisoryManifest,
        history: &History,
    ) -> anyhow::Result<BTreeSet<Digest>> {
        let mut garbage = BTreeSet::new();
        for revision in &history.dropped {
            if let Some(dropped) = self.at_revision(*revision)? {
                garbage.extend(dropped.shards.values().copied());
            }
        }
        if garbage.is_empty() {
            return Ok(garbage);
        }
        let mut keep = |kept: &AdvisoryManifest| {
            for digest in kept.shards.values() {
                garbage.remove(digest);
            }
        };
        keep(manifest);
        for revision in &history.kept {
            if let Some(kept) = self.at_revision(*revision)? {
                keep(&kept);
            }
        }
        Ok(garbage)
    }
}

impl std::fmt::Debug for Advisories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Advisories")
            .field("revision", &self.manifest().revision)
            .finish_non_exhaustive()
    }
}

/// Entries of the list of where advisories stand.
#[derive(Default)]
struct Moved {
    gone: BTreeSet<Vec<u8>>,
    come: BTreeSet<Vec<u8>>,
}

/// Revisions that stay and revisions that go.
struct History {
    kept: Vec<u64>,
    dropped: Vec<u64>,
}

// === impl Current ===

impl Current {
    fn of(manifest: AdvisoryManifest) -> Self {
        let covered = manifest.feeds.iter().flat_map(|feed| &feed.coverage);
        Self {
            covered: Arc::new(covered.cloned().collect()),
            manifest: Arc::new(manifest),
        }
    }
}

// === impl Snapshot ===

impl Snapshot<'_> {
    pub(crate) fn manifest(&self) -> &AdvisoryManifest {
        &self.current.manifest
    }
}

impl Shards for Snapshot<'_> {
    fn shard(&self, key: &ShardKey) -> Result<Option<Arc<Shard>>, ShardError> {
        let Some(digest) = self.current.manifest.shards.get(key) else {
            return Ok(None);
        };
        let shard = self.advisories.decoded(digest);
        shard.map(Some).map_err(|error| ShardError {
            key: key.clone(),
            source: error.into(),
        })
    }

    fn covers(&self, ecosystem: &str) -> bool {
        self.current.covered.contains(ecosystem)
    }

    fn memo(&self) -> Option<&Memo> {
        Some(&self.advisories.memo)
    }
}

// === impl Decoded ===

impl Decoded {
    fn get(&mut self, digest: &Digest) -> Option<Arc<Shard>> {
        if let Some((shard, _)) = self.young.get(digest) {
            return Some(Arc::clone(shard));
        }
        // What is used stays: it grows young again.
        let (shard, bytes) = self.old.remove(digest)?;
        self.put(*digest, Arc::clone(&shard), bytes);
        Some(shard)
    }

    fn put(&mut self, digest: Digest, shard: Arc<Shard>, bytes: usize) {
        if self.young_bytes > DECODED_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(digest, (shard, bytes));
    }
}

fn history_key(revision: u64) -> Vec<u8> {
    format!("manifest/{revision:020}").into_bytes()
}

/// The CVEs that an advisory is, has as aliases, or contains.
fn cves(advisory: &ShardAdvisory) -> BTreeSet<&str> {
    let names = advisory.aliases.iter().chain(&advisory.upstream);
    names
        .chain([&advisory.id])
        .map(|name| vulndb::canonical(name))
        .filter(|name| name.starts_with("CVE-"))
        .collect()
}

/// `feed 0 id 0 shard`; none of them holds a zero byte.
fn id_key(feed: &str, rest: &[&str]) -> Vec<u8> {
    let mut key = feed.as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(rest.join("\0").as_bytes());
    key
}
