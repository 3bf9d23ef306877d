//! What is kept of images that a node holds and no source gives.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Digest, Slug};

/// KV `tw_refs`, key [`SightedImages::key`]: images that a node holds and no source gives, those of
/// a node whose digests begin alike. An entry is read only while no source is known to have
/// its image, which may be known from nodes: what a source has later leaves it behind.
///
/// So a node, whatever it tells, has at most [`Self::KEYS`] keys with [`Self::IMAGES_MAX`] images
/// each; of more the ones that it told of longest ago are forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SightedImages {
    /// By the digest that the node's runtime knows an image by.
    pub images: BTreeMap<Digest, SightedRecord>,
}

/// An image that a node holds and no source gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SightedRecord {
    /// Its names on the node, those that were looked at.
    pub references: Vec<String>,
    /// Why no source gives it.
    pub why: Unserved,
    /// What a source said, where one was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The node.
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

// === impl SightedImages ===

impl SightedImages {
    /// Keys of one node: one per first byte of a digest.
    pub const KEYS: usize = 256;
    /// Images under one key. A node with a thousand such images has four under each.
    pub const IMAGES_MAX: usize = 16;

    /// The key of an image on a node.
    pub fn key(tenant: &Slug, node: &Slug, image: Digest) -> String {
        let [first, ..] = image.as_bytes();
        format!("{tenant}.sighted.{node}.{first:02x}")
    }

    /// Adds an image, or what is new of it. Gives how many others are forgotten for it.
    pub fn note(&mut self, image: Digest, record: SightedRecord) -> usize {
        self.images.insert(image, record);
        let mut forgotten = 0;
        while self.images.len() > Self::IMAGES_MAX {
            let others = self.images.iter().filter(|(other, _)| **other != image);
            let oldest = others.min_by_key(|(_, record)| record.sighted_at);
            let Some(oldest) = oldest.map(|(other, _)| *other) else {
                break;
            };
            self.images.remove(&oldest);
            forgotten += 1;
        }
        forgotten
    }
}

// === impl SightedRecord ===

impl SightedRecord {
    /// Whether it says the same, though perhaps at another time.
    pub fn says_as(&self, other: &Self) -> bool {
        (&self.references, self.why, &self.detail) == (&other.references, other.why, &other.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(second: i64) -> SightedRecord {
        SightedRecord {
            references: Vec::new(),
            why: Unserved::NoSource,
            detail: None,
            node: "node-1".parse().unwrap(),
            sighted_at: Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn a_node_has_a_bounded_number_of_keys() {
        let (tenant, node) = (Slug::default_tenant(), "node-1".parse().unwrap());
        let key =
            |number: u32| SightedImages::key(&tenant, &node, Digest::of(&number.to_be_bytes()));
        let keys: std::collections::BTreeSet<String> = (0..10_000).map(key).collect();
        assert_eq!(keys.len(), SightedImages::KEYS);
        assert!(keys.contains("default.sighted.node-1.0f"), "{keys:?}");
    }

    #[test]
    fn the_image_told_of_longest_ago_makes_room_and_never_the_one_told_of_now() {
        let image = |number: usize| Digest::of(&number.to_be_bytes());
        let mut images = SightedImages::default();
        for number in 0..SightedImages::IMAGES_MAX {
            let second = 100 + i64::try_from(number).unwrap();
            assert_eq!(images.note(image(number), record(second)), 0);
        }
        // What is there already takes no place.
        assert_eq!(images.note(image(0), record(200)), 0);
        assert_eq!(images.images.len(), SightedImages::IMAGES_MAX);
        // A node's clock may be wrong.
        assert_eq!(images.note(image(99), record(1)), 1);
        assert_eq!(images.images.len(), SightedImages::IMAGES_MAX);
        assert!(images.images.contains_key(&image(99)));
        assert!(images.images.contains_key(&image(0)));
        assert!(!images.images.contains_key(&image(1)));
    }
}
