//! What runs, by the name that it was asked for: one name is read without the rest of the fleet.

use std::collections::BTreeMap;

use cache::{Batch, CacheError};
use model::{Digest, ImageRef, Slug, runtime::Container};

use super::{NodeKey, RUNNING, View, keys, nodes::digests, nodes::runs};

/// A container that runs under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runs {
    /// Its row: where the next read begins.
    pub(crate) key: Vec<u8>,
    pub(crate) node: Slug,
    pub(crate) id: String,
    /// The digests by which its node knows its image.
    pub(crate) digests: Vec<Digest>,
}

impl View {
    /// The first name after one under which something runs.
    pub(crate) fn running_name(
        &self,
        tenant: &Slug,
        after: Option<&str>,
    ) -> Result<Option<String>, CacheError> {
        let prefix = keys::tenant(tenant);
        let from = after.map(|name| keys::after_running(tenant, name));
        let pairs = self
            .database
            .scan_prefix(RUNNING, &prefix, from.as_deref(), 1)?;
        let name = pairs.first().and_then(|(key, _)| {
            let name = key.strip_prefix(prefix.as_slice())?;
            let name = name.split(|byte| *byte == 0).next()?;
            std::str::from_utf8(name).ok().map(ToOwned::to_owned)
        });
        Ok(name)
    }

    /// What runs under a name, by node and id, after a row.
    pub(crate) fn running(
        &self,
        tenant: &Slug,
        name: &str,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Runs>, CacheError> {
        let prefix = keys::running_of(tenant, name);
        let from = after.map(keys::after);
        let pairs = self
            .database
            .scan_prefix(RUNNING, &prefix, from.as_deref(), limit)?;
        let parsed = pairs.into_iter().filter_map(|(key, value)| {
            let (node, id) = keys::holder_of(&key, &prefix)?;
            let id = id.to_owned();
            let runs = cache::decode(&value).map(|digests| Runs {
                key,
                node,
                id,
                digests,
            });
            Some(runs)
        });
        parsed.collect()
    }
}

/// Writes what of a node's containers changed.
pub(super) fn index(
    batch: &mut Batch<'_>,
    key: &NodeKey,
    old: &BTreeMap<&str, &Container>,
    new: &BTreeMap<&str, &Container>,
) -> Result<(), CacheError> {
    let (old, new) = (rows(key, old), rows(key, new));
    for gone in old.keys().filter(|row| !new.contains_key(*row)) {
        batch.delete(RUNNING, gone)?;
    }
    for (row, digests) in &new {
        if old.get(row) != Some(digests) {
            batch.put_as(RUNNING, row, digests)?;
        }
    }
    Ok(())
}

/// A container that was asked for by a digest has no name that could lead to something else.
fn rows(key: &NodeKey, containers: &BTreeMap<&str, &Container>) -> BTreeMap<Vec<u8>, Vec<Digest>> {
    let running = containers.iter().filter(|(_, container)| runs(container));
    let named = running.filter(|(_, container)| {
        let name = container.image.parse::<ImageRef>();
        name.is_ok_and(|name| name.digest.is_none())
    });
    let rows = named.map(|(id, container)| {
        let row = keys::running(&key.tenant, &container.image, &key.node, id);
        (row, digests(container).collect())
    });
    rows.collect()
}
