//! Text from images, made harmless for terminals.

use std::{borrow::Cow, fmt::Write as _};

/// The same text on one line, with everything that could steer a terminal or reorder a line
/// written as its code point: control characters, escapes, bidirectional marks, invisible ones.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text
        .chars()
        .any(|c| c.is_whitespace() && c != ' ' || is_hostile(c))
    {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hostile(c) && !c.is_whitespace() {
            write!(cleaned, "\\u{{{:x}}}", u32::from(c)).expect("writing to a String cannot fail");
        } else {
            cleaned.push(if c.is_whitespace() { ' ' } else { c });
        }
    }
    Cow::Owned(cleaned)
}

/// Whether a character does something to a terminal or a line instead of being seen.
pub(crate) fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// The address, if it is one that a reader may be led to.
pub(crate) fn web_address(url: &str) -> Option<&str> {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#@!$&'()*+,;=%".contains(&byte);
    let rest = url.strip_prefix("https://")?;
    (!rest.is_empty() && url.bytes().all(is_plain)).then_some(url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_steers_a_terminal_becomes_visible() {
        let check = |text: &str, expected: &str| assert_eq!(clean(text), expected);
        check("plain ä 漢", "plain ä 漢");
        check("\u{1b}[31mred\u{7}", "\\u{1b}[31mred\\u{7}");
        check("\u{9b}2J", "\\u{9b}2J");
        check("a\nb\tc\r", "a b c ");
        check("exe\u{202e}fdp", "exe\\u{202e}fdp");
        check("a\u{200b}b\u{2028}c", "a\\u{200b}b c");
    }

    #[test]
    fn only_plain_addresses_are_led_to() {
        for url in [
            "https://osv.dev/vulnerability/GHSA-1",
            "https://a.example/x?id=CVE-1#y",
        ] {
            assert_eq!(web_address(url), Some(url));
        }
        for url in [
            "",
            "https://",
            "http://a.example",
            "javascript:x",
            "https://a b",
            "https://a\n",
        ] {
            assert_eq!(web_address(url), None, "{url}");
        }
    }

    proptest! {
        #[test]
        fn nothing_hostile_is_left(text: String) {
            prop_assert!(!clean(&text).chars().any(is_hostile));
        }
    }
}
