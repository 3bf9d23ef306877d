//! Programs that the kernel starts on the host: for cores, modules, devices, formats.

use model::Severity;

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::{attack, wire::FileOpen};

pub(super) struct KernelHelper;

const HELPERS: &[&str] = &[
    "proc/sys/kernel/core_pattern",
    "proc/sys/kernel/modprobe",
    "proc/sys/kernel/hotplug",
    "proc/sys/kernel/poweroff_cmd",
    "proc/sys/fs/binfmt_misc/register",
    "sys/kernel/uevent_helper",
    "proc/sysrq-trigger",
    "sbin/request-key.conf",
];

static DEFINITION: Definition = Definition {
    rule: "behavior/kernel-helper",
    severity: Severity::Critical,
    advice: "Treat the host as taken. `/proc/sys` must not be writable in a container.",
    techniques: &[attack::BREAK_OUT],
    looks_at: &[Look::Open],
};

impl Detector for KernelHelper {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn opened(&self, open: &FileOpen<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        if !open.write || !HELPERS.iter().any(|helper| open.path.ends_with(helper)) {
            return None;
        }
        let title = format!(
            "{} writes {}, which names a program of the host",
            actor.name(),
            open.path
        );
        Some(Sighting::of_file(open, title))
    }
}
