//! Nodes, their containers, and which images they hold.
//!
//! A node says every minute everything that it holds; only what changed is written. A container is
//! joined with images when somebody asks: which image its digest leads to may become known later.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use cache::{Batch, CacheError};
use jiff::Timestamp;
use model::{
    Digest, Slug,
    runtime::{Container, ContainerState, HostFacts, ImageAtRest, NodeRecord, SensorMatrix},
};
use serde::{Deserialize, Serialize};

use super::{
    ADDRESSES, CONTAINER_IDS, CONTAINERS, HOLDERS, ImageView, Kind, NODES, View, connections, keys,
    running,
};

/// Containers of one node that are taken up.
const CONTAINERS_MAX: usize = 10_000;
/// Images on a node's disk that are taken up.
const IMAGES_MAX: usize = 10_000;
/// Digests by which a node knows one image.
const DIGESTS_MAX: usize = 16;
/// Characters of a container's id.
const ID_CHARS_MAX: usize = 128;
/// Nodes that are forgotten at once.
const PAGE: usize = 1_000;

/// The key of a node's report: `<tenant>.<node>.reported`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeKey {
    pub(crate) tenant: Slug,
    pub(crate) node: Slug,
}

/// What a node reported last, without its containers: they are rows of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeView {
    pub(crate) boot: String,
    pub(crate) agent: String,
    pub(crate) host: HostFacts,
    pub(crate) sensors: SensorMatrix,
    pub(crate) images: Vec<ImageAtRest>,
    pub(crate) containers: u32,
    pub(crate) running: u32,
    pub(crate) left_out: u32,
    pub(crate) reported_at: Timestamp,
    pub(crate) received_at: Timestamp,
}

/// A container and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) node: Slug,
    pub(crate) container: Container,
    /// Its row: where a page ends.
    pub(crate) key: Vec<u8>,
}

/// What holds an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    pub(crate) node: Slug,
    /// The container; `None`: the node's disk.
    pub(crate) container: Option<String>,
}

// === impl NodeKey ===

impl FromStr for NodeKey {
    type Err = ();

    fn from_str(key: &str) -> Result<Self, ()> {
        Self::of(key, "reported").ok_or(())
    }
}

impl NodeKey {
    /// Reads the key of what is kept of a node under a name.
    pub(crate) fn of(key: &str, name: &str) -> Option<Self> {
        let parts: Vec<&str> = key.split('.').collect();
        let [tenant, node, last] = parts.as_slice() else {
            return None;
        };
        if *last != name {
            return None;
        }
        Some(Self {
            tenant: tenant.parse().ok()?,
            node: node.parse().ok()?,
        })
    }
}

// === impl View ===

impl View {
    /// A node.
    pub(crate) fn node(&self, tenant: &Slug, node: &Slug) -> Result<Option<NodeView>, CacheError> {
        self.database.get_as(NODES, &keys::node(tenant, node))
    }

    /// Nodes in order, after a key, with their keys.
    pub(crate) fn nodes(
        &self,
        tenant: &Slug,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Slug, NodeView)>, CacheError> {
        let from = after.map(keys::after);
        let prefix = keys::tenant(tenant);
        let pairs = self
            .database
            .scan_prefix(NODES, &prefix, from.as_deref(), limit)?;
        let parsed = pairs.into_iter().filter_map(|(key, value)| {
            let (_, node) = keys::node_of(&key)?;
            Some(cache::decode(&value).map(|view| (key, node, view)))
        });
        parsed.collect()
    }

    /// When each node of every tenant was heard of last, how many containers it has and how many of
    /// them run.
    pub(crate) fn all_nodes(&self) -> Result<Vec<(Timestamp, u32, u32)>, CacheError> {
        let mut all = Vec::new();
        let mut from: Option<Vec<u8>> = None;
        loop {
            let page = self
                .database
                .scan_prefix(NODES, &[], from.as_deref(), PAGE)?;
            for (_, value) in &page {
                let view: NodeView = cache::decode(value)?;
                all.push((view.received_at, view.containers, view.running));
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE => from = Some(keys::after(key)),
                _ => return Ok(all),
            }
        }
    }

