//! Where the desired state comes from, and what wakes who reads it.

use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, Woken};
use chassis::Cx;
use model::{
    Slug,
    event::NODES,
    runtime::{Desired, SignedDesired},
};
use tokio::{sync::mpsc, time::timeout};

/// How long one look may take; NATS may be away.
const READ_MAX: Duration = Duration::from_secs(5);

/// Reads the desired state of a node.
pub(crate) struct Reader {
    bus: Bus,
    tenant: Slug,
    node: Slug,
    woken: Option<Woken>,
}

// === impl Reader ===

impl Reader {
    pub(crate) fn new(bus: &Bus, tenant: &Slug, node: &Slug) -> Self {
        Self {
            bus: bus.clone(),
            tenant: tenant.clone(),
            node: node.clone(),
            woken: None,
        }
    }

    /// Hands over what stands there: at once, when somebody says that it changed, and so often.
    /// While NATS is away only this waits for it.
    pub(crate) async fn run(mut self, cx: Cx, every: Duration, out: mpsc::Sender<SignedDesired>) {
        while !cx.is_stopping() {
            // What is written after the look wakes us.
            self.listen().await;
            match self.read().await {
                Ok(Some(signed)) => {
                    if out.send(signed).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "nothing new is known: {error:#}"),
            }
            tokio::select! {
                () = cx.stopped() => return,
                () = self.wait(every) => {}
            }
        }
    }

    async fn listen(&mut self) {
        if self.woken.is_some() {
            return;
        }
        match timeout(READ_MAX, self.bus.woken(&self.tenant, &self.node)).await {
            Ok(Ok(woken)) => self.woken = Some(woken),
            Ok(Err(error)) => tracing::debug!(%error, "nobody can wake this agent: {error}"),
            Err(_) => {}
        }
    }

    /// What stands there now; `None`: nothing.
    async fn read(&self) -> anyhow::Result<Option<SignedDesired>> {
        let key = Desired::key(&self.tenant, &self.node);
        let store = self.bus.store();
        let read = timeout(READ_MAX, store.get::<SignedDesired>(NODES, &key)).await;
        let stored = read.context("NATS does not answer")??;
        Ok(stored.map(|stored| stored.body))
    }

    async fn wait(&mut self, at_most: Duration) {
        let Some(woken) = &mut self.woken else {
            return tokio::time::sleep(at_most).await;
        };
        if let Ok(None) = timeout(at_most, woken.next()).await {
            // The connection was closed.
            self.woken = None;
        }
    }
}
