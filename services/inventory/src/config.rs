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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::new(),
            rows_examined_max: 20_000,
        }
    }
}
