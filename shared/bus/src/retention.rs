//! Forgets images that no source and no node has any more, a retention after the last of their names
//! was gone, and what else in `tw_refs` has no use after that time.
//!
//! A registry says that a name is gone. Two kinds of names have nobody who would: those of a source
//! that was taken out of the configuration, and those of images that only nodes had. So the pass notes
//! these itself as gone: the ones of a source that is not configured, and the ones that no node reports
//! any more; both have their name back when somebody finds them again.
//!
//! Every role deletes daily what it alone writes. The router begins: it deletes the `known` record of
//! an image, and only in the state in which it was found to be over, so that an image stays that
//! somebody finds again meanwhile. A record of another kind is deleted by its role once its image is
//! not known. What these named is collected by the next pass over objects ([`crate::collector`]).
//! Should an image come back while its records go, it has no scan, and is scanned at the next look
//! around its source.
//!
//! What is deleted stands as a marker for who follows the buckets. Who collects objects sweeps
//! markers away after [`MARKERS_FOR`]; a follower that was away for longer keeps what it knew until
//! it begins anew.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chassis::Cx;
use futures::FutureExt as _;
use jiff::Timestamp;
use model::{
    Digest, Known, Partition, RecordKey, RefRecord, ScanRequestRecord, SeenReference, Slug,
    TagRecord, What,
    event::{NODES, REFS, images_bucket},
    runtime::NodeRecord,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    Bus,
    collector::Named,
    consume::Arrived,
    daily,
    error::{PutError, StoreError},
    random,
    reader::{Reader, state},
    store::{Store, is_marker},
    subject, topology,
    wire::{Raw, Wire},
};

/// How long a deleted key stands as a marker.
const MARKERS_FOR: Duration = Duration::from_hours(7 * 24);

/// For how long it is known what became of a scan request, as long as its event: CI makes some with
/// every build, and the server holds each name in memory.
const REQUESTS_FOR: Duration = Duration::from_hours(7 * 24);

/// For how long a record stays whose image is not known: who writes it may have read `known` before.
const ORPHANS_FOR: Duration = Duration::from_hours(1);

/// The sources that are configured, each with its tenant before it.
pub type ConfiguredSources = HashSet<(Slug, Slug)>;

/// The router's pass.
struct Pass<'a> {
    store: &'a Store,
    wire: Wire,
    sources: &'a ConfiguredSources,
    now: Timestamp,
    /// What was over before it is forgotten.
    before: Timestamp,
    /// The same of requests.
    asked_before: Timestamp,
    /// What nodes have, as their runtimes call it: indexes, manifests and configs.
    on_nodes: HashSet<Digest>,
    /// Images that stay, and a few more.
    alive: Named,
    /// How many keys went.
    gone: u64,
}

/// A key of a bucket as it stands.
struct Found {
    key: String,
    stored_at: Timestamp,
    raw: Raw,
}

impl Bus {
    /// Forgets images and names from time to time, where no other router does, until `cx` stops. What
    /// another source than `sources` had is gone.
    pub fn forget_images(&self, cx: &Cx, sources: ConfiguredSources) {
        let Some(retention) = self.0.config.forget_after() else {
            return;
        };
        let sources = Arc::new(sources);
        daily::run(self, cx, "retention.known", move |bus| {
            let sources = Arc::clone(&sources);
            let pass = async move {
                let gone = bus.forget_after(retention, &sources).await?;
                tracing::info!("forgot {gone} images and names that nobody has any more");
                Ok(())
            };
            pass.boxed()
        });
    }

    /// Deletes records of one kind whose images are forgotten, from time to time, where no other
    /// process of the role does, until `cx` stops.
    pub fn forget_records(&self, cx: &Cx, kind: RecordKind) {
        daily::run(self, cx, kind.lease(), move |bus| {
            let pass = async move {
                let gone = bus.forget_orphans(kind, ORPHANS_FOR).await?;
                tracing::info!("deleted {gone} records of images that are not known any more");
                Ok(())
            };
            pass.boxed()
        });
    }

    /// The router's pass; gives how many keys went. Where something cannot be read, it ends before
    /// more is deleted.
    async fn forget_after(
        &self,
        retention: Duration,
        sources: &ConfiguredSources,
    ) -> Result<u64, StoreError> {
        let store = &self.0.store;
        let mut pass = Pass {
            store,
            wire: self.reading().await?,
            sources,
            now: store.stored_before(Duration::ZERO)?,
            before: store.stored_before(retention)?,
            asked_before: store.stored_before(retention.min(REQUESTS_FOR))?,
            on_nodes: HashSet::new(),
            alive: Named::new(random::number()),
            gone: 0,
        };
        pass.read_nodes().await?;
        for partition in Partition::all() {
            pass.images(&images_bucket(partition)).await?;
        }
        pass.names().await?;
        Ok(pass.gone)
    }

