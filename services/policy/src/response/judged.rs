//! What verdicts say of images, kept between two looks.
//!
//! An answer takes about four keys: what the digest leads to, the verdicts of the image, its
//! assessment, and the mark of its partition. So a thousand images take 4,000 reads, once, and the
//! same once more every [`ANEW`]; in between only what changed is read again, which the buckets
//! themselves tell. Nothing is kept while nobody follows them, nor shortly after a change, for a read
//! may be older than the change that it answers.

use std::{
    collections::{HashMap, HashSet},
    pin::Pin,
    time::Duration,
};

use bus::{Bus, Store, StoreError};
use chassis::Cx;
use futures::{Stream, StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use model::{
    Decision, Digest, Partition, RecordKey, RefRecord, Slug, answer,
    event::{ADVISORIES, REFS, images_bucket},
};

/// After so long an image is read again, whatever changed.
const ANEW: Duration = Duration::from_mins(15);
/// So long after a change of an image nothing that is read of it is kept.
const SETTLES: SignedDuration = SignedDuration::from_mins(1);
/// Characters of a reason.
const REASON_MAX: usize = 200;

/// What is known of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) decision: Decision,
    pub(crate) reason: String,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// What a digest leads to.
    Name(Slug, Digest),
    /// A record of an image.
    Image(Slug, Digest),
    /// For which advisory data a partition holds.
    Partition(Partition),
}

/// Changes, as they come.
pub(crate) type Changes = Pin<Box<dyn Stream<Item = Changed> + Send>>;

/// What verdicts say of images, by the digests that lead to them.
#[derive(Debug, Default)]
pub(crate) struct Judgements {
    follows: bool,
    known: HashMap<(Slug, Digest), Known>,
    /// Digests that the look going on asked for.
    asked: HashSet<(Slug, Digest)>,
    /// Images and digests that changed of late.
    changed: HashMap<(Slug, Digest), Timestamp>,
    swept: HashMap<Partition, Timestamp>,
}

/// What was read of a digest.
#[derive(Debug)]
struct Known {
    judgement: Option<Judgement>,
    /// The images behind it.
    images: Vec<Digest>,
    read_at: Timestamp,
    /// When one of its verdicts does not hold any more.
    until: Option<Timestamp>,
}

/// Follows all that an answer rests on, from now on.
pub(crate) async fn follow(cx: &Cx, bus: &Bus) -> Result<Changes, bus::BusError> {
    let mut all: Vec<Changes> = Vec::new();
    let images = Partition::all().map(images_bucket);
    for bucket in images.chain([REFS, ADVISORIES].map(ToOwned::to_owned)) {
        let last = bus.last_sequence(&bucket).await?;
        let changes = bus.follow(cx, &bucket, last.saturating_add(1));
        let read = move |key: String| parse(&bucket, &key);
        all.push(Box::pin(
            changes.filter_map(move |change| std::future::ready(read(change.key))),
        ));
    }
    Ok(Box::pin(stream::select_all(all)))
}

fn parse(bucket: &str, key: &str) -> Option<Changed> {
    match bucket {
        REFS => {
            let (tenant, name) = key.split_once('.')?;
            let digest = format!("sha256:{name}").parse().ok()?;
            Some(Changed::Name(tenant.parse().ok()?, digest))
        }
        ADVISORIES => {
            let number = key.strip_prefix("swept.")?;
            let mut all = Partition::all();
            let of = all.find(|one| one.to_string() == number)?;
            Some(Changed::Partition(of))
        }
        _ => {
            let key: RecordKey = key.parse().ok()?;
            Some(Changed::Image(key.tenant, key.image))
        }
    }
}

// === impl Judgements ===

