//! Reading a stream in order from a sequence or a time, for those who only look: subscribers,
//! tools, bridges. Nothing is acknowledged and no other reader is affected.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use chassis::Cx;
use futures::Stream;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::{
    Bus, Headers,
    consume::Arrived,
    error::{BusError, StoreError},
    random,
    reader::{Reader, Step, state},
    store::is_marker,
    subject,
    wire::{PAUSE, WireError},
};

/// Messages read ahead of who takes them.
const AHEAD: usize = 256;
/// `JetStream`'s code for a filter that is not a subset of one of the stream's subjects.
const FILTER_REFUSED: u64 = 10_093;
/// The stream behind a bucket begins with this.
const BUCKET: &str = "KV_";

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With this sequence; 0 and 1 mean the oldest message that there is. Whoever has read
    /// sequence `n` goes on with `n + 1`.
    Sequence(u64),
    /// With the first message that was stored at this time or later.
    Time(Timestamp),
    /// With what is stored from now on.
    New,
}

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tailed {
    /// Its sequence in the stream. Numbers grow, but not by one: a filter, an age limit or a
    /// replaced record leaves gaps.
    pub sequence: u64,
    /// When the stream stored it.
    pub time: Timestamp,
    /// Its subject.
    pub subject: String,
    /// Its headers: CloudEvents attributes, trace context.
    pub headers: Headers,
    /// The body, also where it travelled as an object. `None`: the message marks a deletion, or
    /// the object is gone.
    pub body: Option<Bytes>,
}

/// The messages of a stream, in order, each once. It ends when its `Cx` stops.
#[derive(Debug)]
pub struct Tail(mpsc::Receiver<Tailed>);

impl Bus {
    /// Reads a stream (`model::event::RESULTS`, …) in order from `start`, then everything that
    /// comes, over reconnects and restarts of the server. `filter` is one subject, which may have
    /// wildcards; empty takes everything.
    ///
    /// A reader that is slower than the stream loses nothing, as long as the stream keeps what it
    /// has not read yet. A stream that does not exist is an error here; what goes wrong later is
    /// tried again for ever.
    pub async fn tail(
        &self,
        cx: &Cx,
        stream: &str,
        start: Start,
        filter: &str,
    ) -> Result<Tail, BusError> {
        if !subject::is_key(stream) || stream.contains('.') {
            return Err(StoreError::Key(stream.chars().take(200).collect()).into());
        }
        let wire = self.0.following().await?;
        let failed = |error: WireError| error.about(stream);
        let mut reader = match start {
            Start::Sequence(from) => Reader::new(wire, stream.to_owned(), from),
            Start::Time(time) => Reader::new(wire, stream.to_owned(), 1).since(time),
            Start::New => {
                let last = state(&wire, stream).await.map_err(failed)?.last;
                Reader::new(wire, stream.to_owned(), last.saturating_add(1))
            }
        };
        if !stream.starts_with(BUCKET) {
            reader = reader.filter(filter);
        }
        match reader.start().await {
            // An old server wants a filter to lie within one subject of the stream. What comes is
            // filtered here in any case.
            Err(WireError::Refused {
                code: FILTER_REFUSED,
                ..
            }) => {
                reader = reader.filter("");
                reader.start().await.map_err(failed)?;
            }
            other => other.map_err(failed)?,
        }
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (bus, cx_here, filter) = (self.clone(), cx.clone(), filter.to_owned());
        let stream = stream.to_owned();
        cx.spawn("tail", async move {
            tokio::select! {
                () = cx_here.stopped() => {}
                () = bus.read_tail(reader, (&stream, &filter), sender) => {}
            }
        });
        Ok(Tail(receiver))
    }

    async fn read_tail(
        &self,
        mut reader: Reader,
        (stream, filter): (&str, &str),
        sender: mpsc::Sender<Tailed>,
    ) {
        loop {
            let step = tokio::select! {
                () = sender.closed() => break,
                step = reader.next() => step,
            };
            let arrived = match step {
                Ok(Step::Message(arrived)) => arrived,
                Ok(Step::Idle | Step::End) => continue,
                Err(error) => {
                    tracing::debug!(%error, "reading `{stream}` again: {error}");
                    tokio::time::sleep(random::jitter(PAUSE)).await;
                    continue;
                }
            };
            if !subject::matches(filter, &arrived.subject) {
                continue;
            }
            let tailed = self.tailed(stream, *arrived).await;
            if sender.send(tailed).await.is_err() {
                break;
            }
        }
        reader.close().await;
    }

