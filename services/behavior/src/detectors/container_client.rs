//! A client of an engine or an orchestrator, in a container.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind};

pub(super) struct ContainerClient;

static DEFINITION: Definition = Definition {
    rule: "behavior/container-client",
    severity: Severity::Medium,
    advice: "Ask whether this container is meant to manage others; if not, take its token \
        or socket away.",
    techniques: &[attack::CONTAINER_DISCOVERY, attack::ADMIN_COMMAND],
    looks_at: &[Look::Start],
};

impl Detector for ContainerClient {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        if !start.kind.is(Kind::CONTAINER_CLIENT) {
            return None;
        }
        Some(start.sighting(format!("{} started {}", start.by(), start.name)))
    }
}
