//! The read model: what is where, how bad, how widespread, over REST.
//!
//! The decision that shapes it: it owns nothing. It follows the records of all images, keeps a
//! summary of each and a few indexes in RocksDB, and stores the place it has read up to in the same
//! batch; so it can stop anywhere, and deleting its directory costs only the time to read the
//! records again. Reports, verdicts and scan requests are read from the records and objects when
//! somebody asks, so they are as new as the store and the view stays small. The price: a list may
//! be some milliseconds behind a verdict.
//!
//! How long a verdict holds is computed when it is asked for: one that has run out reads as
//! `incomplete` everywhere, though no record was touched.
//!
//! A question that names a reference is answered for the images that the name leads to now; a
//! digest may be an image's, an index's or a config's. An index is as bad as its worst platform.
//! Where several policies have a say and the question names none, the worst decides.
//!
//! Nodes say what they hold by digests of their runtimes; which images these are is looked up when
//! somebody asks, so a container and what is known of its image may come in any order. What is wrong
//! with a container's settings is computed from what its runtime says (`settings.rs`).
//!
//! It decides nothing and writes no record. What people order about incidents it hands on as an event,
//! which policy takes.
//!
//! What can be asked, by whom, and what the answers are stands in `api/table.rs`: the router and the
//! document of the API are made of it. An answer is sent again only where it differs from the one
//! that the caller has.
//!
//! To add a question: a file in `api/`, and a row in the table. To add an index: a family
//! in `view.rs`, and a higher schema version, which fills it from the start.

mod api;
mod census;
mod config;
mod follow;
mod metrics;
mod settings;
mod verdicts;
mod view;

use std::sync::Arc;

use anyhow::Context as _;
use bus::Bus;
use chassis::{Cx, http::Operation};

pub use self::config::{Config, EventsConfig};
use self::{api::Api, view::View};

/// What is to be said of the routes.
pub fn operations() -> Vec<Operation> {
    api::operations()
}

/// Starts to follow the records, and gives the routes; whoever mounts them brings an
/// `Extension<Arc<dyn Tokens>>`.
pub async fn run(cx: &Cx, bus: &Bus, config: &Config) -> anyhow::Result<axum::Router> {
    let dir = config.data_dir.join("inventory");
    let opened = cx.blocking(move || View::open(&dir)).await?;
    let view = Arc::new(opened.context("opening the view")?);
    follow::start(cx, bus, &view);
    census::start(cx, &view);
    Ok(api::routes(Api::new(cx, bus, view, config)))
}
