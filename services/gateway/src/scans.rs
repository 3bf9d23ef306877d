//! `POST /v1/scans`: what CI asks for.
//!
//! A request with an `Idempotency-Key` has the same id whenever it is sent, so a client that lost
//! the answer sends it again; with another body the key is refused. Without a key every request is
//! one of its own: a tag may have moved since the last one.
//!
//! The request is accepted when it is on disk (202), and where to ask for the result is in
//! `Location`. With `?wait=SECONDS` the answer is a redirect (303) to that place, which waits for the
//! verdict: so one command waits for it, with a token that may both `scan` and `read`:
//!
//! ```sh
//! curl -sL -H "Authorization: Bearer $TOKEN" -H "Idempotency-Key: $BUILD_ID" \
//!   --json '{"image": "registry.example/team/app:1.0"}' https://tidewaiter/v1/scans?wait=120
//! ```
//!
//! With `callback`, a URL on a host that the operator listed, the answer is sent there as well.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Extension, Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
};
use chassis::{
    Cx,
    http::{Access, ApiError, Grant, Hosts, Operation, Route, body_limit},
};
use jiff::Timestamp;
use model::{
    Fingerprint, ImageRef, Slug,
    event::{Priority, ScanRequested},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::{
    Config, SourceConfig,
    intake::{Accepted, Intake, refused},
    keys::{Keys, Use},
    metrics,
    rate::Buckets,
};

const SCAN: Access = Access::Scope("scan");
const BODY_BYTES_MAX: usize = 64 * 1024;
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// As long as the route that is waited on allows.
const WAIT_SECONDS_MAX: u64 = 120;

struct Scans {
    cx: Cx,
    sources: Vec<SourceConfig>,
    callbacks: Hosts,
    intake: Arc<dyn Intake>,
    keys: Keys,
    shares: Buckets,
}

/// The query of a request.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ScanQuery {
    /// Answer when there is a verdict, or after so many seconds.
    #[serde(default)]
    #[schemars(range(max = 120))]
    wait: u64,
}

/// The body of a request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScanRequest {
    /// The image, as `docker pull` takes it.
    pub(crate) image: String,
    /// The source to read it from; otherwise the first that serves the image's registry.
    #[serde(default)]
    source: Option<Slug>,
    /// How urgent it is; somebody waits, unless the client says otherwise.
    #[serde(default = "urgent")]
    priority: Priority,
    /// Scan again what is scanned already.
    #[serde(default)]
    force: bool,
    /// The CI system that asks.
    #[serde(default)]
    system: Option<Slug>,
    /// Where to send the answer when it is there.
    #[serde(default)]
    callback: Option<String>,
}

/// The answer: where to ask for the result.
#[derive(Debug, Serialize, JsonSchema)]
struct ScanAccepted {
    /// The request.
    id: String,
    /// The path that tells what becomes of it.
    status_url: String,
}

/// The routes of CI; whoever mounts them brings an `Extension<Arc<dyn Tokens>>`.
pub(crate) fn routes(
    cx: &Cx,
    config: &Config,
    intake: Arc<dyn Intake>,
    keys: Keys,
) -> anyhow::Result<Router> {
    let scans = Scans {
        cx: cx.clone(),
        sources: config.sources.clone(),
        callbacks: Hosts::new(&config.callback_hosts)?,
        intake,
        keys,
        shares: Buckets::new(config.scans_per_second_max, config.scans_burst_max),
    };
    Ok(chassis::http::router(table(), Arc::new(scans)).layer(body_limit(BODY_BYTES_MAX)))
}

/// What is to be said of the routes.
pub(crate) fn operations() -> Vec<Operation> {
    chassis::http::operations(table())
}

