//! What people order: approve, deny, act, release.

use std::collections::BTreeSet;

use bus::{Failure, Outcome};
use jiff::Timestamp;
use model::{
    Slug,
    event::INCIDENTS,
    runtime::{
        Action, ActionKind, Approval, Desired, Guard, Incident, Mode, Order, ProposedResponse,
        ResponseId, ResponseLedger, ResponseOrdered, ResponseRecord, Stage, Step,
    },
};

use super::{
    census::{Subject, group},
    decide::{account, push_step},
    document::VALID_MAX_S,
    guard::Sight,
    handler::Responder,
    waiting::WAITS,
};

/// Instances that stay in service whatever people order, unless they insist.
const KEPT: u32 = 1;
/// Characters of a text that somebody wrote.
const TEXT_MAX: usize = 1_000;

/// Carries out an order. What cannot be is written down with the reason.
pub(crate) async fn take(
    responder: &Responder,
    (tenant, cause): (&Slug, &str),
    order: ResponseOrdered,
) -> Result<Outcome, Failure> {
    let now = responder.clock.now();
    let incident = match &order.incident {
        Some(id) => id.clone(),
        None => ResponseRecord::by_hand(&order.container),
    };
    let known = responder.known(tenant, &incident).await?;
    let reported = responder
        .census
        .container(tenant, &order.node, &order.container);
    let mut record = match &known.record {
        Some(stored) => stored.body.clone(),
        None => new_record(responder, tenant, &order, reported.as_ref(), now).await?,
    };
    if record.orders.iter().any(|step| step.id == order.id) {
        let ledger = known.ledger();
        return responder
            .outcome((tenant, cause), known, record, ledger)
            .await;
    }
    let subject = reported.unwrap_or_else(|| subject_of(&record));
    let mut ledger = known.ledger();
    let doing = Doing {
        sight: Sight {
            tenant,
            census: &responder.census,
            ledger: &ledger,
            subject: &subject,
            image: record.image,
            signs: responder.signer.signs(),
            now,
        },
        order: &order,
        cause,
        now,
    };
    let done = doing.carry_out(&mut record);
    let (stage, detail) = match done {
        Ok(stage) => (stage, String::new()),
        Err(why) => {
            let elsewhere = elsewhere(responder, tenant, &order, now).await?;
            (Stage::Held, why + &elsewhere)
        }
    };
    let step = Step {
        id: order.id.clone(),
        stage,
        at: now,
        by: order.by.clone(),
        detail,
    };
    push_step(&mut record.orders, step);
    record.updated_at = now;
    account(&mut ledger, &record, &subject, now);
    responder
        .outcome((tenant, cause), known, record, ledger)
        .await
}

/// Where else to look, for who takes back what an incident led to by the container's name.
async fn elsewhere(
    responder: &Responder,
    tenant: &Slug,
    order: &ResponseOrdered,
    now: Timestamp,
) -> Result<String, Failure> {
    if !matches!(order.order, Order::Release { .. }) || order.incident.is_some() {
        return Ok(String::new());
    }
    let (desired, ..) = responder.desired(tenant, &order.node, now).await?;
    let active = desired
        .active(now)
        .filter(|one| one.container == order.container);
    let incidents: BTreeSet<&str> = active.map(|one| &*one.incident).collect();
    if incidents.is_empty() {
        return Ok(String::new());
    }
    let incidents: Vec<&str> = incidents.into_iter().collect();
    Ok(format!(
        " by hand; those of an incident are taken back by naming it: {}",
        incidents.join(", ")
    ))
}

async fn new_record(
    responder: &Responder,
    tenant: &Slug,
    order: &ResponseOrdered,
    reported: Option<&Subject>,
    now: Timestamp,
) -> Result<ResponseRecord, Failure> {
    let named = |name: String| {
        let (node, container) = (order.node.clone(), order.container.clone());
        let mut record = ResponseRecord::named(name, node, container, now);
        if let Some(subject) = reported {
            record.container_name.clone_from(&subject.name);
            record.image_name.clone_from(&subject.image_name);
        }
        record
    };
    let Some(id) = &order.incident else {
        return Ok(named(ResponseRecord::by_hand(&order.container)));
    };
    let key = ResponseRecord::key(tenant, id);
    let stored = responder.store.get::<Incident>(INCIDENTS, &key).await?;
    Ok(match stored {
        Some(stored) => ResponseRecord::of(&stored.body, now),
        None => named(id.clone()),
    })
}

