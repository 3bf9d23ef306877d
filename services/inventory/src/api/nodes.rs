//! `GET /v1/nodes`, `GET /v1/nodes/{node}`.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use cache::CacheError;
use chassis::http::{ApiError, Page, PageQuery};
use jiff::Timestamp;
use model::{
    Counts, Decision, Digest, Slug,
    runtime::{HOST_RUNTIME, HostFacts, ImageAtRest, SensorMatrix},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, Caller, bad_parameter, internal, join::Join, page, permit};
use crate::{
    census::is_silent,
    view::{NodeView, View, digests, digests_at_rest},
};

/// Containers of a node that are looked at.
const CONTAINERS_MAX: usize = 10_000;

/// A node in a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "NodeRow")]
pub(super) struct Row {
    /// The node.
    node: Slug,
    /// Whether it is heard of.
    state: Heard,
    /// The host's name.
    host: String,
    /// The operating system.
    os: String,
    /// The kernel's release.
    kernel: String,
    /// The processor, as the kernel names it.
    machine: String,
    /// Container runtimes that answer.
    runtimes: Vec<String>,
    /// The orchestrator.
    orchestrator: Option<String>,
    /// The agent's version.
    agent: String,
    /// How its agent sees what containers do.
    sensor: String,
    /// How many containers it has.
    containers: u32,
    /// How many of them run.
    running: u32,
    /// How many images are on its disk.
    images: usize,
    /// How many containers and images its report leaves out.
    left_out: u32,
    /// When it looked.
    #[schemars(with = "model::schema::Time")]
    reported_at: Timestamp,
    /// When it was heard of.
    #[schemars(with = "model::schema::Time")]
    received_at: Timestamp,
}

/// Whether a node is heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "NodeState")]
enum Heard {
    /// It reports.
    Reporting,
    /// Nothing was heard of it for three minutes: what is said of it may have changed.
    Silent,
}

/// Everything that is known of a node; its containers are a list of their own.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "NodeDetails")]
pub(super) struct Details {
    #[serde(flatten)]
    row: Row,
    /// The kernel's boot id.
    boot: String,
    /// The host.
    facts: HostFacts,
    /// What its agent can see and enforce.
    sensors: SensorMatrix,
    /// The host's own packages, as an image; null where its agent does not tell of them.
    host_image: Option<OnDisk>,
    /// How many of its images nothing runs.
    latent: usize,
    /// Images on its disk, those that nothing runs last.
    images_on_disk: Vec<OnDisk>,
}

/// An image on a node's disk.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ImageOnDisk")]
struct OnDisk {
    /// The digest by which the runtime knows it.
    id: Digest,
    /// Its names on the node.
    names: Vec<String>,
    /// Which runtime holds it.
    runtime: String,
    /// Bytes on disk.
    bytes: u64,
    /// Whether a container of it runs on the node; otherwise it is latent.
    active: bool,
    /// The image; null where it is not known.
    image_digest: Option<Digest>,
    /// What policy says of it, as it reads now.
    decision: Option<Decision>,
    /// How many vulnerabilities it has; null where nobody looked.
    counts: Option<Counts>,
}

/// `GET /v1/nodes`.
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Row>>, ApiError> {
    let tenant = permit(caller)?;
    let (limit, after) = (query.limit()?, page::after(&query, &tenant)?);
    let now = api.now();
    let mut found = api
        .read(move |view| view.nodes(&tenant, after.as_deref(), limit.saturating_add(1)))
        .await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more);
    let next = next.map(|(key, ..)| PageQuery::cursor(key));
    let rows = found
        .iter()
        .map(|(_, node, view)| Row::new(node, view, now));
    Ok(Json(Page {
        items: rows.collect(),
        next,
    }))
}

/// `GET /v1/nodes/{node}`.
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
) -> Result<Json<Details>, ApiError> {
    let tenant = permit(caller)?;
    let node: Slug = node.parse().map_err(|error| bad_parameter("node", error))?;
    let now = api.now();
    let marks = api.marks.get(&api.store, now).await.map_err(internal)?;
    let shown = node.clone();
    let details = api
        .read(move |view| {
            let Some(found) = view.node(&tenant, &node)? else {
                return Ok(None);
            };
            let mut join = Join::new(view, &tenant, &marks, now);
            let held = on_disk((view, &tenant), &mut join, &node, &found)?;
            let is_host = |image: &OnDisk| image.runtime == HOST_RUNTIME;
            let (hosts, images_on_disk): (Vec<_>, Vec<_>) = held.into_iter().partition(is_host);
            let latent = images_on_disk.iter().filter(|image| !image.active);
            Ok(Some(Details {
                latent: latent.count(),
                host_image: hosts.into_iter().next(),
                row: Row::new(&node, &found, now),
                boot: found.boot,
                facts: found.host,
                sensors: found.sensors,
                images_on_disk,
            }))
        })
        .await?;
    let details = details.ok_or_else(|| {
        ApiError::not_found(format!("no node `{shown}` has reported"))
            .hint("`GET /v1/nodes` lists those that have")
    })?;
    Ok(Json(details))
}

fn on_disk(
    (view, tenant): (&View, &Slug),
    join: &mut Join<'_>,
    node: &Slug,
    found: &NodeView,
) -> Result<Vec<OnDisk>, CacheError> {
    let containers = view.containers(tenant, Some(node), None, CONTAINERS_MAX)?;
    let running = containers.iter().filter(|placed| placed.runs());
    let running: BTreeSet<Digest> = running
        .flat_map(|placed| digests(&placed.container))
        .collect();
    let mut images = Vec::with_capacity(found.images.len());
    for image in &found.images {
        let known_by: Vec<Digest> = digests_at_rest(image).collect();
        let is_host = image.runtime == HOST_RUNTIME;
        let active = is_host || known_by.iter().any(|digest| running.contains(digest));
        let name = image.names.first().map_or("", String::as_str);
        let joined = join.image_behind(node, known_by, name)?;
        let ImageAtRest {
            id,
            names,
            runtime,
            bytes,
            ..
        } = image.clone();
        images.push(OnDisk {
            id,
            names,
            runtime,
            bytes,
            active,
            image_digest: joined.images.first().copied(),
            decision: joined.decision,
            counts: joined.counts,
        });
    }
    images.sort_by_key(|image| !image.active);
    Ok(images)
}

// === impl Row ===

impl Row {
    fn new(node: &Slug, view: &NodeView, now: Timestamp) -> Self {
        let host = &view.host;
        let images = view.images.iter();
        let images = images.filter(|image| image.runtime != HOST_RUNTIME);
        let answering = host.runtimes.iter().filter(|at| at.error.is_none());
        let runtimes = answering.map(|at| format!("{} {}", at.name, at.version).trim().to_owned());
        Self {
            node: node.clone(),
            state: if is_silent(view.received_at, now) {
                Heard::Silent
            } else {
                Heard::Reporting
            },
            host: host.name.clone(),
            os: host.os.clone(),
            kernel: host.kernel.clone(),
            machine: host.machine.clone(),
            runtimes: runtimes.collect(),
            orchestrator: host.orchestrator.clone(),
            agent: view.agent.clone(),
            sensor: view.sensors.tier.clone(),
            containers: view.containers,
            running: view.running,
            images: images.count(),
            left_out: view.left_out,
            reported_at: view.reported_at,
            received_at: view.received_at,
        }
    }
}
