//! When images were checked last: what the crawler noted of the repositories that lead to them.

use std::collections::{BTreeMap, BTreeSet};

use bus::{Store, StoreError};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use model::{CheckRecord, Known, Slug, event::REFS};

/// How many records are read at once.
const PARALLEL: usize = 16;

/// A repository of a source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Looked {
    source: Slug,
    repository: String,
}

/// When repositories were looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Checks(BTreeMap<Looked, Timestamp>);

/// The repositories whose tags lead to an image now. A source lists tags, so an image that is named
/// by its digest alone is never checked.
pub(super) fn of_image(known: &Known) -> BTreeSet<Looked> {
    let live = known.references.iter();
    let live = live.filter(|seen| seen.gone_at.is_none() && seen.tag.is_some());
    live.map(|seen| Looked {
        source: seen.source.clone(),
        repository: seen.repository.clone(),
    })
    .collect()
}

// === impl Checks ===

impl Checks {
    /// Reads what is known of repositories; each is asked for once.
    pub(super) async fn read(
        store: &Store,
        tenant: &Slug,
        wanted: BTreeSet<Looked>,
    ) -> Result<Self, StoreError> {
        let found = stream::iter(wanted)
            .map(async |looked| {
                let key = CheckRecord::key(tenant, &looked.source, &looked.repository);
                let found = store.get::<CheckRecord>(REFS, &key).await?;
                Ok::<_, StoreError>(found.map(|found| (looked, found.body.checked_at)))
            })
            .buffered(PARALLEL)
            .try_filter_map(async |found| Ok(found));
        Ok(Self(found.try_collect().await?))
    }

    /// The newest look at any of them.
    pub(super) fn newest(&self, looked: &BTreeSet<Looked>) -> Option<Timestamp> {
        looked
            .iter()
            .filter_map(|one| self.0.get(one))
            .max()
            .copied()
    }
}
