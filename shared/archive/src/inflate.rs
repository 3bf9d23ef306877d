//! Compressed bytes in, bounded plain bytes out.

mod decoder;
#[cfg(test)]
mod tests;

use std::{fmt, io, io::Read};

use self::decoder::{Decoder, Step};
use crate::{ArchiveError, Limits};

/// Bytes of the buffer for compressed input.
const INPUT_BYTES: usize = 256 * 1024;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Not at all.
    Plain,
    /// gzip, of one or many members (RFC 1952).
    Gzip,
    /// zstd, of one or many frames (RFC 8878).
    Zstd,
}

/// Inflates a stream, whatever it is compressed with, within [`Limits`].
///
/// The compression is told by the first bytes, as runtimes do; what the manifest says can be
/// compared by [`Inflate::check`]. Memory: one input buffer of 256 KiB at most and the decoder's window
/// (gzip 32 KiB, zstd up to `zstd_window_log_max`).
pub struct Inflate<R> {
    source: R,
    decoder: Decoder,
    input: Input,
    limits: Limits,
    uncompressed: u64,
    failed: Option<ArchiveError>,
    ended: bool,
}

/// Compressed bytes that were read and not yet used.
struct Input {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    read: u64,
    ended: bool,
}

// === impl Format ===

impl Format {
    /// What the media type of a layer promises; `None` for types that we do not know.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        match media_type {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar" => Some(Self::Plain),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Some(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// What the first bytes say.
    fn of_magic(head: &[u8]) -> Result<Self, ArchiveError> {
        match head {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            // A frame, or a skippable frame, which may come first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => {
                Err(ArchiveError::UnsupportedCompression("bzip2"))
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
                Err(ArchiveError::UnsupportedCompression("xz"))
            }
            _ => Ok(Self::Plain),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

// === impl Inflate ===

impl<R: Read> Inflate<R> {
    /// Reads the first bytes of `source` and decides how to go on.
    pub fn open(mut source: R, limits: &Limits) -> Result<Self, ArchiveError> {
        // Room for a byte more than there may be, which shows that there is more.
        let at_most = usize::try_from(limits.compressed_bytes_max.saturating_add(1));
        let bytes = INPUT_BYTES.min(at_most.unwrap_or(usize::MAX));
        let mut input = Input {
            buffer: vec![0; bytes].into_boxed_slice(),
            start: 0,
            end: 0,
            read: 0,
            ended: false,
        };
        // The longest magic is that of xz.
        while input.waiting().len() < 6 && !input.ended {
            input.refill(&mut source, limits.compressed_bytes_max)?;
        }
        let format = Format::of_magic(input.waiting())?;
        let decoder = Decoder::new(format, limits.zstd_window_log_max)?;
        let limits = limits.clone();
        Ok(Self {
            source,
            decoder,
            input,
            limits,
            uncompressed: 0,
            failed: None,
            ended: false,
        })
    }

    /// How the bytes are compressed.
    pub fn format(&self) -> Format {
        self.decoder.format()
    }

    /// Compares the bytes with the manifest's media type. A type that nobody knows is let pass:
    /// the bytes decide.
    pub fn check(&self, media_type: &str) -> Result<(), ArchiveError> {
        match Format::of_media_type(media_type) {
            Some(promised) if promised != self.format() => Err(ArchiveError::MediaType {
                media_type: media_type.chars().take(200).collect(),
                found: self.format(),
            }),
            _ => Ok(()),
        }
    }

    /// Fills `out` as far as the stream goes: fewer bytes only at its end, none after it.
    /// What came before an error is delivered before the error is.
    pub fn fill(&mut self, out: &mut [u8]) -> Result<usize, ArchiveError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut filled: usize = 0;
        while !self.ended {
            let rest = out.get_mut(filled..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match self.advance(rest) {
                Ok(written) => filled = filled.saturating_add(written),
                Err(error) => {
                    self.ended = true;
                    if filled == 0 {
                        return Err(error);
                    }
                    self.failed = Some(error);
                }
            }
        }
        Ok(filled)
    }

    /// Compressed bytes read so far.
    pub fn compressed_bytes(&self) -> u64 {
        self.input.read
    }

    /// Plain bytes delivered so far.
    pub fn uncompressed_bytes(&self) -> u64 {
        self.uncompressed
    }

    /// The source, behind everything that was read ahead.
    pub fn source_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// One step of the decoder.
    fn advance(&mut self, out: &mut [u8]) -> Result<usize, ArchiveError> {
        if self.input.waiting().is_empty() && !self.input.ended {
            self.input
                .refill(&mut self.source, self.limits.compressed_bytes_max)?;
        }
        let Step {
            read,
            written,
            ended,
        } = self
            .decoder
            .step(self.input.waiting(), self.input.ended, out)?;
        self.input.start = self.input.start.saturating_add(read);
        self.uncompressed = self.uncompressed.saturating_add(written as u64);
        self.ended = ended;
        if self.uncompressed > self.limits.uncompressed_bytes_max {
            return Err(ArchiveError::UncompressedBytes(
                self.limits.uncompressed_bytes_max,
            ));
        }
        let allowed = self.input.read.saturating_mul(self.limits.ratio_max);
        if self.uncompressed > self.limits.ratio_free_bytes && self.uncompressed > allowed {
            return Err(ArchiveError::Ratio(self.limits.ratio_max));
        }
        Ok(written)
    }
}

impl<R: Read> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill(buffer).map_err(io::Error::other)
    }
}

impl<R> fmt::Debug for Inflate<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflate")
            .field("format", &self.decoder.format())
            .field("compressed", &self.input.read)
            .field("uncompressed", &self.uncompressed)
            .finish_non_exhaustive()
    }
}

// === impl Input ===

impl Input {
    fn waiting(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Reads once, behind what waits; with nothing waiting the buffer starts anew.
    fn refill(&mut self, source: &mut impl Read, bytes_max: u64) -> Result<(), ArchiveError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let free = self.buffer.get_mut(self.end..).unwrap_or_default();
        let read = loop {
            match source.read(free) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(ArchiveError::Source)?,
            }
        };
        self.ended = read == 0;
        self.end = self.end.saturating_add(read);
        self.read = self.read.saturating_add(read as u64);
        if self.read > bytes_max {
            return Err(ArchiveError::CompressedBytes(bytes_max));
        }
        Ok(())
    }
}
