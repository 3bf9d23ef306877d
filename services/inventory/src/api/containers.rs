//! `GET /v1/containers`, `GET /v1/containers/{id}`, `GET /v1/images/{digest}/containers`.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Json,
    extract::{Path, Query, State},
};
use cache::CacheError;
use chassis::http::{ApiError, Page, PageQuery};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use model::{
    Counts, Decision, Digest, Misconfiguration, Severity, Slug,
    event::REFS,
    runtime::{
        Container, ContainerState, Incident, MountPoint, PortMapping, Security, SightedImages,
        Unserved,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api, Caller, bad_parameter, internal,
    join::{Join, Joined},
    page::{self, Bounds},
    permit,
};
use crate::{
    settings,
    view::{Placed, View, digests},
};

/// Records that are read at once.
const PARALLEL: usize = 16;
/// Incidents of one container that are shown.
const INCIDENTS_MAX: usize = 50;

/// Filters of the list. All that are given must fit.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListQuery {
    /// A node.
    node: Option<String>,
    /// Part of the image's name, or a digest of it: of the index, the manifest or the config.
    image: Option<String>,
    /// The orchestrator's namespace.
    namespace: Option<String>,
    /// What it does.
    state: Option<ContainerState>,
    /// Whether its image is in no source, or denied.
    #[serde(alias = "unauthorised")]
    unauthorized: Option<bool>,
    /// Whether its image has vulnerabilities.
    vulnerable: Option<bool>,
    /// At least one vulnerability of this severity or worse.
    severity: Option<String>,
    /// Whether the outside can reach it over its host.
    exposed: Option<bool>,
    /// A check of its settings that finds something, as `privileged`.
    check: Option<String>,
    /// At most so many rows; 100 where it is not said.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<usize>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// A container in a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ContainerRow")]
pub(super) struct Row {
    /// The runtime's id.
    id: String,
    /// The node.
    node: Slug,
    /// Its name.
    name: String,
    /// The runtime.
    runtime: String,
    /// What it does.
    state: ContainerState,
    /// The image's name as it was asked for.
    image: String,
    /// The digest by which the runtime knows the image.
    image_id: Option<Digest>,
    /// The image; null where it is not known.
    image_digest: Option<Digest>,
    /// The pod.
    pod: Option<String>,
    /// The orchestrator's namespace.
    namespace: Option<String>,
    /// What owns it there.
    owner: Option<String>,
    /// When it was last started.
    #[schemars(with = "Option<model::schema::Time>")]
    started_at: Option<Timestamp>,
    /// Published ports.
    ports: Vec<PortMapping>,
    /// Whether the outside can reach it over its host: a port is published at more than the host
    /// itself, or the host's network is its own.
    exposed: bool,
    /// What policy says of the image, as it reads now.
    decision: Option<Decision>,
    /// How many vulnerabilities the image has; null where nobody looked.
    counts: Option<Counts>,
    /// Why it should not run here; null where nothing speaks against it.
    unauthorized: Option<Unauthorized>,
    /// How many checks of its settings find something.
    settings_failed: u32,
    /// How bad the worst of them is.
    settings_worst: Option<Severity>,
    /// By which digests the node knows the image.
    #[serde(skip)]
    digests: Vec<Digest>,
}

/// Why a container should not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Unauthorized {
    /// In one word.
    reason: Reason,
    /// What a source said, where one was asked.
    detail: Option<String>,
}

/// Why a container should not run, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "UnauthorizedReason")]
enum Reason {
    /// Its image is in no source, as far as anybody has looked.
    Unknown,
    /// No source serves the registry that its image is from.
    NoSource,
    /// The source that its image's name is of does not have it.
    NotThere,
    /// The source of its image does not let us have it.
    Refused,
    /// Policy denies its image.
    Denied,
}

/// Everything that is known of a container.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ContainerDetails")]
pub(super) struct Details {
    #[serde(flatten)]
    row: Row,
    /// When it was made.
    #[schemars(with = "Option<model::schema::Time>")]
    created_at: Option<Timestamp>,
    /// The first process, as the host counts; 0 where it does not run.
    pid: u32,
    /// Its labels.
    labels: BTreeMap<String, String>,
    /// Its mounts.
    mounts: Vec<MountPoint>,
    /// What it may do.
    security: Security,
    /// What is wrong with its settings, worst first.
    misconfigurations: Vec<Misconfiguration>,
    /// Its incidents, what happened last first; of many the newest.
    incidents: Vec<Incident>,
}

