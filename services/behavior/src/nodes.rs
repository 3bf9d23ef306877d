//! What nodes hold: the newest picture of each is kept, and images that nobody has scanned are told
//! of.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bus::{Outcome, Store, Stored, encode};
use jiff::{SignedDuration, Timestamp};
use model::{
    Digest, Slug,
    event::NODES,
    runtime::{Container, ContainerState, ImageSighted, NodeConnections, NodeRecord, NodeReported},
};

use crate::{
    container::Watched,
    engine::{Node, watch},
    facts::StoredFacts,
    metrics,
};

/// Bytes of a report that is kept; a key's value may have a little more.
const REPORT_BYTES_MAX: usize = 700 * 1024;
/// Names that are told of an image.
const REFERENCES_MAX: usize = 16;
/// Images of one node that are told of before the first of them is forgotten; of more nothing is
/// told.
const SIGHTED_MAX: usize = 2_048;
/// Then an image that is still not scanned is told of once more.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(6);
/// A container that so many reports in a row do not name is forgotten.
const UNNAMED_MAX: u32 = 3;

/// How often it is written whom a node's containers speak with, where that changed.
const CONNECTIONS_EVERY: SignedDuration = SignedDuration::from_secs(10);
/// Connections and ports of one node that are written: a record has a limit.
const CONNECTIONS_MAX: usize = 8_000;

/// Images that were told of, by node.
#[derive(Debug, Default)]
pub(crate) struct Sighted(HashMap<(Slug, Slug), HashMap<Digest, Timestamp>>);

/// An image of a node, however often it is named there.
struct Image {
    references: Vec<String>,
    running: bool,
}

/// The key of a node's newest report.
pub(crate) fn report_key(tenant: &Slug, node: &Slug) -> String {
    format!("{tenant}.{node}.reported")
}

/// The key of whom a node's containers speak with.
pub(crate) fn connections_key(tenant: &Slug, node: &Slug) -> String {
    format!("{tenant}.{node}.connections")
}

/// Remembers whom a node's containers spoke with before it was watched here.
pub(crate) async fn remember(
    node: &mut Node,
    store: &Store,
    (tenant, name): (&Slug, &Slug),
) -> anyhow::Result<()> {
    let key = connections_key(tenant, name);
    let Some(kept) = store.get::<NodeConnections>(NODES, &key).await? else {
        return Ok(());
    };
    for (id, connections) in &kept.body.containers {
        if let Some(watched) = watch(&mut node.containers, id) {
            watched.remember(connections);
        }
    }
    Ok(())
}

/// The record of whom a node's containers speak with, where that changed and it is time. Of more
/// than fit, some containers have none.
pub(crate) fn connections(node: &mut Node, now: Timestamp) -> Option<NodeConnections> {
    let is_new = node.containers.values().any(|one| one.has_new_connections);
    if !is_new || now.duration_since(node.connections_at) < CONNECTIONS_EVERY {
        return None;
    }
    node.connections_at = now;
    let (mut containers, mut count) = (BTreeMap::new(), 0_usize);
    for (id, watched) in &mut node.containers {
        watched.has_new_connections = false;
        let own = watched.connections();
        let size = own.flows.len().saturating_add(own.listens.len());
        count = count.saturating_add(size);
        if size > 0 && count <= CONNECTIONS_MAX {
            containers.insert(String::from(&**id), own);
        }
    }
    Some(NodeConnections {
        containers,
        at: now,
    })
}

/// The newest report of a node that is kept.
pub(crate) async fn kept(
    store: &Store,
    tenant: &Slug,
    node: &Slug,
) -> anyhow::Result<Option<Stored<NodeRecord>>> {
    Ok(store.get(NODES, &report_key(tenant, node)).await?)
}

/// Whether a report is newer than another: of one boot by its number, else by its time.
pub(crate) fn is_newer(report: &NodeReported, than: &NodeReported) -> bool {
    if report.boot == than.boot {
        report.sequence > than.sequence
    } else {
        report.at > than.at
    }
}

/// Remembers what a report says of the node's containers.
pub(crate) fn learn(node: &mut Node, report: &NodeReported) {
    node.begin(&report.boot);
    node.host = Some(Arc::new(report.host.clone()));
    for watched in node.containers.values_mut() {
        watched.unnamed = watched.unnamed.saturating_add(1);
    }
    for container in &report.containers {
        if let Some(watched) = watch(&mut node.containers, &container.id) {
            watched.unnamed = 0;
            watched.told = Some(Arc::new(container.clone()));
        }
    }
    if report.left_out == 0 {
        node.containers
            .retain(|_, watched| watched.unnamed < UNNAMED_MAX);
    }
}

