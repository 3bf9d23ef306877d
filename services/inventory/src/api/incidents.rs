//! `GET /v1/incidents`, `GET /v1/incidents/{id}`.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use cache::CacheError;
use chassis::http::{ApiError, Page, PageQuery};
use model::{
    Severity, Slug,
    event::EVIDENCE_OBJECTS,
    runtime::{Detection, Incident, IncidentState},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Api, Caller, bad_parameter, containers, internal, join::Join, page, permit};
use crate::view::View;

/// Incidents that are read at once.
const CHUNK: usize = 128;
/// How many are looked at for those of one container.
const EXAMINED_MAX: usize = 2_000;

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
    /// The container as its node reported it last; null where it is gone.
    container_now: Option<containers::Row>,
}

/// Filters, parsed.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
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
    let (limit, after) = (page.limit()?, page::after(&page, &tenant)?);
    let severity = query.severity.as_deref().map(str::parse::<Severity>);
    let severity = severity
        .transpose()
        .map_err(|error| bad_parameter("severity", error))?;
    let filter = Filter { query, severity };
    let examined_max = api.rows_examined_max;
    let page = api
        .read(move |view| filter.page((view, &tenant), after, limit, examined_max))
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
    let found = api
        .read(move |view| {
            let Some(incident) = view.incident(&tenant, &id)? else {
                return Ok(None);
            };
            let mut container_now = None;
            let placed = view.container(&tenant, &incident.node, &incident.container)?;
            if let Some(placed) = placed {
                let mut join = Join::new(view, &tenant, &marks, now);
                let joined = join.image_of(&placed.node, &placed.container)?;
                let row = containers::Row::new(placed.node, &placed.container, &joined);
                container_now = Some(row);
            }
            Ok(Some((incident, container_now)))
        })
        .await?;
    let (incident, container_now) = found.ok_or_else(|| {
        ApiError::not_found(format!("there is no incident `{shown}`"))
            .hint("`GET /v1/incidents` lists them")
    })?;
    let events = match &incident.timeline {
        Some(object) => api
            .store
            .object::<Vec<Detection>>(EVIDENCE_OBJECTS, object)
            .await
            .map_err(internal)?,
        None => None,
    };
    Ok(Json(Details {
        incident,
        events: events.unwrap_or_default(),
        container_now,
    }))
}

// === impl Filter ===

impl Filter {
    /// Incidents of one container.
    pub(super) fn of_container(id: &str) -> Self {
        let query = ListQuery {
            container: Some(id.to_owned()),
            ..ListQuery::default()
        };
        Self {
            query,
            severity: None,
        }
    }

    /// The newest that fit, of those that are looked at.
    pub(super) fn newest(
        &self,
        view: &View,
        tenant: &Slug,
        limit: usize,
    ) -> Result<Vec<Incident>, CacheError> {
        let page = self.page((view, tenant), None, limit, EXAMINED_MAX)?;
        Ok(page.items)
    }

    fn page(
        &self,
        (view, tenant): (&View, &Slug),
        mut after: Option<Vec<u8>>,
        limit: usize,
        examined_max: usize,
    ) -> Result<Page<Incident>, CacheError> {
        let mut items = Vec::new();
        let mut examined: usize = 0;
        loop {
            let found = view.incidents(tenant, after.as_deref(), CHUNK)?;
            let is_last = found.len() < CHUNK;
            for (key, incident) in found {
                if items.len() >= limit || examined >= examined_max {
                    let next = after.map(|key| PageQuery::cursor(&key));
                    return Ok(Page { items, next });
                }
                examined = examined.saturating_add(1);
                after = Some(key);
                if self.fits(&incident) {
                    items.push(incident);
                }
            }
            if is_last {
                return Ok(Page { items, next: None });
            }
        }
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
