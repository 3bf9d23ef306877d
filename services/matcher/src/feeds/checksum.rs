//! CRC-32C (Castagnoli, RFC 3720 appendix B.4): the checksum that object stores send with a file.

/// One bit at a time would cost seconds per hundred megabytes.
const TABLE: [u32; 256] = table();

/// A checksum that is being computed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crc32c(u32);

// === impl Crc32c ===

impl Crc32c {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let index = (self.0 ^ u32::from(*byte)) & 0xff;
            self.0 = (self.0 >> 8) ^ TABLE[index as usize];
        }
    }

    /// In base64, as `x-goog-hash: crc32c=…` has it.
    pub(super) fn base64(self) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bits = u64::from(!self.0) << 4;
        let mut text = String::new();
        for place in (0..6).rev() {
            let digit = (bits >> (place * 6)) & 0x3f;
            text.push(char::from(DIGITS[digit as usize]));
        }
        text.push_str("==");
        text
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self(!0)
    }
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut value: u32 = 0;
    let mut index = 0;
    while index < 256 {
        let mut entry = value;
        let mut bit = 0;
        while bit < 8 {
            entry = if entry & 1 == 1 {
                (entry >> 1) ^ 0x82f6_3b78
            } else {
                entry >> 1
            };
            bit += 1;
        }
        table[index] = entry;
        index += 1;
        value += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums_come_out() {
        let of = |bytes: &[u8]| {
            let mut sum = Crc32c::default();
            sum.update(bytes);
            sum.base64()
        };
        // 0xe3069283, the check value of CRC-32C.
        assert_eq!(of(b"123456789"), "4waSgw==");
        assert_eq!(of(b""), "AAAAAA==");
    }
}
