//! A picture of the node as one message, and no larger than one can be.

use jiff::Timestamp;
use model::runtime::{Container, ContainerState, NodeReported, SensorMatrix};

use super::Held;
use crate::node::Node;

/// Bytes of the message. A server takes 1 MiB, headers included.
const BYTES_MAX: usize = 900 << 10;

/// The message; its number is the sender's.
pub(super) fn of(node: &Node, sensors: &SensorMatrix, held: Held, at: Timestamp) -> NodeReported {
    let mut report = NodeReported {
        node: node.name.clone(),
        boot: node.boot.clone(),
        sequence: 0,
        at,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        host: held.host,
        sensors: sensors.clone(),
        containers: held.containers,
        images: held.images,
        left_out: u32::try_from(held.left_out).unwrap_or(u32::MAX),
    };
    bound(&mut report, BYTES_MAX);
    report
}

/// Leaves out what matters least until the rest fits: containers that do not run, images, and at
/// last containers.
fn bound(report: &mut NodeReported, bytes_max: usize) {
    if size(report) <= bytes_max {
        return;
    }
    // What runs comes first, so that the end is what can go.
    let is_idle = |container: &Container| container.state != ContainerState::Running;
    report.containers.sort_by_key(is_idle);
    while size(report) > bytes_max {
        let running = report
            .containers
            .iter()
            .filter(|&container| !is_idle(container))
            .count();
        let idle = report.containers.len().saturating_sub(running);
        let before = report.containers.len() + report.images.len();
        if idle > 0 {
            report.containers.truncate(running + idle / 2);
        } else if report.images.is_empty() {
            report.containers.truncate(running / 2);
        } else {
            report.images.truncate(report.images.len() / 2);
        }
        let gone = before - report.containers.len() - report.images.len();
        report.left_out = report
            .left_out
            .saturating_add(u32::try_from(gone).unwrap_or(u32::MAX));
        if gone == 0 {
            return;
        }
    }
}

fn size(report: &NodeReported) -> usize {
    bus::encode(report).map_or(usize::MAX, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use model::{
        Digest,
        runtime::{HostFacts, ImageAtRest, Security},
    };

    use super::*;

    fn container(id: usize, state: ContainerState) -> Container {
        Container {
            id: format!("{id:064}"),
            name: format!("c{id}"),
            runtime: "podman".to_owned(),
            image: "x".repeat(200),
            image_id: None,
            repo_digests: Vec::new(),
            state,
            created_at: None,
            started_at: None,
            pid: 0,
            cgroup: None,
            pod: None,
            namespace: None,
            owner: None,
            labels: [].into(),
            ports: Vec::new(),
            addresses: Vec::new(),
            mounts: Vec::new(),
            security: Security::default(),
        }
    }

    fn held(running: usize, idle: usize, images: usize) -> Held {
        let running = (0..running).map(|id| container(id, ContainerState::Running));
        let idle = (0..idle).map(|id| container(id, ContainerState::Stopped));
        Held {
            host: HostFacts::default(),
            containers: idle.chain(running).collect(),
            images: (0..images)
                .map(|id| ImageAtRest {
                    runtime: "podman".to_owned(),
                    id: Digest::of(&id.to_ne_bytes()),
                    names: vec!["x".repeat(200)],
                    repo_digests: Vec::new(),
                    bytes: 0,
                    created_at: None,
                })
                .collect(),
            left_out: 0,
        }
    }

    fn reported(held: Held) -> NodeReported {
        let node = Node {
            name: "a".parse().unwrap(),
            boot: String::new(),
        };
        of(&node, &SensorMatrix::default(), held, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_picture_that_fits_is_whole() {
        let report = reported(held(100, 100, 100));
        assert_eq!(
            (
                report.containers.len(),
                report.images.len(),
                report.left_out
            ),
            (200, 100, 0)
        );
    }

    #[test]
    fn what_runs_is_the_last_to_be_left_out() {
        let report = reported(held(500, 3_000, 5_000));
        assert!(size(&report) <= BYTES_MAX);
        let running = report.containers.iter();
        assert_eq!(
            running
                .filter(|c| c.state == ContainerState::Running)
                .count(),
            500
        );
        let told = report.containers.len() + report.images.len();
        assert_eq!(told + report.left_out as usize, 8_500);
        let report = reported(held(10_000, 0, 0));
        assert!(size(&report) <= BYTES_MAX && report.containers.len() > 500);
        assert_eq!(report.containers.len() + report.left_out as usize, 10_000);
    }
}
