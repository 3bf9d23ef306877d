//! Takes incidents, orders and answers, and gives the bus what is to be written and told.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{
    Bus, Consume, DecodeError, Delivery, Failure, Handler, Input, Outcome, Store, StoreError,
    Stored, decode,
};
use chassis::{Clock, Cx, files};
use jiff::Timestamp;
use model::{
    Digest, Known, RecordKey, SigningKey, Slug, What,
    event::{Event as _, NODES, RESULTS},
    runtime::{
        Desired, Incident, IncidentChanged, IncidentState, RESPONSE_RECORDS, RESPONSES,
        ResponseLedger, ResponseOrdered, ResponseRecord, ResponseReported, SignedDesired, Step,
    },
};
use tokio::sync::watch;
use tracing::{error, warn};

use super::{
    census::{Census, Subject, desired_key},
    decide::{Question, decide},
    desired::{self, Signer},
    keeper,
    library::{self, ResponseSet},
    news, orders, reports, waiting,
};
use crate::{config::Config, metrics};

/// How often an incident waits for its container to be reported.
const LOOKS_MAX: u64 = 3;
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Messages that are handled at once. Those that order something meet at the ledger.
const CONCURRENCY: usize = 4;
/// Bytes of a record's steps, and of one beside its texts: a value of a bucket has a limit.
const STEPS_BYTES_MAX: usize = 256 * 1024;
const STEP_BYTES: usize = 64;
/// Bytes of a key's file.
const KEY_BYTES_MAX: u64 = 4_096;

/// What a handler needs.
#[derive(Clone)]
pub(crate) struct Responder {
    pub(crate) store: Store,
    pub(crate) census: Census,
    pub(crate) policies: watch::Receiver<Arc<ResponseSet>>,
    pub(crate) signer: Arc<Signer>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What is known before a message is taken.
pub(crate) struct Before {
    pub(crate) record: Option<Stored<ResponseRecord>>,
    pub(crate) ledger: Option<Stored<ResponseLedger>>,
}

/// Takes incidents.
pub(crate) struct Incidents(pub(crate) Responder);

/// Takes orders and answers.
pub(crate) struct Responses(pub(crate) Responder);

/// A message of [`RESPONSES`].
pub(crate) enum Told {
    Ordered(Box<ResponseOrdered>),
    Reported(Box<ResponseReported>),
}

impl Input for Told {
    fn decode(kind: &str, body: &[u8]) -> Result<Option<Self>, DecodeError> {
        match kind {
            ResponseOrdered::TYPE => decode(body).map(|it| Some(Self::Ordered(Box::new(it)))),
            ResponseReported::TYPE => decode(body).map(|it| Some(Self::Reported(Box::new(it)))),
            _ => Ok(None),
        }
    }
}

/// Starts what answers incidents, and gives the policies in force.
pub(crate) async fn start(
    cx: &Cx,
    bus: &Bus,
    config: &Config,
) -> anyhow::Result<(watch::Receiver<Arc<ResponseSet>>, Census)> {
    let policies = library::follow(cx, bus).await?;
    let signer = Arc::new(Signer(signing_key(cx, config).await?));
    let census = Census::default();
    census.follow(cx, bus).await?;
    let responder = Responder {
        store: bus.store(),
        census: census.clone(),
        policies: policies.clone(),
        signer,
        clock: cx.clock(),
    };
    let incidents = Consume::new(bus, RESULTS, "policy_incidents", CONCURRENCY);
    bus.consume(cx, incidents, Arc::new(Incidents(responder.clone())));
    let responses = Consume::new(bus, RESPONSES, "policy_responses", CONCURRENCY);
    bus.consume(cx, responses, Arc::new(Responses(responder.clone())));
    keeper::start(cx, bus, responder);
    Ok((policies, census))
}

async fn signing_key(cx: &Cx, config: &Config) -> anyhow::Result<Option<SigningKey>> {
    let Some(file) = config.signing_key_file.clone() else {
        return Ok(None);
    };
    let reading = format!("reading the key `{}`", file.display());
    let text = cx
        .blocking(move || files::read_text_bounded(&file, KEY_BYTES_MAX))
        .await?;
    let key = text.with_context(|| reading.clone())?.parse();
    let key: SigningKey = key.context(reading)?;
    tracing::info!("agents that trust `{}` take our commands", key.verifying());
    Ok(Some(key))
}

// === impl Handler ===

impl Handler for Incidents {
    type Input = IncidentChanged;
    const IS_HAZARDOUS: bool = false;

