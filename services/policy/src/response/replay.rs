//! What policies would have done on incidents of the past. It changes nothing.

use jiff::Timestamp;
use model::{
    Severity, Slug,
    runtime::{
        ActionKind, Guard, Incident, IncidentState, Mode, ResponseLedger, ResponseRecord, Stage,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    census::{Census, Subject},
    decide::{Question, account, decide},
    library::ResponseSet,
    renewal,
};

/// An incident, and what would have been done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replayed {
    /// The incident.
    pub incident: String,
    /// One sentence.
    pub title: String,
    /// How bad.
    pub severity: Severity,
    /// The node.
    pub node: Slug,
    /// The container's name.
    pub container_name: String,
    /// When it began.
    #[schemars(with = "model::schema::Time")]
    pub at: Timestamp,
    /// What would have been done.
    pub responses: Vec<ReplayedResponse>,
}

/// A response that would have been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayedResponse {
    /// The rule, as `policy/rule`.
    pub rule: String,
    /// What.
    pub action: ActionKind,
    /// Whether it would have been carried out.
    pub mode: Mode,
    /// How it would have been decided: observed, proposed, held or ordered.
    pub stage: Stage,
    /// What would have held it.
    pub guards: Vec<String>,
}

/// An earlier incident of which something may be renewed.
struct Going {
    record: ResponseRecord,
    subject: Subject,
    /// Until when the incident was open, as far as anybody knows.
    open_until: Timestamp,
}

// === impl Going ===

impl Going {
    fn may_go_on(&self) -> bool {
        let mut responses = self.record.responses.iter();
        responses.any(|one| renewal::due_at(one).is_some_and(|due| due <= self.open_until))
    }

    /// Renews what was due until `now`, as upkeep would have.
    fn renew(&mut self, ledger: &mut ResponseLedger, now: Timestamp) {
        let until = self.open_until.min(now);
        let mut is_renewed = false;
        for response in &mut self.record.responses {
            while let Some(due) = renewal::due_at(response).filter(|due| *due <= until) {
                renewal::renew(response, due);
                is_renewed = true;
            }
        }
        if is_renewed {
            account(ledger, &self.record, &self.subject, now);
        }
    }
}

/// Decides about incidents in the order in which they began, as if none had been answered yet.
pub(crate) fn replay(
    (tenant, policies): (&Slug, &ResponseSet),
    mut incidents: Vec<(Incident, Vec<Slug>)>,
    census: &Census,
) -> Vec<Replayed> {
    incidents.sort_by(|(a, _), (b, _)| (a.first_at, &a.id).cmp(&(b.first_at, &b.id)));
    let mut ledger = ResponseLedger::default();
    let (mut all, mut going) = (Vec::new(), Vec::<Going>::new());
    for (incident, sources) in incidents {
        let now = incident.first_at;
        let reported = census.container(tenant, &incident.node, &incident.container);
        // It ran then, whatever became of it.
        let subject = reported.unwrap_or_else(|| Subject {
            is_reported: true,
            ..Subject::of_incident(&incident)
        });
        for one in &mut going {
            one.renew(&mut ledger, now);
        }
        going.retain(Going::may_go_on);
        let mut record = ResponseRecord::of(&incident, now);
        let question = Question {
            tenant,
            policies,
            incident: &incident,
            subject: &subject,
            sources: &sources,
            census,
            signs: true,
            now,
            cause: "replay",
        };
        decide(&question, &mut record, &mut ledger);
        let responses = record.responses.iter().map(|one| ReplayedResponse {
            rule: one.rule.clone().unwrap_or_default(),
            action: one.action.kind(),
            mode: one.mode,
            stage: one.stage,
            guards: one.guards.iter().map(Guard::to_string).collect(),
        });
        let responses = responses.collect();
        let began = Going {
            open_until: match incident.state {
                IncidentState::Open => Timestamp::MAX,
                IncidentState::Closed => incident.last_at,
            },
            subject: subject.clone(),
            record: record.clone(),
        };
        if began.may_go_on() {
            going.push(began);
        }
        all.push(Replayed {
            responses,
            incident: incident.id,
            title: incident.title,
            severity: incident.severity,
            node: incident.node,
            container_name: incident.container_name,
            at: now,
        });
    }
    all
}
