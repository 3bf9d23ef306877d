//! The router: what registries, CI and nodes tell goes in; records, names and image jobs come out.
//!
//! Where a tag leads is the word of its source, asked when the event is routed (for what we know
//! already a request for headers only), never that of the event. A digest is believed, since it can only name what it
//! names, and an image or index that we know already is not fetched again: its content cannot have
//! changed. Events may arrive late, twice or out of order: a tag moves only forward in the sender's
//! time, and what is said to be deleted is looked up before it is let go.
//!
//! What the source answers decides:
//!
//! | answer | after a push | after a request |
//! |---|---|---|
//! | away, slow down | again later | again later |
//! | no such image | warning; nothing to scan | the request's answer says so |
//! | credentials, private address | dead letter, for an operator can mend it | the request's answer says so |
//! | malformed, too large, other content | known and scanned all the same: the scanner's verdict names the gap | the same with a digest; else the request's answer says so |
//! | no image at all (a chart, a signature) | nothing | the request's answer says so |

mod deletions;
mod lead;
mod names;
mod nodes;
mod requests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::anyhow;
use bus::{DecodeError, Delivery, Failure, Handler, Input, Outcome, Shares, Store, decode};
use chassis::Cx;
use model::{
    AnalyzerId, Digest, RecordKey, Scanned, Slug, What,
    event::{Event, ImageDeleted, ImagePushed, ImageScan, Priority, ScanRequested},
    runtime::{ImageSighted, OnNode},
};
use tracing::{info, warn};

use self::{
    lead::{Lead, NoLead},
    names::{Place, Sighting},
};
use crate::{SourceConfig, Sources, metrics};

/// The handler of everything that is told about images.
pub(crate) struct Router {
    cx: Cx,
    store: Store,
    places: BTreeMap<Slug, SourceConfig>,
    sources: Arc<Sources>,
    analyzers: BTreeSet<AnalyzerId>,
    /// How many events of one source are at hand.
    shares: Shares,
}

/// What the router takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Routed {
    /// A registry tells of a push.
    Pushed(ImagePushed),
    /// A registry tells of a deletion.
    Deleted(ImageDeleted),
    /// CI asks for a scan.
    Requested(ScanRequested),
    /// A node holds an image that is not scanned.
    Sighted(ImageSighted),
}

/// Why jobs are made, and how.
#[derive(Clone)]
struct Cause<'a> {
    id: &'a str,
    tenant: &'a Slug,
    priority: Priority,
    force: bool,
    /// Where the images are, if no registry has them.
    on_node: Option<OnNode>,
}

impl Input for Routed {
    fn decode(kind: &str, body: &[u8]) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match kind {
            ImagePushed::TYPE => Self::Pushed(decode(body)?),
            ImageDeleted::TYPE => Self::Deleted(decode(body)?),
            ScanRequested::TYPE => Self::Requested(decode(body)?),
            ImageSighted::TYPE => Self::Sighted(decode(body)?),
            _ => return Ok(None),
        }))
    }
}

impl Handler for Router {
    type Input = Routed;

    async fn handle(&self, delivery: Delivery<Routed>) -> Result<Outcome, Failure> {
        let Delivery {
            tenant,
            id,
            body,
            attempt,
            ..
        } = delivery;
        // A source that answers slowly must not hold up what others tell.
        let party = match &body {
            Routed::Pushed(event) => event.source.to_string(),
            Routed::Deleted(event) => event.source.to_string(),
            Routed::Requested(event) => event.source.to_string(),
            Routed::Sighted(event) => self.party_of(&tenant, event),
        };
        let Some(_share) = self.shares.take(&party) else {
            return Err(Failure::Later(Shares::pause(attempt)));
        };
        let outcome = match &body {
            Routed::Pushed(event) => self.pushed(&tenant, &id, event).await?,
            Routed::Deleted(event) => self.deleted(&tenant, event).await?,
            Routed::Requested(event) => self.requested(&tenant, &id, event).await?,
            Routed::Sighted(event) => self.sighted_on_node(&tenant, &id, event).await?,
        };
        let what = match &body {
            _ if outcome.is_empty() => "nothing_new",
            Routed::Pushed(_) => "pushed",
            Routed::Deleted(_) => "deleted",
            Routed::Requested(_) => "requested",
            Routed::Sighted(_) => "sighted",
        };
        metrics::routed(what, outcome.events::<ImageScan>().len());
        Ok(outcome)
    }
}

