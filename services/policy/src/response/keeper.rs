//! Upkeep: what is over is taken out, what would be over soon is written anew, start gates follow
//! the verdicts. One process of a fleet does it at a time; everything is by compare-and-set.
//!
//! That a response is over is written into its record first, then told, then taken out of the node's
//! document. Who dies in between leaves it in the document, and whoever keeps responses next tells it
//! again under the same id. The ledger needs no word: it says itself until when a container is out
//! of service.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bus::{Bus, BusError, Failure, PutError, Stored};
use chassis::Cx;
use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use model::{
    Slug,
    event::NODES,
    runtime::{
        ContainerResponded, Desired, RESPONSE_RECORDS, ResponseId, ResponseRecord, SignedDesired,
        Stage, Step,
    },
};
use tracing::{debug, warn};

use super::{
    decide::push_step,
    desired,
    handler::{Responder, bound},
    news,
    start_gate::Gates,
};
use crate::metrics;

/// How often everything is looked at.
const TICK: Duration = Duration::from_secs(5);
/// The lease of who does it.
const LEASE: &str = "responses";
/// Nodes whose upkeep fails before the others wait for the next time too: the store is away.
const FAILURES_MAX: usize = 3;

/// Where news go.
pub(crate) trait Tells: Sync {
    /// Tells it.
    fn tell<'a>(
        &'a self,
        tenant: &'a Slug,
        news: ContainerResponded,
    ) -> BoxFuture<'a, Result<(), BusError>>;
}

impl Tells for Bus {
    fn tell<'a>(
        &'a self,
        tenant: &'a Slug,
        news: ContainerResponded,
    ) -> BoxFuture<'a, Result<(), BusError>> {
        async move { self.publish(tenant, &news).await }.boxed()
    }
}

/// Starts it.
pub(crate) fn start(cx: &Cx, bus: &Bus, responder: Responder) {
    let (task, bus) = (cx.clone(), bus.clone());
    cx.spawn("policy.keeper", async move {
        while !task.is_stopping() {
            match bus.lease_wait(&task, LEASE).await {
                Ok(Some(lease)) => {
                    tokio::select! {
                        () = lease.lost() => {}
                        () = keep(&task, &bus, &responder) => {}
                    }
                    lease.release().await;
                }
                Ok(None) => return,
                Err(error) => {
                    debug!("responses are kept later: {error}");
                    task.sleep(TICK).await;
                }
            }
        }
    });
}

async fn keep(cx: &Cx, bus: &Bus, responder: &Responder) {
    let mut gates = Gates::default();
    while cx.sleep(TICK).await {
        gates.look(responder).await;
        pass(responder, &gates, bus).await;
    }
}

/// Looks at every node. A record that cannot be read keeps no other node waiting.
pub(crate) async fn pass(responder: &Responder, gates: &Gates, news: &dyn Tells) {
    let mut documents: BTreeMap<(Slug, Slug), Option<SignedDesired>> =
        gates.nodes().map(|place| (place.clone(), None)).collect();
    for (place, _, signed) in responder.census.desired() {
        documents.insert(place, Some(signed));
    }
    let mut failures = 0;
    for (place, signed) in documents {
        let kept = keep_node(responder, &place, signed, gates, news).await;
        if let Err(error) = kept {
            warn!("upkeep of node `{}` goes on later: {error:?}", place.1);
            failures += 1;
            if failures >= FAILURES_MAX {
                return;
            }
        }
    }
}

async fn keep_node(
    responder: &Responder,
    place: &(Slug, Slug),
    signed: Option<SignedDesired>,
    gates: &Gates,
    news: &dyn Tells,
) -> Result<(), Failure> {
    let (tenant, node) = place;
    let now = responder.clock.now();
    let wanted = |is| gates.of((tenant, node), is);
    let is_due = match signed.map(|signed| responder.signer.read(&signed)) {
        None => wanted(None).is_some(),
        // It is not ours.
        Some(Err(_)) => true,
        Some(Ok(desired)) => {
            let over = over(&desired, now);
            for (incident, ids) in &over {
                end(responder, (tenant, incident), ids, news).await?;
            }
            !over.is_empty()
                || desired::is_due(&desired, now)
                || desired::has_past(&desired, now)
                || wanted(desired.start_gate.as_ref()) != desired.start_gate
        }
    };
    if is_due {
        renew(responder, place, gates, now).await?;
    }
    Ok(())
}

