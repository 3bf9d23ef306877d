//! Which section came when and how many bytes there are: what eviction needs, in two small keys
//! per section, written in one batch with it, so that it is right after a crash as well.

use std::{collections::BTreeMap, num::TryFromIntError};

use super::{FAMILY, ORDER};
use crate::{Batch, CacheError, Database};

/// A row of the order: [`ORDER`], place (8 bytes) -> size (8 bytes), section's key.
/// A row of a section: its key -> place (8 bytes), sealed section.
const NUMBER_BYTES: usize = 8;
/// Where the sum stands: before all places.
const SUM_KEY: &[u8] = &[ORDER];
/// How many sections go at once.
const EVICTION_BATCH: usize = 64;

/// Bookkeeping of an owned cache.
#[derive(Debug)]
pub(super) struct Ledger {
    bytes: u64,
    bytes_max: u64,
    /// The place that the next section gets.
    next: u64,
    /// No section stands before this place.
    oldest: u64,
}

impl Ledger {
    pub(super) fn read(database: &Database, bytes_max: u64) -> Result<Self, CacheError> {
        let sum = database.get(FAMILY, SUM_KEY)?.unwrap_or_default();
        let (bytes, rest) = number(&sum).unwrap_or((0, &[]));
        let next = number(rest).map_or(1, |(next, _)| next);
        let rows = database.scan_prefix(FAMILY, SUM_KEY, Some(&order_key(1)), 1)?;
        let oldest = rows.first().and_then(|(key, _)| place(key)).unwrap_or(next);
        Ok(Self {
            bytes,
            bytes_max,
            next,
            oldest,
        })
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Stores sealed sections by their keys in one write, and makes room if there is none. Says how
    /// many sections went.
    pub(super) fn put(
        &mut self,
        database: &Database,
        sections: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<u64, CacheError> {
        let (mut place, mut bytes) = (self.next, self.bytes);
        database.batch(|batch| {
            for (key, value) in sections {
                let size = size(key, value.len() + NUMBER_BYTES)?;
                if size > self.bytes_max / 4 {
                    // One section must not drive out most others.
                    tracing::debug!(
                        bytes = size,
                        "a section of {size} bytes is too large for this cache"
                    );
                    continue;
                }
                let before = match database.get(FAMILY, key) {
                    // What RocksDB cannot read is replaced; its place goes when eviction comes to it.
                    Err(CacheError::Damaged(_)) => None,
                    before => before?,
                };
                if let Some(row) = &before {
                    bytes = bytes.saturating_sub(forget(batch, key, row)?);
                }
                bytes = bytes.saturating_add(size);
                batch.put(FAMILY, key, &[&place.to_be_bytes()[..], value].concat())?;
                let row = [&size.to_be_bytes()[..], key].concat();
                batch.put(FAMILY, &order_key(place), &row)?;
                place += 1;
            }
            sum(batch, bytes, place)
        })?;
        (self.bytes, self.next) = (bytes, place);
        self.make_room(database)
    }

    /// Deletes a section.
    pub(super) fn delete(&mut self, database: &Database, key: &[u8]) -> Result<(), CacheError> {
        let row = match database.get(FAMILY, key) {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(()),
            // RocksDB cannot read it: its size stays in the sum until eviction comes to its place.
            Err(CacheError::Damaged(_)) => return database.delete(FAMILY, key),
            Err(error) => return Err(error),
        };
        let mut bytes = self.bytes;
        database.batch(|batch| {
            bytes = bytes.saturating_sub(forget(batch, key, &row)?);
            batch.delete(FAMILY, key)?;
            sum(batch, bytes, self.next)
        })?;
        self.bytes = bytes;
        Ok(())
    }

    /// Evicts the oldest until a sixteenth of the room is free again.
    fn make_room(&mut self, database: &Database) -> Result<u64, CacheError> {
        let mut evicted = 0;
        if self.bytes <= self.bytes_max {
            return Ok(evicted);
        }
        let goal = self.bytes_max - self.bytes_max / 16;
        while self.bytes > goal {
            let from = order_key(self.oldest);
            let rows = database.scan_prefix(FAMILY, SUM_KEY, Some(&from), EVICTION_BATCH)?;
            if rows.is_empty() {
                break;
            }
            let (mut bytes, mut oldest, mut gone) = (self.bytes, self.oldest, 0);
            database.batch(|batch| {
                for (at, row) in rows {
                    if bytes <= goal {
                        break;
                    }
                    if let Some((size, key)) = number(&row) {
                        batch.delete(FAMILY, key)?;
                        bytes = bytes.saturating_sub(size);
                    }
                    batch.delete(FAMILY, &at)?;
                    oldest = place(&at).map_or(oldest, |place| place + 1);
                    gone += 1;
                }
                sum(batch, bytes, self.next)
            })?;
            (self.bytes, self.oldest) = (bytes, oldest);
            evicted += gone;
        }
        Ok(evicted)
    }
}

/// The place and the sealed section of a section's row.
pub(super) fn split(row: &[u8]) -> Result<(u64, &[u8]), CacheError> {
    number(row).ok_or_else(|| CacheError::Damaged("a row is too short".to_owned()))
}

/// Deletes the place of a section that is replaced or deleted, and says how large it was.
fn forget(batch: &mut Batch<'_>, key: &[u8], row: &[u8]) -> Result<u64, CacheError> {
    let Ok((place, _)) = split(row) else {
        return Ok(0);
    };
    batch.delete(FAMILY, &order_key(place))?;
    size(key, row.len())
}

fn sum(batch: &mut Batch<'_>, bytes: u64, next: u64) -> Result<(), CacheError> {
    let row = [bytes.to_be_bytes(), next.to_be_bytes()].concat();
    batch.put(FAMILY, SUM_KEY, &row)
}

/// What a section takes, with its key in both rows.
fn size(key: &[u8], row_bytes: usize) -> Result<u64, CacheError> {
    let bytes = row_bytes + 2 * key.len() + 2 * NUMBER_BYTES;
    bytes
        .try_into()
        .map_err(|error: TryFromIntError| CacheError::Encode(error.to_string()))
}

fn order_key(place: u64) -> [u8; 1 + NUMBER_BYTES] {
    let mut key = [ORDER; 1 + NUMBER_BYTES];
    key[1..].copy_from_slice(&place.to_be_bytes());
    key
}

/// The place in a key of the order.
fn place(key: &[u8]) -> Option<u64> {
    number(key.get(1..)?).map(|(place, _)| place)
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<NUMBER_BYTES>()?;
    Some((u64::from_be_bytes(*number), rest))
}
