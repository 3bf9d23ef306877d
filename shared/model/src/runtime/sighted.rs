//! What is kept of an image that a node holds and no source gives.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Digest, Slug};

/// KV `tw_refs`: an image that a node holds and no source gives, key [`SightedRecord::key`]. It is
/// read only while the image is not known: what becomes known later leaves it behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SightedRecord {
    /// Its names on the node that told of it last, those that were looked at.
    pub references: Vec<String>,
    /// Why no source gives it.
    pub why: Unserved,
    /// What a source said, where one was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The node that told of it last.
    pub node: Slug,
    /// When that told of it.
    pub sighted_at: Timestamp,
}

/// Why no source gives an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unserved {
    /// None of its names is at a registry that a source serves, or it has none.
    NoSource,
    /// Its names lead to other images at their sources, or nowhere: it was built or tagged on the
    /// node, or deleted since.
    NotThere,
    /// Its source does not let us have it.
    Refused,
}

// === impl SightedRecord ===

impl SightedRecord {
    /// The key of an image, by the digest that the node's runtime knows it by.
    pub fn key(tenant: &Slug, image: Digest) -> String {
        format!("{tenant}.sighted.{}", image.hex())
    }

    /// Whether it says the same, though perhaps of another node and time.
    pub fn says_as(&self, other: &Self) -> bool {
        (&self.references, self.why, &self.detail) == (&other.references, other.why, &other.detail)
    }
}
