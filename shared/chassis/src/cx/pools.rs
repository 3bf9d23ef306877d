//! Bounded threads: a rayon pool for computing, tokio's blocking threads behind a semaphore.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Span;

use super::{CxLimits, Lost};

pub(super) struct Pools {
    compute_threads: usize,
    /// Started at the first use, so that a process that never computes has no threads for it.
    compute: OnceLock<Option<ThreadPool>>,
    compute_permits: Arc<Semaphore>,
    blocking_permits: Arc<Semaphore>,
}

impl Pools {
    pub(super) fn new(limits: CxLimits) -> Self {
        let threads = limits.compute_threads.max(1);
        Self {
            compute_threads: threads,
            compute: OnceLock::new(),
            compute_permits: Arc::new(Semaphore::new(threads)),
            blocking_permits: Arc::new(Semaphore::new(limits.blocking_threads.max(1))),
        }
    }

    pub(super) async fn compute<T: Send + 'static>(
        &self,
        tokens: Vec<TaskTrackerToken>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Lost> {
        let permit = acquire(&self.compute_permits).await?;
        let pool = self
            .compute
            .get_or_init(|| start(self.compute_threads))
            .as_ref()
            .ok_or(Lost::Stopped)?;
        let span = Span::current();
        let (sender, receiver) = oneshot::channel();
        pool.spawn(move || {
            let result = span.in_scope(|| catch_unwind(AssertUnwindSafe(work)));
            drop((permit, tokens));
            // The caller may have gone away; then nobody wants the result.
            drop(sender.send(result));
        });
        let result = receiver.await.map_err(|_| Lost::Stopped)?;
        result.map_err(|_| Lost::Panicked)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the bounded form that all others use"
    )]
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        tokens: Vec<TaskTrackerToken>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Lost> {
        let permit = acquire(&self.blocking_permits).await?;
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
}

async fn acquire(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Lost> {
    Arc::clone(permits)
        .acquire_owned()
        .await
        .map_err(|_| Lost::Stopped)
}

fn start(threads: usize) -> Option<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("compute-{index}"))
        .build()
        .inspect_err(|error| tracing::error!(%error, "no threads for computing: {error}"))
        .ok()
}
