//! Which images a new revision touches.

use std::collections::BTreeSet;

use model::{AdvisoryManifest, Partition, RecordKey};
use vulndb::Lookup;

use crate::{Advisories, index::Index};

/// The images of a partition that may have another assessment at revision `to` than at `from`:
/// those that hold a package of which the advisories changed, and those that hold any package of
/// an ecosystem that is covered now and was not, or the other way round. Without `from`, because
/// it is too long ago, all that were not assessed at `to`.
pub(crate) fn touched(
    advisories: &Advisories,
    index: &Index,
    partition: Partition,
    from: Option<&AdvisoryManifest>,
    to: &AdvisoryManifest,
) -> anyhow::Result<BTreeSet<RecordKey>> {
    let Some(from) = from else {
        let mut images = index.all(partition)?;
        let mut stale = BTreeSet::new();
        while let Some(image) = images.pop_first() {
            if index
                .get(&image)?
                .is_none_or(|indexed| indexed.advisory < to.revision)
            {
                stale.insert(image);
            }
        }
        return Ok(stale);
    };
    let mut images = BTreeSet::new();
    for key in to.changed_since(from) {
        let (before, after) = (
            advisories.shard_of(from, key)?,
            advisories.shard_of(to, key)?,
        );
        for name in after.packages_changed_since(&before) {
            let lookup = Lookup {
                ecosystem: key.ecosystem.clone(),
                name,
            };
            images.extend(index.holding(partition, &lookup)?);
        }
    }
    for ecosystem in coverage(from).symmetric_difference(&coverage(to)) {
        images.extend(index.holding_any(partition, ecosystem)?);
    }
    Ok(images)
}

fn coverage(manifest: &AdvisoryManifest) -> BTreeSet<&str> {
    manifest
        .feeds
        .iter()
        .flat_map(|feed| &feed.coverage)
        .map(String::as_str)
        .collect()
}

#[cfg(test)]
mod tests;
