//! The response policies over HTTP: read them, put one in force, take one out, try one.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::Response,
};
use bus::Store;
use chassis::{
    Cx,
    http::{Access, ApiError, Grant, Operation, Page, PageQuery, Route, body_limit},
};
use jiff::SignedDuration;
use model::{Digest, Slug, event::INCIDENTS, runtime::Incident};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    census::Census,
    document::ResponsePolicy,
    handler::sources_of,
    library::ResponseSet,
    replay::{Replayed, replay},
};
use crate::{
    document::DOCUMENT_BYTES_MAX,
    documents::{self, YAML},
};

const READ: Access = Access::Scope("read");
const ADMIN: Access = Access::Scope("admin");
/// Days that a replay looks back, and how many incidents it takes at most.
const DAYS_MAX: u32 = 365;
const REPLAYED_MAX: usize = 10_000;

/// What the routes need.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) policies: watch::Receiver<Arc<ResponseSet>>,
    pub(crate) census: Census,
    pub(crate) cx: Cx,
}

/// A response policy as the list shows it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ResponsePolicySummary")]
struct Summary {
    /// Its name.
    name: Slug,
    /// What it is for.
    description: String,
    /// Which edition; 0 is the built-in one.
    revision: u64,
    /// How far its rules go where they do not say: observe, `dry_run`, propose, enforce.
    mode: String,
    /// Its rules.
    rules: Vec<String>,
    /// Whether it lets some containers not start.
    start_gate: bool,
}

/// Which incidents are replayed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ReplayQuery {
    /// Incidents that began within so many days; 7 where it is not said.
    #[schemars(range(min = 1, max = 365))]
    days: Option<u32>,
}

/// What a replay came to.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ResponseReplay")]
struct Replay {
    /// The incidents, in the order in which they began.
    items: Vec<Replayed>,
    /// How many more were left out, for a replay takes a limited number: the oldest.
    left_out: usize,
}

/// The routes; whoever mounts them brings an `Extension<Arc<dyn Tokens>>`.
pub(crate) fn router(api: Api) -> Router {
    chassis::http::router(table(), api).layer(body_limit(DOCUMENT_BYTES_MAX))
}

/// What is to be said of the routes.
pub(crate) fn operations() -> Vec<Operation> {
    chassis::http::operations(table())
}

