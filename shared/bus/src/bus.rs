//! The bus of a process: a connection and what is built on it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use chassis::Cx;
use model::{SpoolState, event::CLAIM_OBJECTS};
use tokio::sync::OnceCell;

use crate::{
    config::Config,
    consume::Held,
    envelope::Headers,
    error::{BusError, StoreError},
    fullness::Fullness,
    gate::Gate,
    janitor::Janitor,
    metrics,
    permissions::{Grants, Holder, Role},
    presence::Presence,
    queues::Queues,
    spool::Spool,
    store::{Store, nats::Nats},
    subject, topology,
    wait::Wakes,
    wire::Wire,
};

/// The bus; cheap to clone.
#[derive(Clone, Debug)]
pub struct Bus(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) wire: Wire,
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) cx: Cx,
    pub(crate) wakes: Wakes,
    pub(crate) presence: Presence,
    /// What every handler of this process passes.
    pub(crate) gate: Gate,
    pub(crate) fullness: Fullness,
    pub(crate) queues: Queues,
    /// What waits on this disk to be published.
    pub(crate) spool: OnceLock<Spool>,
    /// What this process may do; `None`: everything.
    pub(crate) grants: Option<Grants>,
    /// What this process holds, by stream and consumer.
    held: Mutex<HashMap<String, Held>>,
    /// The connection of those who follow buckets.
    following: OnceCell<Wire>,
}

// === impl Bus ===

impl Bus {
    /// Connects, waiting at most [`Config::connect_timeout_s`] for the first connection. One that
    /// is lost later is made again for ever.
    pub async fn connect(cx: &Cx, config: &Config, name: &str) -> Result<Self, BusError> {
        Self::open(cx, config, name, None).await
    }

    /// The same for a process with some roles of a fleet: it makes nothing that the provisioner
    /// makes, on a server without permissions too.
    pub async fn connect_as(
        cx: &Cx,
        config: &Config,
        roles: impl IntoIterator<Item = Role>,
    ) -> Result<Self, BusError> {
        let holder = Holder::Roles(roles.into_iter().collect());
        Self::open(cx, config, &holder.to_string(), Some(holder.grants())).await
    }

    async fn open(
        cx: &Cx,
        config: &Config,
        name: &str,
        grants: Option<Grants>,
    ) -> Result<Self, BusError> {
        let bus = Self::start(cx, config, name, grants).await?;
        if config.connect_timeout_s > 0 {
            bus.connected(Duration::from_secs(config.connect_timeout_s))
                .await?;
        }
        Ok(bus)
    }

    /// Waits for a connection, and says why there is none in time.
    pub async fn connected(&self, deadline: Duration) -> Result<(), BusError> {
        self.0.wire.connected(deadline).await
    }

    /// [`Bus::connect_as`] that does not wait.
    pub async fn connect_later_as(
        cx: &Cx,
        config: &Config,
        roles: impl IntoIterator<Item = Role>,
    ) -> Result<Self, BusError> {
        let holder = Holder::Roles(roles.into_iter().collect());
        Self::start(cx, config, &holder.to_string(), Some(holder.grants())).await
    }

    /// [`Bus::connect_later_as`] for somebody who is no role: the agent of a node. Its messages go as
    /// they are, for it may write nothing beside them.
    pub async fn connect_later_for(
        cx: &Cx,
        config: &Config,
        holder: Holder,
    ) -> Result<Self, BusError> {
        let name = match &holder {
            Holder::Agent { .. } => "agent".to_owned(),
            Holder::Roles(_) => holder.to_string(),
        };
        Self::start(cx, config, &name, Some(holder.grants())).await
    }

    /// The body that goes with a message: itself, or nothing where it is too large and was put
    /// beside it, which only those do who may.
    pub(crate) async fn check_in(
        &self,
        headers: &mut Headers,
        body: Bytes,
    ) -> Result<Bytes, StoreError> {
        let beside = topology::object_subjects(CLAIM_OBJECTS);
        let may = |grants: &Grants| {
            grants
                .publish()
                .any(|filter| subject::matches(filter, &beside))
        };
        if self.0.grants.as_ref().is_none_or(may) {
            return self.0.store.check_in(headers, body).await;
        }
        Ok(body)
    }

    /// Whether it is a part of a fleet, with the rights of its roles alone.
    pub fn is_part(&self) -> bool {
        self.0.grants.is_some()
    }

    /// Starts connecting and does not wait: for who works without NATS as well.
    pub async fn connect_later(cx: &Cx, config: &Config, name: &str) -> Result<Self, BusError> {
        Self::start(cx, config, name, None).await
    }

    async fn start(
        cx: &Cx,
        config: &Config,
        name: &str,
        grants: Option<Grants>,
    ) -> Result<Self, BusError> {
        let wire = Wire::open(config, name).await?;
        metrics::watch(wire.link());
        let store = Store::new(Arc::new(Nats(wire.clone())), cx.clock());
        let janitor = Janitor::start(cx, store.clone(), config.discard_after());
        let store = store.with_janitor(janitor);
        Ok(Self(Arc::new(Inner {
            name: format!("{name} {}", std::process::id()),
            wakes: Wakes::new(cx, wire.clone()),
            wire,
            config: config.clone(),
            store,
            cx: cx.clone(),
            presence: Presence::default(),
            gate: Gate::default(),
            fullness: Fullness::default(),
            queues: Queues::default(),
            spool: OnceLock::new(),
            grants,
            held: Mutex::default(),
            following: OnceCell::new(),
        })))
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.0.wire.is_up()
    }

    /// State.
    pub fn store(&self) -> Store {
        self.0.store.clone()
    }

    /// What this process has accepted and not yet published; `None` where it has no outbox.
    pub fn spool(&self) -> Option<SpoolState> {
        let spool = self.0.spool.get()?;
        Some(SpoolState {
            events: spool.pending(),
            bytes: spool.bytes(),
            bytes_max: spool.bytes_max(),
        })
    }

    /// Names this process: unlike a process id, it is never used again.
    pub fn id(&self) -> &str {
        &self.0.presence.id
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.0.config
    }
}

// === impl Inner ===

impl Inner {
    /// The messages of a consumer that this process holds.
    pub(crate) fn held(&self, stream: &str, durable: &str) -> Held {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.entry(format!("{stream}/{durable}"))
            .or_default()
            .clone()
    }

    /// Whether this process holds a message.
    pub(crate) fn holds_any(&self) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.values().any(|held| held.count() > 0)
    }

    /// The connection of those who follow, made at the first use.
    pub(crate) async fn following(&self) -> Result<Wire, BusError> {
        let open = async || Wire::open(&self.config, &format!("{}-follow", self.name)).await;
        self.following.get_or_try_init(open).await.cloned()
    }
}
