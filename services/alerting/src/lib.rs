//! alerting: news in, alerts out; and answers to scan requests that named a callback.
//!
//! News say what happened; an alert says that somebody should know, and again when he need not care
//! any more. Each alert has a fingerprint, the same for the same cause, and a state in KV
//! `tw_alerts`. It is told when the state changes, and never otherwise: however often an image is
//! scanned, judged or delivered, its refusal is one alert. What comes and goes by the second is
//! told once per window, and what stands is told again where reminders are asked for (`state`,
//! `reminder`).
//!
//! The decision that shapes it: telling and delivering are two steps with a stream between. The
//! first decides by compare-and-set; the second only carries, one consumer per sink, so a sink that
//! is away for a day gets everything in the end and holds up no other. It costs a second message
//! per alert. To an outside sink the promise is *at least once*, every copy under the same
//! CloudEvents id; there is a second copy only where a crash, or an answer that was lost, fell
//! between sending and recording.
//!
//! A receiver that fails is left alone for longer and longer, or for as long as it asks, and never
//! given up: its alerts wait in the stream, which keeps 30 days and 1 GiB of them for all sinks
//! together. Beyond that the oldest go, so a receiver that is away for longer misses those and holds
//! up no other. That it is away is in the process's notes; how many alerts wait, and since when, in
//! the metrics of the queue `sink_<name>`. What is told of one alert stays in order
//! (`sinks::order`).
//!
//! A receiver that refuses (4xx, or 5xx of a mail server) gets a dead letter with its answer as the
//! cause, and the next alert. Alerts that are grouped are acknowledged after their notification was
//! delivered, so a crash groups them again; its id is computed from theirs, and theirs stand in it
//! (`sinks::group`).
//!
//! A sink that is taken out of the configuration leaves its consumer `sink_<name>` on the stream
//! `ALERTS` behind. It holds nothing back and costs the server next to nothing; a sink of that name
//! that is configured again goes on where it was left, with what the stream still holds (30 days).
//! The start warns of consumers that nobody serves; `nats consumer rm ALERTS sink_<name>` ends one
//! for good.
//!
//! One cause gives one alert: see `signal`; a response to an incident has three, for who must decide,
//! for who must look why it does not work, and for who wants to know: see `signal::response`.
//! Receivers verify what they get: see `signature`.
//!
//! Where `json_bridge` is on, it also gives all news to subscribers that want JSON
//! ([`Bus::bridge_json`]): it is the role that carries things outward.
//!
//! What it does not do: it judges nothing, and it knows no people and no shifts; that is the
//! receiver's trade.
//!
//! To add a sink: see `sinks`.

mod callback;
mod config;
mod handler;
mod metrics;
mod reminder;
mod signal;
mod signature;
pub mod sinks;
mod state;

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use bus::{Bus, BusError, Consume};
use chassis::Cx;
use model::event::{ALERTS, EVENTS, RESULTS};

use self::{
    callback::CallbackHandler,
    handler::NewsHandler,
    sinks::{SinkHandler, send},
};

pub use self::{
    config::{AlertOn, CallbackConfig, Config},
    sinks::{Sink, SinkConfig},
};

/// The consumer of a sink is this and the sink's name.
const SINK: &str = "sink_";
/// How many scan requests are looked at at once beside those that are waited for.
const REQUESTS_BESIDE: usize = 16;

/// Starts the role, and gives its routes: none. It works until `cx` stops.
pub async fn run(cx: &Cx, bus: &Bus, config: &Config) -> anyhow::Result<Router> {
    config.check()?;
    let client = send::client()?;
    for (name, sink) in &config.sinks {
        let handler = SinkHandler::new(cx, name, sink, &client);
        let handler = handler.with_context(|| format!("sink `{name}`"))?;
        let consume = Consume {
            stream: ALERTS.to_owned(),
            durable: format!("{SINK}{name}"),
            filter: String::new(),
            concurrency: handler.places(config.concurrency.max(1)),
            ack_wait: bus.config().ack_wait(),
        };
        bus.consume(cx, consume, Arc::new(handler));
    }
    warn_of_unserved(bus, config).await;
    let news = NewsHandler {
        store: bus.store(),
        clock: cx.clock(),
        config: Arc::new(config.clone()),
    };
    let consume = Consume::new(bus, RESULTS, "alerting", config.concurrency.max(1));
    bus.consume(cx, consume, Arc::new(news));
    if !config.windows().is_off() {
        reminder::start(cx, bus, config.windows());
    }
    if config.json_bridge {
        bus.bridge_json(cx);
    }
    let places = config.callbacks.waiting_max.max(1) + REQUESTS_BESIDE;
    let callbacks = CallbackHandler::new(cx, bus, config)?;
    let consume = Consume::new(bus, EVENTS, "callbacks", places);
    bus.consume(cx, consume, Arc::new(callbacks));
    Ok(Router::new())
}

/// Names the consumers of sinks that are not configured any more.
async fn warn_of_unserved(bus: &Bus, config: &Config) {
    match unserved(bus, config).await {
        Ok(names) => {
            for name in names {
                tracing::warn!(
                    "consumer `{ALERTS}/{SINK}{name}` is served by nobody: no sink `{name}` is \
                     configured; configured again it goes on where it was left, and \
                     `nats consumer rm {ALERTS} {SINK}{name}` ends it for good"
                );
            }
        }
        Err(error) => tracing::info!(%error, "consumers that nobody serves are not known: {error}"),
    }
}

async fn unserved(bus: &Bus, config: &Config) -> Result<Vec<String>, BusError> {
    let durables = bus.durables(ALERTS).await?;
    let names = durables.iter().filter_map(|name| name.strip_prefix(SINK));
    let unserved = names.filter(|name| !config.sinks.contains_key(*name));
    Ok(unserved.map(str::to_owned).collect())
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
