//! The program that the kernel starts on the host when a cgroup is empty.

use model::Severity;

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::{attack, wire::FileOpen};

pub(super) struct ReleaseAgent;

static DEFINITION: Definition = Definition {
    rule: "behavior/release-agent",
    severity: Severity::Critical,
    advice: "Treat the host as taken. Use cgroup v2, and take CAP_SYS_ADMIN from the \
        container.",
    techniques: &[attack::BREAK_OUT],
    looks_at: &[Look::Open],
};

impl Detector for ReleaseAgent {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn opened(&self, open: &FileOpen<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        let name = open.path.rsplit('/').next()?;
        if !open.write || !matches!(name, "release_agent" | "notify_on_release") {
            return None;
        }
        Some(Sighting::of_file(
            open,
            format!("{} writes {name} of a cgroup", actor.name()),
        ))
    }
}