/// Responses that are over, by incident.
fn over(desired: &Desired, now: Timestamp) -> BTreeMap<String, BTreeSet<ResponseId>> {
    let mut over: BTreeMap<String, BTreeSet<ResponseId>> = BTreeMap::new();
    for one in &desired.responses {
        if one.released.is_none() && one.expires_at <= now {
            let ids = over.entry(one.incident.clone()).or_default();
            ids.insert(one.id.clone());
        }
    }
    over
}

/// Writes down that responses of an incident are over, and tells it.
async fn end(
    responder: &Responder,
    (tenant, incident): (&Slug, &str),
    ids: &BTreeSet<ResponseId>,
    news: &dyn Tells,
) -> Result<(), Failure> {
    let now = responder.clock.now();
    let key = ResponseRecord::key(tenant, incident);
    let stored = responder.store.get(RESPONSE_RECORDS, &key).await?;
    let Some(Stored { revision, body }) = stored else {
        return Ok(());
    };
    let mut record: ResponseRecord = body;
    let mut causes = Vec::new();
    let mut changed = false;
    for response in &mut record.responses {
        if !ids.contains(&response.id) {
            continue;
        }
        let cause = format!("expired:{}", response.id);
        let is_over = response.expires_at.is_some_and(|at| at <= now);
        if is_over && response.stage.is_desired() {
            response.stage = Stage::Expired;
            let step = Step {
                id: cause.clone(),
                stage: Stage::Expired,
                at: now,
                by: "policy".to_owned(),
                detail: "its time is over".to_owned(),
            };
            push_step(&mut response.steps, step);
            changed = true;
        }
        causes.push(cause);
    }
    if changed {
        record.updated_at = now;
        bound(&mut record);
        let put = responder
            .store
            .put(RESPONSE_RECORDS, &key, &record, Some(revision));
        if !is_written(put.await)? {
            return Ok(());
        }
    }
    for told in causes.iter().flat_map(|cause| news::of(&record, cause)) {
        let (action, stage) = (told.action, told.stage);
        news.tell(tenant, told).await?;
        metrics::responded(action, stage);
    }
    Ok(())
}

/// Writes a node's document anew where something of it is past, due, or the gate changed.
async fn renew(
    responder: &Responder,
    (tenant, node): &(Slug, Slug),
    gates: &Gates,
    now: Timestamp,
) -> Result<(), Failure> {
    let Some(key) = &responder.signer.0 else {
        return Ok(());
    };
    let (mut desired, revision, mut changed) = responder.desired(tenant, node, now).await?;
    let gate = gates.of((tenant, node), desired.start_gate.as_ref());
    if revision == 0 && gate.is_none() {
        return Ok(());
    }
    let responses = desired.responses.iter();
    let incidents: BTreeSet<String> = responses.map(|one| one.incident.clone()).collect();
    for incident in incidents {
        let key = ResponseRecord::key(tenant, &incident);
        let stored = responder.store.get(RESPONSE_RECORDS, &key).await?;
        if let Some(Stored { body, .. }) = stored {
            changed |= desired::settle(&mut desired, &body, now).unwrap_or_default();
        }
    }
    changed |= desired::set_gate(&mut desired, gate);
    if !changed && !desired::is_due(&desired, now) {
        return Ok(());
    }
    desired::next(&mut desired, now);
    let signed = SignedDesired::sign(&desired, key).map_err(Failure::reject)?;
    let at = super::census::desired_key(tenant, node);
    let put = responder
        .store
        .put(NODES, &at, &signed, Some(revision))
        .await;
    is_written(put)?;
    Ok(())
}

/// Whether it was written; somebody else's write is looked at in the next pass.
fn is_written(put: Result<u64, PutError>) -> Result<bool, Failure> {
    match put {
        Ok(_) => Ok(true),
        Err(PutError::Conflict) => Ok(false),
        Err(PutError::Store(error)) => Err(error.into()),
    }
}
