//! State in memory, with the behavior of the real thing as far as handlers can see it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, ready},
};
use model::Digest;

use super::{
    backend::{Backend, Reply, Usage},
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
    objects: BTreeMap<(String, Digest), Bytes>,
    /// By bucket and name, with the digest.
    named: BTreeMap<(String, Digest), (Digest, Bytes)>,
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
        _renew: bool,
    ) -> Reply<'a, ()> {
        self.state(|state| state.objects.insert((bucket.to_owned(), *digest), bytes));
        ready(Ok(())).boxed()
    }

    fn object<'a>(
        &'a self,
        bucket: &'a str,
        digest: &'a Digest,
        max: u64,
    ) -> Reply<'a, Option<Bytes>> {
        let found = self.state(|state| state.objects.get(&(bucket.to_owned(), *digest)).cloned());
        let size = found.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let answer = if size > max {
            Err(StoreError::TooLarge {
                what: format!("{bucket}/{digest}"),
                size,
                max,
            })
        } else {
            Ok(found)
        };
        ready(answer).boxed()
    }

    fn put_named<'a>(&'a self, bucket: &'a str, name: &'a Digest, bytes: Bytes) -> Reply<'a, ()> {
        let object = (Digest::of(&bytes), bytes);
        self.state(|state| state.named.insert((bucket.to_owned(), *name), object));
        ready(Ok(())).boxed()
    }

    fn named<'a>(
        &'a self,
        bucket: &'a str,
        name: &'a Digest,
        max: u64,
    ) -> Reply<'a, Option<(Digest, Bytes)>> {
        let found = self.state(|state| state.named.get(&(bucket.to_owned(), *name)).cloned());
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
            let named = state
                .named
                .iter()
                .map(|((place, _), (_, bytes))| (place, bytes));
            let all = state
                .objects
                .iter()
                .map(|((place, _), bytes)| (place, bytes));
            let sizes = named
                .chain(all)
                .filter(|(place, _)| *place == bucket)
                .map(|(_, bytes)| bytes.len() as u64);
            sizes.fold(Usage::default(), |usage, size| Usage {
                bytes: usage.bytes + size,
                messages: usage.messages + 1,
                bytes_max: None,
            })
        });
        ready(Ok(usage)).boxed()
    }

    fn delete_object<'a>(&'a self, bucket: &'a str, digest: &'a Digest) -> Reply<'a, ()> {
        let id = (bucket.to_owned(), *digest);
        self.state(|state| {
            state.objects.remove(&id);
            state.named.remove(&id);
        });
        ready(Ok(())).boxed()
    }
}

// === impl State ===

impl State {
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
        let sequence = self.sequences.entry(bucket.to_owned()).or_default();
        *sequence += 1;
        let sequence = *sequence;
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
