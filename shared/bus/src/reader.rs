//! Reads a stream in order, each message once, over reconnects and restarts of the server.
//!
//! The consumer behind it lives in memory, costs the server nothing when it is gone, and is made
//! again at the next sequence whenever a number is missing.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    consume::{Arrived, Pull, Pulled},
    topology,
    wire::{REQUEST, Wire, WireError},
};

/// Messages asked for at once.
const BATCH: usize = 1_000;
/// How long the server keeps an abandoned consumer.
const INACTIVE_S: u64 = 60;

/// Reads one stream.
pub(crate) struct Reader {
    wire: Wire,
    stream: String,
    /// The next sequence that is wanted.
    pub(crate) next: u64,
    /// How often a consumer was made.
    pub(crate) openings: u64,
    /// How many messages there are beyond the last one, as far as the server has said.
    pub(crate) behind: Option<u64>,
    batch: usize,
    /// Where to begin, until the first message says its sequence.
    since: Option<Timestamp>,
    /// The one subject to read; empty reads all.
    filter: String,
    headers_only: bool,
    once: bool,
    /// When the stream was made that is read, for who must notice another of the same name.
    made: Option<String>,
    source: Option<Source>,
}

/// What a reader did.
pub(crate) enum Step {
    Message(Box<Arrived>),
    /// Nothing came for now.
    Idle,
    /// There is nothing more, for readers that read `once`.
    End,
}

/// What a stream holds.
pub(crate) struct State {
    pub(crate) messages: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) bytes: u64,
    /// When it was made: it tells the stream from a later one of the same name.
    pub(crate) made: String,
}

struct Source {
    pull: Pull,
    consumer: String,
    /// The consumer's number of the next message.
    number: u64,
    /// The connection it was made on.
    link: u64,
}

/// Asks for a stream's state.
pub(crate) async fn state(wire: &Wire, stream: &str) -> Result<State, WireError> {
    let info = wire
        .api(&format!("STREAM.INFO.{stream}"), &Value::Null)
        .await?;
    let number = |field: &str| {
        info.pointer(&format!("/state/{field}"))
            .and_then(Value::as_u64)
            .unwrap_or_default()
    };
    Ok(State {
        messages: number("messages"),
        first: number("first_seq"),
        last: number("last_seq"),
        bytes: number("bytes"),
        made: info
            .get("created")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
    })
}

// === impl Reader ===

impl Reader {
    /// Reads from a sequence on.
    pub(crate) fn new(wire: Wire, stream: String, from: u64) -> Self {
        Self {
            wire,
            stream,
            next: from.max(1),
            openings: 0,
            behind: None,
            batch: BATCH,
            since: None,
            filter: String::new(),
            headers_only: false,
            once: false,
            made: None,
            source: None,
        }
    }

    /// Begins with what was stored at a time or later.
    pub(crate) fn since(mut self, time: Timestamp) -> Self {
        self.since = Some(time);
        self
    }

    /// Reads one subject, which may have wildcards. Not for buckets: while a consumer with a filter
    /// is made, the bucket's writers wait.
    pub(crate) fn filter(mut self, subject: &str) -> Self {
        subject.clone_into(&mut self.filter);
        self
    }

    /// Reads no bodies.
    pub(crate) fn headers_only(mut self) -> Self {
        self.headers_only = true;
        self
    }

    /// Asks for so many messages at once: no more wait in memory.
    pub(crate) fn batch(mut self, count: usize) -> Self {
        self.batch = count;
        self
    }

    /// Goes on with another sequence.
    pub(crate) fn skip_to(&mut self, next: u64) {
        (self.next, self.since, self.source) = (next.max(1), None, None);
    }

    /// Whether it waits for the first message from a time on.
    pub(crate) const fn seeks(&self) -> bool {
        self.since.is_some()
    }

    /// The stream's state.
    pub(crate) async fn state(&self) -> Result<State, WireError> {
        state(&self.wire, &self.stream).await
    }

    /// Reads no other stream than the one that was made then: the error is [`WireError::Anew`].
    pub(crate) fn made(mut self, made: &str) -> Self {
        self.made = Some(made.to_owned());
        self
    }

