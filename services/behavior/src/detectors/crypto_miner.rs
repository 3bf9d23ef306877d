//! Programs that mine: by their name, by what they are told, by the ports of pools.

use model::{Severity, runtime::NetworkFlow};

use super::{Actor, Definition, Detector, Look, Sighting, Start};
use crate::{address::is_public, attack, programs::Kind};

pub(super) struct CryptoMiner;

const TOLD: &[&str] = &[
    "stratum+tcp://",
    "stratum+ssl://",
    "stratum+udp://",
    "stratum2+tcp://",
    "--donate-level",
    "--algo=rx/",
    "--coin=monero",
    "--nicehash",
    "randomx",
];
/// Ports that pools have and few others.
const POOL_PORTS: &[u16] = &[3333, 3357, 5556, 7777, 14433, 14444, 45560, 45700];

static DEFINITION: Definition = Definition {
    rule: "behavior/crypto-miner",
    severity: Severity::Critical,
    advice: "Stop the container and find out how the miner came in: what runs here was \
        started by somebody else.",
    techniques: &[attack::MINING],
    looks_at: &[Look::Start, Look::Flow],
};

impl Detector for CryptoMiner {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let told = start
            .exec
            .args
            .iter()
            .any(|arg| TOLD.iter().any(|text| arg.contains(text)));
        if !start.kind.is(Kind::MINER) && !told {
            return None;
        }
        Some(start.sighting(format!("{}, started by {}, mines", start.name, start.by())))
    }

    fn connected(&self, flow: &NetworkFlow, actor: &Actor<'_>) -> Option<Sighting> {
        if !POOL_PORTS.contains(&flow.port) || !is_public(flow.address) {
            return None;
        }
        let title = format!(
            "{} connects to a port of mining pools: {}",
            actor.name(),
            flow.port
        );
        Some(Sighting::of_flow(flow, title).with_severity(Severity::Medium))
    }
}
