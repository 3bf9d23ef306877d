//! Blobs as blocking readers: from a channel that an async task feeds, and from a range of a file.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

use crate::OciError;

/// Network buffers between the task and the reader. When they are full the task waits, and so does
/// the registry: an open blob holds a few hundred KiB, at most 7 MiB (a buffer has 16 to 400 KiB).
const BUFFERS: usize = 16;

/// A piece of a blob, its end (`None`), or why it ends too early.
pub(crate) type Part = Result<Option<Bytes>, OciError>;

/// The feeding end of a blob.
pub(crate) type Feed = mpsc::Sender<Part>;

/// Reads what a task feeds. The end must be said: a task that is lost is not the end of a blob.
///
/// It blocks its thread, so it belongs on a blocking thread, never in a task.
pub(crate) struct FedReader {
    receiver: mpsc::Receiver<Part>,
    current: Bytes,
    /// The feed's last word: a reader that failed once fails always.
    ended: Option<Result<(), OciError>>,
}

/// Reads a range of a file that several readers share.
pub(crate) struct RangeReader {
    file: Arc<File>,
    at: u64,
    left: u64,
}

/// A channel between a task and a blocking reader.
pub(crate) fn channel() -> (Feed, FedReader) {
    let (sender, receiver) = mpsc::channel(BUFFERS);
    (
        sender,
        FedReader {
            receiver,
            current: Bytes::new(),
            ended: None,
        },
    )
}

// === impl FedReader ===

impl FedReader {
    fn refill(&mut self) {
        while self.current.is_empty() && self.ended.is_none() {
            match self.receiver.blocking_recv() {
                Some(Ok(Some(bytes))) => self.current = bytes,
                Some(Ok(None)) => self.ended = Some(Ok(())),
                Some(Err(error)) => self.ended = Some(Err(error)),
                None => {
                    let lost = "the task that fetches a blob was lost".to_owned();
                    self.ended = Some(Err(OciError::Internal(lost)));
                }
            }
        }
    }
}

impl Read for FedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.refill();
        if self.current.is_empty() {
            return match &self.ended {
                Some(Err(error)) => Err(io::Error::other(error.clone())),
                _ => Ok(0),
            };
        }
        let count = buffer.len().min(self.current.len());
        let (target, _) = buffer.split_at_mut(count);
        self.current.copy_to_slice(target);
        Ok(count)
    }
}

// === impl RangeReader ===

impl RangeReader {
    /// `length` bytes of `file` from `at` on.
    pub(crate) const fn new(file: Arc<File>, at: u64, length: u64) -> Self {
        Self {
            file,
            at,
            left: length,
        }
    }
}

impl Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let (target, _) = buffer.split_at_mut(wanted);
        let count = self.file.read_at(target, self.at)?;
        let moved = count as u64;
        self.at = self.at.saturating_add(moved);
        self.left = self.left.saturating_sub(moved);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, thread};

    use super::*;

    #[test]
    fn a_fed_reader_delivers_all_buffers_and_then_ends() {
        let (feed, mut reader) = channel();
        let feeding = thread::spawn(move || {
            for part in ["abc", "", "de"] {
                let part = Bytes::from_static(part.as_bytes());
                feed.blocking_send(Ok(Some(part))).unwrap();
            }
            feed.blocking_send(Ok(None)).unwrap();
        });
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        feeding.join().unwrap();
        assert_eq!(text, "abcde");
        assert_eq!(reader.read(&mut [0; 4]).unwrap(), 0);
    }

    #[test]
    fn a_broken_feed_fails_after_what_was_delivered_and_stays_broken() {
        for (said, expected) in [
            (true, "gone"),
            (false, "the task that fetches a blob was lost"),
        ] {
            let (feed, mut reader) = channel();
            feed.blocking_send(Ok(Some(Bytes::from_static(b"ab"))))
                .unwrap();
            if said {
                feed.blocking_send(Err(OciError::Internal("gone".to_owned())))
                    .unwrap();
            }
            drop(feed);
            let mut buffer = [0; 8];
            assert_eq!(reader.read(&mut buffer).unwrap(), 2);
            for _ in 0..2 {
                let error = reader.read(&mut buffer).unwrap_err();
                assert_eq!(OciError::from_read(&error).unwrap().to_string(), expected);
            }
        }
    }

    #[test]
    fn ranges_of_one_file_are_read_side_by_side() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let file = Arc::new(file);
        let mut one = RangeReader::new(Arc::clone(&file), 2, 3);
        let mut beyond = RangeReader::new(file, 8, 100);
        let (mut first, mut second) = (String::new(), String::new());
        one.read_to_string(&mut first).unwrap();
        beyond.read_to_string(&mut second).unwrap();
        assert_eq!((first.as_str(), second.as_str()), ("234", "89"));
    }
}
