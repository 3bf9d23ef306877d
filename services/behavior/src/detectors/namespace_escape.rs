//! A process enters namespaces that are not its own, or makes the host's files its root.

use model::{Severity, runtime::RareCall};

use super::{Actor, Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind, wire::Call};

pub(super) struct NamespaceEscape;

/// Where the host's files are mounted, mostly.
fn is_host(arg: &str) -> bool {
    matches!(
        arg.trim_end_matches('/'),
        "/host" | "/hostfs" | "/rootfs" | "/mnt" | "/node"
    ) || arg.starts_with("/proc/1/root")
        || arg.starts_with("/host/")
}

static DEFINITION: Definition = Definition {
    rule: "behavior/namespace-escape",
    severity: Severity::High,
    advice: "Treat the host as taken: look at what ran there in that second. Run the \
        container without the host's processes and capabilities.",
    techniques: &[attack::BREAK_OUT],
    looks_at: &[Look::Start, Look::Call],
};

impl Detector for NamespaceEscape {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let escapes = match start.name {
            "nsenter" => true,
            "chroot" => start.exec.args.iter().skip(1).any(|arg| is_host(arg)),
            _ => false,
        };
        if !start.kind.is(Kind::NAMESPACE_TOOL) || !escapes {
            return None;
        }
        let title = format!("{} leaves the container with {}", start.by(), start.name);
        Some(start.sighting(title).with_severity(Severity::Critical))
    }

    fn called(&self, call: &Call<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        let name = match call.call {
            RareCall::Setns => "setns",
            RareCall::PivotRoot => "pivot_root",
            RareCall::OpenByHandle => "open_by_handle_at",
            _ => return None,
        };
        if actor.is_preparing() {
            return None;
        }
        let title = format!(
            "{} called {name}, which leads out of a container",
            actor.name()
        );
        let mut sighting = actor.of_call(format!("{name}({:?})", call.args), title);
        sighting.subject = format!("{} {name}", actor.name());
        Some(sighting)
    }
}
