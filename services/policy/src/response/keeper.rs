//! Upkeep: what would be over is renewed while its incident is open, what is over is taken out,
//! what nobody decided lapses, documents are written anew in time, start gates follow the verdicts.
//! One process of a fleet does it at a time; everything is by compare-and-set.
//!
//! That a response is over is written into its record first, then told, then taken out of the node's
//! document. Who dies in between leaves it in the document, and whoever keeps responses next tells it
//! again under the same id. The ledger needs no word: it says itself until when a container is out
//! of service. A renewal goes the other way: the ledger first, then the record, then the document,
//! so that nobody counts the container as serving while it is not.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    pin::pin,
    time::Duration,
};

use bus::{Bus, BusError, Change, Failure, PutError, Stored};
use chassis::Cx;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use jiff::Timestamp;
use model::{
    Slug,
    event::{INCIDENTS, NODES},
    runtime::{
        ContainerResponded, Desired, Incident, IncidentState, RESPONSE_RECORDS, ResponseId,
        ResponseLedger, ResponseRecord, SignedDesired,
    },
};
use tracing::{debug, warn};

use super::{
    desired,
    handler::{Before, Responder, bound},
    judged::{self, Changes, Judgements},
    news, orders, renewal,
    start_gate::{Gates, NotKnown},
    waiting::{self, Waiting},
};
use crate::metrics;

/// How often everything is looked at.
const TICK: Duration = Duration::from_secs(5);
/// The lease of who does it.
const LEASE: &str = "responses";
/// Nodes whose upkeep fails before the others wait for the next time too: the store is away.
const FAILURES_MAX: usize = 3;

/// How often the record of a response that may be renewed is read before its end.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Records in which something lapses in one pass.
const LAPSES_MAX: usize = 100;

/// What verdicts say of images, and what changes of that.
struct Verdicts {
    judged: Judgements,
    changes: Changes,
    is_followed: bool,
}

/// When responses that end before long were looked at last. It keeps no more than those.
#[derive(Debug, Default)]
pub(crate) struct Looked(HashMap<ResponseId, Timestamp>);

/// Responses of a node's document, each with its end there, by incident.
type Ending = BTreeMap<String, BTreeMap<ResponseId, Timestamp>>;

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
    let (mut gates, mut looked) = (Gates::default(), Looked::default());
    let (mut waiting, mut verdicts) = (Waiting::default(), Verdicts::default());
    let mut records = bus.follow(cx, RESPONSE_RECORDS, 1);
    let mut tick = pin!(cx.sleep(TICK));
    loop {
        tokio::select! {
            goes_on = &mut tick => {
                if !goes_on {
                    return;
                }
                verdicts.follow((cx, bus), responder).await;
                gates.look(responder, &mut verdicts.judged).await;
                pass(responder, (&gates, &mut looked), bus).await;
                lapse_due(responder, &mut waiting, bus).await;
                tick.set(cx.sleep(TICK));
            }
            Some(change) = records.next() => hear(&mut waiting, &change).await,
            Some(change) = verdicts.changes.next() => verdicts.judged.hear(change, cx.now()),
        }
    }
}

// === impl Verdicts ===

impl Default for Verdicts {
    fn default() -> Self {
        Self {
            judged: Judgements::default(),
            changes: Box::pin(stream::pending()),
            is_followed: false,
        }
    }
}

impl Verdicts {
    /// Follows what verdicts rest on while a policy asks for a gate.
    async fn follow(&mut self, (cx, bus): (&Cx, &Bus), responder: &Responder) {
        let is_asked = responder.policies.borrow().gates().next().is_some();
        if is_asked == self.is_followed {
            return;
        }
        if !is_asked {
            *self = Self::default();
            return;
        }
        match judged::follow(cx, bus).await {
            Ok(changes) => {
                self.changes = changes;
                self.judged.follows();
                self.is_followed = true;
            }
            Err(error) => debug!("verdicts are followed later: {error}"),
        }
    }
}

async fn hear(waiting: &mut Waiting, change: &Change) {
    if waiting::place(&change.key).is_none() {
        return;
    }
    match change.decode::<ResponseRecord>().await {
        Ok(record) => waiting.take(&change.key, record.as_ref()),
        Err(error) => warn!("`{}` cannot be read: {error}", change.key),
    }
}

