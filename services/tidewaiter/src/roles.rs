//! Which roles run in this process, and the routes they bring.

mod status;

use std::sync::Arc;

use anyhow::Context as _;
use axum::{Extension, Router};
use bus::{Bus, WentBy};
use chassis::{Cx, Readiness, http::Tokens, telemetry::Telemetry};
use oci::DocumentStore;
use scanner::SourceOf;

use crate::{
    api,
    cli::Role,
    config::Config,
    paths,
    rules::InForce,
    sources::{BusLine, Sources},
    tokens::StoredTokens,
};

/// Roles on their way: the gateway runs, the others need NATS.
pub(crate) struct Starting<'a> {
    cx: &'a Cx,
    bus: &'a Bus,
    config: &'a Config,
    /// Those that do not run yet.
    waiting: Vec<Role>,
    readiness: Readiness,
    tokens: Arc<dyn Tokens>,
    sources: Arc<gateway::Sources>,
    documents: Arc<scanner::Documents>,
    /// Of who reads images, and of who decides whether that was done already.
    rules: Option<InForce>,
    roles: Vec<Role>,
    routes: Router,
}

// === impl Starting ===

impl<'a> Starting<'a> {
    /// Starts what works without NATS: health, metrics, and the gateway with its spool.
    pub(crate) async fn begin(
        cx: &'a Cx,
        bus: &'a Bus,
        config: &'a Config,
        roles: &[Role],
        telemetry: &Telemetry,
    ) -> anyhow::Result<Self> {
        let readiness = Readiness::default();
        let link = bus.clone();
        let stored = Arc::new(StoredTokens::new(cx, bus.store(), move || {
            link.is_connected()
        }));
        if roles.contains(&Role::Gateway) {
            stored.keep();
        }
        let docker = paths::docker_config();
        // Only a scanner has a place to keep them.
        let documents = Arc::new(scanner::Documents::default());
        let kept: Option<Arc<dyn DocumentStore>> = roles
            .contains(&Role::Scanner)
            .then(|| Arc::<scanner::Documents>::clone(&documents) as _);
        let sources = gateway::Sources::open(cx, &config.gateway, docker.as_deref(), kept).await;
        let sources = sources.context("opening the sources")?;
        let has_rules = |role: &Role| matches!(role, Role::Scanner | Role::Router);
        let in_force = if roles.iter().any(has_rules) {
            Some(InForce::begin(cx, config).await?)
        } else {
            None
        };
        let sources = sources.with_nodes(cx, Arc::new(BusLine(bus.clone())));
        for role in roles {
            readiness.set(role_name(*role), false);
        }
        let mut starting = Self {
            cx,
            bus,
            config,
            waiting: roles.to_vec(),
            routes: chassis::http::health(cx, &readiness)
                .merge(chassis::http::metrics(telemetry.registry())),
            readiness,
            tokens: stored,
            sources: Arc::new(sources),
            documents,
            rules: in_force,
            roles: roles.to_vec(),
        };
        // A gateway alone accepts without NATS as well: it must go on getting requests.
        let needs_broker = roles.iter().any(|role| *role != Role::Gateway);
        watch_broker(cx, bus, needs_broker.then_some(&starting.readiness));
        if let Some(at) = starting
            .waiting
            .iter()
            .position(|role| *role == Role::Gateway)
        {
            let gateway = starting.waiting.remove(at);
            starting.start(gateway).await?;
        }
        Ok(starting)
    }

    /// The routes of what runs already.
    pub(crate) fn routes(&self) -> Router {
        self.routes.clone().layer(Extension(self.tokens.clone()))
    }

    /// The names of the roles that wait for NATS.
    pub(crate) fn waiting(&self) -> Vec<&'static str> {
        self.waiting.iter().copied().map(role_name).collect()
    }

    /// Starts the others; the routes of all.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Router> {
        for role in std::mem::take(&mut self.waiting) {
            self.start(role).await?;
        }
        let names = self.roles.iter().map(|role| role_name(*role).to_owned());
        status::tell(self.cx, self.bus, names.collect(), self.readiness.clone());
        Ok(self.routes())
    }

    async fn start(&mut self, role: Role) -> anyhow::Result<()> {
        let name = role_name(role);
        let routes = self.run(role).await;
        let routes = routes.with_context(|| format!("starting the role `{name}`"))?;
        self.routes = std::mem::take(&mut self.routes).merge(routes);
        self.readiness.set(name, true);
        Ok(())
    }

    fn rules(&self) -> anyhow::Result<&InForce> {
        self.rules.as_ref().context("no rules were read")
    }

    async fn run(&self, role: Role) -> anyhow::Result<Router> {
        let Self {
            cx,
            bus,
            config,
            sources,
            ..
        } = self;
        match role {
            Role::Gateway => gateway::run(cx, bus, &config.gateway).await,
            Role::Router => {
                let analyzers = self.rules()?.analyzers.clone();
                gateway::run_router(cx, bus, &config.gateway, sources.clone(), analyzers).await
            }
            Role::Scanner => {
                let sources: Arc<dyn SourceOf> = Arc::new(Sources(sources.clone()));
                let (readers, of) = (self.rules()?.readers.clone(), (sources, &*self.documents));
                scanner::run(cx, bus, &config.scanner, readers, of).await
            }
            Role::Matcher => matcher::run(cx, bus, &config.matcher).await,
            Role::Policy => policy::run(cx, bus, &config.policy).await,
            Role::Behavior => behavior::run(cx, bus, &config.behavior),
            Role::Alerting => alerting::run(cx, bus, &config.alerting).await,
            Role::Inventory => {
                let store = bus.store();
                let uploads = matcher::routes(store, cx.clock(), &config.matcher.limits);
                let questions = inventory::run(cx, bus, &config.inventory).await;
                questions.map(|routes| routes.merge(uploads).merge(api::routes(cx, bus)))
            }
        }
    }
}

/// Keeps `/readyz` at what is true of the broker: a check for who needs it, else a note.
fn watch_broker(cx: &Cx, bus: &Bus, readiness: Option<&Readiness>) {
    let (watch, bus, readiness) = (cx.clone(), bus.clone(), readiness.cloned());
    cx.spawn("readiness", async move {
        loop {
            let is_there = bus.is_connected();
            if let Some(readiness) = &readiness {
                readiness.set("nats", is_there);
            } else {
                let text = "is away: events are accepted and wait in the spool";
                let note = (!is_there).then(|| text.to_owned());
                watch.notes().set("nats", note);
            }
            let full = bus.full().join(", ");
            let text = format!("take nothing more, and what is for them waits: {full}");
            let note = (!full.is_empty()).then_some(text);
            watch.notes().set("full streams", note);
            let lost = bus.went_by().iter().map(went_by).collect::<Vec<_>>();
            let note = (!lost.is_empty()).then(|| lost.join(", "));
            watch.notes().set("lost messages", note);
            if !watch.sleep(std::time::Duration::from_secs(1)).await {
                return;
            }
        }
    });
}

fn went_by(lost: &WentBy) -> String {
    let WentBy {
        stream,
        consumer,
        messages,
    } = lost;
    format!("{stream} dropped {messages} messages before `{consumer}` was given them")
}

fn role_name(role: Role) -> &'static str {
    bus::permissions::Role::from(role).as_str()
}
