//! Numbers between separators, of which all count: what Haskell and R call a version.

use crate::version::{Key, Version, is_number};

/// `1.2.3`; `1` sorts before `1.0`.
pub(super) fn numbers(text: &str, separators: &[char]) -> Option<Version> {
    let parts: Vec<&str> = text.split(separators).collect();
    if !parts.iter().all(|part| is_number(part)) {
        return None;
    }
    let mut key = Key::default();
    key.numbers(parts);
    Some(key.finish())
}
