//! Configuration of the role `alerting`.

use std::collections::BTreeMap;

use model::{Decision, Severity, Slug};
use serde::{Deserialize, Serialize};

use crate::sinks::SinkConfig;

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
    /// Where alerts go, by name. The name is that of the sink's consumer: renamed, a sink begins
    /// with what the stream still holds.
    pub sinks: BTreeMap<Slug, SinkConfig>,
    /// How many news, and how many alerts per sink, are handled at once.
    pub concurrency: usize,
}

/// News that may raise alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertOn {
    /// An image's verdict.
    Verdict,
    /// A vulnerability that appears in an image that was assessed before.
    Vulnerability,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        let log = "log".parse().expect("it is a name");
        Self {
            alert_on: vec![AlertOn::Verdict],
            decisions: vec![Decision::Deny, Decision::Incomplete],
            vulnerability_severity: Severity::High,
            sinks: BTreeMap::from([(log, SinkConfig::Log(crate::sinks::log::Config::default()))]),
            concurrency: 8,
        }
    }
}
