//! A process writes into another one's memory.

use model::{Severity, runtime::RareCall};

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::{
    attack,
    wire::{Call, FileOpen},
};

pub(super) struct MemoryInjection;

static DEFINITION: Definition = Definition {
    rule: "behavior/memory-injection",
    severity: Severity::Critical,
    advice: "Treat the process that was written to as taken, with all that it holds.",
    techniques: &[attack::INJECTION],
    looks_at: &[Look::Call, Look::Open],
};

impl Detector for MemoryInjection {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn called(&self, call: &Call<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        if call.call != RareCall::ProcessVmWrite {
            return None;
        }
        let of = call.args.first().copied().unwrap_or_default();
        let own = u64::from(actor.process.pid) == of;
        let title = format!("{} writes into the memory of process {of}", actor.name());
        (!own).then(|| actor.of_call(format!("process_vm_writev({of})"), title))
    }

    fn opened(&self, open: &FileOpen<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        let of = open.path.strip_prefix("proc/")?.strip_suffix("/mem")?;
        if !open.write || of == "self" || of == actor.process.pid.to_string() {
            return None;
        }
        let title = format!("{} writes into the memory of process {of}", actor.name());
        Some(Sighting::of_file(open, title))
    }
}
