//! State in NATS: buckets are streams read by direct get, objects are plain messages.

#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt, future::BoxFuture, stream};
use jiff::Timestamp;
use model::Digest;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    backend::{Backend, Reply, Seen, Usage},
    keys,
};
use crate::{
    envelope::Headers,
    error::{PutError, StoreError},
    follow::read_all,
    random, subject, topology,
    wire::{PAUSE, Raw, Wire, WireError},
};

/// Names a write, so that its writer knows it again after an answer got lost.
pub(crate) const WRITE_ID: &str = "tw-write";
/// How many chunks an object has; on chunk 0, which is written last.
const CHUNKS: &str = "tw-chunks";
/// How many bytes.
const SIZE: &str = "tw-size";
/// The digest of the whole, where the name does not say it; on chunk 0.
const DIGEST: &str = "tw-sha256";
const CHUNK_BYTES: usize = 256 * 1024;
/// How many chunks, or keys of a list, are in flight at once.
const PARALLEL: usize = 16;
/// How long a write is tried.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one object may take to arrive.
const OBJECT_DEADLINE: Duration = Duration::from_mins(1);
/// How long reading a whole bucket may take: three million keys in 16 buckets take a second each.
const LIST_DEADLINE: Duration = Duration::from_mins(5);

/// The real thing.
pub(crate) struct Nats(pub(crate) Wire);

// === impl Nats ===

impl Nats {
    /// Writes a key; gives its revision, and whether the marker of a deletion was in its place.
    pub(crate) async fn compare_and_set(
        &self,
        bucket: &str,
        key: &str,
        (headers, body): (Headers, Bytes),
        expected: Option<u64>,
    ) -> Result<(u64, bool), PutError> {
        let stream = topology::bucket_stream(bucket);
        let subject = subject::of_key(bucket, key);
        let mut headers = headers.with(WRITE_ID, random::token());
        let id = headers.get(WRITE_ID).unwrap_or_default().to_owned();
        let bare = headers.clone();
        let (mut expected, mut after_marker) = (expected, false);
        if let Some(revision) = expected {
            headers.push(topology::EXPECTED, revision.to_string());
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match self.0.store(&subject, &headers, body.clone()).await {
                Ok(stored) => return Ok((stored.sequence, after_marker)),
                Err(error) => error,
            };
            let lost = matches!(error, WireError::WrongLastSequence);
            if !lost && (!error.is_transient() || Instant::now() >= deadline) {
                return Err(unavailable(&subject, &error).into());
            }
            if lost {
                let current = self.last(&stream, &subject).await?;
                match (current, expected) {
                    // An earlier attempt arrived, and only its answer was lost.
                    (Some(raw), _) if raw.headers.get(WRITE_ID) == Some(&*id) => {
                        return Ok((raw.sequence, after_marker));
                    }
                    (Some(raw), Some(0)) if keys::is_marker(&raw.headers) => {
                        (expected, after_marker) = (Some(raw.sequence), true);
                        headers = bare.clone();
                        headers.push(topology::EXPECTED, raw.sequence.to_string());
                    }
                    _ => return Err(PutError::Conflict),
                }
            } else {
                sleep(random::jitter(PAUSE)).await;
            }
        }
    }

    async fn last(&self, stream: &str, subject: &str) -> Result<Option<Raw>, StoreError> {
        self.0
            .last(stream, subject)
            .await
            .map_err(|error| unavailable(subject, &error))
    }

    /// Keys under a prefix that few keys have: asks for the names, then reads each.
    async fn list_few(&self, bucket: &str, prefix: &str) -> Result<Vec<(String, Raw)>, StoreError> {
        let stream = topology::bucket_stream(bucket);
        let filter = subject::of_key(bucket, &format!("{}>", whole_tokens(prefix)));
        let asked = format!("STREAM.INFO.{stream}");
        let info = self
            .0
            .api(&asked, &json!({ "subjects_filter": filter }))
            .await;
        let info = info.map_err(|error| unavailable(&filter, &error))?;
        let names = info.pointer("/state/subjects").and_then(Value::as_object);
        let mut names: Vec<String> = names
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect();
        names.sort();
        let found = stream::iter(names)
            .map(async |name| {
                let raw = self.last(&stream, &name).await?;
                Ok::<_, StoreError>((name, raw))
            })
            .buffered(PARALLEL);
        found
            .try_filter_map(async |(name, raw)| {
                let key = subject::key_of(&name).map(|(_, key)| key.to_owned());
                Ok(key
                    .zip(raw)
                    .filter(|(key, raw)| key.starts_with(prefix) && !keys::is_marker(&raw.headers)))
            })
            .try_collect()
            .await
    }

