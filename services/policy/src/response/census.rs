//! What runs where, as nodes reported it: who is an instance of what, and how many serve.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context as _;
use bus::{Bus, Change};
use chassis::Cx;
use futures::StreamExt as _;
use jiff::Timestamp;
use model::{
    Digest, Fingerprint, Slug,
    event::NODES,
    runtime::{
        Container, ContainerState, Desired, Incident, NodeRecord, NodeReported, ResponseLedger,
        SignedDesired,
    },
};
use tracing::{debug, warn};

/// How old a node's report may be for its containers to count as serving.
const FRESH: Duration = Duration::from_mins(5);
/// Characters of a group's name; of a longer one the rest is a fingerprint.
const GROUP_CHARS_MAX: usize = 200;

/// What all nodes reported last; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census(Arc<RwLock<Nodes>>);

/// A tenant and a node.
pub(crate) type Place = (Slug, Slug);
/// The digests by which a node knows one image.
pub(crate) type Names = Vec<Digest>;

type Nodes = HashMap<Place, NodeView>;

/// What is kept of a node.
#[derive(Clone, Debug, Default)]
struct NodeView {
    received_at: Timestamp,
    /// Whether it runs more than it tells of.
    is_cut: bool,
    containers: Vec<Subject>,
    /// The digests by which its runtimes know their images, one list for each.
    images: Vec<Names>,
    desired: Option<(u64, SignedDesired)>,
}

/// A container that something may be done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) node: Slug,
    pub(crate) container: String,
    pub(crate) name: String,
    pub(crate) image_name: String,
    pub(crate) namespace: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) owner: Option<String>,
    /// What it is an instance of ([`group`]).
    pub(crate) group: String,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) runs: bool,
    /// Whether a node told of it; otherwise it is what the incident says.
    pub(crate) is_reported: bool,
}

// === impl Census ===

impl Census {
    /// Reads all that nodes reported, then follows what they report, and wakes the agent of each whose
    /// desired state changes. Nothing may be decided before: a fleet of which half is known looks like
    /// one without a second instance, and what is held for that stays held.
    pub(crate) async fn follow(&self, cx: &Cx, bus: &Bus) -> anyhow::Result<()> {
        let last = bus.last_sequence(NODES).await;
        let last = last.context("asking for what nodes reported")?;
        let mut changes = bus.follow(cx, NODES, 1);
        let mut sequence = 0;
        while sequence < last {
            let change = changes.next().await;
            let change = change.context("stopped while reading what nodes reported")?;
            sequence = change.sequence;
            self.hear(bus, &change).await;
        }
        let (census, bus) = (self.clone(), bus.clone());
        cx.spawn("policy.census", async move {
            while let Some(change) = changes.next().await {
                census.hear(&bus, &change).await;
            }
        });
        Ok(())
    }

    async fn hear(&self, bus: &Bus, change: &Change) {
        if let Some((tenant, node)) = self.take(change).await {
            bus.wake(&tenant, &node).await;
        }
    }

    /// Takes a change; gives the node whose desired state it is.
    async fn take(&self, change: &Change) -> Option<(Slug, Slug)> {
        let (tenant, node, what) = parts(&change.key)?;
        let read = match what {
            "reported" => change.decode::<NodeRecord>().await.map(|record| {
                let record = record.map(|record| (record.report, record.received_at));
                match record {
                    Some((report, received_at)) => self.report(&tenant, &report, received_at),
                    None => self.forget(&tenant, &node),
                }
                None
            }),
            "desired" => change.decode::<SignedDesired>().await.map(|desired| {
                let desired = desired.map(|desired| (change.sequence, desired));
                self.shall(&tenant, &node, desired);
                Some((tenant, node))
            }),
            _ => return None,
        };
        read.unwrap_or_else(|error| {
            warn!(
                "`{}` cannot be read and does not count: {error}",
                change.key
            );
            None
        })
    }

    /// Takes what a node says.
    pub(crate) fn report(&self, tenant: &Slug, report: &NodeReported, received_at: Timestamp) {
        let node = &report.node;
        let containers = report.containers.iter().map(|one| Subject::of(node, one));
        let containers = containers.collect();
        let images = report.images.iter().map(|image| {
            let named = image.repo_digests.iter().filter_map(|name| digest_of(name));
            named.chain([image.id]).collect()
        });
        let images = images.collect();
        self.edit(tenant, node, |view| {
            view.received_at = received_at;
            view.is_cut = report.left_out > 0;
            view.containers = containers;
            view.images = images;
        });
    }

    /// Takes what a node shall do, with its revision.
    pub(crate) fn shall(&self, tenant: &Slug, node: &Slug, desired: Option<(u64, SignedDesired)>) {
        self.edit(tenant, node, |view| view.desired = desired);
    }

    fn forget(&self, tenant: &Slug, node: &Slug) {
        self.edit(tenant, node, |view| {
            view.containers.clear();
            view.images.clear();
        });
    }

    fn edit(&self, tenant: &Slug, node: &Slug, edit: impl FnOnce(&mut NodeView)) {
        let mut nodes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        edit(nodes.entry((tenant.clone(), node.clone())).or_default());
    }

