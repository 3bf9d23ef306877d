//! Configuration of the role `policy`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How images are judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Policy files that are put in force at the start, where they differ from what is in force. A
    /// bad one stops the start.
    pub files: Vec<PathBuf>,
    /// File with the key that signs what nodes shall do: 64 hex digits, as `tidewaiter response key`
    /// makes it. Without one nothing is ever done, only written down.
    pub signing_key_file: Option<PathBuf>,
    /// How many images of a partition are judged at once.
    pub concurrency: usize,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            signing_key_file: None,
            concurrency: 8,
        }
    }
}