/// The table of routes.
fn table() -> Vec<Route<Arc<Scans>>> {
    let location = "where to ask what becomes of it";
    vec![
        SCAN.post("/v1/scans", "requestScan", "Asks for a scan", request)
            .detail(
                "The same `Idempotency-Key` with the same body is the same request, whenever it is \
                 sent. With `wait` the answer is a redirect to the place that waits for the verdict.",
            )
            .header::<String>(IDEMPOTENCY_KEY, "1 to 255 printable characters that name the request")
            .query::<ScanQuery>()
            .body::<ScanRequest>()
            .answers::<ScanAccepted>(StatusCode::ACCEPTED, "the request is on disk")
            .with_header("Location", location)
            .answers::<ScanAccepted>(StatusCode::SEE_OTHER, "the same, and the caller waits")
            .with_header("Location", location)
            .refuses(
                StatusCode::UNPROCESSABLE_ENTITY,
                "the body means nothing, no source serves the image, the callback's host is not \
                 listed, or the key was used for another request",
            )
            .refuses(StatusCode::TOO_MANY_REQUESTS, "the token asks for more scans than it may")
            .refuses(StatusCode::SERVICE_UNAVAILABLE, "the spool is full, or the disk refuses"),
    ]
}

type Answer = (
    StatusCode,
    [(header::HeaderName, String); 1],
    Json<ScanAccepted>,
);

async fn request(
    State(scans): State<Arc<Scans>>,
    Extension(grant): Extension<Grant>,
    Query(query): Query<ScanQuery>,
    headers: HeaderMap,
    Json(body): Json<ScanRequest>,
) -> Result<Answer, ApiError> {
    let tenant: Slug = grant.tenant.parse().map_err(|error| {
        let error = anyhow::Error::from(error);
        ApiError::from(error.context(format!("the tenant of token `{}`", grant.name)))
    })?;
    let sender = format!("{tenant}/{}", grant.name);
    let share = scans.shares.take(&sender, scans.cx.now());
    share.map_err(|wait| {
        let detail = format!("token `{}` asks for more scans than it may", grant.name);
        ApiError::too_many(detail, wait).hint("send the same request again later")
    })?;
    if query.wait > WAIT_SECONDS_MAX {
        let detail = format!("`wait` is more than {WAIT_SECONDS_MAX} seconds");
        return Err(ApiError::bad_request(detail).hint("wait again at the `status_url`"));
    }
    let key = idempotency_key(&headers)?;
    let event = scans.event(&tenant, body, key)?;
    let id = event.id.clone();
    scans.accept(&tenant, event, &grant.name).await?;
    Ok(answer(id, query.wait))
}

/// Where to ask; who waits is sent there.
fn answer(id: String, wait: u64) -> Answer {
    let status_url = format!("/v1/scans/{id}");
    let (status, location) = if wait == 0 {
        (StatusCode::ACCEPTED, status_url.clone())
    } else {
        (StatusCode::SEE_OTHER, format!("{status_url}?wait={wait}"))
    };
    let location = [(header::LOCATION, location)];
    (status, location, Json(ScanAccepted { id, status_url }))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = value
        .to_str()
        .ok()
        .filter(|key| !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX);
    key.map(Some).ok_or_else(|| {
        ApiError::bad_request("the `Idempotency-Key` is not 1 to 255 characters of printable ASCII")
    })
}

const fn urgent() -> Priority {
    Priority::High
}

// === impl Scans ===

impl Scans {
    fn event(
        &self,
        tenant: &Slug,
        request: ScanRequest,
        key: Option<&str>,
    ) -> Result<ScanRequested, ApiError> {
        let reference: ImageRef = request.image.parse().map_err(|error| {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{error}"))
                .hint("`image` is what `docker pull` takes, as `registry.example/team/app:1.0`")
        })?;
        let source = self.source(tenant, &reference, request.source.as_ref())?;
        let callback = request
            .callback
            .map(|url| self.callback(&url))
            .transpose()?;
        let requested_at = self.cx.now();
        let mut event = ScanRequested {
            id: request_id(tenant, key, &reference, requested_at),
            reference,
            source: source.name.clone(),
            system: request.system.unwrap_or_else(default_system),
            priority: request.priority,
            force: request.force,
            requested_at,
            callback,
            content: None,
        };
        event.content = key.map(|_| content(&event));
        Ok(event)
    }