/// What a record says of its container, where no node tells of it.
pub(crate) fn subject_of(record: &ResponseRecord) -> Subject {
    Subject {
        node: record.node.clone(),
        container: record.container.clone(),
        name: record.container_name.clone(),
        image_name: record.image_name.clone(),
        namespace: None,
        labels: std::collections::BTreeMap::new(),
        owner: None,
        group: group(None, None, &record.image_name),
        started_at: None,
        runs: true,
        is_reported: false,
    }
}

/// Responses that were ordered and do not stand in a node's document, which has no room for them,
/// are held. Whether there were any.
pub(crate) fn hold_for_room(record: &mut ResponseRecord, desired: &Desired) -> bool {
    let mut held = Vec::new();
    for response in &mut record.responses {
        let is_listed = desired.responses.iter().any(|one| one.id == response.id);
        if response.stage != Stage::Ordered || is_listed {
            continue;
        }
        response.stage = Stage::Held;
        let at = response.approval.take().map(|approval| approval.at);
        response.expires_at = at.and_then(|at| at.checked_add(WAITS).ok());
        held.extend(at);
        if !response.guards.contains(&Guard::NodeFull) {
            response.guards.push(Guard::NodeFull);
        }
        if let Some(step) = response.steps.last_mut() {
            step.stage = Stage::Held;
            step.detail = format!("held: {}", Guard::NodeFull);
        }
    }
    // Who ordered it is told so.
    for order in &mut record.orders {
        if order.stage == Stage::Ordered && held.contains(&order.at) {
            order.stage = Stage::Held;
            order.detail = format!("held: {}", Guard::NodeFull);
        }
    }
    !held.is_empty()
}

/// An order that is being carried out.
struct Doing<'a> {
    sight: Sight<'a>,
    order: &'a ResponseOrdered,
    cause: &'a str,
    now: Timestamp,
}

// === impl Doing ===