// === impl Router ===

impl Router {
    /// Routes what is told about `configs`, so many events at once, asking `sources`, for scanners
    /// with `analyzers`.
    pub(crate) fn new(
        cx: &Cx,
        store: Store,
        (configs, events_at_once): (&[SourceConfig], usize),
        sources: Arc<Sources>,
        analyzers: Vec<AnalyzerId>,
    ) -> Self {
        let places = configs
            .iter()
            .map(|config| (config.name.clone(), config.clone()));
        Self {
            cx: cx.clone(),
            store,
            places: places.collect(),
            sources,
            analyzers: analyzers.into_iter().collect(),
            shares: Shares::new(cx, events_at_once, configs.len()),
        }
    }

    async fn pushed(
        &self,
        tenant: &Slug,
        id: &str,
        event: &ImagePushed,
    ) -> Result<Outcome, Failure> {
        let place = self.place(tenant, &event.source, &event.repository)?;
        let (tag, digest) = (event.tag.clone(), event.digest);
        let sighting = Sighting {
            place,
            tag,
            digest,
            at: event.occurred_at,
        };
        let (sighting, lead) = match self.lead(tenant, sighting.clone()).await {
            Ok(found) => found,
            Err(NoLead::Missing(error)) => {
                warn!(
                    event.id = id,
                    "{sighting} was pushed and is not there: {error}"
                );
                return Ok(Outcome::none());
            }
            Err(NoLead::NoImage(why)) => {
                info!(
                    event.id = id,
                    "{sighting} was pushed and is no image: {why}"
                );
                return Ok(Outcome::none());
            }
            Err(NoLead::Refused(error) | NoLead::Unreadable(error)) => {
                let context = format!("looking up {sighting} after a push");
                return Err(Failure::Reject(anyhow!(error).context(context)));
            }
            Err(NoLead::Failed(failure)) => return Err(failure),
        };
        let outcome = self.sighted(tenant, &sighting, &lead).await?;
        let cause = Cause {
            id,
            tenant,
            priority: event.priority,
            force: false,
            on_node: None,
        };
        let (outcome, jobs) = self.jobs(outcome, &cause, &sighting, &lead).await?;
        info!(
            event.id = id,
            "{sighting} leads to {} images, {} of them to be scanned",
            lead.images.len(),
            jobs.len()
        );
        Ok(outcome)
    }

    /// One job per image that these analyzers have not scanned; with the revision of the scan that
    /// stands, for who waits for the next one.
    async fn jobs(
        &self,
        mut outcome: Outcome,
        cause: &Cause<'_>,
        sighting: &Sighting,
        lead: &Lead,
    ) -> Result<(Outcome, BTreeMap<Digest, u64>), Failure> {
        let mut jobs = BTreeMap::new();
        for image in &lead.images {
            let key = RecordKey::new(cause.tenant, image.digest, What::Scanned);
            // An image without a record has no scan; should one be left, its scanner finds it.
            let scanned = if image.is_new && !cause.force {
                None
            } else {
                self.store.record::<Scanned>(&key).await?
            };
            let is_current = scanned
                .as_ref()
                .is_some_and(|scanned| scanned.body.is_good(&self.analyzers));
            if is_current && !cause.force {
                continue;
            }
            let job = ImageScan {
                image: image.digest,
                source: sighting.place.source.clone(),
                repository: sighting.place.repository.clone(),
                reference: sighting.reference(),
                index: lead.index,
                cause: cause.id.to_owned(),
                priority: cause.priority,
                force: cause.force,
                manifest: image.manifest.clone(),
                on_node: cause.on_node.clone(),
            };
            outcome = outcome.emit(cause.tenant, &job)?;
            jobs.insert(image.digest, scanned.map_or(0, |scanned| scanned.revision));
        }
        Ok((outcome, jobs))
    }

    /// Where an event says that something happened. The registry is that of the configuration.
    fn place(&self, tenant: &Slug, source: &Slug, repository: &str) -> Result<Place, Failure> {
        let config = self
            .places
            .get(source)
            .filter(|config| config.tenant == *tenant);
        let config = config.ok_or_else(|| {
            Failure::Reject(anyhow!(
                "tenant `{tenant}` has no source `{source}` any more"
            ))
        })?;
        Ok(Place {
            source: source.clone(),
            registry: config.registry.clone(),
            repository: repository.to_owned(),
        })
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router")
            .field("analyzers", &self.analyzers)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
