//! The handler: a message of a node in; records, detections and incidents out.

use std::sync::Arc;

use bus::{DecodeError, Delivery, Failure, Handler, Input, Outcome, StoreError, decode};
use bytes::Bytes;
use model::{
    event::Event as _,
    runtime::{NodeReported, RuntimeBatch},
};

use crate::{
    facts::{Facts, StoredFacts},
    shard::{Effects, Watch},
};

/// What nodes tell.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// What the node holds.
    Report(Box<NodeReported>),
    /// What its containers did: the bytes, which are read in place.
    Batch(Bytes),
}

/// Takes what the nodes of a shard tell.
pub(crate) struct RuntimeHandler<F = StoredFacts> {
    pub(crate) watch: Arc<Watch<F>>,
}

impl Input for Told {
    fn decode(kind: &str, body: &[u8]) -> Result<Option<Self>, DecodeError> {
        match kind {
            NodeReported::TYPE => decode(body).map(|report| Some(Self::Report(Box::new(report)))),
            RuntimeBatch::TYPE => Ok(Some(Self::Batch(Bytes::copy_from_slice(body)))),
            _ => Ok(None),
        }
    }
}

impl<F: Facts> Handler for RuntimeHandler<F> {
    type Input = Told;

    async fn handle(&self, delivery: Delivery<Told>) -> Result<Outcome, Failure> {
        let again = delivery.attempt > 1 || delivery.retried;
        let place = (&delivery.tenant, delivery.subject.as_str());
        let effects = match delivery.body {
            Told::Report(report) => self.watch.report(place, *report, again).await,
            Told::Batch(bytes) => self.watch.batch(place, &bytes, again).await,
        };
        let effects = effects.map_err(failure)?;
        self.watch.note(&effects.changes).await;
        outcome(effects)
    }
}

fn outcome(effects: Effects) -> Result<Outcome, Failure> {
    let mut outcome = effects.outcome;
    for change in effects.changes {
        outcome = change.into_outcome(outcome)?;
    }
    for (tenant, sighted) in &effects.sighted {
        outcome = outcome.emit(tenant, sighted)?;
    }
    Ok(outcome)
}

/// The one place that decides what comes again: what the store could not do now. A batch that cannot
/// be read never will be.
fn failure(error: anyhow::Error) -> Failure {
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::Unavailable { .. } | StoreError::Dangling { .. }) => Failure::Retry(error),
        Some(_) | None => Failure::Reject(error),
    }
}

#[cfg(test)]
mod tests;
