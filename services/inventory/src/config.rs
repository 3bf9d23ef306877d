//! What an operator can set.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of the inventory role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the view lives; set from the process's data directory.
    #[serde(skip)]
    pub data_dir: PathBuf,
    /// How many rows one list request looks at; a filter that fits few of them gives short pages.
    pub rows_examined_max: usize,
    /// The streams of `GET /v1/events`.
    pub events: EventsConfig,
}

/// Streams of events to clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// How many there may be at once in this process.
    pub streams_max: usize,
    /// How many of them one tenant may have.
    pub streams_per_tenant_max: usize,
    /// Seconds between two signs of life; as often it is asked whether the token still stands.
    pub heartbeat_s: u32,
    /// A client that takes nothing for so many seconds while something waits is cut off.
    pub slow_s: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::new(),
            rows_examined_max: 20_000,
            events: EventsConfig::default(),
        }
    }
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            streams_max: 64,
            streams_per_tenant_max: 32,
            heartbeat_s: 15,
            slow_s: 30,
        }
    }
}
