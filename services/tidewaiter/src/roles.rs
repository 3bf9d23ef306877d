//! Which roles run in this process, and the routes they bring.

use std::sync::Arc;

use anyhow::Context as _;
use axum::{Router, middleware::from_fn_with_state};
use bus::Bus;
use chassis::{
    Cx, Readiness,
    http::{Tokens, require},
    telemetry::Telemetry,
};
use scanner::Reader;

use crate::{
    cli::Role,
    config::Config,
    paths,
    sources::Sources,
    tokens::{StoredTokens, identify},
};

/// Starts the roles and merges their routes under one listener.
pub(crate) async fn start(
    cx: &Cx,
    bus: &Bus,
    config: &Config,
    roles: &[Role],
    telemetry: &Telemetry,
) -> anyhow::Result<Router> {
    let readiness = Readiness::default();
    let link = bus.clone();
    let stored = Arc::new(StoredTokens::new(cx, bus.store(), move || {
        link.is_connected()
    }));
    if roles.contains(&Role::Gateway) {
        stored.keep();
    }
    let tokens: Arc<dyn Tokens> = stored;
    let docker = paths::docker_config();
    let sources = gateway::Sources::open(cx, &config.gateway, docker.as_deref()).await;
    let sources = Arc::new(sources.context("opening the sources")?);
    let mut merged =
        chassis::http::health(cx, &readiness).merge(chassis::http::metrics(telemetry.registry()));
    for role in roles {
        let name = bus::permissions::Role::from(*role).as_str();
        readiness.set(name, false);
        let routes = match role {
            Role::Gateway => gateway::run(cx, bus, &config.gateway).await,
            Role::Router => {
                let reader = Reader::new(config.scanner.settings());
                gateway::run_router(cx, bus, &config.gateway, sources.clone(), reader.ids()).await
            }
            Role::Scanner => {
                scanner::run(cx, bus, &config.scanner, Arc::new(Sources(sources.clone()))).await
            }
            Role::Matcher => matcher::run(cx, bus, &config.matcher).await,
            Role::Policy => policy::run(cx, bus, &config.policy).await,
            Role::Alerting => alerting::run(cx, bus, &config.alerting).await,
            Role::Inventory => {
                let store = bus.store();
                let uploads = matcher::routes(store, cx.clock(), &config.matcher.limits);
                let uploads = uploads.layer(require(tokens.clone(), "admin"));
                let questions = inventory::run(cx, bus, &config.inventory).await;
                questions.map(|routes| routes.merge(uploads))
            }
        };
        merged = merged.merge(routes.with_context(|| format!("starting the role `{name}`"))?);
        readiness.set(name, true);
    }
    watch_broker(cx, bus, &readiness);
    Ok(merged.layer(from_fn_with_state(tokens, identify)))
}

/// Keeps `/readyz` at what is true of the broker.
fn watch_broker(cx: &Cx, bus: &Bus, readiness: &Readiness) {
    let (watch, bus, readiness) = (cx.clone(), bus.clone(), readiness.clone());
    cx.spawn("readiness", async move {
        loop {
            readiness.set("nats", bus.is_connected());
            if !watch.sleep(std::time::Duration::from_secs(1)).await {
                return;
            }
        }
    });
}
