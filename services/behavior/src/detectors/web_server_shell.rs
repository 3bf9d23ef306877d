//! A shell that a web server or a database made: what runs there came in by a request, mostly.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind};

pub(super) struct WebServerShell;

static DEFINITION: Definition = Definition {
    rule: "behavior/web-server-shell",
    severity: Severity::High,
    advice: "Look at the requests of that second; find and remove what lets a request run \
        commands.",
    techniques: &[attack::WEB_SHELL, attack::SHELL],
    looks_at: &[Look::Start],
};

impl Detector for WebServerShell {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let server = start.parent?;
        if !start.kind.is(Kind::SHELL) || !server.kind.is(Kind::WEB_SERVER.or(Kind::DATABASE)) {
            return None;
        }
        // An entry point: the server that it starts may start a script of the image at its start.
        let is_script = start.exec.script.is_some();
        if is_script && start.container.is_beginning(start.at_ns) {
            return None;
        }
        let (name, by) = (start.name, server.name());
        let mut sighting = start.sighting(format!("{by} started the shell {name}"));
        sighting.subject = format!("{by} {name}");
        Some(sighting)
    }
}
