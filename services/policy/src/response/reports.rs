//! What agents answer. Every text of theirs is hostile, and cut.

use bus::{Failure, Outcome};
use jiff::Timestamp;
use model::{
    Fingerprint, Slug,
    event::NODES,
    runtime::{
        ActionKind, ContainerResponded, EvidenceObject, FORENSIC_BYTES_MAX, Phase,
        ProposedResponse, RESPONSE_RECORDS, Refusal, ResponseId, ResponseRecord, ResponseReported,
        SignedDesired, Stage, Step,
    },
};
use tracing::{debug, warn};

use super::{
    census::desired_key,
    decide::push_step,
    desired,
    handler::{Before, Responder},
    orders,
};

/// Characters of a text that an agent wrote, and of what it says was there before and is now.
const TEXT_MAX: usize = 2_000;
const STATE_MAX: usize = 300;
/// Characters of a container's id.
const NAME_MAX: usize = 128;
/// The highest generation that a node is believed to have seen: no installation writes so many.
const GENERATION_MAX: u64 = 1 << 40;
/// Pieces of evidence of a response.
const EVIDENCE_MAX: usize = 16;

/// Takes an answer.
pub(crate) async fn take(
    responder: &Responder,
    (tenant, cause): (&Slug, &str),
    report: ResponseReported,
) -> Result<Outcome, Failure> {
    match (&report.response, report.action) {
        (Some(_), Some(kind)) if kind != ActionKind::StartGate => {
            of_response(responder, (tenant, cause), &report).await
        }
        _ => of_node(responder, (tenant, cause), &report).await,
    }
}

async fn of_response(
    responder: &Responder,
    (tenant, cause): (&Slug, &str),
    report: &ResponseReported,
) -> Result<Outcome, Failure> {
    if !is_name(&report.incident) {
        debug!("an answer names no incident");
        return Ok(Outcome::none());
    }
    let known = responder.known(tenant, &report.incident).await?;
    let Some(mut record) = known.record.as_ref().map(|stored| stored.body.clone()) else {
        debug!(
            "an answer to `{}`, of which nothing is known",
            report.incident
        );
        return Ok(Outcome::none());
    };
    if record.node != report.node {
        warn!(
            "node `{}` answers for `{}`, which is on node `{}`: not heard",
            report.node, record.incident, record.node
        );
        return Ok(Outcome::none());
    }
    let now = responder.clock.now();
    let mut responses = record.responses.iter_mut();
    let response = responses.find(|one| Some(&one.id) == report.response.as_ref());
    let Some(response) = response else {
        return Ok(Outcome::none());
    };
    apply(response, report, cause, now);
    record.updated_at = now;
    let ledger = orders::accounted(known.ledger(), &record, now);
    responder
        .outcome((tenant, cause), known, record, ledger)
        .await
}

/// Takes an answer into a response.
fn apply(response: &mut ProposedResponse, report: &ResponseReported, cause: &str, now: Timestamp) {
    if response.steps.iter().any(|step| step.id == cause) {
        return;
    }
    // A dry run that was enforced since.
    let is_of_now = report.mode == response.mode;
    let stage = Stage::from(report.phase);
    let is_waiting = response.stage.is_desired();
    let has_ended = matches!(response.stage, Stage::Released | Stage::Expired);
    let is_late = stage == Stage::Started
        && matches!(
            response.stage,
            Stage::Done | Stage::WouldHave | Stage::Lifted
        );
    let counts = is_of_now
        && !is_late
        && (is_waiting || (has_ended && matches!(stage, Stage::Lifted | Stage::Refused)));
    if counts {
        response.stage = stage;
        let before = report.before.as_deref().map(|text| cut(text, STATE_MAX));
        let after = report.after.as_deref().map(|text| cut(text, STATE_MAX));
        response.before = response.before.take().or(before);
        response.after = after.or(response.after.take());
    }
    if let Some(object) = evidence(report)
        && !response.evidence.contains(&object)
        && response.evidence.len() < EVIDENCE_MAX
    {
        response.evidence.push(object);
    }
    let step = Step {
        id: cause.to_owned(),
        stage,
        at: now,
        by: format!("node {}", report.node),
        detail: words(report),
    };
    push_step(&mut response.steps, step);
}

fn evidence(report: &ResponseReported) -> Option<EvidenceObject> {
    let object = report.evidence.as_ref()?;
    (object.bytes <= FORENSIC_BYTES_MAX).then(|| EvidenceObject {
        media_type: object.media_type.chars().take(100).collect(),
        ..object.clone()
    })
}