/// Whether a container runs no more, as far as its node tells.
pub(crate) fn is_gone(watched: Option<&Watched>) -> bool {
    match watched {
        None => true,
        Some(watched) => {
            let stopped = |told: &Arc<Container>| told.state == ContainerState::Stopped;
            watched.unnamed > 0 || watched.told.as_ref().is_some_and(stopped)
        }
    }
}

/// The record of a report. One that is too large loses images at rest, then containers that do not
/// run, and says so.
pub(crate) fn record(
    outcome: Outcome,
    (tenant, expected): (&Slug, u64),
    mut report: NodeReported,
    received_at: Timestamp,
) -> anyhow::Result<Outcome> {
    while encode(&report)?.len() > REPORT_BYTES_MAX {
        let before = report.images.len().saturating_add(report.containers.len());
        if report.images.is_empty() {
            let running = report
                .containers
                .iter()
                .filter(|one| one.state == ContainerState::Running)
                .count();
            if running == report.containers.len() {
                report.containers.truncate(running / 2);
            } else {
                report
                    .containers
                    .retain(|one| one.state == ContainerState::Running);
            }
        } else {
            report.images.truncate(report.images.len() / 2);
        }
        let now = report.images.len().saturating_add(report.containers.len());
        let cut = u32::try_from(before.saturating_sub(now)).unwrap_or(u32::MAX);
        anyhow::ensure!(cut > 0, "a report is too large without any container");
        report.left_out = report.left_out.saturating_add(cut);
    }
    let key = report_key(tenant, &report.node);
    let record = NodeRecord {
        report,
        received_at,
    };
    Ok(outcome.put_kv(NODES, &key, &record, Some(expected))?)
}

// === impl Sighted ===

impl Sighted {
    /// Images of a node that nobody has scanned, each told once in a while. `again`: the report may
    /// have been taken before, and what it led to may not have been told.
    pub(crate) async fn look(
        &mut self,
        facts: &StoredFacts,
        (tenant, report): (&Slug, &NodeReported),
        (now, again): (Timestamp, bool),
    ) -> anyhow::Result<Vec<ImageSighted>> {
        let mut told = Vec::new();
        let since = |at: &Timestamp| now.duration_since(*at);
        let node = (tenant.clone(), report.node.clone());
        let known = self.0.entry(node).or_default();
        known.retain(|_, at| since(at) < FORGOTTEN);
        for (
            image,
            Image {
                references,
                running,
            },
        ) in images(report)
        {
            let is_known = known.contains_key(&image);
            if (is_known && !again) || facts.is_scanned(tenant, &image).await? {
                continue;
            }
            if !is_known && known.len() >= SIGHTED_MAX {
                metrics::sighted_too_many();
                continue;
            }
            known.insert(image, now);
            metrics::sighted();
            told.push(ImageSighted {
                node: report.node.clone(),
                image,
                references,
                running,
                sighted_at: report.at,
            });
        }
        Ok(told)
    }

    /// Forgets what was told long ago: of a node that is gone nothing else would.
    pub(crate) fn forget(&mut self, now: Timestamp) {
        self.0.retain(|_, known| {
            known.retain(|_, at| now.duration_since(*at) < FORGOTTEN);
            !known.is_empty()
        });
    }
}

/// The images of a node by the digest that its runtimes know them by.
fn images(report: &NodeReported) -> Vec<(Digest, Image)> {
    let mut found: HashMap<Digest, Image> = HashMap::new();
    let mut order = Vec::new();
    let mut add = |id: Digest, names: &mut dyn Iterator<Item = &String>, running: bool| {
        let image = found.entry(id).or_insert_with(|| {
            order.push(id);
            Image {
                references: Vec::new(),
                running: false,
            }
        });
        image.running |= running;
        for name in names {
            let is_new = !name.is_empty() && !image.references.contains(name);
            if is_new && image.references.len() < REFERENCES_MAX {
                image.references.push(name.clone());
            }
        }
    };
    for container in &report.containers {
        if let Some(id) = container.image_id {
            let mut names = std::iter::once(&container.image).chain(&container.repo_digests);
            add(id, &mut names, container.state == ContainerState::Running);
        }
    }
    for image in &report.images {
        let mut names = image.names.iter().chain(&image.repo_digests);
        add(image.id, &mut names, false);
    }
    let taken = order.into_iter().filter_map(|id| found.remove_entry(&id));
    taken.collect()
}

#[cfg(test)]
mod tests {
    use model::runtime::{HostFacts, ImageAtRest, SensorMatrix};

    use super::*;

    fn report(boot: &str, sequence: u64, second: i64) -> NodeReported {
        NodeReported {
            node: "node-1".parse().unwrap(),
            boot: boot.to_owned(),
            sequence,
            at: Timestamp::from_second(second).unwrap(),
            agent: "0".to_owned(),
            host: HostFacts::default(),
            sensors: SensorMatrix::default(),
            containers: Vec::new(),
            images: Vec::new(),
            left_out: 0,
        }
    }

