//! JSON: the report as it is, indented.

use std::{fmt::Write as _, io};

use serde::Serialize;

use crate::clean::is_hostile;

/// Writes a document. Characters that steer terminals can stand in strings only, so writing them
/// as escapes leaves the document the same.
pub(crate) fn write<T: Serialize>(document: &T, out: &mut dyn io::Write) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(document)?;
    if text.chars().any(|c| c != '\n' && is_hostile(c)) {
        text = escaped(&text);
    }
    text.push('\n');
    out.write_all(text.as_bytes())
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || !is_hostile(c) {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(escaped, "\\u{unit:04x}").expect("writing to a String cannot fail");
        }
    }
    escaped
}
