//! A module for the kernel: it runs with every right on the host.

use model::{Severity, runtime::RareCall};

use super::{Actor, Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind, wire::Call};

pub(super) struct KernelModule;

static DEFINITION: Definition = Definition {
    rule: "behavior/kernel-module",
    severity: Severity::Critical,
    advice: "Treat the host as taken. Take CAP_SYS_MODULE from the container.",
    techniques: &[attack::BOOT_MODULE, attack::BREAK_OUT],
    looks_at: &[Look::Start, Look::Call],
};

impl Detector for KernelModule {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let loads = matches!(start.name, "insmod" | "modprobe") || start.name == "kmod";
        let asks = start.has_arg(&[
            "-l",
            "--list",
            "list",
            "-c",
            "--show-depends",
            "-n",
            "--version",
        ]);
        if !start.kind.is(Kind::MODULE_TOOL) || !loads || asks {
            return None;
        }
        Some(start.sighting(format!("{} loads a module with {}", start.by(), start.name)))
    }

    fn called(&self, call: &Call<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        let what = match call.call {
            RareCall::LoadModule => "loads a module into",
            RareCall::UnloadModule => "takes a module out of",
            RareCall::Kexec => "replaces",
            _ => return None,
        };
        let title = format!("{} {what} the kernel", actor.name());
        Some(actor.of_call(format!("{:?}", call.call), title))
    }
}