impl Doing<'_> {
    /// Gives what the order came to, or why it came to nothing.
    fn carry_out(&self, record: &mut ResponseRecord) -> Result<Stage, String> {
        match &self.order.order {
            Order::Approve { response } => self.approve(record, response),
            Order::Deny { response } => self.deny(record, response),
            Order::Act {
                action,
                valid_for_s,
                dry_run,
            } => self.act(record, action, *valid_for_s, *dry_run),
            Order::Release { response } => self.release(record, response.as_ref()),
        }
    }

    fn approve(&self, record: &mut ResponseRecord, id: &ResponseId) -> Result<Stage, String> {
        let response = open(record, id)?;
        let kind = response.action.kind();
        self.pass(kind, Mode::Enforced)?;
        if kind.takes_out() {
            self.evidence(record);
        }
        self.enforce(open(record, id)?);
        Ok(Stage::Ordered)
    }

    /// A proposed response is carried out.
    fn enforce(&self, response: &mut ProposedResponse) {
        response.mode = Mode::Enforced;
        response.container_started_at = self
            .sight
            .subject
            .started_at
            .or(response.container_started_at);
        self.order_it(response);
    }

    fn deny(&self, record: &mut ResponseRecord, id: &ResponseId) -> Result<Stage, String> {
        let response = open(record, id)?;
        response.stage = Stage::Denied;
        response.expires_at = None;
        let step = self.step(Stage::Denied);
        push_step(&mut response.steps, step);
        Ok(Stage::Denied)
    }

    fn act(
        &self,
        record: &mut ResponseRecord,
        action: &Action,
        valid_for_s: u64,
        dry_run: bool,
    ) -> Result<Stage, String> {
        let kind = action.kind();
        let mode = if dry_run {
            Mode::DryRun
        } else {
            Mode::Enforced
        };
        let valid_max_s = VALID_MAX_S.unsigned_abs();
        if !(1..=valid_max_s).contains(&valid_for_s) {
            return Err(format!("a response lasts 1 to {valid_max_s} seconds"));
        }
        let same = record
            .responses
            .iter()
            .filter(|one| one.action.kind() == kind);
        let in_force = |one: &&ProposedResponse| {
            one.stage.is_desired() && one.mode == Mode::Enforced && one.action == *action
        };
        if let Some(known) = same.clone().find(in_force) {
            return Err(format!(
                "`{kind}` is ordered already: response `{}`",
                known.id
            ));
        }
        self.pass(kind, mode)?;
        let round = u32::try_from(same.count()).unwrap_or(u32::MAX);
        if kind.takes_out() && mode == Mode::Enforced {
            self.evidence(record);
        }
        self.push(record, (action.clone(), mode), valid_for_s, round)?;
        Ok(Stage::Ordered)
    }

    fn release(
        &self,
        record: &mut ResponseRecord,
        wanted: Option<&ResponseId>,
    ) -> Result<Stage, String> {
        let mut count = 0;
        for response in &mut record.responses {
            if wanted.is_some_and(|id| *id != response.id) || !response.stage.is_desired() {
                continue;
            }
            response.stage = Stage::Released;
            let step = self.step(Stage::Released);
            push_step(&mut response.steps, step);
            count += 1;
        }
        match (count, wanted) {
            (0, Some(id)) => Err(format!("no response `{id}` is in force")),
            (0, None) => Err("no response is in force".to_owned()),
            _ => Ok(Stage::Released),
        }
    }

    /// Whether nothing holds an action, or the order overrules what does.
    fn pass(&self, kind: ActionKind, mode: Mode) -> Result<(), String> {
        let even = self.order.force || mode == Mode::DryRun;
        let guards = self.sight.always(kind, KEPT, (even, even));
        if guards.is_empty() {
            return Ok(());
        }
        let texts: Vec<String> = guards.iter().map(Guard::to_string).collect();
        let is_final = guards.contains(&Guard::NoKey);
        let way_out = if is_final {
            ""
        } else {
            "; `force` overrules it"
        };
        Err(format!("held: {}{way_out}", texts.join("; ")))
    }

    /// Evidence is collected before a container is taken out of service. What a rule proposed is
    /// approved with that.
    fn evidence(&self, record: &mut ResponseRecord) {
        let kind = ActionKind::CollectEvidence;
        let same = record.responses.iter();
        let same = same.filter(|one| one.action.kind() == kind);
        let is_there = same.clone().any(|one| {
            one.mode == Mode::Enforced && (one.stage.is_desired() || !one.evidence.is_empty())
        });
        if is_there {
            return;
        }
        let round = u32::try_from(same.count()).unwrap_or(u32::MAX);
        let mut responses = record.responses.iter_mut();
        if let Some(proposed) =
            responses.find(|one| one.action.kind() == kind && one.stage.is_open())
        {
            self.enforce(proposed);
        } else {
            let action = (Action::CollectEvidence, Mode::Enforced);
            // A record without room goes without.
            drop(self.push(record, action, 3_600, round));
        }
    }

    fn push(
        &self,
        record: &mut ResponseRecord,
        (action, mode): (Action, Mode),
        valid_for_s: u64,
        round: u32,
    ) -> Result<(), String> {
        if record.responses.len() >= ResponseRecord::RESPONSES_MAX {
            return Err("the incident has as many responses as it may".to_owned());
        }
        let subject = self.sight.subject;
        let container = (&*record.container, subject.started_at);
        let mut response = ProposedResponse {
            id: ResponseId::of(&record.incident, action.kind(), container, round),
            rule: None,
            action,
            mode,
            container_started_at: subject.started_at,
            stage: Stage::Ordered,
            reason: self.reason(),
            guards: Vec::new(),
            approval: None,
            proposed_at: self.now,
            valid_for_s,
            // Who orders something says for how long.
            renewals_left: 0,
            expires_at: None,
            evidence: Vec::new(),
            before: None,
            after: None,
            round,
            steps: Vec::new(),
        };
        self.order_it(&mut response);
        record.responses.push(response);
        Ok(())
    }

    fn order_it(&self, response: &mut ProposedResponse) {
        let valid = std::time::Duration::from_secs(response.valid_for_s);
        response.stage = Stage::Ordered;
        response.expires_at = self.now.checked_add(valid).ok();
        response.approval = Some(Approval {
            by: self.order.by.clone(),
            at: self.now,
            reason: self.reason(),
            forced: self.order.force,
        });
        let step = self.step(Stage::Ordered);
        push_step(&mut response.steps, step);
    }

    fn step(&self, stage: Stage) -> Step {
        Step {
            id: self.cause.to_owned(),
            stage,
            at: self.now,
            by: self.order.by.clone(),
            detail: self.reason(),
        }
    }

    fn reason(&self) -> String {
        self.order.reason.chars().take(TEXT_MAX).collect()
    }
}

fn open<'a>(
    record: &'a mut ResponseRecord,
    id: &ResponseId,
) -> Result<&'a mut ProposedResponse, String> {
    let found = record.responses.iter_mut().find(|one| one.id == *id);
    let response = found.ok_or_else(|| format!("there is no response `{id}`"))?;
    if response.stage.is_open() {
        Ok(response)
    } else {
        Err(format!("response `{id}` is {} already", response.stage))
    }
}

/// The ledger after a record changed outside of a decision.
pub(crate) fn accounted(
    mut ledger: ResponseLedger,
    record: &ResponseRecord,
    now: Timestamp,
) -> ResponseLedger {
    account(&mut ledger, record, &subject_of(record), now);
    ledger
}
