//! The routes: one file per thing that can be asked for.

mod advisories;
mod broker;
mod checks;
mod connections;
mod containers;
mod events;
mod health;
mod images;
mod incidents;
mod join;
mod lookup;
mod nodes;
mod page;
mod replacements;
mod reports;
mod responses;
mod running;
mod scans;
mod table;
mod verdicts;
mod vulnerabilities;

use std::sync::Arc;

use anyhow::Context as _;
use axum::{Extension, Router};
use bus::{Bus, Store};
use cache::CacheError;
use chassis::{
    Cx,
    http::{ApiError, Grant, Operation, PageQuery},
};
use jiff::Timestamp;
use model::Slug;

use self::broker::{Broker, Nats};
use crate::{Config, verdicts::MarksCache, view::View};

/// What the routes need; cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    cx: Cx,
    store: Store,
    view: Arc<View>,
    marks: Arc<MarksCache>,
    broker: Arc<dyn Broker>,
    /// Absent in tests: then nothing is waited for.
    bus: Option<Bus>,
    rows_examined_max: usize,
    events: Arc<events::Streams>,
}

/// The scope of whoever reads.
const READ: &str = "read";

/// The caller, who may do what the route's row asks for.
type Caller = Extension<Grant>;

/// The routes.
pub(crate) fn routes(api: Api) -> Router {
    chassis::http::router(table::table(), api)
}

/// What is to be said of the routes.
pub(crate) fn operations() -> Vec<Operation> {
    chassis::http::operations(table::table())
}

// === impl Api ===

impl Api {
    pub(crate) fn new(cx: &Cx, bus: &Bus, view: Arc<View>, config: &Config) -> Self {
        Self {
            cx: cx.clone(),
            store: bus.store(),
            view,
            marks: Arc::default(),
            broker: Arc::new(Nats::new(bus)),
            bus: Some(bus.clone()),
            rows_examined_max: config.rows_examined_max,
            events: events::Streams::new(&config.events),
        }
    }

    /// Where a page begins, and how far it goes.
    fn bounds(&self, query: &PageQuery, tenant: &Slug) -> Result<page::Bounds, ApiError> {
        Ok(page::Bounds {
            limit: query.limit()?,
            after: page::after(query, tenant)?,
            examined_max: self.rows_examined_max,
        })
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

/// The tenant of a caller.
fn permit(Extension(grant): Caller) -> Result<Slug, ApiError> {
    let tenant = grant.tenant.parse::<Slug>();
    Ok(tenant.with_context(|| format!("the tenant of token `{}`", grant.name))?)
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
