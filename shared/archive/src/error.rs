//! One variant per way in which an archive can lie, break or be too much.

use std::io;

use model::{Gap, GapCode, Hides};

use crate::Format;

/// Why reading stopped. Everything that was read until then has been delivered.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The source of the bytes failed: says nothing about the content.
    #[error("the source failed: {0}")]
    Source(#[source] io::Error),
    /// More time than allowed: says nothing about the content.
    #[error("the layer took longer than {0} ms")]
    Time(u64),
    /// A temporary file could not be written: says nothing about the content.
    #[error("no temporary file: {0}")]
    Spill(#[source] io::Error),
    /// The compressed stream ends inside a member or frame.
    #[error("the {0} stream ends too early")]
    TruncatedStream(Format),
    /// The compressed stream is damaged.
    #[error("the {0} stream is damaged: {1}")]
    BadStream(Format, String),
    /// A compression that we do not read.
    #[error("{0} compression is not supported")]
    UnsupportedCompression(&'static str),
    /// The media type promises one compression, the bytes have another.
    #[error("media type `{media_type}` promises other bytes than the {found} ones that came")]
    MediaType {
        /// What the manifest says.
        media_type: String,
        /// What it is.
        found: Format,
    },
    /// A zstd window larger than allowed.
    #[error("the zstd stream needs a window of more than 2^{0} bytes")]
    Window(u32),
    /// More compressed bytes than allowed.
    #[error("the blob has more than {0} bytes")]
    CompressedBytes(u64),
    /// More uncompressed bytes than allowed.
    #[error("the layer has more than {0} bytes uncompressed")]
    UncompressedBytes(u64),
    /// A higher ratio than allowed.
    #[error("the layer unpacks to more than {0} times its size")]
    Ratio(u64),
    /// The archive ends inside a header or an entry.
    #[error("the tar archive ends too early")]
    TruncatedArchive,
    /// A header that no unpacker would read.
    #[error("the tar archive is damaged: {0}")]
    BadHeader(&'static str),
    /// More entries than allowed.
    #[error("the layer has more than {0} entries")]
    Entries(u64),
    /// More bytes of names than allowed.
    #[error("the names in the layer have more than {0} bytes")]
    NameBytes(u64),
    /// A larger PAX header or long name than allowed.
    #[error("an extended header has more than {0} bytes")]
    Pax(u64),
}

// === impl ArchiveError ===

impl ArchiveError {
    /// The gap's name.
    pub const fn gap_code(&self) -> GapCode {
        match self {
            Self::Source(_) | Self::Spill(_) => GapCode::LayerUnavailable,
            Self::Time(_) => GapCode::LimitTime,
            Self::TruncatedStream(_) | Self::TruncatedArchive => GapCode::Truncated,
            Self::BadStream(..) => GapCode::BadCompression,
            Self::UnsupportedCompression(_) | Self::MediaType { .. } | Self::Window(_) => {
                GapCode::UnsupportedMediaType
            }
            Self::CompressedBytes(_) => GapCode::LimitCompressed,
            Self::UncompressedBytes(_) => GapCode::LimitUncompressed,
            Self::Ratio(_) => GapCode::LimitRatio,
            Self::BadHeader(_) => GapCode::BadArchive,
            Self::Entries(_) | Self::NameBytes(_) => GapCode::LimitEntries,
            Self::Pax(_) => GapCode::LimitPax,
        }
    }

    /// The gap: what is behind the place where reading stopped is hidden. Only a wrong media type
    /// hides nothing, for the bytes decide how they are read.
    pub fn gap(&self) -> Gap {
        let hides = match self {
            Self::MediaType { .. } => Hides::Nothing,
            _ => Hides::Entries,
        };
        Gap::new(self.gap_code(), hides, self.to_string())
    }

    /// Whether another attempt may end otherwise, so that the result must not be stored.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Source(_) | Self::Time(_) | Self::Spill(_))
    }
}