    /// Deletes records of a kind that were written so long ago and whose image is not known.
    async fn forget_orphans(&self, kind: RecordKind, age: Duration) -> Result<u64, StoreError> {
        let (store, wire) = (&self.0.store, self.reading().await?);
        let before = store.stored_before(age)?;
        let mut gone = 0;
        for partition in Partition::all() {
            let bucket = images_bucket(partition);
            let (mut known, mut ours) = (HashSet::new(), Vec::new());
            let mut reading = Reading::begin(&wire, &bucket, true).await?;
            while let Some(found) = reading.next().await? {
                let Ok(key) = found.key.parse::<RecordKey>() else {
                    continue;
                };
                if is_marker(&found.raw.headers) {
                    continue;
                }
                if key.what == What::Known {
                    known.insert((key.tenant, key.image));
                } else if kind.is_of(&key.what) && found.stored_at < before {
                    ours.push((key, found.raw.sequence));
                }
            }
            reading.close().await;
            for (key, revision) in ours {
                let is_known = known.contains(&(key.tenant.clone(), key.image));
                if !is_known && delete(store, &bucket, &key.to_string(), revision).await? {
                    gone += 1;
                }
            }
        }
        Ok(gone)
    }

    /// Takes away what is left of keys that were deleted so long ago; gives how many.
    pub(crate) async fn sweep_markers(&self) -> Result<u64, StoreError> {
        self.sweep_markers_after(MARKERS_FOR).await
    }

    async fn sweep_markers_after(&self, age: Duration) -> Result<u64, StoreError> {
        let wire = self.reading().await?;
        let before = self.0.store.stored_before(age)?;
        let mut gone = 0;
        let buckets = Partition::all().map(images_bucket);
        for bucket in buckets.chain([REFS.to_owned()]) {
            let mut reading = Reading::begin(&wire, &bucket, true).await?;
            while let Some(found) = reading.next().await? {
                if found.stored_at < before && is_marker(&found.raw.headers) {
                    purge(&wire, &bucket, &found).await?;
                    gone += 1;
                }
            }
            reading.close().await;
        }
        Ok(gone)
    }

    async fn reading(&self) -> Result<Wire, StoreError> {
        let wire = self.0.following().await;
        wire.map_err(|error| StoreError::unavailable("following", &error))
    }
}

/// The records that a role writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// [`What::Scanned`], the scanner's.
    Scanned,
    /// [`What::Assessed`], the matcher's.
    Assessed,
    /// [`What::Judged`], policy's.
    Judged,
}

// === impl RecordKind ===

impl RecordKind {
    const fn lease(self) -> &'static str {
        match self {
            Self::Scanned => "retention.scanned",
            Self::Assessed => "retention.assessed",
            Self::Judged => "retention.judged",
        }
    }

    const fn is_of(self, what: &What) -> bool {
        matches!(
            (self, what),
            (Self::Scanned, What::Scanned)
                | (Self::Assessed, What::Assessed)
                | (Self::Judged, What::Judged(_))
        )
    }
}

// === impl Pass ===

