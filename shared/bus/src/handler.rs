//! What a service writes: event in, records and events out.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use model::{
    Assessed, Digest, Judged, Known, Record, RecordKey, Scanned, Slug,
    event::{
        Alert, Event, ImageDeleted, ImageJudged, ImagePushed, ImageScan, ScanRequested,
        VulnerabilityChanged, images_bucket,
    },
    runtime::{
        ContainerDetected, ContainerResponded, ImageSighted, IncidentChanged, NodeReported,
        ResponseOrdered, ResponseReported, RuntimeBatch,
    },
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    envelope::{decode, encode},
    error::{BusError, DecodeError, EncodeError, StoreError},
};

/// What a handler takes: one event or record, or an enum of those that one consumer carries.
///
/// An enum's [`Input::decode`] is a `match` over `Event::TYPE`, with `None` for the rest.
pub trait Input: Sized + Send + 'static {
    /// Reads a body by its `ce-type`. `None`: a type that this version does not know; the message
    /// is acknowledged and counted.
    fn decode(kind: &str, body: &[u8]) -> Result<Option<Self>, DecodeError>;
}

/// Turns one message into records and events. It may run twice for the same message, and it has no
/// effects of its own beyond objects named by their content.
pub trait Handler: Send + Sync + 'static {
    /// What it takes.
    type Input: Input;

    /// Whether a message can kill the process: what its handler reads may be hostile. Then deaths
    /// are counted, and it is handled alone in the end. A handler that only passes messages on is
    /// not, and what waits together in it stays together over any number of deaths.
    const IS_HAZARDOUS: bool = true;

    /// Handles one message.
    fn handle(
        &self,
        delivery: Delivery<Self::Input>,
    ) -> impl Future<Output = Result<Outcome, Failure>> + Send;

    /// Whether a message that failed for longer than [`crate::Config::retry_for_s`] is given up.
    /// Where it is not, it is tried again for as long as its stream keeps it.
    const GIVES_UP: bool = true;

    /// Answers for a message that is not handled any more and becomes a dead letter, so that
    /// whoever waits for it is told. Without an answer nothing is written.
    fn given_up(
        &self,
        _delivery: Delivery<Self::Input>,
        _why: &GivenUp,
    ) -> impl Future<Output = Result<Outcome, Failure>> + Send {
        std::future::ready(Ok(Outcome::none()))
    }
}

/// A message that arrived.
#[derive(Clone, Debug)]
pub struct Delivery<T> {
    /// Whose it is: from the subject.
    pub tenant: Slug,
    /// What it says.
    pub body: T,
    /// Its CloudEvents id.
    pub id: String,
    /// Its subject.
    pub subject: String,
    /// Its sequence in the stream; for a record its revision.
    pub sequence: u64,
    /// The record's key, if it is one.
    pub key: Option<RecordKey>,
    /// How often it was delivered, this time included.
    pub attempt: u64,
    /// Whether no other handler runs in this process, since this message is suspected of killing
    /// it: a handler that can should spare memory now.
    pub alone: bool,
    /// Whether it was a dead letter, and somebody wants it tried again: what its first try left
    /// behind is no reason to do nothing.
    pub retried: bool,
}

/// What a handler wants written and published. Order of execution: records as they were added,
/// then events as they were added, then the acknowledgment.
#[derive(Debug, Default)]
#[must_use]
pub struct Outcome {
    pub(crate) writes: Vec<Write>,
    pub(crate) emits: Vec<Emit>,
    pub(crate) discards: Vec<Discard>,
}

/// Why a message was not handled.
#[derive(Debug)]
pub enum Failure {
    /// Something is away that will come back: the message comes again later.
    Retry(anyhow::Error),
    /// There is no room for it just now, and nothing failed: it comes again after a while, however
    /// often.
    Later(Duration),
    /// It will never work: a dead letter.
    Reject(anyhow::Error),
}

