//! Reading a bucket in order: everything from a sequence on, each change once, over reconnects and
//! restarts of the server.
//!
//! The consumer behind it has no filter and delivers all, since making one with a filter stops the
//! bucket's writers. It runs on a connection that serves nothing else.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use chassis::Cx;
use futures::Stream;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::{
    Bus, Headers, Store,
    error::{BusError, StoreError},
    random,
    reader::{Reader, Step, state},
    store::is_marker,
    subject, topology,
    wire::{PAUSE, Raw, Wire, WireError},
};

/// Changes read ahead of who takes them.
const AHEAD: usize = 512;

/// A change of a key.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its sequence: go on from the next.
    pub sequence: u64,
    /// The key.
    pub key: String,
    /// The body, or nothing where the headers point to it; `None` where the key was deleted.
    pub body: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
    bucket: String,
    store: Store,
}

/// The changes of a bucket, in order, each once. It ends when its `Cx` stops.
#[derive(Debug)]
pub struct Follow(mpsc::Receiver<Change>);

/// A bucket as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketEnd {
    /// Its last sequence.
    pub last: u64,
    /// When it was made. A bucket that was made anew, as after a loss of the servers' disks, counts
    /// from 1 again, so a cursor of before means nothing.
    pub made: String,
}

impl Bus {
    /// Everything that is in a bucket from sequence `from` on, then everything that comes. What
    /// was replaced before it was read does not come: a bucket keeps the last state of each key.
    /// One that is made anew meanwhile is read from its start.
    pub fn follow(&self, cx: &Cx, bucket: &str, from: u64) -> Follow {
        self.start_following(cx, bucket, from, None)
    }

    /// The same for who keeps a cursor: it ends when the bucket is not the one any more that was
    /// made then.
    pub fn follow_after(&self, cx: &Cx, bucket: &str, cursor: u64, made: &str) -> Follow {
        self.start_following(cx, bucket, cursor.saturating_add(1), Some(made.to_owned()))
    }

    fn start_following(&self, cx: &Cx, bucket: &str, from: u64, made: Option<String>) -> Follow {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (bus, bucket, cx_here) = (self.clone(), bucket.to_owned(), cx.clone());
        cx.spawn("follow", async move {
            tokio::select! {
                () = cx_here.stopped() => {}
                () = bus.read(&bucket, (from, made), sender) => {}
            }
        });
        Follow(receiver)
    }

    /// Where a bucket is now, and which one it is.
    pub async fn position(&self, bucket: &str) -> Result<BucketEnd, BusError> {
        let stream = topology::bucket_stream(bucket);
        let state = state(&self.0.wire, &stream)
            .await
            .map_err(|error| error.about(&stream))?;
        Ok(BucketEnd {
            last: state.last,
            made: state.made,
        })
    }

    /// The last sequence of a bucket now.
    pub async fn last_sequence(&self, bucket: &str) -> Result<u64, BusError> {
        self.position(bucket).await.map(|position| position.last)
    }

    async fn read(
        &self,
        bucket: &str,
        (from, made): (u64, Option<String>),
        sender: mpsc::Sender<Change>,
    ) {
        let wire = loop {
            match self.0.following().await {
                Ok(wire) => break wire,
                Err(error) => tracing::warn!(%error, "cannot follow `{bucket}` yet: {error}"),
            }
            tokio::time::sleep(random::jitter(PAUSE * 10)).await;
        };
        let Some(mut reader) = begin(&wire, bucket, from, made.as_deref()).await else {
            return;
        };
        loop {
            let arrived = match reader.next().await {
                Ok(Step::Message(arrived)) => arrived,
                Ok(Step::Idle | Step::End) => continue,
                Err(WireError::Anew) => {
                    tracing::warn!("`{bucket}` was made anew: what was known of it is read again");
                    match begin(&wire, bucket, 1, made.as_deref()).await {
                        Some(again) => reader = again,
                        None => return,
                    }
                    continue;
                }
                Err(error) => {
                    tracing::debug!(%error, "following `{bucket}` again: {error}");
                    tokio::time::sleep(random::jitter(PAUSE)).await;
                    continue;
                }
            };
            let Some((_, key)) = subject::key_of(&arrived.subject) else {
                continue;
            };
            let change = Change {
                sequence: arrived.place.stream_sequence,
                key: key.to_owned(),
                body: (!is_marker(&arrived.headers)).then(|| arrived.body.clone()),
                headers: arrived.headers.clone(),
                bucket: bucket.to_owned(),
                store: self.store(),
            };
            if sender.send(change).await.is_err() {
                reader.close().await;
                return;
            }
        }
    }
}