impl Pass<'_> {
    /// Notes what nodes have that were heard of within the retention, with the images behind it.
    async fn read_nodes(&mut self) -> Result<(), StoreError> {
        let mut behind = HashSet::new();
        let mut reading = Reading::begin(&self.wire, NODES, false).await?;
        while let Some(found) = reading.next().await? {
            let Some(of_node) = found.key.strip_suffix(".reported") else {
                continue;
            };
            let tenant = of_node.split('.').next().map(str::parse::<Slug>);
            let (false, Some(Ok(tenant))) = (is_marker(&found.raw.headers), tenant) else {
                continue;
            };
            let node: Option<NodeRecord> = value(self.store, NODES, found).await?;
            if let Some(node) = node.filter(|node| node.received_at > self.before) {
                behind.extend(held(&node).map(|digest| RefRecord::key(&tenant, digest)));
                self.on_nodes.extend(held(&node));
            }
        }
        reading.close().await;
        for key in behind {
            if let Some(leads) = self.store.get::<RefRecord>(REFS, &key).await? {
                self.on_nodes.extend(leads.body.images);
            }
        }
        Ok(())
    }

    /// Forgets images of a bucket, and notes which names are gone or back.
    async fn images(&mut self, bucket: &str) -> Result<(), StoreError> {
        let (mut over, mut renamed) = (Vec::new(), Vec::new());
        let mut reading = Reading::begin(&self.wire, bucket, false).await?;
        while let Some(found) = reading.next().await? {
            let Ok(key) = found.key.parse::<RecordKey>() else {
                continue;
            };
            if key.what != What::Known || is_marker(&found.raw.headers) {
                continue;
            }
            let (revision, stored_at) = (found.raw.sequence, found.stored_at);
            let known: Option<Known> = value(self.store, bucket, found).await?;
            // An image without names was noted when its record was written.
            let is_old = stored_at < self.before;
            if is_old
                && known
                    .as_ref()
                    .is_some_and(|known| self.is_over(key.image, known))
            {
                over.push((key, revision));
                continue;
            }
            self.alive.note(&key.image);
            if let Some(names) = known.and_then(|known| self.names_now(&key, known)) {
                renamed.push((key, names, revision));
            }
        }
        reading.close().await;
        for (key, known, revision) in renamed {
            match self.store.put_record(&key, &known, revision).await {
                // Somebody wrote it meanwhile, and the next pass looks again.
                Ok(_) | Err(PutError::Conflict) => {}
                Err(PutError::Store(error)) => return Err(error),
            }
        }
        for (key, revision) in over {
            if delete(self.store, bucket, &key.to_string(), revision).await? {
                self.gone += 1;
            } else {
                self.alive.note(&key.image);
            }
        }
        Ok(())
    }

    /// Whether no source has had the image since before the retention, and no node has it.
    fn is_over(&self, image: Digest, known: &Known) -> bool {
        let mut names = known.references.iter();
        let is_gone = names.all(|seen| seen.gone_at.is_some_and(|gone| gone < self.before));
        is_gone && !self.is_on_node(image, known)
    }

    fn is_on_node(&self, image: Digest, known: &Known) -> bool {
        let of_image = [image].into_iter().chain(known.config);
        let mut digests = of_image.chain(known.indexes.iter().copied());
        digests.any(|digest| self.on_nodes.contains(&digest))
    }

    /// The record with the names that nobody else would say to be gone, or back, if there are any.
    fn names_now(&self, key: &RecordKey, mut known: Known) -> Option<Known> {
        let is_on_node = self.is_on_node(key.image, &known);
        let gone_at = |seen: &SeenReference| {
            let since = seen.gone_at.or(Some(self.now));
            match () {
                () if seen.source == Slug::node_source() => since.filter(|_| !is_on_node),
                () if self.is_configured(&key.tenant, &seen.source) => seen.gone_at,
                () => since,
            }
        };
        let mut is_other = false;
        for seen in &mut known.references {
            let gone_at = gone_at(seen);
            is_other |= gone_at != seen.gone_at;
            seen.gone_at = gone_at;
        }
        is_other.then_some(known)
    }

    fn is_configured(&self, tenant: &Slug, source: &Slug) -> bool {
        self.sources.contains(&(tenant.clone(), source.clone()))
    }

    /// Forgets keys of `tw_refs`.
    async fn names(&mut self) -> Result<(), StoreError> {
        let mut reading = Reading::begin(&self.wire, REFS, false).await?;
        while let Some(found) = reading.next().await? {
            if !is_marker(&found.raw.headers) {
                self.name(found).await?;
            }
        }
        reading.close().await;
        Ok(())
    }

    async fn name(&mut self, found: Found) -> Result<(), StoreError> {
        let (key, revision) = (found.key.clone(), found.raw.sequence);
        let is_old = found.stored_at < self.before;
        let is_answered = found.stored_at < self.asked_before;
        let mut parts = key.split('.');
        let (Some(Ok(tenant)), Some(kind)) = (parts.next().map(str::parse), parts.next()) else {
            return Ok(());
        };
        let is_over = match kind {
            "tag" => match value(self.store, REFS, found).await? {
                Some(tag) => self.tag(&tenant, (&key, revision), tag).await? && is_old,
                None => false,
            },
            // How far the look around a source got, and when its repositories were looked at.
            "crawl" | "checked" => {
                let source = parts.next().map(str::parse);
                matches!(source, Some(Ok(source)) if !self.is_configured(&tenant, &source))
            }
            "scan" if is_answered => {
                let request: Option<ScanRequestRecord> = value(self.store, REFS, found).await?;
                request.is_some_and(|request| request.resolved_at < self.asked_before)
            }
            hex if is_old && Digest::from_hex(hex).is_some() && parts.next().is_none() => {
                match value::<RefRecord>(self.store, REFS, found).await? {
                    Some(leads) => self.lead_nowhere(&tenant, &leads.images).await?,
                    None => false,
                }
            }
            _ => false,
        };
        if is_over && delete(self.store, REFS, &key, revision).await? {
            self.gone += 1;
        }
        Ok(())
    }

    /// Whether a tag is over. That it was deleted stays known for as long as late news of it may come.
    async fn tag(
        &self,
        tenant: &Slug,
        (key, revision): (&str, u64),
        tag: TagRecord,
    ) -> Result<bool, StoreError> {
        let is_past = tag.since < self.before;
        if tag.digest.is_none() {
            return Ok(is_past);
        }
        if tag.source == Slug::node_source() {
            return Ok(is_past && self.lead_nowhere(tenant, &tag.images).await?);
        }
        if self.is_configured(tenant, &tag.source) {
            return Ok(false);
        }
        let gone = TagRecord {
            digest: None,
            images: Vec::new(),
            since: self.now,
            ..tag
        };
        match self.store.put(REFS, key, &gone, Some(revision)).await {
            Ok(_) | Err(PutError::Conflict) => Ok(false),
            Err(PutError::Store(error)) => Err(error),
        }
    }

    /// Whether all images behind a tag, an index or a config are forgotten.
    async fn lead_nowhere(&self, tenant: &Slug, images: &[Digest]) -> Result<bool, StoreError> {
        if images.iter().any(|image| self.alive.has(image)) {
            return Ok(false);
        }
        for image in images {
            // It may have come back since.
            let key = RecordKey::new(tenant, *image, What::Known).to_string();
            let bucket = images_bucket(image.partition());
            if self.store.exists(&bucket, &key).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a key was deleted that nobody wrote since it was read.
async fn delete(store: &Store, bucket: &str, key: &str, revision: u64) -> Result<bool, StoreError> {
    match store.delete_at(bucket, key, revision).await {
        Ok(()) => Ok(true),
        Err(PutError::Conflict) => Ok(false),
        Err(PutError::Store(error)) => Err(error),
    }
}

/// Takes away a marker; what was written after it stays.
async fn purge(wire: &Wire, bucket: &str, marker: &Found) -> Result<(), StoreError> {
    let asked = format!("STREAM.PURGE.{}", topology::bucket_stream(bucket));
    let filter = subject::of_key(bucket, &marker.key);
    let which = json!({ "filter": filter, "seq": marker.raw.sequence + 1 });
    let purged = wire.api(&asked, &which).await;
    purged.map_err(|error| StoreError::unavailable(bucket, &error))?;
    Ok(())
}

/// What a node has on disk or runs, by every digest that leads to it.
fn held(node: &NodeRecord) -> impl Iterator<Item = Digest> {
    let running = node.report.containers.iter();
    let at_rest = node.report.images.iter();
    let running = running.map(|one| (one.image_id, &one.repo_digests));
    let at_rest = at_rest.map(|one| (Some(one.id), &one.repo_digests));
    running.chain(at_rest).flat_map(|(id, names)| {
        let named = names
            .iter()
            .filter_map(|name| name.rsplit_once('@')?.1.parse().ok());
        id.into_iter().chain(named)
    })
}

async fn value<T: DeserializeOwned>(
    store: &Store,
    bucket: &str,
    found: Found,
) -> Result<Option<T>, StoreError> {
    let stored = store.value(bucket, &found.key, found.raw).await?;
    Ok(stored.map(|stored| stored.body))
}

/// Reads the keys of a bucket up to its end at the start.
struct Reading {
    reader: Reader,
    bucket: String,
    last: u64,
}

// === impl Reading ===

impl Reading {
    /// Begins, without bodies where only keys matter.
    async fn begin(wire: &Wire, bucket: &str, headers_only: bool) -> Result<Self, StoreError> {
        let stream = topology::bucket_stream(bucket);
        let end = state(wire, &stream).await;
        let end = end.map_err(|error| StoreError::unavailable(bucket, &error))?;
        let reader = Reader::new(wire.clone(), stream, 1).once();
        Ok(Self {
            reader: if headers_only {
                reader.headers_only()
            } else {
                reader
            },
            bucket: bucket.to_owned(),
            last: end.last,
        })
    }

    async fn next(&mut self) -> Result<Option<Found>, StoreError> {
        let failed = |error| StoreError::unavailable(&self.bucket, &error);
        while let Some(arrived) = self.reader.next_until(self.last).await.map_err(failed)? {
            if let Some((_, key)) = subject::key_of(&arrived.subject) {
                let key = key.to_owned();
                return Ok(Some(Found::new(key, *arrived)));
            }
        }
        Ok(None)
    }

    async fn close(self) {
        self.reader.close().await;
    }
}

// === impl Found ===

impl Found {
    fn new(key: String, arrived: Arrived) -> Self {
        Self {
            key,
            stored_at: arrived.place.stored_at,
            raw: Raw {
                sequence: arrived.place.stream_sequence,
                headers: arrived.headers,
                body: arrived.body,
            },
        }
    }
}

#[cfg(test)]
mod tests;
