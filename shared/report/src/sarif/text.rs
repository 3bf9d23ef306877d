//! Texts and paths as SARIF wants them.

use std::fmt::Write as _;

use crate::clean::clean;

/// Characters that a description may have.
pub(super) const DESCRIPTION_CHARS_MAX: usize = 1024;

/// One line that is no markup: `[text](n)` would be a link in it, and `{0}` an argument.
pub(super) fn message(text: &str) -> String {
    let text = clean(text);
    let mut safe = String::with_capacity(text.len());
    let mut before = None;
    for c in text.chars() {
        let is_link = before == Some(']') && c == '(';
        let is_argument = before == Some('{') && c.is_ascii_digit();
        if is_link || is_argument {
            safe.push(' ');
        }
        safe.push(c);
        before = Some(c);
    }
    safe
}

/// As long as a description may be.
pub(super) fn description(text: &str) -> String {
    let text = message(text);
    if text.chars().count() <= DESCRIPTION_CHARS_MAX {
        return text;
    }
    let mut cut: String = text.chars().take(DESCRIPTION_CHARS_MAX - 1).collect();
    cut.push('…');
    cut
}

/// Text that stays text in Markdown.
pub(super) fn markdown(text: &str) -> String {
    let text = clean(text);
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '+' | '!' | '|'
            | '~' => {
                escaped.push('\\');
                escaped.push(c);
            }
            _ => escaped.push(c),
        }
    }
    escaped
}

/// A path of the image as a relative reference (RFC 3986): a colon in it must not make a scheme,
/// nor a leading slash an authority.
pub(super) fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.trim_start_matches('/').bytes() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b'/'
            | b'+'
            | b'@' => uri.push(char::from(byte)),
            _ => write!(uri, "%{byte:02X}").expect("writing to a String cannot fail"),
        }
    }
    uri
}
