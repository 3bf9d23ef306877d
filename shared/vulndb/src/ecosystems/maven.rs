//! Java: the order of Maven's `ComparableVersion`.
//!
//! A version is a list of numbers and qualifiers, of which the last may be a list again: a hyphen,
//! and a change between digits and letters, begin one. Where one version goes on and the other does
//! not, what follows is compared with nothing: a qualifier before a release, as `rc`, is less than
//! nothing, other qualifiers and numbers are more, and zeros are the same.
//!
//! That alone is no order: Maven says `1.sp.1` < `1-alpha` < `1` < `1.sp.1`, for it puts every
//! qualifier before every list. Here a list that begins with a qualifier before a release is also
//! before the others, and what Maven says holds wherever it does not contradict itself.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query};
use crate::version::{Key, Version, run};

/// Maven Central, and other repositories of its kind.
pub(super) struct Maven;

/// One entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item<'a> {
    Number(&'a str),
    /// A rank, and the text of those that have none of their own.
    Qualifier(u8, &'a str),
}

/// Lists, each the last entry of the one before it.
type Lists<'a> = Vec<Vec<Item<'a>>>;

/// Qualifiers with ranks, lowest first.
const QUALIFIERS: &[(&str, u8)] = &[
    ("alpha", 1),
    ("beta", 2),
    ("milestone", 3),
    ("rc", 4),
    ("cr", 4),
    ("snapshot", 5),
    ("", NOTHING),
    ("ga", NOTHING),
    ("final", NOTHING),
    ("release", NOTHING),
    ("sp", 7),
];
const NOTHING: u8 = 6;
const OTHER: u8 = 8;

/// What may stand at one place of a list, lowest first.
const QUALIFIER_BEFORE: u8 = 1;
const LIST_BEFORE: u8 = 2;
const ZEROS_BEFORE: u8 = 3;
const END: u8 = 4;
const QUALIFIER_AFTER: u8 = 5;
const LIST_AFTER: u8 = 6;
const NUMBER: u8 = 7;

// === impl Maven ===

impl Ecosystem for Maven {
    fn package_type(&self) -> PackageType {
        PackageType::Maven
    }

    fn names(&self) -> &'static [&'static str] {
        &["Maven"]
    }

    /// Everything is a version to Maven; what has a blank in it is none of a package.
    fn parse(&self, text: &str) -> Option<Version> {
        if text.contains(char::is_whitespace) {
            return None;
        }
        let text = text.to_lowercase();
        let mut lists = lists(&text);
        normalize(&mut lists);
        let mut key = Key::default();
        put(&lists, &mut key);
        Some(key.finish())
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let name = package.name.clone();
        vec![query("Maven", name, &package.version, "package")]
    }
}

fn lists(text: &str) -> Lists<'_> {
    let mut lists: Lists<'_> = vec![Vec::new()];
    let mut rest = text;
    while !rest.is_empty() {
        let is_digit = rest.starts_with(|c: char| c.is_ascii_digit());
        let same_kind = |c: char| c != '.' && c != '-' && c.is_ascii_digit() == is_digit;
        let (word, tail) = run(rest, same_kind);
        let mut after = tail.chars();
        let separator = after.next().filter(|&c| c == '.' || c == '-');
        let is_followed_by_digit = separator.is_none() && !tail.is_empty() && !is_digit;
        let begins_list = !is_digit && !word.is_empty() && separator.is_none();
        // What a qualifier is behind does not matter, so `.X` at the end is `-X`.
        if begins_list && lists.last().is_some_and(|list| !list.is_empty()) {
            lists.push(Vec::new());
        }
        let item = match () {
            () if word.is_empty() => Item::Number(""),
            () if is_digit => Item::Number(word),
            () => qualifier(word, is_followed_by_digit),
        };
        if let Some(list) = lists.last_mut() {
            list.push(item);
        }
        if separator == Some('-') || (separator.is_none() && !tail.is_empty()) {
            lists.push(Vec::new());
        }
        rest = if separator.is_some() {
            after.as_str()
        } else {
            tail
        };
    }
    lists
}

fn qualifier(word: &str, is_followed_by_digit: bool) -> Item<'_> {
    let word = match word {
        "a" if is_followed_by_digit => "alpha",
        "b" if is_followed_by_digit => "beta",
        "m" if is_followed_by_digit => "milestone",
        word => word,
    };
    let known = QUALIFIERS.iter().find(|(name, _)| *name == word);
    known.map_or(Item::Qualifier(OTHER, word), |&(_, rank)| {
        Item::Qualifier(rank, "")
    })
}

/// Drops what is the same as nothing from the end of each list, and lists that have nothing left.
fn normalize(lists: &mut Lists<'_>) {
    let mut kept: Lists<'_> = Vec::new();
    while let Some(mut list) = lists.pop() {
        while list.last().is_some_and(Item::is_nothing) {
            list.pop();
        }
        if !list.is_empty() || !kept.is_empty() {
            kept.push(list);
        }
    }
    kept.reverse();
    *lists = kept;
}

fn put(lists: &[Vec<Item<'_>>], key: &mut Key) {
    for (depth, list) in lists.iter().enumerate() {
        if depth > 0 {
            let inner = lists.get(depth..).unwrap_or_default();
            key.byte(if is_before_nothing(inner.iter().flatten()) {
                LIST_BEFORE
            } else {
                LIST_AFTER
            });
        }
        let mut items = list.as_slice();
        while let Some((item, rest)) = items.split_first() {
            let zeros = items.iter().take_while(|item| item.is_zero()).count();
            let behind = items.get(zeros..).unwrap_or_default();
            if zeros > 0 && is_before_nothing(behind) {
                // Nearer to nothing the more zeros there are.
                key.byte(ZEROS_BEFORE);
                key.integer(zeros as u64);
                items = behind;
                continue;
            }
            item.put(is_before_nothing(items), key);
            items = rest;
        }
    }
    key.byte(END);
}

/// Whether entries are less than nothing: the first one that is not the same as nothing is.
fn is_before_nothing<'a>(items: impl IntoIterator<Item = &'a Item<'a>>) -> bool {
    let mut items = items.into_iter();
    let first = items.find(|item| !item.is_nothing());
    first.is_some_and(|item| matches!(item, Item::Qualifier(rank, _) if *rank < NOTHING))
}

// === impl Item ===

impl Item<'_> {
    fn is_zero(&self) -> bool {
        matches!(self, Self::Number(digits) if digits.bytes().all(|digit| digit == b'0'))
    }

    fn is_nothing(&self) -> bool {
        self.is_zero() || matches!(self, Self::Qualifier(NOTHING, _))
    }

    fn put(&self, is_before_nothing: bool, key: &mut Key) {
        match self {
            Self::Number(digits) => {
                key.byte(NUMBER);
                key.number(digits);
            }
            Self::Qualifier(rank, text) => {
                key.byte(if is_before_nothing {
                    QUALIFIER_BEFORE
                } else {
                    QUALIFIER_AFTER
                });
                key.byte(*rank);
                key.text(text);
            }
        }
    }
}
