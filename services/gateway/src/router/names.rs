//! Names: which tags, indexes and configs lead to which images, and since when.

use std::{collections::BTreeSet, fmt};

use bus::{Failure, Outcome};
use jiff::Timestamp;
use model::{
    Digest, ImageRef, Known, RecordKey, RefKind, RefRecord, SeenReference, Slug, TagRecord, What,
    event::REFS,
};
use tracing::warn;

use super::{
    Router,
    lead::{Lead, Seen},
};

/// Names that an image may have; the oldest that are gone are forgotten first.
const REFERENCES_MAX: usize = 1000;

/// Where something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) source: Slug,
    pub(super) registry: String,
    pub(super) repository: String,
}

/// What somebody told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) place: Place,
    pub(super) tag: Option<String>,
    pub(super) digest: Option<Digest>,
    pub(super) at: Timestamp,
}

// === impl Router ===

impl Router {
    /// Notes where a sighting leads: on each image, on index and configs, and on the tag.
    pub(super) async fn sighted(
        &self,
        tenant: &Slug,
        sighting: &Sighting,
        lead: &Lead,
    ) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::none();
        let mut gone_at = None;
        if let Some(tag) = &sighting.tag {
            let Place {
                registry,
                repository,
                ..
            } = &sighting.place;
            let key = TagRecord::key(tenant, registry, repository, tag);
            let stored = self.store.get::<TagRecord>(REFS, &key).await?;
            let later = stored
                .as_ref()
                .filter(|stored| stored.body.since > sighting.at);
            if let Some(later) = later {
                // What is told now has been overtaken already.
                gone_at = (later.body.digest != lead.digest).then_some(later.body.since);
            } else {
                let revision = stored.as_ref().map_or(0, |stored| stored.revision);
                let old = stored.map(|stored| stored.body);
                if old.as_ref().is_none_or(|old| old.digest != lead.digest) {
                    let record = tag_record(sighting, lead);
                    outcome = outcome.put_kv(REFS, &key, &record, Some(revision))?;
                    outcome = self.left(outcome, tenant, sighting, old, lead).await?;
                }
            }
        }
        for image in &lead.images {
            let seen = sighting.seen(gone_at);
            outcome = self.note(outcome, tenant, seen, lead.index, image).await?;
        }
        self.led(outcome, tenant, lead).await
    }

    /// The tag left these images.
    async fn left(
        &self,
        mut outcome: Outcome,
        tenant: &Slug,
        sighting: &Sighting,
        old: Option<TagRecord>,
        lead: &Lead,
    ) -> Result<Outcome, Failure> {
        let names = BTreeSet::from([sighting.tag.clone()]);
        for image in old.into_iter().flat_map(|old| old.images) {
            if lead.images.iter().all(|seen| seen.digest != image) {
                let image = (tenant, image);
                outcome = self
                    .gone(outcome, image, &sighting.place, &names, sighting.at)
                    .await?;
            }
        }
        Ok(outcome)
    }

    /// These names of a repository do not lead to the image any more.
    pub(super) async fn gone(
        &self,
        outcome: Outcome,
        (tenant, image): (&Slug, Digest),
        place: &Place,
        tags: &BTreeSet<Option<String>>,
        at: Timestamp,
    ) -> Result<Outcome, Failure> {
        let key = RecordKey::new(tenant, image, What::Known);
        let Some(stored) = self.store.record::<Known>(&key).await? else {
            return Ok(outcome);
        };
        let mut known = stored.body.clone();
        for seen in &mut known.references {
            if place.is_of(seen) && tags.contains(&seen.tag) && seen.gone_at.is_none() {
                seen.gone_at = Some(at);
            }
        }
        if known == stored.body {
            return Ok(outcome);
        }
        Ok(outcome.put(&key, &known, stored.revision)?)
    }

    async fn note(
        &self,
        outcome: Outcome,
        tenant: &Slug,
        seen: SeenReference,
        index: Option<Digest>,
        image: &Seen,
    ) -> Result<Outcome, Failure> {
        let key = RecordKey::new(tenant, image.digest, What::Known);
        let stored = if image.is_new {
            None
        } else {
            self.store.record::<Known>(&key).await?
        };
        let revision = stored.as_ref().map_or(0, |stored| stored.revision);
        let old = stored.map(|stored| stored.body);
        let mut known = old.clone().unwrap_or_default();
        known.merge(Known {
            references: vec![seen],
            indexes: index.into_iter().collect(),
            config: image.config,
            platform: image.platform.clone(),
            ..Known::default()
        });
        bound(&mut known.references);
        if old.as_ref() == Some(&known) {
            return Ok(outcome);
        }
        Ok(outcome.put(&key, &known, revision)?)
    }

    /// Notes where index and configs lead.
    async fn led(
        &self,
        mut outcome: Outcome,
        tenant: &Slug,
        lead: &Lead,
    ) -> Result<Outcome, Failure> {
        let images: Vec<Digest> = lead.images.iter().map(|image| image.digest).collect();
        if let Some(index) = lead.index {
            let record = RefRecord {
                kind: RefKind::Index,
                images,
            };
            outcome = self
                .leads_to(outcome, tenant, (index, record), false)
                .await?;
        }
        let mut configs: BTreeSet<Digest> = BTreeSet::new();
        for config in lead.images.iter().filter_map(|image| image.config) {
            if !configs.insert(config) {
                continue;
            }
            let of_config = || {
                let images = lead.images.iter();
                images.filter(move |image| image.config == Some(config))
            };
            let images = of_config().map(|image| image.digest).collect();
            let is_new = of_config().all(|image| image.is_new);
            let record = RefRecord {
                kind: RefKind::Config,
                images,
            };
            outcome = self
                .leads_to(outcome, tenant, (config, record), is_new)
                .await?;
        }
        Ok(outcome)
    }

    /// Where nobody knew the images before, hardly anybody knew what leads to them: it is not asked
    /// for. Should there be something, the write loses, and all runs again with images that are
    /// known by then, for they are written first.
    pub(super) async fn leads_to(
        &self,
        outcome: Outcome,
        tenant: &Slug,
        (digest, mut record): (Digest, RefRecord),
        is_new: bool,
    ) -> Result<Outcome, Failure> {
        let key = RefRecord::key(tenant, digest);
        let stored = if is_new {
            None
        } else {
            self.store.get::<RefRecord>(REFS, &key).await?
        };
        let revision = stored.as_ref().map_or(0, |stored| stored.revision);
        if let Some(stored) = stored {
            if record.kind == RefKind::Config {
                // Several manifests may name one config.
                let known = stored
                    .body
                    .images
                    .iter()
                    .filter(|old| !record.images.contains(old));
                let known: Vec<_> = known.copied().collect();
                record.images.extend(known);
                record.images.sort();
            }
            if stored.body == record {
                return Ok(outcome);
            }
        }
        Ok(outcome.put_kv(REFS, &key, &record, Some(revision))?)
    }
}