/// The containers of an image.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ImageContainers {
    /// A page of them, by node and id.
    items: Vec<Row>,
    /// The cursor of the next page; absent on the last one.
    next: Option<String>,
    /// How many there are, running or not, of those that were looked at.
    total: usize,
    /// Whether more hold the image than were looked at.
    is_cut: bool,
    /// Nodes that have the image on their disk and run no container of it.
    at_rest: BTreeSet<Slug>,
}

/// Filters, parsed.
struct Filter {
    query: ListQuery,
    digest: Option<Digest>,
    severity: Option<Severity>,
    check: Option<&'static settings::Check>,
}

/// `GET /v1/containers`.
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Row>>, ApiError> {
    let tenant = permit(caller)?;
    let page = PageQuery::new(query.limit, query.cursor.clone());
    let bounds = api.bounds(&page, &tenant)?;
    let node = query.node.as_deref().map(str::parse::<Slug>).transpose();
    let node = node.map_err(|error| bad_parameter("node", error))?;
    let filter = Filter::parse(query)?;
    let now = api.now();
    let marks = api.marks.get(&api.store, now).await.map_err(internal)?;
    let of_view = tenant.clone();
    let mut page = api
        .read(move |view| {
            let scan = Scan {
                view,
                tenant: &of_view,
                node: node.as_ref(),
                filter: &filter,
                join: Join::new(view, &of_view, &marks, now),
            };
            scan.page(bounds)
        })
        .await?;
    api.say_why(&tenant, page.items.iter_mut()).await?;
    Ok(Json(page))
}

/// `GET /v1/containers/{id}`.
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Details>, ApiError> {
    let tenant = permit(caller)?;
    let placed = one(&api, &tenant, &id).await?;
    let now = api.now();
    let marks = api.marks.get(&api.store, now).await.map_err(internal)?;
    let of_view = tenant.clone();
    let mut details = api
        .read(move |view| {
            let mut join = Join::new(view, &of_view, &marks, now);
            let joined = join.image_of(&placed.node, &placed.container)?;
            let place = (&placed.node, &*placed.container.id);
            let incidents = view.incidents_of(&of_view, place, INCIDENTS_MAX)?;
            Ok(Details::new(placed, &joined, incidents))
        })
        .await?;
    api.say_why(&tenant, std::iter::once(&mut details.row))
        .await?;
    Ok(Json(details))
}

/// The container that an id or its beginning means. Ids are a node's word: who gives the whole of one
/// means that one, whatever others are called, and one that two nodes have is nobody's.
pub(super) async fn one(api: &Api, tenant: &Slug, id: &str) -> Result<Placed, ApiError> {
    let (of_view, wanted) = (tenant.clone(), id.to_owned());
    let mut found = api
        .read(move |view| view.containers_with(&of_view, &wanted, 2))
        .await?;
    // In the order of ids, so the whole one is before those that are longer.
    if found.first().is_some_and(|one| one.container.id == id)
        && found.last().is_some_and(|one| one.container.id != id)
    {
        found.truncate(1);
    }
    let shown: String = id.chars().take(100).collect();
    match (found.pop(), found.pop()) {
        (Some(placed), None) if !id.is_empty() => Ok(placed),
        (Some(two), Some(one)) if two.container.id == one.container.id => {
            let (one, two) = (one.node, two.node);
            let what = format!("nodes `{one}` and `{two}` both have a container `{shown}`");
            let hint = "`GET /v1/containers?node=NODE` shows that of a node, and an incident names its own";
            Err(ApiError::conflict(what).hint(hint))
        }
        (Some(_), Some(_)) => {
            let what = format!("the ids of several containers begin with `{shown}`");
            Err(ApiError::conflict(what).hint("give more of the id"))
        }
        _ => {
            let what = format!("no node has a container `{shown}`");
            Err(ApiError::not_found(what).hint("`GET /v1/containers` lists them"))
        }
    }
}

