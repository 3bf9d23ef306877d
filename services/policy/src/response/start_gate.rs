//! Which images may not start on which node: what policies ask for, and the verdicts of the images
//! that the node holds.
//!
//! What verdicts say of an image is read once for all nodes and kept ([`super::judged`]) until one of
//! its keys changes; a look at a fleet where nothing changed reads nothing.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use model::{
    Decision, Digest, Slug,
    runtime::{DeniedImage, Mode, StartGate},
};
use tracing::warn;

use super::{
    document::{GateMode, Unknown},
    handler::Responder,
    judged::{Judgement, Judgements},
    library::ResponseSet,
};

/// How often the gates of all nodes are made again.
const EVERY: Duration = Duration::from_secs(30);
/// Bytes of a gate: what is left of [`model::runtime::Desired::BYTES_MAX`] beside responses.
const BYTES_MAX: usize = 224 * 1024;
/// Bytes of a digest there, and of a denied image beside its reason.
const DIGEST_BYTES: usize = 74;
const DENIED_BYTES: usize = 130;

/// The gates of all nodes, as they were looked at last.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    looked_at: Option<Timestamp>,
    /// Whether a policy asks for one.
    is_asked: bool,
    nodes: BTreeMap<(Slug, Slug), StartGate>,
}

/// What all policies together ask for: what is stricter counts.
struct Asked {
    mode: Mode,
    refuse: Vec<Decision>,
    refuses_unknown: bool,
}

/// The node was not heard of, or verdicts could not be read: what it was told stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotKnown;

// === impl Gates ===

impl Gates {
    /// The nodes that have one.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &(Slug, Slug)> {
        self.nodes.keys()
    }

    /// That of a node, if it has one.
    pub(crate) fn of(&self, tenant: &Slug, node: &Slug) -> Result<Option<StartGate>, NotKnown> {
        let known = self.nodes.get(&(tenant.clone(), node.clone()));
        match known {
            Some(gate) => Ok(Some(gate.clone())),
            None if self.looked_at.is_some() && !self.is_asked => Ok(None),
            None => Err(NotKnown),
        }
    }

    /// Looks again, now and then.
    pub(crate) async fn look(&mut self, responder: &Responder, judged: &mut Judgements) {
        let now = responder.clock.now();
        let is_fresh = |at: Timestamp| now.duration_since(at).unsigned_abs() < EVERY;
        if self.looked_at.is_some_and(is_fresh) {
            return;
        }
        self.looked_at = Some(now);
        let asked = Asked::by(&responder.policies.borrow());
        self.is_asked = asked.is_some();
        let Some(asked) = asked else {
            self.nodes.clear();
            judged.forget();
            return;
        };
        judged.begin(now);
        for ((tenant, node), images) in responder.census.images() {
            match gate(responder, (&asked, &tenant), images, judged).await {
                Ok(gate) => {
                    self.nodes.insert((tenant, node), gate);
                }
                // What it was stays.
                Err(error) => warn!("the start gate of node `{node}` is looked at later: {error}"),
            }
        }
        judged.end();
    }
}

// === impl Asked ===

impl Asked {
    fn by(policies: &ResponseSet) -> Option<Self> {
        let mut asked: Option<Self> = None;
        for gate in policies.gates() {
            let known = asked.get_or_insert(Self {
                mode: Mode::DryRun,
                refuse: Vec::new(),
                refuses_unknown: false,
            });
            if gate.mode == GateMode::Enforce {
                known.mode = Mode::Enforced;
            }
            known.refuse.extend(&gate.refuse);
            known.refuses_unknown |= gate.unknown == Unknown::Refuse;
        }
        asked
    }
}

async fn gate(
    responder: &Responder,
    (asked, tenant): (&Asked, &Slug),
    images: Vec<Vec<Digest>>,
    judged: &mut Judgements,
) -> Result<StartGate, bus::StoreError> {
    let mut gate = StartGate {
        mode: asked.mode,
        denied: Vec::new(),
        refuses_unknown: asked.refuses_unknown,
        allowed: Vec::new(),
    };
    for names in images {
        let mut worst: Option<Judgement> = None;
        for name in &names {
            let now = responder.clock.now();
            let known = judged.of(&responder.store, (tenant, *name), now).await?;
            let is_worse = |known: &Judgement| {
                worst
                    .as_ref()
                    .is_none_or(|worst| worst.decision < known.decision)
            };
            if let Some(known) = known.filter(is_worse) {
                worst = Some(known);
            }
        }
        match worst {
            Some(found) if asked.refuse.contains(&found.decision) => {
                let denied = names.into_iter().map(|digest| DeniedImage {
                    digest,
                    decision: found.decision,
                    reason: found.reason.clone(),
                });
                gate.denied.extend(denied);
            }
            Some(_) if asked.refuses_unknown => gate.allowed.extend(names),
            _ => {}
        }
    }
    gate.denied.sort_by_key(|image| image.digest);
    gate.denied.dedup_by_key(|image| image.digest);
    gate.allowed.sort();
    gate.allowed.dedup();
    bound(&mut gate);
    Ok(gate)
}

/// Leaves out what has no room in the node's document. Where unknown images may not start, those
/// that may come first: what is not named is refused in any case.
fn bound(gate: &mut StartGate) {
    let mut room = BYTES_MAX;
    let before = gate.denied.len() + gate.allowed.len();
    let has_room = |room: &mut usize, bytes: usize| {
        let left = room.checked_sub(bytes);
        *room = left.unwrap_or(*room);
        left.is_some()
    };
    gate.allowed.retain(|_| has_room(&mut room, DIGEST_BYTES));
    let all = gate.denied.len() * DENIED_BYTES;
    for image in &mut gate.denied {
        // A reason is for the node's log: that an image is denied counts for more.
        let reason = serde_json::to_string(&image.reason).map_or(0, |json| json.len());
        if all + reason > room || !has_room(&mut room, reason) {
            image.reason.clear();
        }
    }
    gate.denied.retain(|_| has_room(&mut room, DENIED_BYTES));
    let left_out = before - gate.denied.len() - gate.allowed.len();
    if left_out > 0 {
        warn!("a start gate has no room for {left_out} images");
    }
}
