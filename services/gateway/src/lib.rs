//! The outside world in, events out; and the router, which turns these events into jobs.
//!
//! The decision that shapes it: an event is a hint. A sender is answered as soon as what it says is
//! on our disk ([`bus::Outbox`]), whether NATS is there or not, and nothing in a payload is
//! believed except which source, repository, tag and digest to look at. The router then asks the
//! source itself, whose host stands in the configuration: a host in a payload is never contacted.
//! The price is one look-up at the registry for each image that we do not know yet.
//!
//! Two roles live here. The *gateway* has routes: `POST /hooks/{source}` for registries, and
//! `POST /v1/scans` for CI. The *router* is a consumer: it resolves tags to digests and indexes to
//! platforms, writes the `known` record of each image and where indexes, configs and tags lead,
//! and makes one job per image that the current analyzers have not scanned. Beside it the *crawler*
//! looks around in each source for pushes, moves and deletions that no webhook told of.
//!
//! Who sends more than its share gets a 429, who sends while the spool is full a 503, both with
//! `Retry-After`; what was answered with 202 is on disk and is published when NATS is there.
//!
//! What it does not do: it reads no layer, judges nothing, and deletes nothing.
//!
//! | sender | file | authenticated by |
//! |---|---|---|
//! | `distribution`: CNCF Distribution, and GitLab's registry | `decoders/distribution.rs` | bearer token |
//! | `generic`: whatever can sign a list of what happened | `decoders/generic.rs` | HMAC-SHA256 over time and body, each signature once |
//!
//! To add a sender: a file in `decoders/`, a line in `DECODERS`, a row here, and recorded requests
//! in `testdata/<kind>/`: `good-*`, `bad-authentication-*`, `irrelevant-*`. The conformance test
//! in `decoders.rs` asks for all three.
#![cfg_attr(
    not(test),
    warn(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice
    )
)]

mod config;
#[cfg(test)]
mod contract;
mod crawler;
mod decoders;
#[cfg(fuzzing)]
pub mod fuzz;
mod hooks;
mod intake;
mod keys;
mod metrics;
mod rate;
mod router;
mod scans;
mod seen;
mod senders;
mod sources;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Context as _;
use bus::{Bus, Consume, Outbox};
use chassis::{Cx, http::Operation};
use model::{AnalyzerId, event::EVENTS};
use tokio::sync::watch;

use self::router::Router;
pub use self::{
    config::{
        ClientCertificateConfig, Config, CrawlConfig, CrawlRepository, CredentialsConfig,
        MirrorConfig, PaceConfig, SourceConfig,
    },
    sources::{Sources, open_source},
};

/// What is to be said of the routes.
pub fn operations() -> Vec<Operation> {
    let mut all = hooks::operations();
    all.extend(scans::operations());
    all
}

/// Starts the gateway: the routes for senders and for CI. The former authenticate themselves, the
/// latter have a token: whoever mounts them brings an `Extension<Arc<dyn Tokens>>`.
#[expect(clippy::unused_async, reason = "every role starts in the same way")]
pub async fn run(cx: &Cx, bus: &Bus, config: &Config) -> anyhow::Result<axum::Router> {
    config
        .check()
        .context("section `gateway` of the configuration")?;
    let dir = config.data_dir.join("gateway").join("spool");
    let outbox = Outbox::open(cx, bus, &dir, config.spool_bytes_max)
        .with_context(|| format!("opening the spool in `{}`", dir.display()))?;
    let intake: Arc<dyn intake::Intake> = Arc::new(outbox);
    let hooks = hooks::routes(cx, config, Arc::clone(&intake));
    let link = bus.clone();
    let keys = keys::Keys::new(bus.store(), move || link.is_connected());
    Ok(hooks.merge(scans::routes(cx, config, intake, keys)?))
}

/// The analyzers of the scanners, as they are now: other rules for malware make another one of one.
pub type AnalyzersInForce = watch::Receiver<BTreeSet<AnalyzerId>>;

/// Starts the router and the crawler. An image that exactly the analyzers in force have scanned is not
/// scanned again.
#[expect(clippy::unused_async, reason = "every role starts in the same way")]
pub async fn run_router(
    cx: &Cx,
    bus: &Bus,
    config: &Config,
    sources: Arc<Sources>,
    analyzers: AnalyzersInForce,
) -> anyhow::Result<axum::Router> {
    config
        .check()
        .context("section `gateway` of the configuration")?;
    crawler::start(cx, bus, config, &sources, &analyzers);
    let configured = config.sources.iter();
    let configured = configured.map(|source| (source.tenant.clone(), source.name.clone()));
    bus.forget_images(cx, configured.collect());
    let told = (config.sources.as_slice(), config.events_at_once);
    let router = Router::new(cx, bus.store(), told, sources, analyzers);
    let consume = Consume {
        stream: EVENTS.to_owned(),
        durable: "router".to_owned(),
        filter: String::new(),
        concurrency: config.events_at_once,
        ack_wait: bus.config().ack_wait(),
    };
    bus.consume(cx, consume, Arc::new(router));
    Ok(axum::Router::new())
}
