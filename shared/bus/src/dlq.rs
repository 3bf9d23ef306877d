//! Dead letters: messages that could not be handled, as they were, with a way back.
//!
//! A letter that is retried leaves the stream of letters. What was an event is published again for
//! the consumer that gave it up, and for no other; what was a record is written again as it is,
//! unless it was replaced since: then the newer state was an event of its own.

use futures::{StreamExt, stream};
use model::event::{AttemptCounts, Attempts, DLQ, DeadLetter};
use serde_json::json;

use crate::{
    Bus, Consume, Headers,
    consume::Arrived,
    envelope::{Attributes, MESSAGE_ID, decode, encode},
    error::{BusError, PutError, StoreError},
    metrics::metrics,
    reader::state,
    store::{
        backend::Backend as _,
        nats::{Nats, WRITE_ID},
    },
    subject,
    wire::WireError,
};

/// Names the one consumer that a message is for.
const ONLY: &str = "tw-only";
/// How many letters are read at once.
const PARALLEL: usize = 16;
/// How many sequences are looked at for one page: letters that were dropped leave gaps.
const LOOKS_MAX: u64 = 50_000;

/// A dead letter with the number by which people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its sequence among the dead letters.
    pub number: u64,
    /// The letter.
    pub letter: DeadLetter,
}

/// A page of dead letters, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Letters {
    /// The letters.
    pub letters: Vec<Letter>,
    /// Where older ones begin: the `before` of the next page. `None`: there are none.
    pub before: Option<u64>,
}

/// What a retry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retried {
    /// The message comes again.
    Again,
    /// Nothing: the record was replaced since, and what replaced it came by itself.
    Superseded,
}

