//! Python: PEP 440 order, PEP 503 names.

use std::str::FromStr as _;

use model::{Os, Package, PackageType};
use pep440_rs::{LocalSegment, PrereleaseKind};

use super::{Ecosystem, Query, query};
use crate::version::{Key, Version, is_number};

/// The Python package index.
pub(super) struct Pypi;

// === impl Pypi ===

impl Ecosystem for Pypi {
    fn package_type(&self) -> PackageType {
        PackageType::Pypi
    }

    fn names(&self) -> &'static [&'static str] {
        &["PyPI"]
    }

    fn normalize(&self, name: &str) -> String {
        let mut normal = String::with_capacity(name.len());
        for c in name.chars() {
            match c {
                '-' | '_' | '.' if normal.ends_with('-') => {}
                '-' | '_' | '.' => normal.push('-'),
                other => normal.extend(other.to_lowercase()),
            }
        }
        normal
    }

    fn parse(&self, text: &str) -> Option<Version> {
        if let Some(version) = plain(text) {
            return Some(version);
        }
        let version = pep440_rs::Version::from_str(text).ok()?;
        let mut key = Key::default();
        key.integer(version.epoch());
        put_release(version.release().iter().copied(), &mut key);
        tail(&version, &mut key);
        Some(key.finish())
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        vec![query(
            "PyPI",
            self.normalize(&package.name),
            &package.version,
            "package",
        )]
    }
}

/// The key of numbers and dots alone, which most versions are: the same as that of the whole
/// grammar, at a tenth of its cost. `None` is for the grammar to decide.
fn plain(text: &str) -> Option<Version> {
    // More digits may not fit the number.
    let fits = |part: &str| part.len() < 20 && is_number(part);
    if !text.split('.').all(fits) {
        return None;
    }
    let mut key = Key::default();
    key.integer(0);
    put_release(
        text.split('.').filter_map(|part| part.parse().ok()),
        &mut key,
    );
    // Neither pre-release, post-release, development release nor local version.
    for byte in [4, 0, 1, 0] {
        key.byte(byte);
    }
    Some(key.finish())
}

/// Numbers of which trailing zeros do not count.
fn put_release(release: impl Iterator<Item = u64>, key: &mut Key) {
    let mut zeros = 0_usize;
    for part in release {
        if part == 0 {
            zeros = zeros.saturating_add(1);
            continue;
        }
        for number in std::iter::repeat_n(0, std::mem::take(&mut zeros)).chain([part]) {
            key.byte(1);
            key.integer(number);
        }
    }
    key.byte(0);
}

/// Everything after the release: a development release of nothing else sorts first, then
/// pre-releases, the release, post-releases; a local version sorts after the same without one.
fn tail(version: &pep440_rs::Version, key: &mut Key) {
    match version.pre() {
        None if version.post().is_none() && version.dev().is_some() => key.byte(0),
        None => key.byte(4),
        Some(pre) => {
            key.byte(match pre.kind {
                PrereleaseKind::Alpha => 1,
                PrereleaseKind::Beta => 2,
                PrereleaseKind::Rc => 3,
            });
            key.integer(pre.number);
        }
    }
    match version.post() {
        None => key.byte(0),
        Some(number) => {
            key.byte(1);
            key.integer(number);
        }
    }
    match version.dev() {
        None => key.byte(1),
        Some(number) => {
            key.byte(0);
            key.integer(number);
        }
    }
    for segment in version.local() {
        match segment {
            LocalSegment::String(text) => {
                key.byte(1);
                key.text(&text.to_ascii_lowercase());
            }
            LocalSegment::Number(number) => {
                key.byte(2);
                key.integer(*number);
            }
        }
    }
    key.byte(0);
}
