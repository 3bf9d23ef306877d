//! PHP: what Composer normalizes a version to, in the order of PHP's `version_compare`.
//!
//! A release has four numbers, or is a date; then a stability with numbers of its own, then `dev`.
//! Branches are not versions, but for those that are numbers, as `1.x-dev`.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query};
use crate::version::{Key, Version, digits, is_number, run};

/// Packagist, and Drupal's repository.
pub(super) struct Composer;

/// Words of a stability and their ranks in [`put`]; longer ones first, for some begin others.
const STABILITIES: &[(&str, Option<u8>)] = &[
    ("stable", None),
    ("alpha", Some(ALPHA)),
    ("patch", Some(PATCH)),
    ("beta", Some(BETA)),
    ("rc", Some(CANDIDATE)),
    ("pl", Some(PATCH)),
    ("a", Some(ALPHA)),
    ("b", Some(BETA)),
    ("p", Some(PATCH)),
];

/// What may stand at one place, lowest first.
const DEVELOPMENT: u8 = 1;
const ALPHA: u8 = 2;
const BETA: u8 = 3;
const CANDIDATE: u8 = 4;
const END: u8 = 5;
const NUMBER: u8 = 6;
const PATCH: u8 = 7;

/// The number that stands for `x`.
const ANY: &str = "9999999";

/// Where Drupal's modules are: what has its vendor's name is from there or from Packagist.
const DRUPAL: &str = "Packagist:https://packages.drupal.org/8";

/// What is behind the numbers.
#[derive(Default)]
struct Modifier<'a> {
    stability: Option<u8>,
    numbers: Vec<&'a str>,
    is_development: bool,
}

// === impl Composer ===

impl Ecosystem for Composer {
    fn package_type(&self) -> PackageType {
        PackageType::Composer
    }

    fn names(&self) -> &'static [&'static str] {
        &["Packagist"]
    }

    fn normalize(&self, name: &str) -> String {
        name.to_lowercase()
    }

    fn parse(&self, text: &str) -> Option<Version> {
        let text = text.to_ascii_lowercase();
        let text = without_remarks(&text);
        let plain = text.strip_prefix('v').unwrap_or(text);
        let (numbers, behind) = numbers(plain);
        let parsed = modifier(behind).and_then(|modifier| {
            let release = release(numbers).or_else(|| date(numbers))?;
            Some((release, modifier))
        });
        let (release, modifier) = parsed.or_else(|| branch(plain))?;
        let mut key = Key::default();
        put(&release, &modifier, &mut key);
        Some(key.finish())
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let name = self.normalize(&package.name);
        let mut queries = vec![query(
            "Packagist",
            name.clone(),
            &package.version,
            "package",
        )];
        if name.starts_with("drupal/") {
            queries.push(query(DRUPAL, name, &package.version, "package"));
        }
        queries
    }
}

/// Without an alias, a stability flag and build metadata.
fn without_remarks(text: &str) -> &str {
    let mut text = text;
    if let Some((version, alias)) = text.split_once(char::is_whitespace) {
        let alias = alias.trim_start().strip_prefix("as").unwrap_or_default();
        let is_alias = alias.starts_with(char::is_whitespace) && !alias.contains(',');
        if is_alias && alias.split_whitespace().count() == 1 {
            text = version;
        }
    }
    if let Some((version, flag)) = text.rsplit_once('@')
        && matches!(flag, "stable" | "rc" | "beta" | "alpha" | "dev")
    {
        text = version;
    }
    match text.split_once('+') {
        Some((version, build)) if !version.is_empty() && !build.is_empty() => version,
        _ => text,
    }
}

/// The numbers and their separators, and what is behind the last number.
fn numbers(text: &str) -> (&str, &str) {
    let (start, _) = run(text, |c| c.is_ascii_digit() || ".:-".contains(c));
    let length = start.trim_end_matches(['.', ':', '-']).len();
    text.split_at_checked(length).unwrap_or((text, ""))
}

