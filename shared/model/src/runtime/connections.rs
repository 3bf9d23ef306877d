//! Whom containers speak with.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Listen, NetworkFlow};

/// Whom the containers of a node speak with, as far as it was seen. A value of
/// [`crate::event::NODES`], by tenant and node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConnections {
    /// By the runtime's id.
    pub containers: BTreeMap<String, Connections>,
    /// When it was written.
    pub at: Timestamp,
}

/// Whom a container speaks with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Connections {
    /// The connections that it opened last.
    pub flows: Vec<NetworkFlow>,
    /// The ports that it listens on.
    pub listens: Vec<Listen>,
    /// Whether there were more than are kept.
    pub is_cut: bool,
}
