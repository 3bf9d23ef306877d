//! Python: PEP 440 order, PEP 503 names.

use std::str::FromStr as _;

use model::{Os, Package, PackageType};
use pep440_rs::{LocalSegment, PrereleaseKind};

use super::{Ecosystem, Query, query};
use crate::version::{Key, Version};

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
        let version = pep440_rs::Version::from_str(text).ok()?;
        let mut key = Key::default();
        key.integer(version.epoch());
        let release = version.release();
        let zeros = release.iter().rev().take_while(|part| **part == 0).count();
        for part in release.iter().take(release.len().saturating_sub(zeros)) {
            key.byte(1);
            key.integer(*part);
        }
        key.byte(0);
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