    /// Ends with what is there.
    pub(crate) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// The next thing that happens.
    pub(crate) async fn next(&mut self) -> Result<Step, WireError> {
        let mut source = match self.source.take() {
            Some(source) if source.link == self.wire.link().borrow().number => source,
            _ => self.open().await?,
        };
        if source.pull.outstanding() == 0 {
            source.pull.ask(self.batch).await?;
        }
        // The consumer dies with the connection, and its silence would be noticed much later.
        let (mut link, made_on) = (self.wire.link(), source.link);
        let pulled = tokio::select! {
            pulled = source.pull.next() => pulled,
            Ok(_) = link.wait_for(|link| link.number != made_on) => return Ok(Step::Idle),
        };
        match pulled {
            Pulled::Message(message) => {
                let arrived = Arrived::new(*message)
                    .ok_or_else(|| WireError::Other("a message without a place".to_owned()))?;
                if arrived.place.consumer_sequence != source.number {
                    // Some were lost on the way: make a new consumer at the one that is missing.
                    self.drop_consumer(&source.consumer).await;
                    return Ok(Step::Idle);
                }
                source.number += 1;
                self.source = Some(source);
                if arrived.place.stream_sequence < self.next {
                    return Ok(Step::Idle);
                }
                self.next = arrived.place.stream_sequence + 1;
                self.behind = Some(arrived.place.pending);
                self.since = None;
                Ok(Step::Message(Box::new(arrived)))
            }
            Pulled::Alive(given) => {
                let given = given.filter(|given| given.consumer_sequence + 1 == source.number);
                if let Some(given) = given {
                    self.next = self.next.max(given.stream_sequence + 1);
                    self.since = None;
                }
                self.source = Some(source);
                Ok(if self.once { Step::End } else { Step::Idle })
            }
            Pulled::Ended(_) => {
                self.source = Some(source);
                Ok(if self.once { Step::End } else { Step::Idle })
            }
            Pulled::NotReady(_) | Pulled::Gone | Pulled::Silent => {
                Err(WireError::Other("the reader's consumer is gone".to_owned()))
            }
        }
    }

    /// The next message of those up to a sequence; `None` where there is no more. For readers that
    /// read `once`, where nothing may be missed: that there is no more is believed when a second
    /// consumer says so.
    pub(crate) async fn next_until(
        &mut self,
        last: u64,
    ) -> Result<Option<Box<Arrived>>, WireError> {
        let mut ends = 0;
        while self.next <= last && ends < 2 {
            match self.next().await? {
                Step::Message(arrived) => return Ok(Some(arrived)),
                Step::Idle => {}
                Step::End => {
                    ends += 1;
                    self.source = None;
                }
            }
        }
        Ok(None)
    }

    /// Makes the consumer, so that what is wrong with the stream is known before anything is read.
    pub(crate) async fn start(&mut self) -> Result<(), WireError> {
        self.source = Some(self.open().await?);
        Ok(())
    }

    async fn open(&mut self) -> Result<Source, WireError> {
        let Self { wire, stream, .. } = self;
        if !wire.up(REQUEST).await {
            return Err(WireError::Down);
        }
        let link = wire.link().borrow().number;
        if let Some(made) = &self.made
            && state(wire, stream).await?.made != *made
        {
            return Err(WireError::Anew);
        }
        let body = json!({ "stream_name": stream, "config": self.settings() });
        let Self { wire, stream, .. } = self;
        let made = wire
            .api(&format!("CONSUMER.CREATE.{stream}"), &body)
            .await?;
        let consumer = made
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        self.openings += 1;
        self.behind = made.get("num_pending").and_then(Value::as_u64);
        // Where a time is in the stream, only the server knows.
        let begins = made
            .pointer("/delivered/stream_seq")
            .and_then(Value::as_u64);
        if let Some(begins) = begins.filter(|_| self.since.is_some()) {
            self.next = begins + 1;
        }
        let mut pull = Pull::open(wire, stream, &consumer).await?;
        if self.once {
            pull = pull.no_wait();
        }
        Ok(Source {
            pull,
            consumer,
            number: 1,
            link,
        })
    }

    fn settings(&self) -> Value {
        let mut config = json!({
            "deliver_policy": "all",
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": INACTIVE_S * 1_000_000_000,
            "mem_storage": true,
            "num_replicas": 1,
        });
        let mut set = |field: &str, value: Value| {
            if let Some(fields) = config.as_object_mut() {
                fields.insert(field.to_owned(), value);
            }
        };
        if let Some(since) = self.since {
            set("deliver_policy", json!("by_start_time"));
            set("opt_start_time", json!(since.to_string()));
        } else if self.next > 1 {
            set("deliver_policy", json!("by_start_sequence"));
            set("opt_start_seq", json!(self.next));
        }
        if !self.filter.is_empty() {
            set("filter_subject", json!(self.filter));
        }
        if self.headers_only {
            set("headers_only", json!(true));
        }
        config
    }

    /// Gives the consumer back.
    pub(crate) async fn close(mut self) {
        if let Some(source) = self.source.take() {
            self.drop_consumer(&source.consumer).await;
        }
    }

    /// It would expire; deleting it is polite, and not allowed where it could be another's.
    async fn drop_consumer(&self, consumer: &str) {
        if !topology::names_all_consumers_of(&self.stream) {
            return;
        }
        let asked = format!("$JS.API.CONSUMER.DELETE.{}.{consumer}", self.stream);
        self.wire.send(asked.into(), Bytes::new()).await;
    }
}