/// Why it is refused, or what else there is to say. How it is afterwards, the record says by itself.
fn words(report: &ResponseReported) -> String {
    let refusal = report.refusal.as_ref().map(Refusal::to_string);
    let after = report.after.as_deref();
    let words = [refusal.as_deref(), report.detail.as_deref().or(after)];
    let words: Vec<&str> = words.into_iter().flatten().collect();
    cut(&words.join("; "), TEXT_MAX)
}

fn cut(text: &str, max: usize) -> String {
    let printable = text.chars().filter(|c| !c.is_control());
    printable.take(max).collect()
}

/// What may be a token of a key.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A node refuses what it shall do, or did not let a container start: it stands in the record of
/// the node, and is told.
async fn of_node(
    responder: &Responder,
    (tenant, cause): (&Slug, &str),
    report: &ResponseReported,
) -> Result<Outcome, Failure> {
    let now = responder.clock.now();
    let incident = format!("node-{}", report.node);
    let known = responder.known(tenant, &incident).await?;
    let stored = known.record.as_ref().map(|stored| stored.body.clone());
    let mut record = stored.unwrap_or_else(|| {
        ResponseRecord::named(incident, report.node.clone(), String::new(), now)
    });
    let step = Step {
        id: cause.to_owned(),
        stage: Stage::from(report.phase),
        at: now,
        by: format!("node {}", report.node),
        detail: format!("{}{}", of_what(report), words(report)),
    };
    push_step(&mut record.orders, step);
    let told = record.orders.iter().find(|step| step.id == cause).cloned();
    record.updated_at = now;
    let mut out = written(tenant, &known, &record)?;
    if let Some(step) = told {
        out = out.emit(tenant, &news(report, step))?;
    }
    if let Some((signed, revision)) = heal(responder, tenant, report, now).await? {
        let key = desired_key(tenant, &report.node);
        out = out.put_kv(NODES, &key, &signed, Some(revision))?;
    }
    Ok(out)
}

fn written(tenant: &Slug, known: &Before, record: &ResponseRecord) -> Result<Outcome, Failure> {
    let stored = known.record.as_ref();
    let is_same = |body: &ResponseRecord| body.orders == record.orders;
    if stored.is_some_and(|stored| is_same(&stored.body)) {
        return Ok(Outcome::none());
    }
    let key = ResponseRecord::key(tenant, &record.incident);
    let revision = stored.map_or(0, |stored| stored.revision);
    Ok(Outcome::none().put_kv(RESPONSE_RECORDS, &key, record, Some(revision))?)
}

fn of_what(report: &ResponseReported) -> String {
    match report.action {
        Some(ActionKind::StartGate) => {
            format!(
                "start of container `{}`: ",
                cut(&report.container, NAME_MAX)
            )
        }
        _ => format!("desired state {}: ", report.generation),
    }
}

fn news(report: &ResponseReported, step: Step) -> ContainerResponded {
    let name = Fingerprint::of(&[report.node.as_str(), &step.id]).to_string();
    ContainerResponded {
        response: ResponseId(name),
        incident: String::new(),
        node: report.node.clone(),
        container: cut(&report.container, NAME_MAX),
        container_name: String::new(),
        image: report.image,
        action: report.action,
        mode: report.mode,
        stage: step.stage,
        by: step.by,
        detail: step.detail,
        evidence: None,
        at: step.at,
    }
}

/// An agent that has seen a newer generation than the one that is written refuses it for ever, as
/// after a loss of the broker's disks: then the next one is newer than what it saw.
async fn heal(
    responder: &Responder,
    tenant: &Slug,
    report: &ResponseReported,
    now: Timestamp,
) -> Result<Option<(SignedDesired, u64)>, Failure> {
    let (Some(Refusal::Replayed { seen, .. }), Phase::Refused) = (&report.refusal, report.phase)
    else {
        return Ok(None);
    };
    if *seen > GENERATION_MAX {
        // Its next agent could never be told anything again.
        warn!(
            "node `{}` says that it saw generation {seen}: not heard",
            report.node
        );
        return Ok(None);
    }
    let Some(key) = &responder.signer.0 else {
        return Ok(None);
    };
    let (mut desired, revision, _) = responder.desired(tenant, &report.node, now).await?;
    if revision == 0 || desired.generation > *seen {
        return Ok(None);
    }
    desired.generation = *seen;
    desired::next(&mut desired, now);
    let signed = SignedDesired::sign(&desired, key).map_err(Failure::reject)?;
    Ok(Some((signed, revision)))
}
