//! Somebody opened a shell in the container from outside: `exec -it`. It is what it is called; who it
//! was, the orchestrator knows.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind};

pub(super) struct DebugSession;

static DEFINITION: Definition = Definition {
    rule: "behavior/debug-session",
    severity: Severity::Low,
    advice: "Ask who opened it; the audit log of the orchestrator or the engine says.",
    techniques: &[attack::ADMIN_COMMAND],
    looks_at: &[Look::Start],
};

impl Detector for DebugSession {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let is_session = start.exec.injected && start.exec.terminal;
        if !is_session || !start.kind.is(Kind::SHELL.or(Kind::INTERPRETER)) {
            return None;
        }
        let title = format!(
            "a person opened {} with a terminal from outside",
            start.name
        );
        Some(start.sighting(title))
    }
}
