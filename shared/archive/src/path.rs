//! Paths in archives: bytes in, safe text out.

use std::fmt::Write as _;

/// Text for a path of any bytes: what is not UTF-8 becomes U+FFFD and two hex digits for each byte.
///
/// A real U+FFFD in the input is written in the same way, so that two paths never become one; so
/// is NUL, which no path can have.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                char::REPLACEMENT_CHARACTER => escape_bytes("\u{fffd}".as_bytes(), &mut text),
                '\0' => escape_bytes(b"\0", &mut text),
                _ => text.push(character),
            }
        }
        escape_bytes(chunk.invalid(), &mut text);
    }
    text
}

/// The path of an entry from the image's root: `.` segments and doubled slashes removed, empty for
/// the root itself. A leading slash is no more than a doubled one: whatever unpacks an image does
/// so below the image's root, and some builders write the root as `/`. The error says why no image
/// may hold such a path.
pub(crate) fn clean(bytes: &[u8]) -> Result<String, &'static str> {
    if bytes.is_empty() {
        return Err("the path is empty");
    }
    if bytes.contains(&0) {
        return Err("the path has a NUL byte");
    }
    let mut path = Vec::with_capacity(bytes.len());
    for segment in bytes.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => return Err("the path has a `..` segment"),
            _ => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(segment);
            }
        }
    }
    Ok(escape(&path))
}

fn escape_bytes(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        text.push(char::REPLACEMENT_CHARACTER);
        // Writing to a String cannot fail.
        let _never = write!(text, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_cleaned_or_refused() {
        assert_eq!(clean(b"./usr//lib/./x/").as_deref(), Ok("usr/lib/x"));
        assert_eq!(clean(b"./").as_deref(), Ok(""));
        assert_eq!(clean(b"/").as_deref(), Ok(""));
        assert_eq!(clean(b"/./").as_deref(), Ok(""));
        assert_eq!(clean(b"//etc/x").as_deref(), Ok("etc/x"));
        assert_eq!(clean(b"..a/b..").as_deref(), Ok("..a/b.."));
        assert_eq!(clean(b"caf\xe9").as_deref(), Ok("caf\u{fffd}e9"));
        assert_eq!(
            clean("x\u{fffd}".as_bytes()).as_deref(),
            Ok("x\u{fffd}ef\u{fffd}bf\u{fffd}bd")
        );
        for path in [&b""[..], b"a/../b", b"..", b"/..", b"/../etc", b"a\0b"] {
            assert!(clean(path).is_err(), "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn different_bytes_never_become_the_same_text(
            one in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xef), Just(0xbf), Just(0xbd), Just(b'e'), Just(b'f')], 0..12),
            two in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xef), Just(0xbf), Just(0xbd), Just(b'e'), Just(b'f')], 0..12),
        ) {
            prop_assert_eq!(one == two, escape(&one) == escape(&two));
        }
    }
}