    /// Containers of all nodes or of one, in order, after a key.
    pub(crate) fn containers(
        &self,
        tenant: &Slug,
        node: Option<&Slug>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Placed>, CacheError> {
        let prefix = node.map_or_else(|| keys::tenant(tenant), |node| keys::node(tenant, node));
        let from = after.map(keys::after);
        let pairs = self
            .database
            .scan_prefix(CONTAINERS, &prefix, from.as_deref(), limit)?;
        pairs
            .into_iter()
            .filter_map(|(key, value)| Placed::parse(key, &value).transpose())
            .collect()
    }

    /// A container of a node.
    pub(crate) fn container(
        &self,
        tenant: &Slug,
        node: &Slug,
        id: &str,
    ) -> Result<Option<Placed>, CacheError> {
        let key = keys::container(tenant, node, id);
        match self.database.get(CONTAINERS, &key)? {
            Some(value) => Placed::parse(key, &value),
            None => Ok(None),
        }
    }

    /// Containers whose id begins so, on all nodes, at most so many.
    pub(crate) fn containers_with(
        &self,
        tenant: &Slug,
        beginning: &str,
        limit: usize,
    ) -> Result<Vec<Placed>, CacheError> {
        let prefix = keys::container_ids_of(tenant, beginning);
        let tenant_bytes = keys::tenant(tenant);
        let pairs = self
            .database
            .scan_prefix(CONTAINER_IDS, &prefix, None, limit)?;
        let mut found = Vec::new();
        for (key, _) in pairs {
            let rest = key.strip_prefix(tenant_bytes.as_slice());
            let mut texts = rest.unwrap_or_default().split(|byte| *byte == 0);
            let mut text = || std::str::from_utf8(texts.next()?).ok();
            let (Some(id), Some(node)) = (text(), text().and_then(|node| node.parse().ok())) else {
                continue;
            };
            found.extend(self.container(tenant, &node, id)?);
        }
        Ok(found)
    }

    /// What holds an image that nodes know by this digest, after one of them.
    pub(crate) fn holders(
        &self,
        tenant: &Slug,
        digest: Digest,
        after: Option<&Holder>,
        limit: usize,
    ) -> Result<Vec<Holder>, CacheError> {
        let prefix = keys::image(tenant, digest);
        let from = after.map(|holder| {
            let id = holder.container.as_deref().unwrap_or_default();
            keys::after(&keys::holder(tenant, digest, &holder.node, id))
        });
        let pairs = self
            .database
            .scan_prefix(HOLDERS, &prefix, from.as_deref(), limit)?;
        let parsed = pairs.iter().filter_map(|(key, _)| {
            let (node, id) = keys::holder_of(key, &prefix)?;
            Some(Holder {
                node,
                container: (!id.is_empty()).then(|| id.to_owned()),
            })
        });
        Ok(parsed.collect())
    }

    /// The images that digests of a node lead to, the first that leads anywhere: those for the
    /// node's processor where an index leads to several.
    pub(crate) fn images_behind(
        &self,
        tenant: &Slug,
        digests: &[Digest],
        machine: &str,
    ) -> Result<Vec<(Digest, ImageView)>, CacheError> {
        for digest in digests {
            let Some((kind, images)) = self.lead(tenant, *digest)? else {
                continue;
            };
            let mut found = Vec::with_capacity(images.len());
            for image in images {
                if let Some(view) = self.image(tenant, image)? {
                    found.push((image, view));
                }
            }
            if kind == Kind::Index && found.iter().any(|(_, view)| is_for(view, machine)) {
                found.retain(|(_, view)| is_for(view, machine));
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    pub(super) fn take_node(
        &self,
        batch: &mut Batch<'_>,
        key: &NodeKey,
        record: Option<&NodeRecord>,
    ) -> Result<(), CacheError> {
        let NodeKey { tenant, node } = key;
        let old_view = self.node(tenant, node)?;
        let old = self.containers(tenant, Some(node), None, CONTAINERS_MAX)?;
        let old: BTreeMap<&str, &Container> = by_id(old.iter().map(|placed| &placed.container));
        let new = by_id(record.into_iter().flat_map(|at| &at.report.containers));
        let view = record.map(|record| NodeView::new(record, &new));
        for (id, container) in &new {
            if old.get(id) == Some(container) {
                continue;
            }
            batch.put_as(CONTAINERS, &keys::container(tenant, node, id), container)?;
            batch.put(CONTAINER_IDS, &keys::container_id(tenant, id, node), &[])?;
        }
        for id in old.keys().filter(|id| !new.contains_key(*id)) {
            batch.delete(CONTAINERS, &keys::container(tenant, node, id))?;
            batch.delete(CONTAINER_IDS, &keys::container_id(tenant, id, node))?;
        }
        let images = |view: &Option<NodeView>| -> BTreeSet<Vec<u8>> {
            let images = view.iter().flat_map(|view| &view.images);
            let digests = images.flat_map(digests_at_rest);
            digests
                .map(|digest| keys::holder(tenant, digest, node, ""))
                .collect()
        };
        let (mut held, mut holds) = (images(&old_view), images(&view));
        held.extend(holders_of(key, &old));
        holds.extend(holders_of(key, &new));
        differ(batch, HOLDERS, &held, &holds)?;
        let addresses = |containers: &BTreeMap<&str, &Container>| -> BTreeSet<Vec<u8>> {
            let each = containers.iter();
            each.flat_map(|(id, container)| connections::addresses(key, id, container))
                .collect()
        };
        differ(batch, ADDRESSES, &addresses(&old), &addresses(&new))?;
        running::index(batch, key, &old, &new)?;
        match view {
            Some(view) => batch.put_as(NODES, &keys::node(tenant, node), &view),
            None => batch.delete(NODES, &keys::node(tenant, node)),
        }
    }

    /// Forgets all nodes, of all tenants.
    pub(super) fn forget_nodes(&self) -> Result<(), CacheError> {
        self.forget_connections()?;
        loop {
            let page = self.database.scan_prefix(NODES, &[], None, PAGE)?;
            if page.is_empty() {
                return Ok(());
            }
            for (row, _) in page {
                match keys::node_of(&row) {
                    Some((tenant, node)) => self
                        .database
                        .batch(|batch| self.take_node(batch, &NodeKey { tenant, node }, None))?,
                    None => self.database.delete(NODES, &row)?,
                }
            }
        }
    }
}

/// Writes an index anew: what was, and what is.
fn differ(
    batch: &mut Batch<'_>,
    family: &str,
    before: &BTreeSet<Vec<u8>>,
    now: &BTreeSet<Vec<u8>>,
) -> Result<(), CacheError> {
    for gone in before.difference(now) {
        batch.delete(family, gone)?;
    }
    for row in now.difference(before) {
        batch.put(family, row, &[])?;
    }
    Ok(())
}

/// Whether a text can be the id of a container: it is a node's word.
pub(super) fn is_id(id: &str) -> bool {
    let has_length = (1..=ID_CHARS_MAX).contains(&id.len());
    has_length && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Containers by their ids; those whose id is none are left out.
fn by_id<'a>(containers: impl Iterator<Item = &'a Container>) -> BTreeMap<&'a str, &'a Container> {
    containers
        .filter(|container| is_id(&container.id))
        .take(CONTAINERS_MAX)
        .map(|container| (container.id.as_str(), container))
        .collect()
}

fn holders_of(key: &NodeKey, containers: &BTreeMap<&str, &Container>) -> BTreeSet<Vec<u8>> {
    let each = containers.iter().flat_map(|(id, container)| {
        let digests = digests(container);
        digests.map(move |digest| keys::holder(&key.tenant, digest, &key.node, id))
    });
    each.collect()
}

/// The digests by which a node knows a container's image, the runtime's own first.
pub(crate) fn digests(container: &Container) -> impl Iterator<Item = Digest> {
    known_by(container.image_id, &container.repo_digests)
}

/// The same of an image on its disk.
pub(crate) fn digests_at_rest(image: &ImageAtRest) -> impl Iterator<Item = Digest> {
    known_by(Some(image.id), &image.repo_digests)
}

fn known_by(id: Option<Digest>, texts: &[String]) -> impl Iterator<Item = Digest> {
    let named = texts
        .iter()
        .filter_map(|name| name.rsplit_once('@')?.1.parse().ok());
    id.into_iter().chain(named).take(DIGESTS_MAX)
}

/// Whether a container runs; a frozen one does, too.
pub(super) const fn runs(container: &Container) -> bool {
    matches!(
        container.state,
        ContainerState::Running | ContainerState::Paused
    )
}

/// Whether an image is for a machine as `uname` names it.
fn is_for(image: &ImageView, machine: &str) -> bool {
    let architecture = match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "arm",
        "i386" | "i686" => "386",
        other => other,
    };
    let platform = image.platform();
    platform.os == "linux" && platform.architecture == architecture
}

// === impl NodeView, Placed ===

impl NodeView {
    fn new(record: &NodeRecord, containers: &BTreeMap<&str, &Container>) -> Self {
        let report = &record.report;
        let running = |container: &&&Container| container.state == ContainerState::Running;
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let left_out = report.containers.len().saturating_sub(containers.len());
        let images_left_out = report.images.len().saturating_sub(IMAGES_MAX);
        Self {
            boot: report.boot.clone(),
            agent: report.agent.clone(),
            host: report.host.clone(),
            sensors: report.sensors.clone(),
            images: report.images.iter().take(IMAGES_MAX).cloned().collect(),
            containers: count(containers.len()),
            running: count(containers.values().filter(running).count()),
            left_out: report
                .left_out
                .saturating_add(count(left_out.saturating_add(images_left_out))),
            reported_at: report.at,
            received_at: record.received_at,
        }
    }
}

impl Placed {
    /// With its key, for a list.
    pub(crate) fn keyed(self) -> (Vec<u8>, Self) {
        (self.key.clone(), self)
    }

    /// Whether it runs; a frozen one does, too.
    pub(crate) fn runs(&self) -> bool {
        runs(&self.container)
    }

    fn parse(key: Vec<u8>, value: &[u8]) -> Result<Option<Self>, CacheError> {
        let Some((_, node)) = keys::node_of(&key) else {
            return Ok(None);
        };
        let container = cache::decode(value)?;
        Ok(Some(Self {
            node,
            container,
            key,
        }))
    }
}
