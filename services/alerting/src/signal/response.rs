//! Responses: a proposal that waits, trouble with what was decided, and what was done.
//!
//! A response has four alerts, for four questions that different people ask at different times:
//! whether somebody must decide (`waits`), whether what was decided does not happen (`trouble`),
//! what is done to a container now (`done`), and whether that ended while the incident goes on
//! (`lapsed`). The first two stand until somebody acts, and are reminded of. The third is told once,
//! for it is what somebody wanted, and again when it is over. The fourth is told once, until the same
//! is ordered anew or the incident is closed.
//!
//! The record says how far a response is. News alone may come in another order, and an agent may
//! claim what policy did not take for true: such a claim is a step of the record and no stage.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use model::{
    AlertState, Fingerprint, Severity, Slug,
    runtime::{
        ActionKind, ContainerResponded, Guard, Incident, IncidentChanged, IncidentState, Mode,
        ProposedResponse, ResponseRecord, Stage, Step,
    },
};

use super::Signal;

/// Characters of a text from a node or a person that an alert has in one line.
const LINE_CHARS_MAX: usize = 500;
/// How bad it is where no incident says.
const SEVERITY: Severity = Severity::High;

/// What is known of a response beside the news of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known<'a> {
    pub(crate) record: Option<&'a ResponseRecord>,
    pub(crate) incident: Option<&'a Incident>,
}

/// What news of a response say of its alerts.
pub(crate) fn of_response(
    tenant: &Slug,
    news: &ContainerResponded,
    known: Known<'_>,
) -> Vec<Signal> {
    let Some(action) = news.action.filter(|kind| *kind != ActionKind::StartGate) else {
        return of_node(tenant, news).into_iter().collect();
    };
    let told = Told::new(news, action, known);
    let fingerprint =
        |what| Fingerprint::of(&["response", what, tenant.as_str(), &news.response.0]);
    let waits = (told.waits(), told.asks(), told.question());
    let trouble = (told.fails(), told.complaint(), told.why());
    let done = (told.is_done(), told.deed(), told.why());
    let mut signals = vec![
        told.signal(fingerprint("waits"), waits),
        Signal {
            // The node does not try it again, and nobody can take it back.
            once: told.stage == Stage::Refused,
            ..told.signal(fingerprint("trouble"), trouble)
        },
        Signal {
            once: true,
            ..told.signal(fingerprint("done"), done)
        },
    ];
    if action.lasts() {
        let lapsed = (told.is_lapsed(), told.lapse(), told.remedy());
        let fingerprint = lapse_fingerprint(tenant, &news.incident, action);
        signals.push(Signal {
            once: true,
            ..told.signal(fingerprint, lapsed)
        });
    }
    signals
}

/// What the end of an incident settles: that something ended before it.
pub(crate) fn of_closed(
    tenant: &Slug,
    news: &IncidentChanged,
    record: &ResponseRecord,
) -> Vec<Signal> {
    let incident = &news.incident;
    let has_ended = |one: &&ProposedResponse| matches!(one.stage, Stage::Expired | Stage::Lifted);
    let ended = record.responses.iter().filter(has_ended);
    let kinds: BTreeSet<&str> = ended.map(|one| one.action.kind().as_str()).collect();
    let kinds = ActionKind::ALL
        .into_iter()
        .filter(|kind| kind.lasts() && kinds.contains(kind.as_str()));
    let signals = kinds.map(|action| Signal {
        fingerprint: lapse_fingerprint(tenant, &incident.id, action),
        state: AlertState::Resolved,
        severity: incident.severity,
        title: format!(
            "{} of {} on node {} was over before its incident",
            noun(action),
            line(&incident.container_name),
            incident.node
        ),
        text: format!("incident {} is closed", line(&incident.id)),
        image: incident.image,
        references: Vec::new(),
        policy: None,
        at: news.changed_at,
        once: true,
    });
    signals.collect()
}

/// One alert for an incident and an action, whichever of its responses ended.
fn lapse_fingerprint(tenant: &Slug, incident: &str, action: ActionKind) -> Fingerprint {
    Fingerprint::of(&[
        "response",
        "lapsed",
        tenant.as_str(),
        incident,
        action.as_str(),
    ])
}

