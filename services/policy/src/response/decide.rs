//! The decision: a function of what is known.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use model::{
    Slug,
    runtime::{
        Action, ActionKind, Approval, Guard, Incident, LedgerEntry, Mode, ProposedResponse,
        ResponseId, ResponseLedger, ResponseRecord, Stage, Step,
    },
};

use super::{
    census::{Census, Subject},
    document::{ResponseMode, ResponsePolicy, ResponseRule},
    guard::{Sight, changes},
    library::ResponseSet,
};

/// How long the ledger remembers what was ordered: no limit looks further back.
pub(crate) const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

/// Characters of a container's name that the ledger keeps.
pub(crate) const NAME_CHARS_MAX: usize = 100;

/// Bytes of the ledger's entries, and of one beside its texts: a value of a bucket has a limit.
const LEDGER_BYTES_MAX: usize = 512 * 1024;
const ENTRY_BYTES: usize = 320;

/// Everything that a decision rests on.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) tenant: &'a Slug,
    pub(crate) policies: &'a ResponseSet,
    pub(crate) incident: &'a Incident,
    pub(crate) subject: &'a Subject,
    /// Where the image comes from.
    pub(crate) sources: &'a [Slug],
    pub(crate) census: &'a Census,
    /// Whether documents can be signed.
    pub(crate) signs: bool,
    pub(crate) now: Timestamp,
    /// Names the message behind it.
    pub(crate) cause: &'a str,
}

/// What a rule wants.
struct Wanted<'a> {
    policy: &'a ResponsePolicy,
    rule: &'a ResponseRule,
    action: Action,
    mode: ResponseMode,
}

// === impl Question, Wanted ===

impl Question<'_> {
    fn sight<'s>(&'s self, ledger: &'s ResponseLedger) -> Sight<'s> {
        Sight {
            tenant: self.tenant,
            census: self.census,
            ledger,
            subject: self.subject,
            image: self.incident.image,
            signs: self.signs,
            now: self.now,
        }
    }
}

impl Wanted<'_> {
    /// An owner that had too many containers replaced gets a quarantine instead; says so.
    fn temper(&mut self, sight: &Sight<'_>, id: &ResponseId) -> Vec<Guard> {
        let limit = self.policy.limits.replacements_per_hour;
        if self.action != Action::Replace {
            return Vec::new();
        }
        let guard = sight.replaced_too_often(limit, id);
        if guard.is_some() {
            self.action = Action::Quarantine { allow: Vec::new() };
        }
        guard.into_iter().collect()
    }

    /// The response that it becomes.
    fn response(
        self,
        question: &Question<'_>,
        (id, mut steps): (ResponseId, Vec<Step>),
        stage: Stage,
        (guards, mut notes): (Vec<Guard>, Vec<Guard>),
    ) -> ProposedResponse {
        let (name, valid) = (self.policy.rule_name(self.rule), self.rule.valid.0);
        let lasts = self.action.kind().lasts();
        let goes_on = match stage {
            Stage::Ordered => Some(valid),
            _ => Some(self.policy.wait.0).filter(|_| stage.waits()),
        };
        let is_ordered = stage == Stage::Ordered;
        let step = Step {
            id: question.cause.to_owned(),
            stage,
            at: question.now,
            by: name.clone(),
            detail: detail(stage, &guards, &notes),
        };
        push_step(&mut steps, step);
        notes.extend(guards);
        let approval = is_ordered.then(|| Approval {
            by: name.clone(),
            at: question.now,
            reason: String::new(),
            forced: false,
        });
        ProposedResponse {
            id,
            rule: Some(name),
            action: self.action,
            mode: self.mode.carried_out(),
            container_started_at: question.subject.started_at,
            stage,
            reason: question.incident.title.clone(),
            guards: notes,
            approval,
            proposed_at: question.now,
            valid_for_s: valid.as_secs().unsigned_abs(),
            renewals_left: if lasts { self.rule.renew } else { 0 },
            expires_at: goes_on.and_then(|time| question.now.checked_add(time).ok()),
            evidence: Vec::new(),
            before: None,
            after: None,
            round: 0,
            steps,
        }
    }
}