    fn callback(&self, url: &str) -> Result<String, ApiError> {
        let (_place, url) = self.callbacks.check(url).map_err(|error| {
            let hint = if self.callbacks.is_empty() {
                "no host is configured: the operator lists them in `gateway.callback_hosts`"
            } else {
                "the operator lists hosts in `gateway.callback_hosts`, with their port; they are \
                 reached by https unless they are listed with `http://`"
            };
            let detail = format!("`callback` is refused: {error}");
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, detail).hint(hint)
        })?;
        Ok(url.into())
    }

    /// Keeps a request, unless it is there already.
    async fn accept(
        &self,
        tenant: &Slug,
        event: ScanRequested,
        name: &str,
    ) -> Result<(), ApiError> {
        let (id, reference) = (event.id.clone(), event.reference.to_string());
        if let Some(content) = &event.content {
            match self.keys.note(tenant, &id, content, &reference).await {
                Use::New => {}
                Use::Answered => return Ok(()),
                Use::Other => {
                    let detail = "this `Idempotency-Key` was used for another request";
                    return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
                        .hint("send the same body again, or another key"));
                }
            }
        }
        let accepted = Accepted::Requested(event);
        if let Err(error) = self.intake.accept(tenant, &accepted).await {
            self.keys.forget(&id);
            return Err(refused(&error));
        }
        metrics::scan_requested();
        info!(request.id = id, "`{name}` asks for a scan of {reference}");
        Ok(())
    }

    /// The source that serves a reference. No other host is ever asked.
    fn source(
        &self,
        tenant: &Slug,
        reference: &ImageRef,
        name: Option<&Slug>,
    ) -> Result<&SourceConfig, ApiError> {
        let own = || {
            self.sources
                .iter()
                .filter(|source| source.tenant == *tenant)
        };
        let fits = |source: &&SourceConfig| {
            source.registry == reference.registry && name.is_none_or(|name| source.name == *name)
        };
        own().find(fits).ok_or_else(|| {
            let detail = match name {
                Some(name) => {
                    format!(
                        "`{}` is not served by a source `{name}`",
                        reference.registry
                    )
                }
                None => format!("no source serves the registry `{}`", reference.registry),
            };
            let registries: BTreeSet<_> = own()
                .map(|source| format!("`{}` (source `{}`)", source.registry, source.name))
                .collect();
            let hint = if registries.is_empty() {
                "no source is configured: add one to `gateway.sources`".to_owned()
            } else {
                let list: Vec<_> = registries.into_iter().collect();
                format!("configured are: {}", list.join(", "))
            };
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, detail).hint(hint)
        })
    }
}

fn default_system() -> Slug {
    // The letters are those of a slug; the other branch is never taken.
    "api".parse().unwrap_or_else(|_| Slug::default_tenant())
}

fn request_id(
    tenant: &Slug,
    key: Option<&str>,
    reference: &ImageRef,
    requested_at: Timestamp,
) -> String {
    if let Some(key) = key {
        return Fingerprint::of(&["key", tenant.as_str(), key]).0;
    }
    let (reference, at) = (reference.to_string(), requested_at.to_string());
    Fingerprint::of(&["content", tenant.as_str(), &reference, &at]).0
}

/// The fingerprint of all that is asked for.
fn content(event: &ScanRequested) -> Fingerprint {
    Fingerprint::of(&[
        &event.reference.to_string(),
        event.source.as_str(),
        event.system.as_str(),
        event.priority.as_str(),
        if event.force { "force" } else { "" },
        event.callback.as_deref().unwrap_or_default(),
    ])
}

#[cfg(test)]
mod tests;
