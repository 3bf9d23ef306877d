//! `SemVer` precedence (semver.org, section 11), read leniently: what most language ecosystems mean.
//!
//! Blanks, a leading `v` or `=`, missing parts, numbers of any length and a pre-release without its
//! hyphen are accepted, as node-semver's loose mode does.

use crate::version::{Key, Version, is_number, run};

/// The parts of a version.
pub(super) struct Parts<'a> {
    /// Numbers, separated by dots.
    pub(super) release: Vec<&'a str>,
    /// Identifiers of a pre-release.
    pub(super) prerelease: Option<Vec<&'a str>>,
    /// What is behind the `+`.
    pub(super) build: Option<&'a str>,
}

/// Takes a version of at most so many numbers apart.
pub(super) fn parts(text: &str, most: usize) -> Option<Parts<'_>> {
    let text = text.trim_start_matches(|c: char| c == 'v' || c == '=' || c.is_whitespace());
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    let (release, rest) = run(text, |c| c.is_ascii_digit() || c == '.');
    let release: Vec<&str> = release.split('.').collect();
    if release.len() > most || release.iter().any(|part| part.is_empty()) {
        return None;
    }
    let prerelease = if rest.is_empty() {
        None
    } else {
        Some(identifiers(rest.strip_prefix('-').unwrap_or(rest))?)
    };
    Some(Parts {
        release,
        prerelease,
        build,
    })
}

/// Identifiers between dots.
pub(super) fn identifiers(text: &str) -> Option<Vec<&str>> {
    let fits = |identifier: &&str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !identifier.is_empty() && identifier.chars().all(allowed)
    };
    let found: Vec<&str> = text.split('.').collect();
    found.iter().all(fits).then_some(found)
}

/// Numbers sort before words, and fewer identifiers before more.
pub(super) fn put_identifiers<'a>(identifiers: impl IntoIterator<Item = &'a str>, key: &mut Key) {
    for identifier in identifiers {
        if is_number(identifier) {
            key.byte(2);
            key.number(identifier);
        } else {
            key.byte(3);
            key.text(identifier);
        }
    }
    key.byte(0);
}

/// The release, and a pre-release before it.
pub(super) fn put_precedence(parts: &Parts<'_>, key: &mut Key) {
    key.release(parts.release.iter().copied());
    match &parts.prerelease {
        None => key.byte(9),
        Some(identifiers) => {
            key.byte(1);
            put_identifiers(identifiers.iter().copied(), key);
        }
    }
}

/// A version whose build metadata does not count.
pub(super) fn precedence(text: &str, most: usize) -> Option<Version> {
    let parts = parts(text, most)?;
    let mut key = Key::default();
    put_precedence(&parts, &mut key);
    Some(key.finish())
}
