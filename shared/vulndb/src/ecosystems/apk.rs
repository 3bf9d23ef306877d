//! Alpine and its kind: apk 3's order, packages by origin.
//!
//! A version is `digits(.digits)*[letter](_suffix[digits])*[~hash][-r digits]`. apk 2 differs in
//! two corners that no package version of Alpine reaches: components of several digits that start
//! with zero (apk 3 compares them as text), and a pre-release right after a component `0` without
//! a revision, which apk 2 sorts after the release.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query};
use crate::{
    os,
    version::{Key, Version, digits, run},
};

/// Alpine and derivatives.
pub(super) struct Apk;

/// What may follow where one version goes on and the other does not, lowest first.
const SUFFIXES_BEFORE: [(&str, u8); 4] = [("alpha", 1), ("beta", 2), ("pre", 3), ("rc", 4)];
const END: u8 = 5;
const REVISION: u8 = 6;
const HASH: u8 = 7;
const SUFFIX_NUMBER: u8 = 8;
const SUFFIXES_AFTER: [(&str, u8); 5] =
    [("cvs", 9), ("svn", 10), ("git", 11), ("hg", 12), ("p", 13)];
const LETTER: u8 = 14;
const COMPONENT: u8 = 15;

// === impl Apk ===

impl Ecosystem for Apk {
    fn package_type(&self) -> PackageType {
        PackageType::Apk
    }

    fn names(&self) -> &'static [&'static str] {
        &[
            "Alpaquita",
            "Alpine",
            "BellSoft Hardened Containers",
            "Chainguard",
            "CleanStart",
            "MinimOS",
            "Wolfi",
        ]
    }

    fn parse(&self, text: &str) -> Option<Version> {
        let mut key = Key::default();
        let rest = components(text, &mut key)?;
        let rest = suffixes(rest, &mut key)?;
        let rest = match rest.strip_prefix('~') {
            Some(tail) => {
                let (hash, tail) = run(tail, |c| c.is_ascii_hexdigit());
                key.byte(HASH);
                key.text(hash);
                (!hash.is_empty()).then_some(tail)?
            }
            None => rest,
        };
        let rest = match rest.strip_prefix("-r") {
            Some(tail) => {
                let (number, tail) = digits(tail);
                key.byte(REVISION);
                key.number(number);
                (!number.is_empty()).then_some(tail)?
            }
            None => rest,
        };
        key.byte(END);
        rest.is_empty().then(|| key.finish())
    }

    fn releases(&self, os: &Os) -> Vec<String> {
        let release = match os.id.as_str() {
            "alpine" => os::alpine_release(os),
            "alpaquita" => bellsoft("Alpaquita", os),
            "bellsoft-hardened-containers" => bellsoft("BellSoft Hardened Containers", os),
            "chainguard" => Some("Chainguard".to_owned()),
            "cleanstart" | "clnstrt" => Some("CleanStart".to_owned()),
            "minimos" => Some("MinimOS".to_owned()),
            "wolfi" => Some("Wolfi".to_owned()),
            _ => None,
        };
        release.into_iter().collect()
    }

    /// By origin; where there are no releases also by name, which their records have.
    fn queries(&self, package: &Package, os: Option<&Os>) -> Vec<Query> {
        let origin = package.source_name.as_ref().unwrap_or(&package.name);
        let version = package.source_version.as_ref().unwrap_or(&package.version);
        let mut queries = Vec::new();
        for release in os.map(|os| self.releases(os)).unwrap_or_default() {
            queries.push(query(&release, origin.clone(), version, "origin"));
            if !release.contains(':') && *origin != package.name {
                let name = package.name.clone();
                queries.push(query(&release, name, &package.version, "package"));
            }
        }
        queries
    }
}

/// `Alpaquita:23`, `Alpaquita:stream`.
fn bellsoft(name: &str, os: &Os) -> Option<String> {
    let release = os.version_id.split('.').next()?;
    (!release.is_empty()).then(|| format!("{name}:{}", release.to_lowercase()))
}

/// `digits(.digits)*[letter[digits]]`.
fn components<'a>(text: &'a str, key: &mut Key) -> Option<&'a str> {
    let (first, mut rest) = digits(text);
    if first.is_empty() {
        return None;
    }
    key.number(first);
    while let Some(tail) = rest.strip_prefix('.') {
        let (component, tail) = digits(tail);
        if component.is_empty() {
            return None;
        }
        key.byte(COMPONENT);
        if component.starts_with('0') {
            key.byte(0);
            key.text(component);
        } else {
            key.byte(1);
            key.number(component);
        }
        rest = tail;
    }
    let mut chars = rest.chars();
    if let Some(letter) = chars.next().filter(char::is_ascii_lowercase) {
        key.byte(LETTER);
        key.byte(u8::try_from(letter).ok()?);
        let (number, tail) = digits(chars.as_str());
        if !number.is_empty() {
            key.byte(COMPONENT);
            key.byte(1);
            key.number(number);
        }
        rest = tail;
    }
    Some(rest)
}

/// `(_suffix[digits])*`.
fn suffixes<'a>(text: &'a str, key: &mut Key) -> Option<&'a str> {
    let mut rest = text;
    while let Some(tail) = rest.strip_prefix('_') {
        let (name, tail) = run(tail, |c| c.is_ascii_lowercase());
        let mut known = SUFFIXES_BEFORE.iter().chain(&SUFFIXES_AFTER);
        let (_, tag) = known.find(|(suffix, _)| *suffix == name)?;
        key.byte(*tag);
        let (number, tail) = digits(tail);
        if !number.is_empty() {
            key.byte(SUFFIX_NUMBER);
            key.number(number);
        }
        rest = tail;
    }
    Some(rest)
}
