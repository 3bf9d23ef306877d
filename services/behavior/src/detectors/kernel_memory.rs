//! The kernel's memory, or where its parts lie.

use model::Severity;

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::{attack, wire::FileOpen};

pub(super) struct KernelMemory;

static DEFINITION: Definition = Definition {
    rule: "behavior/kernel-memory",
    severity: Severity::High,
    advice: "No container needs it: find out what read it.",
    techniques: &[attack::OS_CREDENTIALS, attack::BREAK_OUT],
    looks_at: &[Look::Open],
};

impl Detector for KernelMemory {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn opened(&self, open: &FileOpen<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        if !matches!(
            open.path,
            "proc/kcore" | "dev/mem" | "dev/kmem" | "dev/port" | "proc/kallsyms"
        ) {
            return None;
        }
        let sighting = Sighting::of_file(open, format!("{} opened {}", actor.name(), open.path));
        // Profilers want names of functions.
        Some(if open.path == "proc/kallsyms" {
            sighting.with_severity(Severity::Low)
        } else {
            sighting
        })
    }
}