/// Ends what waited long enough.
pub(crate) async fn lapse_due(responder: &Responder, waiting: &mut Waiting, news: &dyn Tells) {
    for key in waiting.due(responder.clock.now(), LAPSES_MAX) {
        if let Err(error) = lapse(responder, (&key, waiting), news).await {
            warn!("what waits in `{key}` ends later: {error:?}");
            return;
        }
    }
}

/// Ends what waited long enough in a record. A lapse is written down, told, and only then done with:
/// who dies in between leaves its time behind, and it is told again under the same id.
async fn lapse(
    responder: &Responder,
    (key, waiting): (&str, &mut Waiting),
    news: &dyn Tells,
) -> Result<(), Failure> {
    let (store, now) = (&responder.store, responder.clock.now());
    let stored = store.get::<ResponseRecord>(RESPONSE_RECORDS, key).await?;
    let (Some((tenant, _)), Some(Stored { revision, body })) = (waiting::place(key), stored) else {
        waiting.take(key, None);
        return Ok(());
    };
    let (mut record, mut revision) = (body.clone(), revision);
    let responses = record.responses.iter_mut();
    let causes: Vec<String> = responses
        .filter_map(|one| waiting::lapse(one, now))
        .collect();
    if record != body {
        record.updated_at = now;
        bound(&mut record);
        let put = store.put(RESPONSE_RECORDS, key, &record, Some(revision));
        let Some(written) = written(put.await)? else {
            return Ok(());
        };
        revision = written;
    }
    tell(&tenant, (&record, &causes), news).await?;
    record.responses.iter_mut().for_each(waiting::told);
    let put = store.put(RESPONSE_RECORDS, key, &record, Some(revision));
    if written(put.await)?.is_some() {
        waiting.take(key, Some(&record));
    }
    Ok(())
}

async fn tell(
    tenant: &Slug,
    (record, causes): (&ResponseRecord, &[String]),
    news: &dyn Tells,
) -> Result<(), Failure> {
    for told in causes.iter().flat_map(|cause| news::of(record, cause)) {
        let (action, stage) = (told.action, told.stage);
        news.tell(tenant, told).await?;
        metrics::responded(action, stage);
    }
    Ok(())
}

