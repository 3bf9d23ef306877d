//! One command that decodes something and runs it.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind};

pub(super) struct ObfuscatedCommand;

const DECODES: &[&str] = &[
    "base64 -d",
    "base64 --decode",
    "base64 -D",
    "b64decode",
    "base32 -d",
    "xxd -r",
    "openssl enc -d",
    "openssl base64 -d",
    "rev |",
    "decode_base64",
    "base64_decode",
];
const RUNS: &[&str] = &[
    "| sh", "|sh", "| bash", "|bash", "| python", "|python", "| perl", "|perl", "eval", "exec(",
    "system(",
];

static DEFINITION: Definition = Definition {
    rule: "behavior/obfuscated-command",
    severity: Severity::High,
    advice: "Decode what stands in the command line; whoever hides a command has a reason.",
    techniques: &[attack::OBFUSCATED, attack::DECODED],
    looks_at: &[Look::Start],
};

impl Detector for ObfuscatedCommand {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        if !start.kind.is(Kind::SHELL.or(Kind::INTERPRETER)) {
            return None;
        }
        let decodes = start.says(DECODES);
        let runs = start.says(RUNS);
        let title = format!(
            "{}, started by {}, runs what it decodes",
            start.name,
            start.by()
        );
        (decodes && runs).then(|| start.sighting(title))
    }
}
