//! Judging without a broker, a store and scanners: for measuring. It is what a shard does with a
//! batch until something must be written.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use model::{
    Digest, Severity,
    runtime::{LayerFiles, NodeReported},
};

use crate::{
    drift::{self, Judgement},
    engine::{Draft, Found, Node, hash_of},
    facts::ImageFiles,
    nodes,
    wire::Batch,
};

/// Nodes that are watched, and the images that they hold.
#[derive(Debug, Default)]
pub struct Trial {
    nodes: HashMap<String, Node>,
    images: HashMap<Digest, ImageFiles>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Events that were looked at.
    pub events: usize,
    /// Files that were compared with their image.
    pub compared: usize,
    /// Detections that were not made before.
    pub detections: usize,
}

// === impl Trial ===

impl Trial {
    /// An image is known, by the digest that runtimes know it by: its layers, base first.
    pub fn image(&mut self, id: Digest, layers: Vec<LayerFiles>) {
        let layers: Vec<_> = layers.into_iter().map(|one| Some(Arc::new(one))).collect();
        self.images.insert(id, ImageFiles::of(id, &layers));
    }

    /// Takes a node's report.
    pub fn report(&mut self, report: &NodeReported) {
        let node = self.nodes.entry(report.node.to_string()).or_default();
        nodes::learn(node, report);
    }

    /// Takes the bytes of a batch.
    pub fn batch(&mut self, bytes: &[u8]) -> anyhow::Result<Tried> {
        let batch = Batch::read(bytes)?;
        if !self.nodes.contains_key(batch.node) {
            self.nodes.insert(batch.node.to_owned(), Node::default());
        }
        let Some(node) = self.nodes.get_mut(batch.node) else {
            return Ok(Tried::default());
        };
        let mut found = Found::default();
        node.take(&batch, false, &mut found);
        let mut tried = Tried {
            events: batch.events.len(),
            compared: found.suspects.len(),
            detections: 0,
        };
        let mut drafts = found.drafts;
        for suspect in found.suspects {
            let Some(watched) = node.containers.get_mut(&suspect.container) else {
                continue;
            };
            let id = watched.told.as_ref().and_then(|told| told.image_id);
            let image = id.and_then(|id| self.images.get(&id));
            let hash = drift::hash_of(&suspect.file.path, suspect.file.digest);
            let known = watched.judgement(hash);
            let judgement =
                known.unwrap_or_else(|| drift::judge(&suspect, image, Severity::Medium));
            watched.note_judgement(hash, judgement);
            if let Judgement::Drift(definition, severity) = judgement {
                drafts.push(drift::draft(suspect, (definition, severity), image));
            }
        }
        for Draft {
            container,
            definition,
            subject,
            at,
            ..
        } in drafts
        {
            let hash = hash_of(definition.rule, &subject);
            if let Some(watched) = node.containers.get_mut(&container)
                && !watched.is_raised(hash, at)
            {
                watched.note_raised(hash, at, Timestamp::MAX);
                tried.detections = tried.detections.saturating_add(1);
            }
        }
        Ok(tried)
    }
}