    /// Stores an object that its content names. One of many chunks is left alone if it was stored of
    /// late; for a single chunk, asking costs what storing it again does.
    async fn put_once(
        &self,
        bucket: &str,
        digest: &Digest,
        bytes: Bytes,
        reuse: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        if let Some(since) = reuse.filter(|_| bytes.len() > CHUNK_BYTES)
            && let Some(seen) = self.last_seen(bucket, digest).await?
            && seen.at >= since
        {
            return Ok(());
        }
        self.put_chunks(bucket, digest, Headers::default(), bytes)
            .await
    }

    /// Writes every chunk, chunk 0 last.
    async fn put_chunks(
        &self,
        bucket: &str,
        digest: &Digest,
        headers: Headers,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        let first = topology::object_subject(bucket, digest, 0);
        let count = bytes.len().div_ceil(CHUNK_BYTES).max(1);
        let chunk = |n: usize| bytes.slice(n * CHUNK_BYTES..bytes.len().min((n + 1) * CHUNK_BYTES));
        stream::iter(1..count)
            .map(|n| {
                let subject = topology::object_subject(bucket, digest, n);
                self.put_chunk(subject, Headers::default(), chunk(n))
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        let headers = headers
            .with(CHUNKS, count.to_string())
            .with(SIZE, bytes.len().to_string());
        self.put_chunk(first, headers, chunk(0)).await
    }

    async fn put_chunk(
        &self,
        subject: String,
        headers: Headers,
        body: Bytes,
    ) -> Result<(), StoreError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.0.store(&subject, &headers, body.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_transient() && Instant::now() < deadline => {
                    sleep(random::jitter(PAUSE)).await;
                }
                Err(error) => return Err(unavailable(&subject, &error)),
            }
        }
    }

    /// The headers of chunk 0 and all bytes.
    async fn get_chunks(
        &self,
        bucket: &str,
        digest: &Digest,
        max: u64,
    ) -> Result<Option<(Headers, Bytes)>, StoreError> {
        let stream = topology::object_stream(bucket);
        let first = self
            .last(&stream, &topology::object_subject(bucket, digest, 0))
            .await?;
        let Some(first) = first else { return Ok(None) };
        let number = |name: &str| {
            first
                .headers
                .get(name)
                .and_then(|text| text.parse::<u64>().ok())
        };
        let what = || format!("{bucket}/{digest}");
        let (Some(count), Some(size)) = (number(CHUNKS), number(SIZE)) else {
            let cause = "chunk 0 has no count".to_owned();
            return Err(StoreError::Malformed {
                what: what(),
                cause,
            });
        };
        if size > max {
            return Err(StoreError::TooLarge {
                what: what(),
                size,
                max,
            });
        }
        if count <= 1 {
            return Ok(Some((first.headers, first.body)));
        }
        let mut whole = Vec::from(first.body);
        let mut rest = stream::iter(1..count)
            .map(async |n| {
                let subject = format!("{}.{n}", topology::object_root(bucket, digest));
                self.last(&stream, &subject).await
            })
            .buffered(PARALLEL);
        while let Some(chunk) = rest.next().await {
            // Evicted or deleted while it was read: as if it had never been there.
            let Some(chunk) = chunk? else { return Ok(None) };
            whole.extend_from_slice(&chunk.body);
            if whole.len() as u64 > max {
                return Err(StoreError::TooLarge {
                    what: what(),
                    size: whole.len() as u64,
                    max,
                });
            }
        }
        Ok(Some((first.headers, whole.into())))
    }

    /// [`Self::get_chunks`], but not for ever.
    async fn get_in_time(
        &self,
        bucket: &str,
        digest: &Digest,
        max: u64,
    ) -> Result<Option<(Headers, Bytes)>, StoreError> {
        let read = self.get_chunks(bucket, digest, max);
        let read = tokio::time::timeout(OBJECT_DEADLINE, read).await;
        read.unwrap_or_else(|_| {
            let what = format!("{bucket}/{digest}");
            Err(StoreError::unavailable(what, &"it takes too long"))
        })
    }

    async fn last_seen(&self, bucket: &str, digest: &Digest) -> Result<Option<Seen>, StoreError> {
        let stream = topology::object_stream(bucket);
        let subject = topology::object_subject(bucket, digest, 0);
        let Some(first) = self.last(&stream, &subject).await? else {
            return Ok(None);
        };
        let chunks = first.headers.get(CHUNKS).and_then(|text| text.parse().ok());
        match (chunks, first.stored_at()) {
            (Some(chunks), Some(at)) => Ok(Some(Seen {
                sequence: first.sequence,
                chunks,
                at,
            })),
            _ => Err(StoreError::Malformed {
                what: format!("{bucket}/{digest}"),
                cause: "chunk 0 has no count or no time".to_owned(),
            }),
        }
    }

    async fn purge_chunks(
        &self,
        bucket: &str,
        digest: &Digest,
        seen: Seen,
    ) -> Result<(), StoreError> {
        let stream = topology::object_stream(bucket);
        // Chunk 0 goes first: without it the object does not exist. It was stored last, so none of
        // this storing comes after it. Exact subjects, since the server looks through every block
        // for a wildcard.
        for n in 0..seen.chunks {
            let filter = topology::object_subject(bucket, digest, n);
            let asked = format!("STREAM.PURGE.{stream}");
            let which = json!({ "filter": filter, "seq": seen.sequence + 1 });
            let purged = self.0.api(&asked, &which).await;
            purged.map_err(|error| unavailable(&filter, &error))?;
        }
        Ok(())
    }
}

