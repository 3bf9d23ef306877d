//! The metadata service of a cloud: it gives credentials to who asks from the right machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::{Severity, runtime::NetworkFlow};

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::attack;

pub(super) struct MetadataService;

/// Addresses, and the port where others live at the same address: AWS, Google, Azure, Oracle and
/// others; AWS over IPv6; the tasks of ECS; Alibaba; Azure's fabric.
const SERVICES: &[(IpAddr, Option<u16>)] = &[
    (IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), Some(80)),
    (
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
        None,
    ),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)), None),
    (IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), None),
    (IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)), Some(80)),
    (IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)), None),
];

static DEFINITION: Definition = Definition {
    rule: "behavior/metadata-service",
    severity: Severity::High,
    advice: "Close the way to it, or demand tokens with a hop limit of 1; a workload that \
        needs it deserves an exception.",
    techniques: &[attack::METADATA],
    looks_at: &[Look::Flow],
};

impl Detector for MetadataService {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn connected(&self, flow: &NetworkFlow, actor: &Actor<'_>) -> Option<Sighting> {
        let is_service = SERVICES.iter().any(|(address, port)| {
            flow.address == *address && (port.is_none() || *port == Some(flow.port))
        });
        if !is_service {
            return None;
        }
        let title = format!("{} asked the cloud's metadata service", actor.name());
        let mut sighting = Sighting::of_flow(flow, title);
        sighting.subject = format!("{} {}", actor.name(), flow.address);
        Some(sighting)
    }
}
