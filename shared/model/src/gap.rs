//! Gaps: what we could not look at, and what that hides.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Digest;

/// Something that we could not look at. A gap is never an error and never silent: policy decides
/// what it means for the verdict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// What happened.
    pub code: GapCode,
    /// What may be missing from the report because of it.
    pub hides: Hides,
    /// The file, as in the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The layer's blob digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Digest>,
    /// One sentence for a person, with the values.
    pub detail: String,
}

/// What a gap may hide.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Hides {
    /// Packages, and so vulnerabilities.
    Packages,
    /// Secrets.
    Secrets,
    /// Malware.
    Malware,
    /// Files of the image, and so everything.
    Entries,
    /// Nothing that a report would show.
    Nothing,
}

/// The names of gaps; one per way in which input can lie, break or be too much.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum GapCode {
    /// The blob's bytes do not have the digest that the manifest names.
    DigestMismatch,
    /// The blob has another size than the manifest says.
    SizeMismatch,
    /// The config claims another diffID than the one computed.
    DiffidMismatch,
    /// The config and the manifest have different numbers of layers.
    LayerCountMismatch,
    /// The compressed stream or the archive ends too early.
    Truncated,
    /// The compressed stream is damaged.
    BadCompression,
    /// The tar archive is damaged.
    BadArchive,
    /// A media type or compression that we do not read.
    UnsupportedMediaType,
    /// A path leaves the root, or is otherwise not a path of an image; the entry is ignored.
    UnsafePath,
    /// More compressed bytes than allowed.
    LimitCompressed,
    /// More uncompressed bytes than allowed.
    LimitUncompressed,
    /// A higher compression ratio than allowed.
    LimitRatio,
    /// More entries than allowed.
    LimitEntries,
    /// A longer path than allowed.
    LimitPath,
    /// A larger PAX header or long name than allowed.
    LimitPax,
    /// Deeper nesting than allowed.
    LimitNesting,
    /// More time than allowed.
    LimitTime,
    /// A wanted file is larger than an analyzer may have.
    LimitFile,
    /// More layers than allowed.
    LimitLayers,
    /// More packages, findings or other results than allowed.
    LimitResults,
    /// A file does not have the format that its name promises.
    Malformed,
    /// The layer could not be fetched from its source.
    LayerUnavailable,
    /// The image config could not be read.
    BadConfig,
    /// No os-release, so that operating system packages cannot be matched.
    UnknownOs,
    /// The operating system no longer gets security updates.
    EndOfLifeOs,
    /// A runtime that no operating system looks after no longer gets security updates.
    EndOfLifeRuntime,
    /// No advisory feed covers these packages.
    NoAdvisories,
    /// The advisory data are older than the policy allows.
    StaleAdvisories,
    /// A version that cannot be compared.
    UndecidedVersion,
    /// A file names packages without saying which version will be there.
    UnresolvedDependency,
    /// An engine in a process of its own hung or died over a file.
    EngineFailed,
    /// The scan died or was given up before its end.
    ScanAborted,
    /// A gap that a newer writer knows.
    #[serde(other)]
    Unknown,
}

// === impl Gap ===

impl Gap {
    /// A gap without a place.
    pub fn new(code: GapCode, hides: Hides, detail: impl Into<String>) -> Self {
        Self {
            code,
            hides,
            path: None,
            layer: None,
            detail: detail.into(),
        }
    }

    /// The same gap at a file.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The same gap in a layer.
    #[must_use]
    pub fn in_layer(mut self, layer: Digest) -> Self {
        self.layer = Some(layer);
        self
    }
}

// === impl GapCode ===

impl GapCode {
    /// Whether a limit of ours cut the input short.
    pub const fn is_limit(self) -> bool {
        matches!(
            self,
            Self::LimitCompressed
                | Self::LimitUncompressed
                | Self::LimitRatio
                | Self::LimitEntries
                | Self::LimitPath
                | Self::LimitPax
                | Self::LimitNesting
                | Self::LimitTime
                | Self::LimitFile
                | Self::LimitLayers
                | Self::LimitResults
        )
    }
}
