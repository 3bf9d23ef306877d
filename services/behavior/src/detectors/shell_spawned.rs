//! A shell in a container that never had one, or by a program that never made one.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind};

pub(super) struct ShellSpawned;

static DEFINITION: Definition = Definition {
    rule: "behavior/shell-spawned",
    severity: Severity::Medium,
    advice: "Compare with what the program does in other containers of the image; if it is \
        right, write an exception for it.",
    techniques: &[attack::SHELL],
    looks_at: &[Look::Start],
};

impl Detector for ShellSpawned {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let exec = start.exec;
        // A script has its own rule: drift says whether the image holds it.
        if !start.kind.is(Kind::SHELL) || exec.injected || exec.script.is_some() {
            return None;
        }
        let parent = start.parent?;
        let expected = Kind::SHELL
            .or(Kind::STARTER)
            .or(Kind::WEB_SERVER)
            .or(Kind::DATABASE)
            .or(Kind::PACKAGE_MANAGER);
        let is_new = start.container.is_known_well(start.at_ns)
            && !start.container.has_shell_of(&parent.path);
        if parent.kind.is(expected) || !is_new {
            return None;
        }
        let (name, by) = (start.name, parent.name());
        let title = format!("{by} started the shell {name}, which it never did here before");
        let mut sighting = start.sighting(title);
        sighting.subject = format!("{by} {name}");
        Some(sighting)
    }
}
