//! One command that downloads something and runs it.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind};

pub(super) struct DownloadAndRun;

/// A pipe into something that runs what it reads.
const PIPED: &[&str] = &[
    "| sh", "|sh", "| bash", "|bash", "| python", "|python", "| perl", "|perl", "| ash", "|ash",
    "<(curl", "<(wget", "$(curl", "$(wget", "`curl", "`wget",
];

static DEFINITION: Definition = Definition {
    rule: "behavior/download-and-run",
    severity: Severity::High,
    advice: "Look at what stands at the address in the command line, and at what ran next.",
    techniques: &[attack::TOOL_TRANSFER, attack::SHELL],
    looks_at: &[Look::Start],
};

impl Detector for DownloadAndRun {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        if !start.kind.is(Kind::SHELL) || !start.has_arg(&["-c"]) {
            return None;
        }
        let line = start.line();
        let downloads = ["curl ", "wget ", "fetch "]
            .iter()
            .any(|tool| line.contains(tool));
        let piped = PIPED.iter().any(|shell| line.contains(shell));
        let marked = line.contains("chmod ") && (line.contains("+x") || line.contains(" 7"));
        if !downloads || !(piped || marked) {
            return None;
        }
        Some(start.sighting(format!("{} downloads something and runs it", start.by())))
    }
}