impl Judgements {
    /// Changes are heard of from now on.
    pub(crate) fn follows(&mut self) {
        self.forget();
        self.follows = true;
    }

    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.changed.clear();
        self.swept.clear();
    }

    /// Something changed: what rests on it is read again.
    pub(crate) fn hear(&mut self, change: Changed, now: Timestamp) {
        match change {
            Changed::Name(tenant, digest) | Changed::Image(tenant, digest) => {
                self.changed.insert((tenant, digest), now);
            }
            Changed::Partition(partition) => drop(self.swept.insert(partition, now)),
        }
    }

    /// A look begins.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        // What was read before is read again by then.
        let is_new =
            |at: &Timestamp| now.duration_since(*at).unsigned_abs() < ANEW + SETTLES.unsigned_abs();
        self.changed.retain(|_, at| is_new(at));
        self.swept.retain(|_, at| is_new(at));
        self.asked.clear();
    }

    /// A look ended: what it did not ask for is on no node any more.
    pub(crate) fn end(&mut self) {
        let asked = &self.asked;
        let keeps = self.follows;
        self.known.retain(|at, _| keeps && asked.contains(at));
    }

    /// What verdicts say of what a digest leads to: the worst of them.
    pub(crate) async fn of(
        &mut self,
        store: &Store,
        (tenant, name): (&Slug, Digest),
        now: Timestamp,
    ) -> Result<Option<Judgement>, StoreError> {
        let at = (tenant.clone(), name);
        let is_first = self.asked.insert(at.clone());
        if let Some(known) = self.known.get(&at) {
            let holds = known.until.is_none_or(|until| now < until)
                && now.duration_since(known.read_at).unsigned_abs() < ANEW
                && !(is_first && self.settles(&at, known));
            if holds || !is_first {
                return Ok(known.judgement.clone());
            }
        }
        let known = read(store, (tenant, name), now).await?;
        let judgement = known.judgement.clone();
        self.known.insert(at, known);
        Ok(judgement)
    }

    /// Whether something that a digest leads to changed since it was read, or too shortly before.
    fn settles(&self, at: &(Slug, Digest), known: &Known) -> bool {
        let is_after = |changed: Option<&Timestamp>| {
            changed.is_some_and(|at| known.read_at.duration_since(*at) < SETTLES)
        };
        let of_image = |image: &Digest| {
            let image_at = (at.0.clone(), *image);
            is_after(self.changed.get(&image_at)) || is_after(self.swept.get(&image.partition()))
        };
        is_after(self.changed.get(at)) || known.images.iter().any(of_image)
    }
}

/// The worst verdict of what a digest names, as it reads now: an image, or those behind an index or
/// a config.
async fn read(
    store: &Store,
    (tenant, name): (&Slug, Digest),
    now: Timestamp,
) -> Result<Known, StoreError> {
    let key = RefRecord::key(tenant, name);
    let behind = store.get::<RefRecord>(REFS, &key).await?;
    let images = behind.map_or_else(|| vec![name], |stored| stored.body.images);
    let mut verdicts = Vec::new();
    for image in &images {
        let answers = store.verdicts(tenant, *image, now).await?;
        verdicts.extend(answers.into_iter().map(|answer| answer.verdict));
    }
    let ends = verdicts.iter().filter_map(|verdict| verdict.valid_until);
    let until = ends.filter(|end| *end > now).min();
    let judgement = answer::worst(&verdicts).map(|verdict| {
        let reason = verdict.reasons.first();
        let reason = reason.map_or("", |reason| reason.message.as_str());
        Judgement {
            decision: verdict.decision,
            reason: reason.chars().take(REASON_MAX).collect(),
        }
    });
    Ok(Known {
        judgement,
        images,
        read_at: now,
        until,
    })
}

#[cfg(test)]
mod tests {
    use model::What;

    use super::*;

    #[test]
    fn keys_of_the_buckets_name_what_changed() {
        let (tenant, digest) = (Slug::default_tenant(), Digest::of(b"image"));
        let key = RecordKey::new(&tenant, digest, What::Assessed).to_string();
        let bucket = images_bucket(digest.partition());
        let image = Changed::Image(tenant.clone(), digest);
        assert_eq!(parse(&bucket, &key), Some(image));
        let name = Changed::Name(tenant.clone(), digest);
        assert_eq!(parse(REFS, &RefRecord::key(&tenant, digest)), Some(name));
        let partition = digest.partition();
        let swept = parse(ADVISORIES, &format!("swept.{partition}"));
        assert_eq!(swept, Some(Changed::Partition(partition)));
        for key in ["swept.", "swept.99", "feed.debian", "x"] {
            assert_eq!(parse(ADVISORIES, key), None, "{key}");
        }
    }
}