    fn read<T>(&self, read: impl FnOnce(&Nodes) -> T) -> T {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A container, as its node told of it.
    pub(crate) fn container(&self, tenant: &Slug, node: &Slug, id: &str) -> Option<Subject> {
        self.read(|nodes| {
            let view = nodes.get(&(tenant.clone(), node.clone()))?;
            let mut containers = view.containers.iter();
            containers.find(|one| one.container == id).cloned()
        })
    }

    /// Whether a container's node told since that there is no such container.
    pub(crate) fn is_gone(&self, tenant: &Slug, incident: &Incident) -> bool {
        self.read(|nodes| {
            let view = nodes.get(&(tenant.clone(), incident.node.clone()));
            view.is_some_and(|view| {
                let mut containers = view.containers.iter();
                view.received_at > incident.last_at
                    && !view.is_cut
                    && !containers.any(|one| one.container == incident.container)
            })
        })
    }

    /// How many others of the same group serve: they run, their node told so of late, and nothing
    /// that was ordered has them out of service.
    pub(crate) fn others_serving(
        &self,
        tenant: &Slug,
        subject: &Subject,
        (ledger, now): (&ResponseLedger, Timestamp),
    ) -> u32 {
        let group = &subject.group;
        let is_out = |id: &str| {
            let mut entries = ledger.entries.iter();
            entries.any(|entry| entry.container == id && entry.out_until.is_some_and(|at| at > now))
        };
        let count = self.read(|nodes| {
            let of_tenant = nodes.iter().filter(|((owner, _), _)| owner == tenant);
            let fresh = of_tenant.filter(|(_, view)| {
                let age = now.duration_since(view.received_at);
                age.as_secs() <= FRESH.as_secs().cast_signed()
            });
            let containers = fresh.flat_map(|(_, view)| &view.containers);
            containers
                .filter(|one| one.runs && one.group == *group)
                .filter(|one| one.container != subject.container && !is_out(&one.container))
                .count()
        });
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Every node's desired state, with its revision.
    pub(crate) fn desired(&self) -> Vec<(Place, u64, SignedDesired)> {
        self.read(|nodes| {
            let all = nodes.iter().filter_map(|(node, view)| {
                let (revision, desired) = view.desired.clone()?;
                Some((node.clone(), revision, desired))
            });
            all.collect()
        })
    }

    /// Every node that reported, with the digests by which it knows its images.
    pub(crate) fn images(&self) -> Vec<(Place, Vec<Names>)> {
        self.read(|nodes| {
            let told = nodes
                .iter()
                .filter(|(_, view)| view.received_at > Timestamp::UNIX_EPOCH);
            told.map(|(node, view)| (node.clone(), view.images.clone()))
                .collect()
        })
    }
}

/// The parts of a key of [`NODES`].
fn parts(key: &str) -> Option<(Slug, Slug, &str)> {
    let parts: Vec<&str> = key.split('.').collect();
    let [tenant, node, what] = parts.as_slice() else {
        debug!("`{key}` is no key of a node");
        return None;
    };
    Some((tenant.parse().ok()?, node.parse().ok()?, what))
}

/// The digest of `repository@digest`.
fn digest_of(name: &str) -> Option<Digest> {
    let (_, digest) = name.rsplit_once('@')?;
    digest.parse().ok()
}

/// Whether a key is that of a node's desired state.
pub(crate) fn desired_key(tenant: &Slug, node: &Slug) -> String {
    Desired::key(tenant, node)
}

// === impl Subject ===

impl Subject {
    pub(crate) fn of(node: &Slug, container: &Container) -> Self {
        Self {
            node: node.clone(),
            container: container.id.clone(),
            name: container.name.clone(),
            image_name: container.image.clone(),
            namespace: container.namespace.clone(),
            labels: container.labels.clone(),
            owner: container.owner.clone(),
            group: group(
                container.namespace.as_deref(),
                container.owner.as_deref(),
                &container.image,
            ),
            started_at: container.started_at,
            runs: container.state == ContainerState::Running,
            is_reported: true,
        }
    }

    /// What the incident says, where no node tells of the container.
    pub(crate) fn of_incident(incident: &Incident) -> Self {
        Self {
            node: incident.node.clone(),
            container: incident.container.clone(),
            name: incident.container_name.clone(),
            image_name: incident.image_name.clone(),
            namespace: incident.namespace.clone(),
            labels: BTreeMap::new(),
            owner: None,
            group: group(incident.namespace.as_deref(), None, &incident.image_name),
            started_at: None,
            runs: true,
            is_reported: false,
        }
    }
}

/// What a container is an instance of: owner and image. A compose project holds a shop and its
/// database, and one cannot stand in for the other.
pub(crate) fn group(namespace: Option<&str>, owner: Option<&str>, image_name: &str) -> String {
    let mut group = String::new();
    let parts = [namespace, owner].into_iter().flatten();
    for part in parts.filter(|part| !part.is_empty()) {
        group.extend([part, " "]);
    }
    group += image_name;
    match group.char_indices().nth(GROUP_CHARS_MAX) {
        None => group,
        // The ledger has room for names that people give.
        Some((end, _)) => {
            let whole = Fingerprint::of(&[&group]);
            group.truncate(end);
            format!("{group}… {whole}")
        }
    }
}
