//! Images that nodes hold and that nobody has scanned.
//!
//! A node's word is a hint like everything else. Its names lead to configured sources only: a host
//! that none of them serves is never asked. What a source answers under a name counts only where
//! it is the very image that the node holds, by the digest that its runtime knows it by: of the
//! index, the manifest or the config. An image that no source gives is noted with why, in a bounded
//! number of keys for each node, and read from the node itself: under names that no registry has, so
//! that it is taken for nothing else.

use bus::{Failure, Outcome};
use model::{
    Digest, ImageRef, Known, RecordKey, RefKind, RefRecord, SeenReference, Slug, What,
    event::{Priority, REFS},
    runtime::{
        HOST_REPOSITORY, ImageSighted, NODE_REGISTRY, OnNode, SightedImages, SightedRecord,
        Unserved, node_repository,
    },
};
use oci::Wanted;
use tracing::{info, warn};

use super::{
    Cause, Router,
    lead::{Lead, NoLead, Seen, sorted},
    names::{Place, Sighting},
};
use crate::metrics;

/// Names of an image that are looked at.
const REFERENCES_MAX: usize = 16;
/// Questions to sources about one sighting.
const QUESTIONS_MAX: usize = 8;
/// Images that one digest of a node may lead to.
const IMAGES_MAX: usize = 64;
/// The repository of what a node has without a name.
const UNNAMED: &str = "unnamed";
/// Characters of what a source says that are kept.
const DETAIL_CHARS_MAX: usize = 300;

/// Why no source gave an image, so far.
struct Missed {
    why: Unserved,
    detail: Option<String>,
}

// === impl Router ===

impl Router {
    /// Whose share the routing of a sighted image takes: that of the first source that serves a name
    /// of it, else the node's own.
    pub(super) fn party_of(&self, tenant: &Slug, event: &ImageSighted) -> String {
        let mut names = names(event);
        let source = names.find_map(|name| self.place_of(tenant, &name));
        source.map_or_else(
            || format!("node {tenant}/{}", event.node),
            |(source, _)| source.to_string(),
        )
    }

    /// Routes what a node tells: one job per image behind the digest that is not scanned.
    pub(super) async fn sighted_on_node(
        &self,
        tenant: &Slug,
        id: &str,
        event: &ImageSighted,
    ) -> Result<Outcome, Failure> {
        let cause = Cause {
            id,
            tenant,
            priority: Priority::Norm,
            force: false,
            on_node: None,
        };
        let known = self.known_behind(tenant, event.image).await?;
        if !known.is_empty() {
            return self.known_on_node(&cause, event, known).await;
        }
        let (sighting, lead) = match self.served(tenant, event).await? {
            Ok(found) => found,
            Err(missed) => return self.on_node_alone(cause, event, missed).await,
        };
        let outcome = self.sighted(tenant, &sighting, &lead).await?;
        // The index has images for other machines, too: their turn comes when somebody needs them.
        let (outcome, jobs) = self
            .jobs(outcome, &cause, &sighting, &lead.only(event.image))
            .await?;
        info!(
            event.id = id,
            "node {} holds {sighting}, {} of its images are to be scanned",
            event.node,
            jobs.len()
        );
        Ok(outcome)
    }

    /// The images that a digest of a node leads to, as far as they are known.
    async fn known_behind(
        &self,
        tenant: &Slug,
        digest: Digest,
    ) -> Result<Vec<(Digest, Known)>, Failure> {
        let behind = self
            .store
            .get::<RefRecord>(REFS, &RefRecord::key(tenant, digest))
            .await?;
        let behind = behind.into_iter().flat_map(|stored| stored.body.images);
        let mut images = Vec::new();
        for image in std::iter::once(digest).chain(behind).take(IMAGES_MAX) {
            let key = RecordKey::new(tenant, image, What::Known);
            if let Some(known) = self.store.record::<Known>(&key).await? {
                images.push((image, known.body));
            }
        }
        Ok(images)
    }

