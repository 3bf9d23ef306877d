//! Which section came when and how many bytes there are: what eviction needs, in two small keys
//! per section, written in one batch with it, so that it is right after a crash as well.

use std::{collections::BTreeMap, num::TryFromIntError};

use super::{ORDER, SECTIONS};
use crate::{Batch, CacheError, Database};

/// A row of `order`: place (8 bytes) -> size (8 bytes), section's key.
/// A row of `sections`: key -> place (8 bytes), sealed section.
const NUMBER_BYTES: usize = 8;
/// Where the sum stands: before all places.
const SUM_KEY: &[u8] = b"";
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
        let sum = database.get(ORDER, SUM_KEY)?.unwrap_or_default();
        let (bytes, rest) = number(&sum).unwrap_or((0, &[]));
        let next = number(rest).map_or(1, |(next, _)| next);
        let rows = database.scan_prefix(ORDER, b"", Some(&1_u64.to_be_bytes()), 1)?;
        let oldest = rows
            .first()
            .and_then(|(place, _)| number(place))
            .map_or(next, |(at, _)| at);
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
                let before = match database.get(SECTIONS, key) {
                    // What RocksDB cannot read is replaced; its place goes when eviction comes to it.
                    Err(CacheError::Damaged(_)) => None,
                    before => before?,
                };
                if let Some(row) = &before {
                    bytes = bytes.saturating_sub(forget(batch, key, row)?);
                }
                bytes = bytes.saturating_add(size);
                batch.put(SECTIONS, key, &[&place.to_be_bytes()[..], value].concat())?;
                batch.put(
                    ORDER,
                    &place.to_be_bytes(),
                    &[&size.to_be_bytes()[..], key].concat(),
                )?;
                place += 1;
            }
            sum(batch, bytes, place)
        })?;
        (self.bytes, self.next) = (bytes, place);
        self.make_room(database)
    }

    /// Deletes a section.
    pub(super) fn delete(&mut self, database: &Database, key: &[u8]) -> Result<(), CacheError> {
        let row = match database.get(SECTIONS, key) {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(()),
            // RocksDB cannot read it: its size stays in the sum until eviction comes to its place.
            Err(CacheError::Damaged(_)) => return database.delete(SECTIONS, key),
            Err(error) => return Err(error),
        };
        let mut bytes = self.bytes;
        database.batch(|batch| {
            bytes = bytes.saturating_sub(forget(batch, key, &row)?);
            batch.delete(SECTIONS, key)?;
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
            let from = self.oldest.to_be_bytes();
            let rows = database.scan_prefix(ORDER, b"", Some(&from), EVICTION_BATCH)?;
            if rows.is_empty() {
                break;
            }
            let (mut bytes, mut oldest, mut gone) = (self.bytes, self.oldest, 0);
            database.batch(|batch| {
                for (place, row) in rows {
                    if bytes <= goal {
                        break;
                    }
                    let (size, key) = number(&row).unwrap_or((0, &[]));
                    batch.delete(SECTIONS, key)?;
                    batch.delete(ORDER, &place)?;
                    bytes = bytes.saturating_sub(size);
                    oldest = number(&place).map_or(oldest, |(place, _)| place + 1);
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

/// The place and the sealed section of a row of `sections`.
pub(super) fn split(row: &[u8]) -> Result<(u64, &[u8]), CacheError> {
    number(row).ok_or_else(|| CacheError::Damaged("a row is too short".to_owned()))
}

/// Deletes the place of a section that is replaced or deleted, and says how large it was.
fn forget(batch: &mut Batch<'_>, key: &[u8], row: &[u8]) -> Result<u64, CacheError> {
    let Ok((place, _)) = split(row) else {
        return Ok(0);
    };
    batch.delete(ORDER, &place.to_be_bytes())?;
    size(key, row.len())
}

fn sum(batch: &mut Batch<'_>, bytes: u64, next: u64) -> Result<(), CacheError> {
    batch.put(
        ORDER,
        SUM_KEY,
        &[bytes.to_be_bytes(), next.to_be_bytes()].concat(),
    )
}

/// What a section takes, with its key in both families.
fn size(key: &[u8], row_bytes: usize) -> Result<u64, CacheError> {
    let bytes = row_bytes + 2 * key.len() + 2 * NUMBER_BYTES;
    bytes
        .try_into()
        .map_err(|error: TryFromIntError| CacheError::Encode(error.to_string()))
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<NUMBER_BYTES>()?;
    Some((u64::from_be_bytes(*number), rest))
}