impl Bus {
    /// Dead letters with numbers below `before`, newest first, at most `limit` of them.
    pub async fn dead_letters(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Letters, BusError> {
        let state = state(&self.0.wire, DLQ).await.map_err(failed)?;
        let top = state.last.saturating_add(1);
        let top = before.unwrap_or(top).min(top);
        let bottom = state.first.max(1).max(top.saturating_sub(LOOKS_MAX));
        let mut found = stream::iter((bottom..top).rev())
            .map(async |number| self.dead_letter(number).await)
            .buffered(PARALLEL);
        let mut page = Letters::default();
        while page.letters.len() < limit {
            match found.next().await {
                Some(letter) => page.letters.extend(letter?),
                None if bottom > state.first.max(1) => {
                    page.before = Some(bottom);
                    return Ok(page);
                }
                None => return Ok(page),
            }
        }
        page.before = page.letters.last().map(|letter| letter.number);
        Ok(page)
    }

    /// How many dead letters there are.
    pub async fn dead_letter_count(&self) -> Result<u64, BusError> {
        let state = state(&self.0.wire, DLQ).await.map_err(failed)?;
        Ok(state.messages)
    }

    /// One dead letter.
    pub async fn dead_letter(&self, number: u64) -> Result<Option<Letter>, BusError> {
        let raw = self.0.wire.direct(DLQ, &json!({ "seq": number })).await;
        let Some(raw) = raw.map_err(failed)? else {
            return Ok(None);
        };
        let letter = decode(&raw.body).map_err(|error| StoreError::Malformed {
            what: format!("{DLQ}/{number}"),
            cause: error.to_string(),
        })?;
        Ok(Some(Letter { number, letter }))
    }

    /// Lets the message of a dead letter be handled again, and drops the letter. `None`: there is
    /// no such letter, or not any more. Doing it twice is like doing it once.
    pub async fn retry_letter(&self, number: u64) -> Result<Option<Retried>, BusError> {
        let Some(Letter { letter, .. }) = self.dead_letter(number).await? else {
            return Ok(None);
        };
        let retried = if let Some((bucket, key)) = subject::key_of(&letter.subject) {
            self.write_again(bucket, key, &letter).await?
        } else {
            self.publish_again(&letter).await?;
            Retried::Again
        };
        self.drop_letter(number).await?;
        Ok(Some(retried))
    }

    /// Drops a dead letter for good. False: there is none.
    pub async fn drop_letter(&self, number: u64) -> Result<bool, BusError> {
        let wire = &self.0.wire;
        let known = wire.direct(DLQ, &json!({ "seq": number })).await;
        if known.map_err(failed)?.is_none() {
            return Ok(false);
        }
        let asked = format!("STREAM.MSG.DELETE.{DLQ}");
        let body = json!({ "seq": number, "no_erase": true });
        wire.api(&asked, &body).await.map_err(failed)?;
        Ok(true)
    }

    /// Keeps a message as it was, with why it failed. Doing it again changes nothing.
    pub(crate) async fn bury(
        &self,
        consume: &Consume,
        arrived: &Arrived,
        cause: String,
        attempts: &Attempts,
    ) -> Result<(), BusError> {
        let Consume {
            stream, durable, ..
        } = consume;
        let sequence = arrived.place.stream_sequence;
        tracing::warn!("`{stream}/{durable}` message {sequence} is a dead letter: {cause}");
        let store = &self.0.store;
        if let Err(error) = store.renew_claim(&arrived.subject, &arrived.headers).await {
            tracing::debug!(%error, "the claim of a dead letter is not renewed: {error}");
        }
        let letter = DeadLetter {
            stream: stream.clone(),
            sequence,
            consumer: durable.clone(),
            subject: arrived.subject.clone(),
            cause,
            headers: owned(&arrived.headers),
            body: arrived.body.to_vec(),
            at: self.0.cx.now(),
            trace: trace(&arrived.headers),
            attempts: AttemptCounts {
                delivered: arrived.place.delivered,
                crashes: attempts.crashes,
                transient: attempts.transient,
            },
        };
        let body = encode(&letter).map_err(StoreError::from)?;
        // Two consumers may give up on the same message: each has its letter.
        let id = format!("dlq:{stream}:{durable}:{sequence}");
        let mut headers = Headers::default().with(MESSAGE_ID, &*id);
        headers.describe(&Attributes {
            id: &id,
            kind: DeadLetter::KIND,
            source: "/bus",
            tenant: subject::tenant(&arrived.subject).as_ref(),
            time: letter.at,
        });
        let to = format!("tw.dlq.{stream}.{durable}");
        self.0
            .wire
            .store(&to, &headers, body)
            .await
            .map_err(failed)?;
        metrics().dead_letter(durable);
        Ok(())
    }

    /// Publishes an event again. Its CloudEvents id stays, so that nothing new follows from it; its
    /// message id is a new one, the same for every retry of this letter.
    async fn publish_again(&self, letter: &DeadLetter) -> Result<(), BusError> {
        let DeadLetter {
            stream,
            consumer,
            sequence,
            subject,
            ..
        } = letter;
        let headers = ours(&letter.headers)
            .with(
                MESSAGE_ID,
                format!("dlq:retry:{stream}:{consumer}:{sequence}"),
            )
            .with(ONLY, consumer);
        self.0.store.renew_claim(subject, &headers).await?;
        let body = letter.body.clone().into();
        match self.0.wire.store(subject, &headers, body).await {
            Ok(_) => Ok(()),
            Err(WireError::Full(_)) => Err(BusError::Full(subject.clone())),
            Err(error) => Err(error.about(subject)),
        }
    }

    /// Writes a record again as it is, if it is still there.
    async fn write_again(
        &self,
        bucket: &str,
        key: &str,
        letter: &DeadLetter,
    ) -> Result<Retried, BusError> {
        let nats = Nats(self.0.wire.clone());
        let (headers, body) = (ours(&letter.headers), letter.body.clone().into());
        let written = nats
            .put(bucket, key, headers, body, Some(letter.sequence))
            .await;
        match written {
            Ok(_) => Ok(Retried::Again),
            Err(PutError::Conflict) => Ok(Retried::Superseded),
            Err(PutError::Store(error)) => Err(error.into()),
        }
    }
}

/// Whether a message is for a consumer: all are, but those that another one gave up.
pub(crate) fn is_for(durable: &str, arrived: &Arrived) -> bool {
    let only = arrived.headers.get(ONLY);
    only.is_none_or(|only| only == durable) || subject::key_of(&arrived.subject).is_some()
}

/// Whether a message was a dead letter before. A record does not remember it.
pub(crate) fn is_retried(arrived: &Arrived) -> bool {
    arrived.headers.get(ONLY).is_some()
}

/// The trace that a message belongs to.
fn trace(headers: &Headers) -> Option<String> {
    let trace = headers.get("traceparent")?.split('-').nth(1)?;
    let is_id = trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| trace.to_owned())
}

fn owned(headers: &Headers) -> Vec<(String, String)> {
    let pairs = headers.iter();
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The headers that belong to the message, and not to how it was stored.
fn ours(headers: &[(String, String)]) -> Headers {
    let stays = |name: &str| {
        let of_server = name
            .get(..5)
            .is_some_and(|five| five.eq_ignore_ascii_case("nats-"));
        !of_server && !name.eq_ignore_ascii_case(ONLY) && !name.eq_ignore_ascii_case(WRITE_ID)
    };
    let kept = headers.iter().filter(|(name, _)| stays(name));
    kept.cloned().collect()
}

fn failed(error: WireError) -> BusError {
    error.about(DLQ)
}

#[cfg(test)]
mod tests;
