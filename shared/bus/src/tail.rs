//! Reading a stream in order from a sequence or a time, for those who only look: subscribers,
//! tools, bridges. Nothing is acknowledged and no other reader is affected.
//!
//! [`Tail`] reads one stream. [`News`] reads all that hold news as one, and says at each piece where
//! a reader stands, so that he can go on there later.

mod bridge;
mod cloud_event;
mod feed;
mod news;

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
    reader::{Reader, state},
    subject,
    wire::WireError,
};

use self::feed::{BATCH, Feed};
pub use self::{
    cloud_event::{cloud_event, cloud_event_text},
    news::{Begin, BeginError, News, Piece, Position, PositionError, Selection, Told},
};

/// Messages read ahead of who takes them.
const AHEAD: usize = 32;
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

/// What a reader of a stream learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The next message.
    Message(Box<Tailed>),
    /// What the stream held when it was asked has been given; said once.
    CaughtUp,
    /// Nothing that fits the filter is left up to this sequence.
    UpTo(u64),
    /// What fits among these messages will not come.
    Missed(Missed),
}

/// Messages that the stream does not hold any more, though nobody has read them here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The first one.
    pub from: u64,
    /// The last one. `None`: the stream never held them. It was made anew since, or its server lost
    /// its end.
    pub to: Option<u64>,
    /// Where reading goes on.
    pub next: u64,
}

/// The messages of a stream, in order, each once. It ends when its `Cx` stops.
#[derive(Debug)]
pub struct Tail {
    heard: mpsc::Receiver<Heard>,
    /// The sequence before the first one that is read.
    start: u64,
}

impl Bus {
    /// Reads a stream (`model::event::RESULTS`, …) in order from `start`, then everything that
    /// comes, over reconnects and restarts of the server. `filter` is one subject, which may have
    /// wildcards; empty takes everything.
    ///
    /// A reader that is slower than the stream loses nothing, as long as the stream keeps what it
    /// has not read yet; where it does not, the reader is told ([`Heard::Missed`]). A stream that
    /// does not exist is an error here; what goes wrong later is tried again for ever.
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
        reader = reader.batch(BATCH);
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
        let start = reader.next - 1;
        let (sender, heard) = mpsc::channel(AHEAD);
        let feed = Feed::new(self, (stream, filter), reader, sender);
        let cx_here = cx.clone();
        cx.spawn("tail", async move { feed.run(&cx_here).await });
        Ok(Tail { heard, start })
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

// === impl Tail ===

impl Tail {
    /// The sequence before the first one that is read: what a reader has read that has read nothing.
    pub const fn start(&self) -> u64 {
        self.start
    }
}

impl Stream for Tail {
    type Item = Heard;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        self.heard.poll_recv(cx)
    }
}

// === impl Heard ===

impl Heard {
    /// The message, if it is one.
    pub fn message(self) -> Option<Tailed> {
        match self {
            Self::Message(tailed) => Some(*tailed),
            Self::CaughtUp | Self::UpTo(_) | Self::Missed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