    /// Known images are scanned from where they were seen: a registry, else this node.
    async fn known_on_node(
        &self,
        cause: &Cause<'_>,
        event: &ImageSighted,
        images: Vec<(Digest, Known)>,
    ) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::none();
        for (image, known) in images {
            let is_of_node = |seen: &SeenReference| seen.source == Slug::node_source();
            let (sighting, on_node) = match self.best_place(cause.tenant, &known) {
                Some(seen) => {
                    let place = Place {
                        source: seen.source.clone(),
                        registry: seen.registry.clone(),
                        repository: seen.repository.clone(),
                    };
                    let sighting = Sighting {
                        place,
                        tag: seen.tag.clone(),
                        digest: Some(image),
                        at: self.cx.now(),
                    };
                    (sighting, None)
                }
                None if known.references.iter().any(is_of_node) => {
                    (of_node(event), Some(at(event)))
                }
                None => continue,
            };
            let cause = &Cause {
                on_node,
                ..cause.clone()
            };
            let lead = Lead {
                digest: Some(image),
                index: known.indexes.first().copied(),
                images: vec![Seen::of_record(image, known)],
            };
            (outcome, _) = self.jobs(outcome, cause, &sighting, &lead).await?;
        }
        Ok(outcome)
    }

    /// An image that no source gives is read from the node. Why none does is noted all the same: it
    /// runs without ever having been where images come from.
    async fn on_node_alone(
        &self,
        cause: Cause<'_>,
        event: &ImageSighted,
        mut missed: Missed,
    ) -> Result<Outcome, Failure> {
        let (tenant, sighting) = (cause.tenant, of_node(event));
        let Some(source) = self.sources.on_node(tenant, at(event)) else {
            return self
                .unserved(Outcome::none(), (tenant, event), missed)
                .await;
        };
        let wanted = Wanted {
            skip_configs: true,
            ..Wanted::default()
        };
        let image = match source.resolve(&wanted).await {
            Ok(resolved) => resolved.images.into_iter().next(),
            Err(error) => match sorted(error, &sighting) {
                NoLead::Failed(failure) => return Err(failure),
                NoLead::Missing(error) | NoLead::Refused(error) | NoLead::Unreadable(error) => {
                    warn!("image {} of node {}: {error}", event.image, event.node);
                    missed.note(|| error.to_string());
                    None
                }
                NoLead::NoImage(_) => None,
            },
        };
        let Some(image) = image else {
            return self
                .unserved(Outcome::none(), (tenant, event), missed)
                .await;
        };
        let (digest, config) = (image.digest, image.image_id);
        let is_new = self.known(tenant, digest).await?.is_none();
        let lead = Lead {
            digest: Some(digest),
            index: None,
            images: vec![Seen::of_node(image, is_new)],
        };
        let mut outcome = self.sighted(tenant, &sighting, &lead).await?;
        if event.image != digest && event.image != config {
            // An index, of which the node has this one image: it must not be taken for all of it.
            let record = RefRecord {
                kind: RefKind::Config,
                images: vec![digest],
            };
            outcome = self
                .leads_to(outcome, tenant, (event.image, record), false)
                .await?;
        }
        let cause = Cause {
            on_node: Some(at(event)),
            ..cause
        };
        let (outcome, jobs) = self.jobs(outcome, &cause, &sighting, &lead).await?;
        info!(
            event.id = cause.id,
            "only node {} has {sighting}, {} of its images are to be scanned",
            event.node,
            jobs.len()
        );
        if sighting.place.repository == node_repository(&event.node, HOST_REPOSITORY) {
            return Ok(outcome);
        }
        self.unserved(outcome, (tenant, event), missed).await
    }

    /// The name of an image to read it by: one that leads to it now, if there is one.
    fn best_place<'a>(&self, tenant: &Slug, known: &'a Known) -> Option<&'a SeenReference> {
        let open = known.references.iter().filter(|seen| {
            let config = self.places.get(&seen.source);
            config.is_some_and(|config| config.tenant == *tenant)
        });
        open.min_by_key(|seen| seen.gone_at.is_some())
    }

    /// The image from a source that serves one of its names.
    async fn served(
        &self,
        tenant: &Slug,
        event: &ImageSighted,
    ) -> Result<Result<(Sighting, Lead), Missed>, Failure> {
        let mut missed = Missed {
            why: Unserved::NoSource,
            detail: None,
        };
        for sighting in self.questions(tenant, event) {
            if missed.why == Unserved::NoSource {
                missed.why = Unserved::NotThere;
            }
            let by_digest = sighting.digest.is_some();
            let shown = sighting.to_string();
            match self.lead(tenant, sighting).await {
                Ok((sighting, lead)) if lead.holds(event.image, by_digest) => {
                    return Ok(Ok((sighting, lead)));
                }
                Ok(_) => {
                    missed.note(|| format!("{shown} is another image at its source"));
                }
                Err(NoLead::Failed(failure)) => return Err(failure),
                Err(NoLead::Missing(error) | NoLead::Unreadable(error)) => {
                    missed.note(|| error.to_string());
                }
                Err(NoLead::NoImage(why)) => missed.note(|| why),
                Err(NoLead::Refused(error)) => {
                    missed.detail = None;
                    missed.note(|| error.to_string());
                    missed.why = Unserved::Refused;
                }
            }
        }
        Ok(Err(missed))
    }

    /// What to ask sources for, the surest first: a digest beside the name, then tags, then the
    /// node's own digest.
    fn questions(&self, tenant: &Slug, event: &ImageSighted) -> Vec<Sighting> {
        let at = self.cx.now();
        let served: Vec<(Place, ImageRef)> = names(event)
            .filter_map(|name| {
                let (_, place) = self.place_of(tenant, &name)?;
                Some((place, name))
            })
            .collect();
        let tag_of = |place: &Place| {
            let mut names = served.iter().filter(|(other, _)| other == place);
            names.find_map(|(_, name)| name.tag.clone().filter(|_| name.digest.is_none()))
        };
        let of = |place: &Place, tag: Option<String>, digest: Option<Digest>| Sighting {
            place: place.clone(),
            tag,
            digest,
            at,
        };
        let mut questions = Vec::new();
        for (place, name) in &served {
            if name.digest.is_some() {
                questions.push(of(place, tag_of(place), name.digest));
            }
        }
        for (place, name) in served.iter().filter(|(_, name)| name.digest.is_none()) {
            questions.push(of(place, name.tag.clone(), None));
        }
        for (place, _) in &served {
            questions.push(of(place, None, Some(event.image)));
        }
        let mut asked: Vec<Sighting> = Vec::new();
        for question in questions {
            if !asked.contains(&question) {
                asked.push(question);
            }
        }
        asked.truncate(QUESTIONS_MAX);
        asked
    }

    /// The configured source that serves a name's registry.
    fn place_of(&self, tenant: &Slug, name: &ImageRef) -> Option<(&Slug, Place)> {
        let mut places = self.places.iter();
        let (source, config) = places
            .find(|(_, config)| config.tenant == *tenant && config.registry == name.registry)?;
        let place = Place {
            source: source.clone(),
            registry: config.registry.clone(),
            repository: name.repository.clone(),
        };
        Some((source, place))
    }

    /// Notes an image that no source gives.
    async fn unserved(
        &self,
        outcome: Outcome,
        (tenant, event): (&Slug, &ImageSighted),
        missed: Missed,
    ) -> Result<Outcome, Failure> {
        let key = SightedImages::key(tenant, &event.node, event.image);
        let record = SightedRecord {
            references: names(event).map(|name| name.to_string()).collect(),
            why: missed.why,
            detail: missed.detail,
            node: event.node.clone(),
            sighted_at: event.sighted_at,
        };
        let stored = self.store.get::<SightedImages>(REFS, &key).await?;
        let (revision, mut noted) = stored.map_or((0, SightedImages::default()), |stored| {
            (stored.revision, stored.body)
        });
        let known = noted.images.get(&event.image);
        if known.is_some_and(|known| known.says_as(&record)) {
            return Ok(outcome);
        }
        info!(
            "node {} holds image {}, which no source gives: {:?}",
            event.node, event.image, record.why
        );
        let forgotten = noted.note(event.image, record);
        if forgotten > 0 {
            metrics::sightings_forgotten(forgotten);
            warn!(
                "node {} tells of more images that no source gives than are kept: {forgotten} forgotten",
                event.node
            );
        }
        Ok(outcome.put_kv(REFS, &key, &noted, Some(revision))?)
    }
}

