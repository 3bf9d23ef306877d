//! Which streams took nothing lately, because they are full: for health, metrics and people.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{Bus, metrics::metrics, subject};

/// So long after the last refusal a stream counts as full.
const LATELY: Duration = Duration::from_secs(10);

/// When a publish was refused last, by the template of its subject: few values.
#[derive(Debug, Default)]
pub(crate) struct Fullness(Mutex<BTreeMap<String, Instant>>);

impl Bus {
    /// Where this process wants to publish and cannot, because the stream is full: templates of
    /// subjects, as `tw.job.image.norm.{tenant}`. Empty is healthy.
    pub fn full(&self) -> Vec<String> {
        self.0.fullness.lately()
    }
}

// === impl Fullness ===

impl Fullness {
    /// A publish was refused.
    pub(crate) fn note(&self, subject: &str) {
        let template = subject::template(subject);
        metrics().refused(&template);
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = refused.insert(template.clone(), Instant::now());
        drop(refused);
        if before.is_none_or(|before| before.elapsed() > LATELY) {
            tracing::warn!("the stream of `{template}` is full; what is for it waits");
        }
    }

    fn lately(&self) -> Vec<String> {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = refused.iter().filter(|(_, at)| at.elapsed() <= LATELY);
        lately.map(|(template, _)| template.clone()).collect()
    }
}