impl Backend for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn get<'a>(&'a self, bucket: &'a str, key: &'a str) -> Reply<'a, Option<Raw>> {
        async move {
            self.last(
                &topology::bucket_stream(bucket),
                &subject::of_key(bucket, key),
            )
            .await
        }
        .boxed()
    }

    fn put<'a>(
        &'a self,
        bucket: &'a str,
        key: &'a str,
        headers: Headers,
        body: Bytes,
        expected: Option<u64>,
    ) -> BoxFuture<'a, Result<u64, PutError>> {
        let put = self.compare_and_set(bucket, key, (headers, body), expected);
        put.map_ok(|(revision, _)| revision).boxed()
    }

    fn remove<'a>(
        &'a self,
        bucket: &'a str,
        key: &'a str,
        expected: Option<u64>,
    ) -> BoxFuture<'a, Result<u64, PutError>> {
        let put = self.compare_and_set(bucket, key, (keys::marker(), Bytes::new()), expected);
        put.map_ok(|(revision, _)| revision).boxed()
    }

    fn list<'a>(&'a self, bucket: &'a str, prefix: &'a str) -> Reply<'a, Vec<(String, Raw)>> {
        async move {
            if whole_tokens(prefix).matches('.').count() >= 2 {
                return self.list_few(bucket, prefix).await;
            }
            let read = read_all(&self.0, bucket, prefix);
            tokio::time::timeout(LIST_DEADLINE, read)
                .await
                .unwrap_or_else(|_| Err(StoreError::unavailable(bucket, &"it takes too long")))
        }
        .boxed()
    }

    fn put_object<'a>(
        &'a self,
        bucket: &'a str,
        digest: &'a Digest,
        bytes: Bytes,
        reuse: Option<Timestamp>,
    ) -> Reply<'a, ()> {
        self.put_once(bucket, digest, bytes, reuse).boxed()
    }

    fn object<'a>(
        &'a self,
        bucket: &'a str,
        digest: &'a Digest,
        max: u64,
    ) -> Reply<'a, Option<Bytes>> {
        async move {
            let found = self.get_in_time(bucket, digest, max).await?;
            Ok(found.map(|(_, bytes)| bytes))
        }
        .boxed()
    }

    fn put_named<'a>(&'a self, bucket: &'a str, name: &'a Digest, bytes: Bytes) -> Reply<'a, ()> {
        let headers = Headers::default().with(DIGEST, Digest::of(&bytes).hex());
        self.put_chunks(bucket, name, headers, bytes).boxed()
    }

    fn named<'a>(
        &'a self,
        bucket: &'a str,
        name: &'a Digest,
        max: u64,
    ) -> Reply<'a, Option<(Digest, Bytes)>> {
        async move {
            let Some((headers, bytes)) = self.get_in_time(bucket, name, max).await? else {
                return Ok(None);
            };
            match headers.get(DIGEST).and_then(Digest::from_hex) {
                Some(digest) => Ok(Some((digest, bytes))),
                None => Err(StoreError::Malformed {
                    what: format!("{bucket}/{name}"),
                    cause: "chunk 0 has no digest".to_owned(),
                }),
            }
        }
        .boxed()
    }

    fn usage<'a>(&'a self, bucket: &'a str) -> Reply<'a, Usage> {
        async move {
            let asked = format!("STREAM.INFO.{}", topology::object_stream(bucket));
            let info = self.0.api(&asked, &Value::Null).await;
            let info = info.map_err(|error| unavailable(bucket, &error))?;
            let number = |field: &str| info.pointer(field).and_then(Value::as_u64);
            Ok(Usage {
                bytes: number("/state/bytes").unwrap_or_default(),
                // No bound is -1.
                bytes_max: number("/config/max_bytes"),
                messages: number("/state/messages").unwrap_or_default(),
            })
        }
        .boxed()
    }

    fn seen<'a>(&'a self, bucket: &'a str, digest: &'a Digest) -> Reply<'a, Option<Seen>> {
        self.last_seen(bucket, digest).boxed()
    }

    fn delete_seen<'a>(&'a self, bucket: &'a str, digest: &'a Digest, seen: Seen) -> Reply<'a, ()> {
        self.purge_chunks(bucket, digest, seen).boxed()
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nats")
    }
}

/// The part of a prefix that is whole tokens, with its last dot.
fn whole_tokens(prefix: &str) -> &str {
    prefix
        .rfind('.')
        .map_or("", |dot| prefix.split_at(dot + 1).0)
}

fn unavailable(what: &str, error: &WireError) -> StoreError {
    StoreError::unavailable(what, error)
}