/// A reader of the bucket that exists. `None`: it is not the one that was made then.
async fn begin(wire: &Wire, bucket: &str, from: u64, made: Option<&str>) -> Option<Reader> {
    let stream = topology::bucket_stream(bucket);
    let found = loop {
        match state(wire, &stream).await {
            Ok(state) => break state.made,
            Err(error) => tracing::debug!(%error, "cannot follow `{bucket}` yet: {error}"),
        }
        tokio::time::sleep(random::jitter(PAUSE)).await;
    };
    let is_same = made.is_none_or(|made| made == found);
    is_same.then(|| Reader::new(wire.clone(), stream, from).made(&found))
}

/// Keys under a prefix, sorted, without deleted ones: reads the whole bucket as it is now.
pub(crate) async fn read_all(
    wire: &Wire,
    bucket: &str,
    prefix: &str,
) -> Result<Vec<(String, Raw)>, StoreError> {
    let stream = topology::bucket_stream(bucket);
    let failed = |error: WireError| StoreError::unavailable(bucket, &error);
    let end = state(wire, &stream).await.map_err(failed)?;
    let mut found = std::collections::BTreeMap::new();
    let mut reader = Reader::new(wire.clone(), stream, 1).once();
    while end.messages > 0 && reader.next <= end.last {
        let arrived = match reader.next().await.map_err(failed)? {
            Step::Message(arrived) => arrived,
            Step::Idle => continue,
            Step::End => break,
        };
        let Some((_, key)) = subject::key_of(&arrived.subject) else {
            continue;
        };
        if key.starts_with(prefix) {
            let sequence = arrived.place.stream_sequence;
            let key = key.to_owned();
            found.insert(
                key,
                Raw {
                    sequence,
                    headers: arrived.headers,
                    body: arrived.body,
                },
            );
        }
    }
    reader.close().await;
    found.retain(|_, raw| !is_marker(&raw.headers));
    Ok(found.into_iter().collect())
}

// === impl Change ===

impl Change {
    /// The value; `None` where the key was deleted, or was replaced so long ago that its body is
    /// gone: then a later change follows.
    pub async fn decode<T: DeserializeOwned>(&self) -> Result<Option<T>, StoreError> {
        let Some(body) = self.body.clone() else {
            return Ok(None);
        };
        let raw = Raw {
            sequence: self.sequence,
            headers: self.headers.clone(),
            body,
        };
        let value = self.store.value(&self.bucket, &self.key, raw).await?;
        Ok(value.map(|stored| stored.body))
    }

    /// The `ce-type`, which says what a record is.
    pub fn kind(&self) -> Option<String> {
        self.headers.attribute(crate::envelope::CE_TYPE)
    }
}

