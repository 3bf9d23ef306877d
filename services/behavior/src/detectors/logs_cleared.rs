//! Logs are removed.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind};

pub(super) struct LogsCleared;

static DEFINITION: Definition = Definition {
    rule: "behavior/logs-cleared",
    severity: Severity::Medium,
    advice: "What happened before is in the timeline; find out who had a reason to hide it.",
    techniques: &[attack::CLEAR_LOGS],
    looks_at: &[Look::Start],
};

impl Detector for LogsCleared {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        // Images remove logs when they install, and rotation does by its trade.
        let by_trade = start.parent.is_some_and(|parent| {
            parent.kind.is(Kind::PACKAGE_MANAGER) || parent.name() == "logrotate"
        });
        if !start.kind.is(Kind::DELETER) || by_trade || start.container.is_beginning(start.at_ns) {
            return None;
        }
        let path = start
            .exec
            .args
            .iter()
            .skip(1)
            .find(|arg| arg.contains("var/log"))?;
        let title = format!("{} removes logs with {}", start.by(), start.name);
        let mut sighting = start.sighting(title);
        (*path).clone_into(&mut sighting.subject);
        Some(sighting)
    }
}
