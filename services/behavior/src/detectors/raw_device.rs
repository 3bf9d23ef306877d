//! A disk of the host, opened directly.

use model::Severity;

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::{attack, wire::FileOpen};

pub(super) struct RawDevice;

/// `sda1`, `nvme0n1p2`, `vda`, `xvda1`, `mmcblk0`, `dm-0`, `mapper/root`.
fn is_disk(device: &str) -> bool {
    let numbered = |prefix: &str| {
        let rest = device.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let lettered = |prefix: &str| {
        let rest = device.strip_prefix(prefix);
        rest.is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.len() < 5
        })
    };
    ["nvme", "mmcblk", "dm-", "md"].into_iter().any(numbered)
        || ["sd", "vd", "xvd", "hd"].into_iter().any(lettered)
        || (device.starts_with("mapper/") && device != "mapper/control")
}

static DEFINITION: Definition = Definition {
    rule: "behavior/raw-device",
    severity: Severity::High,
    advice: "Give the container no devices; who reads a disk reads every file of the host.",
    techniques: &[attack::BREAK_OUT],
    looks_at: &[Look::Open],
};

impl Detector for RawDevice {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn opened(&self, open: &FileOpen<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        let device = open.path.strip_prefix("dev/")?;
        if !is_disk(device) {
            return None;
        }
        let title = format!("{} opened {}, a disk", actor.name(), open.path);
        let severity = if open.write {
            Severity::Critical
        } else {
            Severity::High
        };
        Some(Sighting::of_file(open, title).with_severity(severity))
    }
}
