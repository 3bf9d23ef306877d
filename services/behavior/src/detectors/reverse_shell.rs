//! A shell that somebody far away types into: its streams are a connection, or it is told to make
//! them one.

use model::{Severity, runtime::Stdio};

use super::{Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind};

pub(super) struct ReverseShell;

/// Redirections to a connection, and what scripts of this kind have in common.
const TOLD: &[&str] = &[
    "/dev/tcp/",
    "/dev/udp/",
    "pty.spawn(",
    "fsockopen(",
    "TCPSocket.open(",
    "ztcp ",
    "/inet/tcp/",
];
/// A socket that becomes the standard streams: all of these.
const SOCKETS: &[&str] = &["socket", "dup2", "connect"];

static DEFINITION: Definition = Definition {
    rule: "behavior/reverse-shell",
    severity: Severity::Critical,
    advice: "Take the container off the network and keep it for the investigation; the \
        address in the evidence is where the shell was driven from.",
    techniques: &[attack::SHELL, attack::PROTOCOL],
    looks_at: &[Look::Start],
};

impl Detector for ReverseShell {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        if !start.kind.is(Kind::SHELL.or(Kind::INTERPRETER)) {
            return None;
        }
        let exec = start.exec;
        let connected = exec.stdin == Stdio::Socket && exec.stdout == Stdio::Socket;
        let told = start.says(TOLD) || SOCKETS.iter().all(|text| start.line().contains(text));
        if !connected && !told {
            return None;
        }
        let (name, by) = (start.name, start.by());
        let how = if connected {
            "has a connection for input and output"
        } else {
            "is told to give itself to a connection"
        };
        Some(start.sighting(format!("{name}, started by {by}, {how}")))
    }
}
