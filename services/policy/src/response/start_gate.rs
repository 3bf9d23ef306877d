//! Which images may not start on which node: what policies ask for, and the verdicts of the images
//! that the node holds.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use jiff::Timestamp;
use model::{
    Decision, Digest, Judged, RecordKey, RefRecord, Slug, What,
    event::{REFS, images_bucket},
    runtime::{DeniedImage, Mode, StartGate},
};
use tracing::warn;

use super::{
    document::{GateMode, Unknown},
    handler::Responder,
    library::ResponseSet,
};

/// How often verdicts are read again.
const EVERY: Duration = Duration::from_secs(30);
/// Images that a gate names at most; of more the node is told of the first ones.
const NAMED_MAX: usize = 2_000;
/// Characters of a reason.
const REASON_MAX: usize = 200;

/// The gates of all nodes, as they were looked at last.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    looked_at: Option<Timestamp>,
    nodes: BTreeMap<(Slug, Slug), StartGate>,
}

/// What all policies together ask for: what is stricter counts.
struct Asked {
    mode: Mode,
    refuse: Vec<Decision>,
    refuses_unknown: bool,
}

/// What is known of an image.
#[derive(Clone)]
struct Judgement {
    decision: Decision,
    reason: String,
}

// === impl Gates ===

impl Gates {
    /// The nodes that have one.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &(Slug, Slug)> {
        self.nodes.keys()
    }

    /// That of a node.
    pub(crate) fn of(&self, tenant: &Slug, node: &Slug) -> Option<StartGate> {
        self.nodes.get(&(tenant.clone(), node.clone())).cloned()
    }

    /// Looks again, now and then.
    pub(crate) async fn look(&mut self, responder: &Responder) {
        let now = responder.clock.now();
        let is_fresh = |at: Timestamp| now.duration_since(at).unsigned_abs() < EVERY;
        if self.looked_at.is_some_and(is_fresh) {
            return;
        }
        self.looked_at = Some(now);
        let asked = Asked::by(&responder.policies.borrow());
        let Some(asked) = asked else {
            self.nodes.clear();
            return;
        };
        let mut judged = HashMap::new();
        for ((tenant, node), images) in responder.census.images() {
            match gate(responder, (&asked, &tenant), images, &mut judged).await {
                Ok(gate) => {
                    self.nodes.insert((tenant, node), gate);
                }
                // What it was stays.
                Err(error) => warn!("the start gate of node `{node}` is looked at later: {error}"),
            }
        }
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
    judged: &mut HashMap<(Slug, Digest), Option<Judgement>>,
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
            let at = (tenant.clone(), *name);
            let known = match judged.get(&at) {
                Some(known) => known.clone(),
                None => judgement(responder, tenant, *name).await?,
            };
            judged.insert(at, known.clone());
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
    gate.denied.truncate(NAMED_MAX);
    gate.allowed.sort();
    gate.allowed.dedup();
    gate.allowed.truncate(NAMED_MAX);
    Ok(gate)
}

/// The worst verdict of what a digest names: an image, or those behind an index or a config.
async fn judgement(
    responder: &Responder,
    tenant: &Slug,
    name: Digest,
) -> Result<Option<Judgement>, bus::StoreError> {
    let key = RefRecord::key(tenant, name);
    let behind = responder.store.get::<RefRecord>(REFS, &key).await?;
    let images = behind.map_or_else(|| vec![name], |stored| stored.body.images);
    let mut worst: Option<Judgement> = None;
    for image in images {
        let key = RecordKey::new(tenant, image, What::Known);
        let prefix = format!("{tenant}.{}.judged.", image.hex());
        let bucket = images_bucket(key.image.partition());
        for (_, stored) in responder.store.list::<Judged>(&bucket, &prefix).await? {
            let verdict = stored.body.verdict;
            if worst
                .as_ref()
                .is_none_or(|worst| worst.decision < verdict.decision)
            {
                let reason = verdict.reasons.first();
                let reason = reason
                    .map(|reason| reason.message.as_str())
                    .unwrap_or_default();
                worst = Some(Judgement {
                    decision: verdict.decision,
                    reason: reason.chars().take(REASON_MAX).collect(),
                });
            }
        }
    }
    Ok(worst)
}
