//! Asking for messages: never more than there are permits for, so that no message waits in a
//! buffer while its time to acknowledge runs.

use std::{collections::VecDeque, time::Duration};

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use tokio::time::timeout;

use crate::wire::{Wire, WireError};

/// How long a request for messages stands.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server says that it still stands.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long the server may take to end a subscription.
const DRAIN: Duration = Duration::from_secs(1);
/// Silence that means the request is lost.
const SILENCE: Duration = Duration::from_secs(12);

/// One inbox, and the requests that stand on it.
pub(crate) struct Pull {
    wire: Wire,
    subject: String,
    inbox: String,
    subscriber: Subscriber,
    /// Requests that stand, oldest first: number, messages still to come. The server serves them
    /// in that order.
    standing: VecDeque<(u64, usize)>,
    number: u64,
    no_wait: bool,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Pulled {
    Message(Box<Message>),
    /// So many messages of a request will not come any more.
    Ended(usize),
    /// The same, and the server is not ready: ask a little later.
    NotReady(usize),
    /// The consumer is gone.
    Gone,
    /// No sign of life: what stood is lost.
    Silent,
    /// A sign of life, with what the server has given so far.
    Alive(Option<Given>),
}

/// What a consumer has given so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    /// The last message, in the consumer's numbers.
    pub(crate) consumer_sequence: u64,
    /// Nothing that fits is left up to this sequence of the stream.
    pub(crate) stream_sequence: u64,
}

// === impl Pull ===

impl Pull {
    pub(crate) async fn open(wire: &Wire, stream: &str, consumer: &str) -> Result<Self, WireError> {
        let inbox = wire.client.new_inbox();
        let subscriber = wire.client.subscribe(format!("{inbox}.*")).await;
        Ok(Self {
            wire: wire.clone(),
            subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            inbox,
            subscriber: subscriber.map_err(|error| WireError::Other(error.to_string()))?,
            standing: VecDeque::new(),
            number: 0,
            no_wait: false,
        })
    }

    /// Requests end as soon as there is nothing more.
    pub(crate) fn no_wait(mut self) -> Self {
        self.no_wait = true;
        self
    }

    /// Asks for `count` messages more.
    pub(crate) async fn ask(&mut self, count: usize) -> Result<(), WireError> {
        self.number += 1;
        let body = if self.no_wait {
            json!({ "batch": count, "no_wait": true })
        } else {
            json!({
                "batch": count,
                "expires": EXPIRES.as_nanos(),
                "idle_heartbeat": HEARTBEAT.as_nanos(),
            })
        };
        let reply = format!("{}.{}", self.inbox, self.number);
        let body = Bytes::from(body.to_string());
        let asked = self
            .wire
            .client
            .publish_with_reply(self.subject.clone(), reply, body);
        timeout(SILENCE, asked)
            .await
            .map_err(|_| WireError::TimedOut)?
            .map_err(|error| WireError::Other(error.to_string()))?;
        self.standing.push_back((self.number, count));
        Ok(())
    }

    /// How many messages are still to come.
    pub(crate) fn outstanding(&self) -> usize {
        self.standing.iter().map(|(_, count)| count).sum()
    }

    /// Forgets the requests that stand, as after a reconnect.
    pub(crate) fn forget(&mut self) {
        self.standing.clear();
    }

    /// The next thing that comes. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Pulled {
        let message = match timeout(SILENCE, self.subscriber.next()).await {
            Ok(Some(message)) => message,
            Ok(None) => return Pulled::Gone,
            Err(_) => return Pulled::Silent,
        };
        let Some(status) = message.status else {
            self.count_down();
            return Pulled::Message(Box::new(message));
        };
        let description = message.description.as_deref().unwrap_or_default();
        let number = message
            .subject
            .rsplit('.')
            .next()
            .and_then(|token| token.parse().ok());
        match status {
            StatusCode::IDLE_HEARTBEAT => Pulled::Alive(Given::of(&message)),
            StatusCode::REQUEST_TERMINATED if description.contains("Consumer Deleted") => {
                Pulled::Gone
            }
            StatusCode::NOT_FOUND | StatusCode::TIMEOUT => Pulled::Ended(self.end(number)),
            StatusCode::REQUEST_TERMINATED if description.contains("Batch Completed") => {
                Pulled::Ended(self.end(number))
            }
            _ => {
                tracing::debug!(%status, "pull request ended: {description}");
                Pulled::NotReady(self.end(number))
            }
        }
    }

    /// Takes nothing more, and gives what had been sent already.
    pub(crate) async fn drain(mut self) -> Vec<Message> {
        let mut came = Vec::new();
        if self.subscriber.drain().await.is_err() {
            return came;
        }
        while let Ok(Some(message)) = timeout(DRAIN, self.subscriber.next()).await {
            if message.status.is_none() {
                came.push(message);
            }
        }
        came
    }

    fn count_down(&mut self) {
        if let Some((_, count)) = self.standing.front_mut() {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.standing.pop_front();
            }
        }
    }

    fn end(&mut self, number: Option<u64>) -> usize {
        let position = self
            .standing
            .iter()
            .position(|(known, _)| Some(*known) == number);
        position
            .and_then(|position| self.standing.remove(position))
            .map_or(0, |(_, count)| count)
    }
}

// === impl Given ===

impl Given {
    fn of(heartbeat: &Message) -> Option<Self> {
        let headers = heartbeat.headers.as_ref()?;
        let number = |name: &str| headers.get(name)?.as_str().parse().ok();
        Some(Self {
            consumer_sequence: number("Nats-Last-Consumer")?,
            stream_sequence: number("Nats-Last-Stream")?,
        })
    }
}
