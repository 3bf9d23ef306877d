//! What the layers of one image may cost together.

use std::cell::Cell;

use archive::Limits;

use super::outline::Size;

/// Names that links make beside those of entries: a target that is missing is made where something
/// is written through the link. Where they are is known only of entries that are looked at.
const LINK_NAMES_MAX: u64 = 1 << 18;

/// What is left of an image's limits. Each layer is within its own; an image has many.
#[derive(Debug)]
pub(super) struct Budget {
    entries: u64,
    nodes: u64,
    name_bytes: u64,
    /// `None` once they did not suffice.
    steps: Cell<Option<u64>>,
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            entries: limits.image_entries_max,
            nodes: limits.image_entries_max.saturating_add(LINK_NAMES_MAX),
            name_bytes: limits.image_name_bytes_max,
            steps: Cell::new(Some(limits.image_steps_max)),
        }
    }

    /// Takes what a layer's entries need, if there is so much left. It is the size of the whole
    /// layer, however few of its entries are looked at: whether a layer fits depends on the layers
    /// and on nothing else.
    pub(super) fn take_layer(&mut self, size: Size) -> bool {
        let name_bytes = self.name_bytes.checked_sub(size.name_bytes);
        let entries = self.entries.checked_sub(size.names);
        let (Some(name_bytes), Some(entries)) = (name_bytes, entries) else {
            return false;
        };
        self.name_bytes = name_bytes;
        self.entries = entries;
        true
    }

    /// Takes a node of the tree.
    pub(super) fn take_node(&mut self) -> bool {
        let left = self.nodes.checked_sub(1);
        self.nodes = left.unwrap_or_default();
        left.is_some()
    }

    /// Takes steps: names looked up, results gone through. Once there are too few there are none.
    pub(super) fn step(&self, count: usize) -> bool {
        let left = self.steps.get();
        let left = left.and_then(|left| left.checked_sub(count as u64));
        self.steps.set(left);
        left.is_some()
    }

    /// Whether the steps did not suffice.
    pub(super) fn is_exhausted(&self) -> bool {
        self.steps.get().is_none()
    }
}
