//! What the pod of a container says of it: its name, the namespaces that it shares with the host, and
//! the ports that lead into it.
//!
//! Kubelet tells a runtime of a pod in the words of the runtime interface, and containerd keeps them
//! as JSON: in the record of the pod's own container, and in what it answers.

use model::runtime::PortMapping;
use serde_json::Value;

use super::{PARTS_MAX, spec::OfHost, text};

/// Kubelet's note of a container's ports, and the one that it makes of every container.
const PORTS: &str = "io.kubernetes.container.ports";
const HASH: &str = "io.kubernetes.container.hash";
/// `runtime.v1.Protocol`, in order.
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    /// What of the host its own container is in; `None` where the runtime does not say.
    pub(super) of_host: Option<OfHost>,
    /// The ports of the host that lead into it.
    pub(super) ports: Vec<PortMapping>,
}

// === impl Pod ===

impl Pod {
    /// Of the settings that it was asked for with (`PodSandboxConfig`), and the runtime spec of its
    /// own container.
    pub(super) fn new(config: &Value, spec: &Value) -> Self {
        let named = |field: &str| name(config.get("metadata")?.get(field)?.as_str()?);
        let ports = config["port_mappings"].as_array().into_iter().flatten();
        let ports = ports.filter_map(|port| {
            let protocol = port["protocol"].as_u64().unwrap_or(0);
            let protocol = PROTOCOLS.get(usize::try_from(protocol).ok()?)?;
            let (to, from) = (&port["container_port"], &port["host_port"]);
            published(protocol, from, to, &port["host_ip"])
        });
        Self {
            name: named("name"),
            namespace: named("namespace"),
            of_host: spec.is_object().then(|| OfHost::of(spec, None)),
            ports: ports.take(PARTS_MAX).collect(),
        }
    }
}

/// The ports of the host that lead into a container: those that kubelet notes of it; where it notes
/// nothing, the pod's, for any of its containers may be who listens there.
pub(super) fn ports(noted: Option<&str>, pod: Option<&Pod>) -> Vec<PortMapping> {
    let Some(noted) = noted else {
        return pod.map(|pod| pod.ports.clone()).unwrap_or_default();
    };
    let noted: Value = serde_json::from_str(noted).unwrap_or_default();
    let ports = noted.as_array().into_iter().flatten();
    let ports = ports.filter_map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let (to, from) = (&port["containerPort"], &port["hostPort"]);
        published(&protocol.to_ascii_lowercase(), from, to, &port["hostIP"])
    });
    ports.take(PARTS_MAX).collect()
}

/// A port; `None` for one that nothing of the host leads to.
fn published(protocol: &str, from: &Value, to: &Value, address: &Value) -> Option<PortMapping> {
    let number = |value: &Value| u16::try_from(value.as_u64()?).ok().filter(|port| *port > 0);
    let address = address.as_str().unwrap_or_default();
    Some(PortMapping {
        host_address: match address {
            "0.0.0.0" | "::" => String::new(),
            address => text(address),
        },
        host_port: number(from)?,
        container_port: number(to)?,
        protocol: text(protocol),
    })
}

/// A name that is there.
pub(super) fn name(given: &str) -> Option<String> {
    Some(text(given)).filter(|given| !given.is_empty())
}

/// What kubelet notes of a container's ports, among its annotations; nothing where the container is
/// none of kubelet's.
pub(super) fn noted<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Option<&'a str> {
    annotation(PORTS).or_else(|| annotation(HASH).map(|_| ""))
}
