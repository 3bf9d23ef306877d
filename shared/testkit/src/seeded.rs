//! Layers that are made from a number whenever somebody reads them, so that many large ones take no
//! memory.

use std::io::{self, Write};

use model::Hasher;

use crate::{
    layer::{Compression, Content, Layer, TarEntry},
    tar,
};

/// How many bytes are made at once.
const BLOCK: u64 = 4096;

/// A layer of one file of bytes that no packer makes smaller; the same seed gives the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeededLayer {
    /// What makes it differ from others.
    pub seed: u64,
    /// The size of its file.
    pub bytes: u64,
}

// === impl SeededLayer ===

impl SeededLayer {
    /// The layer as an image names it, without its blob: `blob` is empty, and a server has to make
    /// it. It is read once for its digest.
    pub fn layer(&self) -> Layer {
        let mut hasher = Hash(Hasher::default());
        self.write_range(0, self.size(), &mut hasher)
            .expect("hashing does not fail");
        let digest = hasher.0.finish();
        Layer {
            blob: Vec::new(),
            digest,
            size: self.size(),
            diff_id: digest,
            compression: Compression::Plain,
            media_type: None,
        }
    }

    /// The size of its blob.
    pub fn size(&self) -> u64 {
        let (head, tail) = self.frame();
        head.len() as u64 + self.bytes + tail.len() as u64
    }

    /// Writes the bytes `from..to` of its blob.
    pub fn write_range(&self, from: u64, to: u64, out: &mut impl Write) -> io::Result<()> {
        let (head, tail) = self.frame();
        let (start, end) = (head.len() as u64, head.len() as u64 + self.bytes);
        out.write_all(part(&head, 0, from, to))?;
        let (mut at, stop) = (from.clamp(start, end), to.clamp(start, end));
        while at < stop {
            let offset = at - start;
            let block = self.block(offset / BLOCK);
            let first = offset % BLOCK;
            let count = (BLOCK - first).min(stop - at);
            let range = usize::try_from(first).expect("below a block")
                ..usize::try_from(first + count).expect("at most a block");
            out.write_all(&block[range])?;
            at += count;
        }
        out.write_all(part(&tail, end, from, to))
    }

    /// What stands before and after the file's bytes.
    fn frame(&self) -> (Vec<u8>, Vec<u8>) {
        let entry = TarEntry {
            content: Content::Zeros(self.bytes),
            ..TarEntry::file("opt/data", "")
        };
        let mut tail = vec![
            0;
            usize::try_from(self.bytes.next_multiple_of(512) - self.bytes)
                .expect("below 512")
        ];
        tar::write_end(&mut tail).expect("writing to memory");
        (tar::head(&entry), tail)
    }

    /// splitmix64, from a start that differs from block to block.
    fn block(&self, number: u64) -> Vec<u8> {
        let mut state = self.seed ^ number.wrapping_mul(0xd134_2543_de82_ef95);
        let mut bytes = Vec::with_capacity(usize::try_from(BLOCK).expect("small"));
        for _ in 0..BLOCK / 8 {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        }
        bytes
    }
}

/// Hashes what is written.
struct Hash(Hasher);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What of `bytes`, which begin at `start`, lies in `from..to`.
fn part(bytes: &[u8], start: u64, from: u64, to: u64) -> &[u8] {
    let end = start + bytes.len() as u64;
    let at =
        |position: u64| usize::try_from(position.clamp(start, end) - start).expect("in memory");
    bytes.get(at(from)..at(to)).unwrap_or_default()
}