    async fn handle(&self, delivery: Delivery<IncidentChanged>) -> Result<Outcome, Failure> {
        let Delivery {
            tenant,
            body,
            id,
            attempt,
            ..
        } = delivery;
        let responder = &self.0;
        let incident = body.incident;
        if incident.state == IncidentState::Closed {
            return responder.closed((&tenant, &id), &incident).await;
        }
        let reported = responder
            .census
            .container(&tenant, &incident.node, &incident.container);
        if reported.is_none() && attempt <= LOOKS_MAX {
            return Err(Failure::Later(LOOK_AGAIN));
        }
        let subject = reported.unwrap_or_else(|| Subject::of_incident(&incident));
        let known = responder.known(&tenant, &incident.id).await?;
        let policies = Arc::clone(&responder.policies.borrow());
        let sources = responder.sources(&tenant, &policies, &incident).await?;
        let now = responder.clock.now();
        let mut record = known.record_of(&incident, now);
        let mut ledger = known.ledger();
        let question = Question {
            tenant: &tenant,
            policies: &policies,
            incident: &incident,
            subject: &subject,
            sources: &sources,
            census: &responder.census,
            signs: responder.signer.signs(),
            now,
            cause: &id,
        };
        decide(&question, &mut record, &mut ledger);
        responder
            .outcome((&tenant, &id), known, record, ledger)
            .await
    }
}

impl Handler for Responses {
    type Input = Told;

    async fn handle(&self, delivery: Delivery<Told>) -> Result<Outcome, Failure> {
        let Delivery {
            tenant,
            body,
            id,
            subject,
            ..
        } = delivery;
        match body {
            Told::Ordered(order) => orders::take(&self.0, (&tenant, &id), *order).await,
            Told::Reported(report) => {
                let node = subject.rsplit('.').next().unwrap_or_default();
                if node != report.node.as_str() {
                    warn!("node `{node}` speaks for node `{}`: not heard", report.node);
                    return Ok(Outcome::none());
                }
                reports::take(&self.0, (&tenant, &id), *report).await
            }
        }
    }
}

// === impl Before ===

impl Before {
    /// The record of an incident, or a new one.
    pub(crate) fn record_of(&self, incident: &Incident, now: Timestamp) -> ResponseRecord {
        let stored = self.record.as_ref();
        stored.map_or_else(
            || ResponseRecord::of(incident, now),
            |stored| stored.body.clone(),
        )
    }

    pub(crate) fn ledger(&self) -> ResponseLedger {
        let stored = self.ledger.as_ref();
        stored.map(|stored| stored.body.clone()).unwrap_or_default()
    }
}

// === impl Responder ===

impl Responder {
    /// What is stored about an incident and of the tenant.
    pub(crate) async fn known(&self, tenant: &Slug, incident: &str) -> Result<Before, Failure> {
        let (key, ledger) = (
            ResponseRecord::key(tenant, incident),
            ResponseLedger::key(tenant),
        );
        Ok(Before {
            record: self.store.get(RESPONSE_RECORDS, &key).await?,
            ledger: self.store.get(RESPONSE_RECORDS, &ledger).await?,
        })
    }

    /// An incident is closed: nobody is asked any more about a container that is gone. One that
    /// runs on may only be quiet.
    async fn closed(
        &self,
        (tenant, cause): (&Slug, &str),
        incident: &Incident,
    ) -> Result<Outcome, Failure> {
        let known = self.known(tenant, &incident.id).await?;
        let Some(stored) = &known.record else {
            return Ok(Outcome::none());
        };
        let mut record = stored.body.clone();
        if self.census.is_gone(tenant, incident) {
            waiting::gone(&mut record, cause, self.clock.now());
        }
        let ledger = known.ledger();
        self.outcome((tenant, cause), known, record, ledger).await
    }

    /// Where an image comes from, if a rule asks.
    pub(crate) async fn sources(
        &self,
        tenant: &Slug,
        policies: &ResponseSet,
        incident: &Incident,
    ) -> Result<Vec<Slug>, Failure> {
        let Some(image) = incident.image.filter(|_| policies.asks_sources()) else {
            return Ok(Vec::new());
        };
        Ok(sources_of(&self.store, tenant, image).await?)
    }

    /// What is to be written and told: the ledger, the record, what the node shall do, the news. What
    /// is so already is left out.
    pub(crate) async fn outcome(
        &self,
        (tenant, cause): (&Slug, &str),
        known: Before,
        mut record: ResponseRecord,
        mut ledger: ResponseLedger,
    ) -> Result<Outcome, Failure> {
        let now = self.clock.now();
        let (node, is_held) = self.node(tenant, &mut record, now).await?;
        if is_held {
            ledger = orders::accounted(ledger, &record, now);
        }
        bound(&mut record);
        let mut out = Outcome::none();
        if known.ledger() != ledger {
            let revision = known.ledger.as_ref().map_or(0, |stored| stored.revision);
            let key = ResponseLedger::key(tenant);
            out = out.put_kv(RESPONSE_RECORDS, &key, &ledger, Some(revision))?;
        }
        let stored = known.record.as_ref();
        let is_new =
            stored.is_none() && (!record.responses.is_empty() || !record.orders.is_empty());
        if is_new || stored.is_some_and(|stored| stored.body != record) {
            let key = ResponseRecord::key(tenant, &record.incident);
            let revision = stored.map_or(0, |stored| stored.revision);
            out = out.put_kv(RESPONSE_RECORDS, &key, &record, Some(revision))?;
        }
        if let Some((signed, revision)) = node {
            let key = desired_key(tenant, &record.node);
            out = out.put_kv(NODES, &key, &signed, Some(revision))?;
        }
        for news in news::of(&record, cause) {
            metrics::responded(news.action, news.stage);
            out = out.emit(tenant, &news)?;
        }
        Ok(out)
    }

