//! Names of vulnerabilities: which of them mean the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::shard::ShardAdvisory;

/// Which names mean the same vulnerability: a union-find over aliases.
#[derive(Debug, Default)]
pub(crate) struct Names<'a> {
    /// Each name's place in `parents`.
    places: BTreeMap<&'a str, usize>,
    /// Whose parent is itself stands for all that lead to it.
    parents: Vec<usize>,
}

/// The CVE inside a vendor's record id (`DEBIAN-CVE-2024-1` is `CVE-2024-1`); any other id as it is.
pub fn canonical(id: &str) -> &str {
    // Most ids are one, or have no V in them.
    if id.starts_with("CVE-") || !id.as_bytes().contains(&b'V') {
        return id;
    }
    // Shorter than what a search for texts of any length begins with.
    let Some(start) = id.as_bytes().windows(4).rposition(|four| four == b"CVE-") else {
        return id;
    };
    let (prefix, cve) = id.split_at_checked(start).unwrap_or(("", id));
    if is_whole_cve(cve) && (prefix.is_empty() || prefix.ends_with('-')) {
        cve
    } else {
        id
    }
}

/// Whether a name is a CVE's.
pub(crate) fn is_cve(name: &str) -> bool {
    name.starts_with("CVE-")
}

/// Whether a text is the id of a CVE and nothing else.
pub(crate) fn is_whole_cve(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parts = text
        .strip_prefix("CVE-")
        .and_then(|rest| rest.split_once('-'));
    text.len() <= 32
        && parts.is_some_and(|(year, number)| year.len() == 4 && digits(year) && digits(number))
}

/// The vulnerabilities that an advisory is about, in order: itself where it is or has a CVE, else those
/// that it contains, else itself.
pub(crate) fn subjects(advisory: &ShardAdvisory) -> Vec<&str> {
    if is_one(advisory) {
        return vec![canonical(&advisory.id)];
    }
    let contained = advisory.upstream.iter().map(|name| canonical(name));
    let mut contained: Vec<&str> = contained.collect();
    contained.sort_unstable();
    contained.dedup();
    contained
}

/// Whether an advisory is a bulletin: it contains vulnerabilities and is none itself.
pub(crate) fn is_bulletin(advisory: &ShardAdvisory) -> bool {
    let own = canonical(&advisory.id);
    let mut contained = advisory.upstream.iter();
    !is_one(advisory) && !contained.any(|name| canonical(name) == own)
}

/// Whether an advisory is that of one vulnerability.
fn is_one(advisory: &ShardAdvisory) -> bool {
    let mut aliases = advisory.aliases.iter();
    advisory.upstream.is_empty()
        || is_cve(canonical(&advisory.id))
        || aliases.any(|alias| is_cve(canonical(alias)))
}

// === impl Names ===

impl<'a> Names<'a> {
    /// Joins an advisory's id with its aliases. `upstream` joins nothing.
    pub(crate) fn join(&mut self, advisory: &'a ShardAdvisory) {
        let own = self.root(canonical(&advisory.id));
        for alias in &advisory.aliases {
            let other = self.root(canonical(alias));
            if let Some(parent) = self.parents.get_mut(other) {
                *parent = own;
            }
        }
    }

    /// What stands for all names that mean the same.
    pub(crate) fn root(&mut self, name: &'a str) -> usize {
        let next = self.parents.len();
        let place = *self.places.entry(name).or_insert(next);
        if place == next {
            self.parents.push(next);
        }
        let mut at = place;
        // Joining makes no circles; the bound is for the reader.
        for _ in 0..self.parents.len() {
            match self.parents.get(at) {
                Some(parent) if *parent != at => at = *parent,
                _ => break,
            }
        }
        if let Some(parent) = self.parents.get_mut(place) {
            *parent = at;
        }
        at
    }

    /// All names, by what stands for them.
    pub(crate) fn classes(&mut self) -> BTreeMap<usize, BTreeSet<&'a str>> {
        let names: Vec<&'a str> = self.places.keys().copied().collect();
        let mut classes: BTreeMap<usize, BTreeSet<&'a str>> = BTreeMap::new();
        for name in names {
            classes.entry(self.root(name)).or_default().insert(name);
        }
        classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advisory(id: &str, aliases: &[&str], upstream: &[&str]) -> ShardAdvisory {
        let owned = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect();
        ShardAdvisory {
            id: id.to_owned(),
            aliases: owned(aliases),
            upstream: owned(upstream),
            ..ShardAdvisory::default()
        }
    }

    #[test]
    fn vendor_records_of_a_cve_are_that_cve() {
        assert_eq!(canonical("DEBIAN-CVE-2024-3094"), "CVE-2024-3094");
        assert_eq!(canonical("CVE-2024-3094"), "CVE-2024-3094");
        for id in [
            "GHSA-x",
            "XCVE-2024-3094",
            "CVE-2024",
            "CVE-",
            "DEBIAN-CVE-20x4-1",
        ] {
            assert_eq!(canonical(id), id);
        }
    }

    #[test]
    fn a_bulletin_is_about_what_it_contains() {
        let dsa = advisory(
            "DSA-1-1",
            &[],
            &["DEBIAN-CVE-2024-1", "CVE-2024-1", "CVE-2024-2"],
        );
        assert_eq!(subjects(&dsa), ["CVE-2024-1", "CVE-2024-2"]);
        assert!(is_bulletin(&dsa));
        let cve = advisory("DEBIAN-CVE-2024-1", &[], &["CVE-2024-1"]);
        assert_eq!(subjects(&cve), ["CVE-2024-1"]);
        assert!(!is_bulletin(&cve) && !is_bulletin(&advisory("DSA-2-1", &[], &[])));
    }

    #[test]
    fn aliases_join_transitively_and_upstream_never() {
        let advisories = [
            advisory("GHSA-a", &["CVE-2024-1"], &[]),
            advisory("PYSEC-1", &["CVE-2024-1", "SNYK-1"], &[]),
            advisory("DSA-1-1", &[], &["CVE-2024-1", "CVE-2024-2"]),
        ];
        let mut names = Names::default();
        for advisory in &advisories {
            names.join(advisory);
        }
        let root = names.root("GHSA-a");
        assert_eq!(names.root("SNYK-1"), root);
        assert_ne!(names.root("CVE-2024-2"), root);
        let class: Vec<_> = names.classes().remove(&root).unwrap().into_iter().collect();
        assert_eq!(class, ["CVE-2024-1", "GHSA-a", "PYSEC-1", "SNYK-1"]);
    }
}
