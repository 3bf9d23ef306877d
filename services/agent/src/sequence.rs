//! The numbers of an agent's messages: they only grow within a boot, over restarts too.
//!
//! Numbers are reserved on disk before they are used, some at a time, so that a crash leaves out
//! numbers and never gives one twice.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use chassis::files::read_text_bounded;
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
    /// Goes on where the agent before stopped, or begins at 1 after a boot.
    pub(crate) fn open(dir: &Path, boot: &str) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let file = dir.join(FILE);
        let text = match read_text_bounded(&file, FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let kept: Option<Kept> = serde_json::from_str(&text).ok();
        let next = kept
            .filter(|kept| kept.boot == boot)
            .map_or(1, |kept| kept.next);
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

    #[test]
    fn numbers_go_on_over_restarts_and_begin_anew_with_a_boot() {
        let dir = tempfile::tempdir().unwrap();
        let open = |boot| Sequence::open(dir.path(), boot).unwrap();
        let mut first = open("a");
        assert_eq!((first.next().unwrap(), first.next().unwrap()), (1, 2));
        first.close().unwrap();
        let mut second = open("a");
        assert_eq!(second.next().unwrap(), 3);
        // A crash: what was reserved is left out.
        drop(second);
        let mut third = open("a");
        assert!(third.next().unwrap() > 3);
        assert_eq!(open("b").next().unwrap(), 1);
        fs::write(dir.path().join(FILE), "no JSON").unwrap();
        assert_eq!(open("b").next().unwrap(), 1);
    }
}
