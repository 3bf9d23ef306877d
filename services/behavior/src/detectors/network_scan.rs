//! Somebody looks for what else can be reached.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind};

pub(super) struct NetworkScan;

static DEFINITION: Definition = Definition {
    rule: "behavior/network-scan",
    severity: Severity::Medium,
    advice: "Look at what was found from here, and at who started the scan.",
    techniques: &[attack::SCAN],
    looks_at: &[Look::Start],
};

impl Detector for NetworkScan {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let probes = start.kind.is(Kind::NETCAT)
            && start.exec.args.iter().skip(1).any(|arg| {
                let letters = arg.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
                letters.is_some_and(|letters| letters.contains('z') && letters.len() < 6)
            });
        if !start.kind.is(Kind::SCANNER) && !probes {
            return None;
        }
        Some(start.sighting(format!(
            "{} scans the network with {}",
            start.by(),
            start.name
        )))
    }
}
