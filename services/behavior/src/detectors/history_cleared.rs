//! The shell's history is removed or switched off.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind};

pub(super) struct HistoryCleared;

const HISTORIES: &[&str] = &[
    ".bash_history",
    ".ash_history",
    ".zsh_history",
    ".sh_history",
];
const SWITCHES: &[&str] = &[
    "history -c",
    "unset HISTFILE",
    "HISTFILE=/dev/null",
    "HISTSIZE=0",
    "> ~/.bash_history",
    ">~/.bash_history",
];

static DEFINITION: Definition = Definition {
    rule: "behavior/history-cleared",
    severity: Severity::Medium,
    advice: "The commands are in the timeline all the same; find out who had a shell.",
    techniques: &[attack::CLEAR_HISTORY],
    looks_at: &[Look::Start],
};

impl Detector for HistoryCleared {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let names_history = start.says(HISTORIES);
        let removes =
            start.kind.is(Kind::DELETER) || (start.name == "ln" && start.says(&["/dev/null"]));
        let switches = start.kind.is(Kind::SHELL) && start.says(SWITCHES);
        if !(switches || removes && names_history) {
            return None;
        }
        Some(start.sighting(format!("{} clears the shell's history", start.name)))
    }
}
