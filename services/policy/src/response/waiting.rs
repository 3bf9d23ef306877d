//! What waits for somebody, and until when.
//!
//! A proposal that nobody decides is asked for and reminded of until its time is over: then it
//! lapses, which is a step of the record and news like every other, and whoever comes later may
//! approve it still. So does one whose container is gone, as soon as its incident is closed.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use model::{
    Slug,
    runtime::{ProposedResponse, ResponseRecord, Stage},
};

use super::decide::move_on;

/// How long something waits where its policy does not say.
pub(crate) const WAITS: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Records in which something waits, by their keys, and when that ends. It holds nothing else, and
/// is made anew from the bucket.
#[derive(Debug, Default)]
pub(crate) struct Waiting(BTreeMap<String, Timestamp>);

// === impl Waiting ===

impl Waiting {
    /// Takes what is written under a key.
    pub(crate) fn take(&mut self, key: &str, record: Option<&ResponseRecord>) {
        let responses = record.map_or(&[][..], |record| &record.responses);
        match responses.iter().filter_map(ends_at).min() {
            Some(at) => drop(self.0.insert(key.to_owned(), at)),
            None => drop(self.0.remove(key)),
        }
    }

    /// Up to so many records in which something waits no longer.
    pub(crate) fn due(&self, now: Timestamp, max: usize) -> Vec<String> {
        let due = self.0.iter().filter(|(_, at)| **at <= now);
        due.map(|(key, _)| key.clone()).take(max).collect()
    }
}

/// The tenant and the incident of a record's key; that of a ledger has none.
pub(crate) fn place(key: &str) -> Option<(Slug, &str)> {
    let (tenant, incident) = key.split_once('.')?;
    Some((tenant.parse().ok()?, incident))
}

/// When a response waits no longer. One that lapsed has a time until that was told.
pub(crate) fn ends_at(response: &ProposedResponse) -> Option<Timestamp> {
    match response.stage {
        Stage::Proposed | Stage::Held => {
            let default = response.proposed_at.checked_add(WAITS).ok();
            response.expires_at.or(default)
        }
        Stage::Lapsed => response.expires_at,
        _ => None,
    }
}

/// The time of a response is over, if it is; gives the name of the step.
pub(crate) fn lapse(response: &mut ProposedResponse, now: Timestamp) -> Option<String> {
    let ends = ends_at(response).filter(|ends| *ends <= now)?;
    let id = format!("lapsed:{}:{}", response.id, ends.as_second());
    if response.stage != Stage::Lapsed {
        response.expires_at = Some(ends);
        let detail = "nobody decided in time; it may be approved nevertheless";
        move_on(response, Stage::Lapsed, (&id, detail.to_owned()), now);
    }
    Some(id)
}

/// A lapse was told.
pub(crate) fn told(response: &mut ProposedResponse) {
    if response.stage == Stage::Lapsed {
        response.expires_at = None;
    }
}

/// The container is gone: nothing that waits can be done to it.
pub(crate) fn gone(record: &mut ResponseRecord, cause: &str, now: Timestamp) {
    let waiting = record.responses.iter_mut().filter(|one| one.stage.waits());
    for response in waiting {
        response.expires_at = None;
        let detail = "its container is gone".to_owned();
        move_on(response, Stage::Lapsed, (cause, detail), now);
        record.updated_at = now;
    }
}