/// Why a message is not handled any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// It kills or breaks who handles it, and would again.
    Broken(String),
    /// What it needs was away for too long. It may work another day.
    Away(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) kind: WriteKind,
    pub(crate) body: Bytes,
    pub(crate) expected: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) enum WriteKind {
    /// A record of an image: with CloudEvents attributes, large bodies as objects.
    Record {
        key: RecordKey,
        kind: &'static str,
    },
    Plain,
}

#[derive(Clone, Debug)]
pub(crate) struct Emit {
    pub(crate) tenant: Slug,
    pub(crate) subject: String,
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discard {
    pub(crate) bucket: String,
    pub(crate) digest: Digest,
}

// === impl Input ===

macro_rules! inputs {
    ($($name:ty),* $(,)?) => {
        $(
            impl Input for $name {
                fn decode(kind: &str, body: &[u8]) -> Result<Option<Self>, DecodeError> {
                    if kind == <$name>::TYPE { decode(body).map(Some) } else { Ok(None) }
                }
            }
        )*

        /// A body as JSON, by its `ce-type`: for people and for bridges. `None`: a type that this
        /// version does not know.
        pub fn to_json(kind: &str, body: &[u8]) -> Result<Option<serde_json::Value>, DecodeError> {
            $(
                if kind == <$name>::TYPE {
                    let value: $name = decode(body)?;
                    let json = serde_json::to_value(value);
                    return json.map(Some).map_err(|error| DecodeError(error.to_string()));
                }
            )*
            Ok(None)
        }
    };
}

inputs![
    ImagePushed,
    ImageDeleted,
    ScanRequested,
    ImageScan,
    ImageJudged,
    VulnerabilityChanged,
    Alert,
    NodeReported,
    RuntimeBatch,
    ImageSighted,
    ContainerDetected,
    IncidentChanged,
    ContainerResponded,
    ResponseOrdered,
    ResponseReported,
    Known,
    Scanned,
    Assessed,
    Judged,
];

// === impl Delivery ===

impl<E: Event> Delivery<E> {
    /// The first delivery of an event, as handler tests need it.
    pub fn of_event(tenant: &Slug, event: E) -> Self {
        Self {
            tenant: tenant.clone(),
            id: event.message_id(tenant),
            subject: event.subject(tenant),
            sequence: 1,
            key: None,
            attempt: 1,
            alone: false,
            retried: false,
            body: event,
        }
    }
}

impl<R: Record> Delivery<R> {
    /// The first delivery of a record, as handler tests need it.
    pub fn of_record(key: &RecordKey, revision: u64, record: R) -> Self {
        let subject =
            crate::subject::of_key(&images_bucket(key.image.partition()), &key.to_string());
        Self {
            tenant: key.tenant.clone(),
            id: format!("{subject}:{revision}"),
            subject,
            sequence: revision,
            key: Some(key.clone()),
            attempt: 1,
            alone: false,
            retried: false,
            body: record,
        }
    }
}

impl<T> Delivery<T> {
    /// The same delivery with another body.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Delivery<U> {
        let Self {
            tenant,
            body,
            id,
            subject,
            sequence,
            key,
            attempt,
            alone,
            retried,
        } = self;
        Delivery {
            tenant,
            body: f(body),
            id,
            subject,
            sequence,
            key,
            attempt,
            alone,
            retried,
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Nothing to write: the message is acknowledged.
    pub fn none() -> Self {
        Self::default()
    }

    /// Writes an image's record by compare-and-set; `expected` is the revision that was read, 0
    /// where there was none. After a conflict the handler runs again.
    pub fn put<R: Record>(
        mut self,
        key: &RecordKey,
        body: &R,
        expected: u64,
    ) -> Result<Self, EncodeError> {
        self.writes.push(Write {
            bucket: images_bucket(key.image.partition()),
            key: key.to_string(),
            kind: WriteKind::Record {
                key: key.clone(),
                kind: R::TYPE,
            },
            body: encode(body)?,
            expected: Some(expected),
        });
        Ok(self)
    }

    /// Writes any other key; `expected` as in [`Outcome::put`], or `None` to write in any case.
    pub fn put_kv<T: Serialize>(
        mut self,
        bucket: &str,
        key: &str,
        body: &T,
        expected: Option<u64>,
    ) -> Result<Self, EncodeError> {
        self.writes.push(Write {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            kind: WriteKind::Plain,
            body: encode(body)?,
            expected,
        });
        Ok(self)
    }

    /// Publishes an event.
    pub fn emit<E: Event>(mut self, tenant: &Slug, event: &E) -> Result<Self, EncodeError> {
        self.emits.push(Emit::new(tenant, event)?);
        Ok(self)
    }

    /// Deletes an object an hour after the records of this outcome are written, unless a record
    /// of the same image, or another key that this writes, names it then.
    pub fn discard(mut self, bucket: &str, digest: Digest) -> Self {
        self.discards.push(Discard {
            bucket: bucket.to_owned(),
            digest,
        });
        self
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.emits.is_empty() && self.discards.is_empty()
    }

    /// The records of one type, for tests.
    pub fn records<R: Record>(&self) -> Vec<(RecordKey, R)> {
        let of_type = self.writes.iter().filter_map(|write| match &write.kind {
            WriteKind::Record { key, kind } if *kind == R::TYPE => {
                Some((key.clone(), decode(&write.body).ok()?))
            }
            _ => None,
        });
        of_type.collect()
    }

    /// Other keys written in a bucket, for tests.
    pub fn values<T: DeserializeOwned>(&self, bucket: &str) -> Vec<(String, T)> {
        let plain = self
            .writes
            .iter()
            .filter(|write| matches!(write.kind, WriteKind::Plain) && write.bucket == bucket);
        plain
            .filter_map(|write| Some((write.key.clone(), decode(&write.body).ok()?)))
            .collect()
    }

    /// The events of one type, for tests.
    pub fn events<E: Event>(&self) -> Vec<(Slug, E)> {
        let of_type = self.emits.iter().filter(|emit| emit.kind == E::TYPE);
        of_type
            .filter_map(|emit| Some((emit.tenant.clone(), decode(&emit.body).ok()?)))
            .collect()
    }

    /// Objects to delete, for tests.
    pub fn discards(&self) -> Vec<(String, Digest)> {
        let pair = |discard: &Discard| (discard.bucket.clone(), discard.digest);
        self.discards.iter().map(pair).collect()
    }
}

// === impl Emit ===

impl Emit {
    pub(crate) fn new<E: Event>(tenant: &Slug, event: &E) -> Result<Self, EncodeError> {
        Ok(Self {
            tenant: tenant.clone(),
            subject: event.subject(tenant),
            kind: E::TYPE,
            id: event.message_id(tenant),
            source: event.origin(),
            body: encode(event)?,
        })
    }

    pub(crate) fn headers(&self, now: Timestamp) -> crate::Headers {
        let mut headers = crate::Headers::default().with(crate::envelope::MESSAGE_ID, &*self.id);
        headers.describe(&crate::envelope::Attributes {
            id: &self.id,
            kind: self.kind,
            source: &self.source,
            tenant: Some(&self.tenant),
            time: now,
        });
        headers
    }
}

// === impl GivenUp ===

impl GivenUp {
    /// The cause, as the dead letter has it.
    pub fn cause(&self) -> &str {
        match self {
            Self::Broken(cause) | Self::Away(cause) => cause,
        }
    }
}

// === impl Failure ===

impl Failure {
    /// Shorthand for [`Failure::Retry`].
    pub fn retry(error: impl Into<anyhow::Error>) -> Self {
        Self::Retry(error.into())
    }

    /// Shorthand for [`Failure::Reject`].
    pub fn reject(error: impl Into<anyhow::Error>) -> Self {
        Self::Reject(error.into())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Retry(error.into())
    }
}

impl From<BusError> for Failure {
    fn from(error: BusError) -> Self {
        Self::Retry(error.into())
    }
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Self {
        Self::Reject(error.into())
    }
}
