//! Questions with one answer each, between processes that know of each other: nothing is stored, and
//! who asks asks again where no answer comes.

use std::future::Future;

use futures::StreamExt as _;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Bus,
    envelope::{decode, encode},
    error::BusError,
    metrics::metrics,
    subject,
    wire::{Wire, WireError},
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there, or nobody in time. Another try may find somebody.
    #[error("nobody answers: {0}")]
    Silence(String),
    /// There is an answer, and it cannot be read.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
    /// This process may not ask that, or could not.
    #[error("{0}")]
    Failed(String),
}

impl Bus {
    /// Asks whoever answers on a subject, once.
    pub async fn ask<A: DeserializeOwned>(
        &self,
        subject: &str,
        question: &impl Serialize,
    ) -> Result<A, AskError> {
        let body = encode(question).map_err(|error| AskError::Failed(error.to_string()))?;
        let started = tokio::time::Instant::now();
        let answer = self.0.wire.call(subject.to_owned(), None, body).await;
        let error = answer.as_ref().err().map(WireError::kind);
        metrics().sent(subject::template(subject), started.elapsed(), error);
        let answer = answer.map_err(|error| match error {
            WireError::Down | WireError::TimedOut | WireError::NoResponders => {
                AskError::Silence(error.to_string())
            }
            other => AskError::Failed(other.to_string()),
        })?;
        decode(&answer.payload).map_err(|error| AskError::Unreadable(error.to_string()))
    }

    /// Answers questions on a subject, one after the other, until this process stops. What cannot be
    /// read gets no answer.
    pub async fn answer<Q, A, F>(
        &self,
        subject: &str,
        mut answer: impl FnMut(Q) -> F,
    ) -> Result<(), BusError>
    where
        Q: DeserializeOwned,
        A: Serialize,
        F: Future<Output = A>,
    {
        let cx = &self.0.cx;
        let mut questions = self.0.wire.listen(subject).await?;
        loop {
            let message = tokio::select! {
                () = cx.stopped() => return Ok(()),
                message = questions.next() => message,
            };
            // The client gave up for good.
            let Some(message) = message else {
                return Ok(());
            };
            let Some(reply) = message.reply else { continue };
            let question = match decode::<Q>(&message.payload) {
                Ok(question) => question,
                Err(error) => {
                    tracing::debug!(%error, "a question on `{subject}` cannot be read: {error}");
                    continue;
                }
            };
            let said = answer(question).await;
            match encode(&said) {
                Ok(body) => self.0.wire.send(reply, body).await,
                Err(error) => tracing::warn!(%error, "an answer cannot be written: {error}"),
            }
        }
    }
}

// === impl Wire ===

impl Wire {
    /// Messages on a subject, as they come; a connection that is lost is made again.
    async fn listen(&self, subject: &str) -> Result<async_nats::Subscriber, BusError> {
        let listening = self.client.subscribe(subject.to_owned()).await;
        listening.map_err(|error| WireError::Other(error.to_string()).about(subject))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chassis::Cx;

    use super::*;
    use crate::testing::Server;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_question_gets_its_answer_and_silence_is_no_answer() {
        let Some(server) = Server::start().await else {
            return;
        };
        let cx = Cx::for_tests();
        let bus = Bus::connect(&cx, &server.config(), "test").await.unwrap();
        let asked = bus.ask::<u32>("tw.req.default.blob.a", &1_u32).await;
        assert!(matches!(asked, Err(AskError::Silence(_))), "{asked:?}");
        let here = bus.clone();
        cx.spawn("answers", async move {
            let answered = here
                .answer("tw.req.default.blob.a", async |n: u32| n + 1)
                .await;
            answered.unwrap();
        });
        let ask = async || bus.ask::<u32>("tw.req.default.blob.a", &1_u32).await;
        crate::testing::eventually("an answer", async || ask().await.is_ok()).await;
        assert_eq!(ask().await.unwrap(), 2);
        // What is no question has no answer; others are still answered.
        let lost = bus.ask::<u32>("tw.req.default.blob.a", &"text");
        let lost = tokio::time::timeout(Duration::from_millis(200), lost).await;
        assert!(lost.is_err());
        assert_eq!(ask().await.unwrap(), 2);
        let odd = bus.ask::<String>("tw.req.default.blob.a", &1_u32).await;
        assert!(matches!(odd, Err(AskError::Unreadable(_))), "{odd:?}");
    }
}
