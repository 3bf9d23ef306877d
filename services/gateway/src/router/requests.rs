//! Requests of CI: their answer is a record that says which images they led to.

use std::collections::BTreeMap;

use bus::{Failure, Outcome};
use model::{
    ScanRequestRecord, Slug,
    event::{REFS, ScanRequested},
};
use tracing::{info, warn};

use super::{Cause, Router, lead::NoLead, names::Sighting};

// === impl Router ===

impl Router {
    /// Routes a request, and answers it.
    pub(super) async fn requested(
        &self,
        tenant: &Slug,
        id: &str,
        event: &ScanRequested,
    ) -> Result<Outcome, Failure> {
        let reference = &event.reference;
        let key = ScanRequestRecord::key(tenant, &event.id);
        let mut record = ScanRequestRecord {
            reference: reference.to_string(),
            images: Vec::new(),
            index: None,
            error: None,
            resolved_at: self.cx.now(),
            waits_for: BTreeMap::new(),
            content: event.content.clone(),
        };
        let answered = self.store.get::<ScanRequestRecord>(REFS, &key).await?;
        let answered = answered.map(|stored| stored.body);
        let is_another = |known: &ScanRequestRecord| known.is_another_than(&record);
        if answered.as_ref().is_some_and(is_another) {
            warn!(
                event.id = id,
                "a request for {reference} came under the key of another one, which stands"
            );
            return Ok(Outcome::none());
        }
        let (sighting, lead) = match self.lead(tenant, self.asked_for(tenant, event)?).await {
            Ok(found) => found,
            Err(NoLead::Failed(failure)) => return Err(failure),
            Err(NoLead::Missing(error) | NoLead::Refused(error) | NoLead::Unreadable(error)) => {
                return answer_error(record, &key, &error.to_string());
            }
            Err(NoLead::NoImage(why)) => return answer_error(record, &key, &why),
        };
        let outcome = self.sighted(tenant, &sighting, &lead).await?;
        let cause = Cause {
            id,
            tenant,
            priority: event.priority,
            force: event.force,
            on_node: None,
        };
        let (outcome, jobs) = self.jobs(outcome, &cause, &sighting, &lead).await?;
        record.images = lead.images.iter().map(|image| image.digest).collect();
        record.index = lead.index;
        record.waits_for = jobs;
        waits_as_before(&mut record, answered);
        let count = lead.images.len();
        info!(event.id = id, "{reference} leads to {count} images");
        Ok(outcome.put_kv(REFS, &key, &record, None)?)
    }

    fn asked_for(&self, tenant: &Slug, event: &ScanRequested) -> Result<Sighting, Failure> {
        let reference = &event.reference;
        Ok(Sighting {
            place: self.place(tenant, &event.source, &reference.repository)?,
            // With a digest the tag is the client's word alone, and so not believed.
            tag: reference.tag.clone().filter(|_| reference.digest.is_none()),
            digest: reference.digest,
            at: event.requested_at,
        })
    }
}

/// A request that comes again waits for the scan that followed it then, not for one after it.
fn waits_as_before(record: &mut ScanRequestRecord, before: Option<ScanRequestRecord>) {
    let before = before.into_iter().flat_map(|known| known.waits_for);
    for (image, revision) in before {
        if record.images.contains(&image) {
            let waits_for = record.waits_for.entry(image).or_insert(revision);
            *waits_for = revision.min(*waits_for);
        }
    }
}

fn answer_error(mut record: ScanRequestRecord, key: &str, error: &str) -> Result<Outcome, Failure> {
    warn!(
        "a scan of {} was asked for and leads nowhere: {error}",
        record.reference
    );
    record.error = Some(error.to_owned());
    Ok(Outcome::none().put_kv(REFS, key, &record, None)?)
}
