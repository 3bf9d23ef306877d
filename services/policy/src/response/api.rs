//! The response policies over HTTP: read them, put one in force, take one out, try one.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bus::{Store, StoreError};
use chassis::{
    Clock,
    http::{Access, ApiError, Grant, Operation, Page, PageQuery, Route, body_limit},
};
use jiff::SignedDuration;
use model::{
    Known, PolicyRecord, RecordKey, Slug, What,
    event::{CONFIG, INCIDENTS},
    runtime::Incident,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    census::Census,
    document::{BUILTIN_RESPONSES, ResponsePolicy},
    library::{ResponseSet, key, put},
    replay::{Replayed, replay},
};
use crate::{
    document::{DEFAULT, DOCUMENT_BYTES_MAX},
    library::PutPolicyError,
};

const READ: Access = Access::Scope("read");
const ADMIN: Access = Access::Scope("admin");
const YAML: &str = "application/yaml";
/// Days that a replay looks back, and how many incidents it takes at most.
const DAYS_MAX: u32 = 365;
const REPLAYED_MAX: usize = 10_000;

/// What the routes need.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) policies: watch::Receiver<Arc<ResponseSet>>,
    pub(crate) census: Census,
    pub(crate) clock: Arc<dyn Clock>,
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
    let name = parse(&name)?;
    let stored = api.store.get::<PolicyRecord>(CONFIG, &key(&name)).await;
    let yaml = match stored.map_err(internal)? {
        Some(stored) => stored.body.yaml,
        None if name.as_str() == DEFAULT => BUILTIN_RESPONSES.to_owned(),
        None => {
            let what = format!("there is no response policy `{name}`");
            return Err(ApiError::not_found(what));
        }
    };
    Ok(([(header::CONTENT_TYPE, YAML)], yaml).into_response())
}

async fn replace(
    State(api): State<Api>,
    Path(name): Path<String>,
    Extension(grant): Extension<Grant>,
    yaml: String,
) -> Result<Json<Summary>, ApiError> {
    let name = parse(&name)?;
    let given = document(&yaml)?;
    if given.name != name {
        let what = format!(
            "the document's name is `{}`, and the address says `{name}`",
            given.name
        );
        return Err(ApiError::bad_request(what));
    }
    let policy = put(&api.store, &yaml, api.clock.now()).await;
    let policy = policy.map_err(|error| match error {
        PutPolicyError::Store(error) => internal(error),
        error => ApiError::bad_request(error.to_string()),
    })?;
    tracing::info!(
        policy.name = %name,
        policy.revision = policy.revision,
        token.name = grant.name,
        "response policy `{name}` was put by `{}`",
        grant.name,
    );
    Ok(Json(Summary::from(&policy)))
}

async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
    Extension(grant): Extension<Grant>,
) -> Result<StatusCode, ApiError> {
    let name = parse(&name)?;
    api.store
        .delete(CONFIG, &key(&name))
        .await
        .map_err(internal)?;
    tracing::info!(
        policy.name = %name,
        token.name = grant.name,
        "response policy `{name}` was deleted by `{}`",
        grant.name,
    );
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
    let tenant: Slug = parse(&grant.tenant)?;
    let policies = if yaml.trim().is_empty() {
        Arc::clone(&api.policies.borrow())
    } else {
        Arc::new(ResponseSet::of([document(&yaml)?]))
    };
    let since = api
        .clock
        .now()
        .checked_sub(SignedDuration::from_hours(i64::from(days) * 24));
    let since = since.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let found = api
        .store
        .list::<Incident>(INCIDENTS, &format!("{tenant}."))
        .await;
    let found = found
        .map_err(internal)?
        .into_iter()
        .map(|(_, stored)| stored.body);
    let mut incidents: Vec<Incident> = found.filter(|one| one.first_at >= since).collect();
    incidents.sort_by_key(|one| std::cmp::Reverse(one.first_at));
    let left_out = incidents.len().saturating_sub(REPLAYED_MAX);
    incidents.truncate(REPLAYED_MAX);
    let mut given = Vec::with_capacity(incidents.len());
    for incident in incidents {
        let sources = sources(&api, &tenant, &policies, &incident)
            .await
            .map_err(internal)?;
        given.push((incident, sources));
    }
    let items = replay((&tenant, &policies), given, &api.census);
    Ok(Json(Replay { items, left_out }))
}

async fn sources(
    api: &Api,
    tenant: &Slug,
    policies: &ResponseSet,
    incident: &Incident,
) -> Result<Vec<Slug>, StoreError> {
    let Some(image) = incident.image.filter(|_| policies.asks_sources()) else {
        return Ok(Vec::new());
    };
    let key = RecordKey::new(tenant, image, What::Known);
    let known = api.store.record::<Known>(&key).await?;
    let references = known.map(|known| known.body.references).unwrap_or_default();
    Ok(references.into_iter().map(|seen| seen.source).collect())
}

fn document(yaml: &str) -> Result<ResponsePolicy, ApiError> {
    ResponsePolicy::parse(yaml).map_err(|error| ApiError::bad_request(error.to_string()))
}

fn parse(name: &str) -> Result<Slug, ApiError> {
    name.parse()
        .map_err(|error: model::SlugError| ApiError::bad_request(error.to_string()))
}

fn internal(error: StoreError) -> ApiError {
    anyhow::Error::from(error).into()
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