/// `GET /v1/images/{digest}/containers`.
pub(super) async fn of_image(
    api: &Api,
    tenant: &Slug,
    digest: &str,
    query: &PageQuery,
) -> Result<ImageContainers, ApiError> {
    let (limit, after) = (query.limit()?, page::after(query, tenant)?);
    let found = api.find(tenant, digest).await?;
    let max = api.rows_examined_max;
    let now = api.now();
    let marks = api.marks.get(&api.store, now).await.map_err(internal)?;
    let of_view = tenant.clone();
    let mut containers = api
        .read(move |view| {
            let mut join = Join::new(view, &of_view, &marks, now);
            let (mut all, mut at_rest) = (BTreeMap::new(), BTreeSet::new());
            let mut is_cut = false;
            for (digest, image) in &found.images {
                let held = join.held(*digest, image, max)?;
                is_cut |= held.is_cut;
                at_rest.extend(held.at_rest);
                all.extend(held.instances.into_iter().map(|one| (one.key.clone(), one)));
            }
            for placed in all.values().filter(|one| one.runs()) {
                at_rest.remove(&placed.node);
            }
            let total = all.len();
            let rest = all
                .into_iter()
                .filter(|(key, _)| Some(key) > after.as_ref());
            let mut rest = rest.peekable();
            let (mut items, mut last) = (Vec::new(), None);
            for (key, placed) in rest.by_ref().take(limit) {
                let joined = join.image_of(&placed.node, &placed.container)?;
                items.push(Row::new(placed.node, &placed.container, &joined));
                last = Some(key);
            }
            let next = last.filter(|_| rest.peek().is_some());
            Ok(ImageContainers {
                items,
                next: next.map(|key| PageQuery::cursor(&key)),
                total,
                is_cut,
                at_rest,
            })
        })
        .await?;
    api.say_why(tenant, containers.items.iter_mut()).await?;
    Ok(containers)
}

// === impl Api ===

impl Api {
    /// Says of rows with an image that no source is known to have why none gives it.
    async fn say_why(
        &self,
        tenant: &Slug,
        rows: impl Iterator<Item = &mut Row>,
    ) -> Result<(), ApiError> {
        let mut rows: Vec<&mut Row> = rows
            .filter(|row| {
                let why = row.unauthorized.as_ref();
                why.is_some_and(|why| why.reason == Reason::Unknown)
            })
            .collect();
        let key_of = |row: &Row| {
            let digest = *row.digests.first()?;
            Some((SightedImages::key(tenant, &row.node, digest), digest))
        };
        let keys = rows.iter().filter_map(|row| key_of(row));
        let wanted: BTreeSet<String> = keys.map(|(key, _)| key).collect();
        let found = stream::iter(wanted)
            .map(async |key| {
                let found = self.store.get::<SightedImages>(REFS, &key).await?;
                Ok::<_, bus::StoreError>(found.map(|found| (key, found.body.images)))
            })
            .buffered(PARALLEL)
            .try_filter_map(async |found| Ok(found));
        let found: BTreeMap<_, _> = found.try_collect().await.map_err(internal)?;
        for row in &mut rows {
            let record = key_of(row).and_then(|(key, digest)| found.get(&key)?.get(&digest));
            if let Some(record) = record {
                row.unauthorized = Some(Unauthorized {
                    reason: record.why.into(),
                    detail: record.detail.clone(),
                });
            }
        }
        Ok(())
    }
}

/// One pass over the containers of a tenant.
struct Scan<'a> {
    view: &'a View,
    tenant: &'a Slug,
    node: Option<&'a Slug>,
    filter: &'a Filter,
    join: Join<'a>,
}

// === impl Scan ===

impl Scan<'_> {
    fn page(self, bounds: Bounds) -> Result<Page<Row>, CacheError> {
        let Self {
            view,
            tenant,
            node,
            filter,
            mut join,
        } = self;
        let rows = |after: Option<&[u8]>, limit| {
            let found = view.containers(tenant, node, after, limit)?;
            Ok(found.into_iter().map(Placed::keyed).collect())
        };
        page::fill(bounds, rows, |placed: Placed| {
            if !filter.fits_container(&placed.container) {
                return Ok(None);
            }
            let joined = join.image_of(&placed.node, &placed.container)?;
            let fits = filter.fits(&placed.container, &joined);
            Ok(fits.then(|| Row::new(placed.node, &placed.container, &joined)))
        })
    }
}

// === impl Filter ===

