//! What an operator can set.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of the matcher role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the advisories and the index live; set from the process's data directory.
    #[serde(skip)]
    pub data_dir: PathBuf,
    /// How many images of one partition are assessed at once.
    pub images_at_once: usize,
    /// Fetches advisories regularly; without it they come by `db update` and `db import` alone.
    pub update: Option<Update>,
    /// How much a feed may be.
    pub limits: FeedLimits,
}

/// Where advisories come from, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Update {
    /// Below it lies `<ecosystem>/all.zip`, as in OSV.dev's exports.
    pub url: String,
    /// The ecosystems, as OSV.dev names them.
    pub ecosystems: Vec<String>,
    /// Seconds from one fetch to the next.
    pub interval_s: u64,
}

/// How much one feed may be. What is over it is refused whole: half a feed would look like a
/// whole one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeedLimits {
    /// Bytes of a zip.
    pub archive_bytes_max: u64,
    /// Bytes of all records together.
    pub total_bytes_max: u64,
    /// How many records.
    pub records_max: usize,
    /// How deep directories may be nested.
    pub depth_max: usize,
    /// Seconds that fetching a feed may take.
    pub fetch_timeout_s: u64,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::new(),
            images_at_once: 4,
            update: None,
            limits: FeedLimits::default(),
        }
    }
}

impl Default for Update {
    fn default() -> Self {
        Self {
            url: "https://osv-vulnerabilities.storage.googleapis.com".to_owned(),
            ecosystems: ["Alpine", "Debian", "PyPI", "Ubuntu", "npm"]
                .map(ToOwned::to_owned)
                .to_vec(),
            interval_s: 6 * 60 * 60,
        }
    }
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self {
            // What an object may have.
            archive_bytes_max: 256 << 20,
            total_bytes_max: 8 << 30,
            records_max: 1_000_000,
            depth_max: 8,
            fetch_timeout_s: 15 * 60,
        }
    }
}
