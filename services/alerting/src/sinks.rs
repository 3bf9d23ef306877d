//! Sinks: where alerts go.
//!
//! | sink | where |
//! |---|---|
//! | `log` | a line in the process's own log |
//! | `webhook` | an event in `CloudEvents` JSON, posted to a URL |
//!
//! A sink is a file with its configuration and a function that renders an alert; it sends nothing
//! itself. Deadlines, retries and what a status means are the same for all, in `send` and in the
//! handler. Each sink has a consumer of its own, so one that is away holds up no other.
//!
//! To add one: its file, its variant in [`SinkConfig`], its row above, and the request that it
//! makes of the example alert as a snapshot.

pub mod log;
pub(crate) mod send;
pub mod webhook;

use bus::{Delivery, Failure, Handler, Outcome};
use chassis::Cx;
use model::{Slug, event::Alert};
use serde::{Deserialize, Serialize};

use self::send::{Request, Sent};
use crate::metrics;

/// A sink as the operator configures it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SinkConfig {
    /// The process's own log.
    Log(log::Config),
    /// An event in `CloudEvents` JSON, posted to a URL.
    Webhook(webhook::Config),
}

/// Takes alerts to one sink.
pub(crate) struct SinkHandler {
    pub(crate) cx: Cx,
    pub(crate) name: Slug,
    pub(crate) config: SinkConfig,
    pub(crate) client: reqwest::Client,
}

/// An alert on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    /// The same on every copy.
    pub(crate) id: &'a str,
    pub(crate) tenant: &'a Slug,
    pub(crate) alert: &'a Alert,
}

/// What a sink makes of an alert.
#[derive(Debug)]
pub(crate) enum Rendered {
    /// It is written already.
    Logged,
    /// To be sent.
    Request(Request),
}

// === impl SinkConfig ===

impl SinkConfig {
    /// Whether it can ever work; asked once, at the start.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::Log(_) => Ok(()),
            Self::Webhook(config) => config.check(),
        }
    }

    fn render(&self, outgoing: &Outgoing<'_>) -> anyhow::Result<Rendered> {
        match self {
            Self::Log(log::Config {}) => {
                log::write(outgoing);
                Ok(Rendered::Logged)
            }
            Self::Webhook(config) => config.render(outgoing).map(Rendered::Request),
        }
    }
}

// === impl SinkHandler ===

impl Handler for SinkHandler {
    type Input = Alert;

    async fn handle(&self, delivery: Delivery<Alert>) -> Result<Outcome, Failure> {
        let Delivery {
            tenant, id, body, ..
        } = &delivery;
        let result = self
            .deliver(&Outgoing {
                id,
                tenant,
                alert: body,
            })
            .await;
        let name = match &result {
            Ok(()) => "delivered",
            Err(Failure::Retry(_)) => "retry",
            Err(Failure::Reject(_)) => "refused",
        };
        metrics::delivered(self.name.as_str(), name);
        result.map(|()| Outcome::none())
    }
}

impl SinkHandler {
    /// The one place that decides what is tried again.
    async fn deliver(&self, outgoing: &Outgoing<'_>) -> Result<(), Failure> {
        let place = |error: anyhow::Error| error.context(format!("sink `{}`", self.name));
        // What cannot be rendered waits for the operator: a secret that is not there yet.
        let rendered = self
            .config
            .render(outgoing)
            .map_err(|error| Failure::Retry(place(error)))?;
        let Rendered::Request(request) = rendered else {
            return Ok(());
        };
        match send::send(&self.cx, &self.client, request).await {
            Sent::Delivered => Ok(()),
            Sent::Later(error) => Err(Failure::Retry(place(error))),
            Sent::Refused(error) => Err(Failure::Reject(place(error))),
        }
    }
}

#[cfg(test)]
mod tests;
