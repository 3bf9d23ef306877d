//! Ruby: the order of `Gem::Version`.
//!
//! A version is numbers and words; words sort before numbers, and what is missing counts as 0, so
//! that `1.0` is `1` and `1.a` is before it. Zeros at the end, and those before the first word, do
//! not count.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query};
use crate::version::{Key, Version, digits, run};

/// `RubyGems`.
pub(super) struct Gem;

/// Where a gem was built for, as its version in a lock file goes on.
const PLATFORMS: &[&str] = &[
    "aarch64",
    "arm",
    "arm64",
    "dalvik",
    "java",
    "jruby",
    "mingw32",
    "mswin",
    "mswin32",
    "mswin64",
    "ppc64le",
    "riscv64",
    "s390x",
    "universal",
    "x64",
    "x86",
    "x86_64",
];

/// What a run of zeros is followed by: a word is less than zeros without end, a number more.
const WORD: u8 = 1;
const END: u8 = 2;
const NUMBER: u8 = 3;

// === impl Gem ===

impl Ecosystem for Gem {
    fn package_type(&self) -> PackageType {
        PackageType::Gem
    }

    fn names(&self) -> &'static [&'static str] {
        &["RubyGems"]
    }

    fn parse(&self, text: &str) -> Option<Version> {
        if !is_gem_version(text) {
            return None;
        }
        // Only the first hyphen begins a pre-release; but a word is a word without it, too.
        let text = text.replace('-', ".pre.");
        let segments = canonical(&segments(&text));
        let mut key = Key::default();
        let mut zeros = 0_u16;
        for segment in segments {
            let is_word = segment.starts_with(|c: char| c.is_ascii_alphabetic());
            if !is_word && is_zero(segment) {
                zeros = zeros.saturating_add(1);
                continue;
            }
            // The longer the run, the nearer is what follows to zeros without end.
            if is_word {
                key.byte(WORD);
                key.integer(u64::from(zeros));
                key.text(segment);
            } else {
                key.byte(NUMBER);
                key.integer(u64::from(u16::MAX.saturating_sub(zeros)));
                key.number(segment);
            }
            zeros = 0;
        }
        key.byte(END);
        Some(key.finish())
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let name = package.name.clone();
        let version = without_platform(&package.version);
        vec![query("RubyGems", name, version, "package")]
    }
}

/// `digits(.alphanumerics)*(-words(.words)*)?`, the pattern of `Gem::Version`.
fn is_gem_version(text: &str) -> bool {
    let (release, prerelease) = match text.split_once('-') {
        Some((release, prerelease)) => (release, Some(prerelease)),
        None => (text, None),
    };
    let mut parts = release.split('.');
    let first = parts.next().unwrap_or_default();
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
    let hyphened = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !part.is_empty() && part.bytes().all(allowed)
    };
    !first.is_empty()
        && digits(first).1.is_empty()
        && parts.all(word)
        && prerelease.is_none_or(|text| text.split('.').all(hyphened))
}

/// Runs of digits and runs of letters.
fn segments(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (number, tail) = digits(rest);
        let (word, tail) = run(tail, |c| c.is_ascii_alphabetic());
        let (_separators, tail) = run(tail, |c| !c.is_ascii_alphanumeric());
        found.extend([number, word].into_iter().filter(|part| !part.is_empty()));
        rest = tail;
    }
    found
}

/// Without the zeros before the first word and those at the end.
fn canonical<'a>(segments: &[&'a str]) -> Vec<&'a str> {
    let is_word = |segment: &&str| segment.starts_with(|c: char| c.is_ascii_alphabetic());
    let first = segments.iter().position(is_word).unwrap_or(segments.len());
    let (numbers, words) = segments.split_at_checked(first).unwrap_or((segments, &[]));
    let mut found: Vec<&str> = Vec::new();
    for half in [numbers, words] {
        let end = half.iter().rposition(|segment| !is_zero(segment));
        let kept = end.map_or(0, |end| end.saturating_add(1));
        found.extend(half.iter().take(kept));
    }
    found
}

fn is_zero(segment: &str) -> bool {
    segment.bytes().all(|byte| byte == b'0')
}

/// `1.15.4` of `1.15.4-x86_64-linux`.
fn without_platform(version: &str) -> &str {
    let Some((release, platform)) = version.split_once('-') else {
        return version;
    };
    let name = platform.split('-').next().unwrap_or_default();
    if PLATFORMS.contains(&name) {
        release
    } else {
        version
    }
}