    #[test]
    fn the_newest_picture_is_that_of_the_later_boot_and_the_greater_number() {
        let old = report("a", 5, 100);
        assert!(is_newer(&report("a", 6, 90), &old));
        assert!(!is_newer(&report("a", 5, 110), &old));
        assert!(!is_newer(&report("a", 4, 110), &old));
        assert!(is_newer(&report("b", 1, 101), &old));
        assert!(!is_newer(&report("b", 9, 99), &old));
    }

    #[test]
    fn a_report_that_is_too_large_loses_images_at_rest_first() {
        let mut large = report("a", 1, 1);
        let image = |number: u32| ImageAtRest {
            runtime: "podman".to_owned(),
            id: Digest::of(&number.to_be_bytes()),
            names: vec!["n".repeat(1000)],
            repo_digests: Vec::new(),
            bytes: 0,
            created_at: None,
        };
        large.images = (0..2_000).map(image).collect();
        let tenant = Slug::default_tenant();
        let outcome = record(Outcome::none(), (&tenant, 0), large, Timestamp::UNIX_EPOCH).unwrap();
        let kept = outcome.values::<NodeRecord>(NODES);
        let (key, NodeRecord { report, .. }) = kept.first().unwrap();
        assert_eq!(key, "default.node-1.reported");
        assert_eq!((report.images.len(), report.left_out), (500, 1_500));
    }

    #[tokio::test]
    async fn an_image_is_told_of_once_and_again_after_hours() {
        let facts = StoredFacts::new(Store::memory(), 1 << 20);
        let (tenant, mut sighted) = (Slug::default_tenant(), Sighted::default());
        let mut one = report("a", 1, 1);
        let container: Container = serde_json::from_value(serde_json::json!({
            "id": "c", "runtime": "podman", "state": "running", "image": "r.example/app:1",
            "image_id": Digest::of(b"app").to_string(),
            "repo_digests": ["r.example/app@x"],
        }))
        .unwrap();
        one.containers = vec![container];
        one.images = vec![ImageAtRest {
            runtime: "podman".to_owned(),
            id: Digest::of(b"app"),
            names: vec!["r.example/app:1".to_owned(), "r.example/app:2".to_owned()],
            repo_digests: Vec::new(),
            bytes: 0,
            created_at: None,
        }];
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let told = sighted
            .look(&facts, (&tenant, &one), (at(0), false))
            .await
            .unwrap();
        assert_eq!(told.len(), 1);
        assert!(told[0].running);
        let names = ["r.example/app:1", "r.example/app@x", "r.example/app:2"];
        assert_eq!(told[0].references, names);
        let mut later = async |second, again| {
            let when = (at(second), again);
            let told = sighted.look(&facts, (&tenant, &one), when).await;
            told.unwrap().len()
        };
        assert_eq!(later(6 * 3600 - 1, false).await, 0);
        assert_eq!(later(6 * 3600, false).await, 1);
        // The report comes again: nobody may have heard what was told.
        assert_eq!(later(6 * 3600 + 1, false).await, 0);
        assert_eq!(later(6 * 3600 + 1, true).await, 1);
        // The node says nothing any more.
        sighted.forget(at(12 * 3600));
        assert_eq!(sighted.0.len(), 1);
        sighted.forget(at(12 * 3600 + 1));
        assert!(sighted.0.is_empty());
    }

    #[tokio::test]
    async fn a_node_that_names_endless_images_is_heard_up_to_a_bound_and_no_other_for_it() {
        let facts = StoredFacts::new(Store::memory(), 1 << 20);
        let (tenant, mut sighted) = (Slug::default_tenant(), Sighted::default());
        let holding = |node: &str, numbers: std::ops::Range<usize>| {
            let image = |number: usize| ImageAtRest {
                runtime: "podman".to_owned(),
                id: Digest::of(&number.to_be_bytes()),
                names: Vec::new(),
                repo_digests: Vec::new(),
                bytes: 0,
                created_at: None,
            };
            let mut report = report("a", 1, 1);
            report.node = node.parse().unwrap();
            report.images = numbers.map(image).collect();
            report
        };
        let mut tells = async |report: NodeReported, second: i64| {
            let now = Timestamp::from_second(second).unwrap();
            let told = sighted.look(&facts, (&tenant, &report), (now, false)).await;
            told.unwrap().len()
        };
        assert_eq!(tells(holding("bad", 0..SIGHTED_MAX), 0).await, SIGHTED_MAX);
        let more = || holding("bad", SIGHTED_MAX..SIGHTED_MAX + 1);
        assert_eq!(tells(more(), 1).await, 0);
        assert_eq!(tells(holding("good", 0..1), 1).await, 1);
        assert_eq!(tells(more(), 6 * 3600).await, 1);
    }
}