/// Decides about an incident: adds to its record and to the ledger.
pub(crate) fn decide(
    question: &Question<'_>,
    record: &mut ResponseRecord,
    ledger: &mut ResponseLedger,
) {
    for wanted in wanted(question).into_values() {
        take(question, wanted, record, ledger);
    }
    account(ledger, record, question.subject, question.now);
}

/// What all rules want together, gentlest first; of two rules that want the same the one that goes
/// further.
fn wanted<'a>(question: &Question<'a>) -> BTreeMap<usize, Wanted<'a>> {
    let Question {
        incident,
        subject,
        sources,
        ..
    } = *question;
    let mut all: BTreeMap<usize, Wanted<'_>> = BTreeMap::new();
    for policy in question.policies.all() {
        let fitting = policy.rules.iter();
        for rule in fitting.filter(|rule| rule.when.fits(incident, subject, sources)) {
            let mode = rule.mode.unwrap_or(policy.mode);
            let takes_out = rule.then.iter().any(|then| then.0.kind().takes_out());
            let evidence = (policy.evidence && takes_out).then_some(Action::CollectEvidence);
            let actions = rule.then.iter().map(|then| then.0.clone());
            for action in actions.chain(evidence) {
                let place = place(action.kind());
                if all.get(&place).is_none_or(|known| known.mode < mode) {
                    let wanted = Wanted {
                        policy,
                        rule,
                        action,
                        mode,
                    };
                    all.insert(place, wanted);
                }
            }
        }
    }
    all
}

fn place(kind: ActionKind) -> usize {
    let all = ActionKind::ALL.iter().position(|one| *one == kind);
    all.unwrap_or(ActionKind::ALL.len())
}

/// How far a response already went, on the scale of [`ResponseMode`]; `None`: it was decided.
fn reached(response: &ProposedResponse) -> Option<ResponseMode> {
    match (response.stage, response.mode) {
        (Stage::Observed, _) => Some(ResponseMode::Observe),
        (Stage::Proposed | Stage::Held | Stage::Lapsed, _) => Some(ResponseMode::Propose),
        (_, Mode::DryRun) => Some(ResponseMode::DryRun),
        _ => None,
    }
}

/// Takes up what a rule wants, where it goes further than what was decided before.
fn take(
    question: &Question<'_>,
    mut wanted: Wanted<'_>,
    record: &mut ResponseRecord,
    ledger: &mut ResponseLedger,
) {
    let subject = question.subject;
    let sight = question.sight(ledger);
    let id = |kind| {
        let container = (&*subject.container, subject.started_at);
        ResponseId::of(&record.incident, kind, container, 0)
    };
    let notes = wanted.temper(&sight, &id(ActionKind::Replace));
    let (mode, kind) = (wanted.mode, wanted.action.kind());
    let mut known = record.responses.iter();
    let known = known.rposition(|one| one.action.kind() == kind);
    let before = known.and_then(|at| record.responses.get(at));
    if before.is_some_and(|one| reached(one).is_none_or(|reached| reached >= mode)) {
        return;
    }
    let is_full = record.responses.len() >= ResponseRecord::RESPONSES_MAX;
    if before.is_none() && is_full {
        return;
    }
    let id = before.map_or_else(|| id(kind), |one| one.id.clone());
    let guards = sight.of_rule((wanted.policy, wanted.rule), kind, &id);
    let stage = stage(mode, &guards);
    if before.is_some_and(|one| one.stage == stage && one.guards == guards) {
        return;
    }
    let steps = before.map(|one| one.steps.clone()).unwrap_or_default();
    let response = wanted.response(question, (id, steps), stage, (guards, notes));
    match known.and_then(|at| record.responses.get_mut(at)) {
        Some(one) => *one = response,
        None => record.responses.push(response),
    }
    record.updated_at = question.now;
    account(ledger, record, subject, question.now);
}

fn stage(mode: ResponseMode, guards: &[Guard]) -> Stage {
    let is_free = match mode {
        ResponseMode::Observe => return Stage::Observed,
        ResponseMode::Propose => return Stage::Proposed,
        // It does nothing to anybody; it only must be believed.
        ResponseMode::DryRun => !guards.contains(&Guard::NoKey),
        ResponseMode::Enforce => guards.is_empty(),
    };
    if is_free { Stage::Ordered } else { Stage::Held }
}

