//! What a shared cache writes at its end.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::Ledger;
use crate::{CacheError, Database};

/// What may wait in memory; what is beyond is not kept.
const BYTES_MAX: usize = 256 << 20;

#[derive(Default)]
pub(super) struct Pending {
    /// Sealed sections by their keys.
    sections: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
    /// Sections that were found damaged.
    damaged: BTreeSet<Vec<u8>>,
}

impl Pending {
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.sections.get(key).map(Vec::as_slice)
    }

    pub(super) fn put(&mut self, sections: BTreeMap<Vec<u8>, Vec<u8>>) {
        for (key, value) in sections {
            let bytes = self.bytes + key.len() + value.len();
            if bytes <= BYTES_MAX {
                self.bytes = bytes;
                self.sections.insert(key, value);
            }
        }
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.damaged.insert(key);
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sections.is_empty() && self.damaged.is_empty()
    }

    /// Writes everything; says how many sections it wrote, and how many went for them.
    pub(super) fn write(
        self,
        database: &Database,
        ledger: &mut Ledger,
    ) -> Result<(usize, u64), CacheError> {
        for key in &self.damaged {
            // What is unharmed, but not of the shape that was asked for, goes as well.
            ledger.delete(database, key)?;
        }
        let mut missing = self.sections;
        // Another process may have read the same layer at the same time.
        let is_kept = |key: &[u8]| {
            let value = super::stored(database, key).ok().flatten();
            value.is_some_and(|value| value.opened(key).is_ok())
        };
        missing.retain(|key, _| !is_kept(key));
        let evicted = ledger.put(database, &missing)?;
        Ok((missing.len(), evicted))
    }
}
