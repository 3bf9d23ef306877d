//! Which roles run in this process, and the routes they bring.

mod status;

use std::sync::Arc;

use anyhow::Context as _;
use axum::{Extension, Router};
use bus::Bus;
use chassis::{Cx, Readiness, http::Tokens, telemetry::Telemetry};
use oci::DocumentStore;
use scanner::Reader;

use crate::{api, cli::Role, config::Config, paths, sources::Sources, tokens::StoredTokens};

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
    // Only a scanner has a place to keep them.
    let documents = Arc::new(scanner::Documents::default());
    let kept: Option<Arc<dyn DocumentStore>> = roles
        .contains(&Role::Scanner)
        .then(|| Arc::<scanner::Documents>::clone(&documents) as _);
    let sources = gateway::Sources::open(cx, &config.gateway, docker.as_deref(), kept).await;
    let sources = Arc::new(sources.context("opening the sources")?);
    let mut merged =
        chassis::http::health(cx, &readiness).merge(chassis::http::metrics(telemetry.registry()));
    for role in roles {
        let name = role_name(*role);
        readiness.set(name, false);
        let routes = match role {
            Role::Gateway => gateway::run(cx, bus, &config.gateway).await,
            Role::Router => {
                let reader = Reader::new(config.scanner.settings());
                gateway::run_router(cx, bus, &config.gateway, sources.clone(), reader.ids()).await
            }
            Role::Scanner => {
                let sources = Arc::new(Sources(sources.clone()));
                scanner::run(cx, bus, &config.scanner, sources, &documents).await
            }
            Role::Matcher => matcher::run(cx, bus, &config.matcher).await,
            Role::Policy => policy::run(cx, bus, &config.policy).await,
            Role::Alerting => alerting::run(cx, bus, &config.alerting).await,
            Role::Inventory => {
                let store = bus.store();
                let uploads = matcher::routes(store, cx.clock(), &config.matcher.limits);
                let questions = inventory::run(cx, bus, &config.inventory).await;
                questions.map(|routes| routes.merge(uploads).merge(api::routes(cx, bus)))
            }
        };
        merged = merged.merge(routes.with_context(|| format!("starting the role `{name}`"))?);
        readiness.set(name, true);
    }
    watch_broker(cx, bus, &readiness);
    let names = roles.iter().map(|role| role_name(*role).to_owned());
    status::tell(cx, bus, names.collect(), readiness);
    Ok(merged.layer(Extension(tokens)))
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

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Gateway => "gateway",
        Role::Router => "router",
        Role::Scanner => "scanner",
        Role::Matcher => "matcher",
        Role::Policy => "policy",
        Role::Alerting => "alerting",
        Role::Inventory => "inventory",
    }
}
