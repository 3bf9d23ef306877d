//! alerting: news in, alerts out.
//!
//! News say what happened; an alert says that somebody should know, and again when he need not care
//! any more. Each alert has a fingerprint, the same for the same cause, and a state in KV
//! `tw_alerts`. It is told when the state changes, and never otherwise: however often an image is
//! scanned, judged or delivered, its refusal is one alert.
//!
//! The decision that shapes it: telling and delivering are two steps with a stream between. The
//! first decides by compare-and-set; the second only carries, one consumer per sink, so a sink that
//! is away for a day gets everything in the end and holds up no other. It costs a second message
//! per alert. To an outside sink the promise is *at least once*, every copy under the same
//! CloudEvents id.
//!
//! One cause gives one alert: see `signal`.
//!
//! What it does not do: it judges nothing, it groups nothing, and it knows no people and no shifts;
//! that is the receiver's trade.
//!
//! To add a sink: see `sinks`.

mod config;
mod handler;
mod metrics;
mod signal;
pub mod sinks;

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use bus::{Bus, Consume};
use chassis::Cx;
use model::event::{ALERTS, RESULTS};

use self::{
    handler::NewsHandler,
    sinks::{SinkHandler, send},
};

pub use self::{
    config::{AlertOn, Config},
    sinks::SinkConfig,
};

/// Starts the role, and gives its routes: none. It works until `cx` stops.
#[expect(clippy::unused_async, reason = "every role starts the same way")]
pub async fn run(cx: &Cx, bus: &Bus, config: &Config) -> anyhow::Result<Router> {
    let client = send::client()?;
    for (name, sink) in &config.sinks {
        sink.check().with_context(|| format!("sink `{name}`"))?;
        let handler = SinkHandler {
            cx: cx.clone(),
            name: name.clone(),
            config: sink.clone(),
            client: client.clone(),
        };
        let consume = consume(bus, config, ALERTS, format!("sink_{name}"));
        bus.consume(cx, consume, Arc::new(handler));
    }
    let news = NewsHandler {
        store: bus.store(),
        config: Arc::new(config.clone()),
    };
    bus.consume(
        cx,
        consume(bus, config, RESULTS, "alerting".to_owned()),
        Arc::new(news),
    );
    Ok(Router::new())
}

fn consume(bus: &Bus, config: &Config, stream: &str, durable: String) -> Consume {
    Consume {
        stream: stream.to_owned(),
        durable,
        filter: String::new(),
        concurrency: config.concurrency.max(1),
        ack_wait: bus.config().ack_wait(),
    }
}