    async fn tailed(&self, stream: &str, arrived: Arrived) -> Tailed {
        let sequence = arrived.place.stream_sequence;
        let body = if is_marker(&arrived.headers) {
            None
        } else {
            loop {
                match self.resolve(&arrived).await {
                    Ok(body) => break body,
                    Err(error)
                        if error.is_permanent() || matches!(error, StoreError::Dangling { .. }) =>
                    {
                        tracing::debug!(%error, "`{stream}` message {sequence}: {error}");
                        break None;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "`{stream}` message {sequence} later: {error}");
                        tokio::time::sleep(random::jitter(PAUSE)).await;
                    }
                }
            }
        };
        let Arrived {
            subject,
            headers,
            place,
            ..
        } = arrived;
        Tailed {
            sequence,
            time: place.stored_at,
            subject,
            headers,
            body,
        }
    }

    /// The body of a message: its own, the one that it claims, or the object of its record.
    /// `None`: a record's object is gone, for it was replaced long ago.
    pub(crate) async fn resolve(&self, arrived: &Arrived) -> Result<Option<Bytes>, StoreError> {
        let Arrived {
            subject,
            headers,
            body,
            ..
        } = arrived;
        let store = &self.0.store;
        match subject::key_of(subject) {
            Some((bucket, key)) => store.body(bucket, key, headers, body.clone()).await,
            None => store
                .claimed(subject, headers, body.clone())
                .await
                .map(Some),
        }
    }
}

impl Stream for Tail {
    type Item = Tailed;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Tailed>> {
        self.0.poll_recv(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use model::{
        Slug,
        event::{EVENTS, REFS},
    };

    use super::*;
    use crate::testing::{World, pushed, soon};

    async fn publish(world: &World, from: usize, to: usize) {
        for n in from..to {
            let event = pushed(&format!("app-{n}"));
            let tenant = Slug::default_tenant();
            world.bus.publish(&tenant, &event).await.unwrap();
        }
    }

    async fn take(tail: &mut Tail, count: usize) -> Vec<u64> {
        let mut sequences = Vec::new();
        while sequences.len() < count {
            sequences.push(soon(tail.next()).await.unwrap().sequence);
        }
        sequences
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stream_is_read_from_a_sequence_a_time_and_from_now() {
        let Some(world) = World::start().await else {
            return;
        };
        let World { bus, cx, .. } = &world;
        publish(&world, 0, 5).await;
        let mut all = bus.tail(cx, EVENTS, Start::Sequence(0), "").await.unwrap();
        let third = {
            take(&mut all, 2).await;
            soon(all.next()).await.unwrap()
        };
        assert_eq!(third.sequence, 3);
        assert_eq!(third.subject, "tw.evt.default.registry.pushed.main");
        assert_eq!(
            crate::decode::<model::event::ImagePushed>(&third.body.unwrap())
                .unwrap()
                .repository,
            "app-2"
        );
        let from_four = Start::Sequence(4);
        let mut rest = bus.tail(cx, EVENTS, from_four, "").await.unwrap();
        assert_eq!(take(&mut rest, 2).await, [4, 5]);
        let since = Start::Time(third.time);
        let mut rest = bus.tail(cx, EVENTS, since, "").await.unwrap();
        assert_eq!(take(&mut rest, 3).await, [3, 4, 5]);
        let mut new = bus.tail(cx, EVENTS, Start::New, "").await.unwrap();
        publish(&world, 5, 7).await;
        assert_eq!(take(&mut new, 2).await, [6, 7]);
        cx.stop();
        assert!(soon(new.next()).await.is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_filter_leaves_out_what_it_does_not_fit_in_streams_and_in_buckets() {
        let Some(world) = World::start().await else {
            return;
        };
        let World { bus, cx, .. } = &world;
        publish(&world, 0, 2).await;
        let other: Slug = "acme".parse().unwrap();
        bus.publish(&other, &pushed("theirs")).await.unwrap();
        let filter = "tw.evt.acme.>";
        let start = Start::Sequence(1);
        let mut theirs = bus.tail(cx, EVENTS, start, filter).await.unwrap();
        assert_eq!(take(&mut theirs, 1).await, [3]);
        let store = bus.store();
        for key in ["a.one", "b.two", "b.three"] {
            store.put(REFS, key, &1, None).await.unwrap();
        }
        let stream = crate::topology::bucket_stream(REFS);
        let filter = "$KV.tw_refs.b.*";
        let mut keys = bus.tail(cx, &stream, start, filter).await.unwrap();
        assert_eq!(take(&mut keys, 2).await, [2, 3]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_resumes_after_a_restart_of_the_server_and_names_a_missing_stream() {
        let Some(mut world) = World::start().await else {
            return;
        };
        publish(&world, 0, 3).await;
        let (bus, cx) = (world.bus.clone(), world.cx.clone());
        let start = Start::Sequence(1);
        let mut tail = bus.tail(&cx, EVENTS, start, "tw.evt.>").await.unwrap();
        assert_eq!(take(&mut tail, 3).await, [1, 2, 3]);
        world.server.down();
        world.server.up().await;
        publish(&world, 3, 6).await;
        assert_eq!(take(&mut tail, 3).await, [4, 5, 6]);
        let missing = bus.tail(&cx, "NOTHING", start, "").await;
        insta::assert_snapshot!(missing.unwrap_err(), @"NOTHING: refused by nats-server: stream not found (error code 10059)");
        assert!(bus.tail(&cx, "A.>", start, "").await.is_err());
    }
}
