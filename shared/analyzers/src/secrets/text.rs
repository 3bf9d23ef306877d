//! Texts: what encoding they have, where something stands in them, and how it is shown without
//! being told.

use std::borrow::Cow;

/// Bytes of a name that stands before a secret.
const NAME_BYTES_MAX: usize = 40;

/// Characters of a secret that are shown, of one long enough to keep its rest to itself.
const SHOWN_CHARS: usize = 4;

/// From this length on a secret shows how it begins.
const SHOWING_BYTES_MIN: usize = 20;

/// Where in a text we are. Goes forwards only, so that a file is counted once whatever is found.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    line: u32,
    column: u32,
}

// === impl Cursor ===

impl<'a> Cursor<'a> {
    pub(super) const fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            line: 1,
            column: 1,
        }
    }

    /// Line and column of a place that is not before the last one.
    pub(super) fn place(&mut self, at: usize) -> (u32, u32) {
        let passed = self.text.get(self.at..at).unwrap_or_default();
        for byte in passed {
            if *byte == b'\n' {
                self.line = self.line.saturating_add(1);
                self.column = 1;
            } else if byte & 0xc0 != 0x80 {
                // The bytes that continue a letter of UTF-8 are no columns.
                self.column = self.column.saturating_add(1);
            }
        }
        self.at = self.at.max(at);
        (self.line, self.column)
    }
}

/// Whether a text begins as UTF-16: with a mark, or with letters of which every other byte is zero.
pub(super) fn is_utf16(head: &[u8]) -> bool {
    head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") || is_bare_utf16(head).is_some()
}

/// Whether UTF-16 without a mark has its high bytes first.
fn is_bare_utf16(head: &[u8]) -> Option<bool> {
    let pairs = head.as_chunks::<2>().0;
    let is_ascii =
        |high: &u8, low: &u8| *high == 0 && matches!(low, b' '..=b'~' | b'\r' | b'\n' | b'\t');
    if pairs.len() < 8 {
        return None;
    }
    if pairs.iter().all(|[low, high]| is_ascii(high, low)) {
        return Some(false);
    }
    pairs
        .iter()
        .all(|[high, low]| is_ascii(high, low))
        .then_some(true)
}

/// The text in UTF-8, or in whatever it is where each letter has one byte.
pub(super) fn decode(bytes: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let head = bytes.get(..1024).unwrap_or(&bytes);
    let (is_big, body) = if let Some(body) = bytes.strip_prefix(b"\xff\xfe") {
        (false, body)
    } else if let Some(body) = bytes.strip_prefix(b"\xfe\xff") {
        (true, body)
    } else if let Some(is_big) = is_bare_utf16(head) {
        (is_big, &*bytes)
    } else {
        return bytes;
    };
    let units = body.as_chunks::<2>().0.iter();
    let units = units.map(|pair| {
        if is_big {
            u16::from_be_bytes(*pair)
        } else {
            u16::from_le_bytes(*pair)
        }
    });
    let text: String = char::decode_utf16(units)
        .map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    Cow::Owned(text.into_bytes())
}

/// What is shown of a secret: the name that it is given to, and how it begins, but for passwords that
/// people make up. `before` is the text up to it, as far as it is no other secret.
pub(super) fn masked(before: &[u8], secret: &[u8], is_password: bool) -> String {
    let name = name_before(before);
    let beginning = if is_password {
        String::new()
    } else {
        beginning(secret)
    };
    format!("{name}{beginning}****")
}

/// `NAME=` or `"name": "` at the end of a text; nothing where it is not sure to be a name.
fn name_before(before: &[u8]) -> String {
    let start = before
        .len()
        .saturating_sub(NAME_BYTES_MAX.saturating_add(8));
    let before = String::from_utf8_lossy(before.get(start..).unwrap_or_default());
    let bare = before.trim_end_matches(['"', '\'', '`', ' ', '=', ':', '>']);
    let signs = before.get(bare.len()..).unwrap_or_default();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let name = bare
        .rsplit(|c: char| !is_name(c))
        .next()
        .unwrap_or_default();
    let is_given = signs.contains(['=', ':']) && name.len() <= NAME_BYTES_MAX;
    let has_letters = name.chars().any(|c| c.is_ascii_alphabetic());
    // Names have words in them, and tokens digits among their letters.
    let digits = name.chars().filter(char::is_ascii_digit).count();
    let is_word = digits.saturating_mul(4) <= name.len() && has_letters;
    if is_given && is_word {
        let signs: String = signs
            .chars()
            .filter(|c| !matches!(c, '"' | '\'' | '`'))
            .collect();
        format!("{name}{signs}")
    } else {
        String::new()
    }
}

/// How a secret begins: the armour of a key, a few letters of a long token, nothing of a short one.
fn beginning(secret: &[u8]) -> String {
    if secret.starts_with(b"-----BEGIN ") || secret.starts_with(b"---- BEGIN ") {
        let text = String::from_utf8_lossy(secret);
        let head: String = text.chars().take(60).collect();
        let end = head.get(11..).and_then(|rest| rest.find("----"));
        return end.map_or_else(String::new, |end| {
            let upto = end.saturating_add(11).saturating_add(5);
            head.get(..upto).unwrap_or_default().trim_end().to_owned()
        });
    }
    if secret.len() < SHOWING_BYTES_MIN {
        return String::new();
    }
    let text = String::from_utf8_lossy(secret);
    text.chars()
        .take(SHOWN_CHARS)
        .take_while(char::is_ascii_graphic)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_letters_and_not_bytes() {
        let text = "aä\nöb".as_bytes();
        let mut cursor = Cursor::new(text);
        assert_eq!(cursor.place(0), (1, 1));
        assert_eq!(cursor.place(3), (1, 3));
        assert_eq!(cursor.place(6), (2, 2));
    }

    #[test]
    fn utf16_is_read_with_and_without_a_mark() {
        let text = "token = 0123456789";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [&little, &big] {
            assert!(is_utf16(bytes));
            assert_eq!(*decode(Cow::Borrowed(bytes)), *text.as_bytes());
        }
        let marked = [b"\xff\xfe".as_slice(), &little].concat();
        assert_eq!(*decode(Cow::Borrowed(&marked)), *text.as_bytes());
        assert!(!is_utf16(text.as_bytes()));
        assert_eq!(*decode(Cow::Borrowed(b"plain")), *b"plain");
    }

    #[test]
    fn what_is_shown_tells_nothing() {
        let check = |before: &str, secret: &str, expected: &str| {
            assert_eq!(
                masked(before.as_bytes(), secret.as_bytes(), false),
                expected
            );
        };
        assert_eq!(
            masked(b"password: ", b"correct horse battery staple", true),
            "password: ****"
        );
        check(
            "x\nAPI_TOKEN=",
            "0123456789abcdefghij",
            "API_TOKEN=0123****",
        );
        check("{\"apiToken\": \"", "short", "apiToken: ****");
        check("https://ada:", "password", "ada:****");
        check("", "----------", "****");
        // What could be a token itself is not shown as a name.
        check("a1b2c3d4e5f6a7b8:", "0123456789abcdefghij", "0123****");
        check(
            "k: ",
            "-----BEGIN RSA PRIVATE KEY-----\nMIIabc",
            "k: -----BEGIN RSA PRIVATE KEY-----****",
        );
    }
}