/// What a node did not let start, and what it does not take. There is no news of their end: they are
/// told once a day for each node and image.
fn of_node(tenant: &Slug, news: &ContainerResponded) -> Option<Signal> {
    let ContainerResponded {
        node,
        container,
        image,
        detail,
        at,
        ..
    } = news;
    let day = at.strftime("%F").to_string();
    let named = image.map(|image| image.hex()).unwrap_or_default();
    let (what, title) = match (news.action, news.stage) {
        _ if news.mode == Mode::DryRun => return None,
        (Some(_), Stage::Done) => (
            "start",
            format!("node {node} did not let a container start"),
        ),
        (Some(_), Stage::Failed) => ("gate", format!("node {node} could not stop a start")),
        (None, Stage::Refused) => ("desired", format!("node {node} refuses what it shall do")),
        _ => return None,
    };
    let mut place = format!("node {node}");
    if !container.is_empty() {
        place = format!("{place}, container {}", line(container));
    }
    Some(Signal {
        fingerprint: Fingerprint::of(&[what, tenant.as_str(), node.as_str(), &named, &day]),
        state: AlertState::Raised,
        severity: SEVERITY,
        title,
        text: [
            place,
            line(detail),
            format!("tidewaiter response show node-{node}"),
        ]
        .join("\n"),
        image: *image,
        references: Vec::new(),
        policy: None,
        at: *at,
        once: true,
    })
}

/// How far a response is, as far as anybody knows.
struct Told<'a> {
    news: &'a ContainerResponded,
    action: ActionKind,
    known: Known<'a>,
    response: Option<&'a ProposedResponse>,
    stage: Stage,
    mode: Mode,
    by: &'a str,
    detail: &'a str,
}

// === impl Told ===

impl<'a> Told<'a> {
    fn new(news: &'a ContainerResponded, action: ActionKind, known: Known<'a>) -> Self {
        let response = known
            .record
            .and_then(|record| record.response(&news.response));
        // A read may be older than the news; then they are right.
        let newer = response.filter(|one| one.steps.iter().any(|step| step.at >= news.at));
        let stage = newer.map_or(news.stage, |one| one.stage);
        let step = newer
            .filter(|_| stage != news.stage)
            .and_then(|one| one.steps.iter().rfind(|step| step.stage == stage));
        let (by, detail) = step.map_or((&*news.by, &*news.detail), |step| {
            (step.by.as_str(), step.detail.as_str())
        });
        Self {
            news,
            action,
            known,
            response,
            stage,
            mode: newer.map_or(news.mode, |one| one.mode),
            by,
            detail,
        }
    }

    /// Whether somebody must decide. Evidence that is collected before something else is done is
    /// asked for with that.
    fn waits(&self) -> bool {
        let is_beside = || {
            let responses = self
                .known
                .record
                .iter()
                .flat_map(|record| &record.responses);
            responses
                .filter(|one| one.id != self.news.response)
                .any(|one| one.stage.waits() && one.action.kind() != ActionKind::CollectEvidence)
        };
        self.stage.waits() && !(self.action == ActionKind::CollectEvidence && is_beside())
    }

    /// Whether what was decided does not happen. An agent that tries again has not done it yet.
    fn fails(&self) -> bool {
        let failed_before = || {
            let decides = |stage| matches!(stage, Stage::Ordered | Stage::Done | Stage::Failed);
            let mut steps = self.steps().rev().filter(|step| decides(step.stage));
            steps.next().is_some_and(|step| step.stage == Stage::Failed)
        };
        self.mode == Mode::Enforced
            && match self.stage {
                Stage::Failed | Stage::Refused => true,
                Stage::Started => failed_before(),
                _ => false,
            }
    }

    /// Whether it is done, until the node says that it is no more. Evidence takes nothing from
    /// anybody.
    fn is_done(&self) -> bool {
        let changes = !matches!(
            self.action,
            ActionKind::Observe | ActionKind::CollectEvidence
        );
        let was_done = || self.steps().any(|step| step.stage == Stage::Done);
        changes
            && self.mode == Mode::Enforced
            && match self.stage {
                Stage::Done => true,
                // The node did not answer yet that it is over.
                Stage::Released | Stage::Expired => was_done(),
                _ => false,
            }
    }

    /// Whether it ended while its incident goes on, and nothing took its place.
    fn is_lapsed(&self) -> bool {
        let incident = self.known.incident;
        let is_open = incident.is_some_and(|one| one.state == IncidentState::Open);
        let taken_back = || self.steps().any(|step| step.stage == Stage::Released);
        let is_replaced = || {
            let mut responses = self.known.record.iter().flat_map(|one| &one.responses);
            responses.any(|one| {
                one.action.kind() == self.action
                    && one.mode == Mode::Enforced
                    && one.stage.is_desired()
            })
        };
        self.mode == Mode::Enforced
            && is_open
            && matches!(self.stage, Stage::Expired | Stage::Lifted)
            && !taken_back()
            && !is_replaced()
    }

    fn steps(&self) -> impl DoubleEndedIterator<Item = &Step> {
        self.response.into_iter().flat_map(|one| &one.steps)
    }

