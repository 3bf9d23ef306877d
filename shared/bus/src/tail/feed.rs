//! The reading side of a tail: what the server gives, what it does not hold any more, and when that
//! is looked at.
//!
//! A stream is looked at whenever a consumer was made for it, for only then may its beginning or
//! its end be another one than was read; and while a reader was so slow that the stream's limits may
//! have overtaken him.

use std::time::Duration;

use chassis::Cx;
use tokio::{sync::mpsc, time::Instant};

use super::{BUCKET, Heard, Missed, Tailed};
use crate::{
    Bus,
    consume::Arrived,
    error::StoreError,
    random,
    reader::{Reader, Step},
    store::is_marker,
    subject,
    wire::{PAUSE, WireError},
};

/// Messages asked for at once.
pub(super) const BATCH: usize = 64;
/// Who keeps a message waiting for so long may have been overtaken by the stream's limits.
pub(super) const SLOW: Duration = Duration::from_secs(2);

/// The reading side of a [`Tail`].
pub(super) struct Feed {
    bus: Bus,
    stream: String,
    filter: String,
    reader: Reader,
    sender: mpsc::Sender<Heard>,
    /// The consumer that was looked at last.
    looked_at: u64,
    /// When the stream was made, as it was looked at last.
    created: Option<String>,
    /// How many messages more may follow on some that the stream dropped before they were sent.
    doubtful: usize,
    caught_up: bool,
    /// What was said last to be passed.
    passed: u64,
}

/// Nobody listens any more.
struct Closed;

/// What a look at the stream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// What the reader gives comes next.
    GoesOn,
    /// Reading begins at another place.
    Elsewhere,
}

// === impl Feed ===

impl Feed {
    pub(super) fn new(
        bus: &Bus,
        (stream, filter): (&str, &str),
        reader: Reader,
        sender: mpsc::Sender<Heard>,
    ) -> Self {
        Self {
            bus: bus.clone(),
            stream: stream.to_owned(),
            filter: filter.to_owned(),
            passed: reader.next - 1,
            reader,
            sender,
            looked_at: 0,
            created: None,
            doubtful: 0,
            caught_up: false,
        }
    }

    /// Reads until nobody listens or `cx` stops.
    pub(super) async fn run(mut self, cx: &Cx) {
        let sender = self.sender.clone();
        tokio::select! {
            () = cx.stopped() => {}
            () = sender.closed() => {}
            _ = self.read() => {}
        }
        self.reader.close().await;
    }

    async fn read(&mut self) -> Result<(), Closed> {
        loop {
            if let Err(error) = self.step().await? {
                tracing::debug!(%error, "reading `{}` again: {error}", self.stream);
                tokio::time::sleep(random::jitter(PAUSE)).await;
            }
        }
    }

    async fn step(&mut self) -> Result<Result<(), WireError>, Closed> {
        let wanted = self.reader.next;
        match self.look(wanted).await? {
            Ok(Look::GoesOn) => {}
            Ok(Look::Elsewhere) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
        if !self.caught_up && self.reader.behind == Some(0) {
            self.caught_up = true;
            self.say(Heard::CaughtUp).await?;
        }
        let arrived = match self.reader.next().await {
            Ok(Step::Message(arrived)) => arrived,
            Ok(Step::Idle | Step::End) => {
                let passed = self.reader.next - 1;
                if passed > self.passed && !self.reader.seeks() {
                    self.passed = passed;
                    self.say(Heard::UpTo(passed)).await?;
                }
                return Ok(Ok(()));
            }
            Err(error) => return Ok(Err(error)),
        };
        // It may come from a consumer that was made just now.
        match self.look(wanted).await? {
            Ok(Look::GoesOn) => {}
            Ok(Look::Elsewhere) => return Ok(Ok(())),
            Err(error) => {
                self.reader.skip_to(wanted);
                return Ok(Err(error));
            }
        }
        if self.doubtful > 0 {
            self.doubtful -= 1;
            self.look_before(wanted, arrived.place.stream_sequence)
                .await?;
        }
        if subject::matches(&self.filter, &arrived.subject) {
            let tailed = self.tailed(*arrived).await;
            self.passed = tailed.sequence;
            self.say(Heard::Message(Box::new(tailed))).await?;
        }
        Ok(Ok(()))
    }

    /// Looks, where a consumer was made, whether the stream still holds what is wanted next.
    async fn look(&mut self, wanted: u64) -> Result<Result<Look, WireError>, Closed> {
        let opening = self.reader.openings;
        if self.looked_at == opening {
            return Ok(Ok(Look::GoesOn));
        }
        let state = match self.reader.state().await {
            Ok(state) => state,
            Err(error) => return Ok(Err(error)),
        };
        self.looked_at = opening;
        let known = self.created.replace(state.made.clone());
        if wanted == 1 || self.reader.seeks() {
            return Ok(Ok(Look::GoesOn));
        }
        // A stream that holds nothing begins behind its last message.
        let first = match state.messages {
            0 => state.last + 1,
            _ => state.first,
        };
        let is_other = known.as_ref().is_some_and(|known| *known != state.made);
        let is_ahead = wanted > state.last + 1;
        let missed = |to, next| Missed {
            from: wanted,
            to,
            next,
        };
        let (missed, look) = if is_other || (is_ahead && known.is_none()) {
            (missed(None, 1), Look::Elsewhere)
        } else if is_ahead {
            // The server was cut off before all of it was on its disk.
            (missed(None, state.last + 1), Look::Elsewhere)
        } else if first > wanted && !self.stream.starts_with(BUCKET) {
            (missed(Some(first - 1), first), Look::GoesOn)
        } else {
            return Ok(Ok(Look::GoesOn));
        };
        match look {
            Look::Elsewhere => self.reader.skip_to(missed.next),
            Look::GoesOn => self.reader.next = self.reader.next.max(missed.next),
        }
        self.passed = missed.next - 1;
        self.say(Heard::Missed(missed)).await?;
        Ok(Ok(look))
    }

    /// Looks whether the stream dropped what would have come before a message.
    async fn look_before(&mut self, wanted: u64, sequence: u64) -> Result<(), Closed> {
        if sequence == wanted {
            return Ok(());
        }
        let Ok(state) = self.reader.state().await else {
            // It cannot be told now; the next message asks again.
            return Ok(());
        };
        let first = state.first.min(sequence);
        if first > wanted {
            let missed = Missed {
                from: wanted,
                to: Some(first - 1),
                next: first,
            };
            self.say(Heard::Missed(missed)).await?;
        }
        Ok(())
    }

    async fn say(&mut self, heard: Heard) -> Result<(), Closed> {
        let since = Instant::now();
        self.sender.send(heard).await.map_err(|_| Closed)?;
        if since.elapsed() > SLOW {
            self.doubtful = BATCH + 1;
        }
        Ok(())
    }

    async fn tailed(&self, arrived: Arrived) -> Tailed {
        let (stream, sequence) = (&self.stream, arrived.place.stream_sequence);
        let body = if is_marker(&arrived.headers) {
            None
        } else {
            loop {
                match self.bus.resolve(&arrived).await {
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
}
