//! Content too large for memory, in a file without a name.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    sync::Arc,
};

/// Bytes that can be read at any place, by several readers at once.
pub trait ReadAt: Send + Sync {
    /// Reads into `buffer` from `offset`; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// How many bytes there are.
    fn size(&self) -> u64;
}

/// A temporary file that is unlinked from the start: it is gone with the process, however that ends.
/// Or a part of one: many contents in one file need one descriptor.
#[derive(Debug)]
pub struct Spill {
    file: Arc<File>,
    /// Where this part begins.
    start: u64,
    size: u64,
}

/// `Read` and `Seek` over something that can be read at any place.
#[derive(Clone)]
pub struct Reader {
    content: Arc<dyn ReadAt>,
    position: u64,
}

// === impl Spill ===

impl Spill {
    /// An empty file in the directory for temporary files.
    pub fn create() -> io::Result<Self> {
        Ok(Self {
            file: Arc::new(tempfile::tempfile()?),
            start: 0,
            size: 0,
        })
    }

    /// An empty part of the same file behind this one, to which nothing is appended any more.
    #[must_use]
    pub fn next(&self) -> Self {
        Self {
            file: Arc::clone(&self.file),
            start: self.start.saturating_add(self.size),
            size: 0,
        }
    }

    /// Writes at the end.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.start.saturating_add(self.size);
        self.file.write_all_at(bytes, end)?;
        self.size = self.size.saturating_add(bytes.len() as u64);
        Ok(())
    }
}

impl ReadAt for Spill {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let (part, _) = buffer.split_at_mut(wanted);
        self.file.read_at(part, self.start.saturating_add(offset))
    }

    fn size(&self) -> u64 {
        self.size
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        self.get(start..).unwrap_or_default().read(buffer)
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

// === impl Reader ===

impl Reader {
    /// A reader at the start of `content`.
    pub fn new(content: Arc<dyn ReadAt>) -> Self {
        Self {
            content,
            position: 0,
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read_at(buffer, self.position)?;
        self.position = self.position.saturating_add(read as u64);
        Ok(read)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(by) => self.content.size().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({} of {})", self.position, self.content.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_spill_read_alike() {
        let mut spill = Spill::create().unwrap();
        spill.append(b"hello ").unwrap();
        spill.append(b"world").unwrap();
        let mut second = spill.next();
        second.append(b"hello world").unwrap();
        let third = second.next();
        assert_eq!(third.read_at(&mut [0; 4], 0).unwrap(), 0);
        let contents: [Arc<dyn ReadAt>; 3] = [
            Arc::new(spill),
            Arc::new(second),
            Arc::new(b"hello world".to_vec()),
        ];
        for content in contents {
            let mut reader = Reader::new(content);
            let mut text = String::new();
            reader.seek(SeekFrom::End(-5)).unwrap();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "world");
            assert!(reader.seek(SeekFrom::End(-50)).is_err());
            assert_eq!(reader.seek(SeekFrom::Start(99)).unwrap(), 99);
            assert_eq!(reader.read(&mut [0; 4]).unwrap(), 0);
        }
    }
}
