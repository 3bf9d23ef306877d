//! Bounded threads: tokio's blocking threads behind two semaphores, one for what computes.
//!
//! Work stealing is not wanted here, for every piece of work is one function: an idle pool of rayon
//! spins before it sleeps, which cost a busy worker more than a tenth of its processor time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Span;

use super::{CxLimits, Lost};

pub(super) struct Pools {
    compute_permits: Arc<Semaphore>,
    blocking_permits: Arc<Semaphore>,
}

impl Pools {
    pub(super) fn new(limits: CxLimits) -> Self {
        Self {
            compute_permits: Arc::new(Semaphore::new(limits.compute_threads.max(1))),
            blocking_permits: Arc::new(Semaphore::new(limits.blocking_threads.max(1))),
        }
    }

    pub(super) async fn compute<T: Send + 'static>(
        &self,
        tokens: Vec<TaskTrackerToken>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Lost> {
        on_thread(&self.compute_permits, tokens, work).await
    }

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        tokens: Vec<TaskTrackerToken>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Lost> {
        on_thread(&self.blocking_permits, tokens, work).await
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the bounded form that all others use"
)]
async fn on_thread<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    tokens: Vec<TaskTrackerToken>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    let permit = acquire(permits).await?;
    let span = Span::current();
    let thread = tokio::task::spawn_blocking(move || {
        // Held until the work has ended, even if the caller has gone away.
        let _held = (permit, tokens);
        span.in_scope(work)
    });
    thread.await.map_err(|error| {
        if error.is_panic() {
            Lost::Panicked
        } else {
            Lost::Stopped
        }
    })
}

async fn acquire(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Lost> {
    Arc::clone(permits)
        .acquire_owned()
        .await
        .map_err(|_| Lost::Stopped)
}
