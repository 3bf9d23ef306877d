//! Versions as keys of bytes.

/// The longest version that is compared; a longer one is undecided.
pub const VERSION_BYTES_MAX: usize = 256;

/// A version that can be compared with others of the same ecosystem.
///
/// It is a key whose order as bytes is the order of versions: total, and equal only where the
/// ecosystem says that versions are equal (`1.0` and `1.0.0` in Python).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(Vec<u8>);

/// Builds the key of a [`Version`].
#[derive(Debug)]
pub(crate) struct Key(Vec<u8>);

/// Most keys are shorter, and none is made larger while it is built.
const KEY_BYTES: usize = 48;

// === impl Key ===

impl Key {
    /// A tag or a character's rank.
    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// Bytes that end with a zero, so that a prefix sorts first. They hold no zero themselves.
    pub(crate) fn text(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    /// Decimal digits of any length as a number: leading zeros do not count.
    pub(crate) fn number(&mut self, digits: &str) {
        let digits = digits.trim_start_matches('0');
        let length = u16::try_from(digits.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(digits.as_bytes());
    }

    /// Numbers of which trailing zeros do not count: `1.0` is `1`, and `1` sorts before `1.0.1`.
    pub(crate) fn release<'a>(&mut self, parts: impl IntoIterator<Item = &'a str>) {
        let mut zeros = 0_usize;
        for part in parts {
            if part.bytes().all(|digit| digit == b'0') {
                zeros = zeros.saturating_add(1);
                continue;
            }
            for _zero in 0..std::mem::take(&mut zeros) {
                self.byte(1);
                self.number("");
            }
            self.byte(1);
            self.number(part);
        }
        self.byte(0);
    }

    /// Numbers of which all count: `1` sorts before `1.0`.
    pub(crate) fn numbers<'a>(&mut self, parts: impl IntoIterator<Item = &'a str>) {
        for part in parts {
            self.byte(1);
            self.number(part);
        }
        self.byte(0);
    }

    /// A number.
    pub(crate) fn integer(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    /// The finished version.
    pub(crate) fn finish(self) -> Version {
        Version(self.0)
    }
}

impl Default for Key {
    fn default() -> Self {
        Self(Vec::with_capacity(KEY_BYTES))
    }
}

/// Whether a text is digits, at least one.
pub(crate) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Splits off the longest start whose characters all fit.
pub(crate) fn run(text: &str, fits: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !fits(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Splits off the digits at the start.
pub(crate) fn digits(text: &str) -> (&str, &str) {
    run(text, |c| c.is_ascii_digit())
}
