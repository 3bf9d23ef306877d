//! What policies would have done on incidents of the past. It changes nothing.

use jiff::Timestamp;
use model::{
    Severity, Slug,
    runtime::{ActionKind, Guard, Incident, Mode, ResponseLedger, ResponseRecord, Stage},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    census::{Census, Subject},
    decide::{Question, decide},
    library::ResponseSet,
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

/// Decides about incidents in the order in which they began, as if none had been answered yet.
pub(crate) fn replay(
    (tenant, policies): (&Slug, &ResponseSet),
    mut incidents: Vec<(Incident, Vec<Slug>)>,
    census: &Census,
) -> Vec<Replayed> {
    incidents.sort_by(|(a, _), (b, _)| (a.first_at, &a.id).cmp(&(b.first_at, &b.id)));
    let mut ledger = ResponseLedger::default();
    let mut all = Vec::new();
    for (incident, sources) in incidents {
        let now = incident.first_at;
        let reported = census.container(tenant, &incident.node, &incident.container);
        // It ran then, whatever became of it.
        let subject = reported.unwrap_or_else(|| Subject {
            is_reported: true,
            ..Subject::of_incident(&incident)
        });
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
        let responses = record.responses.into_iter().map(|one| ReplayedResponse {
            rule: one.rule.unwrap_or_default(),
            action: one.action.kind(),
            mode: one.mode,
            stage: one.stage,
            guards: one.guards.iter().map(Guard::to_string).collect(),
        });
        all.push(Replayed {
            responses: responses.collect(),
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
