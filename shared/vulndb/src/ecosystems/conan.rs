//! C and C++: versions of any shape, item by item.
//!
//! Items between dots are runs of digits and of other characters; digits sort as numbers, and before
//! words. A pre-release sorts before the release, a build after it, zeros at the end do not count.
//! Conan's own comparison is the same where both items are numbers or both are words. A number and a
//! mixture it compares as texts, which is no order: `2` < `10` < `1a` < `2`.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query};
use crate::version::{Key, Version, digits, run};

/// Conan's center, and everything without rules of its own.
pub(super) struct Conan;

const PRERELEASE: u8 = 1;
const RELEASE: u8 = 9;

// === impl Conan ===

impl Ecosystem for Conan {
    fn package_type(&self) -> PackageType {
        PackageType::Generic
    }

    fn purl_type(&self) -> &'static str {
        "conan"
    }

    fn names(&self) -> &'static [&'static str] {
        &["ConanCenter"]
    }

    fn parse(&self, text: &str) -> Option<Version> {
        if text.contains(char::is_whitespace) || !text.contains(|c: char| c.is_alphanumeric()) {
            return None;
        }
        let (text, build) = text.rsplit_once('+').unwrap_or((text, ""));
        let (release, prerelease) = match text.split_once('-') {
            Some((release, prerelease)) => (release, Some(prerelease)),
            None => (text, None),
        };
        let mut key = Key::default();
        items(release, &mut key);
        match prerelease {
            Some(prerelease) => {
                key.byte(PRERELEASE);
                items(prerelease, &mut key);
            }
            None => key.byte(RELEASE),
        }
        items(build, &mut key);
        Some(key.finish())
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let name = package.name.clone();
        vec![query("ConanCenter", name, &package.version, "package")]
    }
}

fn items(text: &str, key: &mut Key) {
    let is_zero = |item: &&str| item.bytes().all(|byte| byte == b'0');
    let items: Vec<&str> = text.split('.').collect();
    let zeros = items.iter().rev().take_while(|item| is_zero(item)).count();
    for item in items.iter().take(items.len().saturating_sub(zeros)) {
        key.byte(1);
        let mut rest = *item;
        while !rest.is_empty() {
            let (number, tail) = digits(rest);
            let (word, tail) = run(tail, |c| !c.is_ascii_digit());
            if !number.is_empty() {
                key.byte(1);
                key.number(number);
            }
            if !word.is_empty() {
                key.byte(2);
                key.text(word);
            }
            rest = tail;
        }
        key.byte(0);
    }
    key.byte(0);
}
