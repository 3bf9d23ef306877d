//! A program for the kernel's own machine: it sees and changes what others do.

use model::{Severity, runtime::RareCall};

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::{attack, wire::Call};

pub(super) struct BpfProgram;

/// `BPF_PROG_LOAD` (linux/bpf.h).
const PROG_LOAD: u64 = 5;

static DEFINITION: Definition = Definition {
    rule: "behavior/bpf-program",
    severity: Severity::High,
    advice: "Take CAP_BPF and CAP_SYS_ADMIN from the container, unless it observes by its \
        trade; then write an exception.",
    techniques: &[attack::ROOTKIT],
    looks_at: &[Look::Call],
};

impl Detector for BpfProgram {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn called(&self, call: &Call<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        if call.call != RareCall::Bpf || call.args.first() != Some(&PROG_LOAD) {
            return None;
        }
        let title = format!("{} loads a BPF program into the kernel", actor.name());
        Some(actor.of_call("bpf(BPF_PROG_LOAD)".to_owned(), title))
    }
}