fn table() -> Vec<Route<Api>> {
    let named = |route: Route<Api>| {
        route.path::<Slug>("name", "the response policy").refuses(
            StatusCode::BAD_REQUEST,
            "that is no name, or no response policy",
        )
    };
    let (ok, not_found) = (StatusCode::OK, StatusCode::NOT_FOUND);
    vec![
        READ.get(
            "/v1/response-policies",
            "listResponsePolicies",
            "Response policies in force",
            list,
        )
        .query::<PageQuery>()
        .answers::<Page<Summary>>(ok, "a page of the list, in the order of names"),
        named(READ.get(
            "/v1/response-policies/{name}",
            "getResponsePolicy",
            "A response policy as its author wrote it",
            read,
        ))
        .strong()
        .answers_with(ok, YAML, "the document")
        .refuses(not_found, "there is no such response policy"),
        named(ADMIN.put(
            "/v1/response-policies/{name}",
            "putResponsePolicy",
            "Puts a response policy into force",
            replace,
        ))
        .detail(
            "It decides about incidents from now on; `POST /v1/response-replays` tries it before.",
        )
        .body_of(YAML)
        .answers::<Summary>(ok, "it is in force"),
        named(ADMIN.delete(
            "/v1/response-policies/{name}",
            "deleteResponsePolicy",
            "Takes a response policy out of force",
            remove,
        ))
        .detail("What was ordered goes on until it is over or released.")
        .answers_nothing(StatusCode::NO_CONTENT, "it is not in force, or never was"),
        READ.post(
            "/v1/response-replays",
            "replayResponsePolicy",
            "What a response policy would have done on the incidents of the last days",
            try_out,
        )
        .detail(
            "The body is a response policy to try; without one those in force are. Nothing is \
             changed. What would be left of an image is counted by what runs now.",
        )
        .query::<ReplayQuery>()
        .body_of(YAML)
        .answers::<Replay>(ok, "what would have been done")
        .refuses(StatusCode::BAD_REQUEST, "that is no response policy"),
    ]
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Summary>>, ApiError> {
    let policies = Arc::clone(&api.policies.borrow());
    let named = policies
        .all()
        .map(|one| (one.name.to_string(), Summary::from(&**one)));
    Page::of(named, &query).map(Json)
}

async fn read(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, ApiError> {
    documents::read::<ResponsePolicy>(&api.store, &name).await
}

async fn replace(
    State(api): State<Api>,
    Path(name): Path<String>,
    Extension(grant): Extension<Grant>,
    yaml: String,
) -> Result<Json<Summary>, ApiError> {
    let at = (&api.store, api.cx.now());
    let policy: ResponsePolicy = documents::replace(at, &name, &grant, &yaml).await?;
    Ok(Json(Summary::from(&policy)))
}

async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
    Extension(grant): Extension<Grant>,
) -> Result<StatusCode, ApiError> {
    documents::remove::<ResponsePolicy>(&api.store, &name, &grant).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn try_out(
    State(api): State<Api>,
    Query(query): Query<ReplayQuery>,
    Extension(grant): Extension<Grant>,
    yaml: String,
) -> Result<Json<Replay>, ApiError> {
    let days = query.days.unwrap_or(7);
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(ApiError::bad_request(format!("`days` is 1 to {DAYS_MAX}")));
    }
    let tenant = documents::slug(&grant.tenant)?;
    let policies = if yaml.trim().is_empty() {
        Arc::clone(&api.policies.borrow())
    } else {
        Arc::new(ResponseSet::of([documents::document(&yaml)?]))
    };
    let since = api
        .cx
        .now()
        .checked_sub(SignedDuration::from_hours(i64::from(days) * 24));
    let since = since.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let found = api
        .store
        .list::<Incident>(INCIDENTS, &format!("{tenant}."))
        .await;
    let found = found
        .map_err(documents::internal)?
        .into_iter()
        .map(|(_, stored)| stored.body);
    let mut incidents: Vec<Incident> = found.filter(|one| one.first_at >= since).collect();
    incidents.sort_by_key(|one| std::cmp::Reverse(one.first_at));
    let left_out = incidents.len().saturating_sub(REPLAYED_MAX);
    incidents.truncate(REPLAYED_MAX);
    let sources = sources(&api, &tenant, &policies, &incidents).await?;
    let given = incidents.into_iter().map(move |incident| {
        let of_image = incident
            .image
            .and_then(|image| sources.get(&image).cloned());
        (incident, of_image.unwrap_or_default())
    });
    // Thousands of decisions, each of which counts what runs, are no work for who answers others.
    let (given, census) = (given.collect(), api.census.clone());
    let work = move || replay((&tenant, &policies), given, &census);
    let items = api.cx.compute(work).await.map_err(anyhow::Error::from)?;
    Ok(Json(Replay { items, left_out }))
}

/// Where the images of incidents come from, if a rule asks.
async fn sources(
    api: &Api,
    tenant: &Slug,
    policies: &ResponseSet,
    incidents: &[Incident],
) -> Result<HashMap<Digest, Vec<Slug>>, ApiError> {
    let mut known = HashMap::new();
    for image in incidents.iter().filter_map(|incident| incident.image) {
        if policies.asks_sources() && !known.contains_key(&image) {
            let found = sources_of(&api.store, tenant, image).await;
            known.insert(image, found.map_err(documents::internal)?);
        }
    }
    Ok(known)
}

impl From<&ResponsePolicy> for Summary {
    fn from(policy: &ResponsePolicy) -> Self {
        Self {
            name: policy.name.clone(),
            description: policy.description.clone(),
            revision: policy.revision,
            mode: policy.mode.as_str().to_owned(),
            rules: policy
                .rules
                .iter()
                .map(|rule| rule.name.to_string())
                .collect(),
            start_gate: policy.start_gate.is_some(),
        }
    }
}

#[cfg(test)]
mod tests;
