//! Package lists of scans. Two parts of a process need the list of a scan that just came, the
//! handler and the index, so the last few are kept: each is fetched and decoded once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bus::{Store, StoreError};
use model::{Digest, ScannedPackages, event::REPORT_OBJECTS};
use tokio::sync::OnceCell;

/// How many lists are kept.
const LISTS_MAX: usize = 64;
/// How many packages they may have together; a list that is larger is kept alone.
const PACKAGES_MAX: usize = 100_000;

/// Fetches package lists and keeps the last few; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Packages {
    store: Store,
    recent: Arc<Mutex<VecDeque<Recent>>>,
}

#[derive(Clone, Debug)]
struct Recent {
    object: Digest,
    /// Empty while it is fetched: who asks meanwhile waits for that.
    list: Arc<OnceCell<Arc<ScannedPackages>>>,
}

/// Why there is no list.
#[derive(Debug)]
enum Absent {
    Gone,
    Failed(StoreError),
}

// === impl Packages ===

impl Packages {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            recent: Arc::default(),
        }
    }

    /// A list by its object. `None`: the object is not there.
    pub(crate) async fn get(
        &self,
        object: &Digest,
    ) -> Result<Option<Arc<ScannedPackages>>, StoreError> {
        let list = self.entry(object);
        let fetch = async || match self.store.object(REPORT_OBJECTS, object).await {
            Ok(Some(list)) => Ok(Arc::new(list)),
            Ok(None) => Err(Absent::Gone),
            Err(error) => Err(Absent::Failed(error)),
        };
        match list.get_or_try_init(fetch).await {
            Ok(list) => Ok(Some(Arc::clone(list))),
            Err(Absent::Gone) => Ok(None),
            Err(Absent::Failed(error)) => Err(error),
        }
    }

    fn entry(&self, object: &Digest) -> Arc<OnceCell<Arc<ScannedPackages>>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = recent.iter().find(|known| known.object == *object) {
            return Arc::clone(&known.list);
        }
        let size = |one: &Recent| one.list.get().map_or(0, |list| list.packages.len());
        let mut packages: usize = recent.iter().map(size).sum();
        while recent.len() >= LISTS_MAX || packages > PACKAGES_MAX {
            let Some(oldest) = recent.pop_front() else {
                break;
            };
            packages = packages.saturating_sub(size(&oldest));
        }
        let list = Arc::default();
        recent.push_back(Recent {
            object: *object,
            list: Arc::clone(&list),
        });
        list
    }
}
