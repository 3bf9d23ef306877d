//! What a node is asked for: images that it holds, read from there as from a registry.
//!
//! Questions go to `tw.req.<tenant>.blob.<node>`, one message there and one back. Each names
//! everything that it needs, so whoever was cut off asks again from where it was. An answer proves
//! nothing by itself: who asks computes the digests.

use serde::{Deserialize, Serialize};

use crate::{Digest, Slug, event::bytes_field};

/// The most bytes of one answer.
pub const PART_BYTES_MAX: u32 = 256 << 10;

/// The repository of a host's own files, which no image on a node has: the name of each begins with
/// a registry.
pub const HOST_REPOSITORY: &str = "host";

/// The name by which a host's own files are told of among the images of a node.
pub const HOST_RUNTIME: &str = "host";

/// The registry in the names of what only nodes have: no host can be called so (RFC 6761).
pub const NODE_REGISTRY: &str = "node.invalid";

/// An image where a node has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct OnNode {
    /// The node.
    pub node: Slug,
    /// The digest by which it knows the image: of an index, a manifest or a config.
    pub id: Digest,
}

/// A question to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeQuestion {
    /// Whether it has an image, and where that begins. A node that must lay the image out first says
    /// [`NodeAnswer::Preparing`], and is asked again.
    Find {
        /// The digest by which the node knows the image.
        image: Digest,
    },
    /// A part of one of an image's blobs: manifest, config or layer.
    Read {
        /// The digest by which the node knows the image.
        image: Digest,
        /// The blob.
        blob: Digest,
        /// Where the part begins.
        offset: u64,
        /// The most bytes that are wanted; no more than [`PART_BYTES_MAX`] come.
        bytes_max: u32,
    },
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeAnswer {
    /// It has the image.
    Found {
        /// The image's manifest on this machine.
        manifest: Digest,
        /// Whether the manifest was written for it, and no registry has it.
        written: bool,
    },
    /// It lays the image out.
    Preparing,
    /// A part of a blob.
    Part {
        /// The bytes; none behind the end.
        #[serde(with = "bytes_field")]
        bytes: Vec<u8>,
        /// How many bytes the whole blob has; absent where the node does not know.
        size: Option<u64>,
    },
    /// It has no such thing.
    Missing {
        /// What, and where it was looked for.
        why: String,
    },
    /// It does not hand that out, or cannot.
    Refused {
        /// Why.
        why: String,
    },
    /// Its engine does not answer now.
    Away {
        /// Why.
        why: String,
    },
}

/// The subject on which a node is asked.
pub fn node_subject(tenant: &Slug, node: &Slug) -> String {
    format!("tw.req.{tenant}.blob.{node}")
}

/// The repository of what a node has under a name, in [`NODE_REGISTRY`]: that of another node never
/// begins so.
pub fn node_repository(node: &Slug, name: &str) -> String {
    format!("{node}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_has_gets_a_name_that_can_be_read() {
        let node: Slug = "node-1_a".parse().unwrap();
        assert_eq!(
            node_subject(&Slug::default_tenant(), &node),
            "tw.req.default.blob.node-1_a"
        );
        let repository = node_repository(&node, "localhost/app");
        let name: crate::ImageRef = format!("{NODE_REGISTRY}/{repository}:1").parse().unwrap();
        assert_eq!(
            (name.registry, name.repository),
            (NODE_REGISTRY.to_owned(), repository)
        );
    }

    #[test]
    fn what_travels_reads_as_it_was_written_and_stays_as_it_is() {
        let image = Digest::of(b"image");
        let asked = NodeQuestion::Read {
            image,
            blob: Digest::of(b"blob"),
            offset: 7,
            bytes_max: 9,
        };
        let text = serde_json::to_string(&asked).unwrap();
        let expected = format!(
            r#"{{"read":{{"image":"{image}","blob":"{}","offset":7,"bytes_max":9}}}}"#,
            Digest::of(b"blob")
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<NodeQuestion>(&text).unwrap(), asked);
        for answer in [
            NodeAnswer::Found {
                manifest: image,
                written: true,
            },
            NodeAnswer::Preparing,
            NodeAnswer::Part {
                bytes: vec![0, 255],
                size: Some(2),
            },
            NodeAnswer::Missing {
                why: "a".to_owned(),
            },
            NodeAnswer::Refused {
                why: "b".to_owned(),
            },
            NodeAnswer::Away {
                why: "c".to_owned(),
            },
        ] {
            let text = serde_json::to_string(&answer).unwrap();
            assert_eq!(serde_json::from_str::<NodeAnswer>(&text).unwrap(), answer);
        }
    }
}
