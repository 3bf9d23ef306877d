//! Sinks: where alerts go.
//!
//! | sink | where |
//! |---|---|
//! | `log` | a line in the process's own log |
//! | `webhook` | an event in `CloudEvents` JSON, posted to a URL, signed |
//! | `slack` | a message in a channel, by an incoming webhook |
//! | `email` | a mail, over SMTP |
//!
//! A sink is a file with its configuration and a function that renders a notification; it sends
//! nothing itself. Deadlines, pauses and what an answer means are the same for all, in `send` and
//! `pace`. Each sink has a consumer of its own, so one that is away holds up no other. What a sink
//! is told is in `route`, what goes out together in `group`, what comes before what in `order`.
//!
//! To add one: its file, its variant in [`SinkConfig`], its row above, and what it makes of the
//! example alert as a snapshot.

mod deliver;
pub mod email;
mod group;
pub mod log;
mod order;
mod outgoing;
mod pace;
mod route;
pub(crate) mod send;
pub mod slack;
pub mod webhook;

use anyhow::ensure;
use model::Severity;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::{
    deliver::SinkHandler,
    outgoing::{Item, Outgoing},
    pace::Pace,
};
use self::{email::Mail, send::Request};

/// Windows beyond this hold more than a process should.
const GROUP_WINDOW_S_MAX: u32 = 300;

/// A sink as the operator configures it: where alerts go, which ones, and how many at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct Sink {
    /// Where.
    #[serde(flatten)]
    pub target: SinkConfig,
    /// Which, and how many at once.
    #[serde(flatten)]
    pub route: Route,
}

/// Where a sink takes alerts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SinkConfig {
    /// The process's own log.
    Log(log::Config),
    /// An event in `CloudEvents` JSON, posted to a URL.
    Webhook(webhook::Config),
    /// A message in a channel of Slack.
    Slack(slack::Config),
    /// A mail.
    Email(email::Config),
}

/// Which alerts a sink is told, and how many at once; the same for every kind of sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// Alerts that are less bad are not told. What was told when it was raised is told when it is
    /// resolved.
    pub min_severity: Severity,
    /// Globs over `registry/repository`, as `registry.example/team/*`; empty for all. An alert
    /// without a name fits none.
    pub repositories: Vec<String>,
    /// Whether to tell that an alert is resolved.
    pub send_resolved: bool,
    /// Alerts with the same group key that arrive within so many seconds go out as one
    /// notification; 0 sends each by itself.
    pub group_window_s: u32,
    /// What alerts of a group have in common.
    pub group_by: GroupBy,
}

/// What alerts of a group have in common, beside their tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// The repository of the image.
    #[default]
    Repository,
    /// The image.
    Image,
    /// The severity.
    Severity,
    /// The policy.
    Policy,
}

/// What a sink makes of a notification.
#[derive(Debug)]
pub(crate) enum Rendered {
    /// It is written already.
    Logged,
    /// To be posted.
    Request(Request),
    /// To be mailed.
    Mail(Box<Mail>),
}

// === impl Sink ===

impl Sink {
    /// A sink that is told everything, one by one.
    pub fn of(target: SinkConfig) -> Self {
        Self {
            target,
            route: Route::default(),
        }
    }

    /// Whether it can ever work; asked once, at the start.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.target.check()?;
        let window = self.route.group_window_s;
        ensure!(
            window <= GROUP_WINDOW_S_MAX,
            "`group_window_s` is {window}, at most {GROUP_WINDOW_S_MAX} are allowed"
        );
        self.route.names().map(drop)
    }
}

/// The keys of both parts stand side by side, and a key that neither knows is still an error.
impl TryFrom<Map<String, Value>> for Sink {
    type Error = serde_json::Error;

    fn try_from(given: Map<String, Value>) -> Result<Self, serde_json::Error> {
        let known = serde_json::to_value(Route::default())?;
        let (route, target): (Map<_, _>, Map<_, _>) = given
            .into_iter()
            .partition(|(key, _)| known.get(key).is_some());
        Ok(Self {
            target: serde_json::from_value(Value::Object(target))?,
            route: serde_json::from_value(Value::Object(route))?,
        })
    }
}

impl Default for Route {
    fn default() -> Self {
        Self {
            min_severity: Severity::Unknown,
            repositories: Vec::new(),
            send_resolved: true,
            group_window_s: 0,
            group_by: GroupBy::default(),
        }
    }
}

// === impl SinkConfig ===

impl SinkConfig {
    fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::Log(_) => Ok(()),
            Self::Webhook(config) => config.check(),
            Self::Slack(config) => config.check(),
            Self::Email(config) => config.check(),
        }
    }

    fn render(&self, outgoing: &Outgoing) -> anyhow::Result<Rendered> {
        match self {
            Self::Log(log::Config {}) => {
                log::write(outgoing);
                Ok(Rendered::Logged)
            }
            Self::Webhook(config) => config.render(outgoing).map(Rendered::Request),
            Self::Slack(config) => config.render(outgoing).map(Rendered::Request),
            Self::Email(config) => {
                let mail = config.render(outgoing)?;
                Ok(Rendered::Mail(Box::new(mail)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
