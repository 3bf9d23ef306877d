//! One step of each decoder: buffer to buffer.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation as _, OutBuffer};

use super::Format;
use crate::ArchiveError;

/// A decoder and where it stands.
pub(super) enum Decoder {
    Plain,
    Gzip {
        stream: Box<Decompress>,
        member: Member,
    },
    Zstd {
        stream: ZstdDecoder<'static>,
        between_frames: bool,
        window_log_max: u32,
    },
}

/// Where a gzip decoder stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Member {
    /// The first one has not begun.
    First,
    /// Inside one.
    Inside,
    /// One has ended; another may follow.
    Ended,
}

/// What a step did.
pub(super) struct Step {
    /// Bytes of input used.
    pub(super) read: usize,
    /// Bytes of output made.
    pub(super) written: usize,
    /// Whether the stream has come to a proper end.
    pub(super) ended: bool,
}

const ENDED: Step = Step {
    read: 0,
    written: 0,
    ended: true,
};

// === impl Decoder ===

impl Decoder {
    pub(super) fn new(format: Format, window_log_max: u32) -> Result<Self, ArchiveError> {
        Ok(match format {
            Format::Plain => Self::Plain,
            Format::Gzip => Self::Gzip {
                stream: Box::new(Decompress::new_gzip(15)),
                member: Member::First,
            },
            Format::Zstd => {
                let bad = |error: std::io::Error| {
                    ArchiveError::BadStream(Format::Zstd, error.to_string())
                };
                let mut stream = ZstdDecoder::new().map_err(bad)?;
                stream
                    .set_parameter(DParameter::WindowLogMax(window_log_max))
                    .map_err(bad)?;
                Self::Zstd {
                    stream,
                    between_frames: true,
                    window_log_max,
                }
            }
        })
    }

    pub(super) fn format(&self) -> Format {
        match self {
            Self::Plain => Format::Plain,
            Self::Gzip { .. } => Format::Gzip,
            Self::Zstd { .. } => Format::Zstd,
        }
    }

    /// Makes output from input. `last` says that no input follows this one.
    pub(super) fn step(
        &mut self,
        input: &[u8],
        last: bool,
        out: &mut [u8],
    ) -> Result<Step, ArchiveError> {
        match self {
            Self::Plain => Ok(copy(input, last, out)),
            Self::Gzip { stream, member } => gzip(stream, member, input, last, out),
            Self::Zstd {
                stream,
                between_frames,
                window_log_max,
            } => {
                zstd(stream, between_frames, input, last, out).map_err(|error| match error {
                    // The library has one code for this, and its text is all that it shows.
                    ArchiveError::BadStream(_, why) if why.contains("too much memory") => {
                        ArchiveError::Window(*window_log_max)
                    }
                    error => error,
                })
            }
        }
    }
}

fn copy(input: &[u8], last: bool, out: &mut [u8]) -> Step {
    let length = input.len().min(out.len());
    if let (Some(from), Some(to)) = (input.get(..length), out.get_mut(..length)) {
        to.copy_from_slice(from);
    }
    Step {
        read: length,
        written: length,
        ended: last && input.is_empty(),
    }
}

fn gzip(
    stream: &mut Decompress,
    member: &mut Member,
    input: &[u8],
    last: bool,
    out: &mut [u8],
) -> Result<Step, ArchiveError> {
    let nothing_left = last && input.is_empty();
    if *member == Member::Ended {
        if nothing_left {
            return Ok(ENDED);
        }
        if !input.is_empty() {
            stream.reset(true);
        }
    }
    if !input.is_empty() {
        *member = Member::Inside;
    }
    let (read_before, written_before) = (stream.total_in(), stream.total_out());
    let status = stream.decompress(input, out, FlushDecompress::None);
    let count = |after: u64, before: u64| {
        usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX)
    };
    let read = count(stream.total_in(), read_before);
    let written = count(stream.total_out(), written_before);
    match status {
        Ok(Status::StreamEnd) => *member = Member::Ended,
        Ok(Status::Ok | Status::BufError) if read > 0 || written > 0 => {}
        Ok(_) if nothing_left => return Err(ArchiveError::TruncatedStream(Format::Gzip)),
        Ok(_) if input.is_empty() => {}
        Ok(_) => return Err(bad_gzip("it does not go on")),
        Err(error) => return Err(bad_gzip(&error.to_string())),
    }
    Ok(Step {
        read,
        written,
        ended: false,
    })
}

fn zstd(
    stream: &mut ZstdDecoder<'static>,
    between_frames: &mut bool,
    input: &[u8],
    last: bool,
    out: &mut [u8],
) -> Result<Step, ArchiveError> {
    let nothing_left = last && input.is_empty();
    if nothing_left && *between_frames {
        return Ok(ENDED);
    }
    let (mut input_buffer, mut output_buffer) = (InBuffer::around(input), OutBuffer::around(out));
    let hint = stream
        .run(&mut input_buffer, &mut output_buffer)
        .map_err(|error| ArchiveError::BadStream(Format::Zstd, error.to_string()))?;
    let (read, written) = (input_buffer.pos(), output_buffer.pos());
    if read > 0 || written > 0 {
        *between_frames = hint == 0;
    } else if nothing_left {
        return Err(ArchiveError::TruncatedStream(Format::Zstd));
    } else if !input.is_empty() {
        return Err(ArchiveError::BadStream(
            Format::Zstd,
            "it does not go on".to_owned(),
        ));
    }
    Ok(Step {
        read,
        written,
        ended: false,
    })
}

fn bad_gzip(why: &str) -> ArchiveError {
    ArchiveError::BadStream(Format::Gzip, why.to_owned())
}
