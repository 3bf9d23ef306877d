//! The context of everything that runs: clock, shutdown, tracked tasks, bounded thread pools.

mod pools;
#[cfg(test)]
mod tests;

use std::{any::Any, fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use jiff::Timestamp;
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use self::pools::Pools;
use crate::{Clock, Notes, SystemClock};

/// The context that functions take as their first argument; cheap to clone.
///
/// What is started through it is waited for by [`Cx::finish`], so a process that stops never cuts
/// off its own work silently.
#[derive(Clone)]
pub struct Cx(Arc<Inner>);

/// How many threads a process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CxLimits {
    /// Threads that compute; more than cores is no gain.
    pub compute_threads: usize,
    /// Threads that wait for disks and blocking readers.
    pub blocking_threads: usize,
}

/// The work ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It panicked: a bug of ours, which the same input meets again.
    #[error("the work panicked")]
    Panicked,
    /// The process is going down.
    #[error("the work was dropped at shutdown")]
    Stopped,
}

struct Inner {
    clock: Arc<dyn Clock>,
    pools: Arc<Pools>,
    notes: Notes,
    /// Stops the whole process's context; a panic in any task pulls it.
    root: CancellationToken,
    stop: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
    parent: Option<Cx>,
}

// === impl Cx ===

impl Cx {
    /// A context for a process.
    pub fn new(clock: Arc<dyn Clock>, limits: CxLimits) -> Self {
        let root = CancellationToken::new();
        Self(Arc::new(Inner {
            clock,
            pools: Arc::new(Pools::new(limits)),
            notes: Notes::default(),
            stop: root.clone(),
            abort: CancellationToken::new(),
            root,
            tasks: TaskTracker::new(),
            parent: None,
        }))
    }

    /// The context of a program: the system's clock, and pools for this machine.
    pub fn system() -> Self {
        Self::new(Arc::new(SystemClock), CxLimits::default())
    }

    /// A context with the system's clock and small pools.
    pub fn for_tests() -> Self {
        let limits = CxLimits {
            compute_threads: 2,
            blocking_threads: 8,
        };
        Self::new(Arc::new(SystemClock), limits)
    }

    /// A context for a part of the process, as for one partition: it stops when this one stops,
    /// and stopping it does not stop this one. Its tasks count as tasks of both.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(Arc::new(Inner {
            clock: Arc::clone(&self.0.clock),
            pools: Arc::clone(&self.0.pools),
            notes: self.0.notes.clone(),
            root: self.0.root.clone(),
            stop: self.0.stop.child_token(),
            abort: self.0.abort.child_token(),
            tasks: TaskTracker::new(),
            parent: Some(self.clone()),
        }))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// The clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.0.clock)
    }

    /// What a person should know of this process.
    pub fn notes(&self) -> &Notes {
        &self.0.notes
    }

    /// Starts a task that [`Cx::finish`] waits for. A panic in it is logged and stops the process's
    /// context: a process that lost one of its tasks must not look healthy.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the tracked spawn that all others use"
    )]
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let tokens = self.tokens();
        let root = self.0.root.clone();
        tokio::spawn(async move {
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                let why = panic_text(&*panic);
                tracing::error!(
                    task = name,
                    panic = why,
                    "task `{name}` panicked, stopping: {why}"
                );
                root.cancel();
            }
            drop(tokens);
        });
    }

    /// Runs `work` on the threads for computing; waits without a thread while all are busy.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Lost> {
        self.0.pools.compute(self.tokens(), work).await
    }

    /// Runs `work`, which waits for a disk or a blocking reader, on a thread of its own; waits
    /// without a thread while all are busy.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Lost> {
        self.0.pools.blocking(self.tokens(), work).await
    }

    /// Asks everything to come to an end.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Asks everything to come to an end at once: what is at hand must not be finished, since it
    /// may be somebody else's by now.
    pub fn abort(&self) {
        self.0.abort.cancel();
        self.stop();
    }

    /// Waits until [`Cx::abort`].
    pub async fn aborted(&self) {
        self.0.abort.cancelled().await;
    }

    /// Whether everything shall come to an end.
    pub fn is_stopping(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Waits until [`Cx::stop`].
    pub async fn stopped(&self) {
        self.0.stop.cancelled().await;
    }

    /// Waits until all tasks and all work have ended, but not longer than `deadline`. It does not
    /// stop them; true if all ended.
    pub async fn finish(&self, deadline: Duration) -> bool {
        self.0.tasks.close();
        tokio::time::timeout(deadline, self.0.tasks.wait())
            .await
            .is_ok()
    }

    /// Sleeps. False when stopping came first.
    pub async fn sleep(&self, duration: Duration) -> bool {
        tokio::time::timeout(duration, self.stopped())
            .await
            .is_err()
    }

    /// One token for this context and one for each above it.
    fn tokens(&self) -> Vec<TaskTrackerToken> {
        std::iter::successors(Some(self), |cx| cx.0.parent.as_ref())
            .map(|cx| cx.0.tasks.token())
            .collect()
    }
}

impl fmt::Debug for Cx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx")
            .field("stopping", &self.is_stopping())
            .field("tasks", &self.0.tasks.len())
            .finish_non_exhaustive()
    }
}

impl Default for CxLimits {
    /// One computing thread per core, 64 that wait.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            compute_threads: cores,
            blocking_threads: 64,
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