/// Where a node has a sighted image.
fn at(event: &ImageSighted) -> OnNode {
    OnNode {
        node: event.node.clone(),
        id: event.image,
    }
}

/// What is told of an image that only a node has: a name of that node, whatever it calls the image.
fn of_node(event: &ImageSighted) -> Sighting {
    let host = node_repository(&event.node, HOST_REPOSITORY);
    let name = names(event).find(|name| name.tag.is_some() && name.digest.is_none());
    let is_host = |name: &ImageRef| name.registry == NODE_REGISTRY && name.repository == host;
    let (repository, tag) = match name {
        Some(name) if is_host(&name) => (host, name.tag),
        Some(name) => (node_repository(&event.node, &name.name()), name.tag),
        None => (node_repository(&event.node, UNNAMED), None),
    };
    Sighting {
        place: Place {
            source: Slug::node_source(),
            registry: NODE_REGISTRY.to_owned(),
            repository,
        },
        digest: tag.is_none().then_some(event.image),
        tag,
        at: event.sighted_at,
    }
}

/// The names of a sighted image that can be read.
fn names(event: &ImageSighted) -> impl Iterator<Item = ImageRef> {
    let names = event.references.iter().take(REFERENCES_MAX);
    names.filter_map(|name| name.parse().ok())
}

// === impl Missed ===

impl Missed {
    /// Keeps what the first source said.
    fn note(&mut self, detail: impl FnOnce() -> String) {
        self.detail
            .get_or_insert_with(|| detail().chars().take(DETAIL_CHARS_MAX).collect());
    }
}
