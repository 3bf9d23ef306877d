//! Base 64 as RFC 4648 section 4 has it.

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The text in base 64, padded.
pub(crate) fn encode(text: &str) -> String {
    let letter = |bits: u32| {
        let at = usize::try_from(bits & 63).unwrap_or_default();
        char::from(LETTERS.get(at).copied().unwrap_or(b'='))
    };
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        let letters = [
            letter(bits >> 18),
            letter(bits >> 12),
            letter(bits >> 6),
            letter(bits),
        ];
        let used = chunk.len().saturating_add(1);
        encoded.extend(letters.iter().take(used));
        encoded.extend(std::iter::repeat_n('=', 4_usize.saturating_sub(used)));
    }
    encoded
}

/// The text that was encoded, with or without padding; `None` where it is none.
pub(crate) fn decode(encoded: &str) -> Option<String> {
    let letters = encoded.trim().trim_end_matches('=');
    let mut bytes = Vec::with_capacity(letters.len());
    for chunk in letters.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for at in 0..4 {
            let value = match chunk.get(at) {
                Some(letter) => LETTERS.iter().position(|known| known == letter)?,
                None => 0,
            };
            bits = (bits << 6) | u32::try_from(value).ok()?;
        }
        let [_, one, two, three] = bits.to_be_bytes();
        let count = match chunk.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        bytes.extend([one, two, three].into_iter().take(count));
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base64_is_padded() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("Aladdin:open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ] {
            assert_eq!(encode(text), expected);
            assert_eq!(decode(expected).as_deref(), Some(text));
            let bare = expected.trim_end_matches('=');
            assert_eq!(decode(bare).as_deref(), Some(text), "without padding");
        }
        for broken in ["Z", "Zg=a", "Z!==", "/w=="] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(text in ".{0,60}") {
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _decoded = decode(&text);
        }
    }
}
