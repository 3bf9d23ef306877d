//! A blob of some kilobytes, read as a whole before anything is done with it.

use std::{
    io::{self, Read},
    time::Instant,
};

/// Bytes of the largest blob that is read as a whole.
pub(super) const SMALL_BLOB_BYTES: u64 = 64 << 10;

/// What was read of a blob, and the rest of it: reads as the blob does.
pub(super) struct Small<R> {
    bytes: Vec<u8>,
    /// Bytes that were given on.
    given: usize,
    /// What reading ended with, to be told where it happened.
    error: Option<io::Error>,
    /// Whether the blob has ended.
    has_ended: bool,
    rest: R,
}

// === impl Small ===

impl<R: Read> Small<R> {
    /// Reads up to its end, but a byte more than this size at most, and not behind the deadline.
    pub(super) fn read(mut blob: R, size: u64, deadline: Option<Instant>) -> Self {
        // A byte more shows that there is more.
        let room = usize::try_from(size.saturating_add(1)).unwrap_or(usize::MAX);
        let (mut bytes, mut filled) = (vec![0; room], 0_usize);
        let (mut error, mut has_ended) = (None, false);
        while filled < bytes.len() && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            match blob.read(bytes.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => {
                    has_ended = true;
                    break;
                }
                Ok(length) => filled = filled.saturating_add(length),
                Err(interrupted) if interrupted.kind() == io::ErrorKind::Interrupted => {}
                Err(failed) => {
                    error = Some(failed);
                    break;
                }
            }
        }
        bytes.truncate(filled);
        Self {
            bytes,
            given: 0,
            error,
            has_ended,
            rest: blob,
        }
    }

    /// All of its bytes, where it was read to its end.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        self.has_ended.then_some(&self.bytes)
    }
}

impl<R: Read> Read for Small<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut held = self.bytes.get(self.given..).unwrap_or_default();
        if !held.is_empty() {
            let length = held.read(buffer)?;
            self.given = self.given.saturating_add(length);
            return Ok(length);
        }
        match self.error.take() {
            Some(error) => Err(error),
            None if self.has_ended => Ok(0),
            None => self.rest.read(buffer),
        }
    }
}
