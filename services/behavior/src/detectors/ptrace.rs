//! A process takes hold of another one.

use model::{Severity, runtime::RareCall};

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::{attack, wire::Call};

pub(super) struct Ptrace;

/// Requests that begin to hold a process or write into it (sys/ptrace.h).
const TAKES_HOLD: &[(u64, &str)] = &[
    (4, "PTRACE_POKETEXT"),
    (5, "PTRACE_POKEDATA"),
    (13, "PTRACE_SETREGS"),
    (16, "PTRACE_ATTACH"),
    (0x4205, "PTRACE_SETREGSET"),
    (0x4206, "PTRACE_SEIZE"),
];

static DEFINITION: Definition = Definition {
    rule: "behavior/ptrace",
    severity: Severity::High,
    advice: "Debuggers belong into a development container; elsewhere take CAP_SYS_PTRACE \
        away.",
    techniques: &[attack::PTRACE],
    looks_at: &[Look::Call],
};

impl Detector for Ptrace {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn called(&self, call: &Call<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        if call.call != RareCall::Ptrace {
            return None;
        }
        let (request, of) = (
            call.args.first()?,
            call.args.get(1).copied().unwrap_or_default(),
        );
        let (_, name) = TAKES_HOLD.iter().find(|(number, _)| number == request)?;
        let title = format!("{} takes hold of process {of}", actor.name());
        let mut sighting = actor.of_call(format!("ptrace({name}, {of})"), title);
        sighting.subject = format!("{} {name}", actor.name());
        Some(sighting)
    }
}
