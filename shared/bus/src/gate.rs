//! Being alone: handlers run beside each other, except one that is suspected of killing its
//! process, which runs when no other runs in this process.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The gate that every handler of a process passes.
#[derive(Debug, Default)]
pub(crate) struct Gate(RwLock<()>);

/// A handler that runs; dropping it lets others run.
#[derive(Debug)]
pub(crate) enum Passed<'a> {
    Beside { _guard: RwLockReadGuard<'a, ()> },
    Alone { _guard: RwLockWriteGuard<'a, ()> },
}

// === impl Gate ===

impl Gate {
    /// Waits until the handler may run. First come, first served: who must be alone waits for
    /// those that run, and those that come later wait for it.
    pub(crate) async fn pass(&self, alone: bool) -> Passed<'_> {
        if alone {
            Passed::Alone {
                _guard: self.0.write().await,
            }
        } else {
            Passed::Beside {
                _guard: self.0.read().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn who_must_be_alone_waits_for_all_and_all_wait_for_it() {
        let gate = Gate::default();
        let passes = |alone| gate.pass(alone).now_or_never();
        let (first, second) = (passes(false), passes(false));
        assert!(first.is_some() && second.is_some());
        assert!(passes(true).is_none());
        drop((first, second));
        let alone = passes(true);
        assert!(alone.is_some() && passes(false).is_none() && passes(true).is_none());
        drop(alone);
        assert!(passes(false).is_some());
    }
}