/// Looks at every node. A record that cannot be read keeps no other node waiting.
pub(crate) async fn pass(
    responder: &Responder,
    (gates, looked): (&Gates, &mut Looked),
    news: &dyn Tells,
) {
    let mut documents: BTreeMap<(Slug, Slug), Option<SignedDesired>> =
        gates.nodes().map(|place| (place.clone(), None)).collect();
    for (place, _, signed) in responder.census.desired() {
        documents.insert(place, Some(signed));
    }
    looked.forget(responder.clock.now());
    let mut failures = 0;
    for (place, signed) in documents {
        let kept = keep_node(responder, &place, signed, (gates, looked), news).await;
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
    (gates, looked): (&Gates, &mut Looked),
    news: &dyn Tells,
) -> Result<(), Failure> {
    let (tenant, node) = place;
    let now = responder.clock.now();
    let wanted = gates.of(tenant, node);
    let is_due = match signed.map(|signed| responder.signer.read(&signed)) {
        None => wanted.as_ref().is_ok_and(Option::is_some),
        // It is not ours.
        Some(Err(_)) => true,
        Some(Ok(desired)) => {
            let mut differs = false;
            for (incident, ids) in &looked.ending(&desired, now) {
                differs |= tend(responder, (tenant, incident), ids, news).await?;
            }
            differs
                || desired::is_due(&desired, now)
                || desired::has_past(&desired, now)
                || wanted.is_ok_and(|gate| gate != desired.start_gate)
        }
    };
    if is_due {
        renew(responder, place, gates, now).await?;
    }
    Ok(())
}

// === impl Looked ===

impl Looked {
    /// Responses of a document that are over, and those that may be renewed and were not looked at
    /// for a while.
    fn ending(&mut self, desired: &Desired, now: Timestamp) -> Ending {
        let mut ending = Ending::new();
        for one in &desired.responses {
            let is_over = one.expires_at <= now;
            let is_near = one.expires_at.duration_since(now) <= renewal::AHEAD_MAX;
            let may_be_renewed = is_near && one.action.kind().lasts();
            let is_looked_at = is_over || (may_be_renewed && !self.0.contains_key(&one.id));
            if one.released.is_none() && is_looked_at {
                let ids = ending.entry(one.incident.clone()).or_default();
                ids.insert(one.id.clone(), one.expires_at);
                self.0.insert(one.id.clone(), now);
            }
        }
        ending
    }

    fn forget(&mut self, now: Timestamp) {
        self.0
            .retain(|_, at| now.duration_since(*at).unsigned_abs() < LOOK_AGAIN);
    }
}

/// Renews responses of an incident, or writes down that they are over; tells it. Whether the node's
/// document says something else now.
async fn tend(
    responder: &Responder,
    (tenant, incident): (&Slug, &str),
    ids: &BTreeMap<ResponseId, Timestamp>,
    news: &dyn Tells,
) -> Result<bool, Failure> {
    let now = responder.clock.now();
    let known = responder.known(tenant, incident).await?;
    let Some(stored) = &known.record else {
        return Ok(true);
    };
    let mut record = stored.body.clone();
    let key = ResponseRecord::key(tenant, incident);
    let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
    let listed = record.responses.iter();
    let mut listed = listed.filter(|one| ids.contains_key(&one.id));
    let state = if listed.any(|one| is_due(renewal::due_at(one)) || is_due(one.expires_at)) {
        let stored = responder.store.get::<Incident>(INCIDENTS, &key).await?;
        stored.map(|stored| stored.body.state)
    } else {
        None
    };
    let (mut causes, mut is_renewed) = (Vec::new(), false);
    let listed = record.responses.iter_mut();
    for response in listed.filter(|one| ids.contains_key(&one.id)) {
        if state == Some(IncidentState::Open) && is_due(renewal::due_at(response)) {
            causes.push(renewal::renew(response, now));
            is_renewed = true;
        } else if is_due(response.expires_at) {
            causes.push(renewal::end(response, state, now));
        }
    }
    if record != stored.body {
        record.updated_at = now;
        bound(&mut record);
        if !write(responder, tenant, (&known, is_renewed), &record).await? {
            return Ok(false);
        }
    }
    tell(tenant, (&record, &causes), news).await?;
    let stands = |(id, ends): (&ResponseId, &Timestamp)| {
        let response = record.response(id);
        response.is_some_and(|one| one.stage.is_desired() && one.expires_at == Some(*ends))
    };
    Ok(!ids.iter().all(stands))
}

/// Writes a record, and the ledger before where something was renewed. `false`: somebody else wrote
/// first.
async fn write(
    responder: &Responder,
    tenant: &Slug,
    (known, is_renewed): (&Before, bool),
    record: &ResponseRecord,
) -> Result<bool, Failure> {
    let store = &responder.store;
    let ledger = orders::accounted(known.ledger(), record, responder.clock.now());
    if is_renewed && ledger != known.ledger() {
        let key = ResponseLedger::key(tenant);
        let revision = known.ledger.as_ref().map_or(0, |stored| stored.revision);
        let put = store.put(RESPONSE_RECORDS, &key, &ledger, Some(revision));
        if written(put.await)?.is_none() {
            return Ok(false);
        }
    }
    let key = ResponseRecord::key(tenant, &record.incident);
    let revision = known.record.as_ref().map_or(0, |stored| stored.revision);
    let put = store.put(RESPONSE_RECORDS, &key, record, Some(revision));
    Ok(written(put.await)?.is_some())
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
    let gate = gates.of(tenant, node);
    let gate = gate.unwrap_or_else(|NotKnown| desired.start_gate.clone());
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
    written(put)?;
    Ok(())
}

/// The revision that was written; `None`: somebody else wrote first, which is looked at later.
fn written(put: Result<u64, PutError>) -> Result<Option<u64>, Failure> {
    match put {
        Ok(revision) => Ok(Some(revision)),
        Err(PutError::Conflict) => Ok(None),
        Err(PutError::Store(error)) => Err(error.into()),
    }
}