    /// What the node of a record shall do, where that is something else than before, and whether
    /// something is held for want of room there.
    async fn node(
        &self,
        tenant: &Slug,
        record: &mut ResponseRecord,
        now: Timestamp,
    ) -> Result<(Option<(SignedDesired, u64)>, bool), Failure> {
        let Some(key) = &self.signer.0 else {
            return Ok((None, false));
        };
        let (mut desired, revision, mut changed) = self.desired(tenant, &record.node, now).await?;
        let mut settled = desired::settle(&mut desired, record, now);
        let mut is_held = false;
        if settled.is_err() {
            is_held = orders::hold_for_room(record, &desired);
            // What is taken back or over finds its way without what has no room.
            settled = desired::settle(&mut desired, record, now);
        }
        changed |= settled.unwrap_or_default();
        if !changed {
            return Ok((None, is_held));
        }
        desired::next(&mut desired, now);
        let signed = SignedDesired::sign(&desired, key).map_err(Failure::reject)?;
        Ok((Some((signed, revision)), is_held))
    }

    /// What is written of a node, its revision, and whether it must be written anew in any case.
    pub(crate) async fn desired(
        &self,
        tenant: &Slug,
        node: &Slug,
        now: Timestamp,
    ) -> Result<(Desired, u64, bool), Failure> {
        let key = desired_key(tenant, node);
        let Some(stored) = self.store.get::<SignedDesired>(NODES, &key).await? else {
            return Ok((desired::empty(tenant, node, 0, now), 0, false));
        };
        let revision = stored.revision;
        match self.signer.read(&stored.body) {
            Ok(desired) if (&desired.tenant, &desired.node) == (tenant, node) => {
                Ok((desired, revision, false))
            }
            other => {
                let (why, generation) = match other {
                    Ok(desired) => ("it is another node's".to_owned(), desired.generation),
                    Err((refusal, generation)) => (refusal.to_string(), generation),
                };
                error!(
                    "what node `{node}` shall do was not written by us, and is written anew from \
                     what was decided: {why}"
                );
                let mut desired = desired::empty(tenant, node, generation, now);
                self.rebuild(tenant, &mut desired, now).await?;
                Ok((desired, revision, true))
            }
        }
    }

    /// Fills a document from every record of its node.
    pub(crate) async fn rebuild(
        &self,
        tenant: &Slug,
        desired: &mut Desired,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let prefix = format!("{tenant}.");
        let all = self
            .store
            .list::<ResponseRecord>(RESPONSE_RECORDS, &prefix)
            .await?;
        for (key, stored) in all {
            let record = stored.body;
            if record.node == desired.node && desired::settle(desired, &record, now).is_err() {
                warn!("node `{}` has no room for `{key}`", desired.node);
            }
        }
        Ok(())
    }
}

/// Where an image comes from.
pub(crate) async fn sources_of(
    store: &Store,
    tenant: &Slug,
    image: Digest,
) -> Result<Vec<Slug>, StoreError> {
    let key = RecordKey::new(tenant, image, What::Known);
    let known = store.record::<Known>(&key).await?;
    let references = known.map(|known| known.body.references).unwrap_or_default();
    let sources: BTreeSet<Slug> = references.into_iter().map(|seen| seen.source).collect();
    Ok(sources.into_iter().collect())
}

/// Takes the oldest steps out of a record that grew too large to be written: a node may answer as
/// often as it likes, and what people order about its containers must still find room.
pub(crate) fn bound(record: &mut ResponseRecord) {
    let size = |steps: &[Step]| -> usize {
        let texts = steps
            .iter()
            .map(|step| step.id.len() + step.by.len() + step.detail.len());
        texts.map(|bytes| bytes + STEP_BYTES).sum()
    };
    loop {
        let of_responses = record.responses.iter_mut().map(|one| &mut one.steps);
        let all = of_responses.chain([&mut record.orders]);
        let mut all: Vec<(usize, &mut Vec<Step>)> = all.map(|steps| (size(steps), steps)).collect();
        let bytes: usize = all.iter().map(|(bytes, _)| bytes).sum();
        let largest = all.iter_mut().max_by_key(|(bytes, _)| *bytes);
        match largest {
            Some((_, steps)) if bytes > STEPS_BYTES_MAX && steps.len() > 1 => {
                steps.remove(0);
            }
            _ => return,
        }
    }
}