fn detail(stage: Stage, guards: &[Guard], notes: &[Guard]) -> String {
    let all = guards.iter().chain(notes).map(Guard::to_string);
    let all = all.collect::<Vec<_>>().join("; ");
    match stage {
        Stage::Held => format!("held: {all}"),
        _ if all.is_empty() => String::new(),
        Stage::Ordered => all,
        _ => format!("it would be held: {all}"),
    }
}

/// Adds a step once; of many the oldest go.
pub(crate) fn push_step(steps: &mut Vec<Step>, step: Step) {
    let same = |known: &Step| known.id == step.id && known.stage == step.stage;
    if steps.iter().any(same) {
        return;
    }
    steps.push(step);
    let over = steps.len().saturating_sub(ResponseRecord::STEPS_MAX);
    steps.drain(..over);
}

/// Brings a response to a stage, or leaves it at its own, by policy itself; a step says so.
pub(crate) fn move_on(
    response: &mut ProposedResponse,
    stage: Stage,
    (id, detail): (&str, String),
    now: Timestamp,
) {
    response.stage = stage;
    let step = Step {
        id: id.to_owned(),
        stage,
        at: now,
        by: "policy".to_owned(),
        detail,
    };
    push_step(&mut response.steps, step);
}

/// Brings the ledger in line with a record: what was ordered counts, what was renewed keeps its
/// container out of service for longer, and what is over does not any more.
pub(crate) fn account(
    ledger: &mut ResponseLedger,
    record: &ResponseRecord,
    subject: &Subject,
    now: Timestamp,
) {
    for response in &record.responses {
        let kind = response.action.kind();
        let mut known = ledger.entries.iter();
        let known = known.position(|entry| entry.response == response.id);
        let is_counted = changes(kind) && response.mode == Mode::Enforced;
        match (known, &response.approval) {
            (None, Some(approval)) if is_counted && response.stage.is_desired() => {
                ledger.entries.push(LedgerEntry {
                    response: response.id.clone(),
                    rule: response.rule.clone().unwrap_or_default(),
                    action: kind,
                    node: record.node.clone(),
                    container: record.container.clone(),
                    name: subject.name.chars().take(NAME_CHARS_MAX).collect(),
                    image: record.image,
                    group: subject.group.clone(),
                    at: approval.at,
                    out_until: response.expires_at.filter(|_| kind.takes_out()),
                });
            }
            (Some(at), _) if response.stage.is_desired() => {
                if let Some(entry) = ledger.entries.get_mut(at) {
                    entry.out_until = response.expires_at.filter(|_| kind.takes_out());
                }
            }
            (Some(at), _) => {
                if response.stage.is_open() {
                    // Its order was never written: it was decided otherwise since.
                    ledger.entries.remove(at);
                } else if let Some(entry) = ledger.entries.get_mut(at) {
                    entry.out_until = entry.out_until.map(|until| until.min(now));
                }
            }
            _ => {}
        }
    }
    let is_past = |entry: &LedgerEntry| {
        now.duration_since(entry.at) > REMEMBERED && entry.out_until.is_none_or(|at| at <= now)
    };
    ledger.entries.retain(|entry| !is_past(entry));
    trim(ledger, now);
}

/// Makes room: what is out of service is forgotten last, for it would be counted as serving.
fn trim(ledger: &mut ResponseLedger, now: Timestamp) {
    let bytes_of = |entry: &LedgerEntry| {
        let texts = [&entry.rule, &entry.container, &entry.name, &entry.group];
        let texts: usize = texts.into_iter().map(String::len).sum();
        texts.saturating_add(ENTRY_BYTES)
    };
    let mut count = ledger.entries.len();
    let mut bytes: usize = ledger.entries.iter().map(bytes_of).sum();
    for keeps_out in [false, true] {
        ledger.entries.retain(|entry| {
            let is_full = count > ResponseLedger::ENTRIES_MAX || bytes > LEDGER_BYTES_MAX;
            let is_out = entry.out_until.is_some_and(|at| at > now);
            let goes = is_full && is_out == keeps_out;
            if goes {
                count = count.saturating_sub(1);
                bytes = bytes.saturating_sub(bytes_of(entry));
            }
            !goes
        });
    }
}
