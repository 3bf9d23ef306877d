//! `POST /v1/scans`: what CI asks for.
//!
//! A request with an `Idempotency-Key` has the same id whenever it is sent, so a client that lost
//! the answer sends it again. Without a key every request is one of its own: a tag may have moved
//! since the last one.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Extension, Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    routing::post,
};
use chassis::{
    Cx,
    http::{ApiError, Grant, body_limit},
};
use jiff::Timestamp;
use model::{
    Fingerprint, ImageRef, Slug,
    event::{Priority, ScanRequested},
};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::{
    Config, SourceConfig,
    intake::{Accepted, Intake, refused},
    metrics,
};

const SCOPE: &str = "scan";
const BODY_BYTES_MAX: usize = 64 * 1024;
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

struct Scans {
    cx: Cx,
    sources: Vec<SourceConfig>,
    intake: Arc<dyn Intake>,
}

/// The body of a request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScanRequest {
    /// The image, as `docker pull` takes it.
    image: String,
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
}

/// The answer: where to ask for the result.
#[derive(Debug, Serialize)]
struct ScanAccepted {
    id: String,
    status_url: String,
}

/// The routes of CI. Who calls them was found out before: they ask for an `Extension<Grant>`.
pub(crate) fn routes(cx: &Cx, config: &Config, intake: Arc<dyn Intake>) -> Router {
    let scans = Scans {
        cx: cx.clone(),
        sources: config.sources.clone(),
        intake,
    };
    Router::new()
        .route("/v1/scans", post(request))
        .layer(body_limit(BODY_BYTES_MAX))
        .with_state(Arc::new(scans))
}

async fn request(
    State(scans): State<Arc<Scans>>,
    grant: Option<Extension<Grant>>,
    headers: HeaderMap,
    Json(body): Json<ScanRequest>,
) -> Result<
    (
        StatusCode,
        [(header::HeaderName, String); 1],
        Json<ScanAccepted>,
    ),
    ApiError,
> {
    let grant = permit(grant)?;
    let tenant: Slug = grant.tenant.parse().map_err(|error| {
        let error = anyhow::Error::from(error);
        ApiError::from(error.context(format!("the tenant of token `{}`", grant.name)))
    })?;
    let key = idempotency_key(&headers)?;
    let event = scans.event(&tenant, body, key)?;
    let (id, reference) = (event.id.clone(), event.reference.to_string());
    let accepted = Accepted::Requested(event);
    scans
        .intake
        .accept(&tenant, &accepted)
        .await
        .map_err(|error| refused(&error))?;
    metrics::scan_requested();
    info!(
        request.id = id,
        "`{}` asks for a scan of {reference}", grant.name
    );
    let status_url = format!("/v1/scans/{id}");
    let location = [(header::LOCATION, status_url.clone())];
    Ok((
        StatusCode::ACCEPTED,
        location,
        Json(ScanAccepted { id, status_url }),
    ))
}

fn permit(grant: Option<Extension<Grant>>) -> Result<Grant, ApiError> {
    match grant {
        Some(Extension(grant)) if grant.allows(SCOPE) => Ok(grant),
        Some(Extension(grant)) => {
            let detail = format!("token `{}` lacks the scope `{SCOPE}`", grant.name);
            Err(ApiError::new(StatusCode::FORBIDDEN, detail))
        }
        None => Err(
            ApiError::new(StatusCode::UNAUTHORIZED, "this needs a token")
                .hint("send `Authorization: Bearer TOKEN`"),
        ),
    }
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
        let requested_at = self.cx.now();
        Ok(ScanRequested {
            id: request_id(tenant, key, &reference, requested_at),
            reference,
            source: source.name.clone(),
            system: request.system.unwrap_or_else(default_system),
            priority: request.priority,
            force: request.force,
            requested_at,
            callback: None,
        })
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

#[cfg(test)]
mod tests;
