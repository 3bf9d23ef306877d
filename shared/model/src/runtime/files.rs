//! The files of a layer that can run: what a container is told from its image by.

use serde::{Deserialize, Serialize};

use crate::{Digest, EntryKind};

/// An object of [`crate::event::REPORT_OBJECTS`]: what decides which content the image has at a
/// path, as far as it can run. Layers that images share are one object, which `Scanned::files`
/// names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFiles {
    /// Files that have a digest, whiteouts, opaque directories, and links that lead somewhere, in
    /// the archive's order: of several for one path the last one counts.
    pub entries: Vec<LayerFile>,
    /// Whether entries of the layer are missing here, for it could not be read whole or has more of
    /// them than [`Self::ENTRIES_MAX`]: what is not here may be in the image all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// An entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFile {
    /// The path from the image's root, without a leading slash.
    pub path: String,
    /// The sha256 of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What it is.
    pub kind: EntryKind,
    /// Where a symbolic or hard link leads, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

// === impl LayerFiles ===

impl LayerFiles {
    /// How many entries one may have: ten times what large layers of interpreted programs have.
    pub const ENTRIES_MAX: usize = 500_000;
}
