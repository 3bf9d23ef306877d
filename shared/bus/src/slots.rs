//! Slots that several consumers share, some of them reserved for what is more urgent.
//!
//! Three limits stand inside each other: `low` passes all three, `norm` two, `high` one. So work
//! of one class can never take what is reserved for the classes above it, and `high` may use all.

use std::sync::Arc;

use model::event::Priority;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A pool of slots, one for each message that is handled at a time; cheap to clone.
#[derive(Clone, Debug)]
pub struct Slots(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    /// From the narrowest limit to the widest: what low, norm and high may take.
    limits: [Arc<Semaphore>; 3],
    sizes: [usize; 3],
}

/// A slot that is taken; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Slot {
    /// One permit of each limit that was passed.
    _permits: Vec<OwnedSemaphorePermit>,
}

// === impl Slots ===

impl Slots {
    /// A pool of `total` slots, at least one. `high` of them are reserved for jobs of high
    /// priority, `norm` for jobs of norm and high priority; every class can use one at least, so
    /// a small pool reserves less.
    pub fn new(total: usize, high: usize, norm: usize) -> Self {
        let total = total.clamp(1, Semaphore::MAX_PERMITS);
        let for_norm = total.saturating_sub(high).max(1);
        let for_low = for_norm.saturating_sub(norm).max(1);
        let sizes = [for_low, for_norm, total];
        Self(Arc::new(Pool {
            limits: sizes.map(|size| Arc::new(Semaphore::new(size))),
            sizes,
        }))
    }

    /// How many slots a class may take.
    pub fn limit(&self, class: Priority) -> usize {
        let [low, norm, high] = self.0.sizes;
        match class {
            Priority::High => high,
            Priority::Norm => norm,
            Priority::Low => low,
        }
    }

    /// Waits for a slot. `None`: never, for the pool is closed.
    pub(crate) async fn take(&self, class: Priority) -> Option<Slot> {
        let passed = match class {
            Priority::High => 2,
            Priority::Norm => 1,
            Priority::Low => 0,
        };
        let mut permits = Vec::new();
        // The narrow ones first: who waits for a wide one keeps nobody above it from passing.
        for limit in self.0.limits.iter().skip(passed) {
            permits.push(Arc::clone(limit).acquire_owned().await.ok()?);
        }
        Some(Slot { _permits: permits })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// How many slots a class gets at once.
    fn taken(slots: &Slots, class: Priority) -> Vec<Slot> {
        std::iter::from_fn(|| slots.take(class).now_or_never().flatten()).collect()
    }

    #[test]
    fn no_class_takes_what_is_reserved_for_those_above_it() {
        let slots = Slots::new(8, 1, 2);
        let low = taken(&slots, Priority::Low);
        assert_eq!((low.len(), slots.limit(Priority::Low)), (5, 5));
        let norm = taken(&slots, Priority::Norm);
        assert_eq!((norm.len(), slots.limit(Priority::Norm)), (2, 7));
        let high = taken(&slots, Priority::High);
        assert_eq!((high.len(), slots.limit(Priority::High)), (1, 8));
        drop(norm);
        assert_eq!(taken(&slots, Priority::Low).len(), 0);
        assert_eq!(taken(&slots, Priority::Norm).len(), 2);
    }

    #[test]
    fn high_may_use_all_and_a_small_pool_serves_every_class() {
        assert_eq!(taken(&Slots::new(8, 1, 2), Priority::High).len(), 8);
        for class in Priority::ALL {
            assert_eq!(taken(&Slots::new(0, 1, 2), class).len(), 1, "{class}");
            assert!(!taken(&Slots::new(2, 1, 1), class).is_empty(), "{class}");
        }
    }
}
