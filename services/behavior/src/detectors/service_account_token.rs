//! The pod's token, read by what prints and copies files: its own clients read it themselves.

use model::Severity;

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::{attack, programs::Kind, wire::FileOpen};

pub(super) struct ServiceAccountToken;

static DEFINITION: Definition = Definition {
    rule: "behavior/service-account-token",
    severity: Severity::Medium,
    advice: "Exchange the token; mount none where the workload does not speak to the \
        orchestrator.",
    techniques: &[attack::STEAL_TOKEN],
    looks_at: &[Look::Open],
};

impl Detector for ServiceAccountToken {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn opened(&self, open: &FileOpen<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        let is_token = open.path.contains("secrets/kubernetes.io/serviceaccount")
            && open.path.ends_with("token");
        let prints = Kind::READER
            .or(Kind::SHELL)
            .or(Kind::SEARCHER)
            .or(Kind::NETCAT);
        if !is_token || !actor.kind().is(prints) {
            return None;
        }
        Some(Sighting::of_file(
            open,
            format!("{} read the pod's token", actor.name()),
        ))
    }
}
