//! State in memory, with the behavior of the real thing as far as handlers can see it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use chassis::Clock as _;
use futures::{
    FutureExt, TryFutureExt,
    future::{BoxFuture, ready},
};
use jiff::Timestamp;
use model::Digest;

use super::{
    backend::{Backend, Reply, Seen, Usage},
    keys,
};
use crate::{
    envelope::Headers,
    error::{PutError, StoreError},
    wire::Raw,
};

/// The fake.
#[derive(Default)]
pub(crate) struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    /// By bucket and key.
    messages: BTreeMap<(String, String), Raw>,
    /// By bucket.
    sequences: BTreeMap<String, u64>,
    /// By bucket and name.
    objects: BTreeMap<(String, Digest), Object>,
}

#[derive(Clone)]
struct Object {
    digest: Digest,
    bytes: Bytes,
    seen: Seen,
}

// === impl Memory ===

impl Memory {
    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Backend for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn get<'a>(&'a self, bucket: &'a str, key: &'a str) -> Reply<'a, Option<Raw>> {
        let id = (bucket.to_owned(), key.to_owned());
        ready(Ok(self.state(|state| state.messages.get(&id).cloned()))).boxed()
    }

    fn put<'a>(
        &'a self,
        bucket: &'a str,
        key: &'a str,
        headers: Headers,
        body: Bytes,
        expected: Option<u64>,
    ) -> BoxFuture<'a, Result<u64, PutError>> {
        ready(self.state(|state| state.put(bucket, key, (headers, body), expected))).boxed()
    }

    fn remove<'a>(
        &'a self,
        bucket: &'a str,
        key: &'a str,
        expected: Option<u64>,
    ) -> BoxFuture<'a, Result<u64, PutError>> {
        self.put(bucket, key, keys::marker(), Bytes::new(), expected)
    }

    fn list<'a>(&'a self, bucket: &'a str, prefix: &'a str) -> Reply<'a, Vec<(String, Raw)>> {
        let found = self.state(|state| {
            let matching = state.messages.iter().filter(|((in_bucket, key), raw)| {
                in_bucket == bucket && key.starts_with(prefix) && !keys::is_marker(&raw.headers)
            });
            matching
                .map(|((_, key), raw)| (key.clone(), raw.clone()))
                .collect()
        });
        ready(Ok(found)).boxed()
    }

    fn put_object<'a>(
        &'a self,
        bucket: &'a str,
        digest: &'a Digest,
        bytes: Bytes,
        _reuse: Option<Timestamp>,
    ) -> Reply<'a, ()> {
        self.put_named(bucket, digest, bytes)
    }

    fn object<'a>(
        &'a self,
        bucket: &'a str,
        digest: &'a Digest,
        max: u64,
    ) -> Reply<'a, Option<Bytes>> {
        let found = self.named(bucket, digest, max);
        found.map_ok(|found| found.map(|(_, bytes)| bytes)).boxed()
    }

    fn put_named<'a>(&'a self, bucket: &'a str, name: &'a Digest, bytes: Bytes) -> Reply<'a, ()> {
        self.state(|state| {
            let seen = Seen {
                sequence: state.next(bucket),
                chunks: 1,
                at: chassis::SystemClock.now(),
            };
            let object = Object {
                digest: Digest::of(&bytes),
                bytes,
                seen,
            };
            state.objects.insert((bucket.to_owned(), *name), object)
        });
        ready(Ok(())).boxed()
    }

    fn named<'a>(
        &'a self,
        bucket: &'a str,
        name: &'a Digest,
        max: u64,
    ) -> Reply<'a, Option<(Digest, Bytes)>> {
        let found = self.state(|state| state.objects.get(&(bucket.to_owned(), *name)).cloned());
        let found = found.map(|object| (object.digest, object.bytes));
        let size = found.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64);
        let answer = if size > max {
            Err(StoreError::TooLarge {
                what: format!("{bucket}/{name}"),
                size,
                max,
            })
        } else {
            Ok(found)
        };
        ready(answer).boxed()
    }

    fn usage<'a>(&'a self, bucket: &'a str) -> Reply<'a, Usage> {
        let usage = self.state(|state| {
            let there = state.objects.iter();
            let sizes = there
                .filter(|((place, _), _)| *place == bucket)
                .map(|(_, object)| object.bytes.len() as u64);
            sizes.fold(Usage::default(), |usage, size| Usage {
                bytes: usage.bytes + size,
                messages: usage.messages + 1,
                bytes_max: None,
            })
        });
        ready(Ok(usage)).boxed()
    }

    fn seen<'a>(&'a self, bucket: &'a str, digest: &'a Digest) -> Reply<'a, Option<Seen>> {
        let id = (bucket.to_owned(), *digest);
        let seen = self.state(|state| state.objects.get(&id).map(|object| object.seen));
        ready(Ok(seen)).boxed()
    }

    fn delete_seen<'a>(&'a self, bucket: &'a str, digest: &'a Digest, seen: Seen) -> Reply<'a, ()> {
        let id = (bucket.to_owned(), *digest);
        self.state(|state| {
            let there = state.objects.get(&id).map(|object| object.seen.sequence);
            if there.is_some_and(|sequence| sequence <= seen.sequence) {
                state.objects.remove(&id);
            }
        });
        ready(Ok(())).boxed()
    }
}

// === impl State ===

impl State {
    fn next(&mut self, bucket: &str) -> u64 {
        let sequence = self.sequences.entry(bucket.to_owned()).or_default();
        *sequence += 1;
        *sequence
    }

    fn put(
        &mut self,
        bucket: &str,
        key: &str,
        (headers, body): (Headers, Bytes),
        expected: Option<u64>,
    ) -> Result<u64, PutError> {
        let id = (bucket.to_owned(), key.to_owned());
        let current = self.messages.get(&id);
        let live = current.filter(|raw| !keys::is_marker(&raw.headers));
        let fits = match expected {
            None => true,
            Some(0) => live.is_none(),
            Some(revision) => current.is_some_and(|raw| raw.sequence == revision),
        };
        if !fits {
            return Err(PutError::Conflict);
        }
        let sequence = self.next(bucket);
        self.messages.insert(
            id,
            Raw {
                sequence,
                headers,
                body,
            },
        );
        Ok(sequence)
    }
}
