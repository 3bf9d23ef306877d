//! Blocks of 64 bytes, as MD5, SHA-1 and SHA-256 take them: what arrives in pieces of any length
//! becomes blocks, and the end what all three put there (RFC 1321, 3.1; FIPS 180-4, 5.1.1).

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: usize = 64;

/// One block.
pub(crate) type Block = [u8; BLOCK_BYTES];

/// What is left of the pieces that came so far.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    /// Bytes of a block that is not full yet.
    pending: Block,
    filled: usize,
    length: u64,
}

// === impl Blocks ===

impl Default for Blocks {
    fn default() -> Self {
        Self {
            pending: [0; BLOCK_BYTES],
            filled: 0,
            length: 0,
        }
    }
}

impl Blocks {
    /// Bytes of a block that is not full yet.
    pub(crate) const fn filled(&self) -> usize {
        self.filled
    }

    /// Adds blocks that somebody else has taken already: only where none has begun.
    pub(crate) const fn passed(&mut self, blocks: &[Block]) {
        self.length = self.length.wrapping_add(blocks.as_flattened().len() as u64);
    }

    /// Adds bytes and hands out the blocks that are full.
    #[inline]
    pub(crate) fn add(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[Block])) {
        self.length = self.length.wrapping_add(bytes.len() as u64);
        if self.filled > 0 {
            let free = self.pending.get_mut(self.filled..).unwrap_or_default();
            let now = free.len().min(bytes.len());
            let (head, rest) = bytes.split_at_checked(now).unwrap_or((bytes, &[]));
            for (to, from) in free.iter_mut().zip(head) {
                *to = *from;
            }
            bytes = rest;
            self.filled = self.filled.saturating_add(now);
            if self.filled < BLOCK_BYTES {
                return;
            }
            take(std::slice::from_ref(&self.pending));
            self.filled = 0;
        }
        let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
        if !blocks.is_empty() {
            take(blocks);
        }
        for (to, from) in self.pending.iter_mut().zip(rest) {
            *to = *from;
        }
        self.filled = rest.len();
    }

    /// Hands out what the end is: a bit, zeros up to a block's last eight bytes, and there the
    /// number of bits, as `in_bytes` writes it.
    pub(crate) fn end(mut self, in_bytes: fn(u64) -> [u8; 8], mut take: impl FnMut(&[Block])) {
        let bits = in_bytes(self.length.wrapping_mul(8));
        let to_end = BLOCK_BYTES.saturating_mul(2).saturating_sub(self.filled);
        let padding = match to_end.saturating_sub(bits.len()) {
            long if long > BLOCK_BYTES => long.saturating_sub(BLOCK_BYTES),
            short => short,
        };
        let mut end = [0; BLOCK_BYTES];
        end[0] = 0x80;
        self.add(end.get(..padding).unwrap_or_default(), &mut take);
        self.add(&bits, &mut take);
    }
}
