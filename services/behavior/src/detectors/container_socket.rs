//! The socket of a container engine: who may speak to it owns the host.

use model::Severity;

use super::{Actor, Definition, Detector, Look, Sighting, Start};
use crate::{attack, wire::FileOpen};

pub(super) struct ContainerSocket;

const SOCKETS: &[&str] = &[
    "docker.sock",
    "containerd.sock",
    "crio.sock",
    "podman.sock",
    "cri-dockerd.sock",
];

static DEFINITION: Definition = Definition {
    rule: "behavior/container-socket",
    severity: Severity::High,
    advice: "Do not mount the socket; where it must be, only through a proxy that allows \
        little.",
    techniques: &[attack::BREAK_OUT],
    looks_at: &[Look::Start, Look::Open],
};

impl Detector for ContainerSocket {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let socket = SOCKETS.iter().find(|socket| {
            start
                .exec
                .args
                .iter()
                .skip(1)
                .any(|arg| arg.contains(**socket))
        })?;
        let title = format!(
            "{}, started by {}, is told to use {socket}",
            start.name,
            start.by()
        );
        let mut sighting = start.sighting(title);
        (*socket).clone_into(&mut sighting.subject);
        Some(sighting)
    }

    fn opened(&self, open: &FileOpen<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        let socket = SOCKETS
            .iter()
            .find(|socket| open.path.ends_with(**socket))?;
        let mut sighting = Sighting::of_file(open, format!("{} opened {socket}", actor.name()));
        (*socket).clone_into(&mut sighting.subject);
        Some(sighting)
    }
}
