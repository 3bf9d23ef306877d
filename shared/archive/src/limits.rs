//! Every bound on what a layer may make us do.

use model::Digest;
use serde::{Deserialize, Serialize};

/// Bounds for one layer, and for the layers of one image together. What exceeds them becomes a gap
/// with a name, never an error of the scan.
///
/// Except for [`time_ms`](Self::time_ms) they are part of every section's key: another limit may
/// give another result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of the blob.
    pub compressed_bytes_max: u64,
    /// Bytes of the uncompressed layer.
    pub uncompressed_bytes_max: u64,
    /// Uncompressed bytes per compressed byte, looked at beyond [`Self::ratio_free_bytes`].
    /// Text packs 20 to 1; gzip cannot do more than 1,032 to 1; zstd can.
    pub ratio_max: u64,
    /// Uncompressed bytes up to which any ratio is fine: images do hold files full of zeros.
    pub ratio_free_bytes: u64,
    /// The greatest zstd window, as a power of two: memory of the decoder.
    pub zstd_window_log_max: u32,
    /// Tar entries.
    pub entries_max: u64,
    /// Bytes of all paths and link targets together: memory of the `entries` section.
    pub name_bytes_max: u64,
    /// Bytes of one path or link target.
    pub path_bytes_max: usize,
    /// Bytes of one PAX header or GNU long name.
    pub pax_bytes_max: u64,
    /// Archives in archives.
    pub nesting_max: u32,
    /// Bytes that all archives in a layer are unpacked to, by each analyzer that looks into them.
    pub unpacked_bytes_max: u64,
    /// Bytes of one wanted file that stay in memory; a larger one spills.
    pub file_memory_bytes_max: u64,
    /// Bytes of one wanted file at all; of a larger one nothing is read.
    pub file_bytes_max: u64,
    /// Bytes of all wanted files that are in memory at the same time; beyond that they spill.
    pub held_bytes_max: u64,
    /// Bytes of all spilled files of a layer.
    pub spill_bytes_max: u64,
    /// Bytes of the results (packages, owned files, findings) of one analyzer in one layer.
    pub result_bytes_max: u64,
    /// Gaps of one section, and of one image; further ones are counted in one more.
    pub gaps_max: usize,
    /// Entries of all layers of an image, a layer counted as often as the image names it; and names
    /// in the tree that the layers make together.
    pub image_entries_max: u64,
    /// Bytes of all paths and link targets of an image's layers.
    pub image_name_bytes_max: u64,
    /// Names that are looked up, and results that are gone through, to put an image's layers
    /// together: half a minute at most.
    pub image_steps_max: u64,
    /// Packages of an image, and of what one analyzer finds in a layer. Real ones have a tenth of it at
    /// most.
    pub image_packages_max: usize,
    /// Milliseconds for one layer.
    pub time_ms: u64,
}

// === impl Limits ===

impl Limits {
    /// The digest of all limits that decide what is found. Time is not among them: what it cuts
    /// short is never stored.
    pub fn digest(&self) -> Digest {
        let content = Self {
            time_ms: 0,
            ..self.clone()
        };
        // Plain numbers into a vector: there is nothing that could fail.
        Digest::of(&rmp_serde::to_vec_named(&content).unwrap_or_default())
    }

    /// The same limits with an eighth of all that takes memory: for a layer that is suspected of
    /// killing who reads it.
    #[must_use]
    pub fn low(&self) -> Self {
        Self {
            zstd_window_log_max: self.zstd_window_log_max.saturating_sub(3),
            entries_max: self.entries_max / 8,
            name_bytes_max: self.name_bytes_max / 8,
            nesting_max: self.nesting_max.min(1),
            unpacked_bytes_max: self.unpacked_bytes_max / 8,
            file_memory_bytes_max: self.file_memory_bytes_max / 8,
            held_bytes_max: self.held_bytes_max / 8,
            // Temporary files may lie in memory too.
            spill_bytes_max: self.spill_bytes_max / 8,
            result_bytes_max: self.result_bytes_max / 8,
            image_entries_max: self.image_entries_max / 8,
            image_name_bytes_max: self.image_name_bytes_max / 8,
            image_steps_max: self.image_steps_max / 8,
            image_packages_max: self.image_packages_max / 8,
            ..self.clone()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        Self {
            compressed_bytes_max: 16 * GIB,
            uncompressed_bytes_max: 32 * GIB,
            ratio_max: 200,
            ratio_free_bytes: 256 * MIB,
            zstd_window_log_max: 27,
            entries_max: 1_000_000,
            name_bytes_max: 256 * MIB,
            path_bytes_max: 4096,
            pax_bytes_max: MIB,
            nesting_max: 4,
            unpacked_bytes_max: 8 * GIB,
            file_memory_bytes_max: 32 * MIB,
            file_bytes_max: GIB,
            held_bytes_max: 128 * MIB,
            spill_bytes_max: 4 * GIB,
            result_bytes_max: 256 * MIB,
            gaps_max: 1000,
            image_entries_max: 2_000_000,
            image_name_bytes_max: GIB,
            image_steps_max: 400_000_000,
            image_packages_max: 100_000,
            time_ms: 15 * 60 * 1000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_follows_every_limit_but_time() {
        let limits = Limits::default();
        let slow = Limits {
            time_ms: 1,
            ..limits.clone()
        };
        let small = Limits {
            entries_max: 1,
            ..limits.clone()
        };
        assert_eq!(limits.digest(), slow.digest());
        assert_ne!(limits.digest(), small.digest());
    }
}
