//! Upkeep: what is over is taken out, what would be over soon is written anew, start gates follow
//! the verdicts. One process of a fleet does it at a time; everything is by compare-and-set.

use std::time::Duration;

use bus::{Bus, Failure, PutError, Stored};
use chassis::Cx;
use jiff::Timestamp;
use model::{
    Slug,
    event::NODES,
    runtime::{
        Desired, RESPONSE_RECORDS, ResponseLedger, ResponseRecord, SignedDesired, Stage, Step,
    },
};
use tracing::{debug, warn};

use super::{decide::push_step, desired, handler::Responder, news, orders, start_gate::Gates};

/// How often everything is looked at.
const TICK: Duration = Duration::from_secs(5);
/// The lease of who does it.
const LEASE: &str = "responses";

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
        if let Err(error) = pass(bus, responder, &gates).await {
            warn!("upkeep of responses goes on later: {error:?}");
        }
    }
}

async fn pass(bus: &Bus, responder: &Responder, gates: &Gates) -> Result<(), Failure> {
    let now = responder.clock.now();
    let mut nodes: Vec<(Slug, Slug)> = gates.nodes().cloned().collect();
    for ((tenant, node), _, signed) in responder.census.desired() {
        if let Ok(desired) = responder.signer.read(&signed) {
            for incident in over(&desired, now) {
                end(bus, responder, (&tenant, &incident), now).await?;
            }
        }
        nodes.push((tenant, node));
    }
    nodes.sort();
    nodes.dedup();
    for (tenant, node) in nodes {
        renew(responder, (&tenant, &node), gates, now).await?;
    }
    Ok(())
}

/// The incidents of responses that are over.
fn over(desired: &Desired, now: Timestamp) -> Vec<String> {
    let responses = desired.responses.iter();
    let over = responses.filter(|one| one.released.is_none() && one.expires_at <= now);
    let mut incidents: Vec<String> = over.map(|one| one.incident.clone()).collect();
    incidents.sort();
    incidents.dedup();
    incidents
}

/// Writes down that responses of an incident are over, and tells it.
async fn end(
    bus: &Bus,
    responder: &Responder,
    (tenant, incident): (&Slug, &str),
    now: Timestamp,
) -> Result<(), Failure> {
    let known = responder.known(tenant, incident).await?;
    let Some(Stored { revision, body }) = known.record.clone() else {
        return Ok(());
    };
    let mut record = body;
    let mut causes = Vec::new();
    for response in &mut record.responses {
        let is_over = response.expires_at.is_some_and(|at| at <= now);
        if !is_over || !response.stage.is_desired() {
            continue;
        }
        let cause = format!("expired:{}", response.id);
        response.stage = Stage::Expired;
        let step = Step {
            id: cause.clone(),
            stage: Stage::Expired,
            at: now,
            by: "policy".to_owned(),
            detail: "its time is over".to_owned(),
        };
        push_step(&mut response.steps, step);
        causes.push(cause);
    }
    if causes.is_empty() {
        return Ok(());
    }
    record.updated_at = now;
    let key = ResponseRecord::key(tenant, incident);
    let put = responder
        .store
        .put(RESPONSE_RECORDS, &key, &record, Some(revision))
        .await;
    if !is_written(put)? {
        return Ok(());
    }
    let ledger = orders::accounted(known.ledger(), &record, now);
    if ledger != known.ledger() {
        let revision = known.ledger.as_ref().map_or(0, |stored| stored.revision);
        let key = ResponseLedger::key(tenant);
        let put = responder
            .store
            .put(RESPONSE_RECORDS, &key, &ledger, Some(revision))
            .await;
        is_written(put)?;
    }
    for cause in causes {
        for news in news::of(&record, &cause) {
            bus.publish(tenant, &news).await?;
        }
    }
    Ok(())
}

/// Writes a node's document anew where something of it is past, due, or the gate changed.
async fn renew(
    responder: &Responder,
    (tenant, node): (&Slug, &Slug),
    gates: &Gates,
    now: Timestamp,
) -> Result<(), Failure> {
    let Some(key) = &responder.signer.0 else {
        return Ok(());
    };
    let (mut desired, revision, mut changed) = responder.desired(tenant, node, now).await?;
    let gate = gates.of(tenant, node);
    if revision == 0 && gate.is_none() {
        return Ok(());
    }
    let mut incidents: Vec<String> = desired
        .responses
        .iter()
        .map(|one| one.incident.clone())
        .collect();
    incidents.dedup();
    for incident in incidents {
        let known = responder.known(tenant, &incident).await?;
        if let Some(record) = known.record {
            changed |= desired::settle(&mut desired, &record.body, now).unwrap_or_default();
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
