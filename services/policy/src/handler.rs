//! Handlers: an image was assessed, or its names changed; verdicts and news out.

use std::sync::Arc;

use anyhow::Context as _;
use bus::{Delivery, Failure, Handler, Outcome, StoreError};
use model::{Assessed, Known, RecordKey};

use crate::{
    calendar::Calendar,
    ruling::Ruling,
    rulings::{Basis, Judges},
};

/// Takes `assessed` records.
pub(crate) struct AssessedHandler {
    pub(crate) judges: Judges,
    pub(crate) calendar: Arc<Calendar>,
}

/// Takes `known` records.
pub(crate) struct KnownHandler {
    pub(crate) judges: Judges,
    pub(crate) calendar: Arc<Calendar>,
}

impl Handler for AssessedHandler {
    type Input = Assessed;

    async fn handle(&self, delivery: Delivery<Assessed>) -> Result<Outcome, Failure> {
        let key = key(&delivery)?;
        let again = delivery.attempt > 1;
        let rulings = self
            .judges
            .assessed(&key, Basis::of(delivery.sequence, delivery.body), again)
            .await;
        let rulings = rulings.map_err(failure)?;
        outcome(&self.calendar, &self.judges, &rulings)
    }
}

impl Handler for KnownHandler {
    type Input = Known;

    async fn handle(&self, delivery: Delivery<Known>) -> Result<Outcome, Failure> {
        let key = key(&delivery)?;
        let rulings = self.judges.known(&key).await.map_err(failure)?;
        outcome(&self.calendar, &self.judges, &rulings)
    }
}

fn outcome(calendar: &Calendar, judges: &Judges, rulings: &[Ruling]) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::none();
    for ruling in rulings {
        ruling.log();
        calendar.note(ruling, &judges.policies.borrow());
        if let Some(replaces) = ruling.replaces {
            outcome = outcome.put(&ruling.key, &ruling.judged, replaces)?;
        }
        if let Some(news) = &ruling.news {
            outcome = outcome.emit(&ruling.key.tenant, news)?;
        }
    }
    Ok(outcome)
}

fn key<T>(delivery: &Delivery<T>) -> Result<RecordKey, Failure> {
    let key = delivery.key.clone().context("the message is no record");
    key.map_err(Failure::Reject)
}

/// The one place that decides what comes again: everything but what will never be readable.
fn failure(error: anyhow::Error) -> Failure {
    match error.downcast_ref::<StoreError>() {
        Some(
            StoreError::Malformed { .. }
            | StoreError::Corrupt { .. }
            | StoreError::TooLarge { .. }
            | StoreError::Key(_)
            | StoreError::Encode(_),
        ) => Failure::Reject(error),
        Some(StoreError::Unavailable { .. } | StoreError::Dangling { .. }) | None => {
            Failure::Retry(error)
        }
    }
}

#[cfg(test)]
mod tests;
