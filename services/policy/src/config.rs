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
    /// How many images of a partition are judged at once.
    pub concurrency: usize,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            concurrency: 8,
        }
    }
}