impl Stream for Follow {
    type Item = Change;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        self.0.poll_recv(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use model::{
        Digest, Known, RecordKey, Slug, What,
        event::{REFS, images_bucket},
    };

    use crate::testing::{World, soon};

    #[tokio::test(flavor = "multi_thread")]
    async fn changes_and_deletions_come_in_order() {
        let Some(world) = World::start().await else {
            return;
        };
        let store = world.bus.store();
        store.put(REFS, "a", &1, None).await.unwrap();
        let mut follow = world.bus.follow(&world.cx, REFS, 0);
        let first = soon(follow.next()).await.unwrap();
        assert_eq!((&*first.key, first.sequence), ("a", 1));
        assert_eq!(first.decode::<u32>().await.unwrap(), Some(1));
        store.put(REFS, "b.c", &2, None).await.unwrap();
        store.delete(REFS, "a").await.unwrap();
        let second = soon(follow.next()).await.unwrap();
        assert_eq!((&*second.key, second.sequence), ("b.c", 2));
        let third = soon(follow.next()).await.unwrap();
        assert_eq!(
            (&*third.key, third.sequence, third.body.is_none()),
            ("a", 3, true)
        );
        assert_eq!(third.decode::<u32>().await.unwrap(), None);
        assert_eq!(world.bus.last_sequence(REFS).await.unwrap(), 3);
        world.cx.stop();
        assert!(soon(follow.next()).await.is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_goes_on_without_gaps_or_doubles_over_restarts_of_the_server() {
        let Some(mut world) = World::start().await else {
            return;
        };
        let store = world.bus.store();
        let put = async |from: u32, to: u32| {
            for n in from..to {
                store
                    .put(REFS, &format!("k.{n}"), &n, Some(0))
                    .await
                    .unwrap();
            }
        };
        put(0, 3_000).await;
        let mut follow = world.bus.follow(&world.cx, REFS, 1_001);
        let mut expected = 1_000;
        while expected < 4_000 {
            match expected {
                1_700 => {
                    world.server.down();
                    world.server.up().await;
                    put(3_000, 3_500).await;
                }
                3_400 => {
                    world.bus.0.wire.client.force_reconnect().await.unwrap();
                    world
                        .bus
                        .0
                        .following()
                        .await
                        .unwrap()
                        .client
                        .force_reconnect()
                        .await
                        .unwrap();
                    put(3_500, 4_000).await;
                }
                _ => {}
            }
            let change = soon(follow.next()).await.unwrap();
            assert_eq!(change.decode::<u32>().await.unwrap(), Some(expected));
            expected += 1;
        }
        // Whoever has read that far goes on from there.
        let mut again = world.bus.follow(&world.cx, REFS, 4_000);
        assert_eq!(soon(again.next()).await.unwrap().sequence, 4_000);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_comes_after_a_restart_of_the_server_is_not_missed_for_long() {
        let Some(mut world) = World::start().await else {
            return;
        };
        let store = world.bus.store();
        store.put(REFS, "a", &1, Some(0)).await.unwrap();
        let mut follow = world.bus.follow(&world.cx, REFS, 1);
        assert_eq!(soon(follow.next()).await.unwrap().key, "a");
        // It waits for more when the server dies.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        world.server.down();
        world.server.up().await;
        let put = async || store.put(REFS, "b", &1, Some(0)).await.is_ok();
        crate::testing::eventually("the server takes a key", put).await;
        let taken = std::time::Instant::now();
        assert_eq!(soon(follow.next()).await.unwrap().key, "b");
        // Long before its silence would tell.
        assert!(taken.elapsed().as_secs() < 6, "{:?}", taken.elapsed());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_bucket_that_is_made_anew_is_read_from_its_start_and_ends_who_keeps_a_cursor() {
        let Some(mut world) = World::start().await else {
            return;
        };
        let store = world.bus.store();
        for n in 0..5 {
            store.put(REFS, &format!("k.{n}"), &n, None).await.unwrap();
        }
        let before = world.bus.position(REFS).await.unwrap();
        assert_eq!(before.last, 5);
        let mut plain = world.bus.follow(&world.cx, REFS, 1);
        let mut bound = world.bus.follow_after(&world.cx, REFS, 4, &before.made);
        for n in 1..=5 {
            assert_eq!(soon(plain.next()).await.unwrap().sequence, n);
        }
        assert_eq!(soon(bound.next()).await.unwrap().sequence, 5);
        // A restart alone is nothing new.
        world.server.down();
        world.server.up().await;
        store.put(REFS, "late", &1, None).await.unwrap();
        assert_eq!(soon(plain.next()).await.unwrap().sequence, 6);
        assert_eq!(soon(bound.next()).await.unwrap().sequence, 6);

        world.server.lose().await;
        world.bus.provision().await.unwrap();
        store.put(REFS, "first", &1, None).await.unwrap();
        let first = soon(plain.next()).await.unwrap();
        assert_eq!((&*first.key, first.sequence), ("first", 1));
        assert!(soon(bound.next()).await.is_none());
        assert_ne!(world.bus.position(REFS).await.unwrap().made, before.made);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn large_records_are_resolved() {
        let Some(world) = World::start().await else {
            return;
        };
        let key = RecordKey::new(&Slug::default_tenant(), Digest::of(b"x"), What::Known);
        let known = Known {
            labels: [("a".to_owned(), "x".repeat(50_000))].into(),
            ..Known::default()
        };
        world.bus.store().put_record(&key, &known, 0).await.unwrap();
        let bucket = images_bucket(key.image.partition());
        let mut follow = world.bus.follow(&world.cx, &bucket, 1);
        let change = soon(follow.next()).await.unwrap();
        assert_eq!(
            change.kind().as_deref(),
            Some(<Known as model::Record>::TYPE)
        );
        assert_eq!(change.decode::<Known>().await.unwrap(), Some(known));
    }
}
