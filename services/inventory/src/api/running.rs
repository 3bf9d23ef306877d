//! `GET /v1/vulnerabilities/{id}/containers`: where does it run?

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use cache::CacheError;
use chassis::http::{ApiError, Page, PageQuery};
use model::{
    Digest, Known, Platform, Slug,
    runtime::{Container, ContainerState},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, Caller, internal, join::Join, permit, vulnerabilities::walk};
use crate::{
    settings,
    view::{Hit, Placed, View},
};

/// Containers of one image that are named.
const INSTANCES_MAX: usize = 100;

/// An image with a vulnerability that runs.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Running {
    /// The image.
    image: Digest,
    /// Its platform.
    platform: Platform,
    /// The names that lead to it now.
    references: Vec<String>,
    /// Its packages that have the vulnerability.
    packages: Vec<Hit>,
    /// How many containers of it run, of those that were looked at.
    containers: usize,
    /// Whether more hold the image than were looked at.
    is_cut: bool,
    /// On which nodes.
    nodes: BTreeSet<Slug>,
    /// Whether the outside can reach one of them over its host.
    exposed: bool,
    /// The containers that run, those first that the outside can reach; of many some.
    instances: Vec<Instance>,
    /// Nodes that have the image on their disk and run no container of it.
    at_rest: BTreeSet<Slug>,
}

/// A container that runs.
#[derive(Debug, Serialize, JsonSchema)]
struct Instance {
    /// The node.
    node: Slug,
    /// The runtime's id.
    id: String,
    /// Its name.
    name: String,
    /// What it does.
    state: ContainerState,
    /// The pod.
    pod: Option<String>,
    /// The orchestrator's namespace.
    namespace: Option<String>,
    /// Whether the outside can reach it over its host.
    exposed: bool,
}

/// `GET /v1/vulnerabilities/{id}/containers`. An alias finds what its vulnerability finds.
pub(super) async fn containers(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Running>>, ApiError> {
    let tenant = permit(caller)?;
    let bounds = api.bounds(&query, &tenant)?;
    let max = bounds.examined_max;
    let now = api.now();
    let marks = api.marks.get(&api.store, now).await.map_err(internal)?;
    let page = api
        .read(move |view| {
            let mut join = Join::new(view, &tenant, &marks, now);
            walk(view, &tenant, &id, &bounds, |image, packages| {
                row((view, &tenant), &mut join, (image, packages), max)
            })
        })
        .await?;
    Ok(Json(page))
}

/// The row of an image, if a container of it runs.
fn row(
    (view, tenant): (&View, &Slug),
    join: &mut Join<'_>,
    (image, packages): (Digest, Vec<Hit>),
    max: usize,
) -> Result<Option<Running>, CacheError> {
    let Some(known) = view.image(tenant, image)? else {
        return Ok(None);
    };
    let held = join.held(image, &known, max)?;
    let mut instances: Vec<Instance> = held
        .instances
        .into_iter()
        .filter(Placed::runs)
        .map(|placed| Instance::new(placed.node, placed.container))
        .collect();
    if instances.is_empty() {
        return Ok(None);
    }
    instances.sort_by_key(|instance| !instance.exposed);
    let (containers, nodes) = (
        instances.len(),
        instances.iter().map(|one| one.node.clone()).collect(),
    );
    let exposed = instances.iter().any(|instance| instance.exposed);
    instances.truncate(INSTANCES_MAX);
    let platform = known.platform();
    let references = known.known.iter().flat_map(Known::names).collect();
    Ok(Some(Running {
        image,
        platform,
        references,
        packages,
        containers,
        is_cut: held.is_cut,
        nodes,
        exposed,
        instances,
        at_rest: held.at_rest,
    }))
}

// === impl Instance ===

impl Instance {
    fn new(node: Slug, container: Container) -> Self {
        let exposed = settings::is_exposed(&container);
        let Container {
            id,
            name,
            state,
            pod,
            namespace,
            ..
        } = container;
        Self {
            node,
            id,
            name,
            state,
            pod,
            namespace,
            exposed,
        }
    }
}
