//! Configuration of the role `alerting`.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use chassis::{SecretRef, http::Hosts};
use jiff::SignedDuration;
use model::{Decision, Severity, Slug};
use serde::{Deserialize, Serialize};

use crate::{
    sinks::{Sink, SinkConfig},
    state::Windows,
};

/// A receiver verifies with one secret; two are for the time of an exchange.
pub(crate) const SECRETS_MAX: usize = 2;
/// Longer windows are no window.
const WINDOW_S_MAX: u32 = 30 * 24 * 3600;

/// What raises alerts, and where they go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The news that raise alerts.
    pub alert_on: Vec<AlertOn>,
    /// The decisions that raise an alert, with `verdict`.
    pub decisions: Vec<Decision>,
    /// How bad a vulnerability must be to raise an alert, with `vulnerability`.
    pub vulnerability_severity: Severity,
    /// How bad an incident must be to raise an alert, with `incident`.
    pub incident_severity: Severity,
    /// An alert that was resolved and comes back within so many seconds after it was told waits
    /// for their end, and is told then if it still stands; one that is worse is told at once. 0
    /// tells every time.
    pub repeat_after_s: u32,
    /// An alert that stands is told again every so many seconds; 0 never does.
    pub remind_after_s: u32,
    /// Where alerts go, by name. The name is that of the sink's consumer: renamed, a sink begins
    /// with what the stream still holds.
    pub sinks: BTreeMap<Slug, Sink>,
    /// How many news, and how many alerts per sink, are handled at once.
    pub concurrency: usize,
    /// How answers to scan requests are sent.
    pub callbacks: CallbackConfig,
    /// Whether all news are stored once more as JSON, for subscribers that want no MessagePack.
    pub json_bridge: bool,
    /// Where they may be sent; set from `gateway.callback_hosts`.
    #[serde(skip)]
    pub callback_hosts: Vec<String>,
}

/// News that may raise alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertOn {
    /// An image's verdict.
    Verdict,
    /// A vulnerability that appears in an image that was assessed before.
    Vulnerability,
    /// An incident in a container.
    Incident,
    /// A response to one: it waits for approval, it does not work, or it was done.
    Response,
}

/// How answers to scan requests are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallbackConfig {
    /// The secrets that sign them: one, or two while one is exchanged for the other. Needed where
    /// `gateway.callback_hosts` lists a host.
    pub signing_secrets: Vec<SecretRef>,
    /// How long a receiver may take, milliseconds.
    pub timeout_ms: u64,
    /// How many requests are waited for at once; the others are looked at again later.
    pub waiting_max: usize,
}

// === impl Config ===

impl Config {
    /// Says what is wrong with it, before anything is started.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for (name, sink) in &self.sinks {
            sink.check().with_context(|| format!("sink `{name}`"))?;
        }
        for (name, seconds) in [
            ("repeat_after_s", self.repeat_after_s),
            ("remind_after_s", self.remind_after_s),
        ] {
            ensure!(
                seconds <= WINDOW_S_MAX,
                "`{name}` is {seconds}, at most {WINDOW_S_MAX} (30 days) are allowed"
            );
        }
        Hosts::new(&self.callback_hosts).context("`gateway.callback_hosts`")?;
        let secrets = &self.callbacks.signing_secrets;
        check_secrets(secrets).context("`callbacks`")?;
        ensure!(
            self.callback_hosts.is_empty() || !secrets.is_empty(),
            "`gateway.callback_hosts` lists hosts, and answers to them are signed: name a secret \
             in `alerting.callbacks.signing_secrets`"
        );
        Ok(())
    }

    pub(crate) fn windows(&self) -> Windows {
        Windows {
            repeat_after: SignedDuration::from_secs(self.repeat_after_s.into()),
            remind_after: SignedDuration::from_secs(self.remind_after_s.into()),
        }
    }
}

/// A secret, or two while one is exchanged for the other.
pub(crate) fn check_secrets(secrets: &[SecretRef]) -> anyhow::Result<()> {
    ensure!(
        secrets.len() <= SECRETS_MAX,
        "`signing_secrets` has {} entries: one, or two while one is exchanged for the other",
        secrets.len()
    );
    Ok(())
}

impl Default for Config {
    fn default() -> Self {
        let log = "log".parse().expect("it is a name");
        let sink = Sink::of(SinkConfig::Log(crate::sinks::log::Config::default()));
        Self {
            alert_on: vec![AlertOn::Verdict, AlertOn::Incident, AlertOn::Response],
            decisions: vec![Decision::Deny, Decision::Incomplete],
            vulnerability_severity: Severity::High,
            incident_severity: Severity::Medium,
            repeat_after_s: 60,
            remind_after_s: 0,
            sinks: BTreeMap::from([(log, sink)]),
            concurrency: 8,
            callbacks: CallbackConfig::default(),
            json_bridge: false,
            callback_hosts: Vec::new(),
        }
    }
}

impl Default for CallbackConfig {
    fn default() -> Self {
        Self {
            signing_secrets: Vec::new(),
            timeout_ms: 10_000,
            waiting_max: 64,
        }
    }
}
