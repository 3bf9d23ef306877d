//! The numbers of an agent's messages: they only grow within a boot, over restarts too.
//!
//! Numbers are reserved on disk before they are used, some at a time, so that a crash leaves out
//! numbers and never gives one twice. An agent begins at the clock, in milliseconds, where that is
//! further on: if the file is lost, or is an older copy of itself, its numbers are new all the same.
//! No agent makes a thousand messages a second for long, so the clock is never behind for long.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use chassis::files::read_text_bounded;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const FILE: &str = "sequence.json";
const FILE_BYTES_MAX: u64 = 4_096;
/// How many numbers are reserved at once.
const RESERVED: u64 = 1_000;

/// Gives out numbers.
#[derive(Debug)]
pub(crate) struct Sequence {
    file: PathBuf,
    boot: String,
    next: u64,
    reserved: u64,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    boot: String,
    next: u64,
}

// === impl Sequence ===

impl Sequence {
    /// Goes on where the agent before stopped, or at the clock, whichever is further on.
    pub(crate) fn open(dir: &Path, boot: &str, now: Timestamp) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let file = dir.join(FILE);
        let text = match read_text_bounded(&file, FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let kept: Option<Kept> = serde_json::from_str(&text).ok();
        let clock = u64::try_from(now.as_millisecond()).unwrap_or(0).max(1);
        let next = kept
            .filter(|kept| kept.boot == boot)
            .map_or(clock, |kept| kept.next.max(clock));
        Ok(Self {
            file,
            boot: boot.to_owned(),
            next,
            reserved: next,
        })
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> io::Result<u64> {
        if self.next >= self.reserved {
            let reserved = self.next.saturating_add(RESERVED);
            self.keep(reserved)?;
            self.reserved = reserved;
        }
        let number = self.next;
        self.next = self.next.saturating_add(1);
        Ok(number)
    }

    /// Gives back what is reserved and not used.
    pub(crate) fn close(self) -> io::Result<()> {
        self.keep(self.next)
    }

    fn keep(&self, next: u64) -> io::Result<()> {
        let kept = Kept {
            boot: self.boot.clone(),
            next,
        };
        let part = self.file.with_extension("part");
        fs::write(&part, serde_json::to_vec(&kept)?)?;
        fs::rename(part, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(millisecond).unwrap()
    }

    #[test]
    fn numbers_go_on_over_restarts_even_if_the_clock_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let open = |boot, now| Sequence::open(dir.path(), boot, at(now)).unwrap();
        let mut first = open("a", 5_000);
        assert_eq!(
            (first.next().unwrap(), first.next().unwrap()),
            (5_000, 5_001)
        );
        first.close().unwrap();
        let mut second = open("a", 10);
        assert_eq!(second.next().unwrap(), 5_002);
        // A crash: what was reserved is left out.
        drop(second);
        let mut third = open("a", 10);
        assert!(third.next().unwrap() > 5_002);
        // Another boot has numbers of its own.
        assert_eq!(open("b", 20).next().unwrap(), 20);
    }

    #[test]
    fn numbers_are_new_though_the_file_is_lost_broken_or_older() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let open = |now| Sequence::open(dir.path(), "a", at(now)).unwrap();
        assert_eq!(open(1_000).next().unwrap(), 1_000);
        let older = read_text_bounded(&file, FILE_BYTES_MAX).unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(open(8_000).next().unwrap(), 8_000);
        fs::write(&file, "no JSON").unwrap();
        assert_eq!(open(9_000).next().unwrap(), 9_000);
        fs::write(&file, older).unwrap();
        assert_eq!(open(20_000).next().unwrap(), 20_000);
        // A clock that says nothing still gives numbers.
        fs::remove_file(&file).unwrap();
        assert_eq!(open(-5).next().unwrap(), 1);
    }
}