fn tag_record(sighting: &Sighting, lead: &Lead) -> TagRecord {
    TagRecord {
        source: sighting.place.source.clone(),
        reference: sighting.reference(),
        digest: lead.digest,
        images: lead.images.iter().map(|image| image.digest).collect(),
        since: sighting.at,
    }
}

/// Keeps the number of names in bounds: gone ones go first, the oldest of them first.
pub(super) fn bound(references: &mut Vec<SeenReference>) {
    while references.len() > REFERENCES_MAX {
        let oldest = references
            .iter()
            .enumerate()
            .min_by_key(|(_, seen)| (seen.gone_at.is_none(), seen.gone_at.unwrap_or(seen.since)));
        let Some((index, seen)) = oldest else { return };
        warn!(
            "more than {REFERENCES_MAX} names of one image; forgetting {}",
            seen.name()
        );
        references.remove(index);
    }
}

// === impl Place ===

impl Place {
    fn is_of(&self, seen: &SeenReference) -> bool {
        seen.source == self.source
            && seen.registry == self.registry
            && seen.repository == self.repository
    }

    /// The tag of `registry/repository:tag`.
    pub(super) fn tag_of(&self, reference: &str) -> Option<String> {
        let name = format!("{}/{}:", self.registry, self.repository);
        reference.strip_prefix(&name).map(ToOwned::to_owned)
    }
}

// === impl Sighting ===

impl Sighting {
    /// As in reports: by tag where there is one.
    pub(super) fn reference(&self) -> String {
        let Place {
            registry,
            repository,
            ..
        } = self.place.clone();
        let (tag, digest) = (self.tag.clone(), self.digest.filter(|_| self.tag.is_none()));
        ImageRef {
            registry,
            repository,
            tag,
            digest,
        }
        .to_string()
    }

    fn seen(&self, gone_at: Option<Timestamp>) -> SeenReference {
        let Place {
            source,
            registry,
            repository,
        } = self.place.clone();
        let tag = self.tag.clone();
        SeenReference {
            source,
            registry,
            repository,
            tag,
            since: self.at,
            gone_at,
        }
    }
}

impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.place.registry, self.place.repository)?;
        self.tag
            .as_ref()
            .map_or(Ok(()), |tag| write!(f, ":{tag}"))?;
        self.digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}