impl Filter {
    fn parse(query: ListQuery) -> Result<Self, ApiError> {
        let severity = query.severity.as_deref().map(str::parse::<Severity>);
        let severity = severity
            .transpose()
            .map_err(|error| bad_parameter("severity", error))?;
        let is_digest = |text: &&str| text.starts_with("sha256:");
        let digest = query
            .image
            .as_deref()
            .filter(is_digest)
            .map(str::parse::<Digest>);
        let digest = digest
            .transpose()
            .map_err(|error| bad_parameter("image", error))?;
        let check = match query.check.as_deref() {
            None => None,
            Some(id) => {
                let found = settings::CHECKS.iter().find(|check| check.id == id);
                let known = || settings::CHECKS.iter().map(|check| check.id);
                Some(found.ok_or_else(|| {
                    let known = known().collect::<Vec<_>>().join(", ");
                    bad_parameter("check", format!("there is none of that name, but {known}"))
                })?)
            }
        };
        Ok(Self {
            query,
            digest,
            severity,
            check,
        })
    }

    /// Whether what its runtime says of a container fits.
    fn fits_container(&self, container: &Container) -> bool {
        let Self { query, check, .. } = self;
        let is_named = |part: &String| self.digest.is_some() || container.image.contains(part);
        query.image.as_ref().is_none_or(is_named)
            && (query.namespace.is_none() || query.namespace == container.namespace)
            && query.state.is_none_or(|state| state == container.state)
            && check.is_none_or(|check| check.fires(container))
            && query
                .exposed
                .is_none_or(|exposed| exposed == settings::is_exposed(container))
    }

    /// Whether what is known of its image fits.
    fn fits(&self, container: &Container, joined: &Joined) -> bool {
        let is_meant = |digest: Digest| {
            joined.images.contains(&digest) || digests(container).any(|known| known == digest)
        };
        let has_any = || joined.has(Severity::Unknown);
        let is_unauthorized = || unauthorized(joined).is_some();
        self.digest.is_none_or(is_meant)
            && self.severity.is_none_or(|least| joined.has(least))
            && self
                .query
                .vulnerable
                .is_none_or(|wanted| wanted == has_any())
            && self
                .query
                .unauthorized
                .is_none_or(|wanted| wanted == is_unauthorized())
    }
}

/// Why a container should not run, as far as the view knows.
fn unauthorized(joined: &Joined) -> Option<Unauthorized> {
    let reason = if joined.decision == Some(Decision::Deny) {
        Reason::Denied
    } else if joined.images.is_empty() || joined.on_nodes_alone {
        Reason::Unknown
    } else {
        return None;
    };
    Some(Unauthorized {
        reason,
        detail: None,
    })
}

// === impl Reason, Row, Details ===

impl From<Unserved> for Reason {
    fn from(why: Unserved) -> Self {
        match why {
            Unserved::NoSource => Self::NoSource,
            Unserved::NotThere => Self::NotThere,
            Unserved::Refused => Self::Refused,
        }
    }
}

impl Row {
    pub(super) fn new(node: Slug, container: &Container, joined: &Joined) -> Self {
        let (settings_failed, settings_worst) = settings::summary(container);
        Self {
            id: container.id.clone(),
            node,
            name: container.name.clone(),
            runtime: container.runtime.clone(),
            state: container.state,
            image: container.image.clone(),
            image_id: container.image_id,
            image_digest: joined.images.first().copied(),
            pod: container.pod.clone(),
            namespace: container.namespace.clone(),
            owner: container.owner.clone(),
            started_at: container.started_at,
            ports: container.ports.clone(),
            exposed: settings::is_exposed(container),
            decision: joined.decision,
            counts: joined.counts,
            unauthorized: unauthorized(joined),
            settings_failed,
            settings_worst,
            digests: digests(container).collect(),
        }
    }
}

impl Details {
    fn new(placed: Placed, joined: &Joined, incidents: Vec<Incident>) -> Self {
        let row = Row::new(placed.node, &placed.container, joined);
        let misconfigurations = settings::of(&placed.container);
        let Container {
            created_at,
            pid,
            labels,
            mounts,
            security,
            ..
        } = placed.container;
        Self {
            row,
            created_at,
            pid,
            labels,
            mounts,
            security,
            misconfigurations,
            incidents,
        }
    }
}
