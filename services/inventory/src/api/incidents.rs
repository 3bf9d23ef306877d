//! `GET /v1/incidents`, `GET /v1/incidents/{id}`.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use cache::CacheError;
use chassis::http::{ApiError, Page, PageQuery};
use model::{
    Counts, Decision, Digest, Severity, Slug,
    event::EVIDENCE_OBJECTS,
    runtime::{Detection, HostFacts, Incident, IncidentState, ResponseRecord, Surroundings},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Api, Caller, bad_parameter, containers, internal, join::Join, page, page::Bounds, permit,
    responses,
};
use crate::view::{Entry, Ordered, View};

/// Filters of the list. All that are given must fit.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Whether something can still be added.
    state: Option<IncidentState>,
    /// This severity or worse.
    severity: Option<String>,
    /// A node.
    node: Option<String>,
    /// A container's id, or its beginning.
    container: Option<String>,
    /// The orchestrator's namespace.
    namespace: Option<String>,
    /// A rule that fired, as `drift/added-executable`.
    rule: Option<String>,
    /// At most so many rows; 100 where it is not said.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<usize>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// An incident with everything that belongs to it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "IncidentDetails")]
pub(super) struct Details {
    #[serde(flatten)]
    incident: Incident,
    /// What was detected, in order; empty where it is too old to be kept.
    events: Vec<Detection>,
    /// What the container did around it: processes, connections, ports, files; null where it is too
    /// old to be kept.
    around: Option<Surroundings>,
    /// The container as its node reported it last; null where it is gone.
    container_now: Option<containers::Row>,
    /// The image as it is judged now; null where it is not known.
    image_now: Option<ImageNow>,
    /// The host as its agent reported it last; null where it is gone.
    host_now: Option<HostFacts>,
    /// What was proposed, decided and done about it, by whom, and how it ended; null where nothing
    /// was.
    response: Option<ResponseRecord>,
}

/// What is known of the image that a container with an incident ran, whether it still runs or not.
#[derive(Debug, Serialize, JsonSchema)]
struct ImageNow {
    /// The image.
    digest: Digest,
    /// What policy says.
    decision: Option<Decision>,
    /// How many vulnerabilities it has; null where nobody looked.
    counts: Option<Counts>,
}

/// Filters, parsed.
#[derive(Clone, Debug, Default)]
struct Filter {
    query: ListQuery,
    severity: Option<Severity>,
}

/// `GET /v1/incidents`.
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Incident>>, ApiError> {
    let tenant = permit(caller)?;
    let page = PageQuery::new(query.limit, query.cursor.clone());
    let bounds = api.bounds(&page, &tenant)?;
    let severity = query.severity.as_deref().map(str::parse::<Severity>);
    let severity = severity
        .transpose()
        .map_err(|error| bad_parameter("severity", error))?;
    let filter = Filter { query, severity };
    let page = api
        .read(move |view| filter.page((view, &tenant), bounds))
        .await?;
    Ok(Json(page))
}

/// `GET /v1/incidents/{id}`.
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Details>, ApiError> {
    let tenant = permit(caller)?;
    let now = api.now();
    let marks = api.marks.get(&api.store, now).await.map_err(internal)?;
    let shown: String = id.chars().take(100).collect();
    let of = tenant.clone();
    let found = api
        .read(move |view| {
            let Some(incident) = view.incident(&tenant, &id)? else {
                return Ok(None);
            };
            let mut join = Join::new(view, &tenant, &marks, now);
            Details::new((view, &tenant), &mut join, incident).map(Some)
        })
        .await?;
    let mut details = found.ok_or_else(|| {
        ApiError::not_found(format!("there is no incident `{shown}`"))
            .hint("`GET /v1/incidents` lists them")
    })?;
    let Incident {
        timeline,
        surroundings,
        ..
    } = &details.incident;
    let events: Option<Vec<Detection>> = evidence(&api, timeline.as_ref()).await?;
    details.around = evidence(&api, surroundings.as_ref()).await?;
    let answer = responses::of_incident(&api, &of, &details.incident.id).await?;
    details.response = answer;
    details.events = events.unwrap_or_default();
    Ok(Json(details))
}

/// What was kept of an incident under this name; `None` where it is gone.
async fn evidence<T: DeserializeOwned>(
    api: &Api,
    object: Option<&Digest>,
) -> Result<Option<T>, ApiError> {
    let Some(object) = object else {
        return Ok(None);
    };
    let read = api.store.object::<T>(EVIDENCE_OBJECTS, object).await;
    read.map_err(internal)
}

// === impl Details ===

impl Details {
    /// An incident with what the view knows of its container, image and host; what is an object is
    /// still to be read.
    fn new(
        (view, tenant): (&View, &Slug),
        join: &mut Join<'_>,
        incident: Incident,
    ) -> Result<Self, CacheError> {
        let mut container_now = None;
        let placed = view.container(tenant, &incident.node, &incident.container)?;
        if let Some(placed) = placed {
            let joined = join.image_of(&placed.node, &placed.container)?;
            container_now = Some(containers::Row::new(
                placed.node,
                &placed.container,
                &joined,
            ));
        }
        let mut image_now = None;
        if let Some(digest) = incident.image {
            let name = &incident.image_name;
            let joined = join.image_behind(&incident.node, vec![digest], name)?;
            image_now = joined.images.contains(&digest).then_some(ImageNow {
                digest,
                decision: joined.decision,
                counts: joined.counts,
            });
        }
        let host_now = view.node(tenant, &incident.node)?.map(|node| node.host);
        Ok(Self {
            incident,
            events: Vec::new(),
            around: None,
            container_now,
            image_now,
            host_now,
            response: None,
        })
    }
}

// === impl Filter ===

impl Filter {
    fn page(
        &self,
        (view, tenant): (&View, &Slug),
        bounds: Bounds,
    ) -> Result<Page<Incident>, CacheError> {
        let rows =
            |after: Option<&[u8]>, limit| view.latest(Ordered::INCIDENTS, tenant, after, limit);
        page::fill(bounds, rows, |entry: Entry| {
            let incident = view.incident(tenant, &entry.id)?;
            Ok(incident.filter(|incident| self.fits(incident)))
        })
    }

    fn fits(&self, incident: &Incident) -> bool {
        let ListQuery {
            state,
            node,
            container,
            namespace,
            rule,
            ..
        } = &self.query;
        let is_of = |id: &String| incident.container.starts_with(id.as_str());
        state.is_none_or(|state| state == incident.state)
            && self.severity.is_none_or(|least| incident.severity >= least)
            && node
                .as_ref()
                .is_none_or(|node| node == incident.node.as_str())
            && container.as_ref().is_none_or(is_of)
            && (namespace.is_none() || *namespace == incident.namespace)
            && rule
                .as_ref()
                .is_none_or(|rule| incident.rules.contains(rule))
    }
}
