//! Deletes objects of `tw_reports` that no record names.
//!
//! Most objects belong to one image and go with the record that named them ([`crate::janitor`]).
//! The files of a layer are named by every image that has the layer, so no scan may delete them, and
//! what waits in a janitor's queue when its process ends is forgotten there. Both are found by
//! comparing: the one process of a fleet that holds the lease reads all records and notes what they
//! name, then reads the names of all objects.
//!
//! An object goes where it was stored long before that reading began and is not noted. Records
//! that are written meanwhile are not missed: who names an object has stored it of late, or found it
//! stored of late ([`Store::reuse_for`]), and so it is too young. What cannot be read, or is of a kind
//! that this version does not know, ends the pass before anything is deleted.
//!
//! What is named is noted in a bounded number of bits. Where two names share theirs, an object
//! stays until a later pass, which uses other bits.

use chassis::Cx;
use futures::FutureExt as _;
use model::{Assessed, Digest, Judged, Known, Partition, Record, Scanned, event};

use crate::{
    Bus,
    consume::Arrived,
    daily,
    envelope::CE_TYPE,
    error::StoreError,
    janitor, random,
    reader::{Reader, state},
    store::{Store, is_marker},
    subject, topology,
    wire::{Raw, Wire},
};

/// The kinds of records of which it is known here what they name.
const KINDS: [&str; 4] = [Known::TYPE, Scanned::TYPE, Assessed::TYPE, Judged::TYPE];
/// Bits of [`Named`], as a power of two: 16 MiB, enough for some ten million names.
const BITS_LOG2: u32 = 27;
/// Odd numbers that spread a name over the bits.
const SPREAD: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f];

/// Digests that are named, with a few more.
pub(crate) struct Named {
    bits: Vec<u64>,
    salt: u64,
}

impl Bus {
    /// Collects from time to time, where no other process does, until `cx` stops.
    pub fn collect(&self, cx: &Cx) {
        daily::run(self, cx, "collector", |bus| {
            let pass = async move {
                let gone = bus.collect_once().await?;
                tracing::info!("collected {gone} objects that no record names");
                let gone = bus.sweep_markers().await?;
                tracing::info!("swept {gone} markers of deleted keys away");
                Ok(())
            };
            pass.boxed()
        });
    }

    /// One pass; gives how many objects went.
    async fn collect_once(&self) -> Result<u64, StoreError> {
        let bucket = event::REPORT_OBJECTS;
        let store = &self.0.store;
        let before = store.stored_before(self.0.config.discard_after())?;
        let wire = self.0.following().await;
        let wire = wire.map_err(|error| StoreError::unavailable("following", &error))?;
        let mut named = Named::new(random::number());
        for partition in Partition::all() {
            note(&wire, store, &event::images_bucket(partition), &mut named).await?;
        }
        let stream = topology::object_stream(bucket);
        let failed = |error| StoreError::unavailable(&stream, &error);
        let last = state(&wire, &stream).await.map_err(failed)?.last;
        let mut reader = Reader::new(wire, stream.clone(), 1).headers_only().once();
        let mut gone = 0;
        while let Some(arrived) = reader.next_until(last).await.map_err(failed)? {
            // Sequences grow with time.
            if arrived.place.stored_at > before {
                break;
            }
            let Some(digest) = topology::object_of_first_chunk(bucket, &arrived.subject) else {
                continue;
            };
            if !named.has(&digest) && store.delete_stored_before(bucket, &digest, before).await? {
                gone += 1;
            }
        }
        reader.close().await;
        Ok(gone)
    }
}

/// Notes what the records of a bucket name.
async fn note(
    wire: &Wire,
    store: &Store,
    bucket: &str,
    named: &mut Named,
) -> Result<(), StoreError> {
    let stream = topology::bucket_stream(bucket);
    let failed = |error| StoreError::unavailable(bucket, &error);
    let last = state(wire, &stream).await.map_err(failed)?.last;
    let mut reader = Reader::new(wire.clone(), stream, 1).once();
    while let Some(arrived) = reader.next_until(last).await.map_err(failed)? {
        if is_marker(&arrived.headers) {
            continue;
        }
        let Some((_, key)) = subject::key_of(&arrived.subject) else {
            continue;
        };
        let key = key.to_owned();
        let kind = arrived.headers.attribute(CE_TYPE).unwrap_or_default();
        if !KINDS.contains(&&*kind) {
            return Err(StoreError::Malformed {
                what: format!("{bucket}/{key}"),
                cause: format!("a record of the kind `{kind}` is not known here"),
            });
        }
        for digest in janitor::names(store, bucket, &key, raw(*arrived)).await? {
            named.note(&digest);
        }
    }
    reader.close().await;
    Ok(())
}

fn raw(arrived: Arrived) -> Raw {
    Raw {
        sequence: arrived.place.stream_sequence,
        headers: arrived.headers,
        body: arrived.body,
    }
}

// === impl Named ===

impl Named {
    pub(crate) fn new(salt: u64) -> Self {
        let words = 1_usize << (BITS_LOG2 - u64::BITS.ilog2());
        Self {
            bits: vec![0; words],
            salt,
        }
    }

    pub(crate) fn note(&mut self, digest: &Digest) {
        for place in self.places(digest) {
            let (word, bit) = split(place);
            self.bits[word] |= bit;
        }
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        let places = self.places(digest).map(split);
        places.iter().all(|(word, bit)| self.bits[*word] & bit != 0)
    }

    /// The bits of a digest; its own are as good as random.
    fn places(&self, digest: &Digest) -> [u64; 2] {
        let (words, _) = digest.as_bytes().as_chunks();
        let mut places = [0; 2];
        for ((place, word), spread) in places.iter_mut().zip(words).zip(SPREAD) {
            let salted = u64::from_le_bytes(*word) ^ self.salt;
            *place = salted.wrapping_mul(spread) >> (u64::BITS - BITS_LOG2);
        }
        places
    }
}

/// Word and bit of a place, which is less than the number of bits.
fn split(place: u64) -> (usize, u64) {
    let word = usize::try_from(place / 64).unwrap_or_default();
    (word, 1 << (place % 64))
}

#[cfg(test)]
mod tests;