    fn signal(
        &self,
        fingerprint: Fingerprint,
        (stands, title, text): (bool, String, String),
    ) -> Signal {
        let image_name = self.known.record.map(|record| record.image_name.clone());
        Signal {
            fingerprint,
            state: if stands {
                AlertState::Raised
            } else {
                AlertState::Resolved
            },
            severity: self
                .known
                .incident
                .map_or(SEVERITY, |incident| incident.severity),
            title,
            text,
            image: self.news.image,
            references: image_name
                .into_iter()
                .filter(|name| !name.is_empty())
                .collect(),
            policy: None,
            at: self.news.at,
            once: false,
        }
    }

    fn asks(&self) -> String {
        let ends = match self.stage {
            Stage::Held => "is held back",
            _ => "waits for approval",
        };
        format!("{} of {} {ends}", noun(self.action), self.container())
    }

    fn complaint(&self) -> String {
        let ends = match self.stage {
            Stage::Refused => "is refused by the node",
            _ => "failed",
        };
        format!("{} of {} {ends}", noun(self.action), self.container())
    }

    fn deed(&self) -> String {
        let done = match self.action {
            ActionKind::Pause => "is paused",
            ActionKind::Quarantine => "is in quarantine",
            ActionKind::Block => "runs only what its image holds",
            ActionKind::Kill => "was killed",
            ActionKind::Replace => "was replaced",
            ActionKind::Observe | ActionKind::CollectEvidence | ActionKind::StartGate => "is done",
        };
        format!("{} {done}", self.container())
    }

    fn lapse(&self) -> String {
        let noun = noun(self.action);
        format!(
            "{noun} of {} is over, its incident is not",
            self.container()
        )
    }

    fn remedy(&self) -> String {
        let incident = line(&self.news.incident);
        format!(
            "{}\nto order it anew:\ntidewaiter response act {} --incident {incident} --reason TEXT",
            self.why(),
            self.action
        )
    }

    fn container(&self) -> String {
        let ContainerResponded {
            node,
            container,
            container_name,
            ..
        } = self.news;
        let name = if container_name.is_empty() {
            container
        } else {
            container_name
        };
        format!("{} on node {node}", line(name))
    }

    /// What, where, and how it came to this.
    fn why(&self) -> String {
        let namespace = self.known.incident.and_then(|one| one.namespace.as_deref());
        let place = [
            Some(format!("node {}", self.news.node)),
            namespace.map(|name| format!("namespace {}", line(name))),
            Some(format!("container {}", line(&self.news.container))),
        ];
        let place: Vec<String> = place.into_iter().flatten().collect();
        let reason = self.response.map_or("", |one| one.reason.as_str());
        let rule = self.response.and_then(|one| one.rule.as_deref());
        let lines = [
            ("because: ", reason),
            ("rule: ", rule.unwrap_or_default()),
            (&*format!("{} by ", self.stage), self.by),
            ("", self.detail),
            ("", &*place.join(", ")),
            ("tidewaiter response show ", &*self.news.incident),
        ];
        let lines = lines.iter().filter(|(_, what)| !what.is_empty());
        let lines: Vec<String> = lines
            .map(|(name, what)| format!("{name}{}", line(what)))
            .collect();
        lines.join("\n")
    }

    /// The same for who must decide, and how.
    fn question(&self) -> String {
        let why = self.why();
        let Some(response) = self.response.filter(|_| self.waits()) else {
            return why;
        };
        if response.guards.contains(&Guard::NoKey) {
            return format!("{why}\nno node would believe it: set `policy.signing_key_file` first");
        }
        let (incident, id) = (line(&self.news.incident), line(&response.id.0));
        let force = match self.stage {
            Stage::Held => " --force",
            _ => "",
        };
        let lasts = SignedDuration::from_secs(response.valid_for_s.try_into().unwrap_or(i64::MAX));
        let until = response
            .expires_at
            .map(|at| format!(" until {}", at.strftime("%FT%TZ")))
            .unwrap_or_default();
        format!(
            "{why}\n\
             it would last {lasts:#}; whoever has a token of scope `respond` or `admin` decides{until}:\n\
             tidewaiter response approve {incident} {id} --reason TEXT{force}\n\
             tidewaiter response deny {incident} {id} --reason TEXT"
        )
    }
}

const fn noun(action: ActionKind) -> &'static str {
    match action {
        ActionKind::Observe => "observation",
        ActionKind::CollectEvidence => "evidence",
        ActionKind::Pause => "pause",
        ActionKind::Quarantine => "quarantine",
        ActionKind::Block => "block",
        ActionKind::Kill => "kill",
        ActionKind::Replace => "replacement",
        ActionKind::StartGate => "start",
    }
}

/// A text as one line: who names a container writes no line of his own below the lines that people
/// copy.
fn line(text: &str) -> String {
    let text = text.trim().chars().take(LINE_CHARS_MAX);
    text.map(|c| if c.is_control() { ' ' } else { c }).collect()
}
