//! Deletions: a tag, a manifest, or a whole repository.
//!
//! A deletion is a hint like everything else: it may come late, when the tag has been pushed again,
//! and a tag that still leads somewhere is not gone. So each tag that is meant is looked up at its
//! source before it is let go.

use std::collections::BTreeSet;

use bus::{Failure, Outcome};
use model::{
    Digest, Slug, TagRecord,
    event::{ImageDeleted, REFS},
};
use tracing::info;

use super::{
    Router,
    lead::{NoLead, sorted},
    names::{Place, Sighting},
};
use crate::sources::Client;

// === impl Router ===

impl Router {
    /// A registry deleted a tag, a manifest, or a whole repository.
    pub(super) async fn deleted(
        &self,
        tenant: &Slug,
        event: &ImageDeleted,
    ) -> Result<Outcome, Failure> {
        let place = self.place(tenant, &event.source, &event.repository)?;
        let client = self.client(&place.source)?;
        let tags = TagRecord::keys_of(tenant, &place.registry, &place.repository);
        let mut outcome = Outcome::none();
        let mut images: BTreeSet<Digest> = BTreeSet::new();
        let mut gone: BTreeSet<Option<String>> = BTreeSet::new();
        for (key, stored) in self.store.list::<TagRecord>(REFS, &tags).await? {
            let record = stored.body;
            let named = place.tag_of(&record.reference);
            let is_meant = match (&event.tag, &event.digest) {
                (Some(tag), _) => named.as_deref() == Some(tag.as_str()),
                (None, Some(digest)) => record.digest == Some(*digest),
                (None, None) => true,
            };
            if !is_meant || record.digest.is_none() || record.since > event.occurred_at {
                continue;
            }
            if is_there(client, &place, named.as_deref(), event).await? {
                info!("{} was said to be deleted and is there", record.reference);
                continue;
            }
            images.extend(&record.images);
            gone.insert(named);
            let record = TagRecord {
                digest: None,
                images: Vec::new(),
                since: event.occurred_at,
                ..record
            };
            outcome = outcome.put_kv(REFS, &key, &record, Some(stored.revision))?;
        }
        if event.tag.is_none() && !is_there(client, &place, None, event).await? {
            gone.insert(None);
            images.extend(event.digest);
        }
        for image in images {
            outcome = self
                .gone(outcome, (tenant, image), &place, &gone, event.occurred_at)
                .await?;
        }
        info!(
            "{}/{} lost {} names",
            place.registry,
            place.repository,
            gone.len()
        );
        Ok(outcome)
    }
}

/// Whether the source still has a tag, or without one the digest that is said to be deleted. A
/// registry that says no digests, or that answers those who ask for what is gone as if they were
/// strangers, leaves us with what was told.
async fn is_there(
    client: &dyn Client,
    place: &Place,
    tag: Option<&str>,
    event: &ImageDeleted,
) -> Result<bool, Failure> {
    let digest = event.digest.map(|digest| digest.to_string());
    let Some(name) = tag.or(digest.as_deref()) else {
        return Ok(false);
    };
    let named = match client.peek(&place.repository, name).await {
        Ok(named) => named,
        Err(error) => {
            let sighting = Sighting {
                place: place.clone(),
                tag: tag.map(ToOwned::to_owned),
                digest: event.digest,
                at: event.occurred_at,
            };
            return match sorted(error, &sighting) {
                NoLead::Failed(failure) => Err(failure),
                _ => Ok(false),
            };
        }
    };
    Ok(named.is_some())
}
