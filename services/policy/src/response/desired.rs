//! From records to what a node shall do.

use std::time::Duration;

use jiff::Timestamp;
use model::{
    SigningKey, Slug,
    runtime::{
        Action, Desired, ProposedResponse, Refusal, Released, Response, ResponseRecord,
        SignedDesired, Stage, StartGate,
    },
};

/// How long agents take a document; it is written anew long before.
pub(crate) const VALID: Duration = Duration::from_hours(7 * 24);
/// How long what is released or over stays listed, so that an agent sees why it lifts it.
const LISTED: Duration = Duration::from_hours(1);

/// Bytes of a document's responses. The rest of [`Desired::BYTES_MAX`] is the start gate's
/// ([`super::start_gate`]).
const RESPONSES_BYTES_MAX: usize = 256 * 1024;

/// Signs documents; without a key nothing is ordered.
#[derive(Debug, Default)]
pub(crate) struct Signer(pub(crate) Option<SigningKey>);

/// A node has as many responses as it may.
#[derive(Debug)]
pub(crate) struct NodeFull;

// === impl Signer ===

impl Signer {
    pub(crate) const fn signs(&self) -> bool {
        self.0.is_some()
    }

    /// What is written of a node, if our key signed it. What another key signed is not ours to
    /// sign again: only its generation counts, for agents have seen it.
    pub(crate) fn read(&self, signed: &SignedDesired) -> Result<Desired, (Refusal, u64)> {
        let keys: Vec<_> = self.0.iter().map(SigningKey::verifying).collect();
        signed.verified(&keys).map_err(|refusal| {
            let desired: Option<Desired> = serde_json::from_str(&signed.document).ok();
            (refusal, desired.map_or(0, |desired| desired.generation))
        })
    }
}

/// A node that shall do nothing yet.
pub(crate) fn empty(tenant: &Slug, node: &Slug, generation: u64, now: Timestamp) -> Desired {
    Desired {
        tenant: tenant.clone(),
        node: node.clone(),
        generation,
        issued_at: now,
        expires_at: now,
        responses: Vec::new(),
        start_gate: None,
    }
}

/// Brings a document in line with a record. Whether it changed.
pub(crate) fn settle(
    desired: &mut Desired,
    record: &ResponseRecord,
    now: Timestamp,
) -> Result<bool, NodeFull> {
    let mut responses = desired.responses.clone();
    responses.retain(|one| {
        let of_record = one.incident == record.incident;
        let stage = record.response(&one.id).map(|response| response.stage);
        let goes_on = stage.is_some_and(|stage| stage.is_desired() || stage == Stage::Released);
        (!of_record || goes_on) && !is_past(one, now)
    });
    for response in &record.responses {
        let Some(wanted) = response_of(record, response) else {
            continue;
        };
        match responses.iter_mut().find(|one| one.id == wanted.id) {
            Some(known) => *known = wanted,
            None if wanted.released.is_none() && !is_past(&wanted, now) => responses.push(wanted),
            None => {}
        }
    }
    // What a container looked like is kept before anything is done to it.
    responses.sort_by_key(|one| one.action != Action::CollectEvidence);
    let is_more = responses.len() > desired.responses.len();
    if is_more && (responses.len() > Desired::RESPONSES_MAX || !fits(&responses)) {
        return Err(NodeFull);
    }
    let changed = responses != desired.responses;
    desired.responses = responses;
    Ok(changed)
}

/// Whether there is room for the bytes of responses.
fn fits(responses: &[Response]) -> bool {
    serde_json::to_vec(responses).is_ok_and(|json| json.len() <= RESPONSES_BYTES_MAX)
}

/// Whether it was over or released so long ago that nobody needs to read it.
fn is_past(response: &Response, now: Timestamp) -> bool {
    let ended = response
        .released
        .as_ref()
        .map_or(response.expires_at, |it| it.at);
    let ended = ended.min(response.expires_at);
    ended.checked_add(LISTED).is_ok_and(|until| until <= now)
}

/// A response as its node reads it, if it shall do it or see it released.
fn response_of(record: &ResponseRecord, response: &ProposedResponse) -> Option<Response> {
    let is_released = response.stage == Stage::Released;
    let approval = response.approval.as_ref()?;
    if !response.stage.is_desired() && !is_released {
        return None;
    }
    let taken_back = response
        .steps
        .iter()
        .rfind(|step| step.stage == Stage::Released);
    let released = taken_back.filter(|_| is_released).map(|step| Released {
        at: step.at,
        by: step.by.clone(),
    });
    Some(Response {
        id: response.id.clone(),
        incident: record.incident.clone(),
        action: response.action.clone(),
        container: record.container.clone(),
        container_name: record.container_name.clone(),
        container_started_at: response.container_started_at,
        mode: response.mode,
        issued_at: approval.at,
        expires_at: response.expires_at?,
        approved_by: approval.by.clone(),
        reason: response.reason.clone(),
        released,
    })
}

/// The next edition of a document.
pub(crate) fn next(desired: &mut Desired, now: Timestamp) {
    desired.generation = desired.generation.saturating_add(1);
    desired.issued_at = now;
    desired.expires_at = now.checked_add(VALID).unwrap_or(Timestamp::MAX);
}

/// Whether a document should be written anew: it will be over before long, and says something.
pub(crate) fn is_due(desired: &Desired, now: Timestamp) -> bool {
    let says = desired.active(now).next().is_some() || desired.start_gate.is_some();
    let half = VALID / 2;
    says && desired
        .issued_at
        .checked_add(half)
        .is_ok_and(|at| at <= now)
}

/// Whether something of a document was over or released so long ago that nobody needs to read it.
pub(crate) fn has_past(desired: &Desired, now: Timestamp) -> bool {
    desired.responses.iter().any(|one| is_past(one, now))
}

/// Sets the start gate. Whether it changed.
pub(crate) fn set_gate(desired: &mut Desired, gate: Option<StartGate>) -> bool {
    let changed = desired.start_gate != gate;
    desired.start_gate = gate;
    changed
}
