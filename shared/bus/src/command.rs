//! Waking an agent: its desired state changed, and it should look.
//!
//! A wake-up carries nothing and may be lost; the state stands in a bucket, and an agent looks there
//! now and then anyway.

use async_nats::{SubscribeError, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use model::Slug;

use crate::{Bus, error::BusError, wire::WireError};

/// The subjects of all wake-ups.
pub(crate) const EVERY: &str = "tw.cmd.*.*";

/// The subject that wakes the agent of a node.
pub(crate) fn subject(tenant: &Slug, node: &str) -> String {
    format!("tw.cmd.{tenant}.{node}")
}

/// Hears when an agent should look at its desired state.
#[derive(Debug)]
pub struct Woken(Subscriber);

// === impl Bus ===

impl Bus {
    /// Wakes the agent of a node. Nothing is lost where nobody hears it.
    pub async fn wake(&self, tenant: &Slug, node: &Slug) {
        let subject = subject(tenant, node.as_str());
        self.0.wire.send(subject.into(), Bytes::new()).await;
    }

    /// Hears the wake-ups of a node's agent from now on, over lost connections too.
    pub async fn woken(&self, tenant: &Slug, node: &Slug) -> Result<Woken, BusError> {
        let subject = subject(tenant, node.as_str());
        let subscribed = self.0.wire.client.subscribe(subject.clone()).await;
        let failed = |error: SubscribeError| WireError::Other(error.to_string()).about(&subject);
        subscribed.map(Woken).map_err(failed)
    }
}

// === impl Woken ===

impl Woken {
    /// Waits for the next wake-up. `None`: there will be none, for the connection was closed.
    /// Dropping it before loses nothing.
    pub async fn next(&mut self) -> Option<()> {
        self.0.next().await.map(|_| ())
    }
}
