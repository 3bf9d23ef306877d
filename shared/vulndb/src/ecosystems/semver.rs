//! `SemVer` precedence (semver.org, section 11), read leniently: what most language ecosystems mean.
//!
//! Blanks, a leading `v` or `=`, missing parts, numbers of any length and a pre-release without its
//! hyphen are accepted, as node-semver's loose mode does.

use crate::version::{Key, Version, is_number, run};

/// The parts of a version.
pub(super) struct Parts<'a> {
    /// Numbers, separated by dots.
    pub(super) release: &'a str,
    /// Identifiers of a pre-release, separated by dots.
    pub(super) prerelease: Option<&'a str>,
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
    if release.split('.').count() > most || release.split('.').any(str::is_empty) {
        return None;
    }
    let prerelease = if rest.is_empty() {
        None
    } else {
        let labels = rest.strip_prefix('-').unwrap_or(rest);
        Some(are_identifiers(labels).then_some(labels)?)
    };
    Some(Parts {
        release,
        prerelease,
        build,
    })
}

/// Identifiers between dots.
pub(super) fn identifiers(text: &str) -> Option<std::str::Split<'_, char>> {
    are_identifiers(text).then(|| text.split('.'))
}

fn are_identifiers(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let fits = |identifier: &str| !identifier.is_empty() && identifier.bytes().all(allowed);
    text.split('.').all(fits)
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
    key.release(parts.release.split('.'));
    put_prerelease(parts.prerelease.map(|labels| labels.split('.')), key);
}

/// A pre-release, which sorts before none.
pub(super) fn put_prerelease<'a>(
    identifiers: Option<impl IntoIterator<Item = &'a str>>,
    key: &mut Key,
) {
    match identifiers {
        None => key.byte(9),
        Some(identifiers) => {
            key.byte(1);
            put_identifiers(identifiers, key);
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
