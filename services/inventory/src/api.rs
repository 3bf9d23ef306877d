//! The routes: one file per thing that can be asked for.

mod advisories;
mod events;
mod health;
mod images;
mod lookup;
mod page;
mod reports;
mod scans;
mod verdicts;
mod vulnerabilities;

use std::sync::Arc;

use anyhow::Context as _;
use axum::{Extension, Router, http::StatusCode, routing::get};
use bus::{Bus, Store};
use cache::CacheError;
use chassis::{
    Cx,
    http::{ApiError, Grant},
};
use jiff::Timestamp;
use model::Slug;

use crate::{Config, verdicts::MarksCache, view::View};

const READ: &str = "read";

/// What the routes need; cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    cx: Cx,
    store: Store,
    view: Arc<View>,
    marks: Arc<MarksCache>,
    /// Absent in tests: then nothing is waited for.
    bus: Option<Bus>,
    rows_examined_max: usize,
    events: Arc<events::Streams>,
}

/// The caller, as found out before the routes.
type Caller = Option<Extension<Grant>>;

/// The routes.
pub(crate) fn routes(api: Api) -> Router {
    Router::new()
        .route("/v1/images", get(images::list))
        // A reference has slashes, so one route takes all that begins like this.
        .route("/v1/images/{*image}", get(images::get))
        .route(
            "/v1/vulnerabilities/{id}/images",
            get(vulnerabilities::images),
        )
        .route("/v1/verdicts", get(verdicts::get))
        .route("/v1/scans/{id}", get(scans::get))
        .route("/v1/advisories", get(advisories::get))
        .route("/v1/health", get(health::get))
        .route("/v1/events", get(events::get))
        .with_state(api)
}

// === impl Api ===

impl Api {
    pub(crate) fn new(cx: &Cx, bus: &Bus, view: Arc<View>, config: &Config) -> Self {
        Self {
            cx: cx.clone(),
            store: bus.store(),
            view,
            marks: Arc::default(),
            bus: Some(bus.clone()),
            rows_examined_max: config.rows_examined_max,
            events: events::Streams::new(&config.events),
        }
    }

    fn now(&self) -> Timestamp {
        self.cx.now()
    }

    /// Reads the view on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> Result<T, CacheError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let view = Arc::clone(&self.view);
        let read = self.cx.blocking(move || read(&view)).await;
        let read = read.map_err(anyhow::Error::from).and_then(|read| Ok(read?));
        Ok(read.context("reading the view")?)
    }
}

/// The tenant of a caller who may read.
fn permit(caller: Caller) -> Result<Slug, ApiError> {
    match caller {
        Some(Extension(grant)) if grant.allows(READ) => {
            let tenant = grant.tenant.parse::<Slug>();
            Ok(tenant.with_context(|| format!("the tenant of token `{}`", grant.name))?)
        }
        Some(Extension(grant)) => {
            let detail = format!("token `{}` lacks the scope `{READ}`", grant.name);
            Err(ApiError::new(StatusCode::FORBIDDEN, detail))
        }
        None => Err(
            ApiError::new(StatusCode::UNAUTHORIZED, "this needs a token")
                .hint("send `Authorization: Bearer TOKEN`"),
        ),
    }
}

/// 500 for what the store did not do.
fn internal(error: impl Into<anyhow::Error>) -> ApiError {
    ApiError::from(error.into())
}

/// Where a parameter of a query does not parse.
fn bad_parameter(name: &str, error: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!("parameter `{name}`: {error}"))
}

#[cfg(test)]
mod tests;