/// `1`, `1.2`, `1.2.3` or `1.2.3.4`: four numbers, of which the first has five digits at most.
fn release(text: &str) -> Option<Vec<&str>> {
    let mut parts: Vec<&str> = text.split('.').collect();
    let is_release = parts.len() <= 4
        && parts.iter().all(|part| is_number(part))
        && parts.first().is_some_and(|first| first.len() <= 5);
    if !is_release {
        return None;
    }
    parts.resize(4, "0");
    Some(parts)
}

/// A year, then one to six pairs of digits, then up to two numbers of up to three.
fn date(text: &str) -> Option<Vec<&str>> {
    let (_year, rest) = text
        .split_at_checked(4)
        .filter(|(year, _)| is_number(year))?;
    let rest = fixed(rest, 2)?;
    is_date_tail(rest, 5).then(|| text.split(['.', ':', '-']).collect())
}

fn is_date_tail(text: &str, pairs: u32) -> bool {
    if is_date_end(text, 2) {
        return true;
    }
    pairs > 0 && fixed(text, 2).is_some_and(|rest| is_date_tail(rest, pairs.saturating_sub(1)))
}

fn is_date_end(text: &str, numbers: u32) -> bool {
    let goes_on = |length| {
        let rest = fixed(text, length);
        rest.is_some_and(|rest| is_date_end(rest, numbers.saturating_sub(1)))
    };
    text.is_empty() || numbers > 0 && (1..=3).any(goes_on)
}

/// What is behind so many digits, which a separator may stand before.
fn fixed(text: &str, length: usize) -> Option<&str> {
    let text = text.strip_prefix(['.', ':', '-']).unwrap_or(text);
    let (digits, rest) = text.split_at_checked(length)?;
    is_number(digits).then_some(rest)
}

/// A separator, then a stability with numbers, then `dev`; all of it may be missing.
fn modifier(text: &str) -> Option<Modifier<'_>> {
    let mut found = Modifier::default();
    let mut rest = text.strip_prefix(['.', '_', '-']).unwrap_or(text);
    let known = STABILITIES.iter().find(|(word, _)| rest.starts_with(word));
    if let Some((word, rank)) = known {
        rest = rest.strip_prefix(word)?;
        found.stability = *rank;
        loop {
            let (number, tail) = digits(rest.strip_prefix(['.', '-']).unwrap_or(rest));
            if number.is_empty() {
                break;
            }
            found.numbers.push(number);
            rest = tail;
        }
    }
    found.is_development = rest.strip_prefix(['.', '-']).unwrap_or(rest) == "dev";
    if !rest.is_empty() && !found.is_development {
        return None;
    }
    // What is called stable is the release, whatever else is said.
    let is_stable = known.is_some_and(|(_, rank)| rank.is_none());
    Some(if is_stable {
        Modifier::default()
    } else {
        found
    })
}

/// `1.x-dev`: a branch that is numbers.
fn branch(text: &str) -> Option<(Vec<&str>, Modifier<'static>)> {
    let branch = text.strip_suffix("dev")?;
    let branch = branch.strip_suffix(['.', '-']).unwrap_or(branch);
    let mut parts = Vec::new();
    for (index, part) in branch.split('.').enumerate() {
        let is_any = index > 0 && matches!(part, "x" | "*");
        if !is_any && !is_number(part) {
            return None;
        }
        parts.push(if is_any { ANY } else { part });
    }
    if parts.len() > 4 {
        return None;
    }
    parts.resize(4, ANY);
    let modifier = Modifier {
        is_development: true,
        ..Modifier::default()
    };
    Some((parts, modifier))
}

fn put(release: &[&str], modifier: &Modifier<'_>, key: &mut Key) {
    for number in release {
        key.byte(NUMBER);
        key.number(number);
    }
    if let Some(rank) = modifier.stability {
        key.byte(rank);
    }
    for number in &modifier.numbers {
        key.byte(NUMBER);
        key.number(number);
    }
    if modifier.is_development {
        key.byte(DEVELOPMENT);
    }
    key.byte(END);
}
