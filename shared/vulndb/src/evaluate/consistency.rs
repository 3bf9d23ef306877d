//! Real records against themselves: every version that a record lists is affected, and versions of
//! the same package that only other records list are not.
//!
//! What is left over is known. Lists are made once, by machines, from what an index had that day:
//! they lack pre-releases that were deleted there (50 of tensorflow in each of 32 records), lines
//! that were continued later (notebook 5.7.14), and, since the walk is a sorted one, what overlapping
//! windows mean (apache-iotdb in PYSEC-2022-42972). The ranges are what people write.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    path::Path,
};

use serde_json::Value;

use super::{Evaluation, evaluate};
use crate::{Advisory, ecosystems, family, matching::tests::package};

/// More than one in so many versions outside a list, pre-releases apart, must not be held by ranges.
const EXTRA_ONE_IN: usize = 1000;
/// Ecosystems of which every difference was looked at.
const JUDGED: [&str; 3] = ["PyPI", "Ubuntu", "npm"];

#[derive(Default)]
struct Tally {
    listed: usize,
    missed: usize,
    outside: usize,
    extra: usize,
    /// Pre-releases that ranges hold and lists lack.
    pre_releases: usize,
    undecided: usize,
    /// Records with versions that their ranges hold and their lists lack.
    wider: BTreeSet<String>,
}

/// A record's list of versions for one package.
struct Listed {
    id: String,
    ecosystem: String,
    name: String,
    versions: BTreeSet<String>,
    bytes: Vec<u8>,
}

#[test]
fn what_a_record_lists_is_affected_and_what_it_does_not_is_not() {
    let Some(data) = std::env::var_os("TIDEWAITER_TEST_DATA") else {
        println!("skipped: TIDEWAITER_TEST_DATA is not set");
        return;
    };
    let advisories = Path::new(&data).join("advisories");
    let folders = std::fs::read_dir(&advisories).expect("a directory");
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for folder in folders {
        let zip = folder.expect("an entry").path().join("all.zip");
        if zip.is_file() {
            tally(&listed(&zip), &mut tallies);
        }
    }
    for (ecosystem, tally) in &tallies {
        let Tally {
            listed,
            missed,
            outside,
            extra,
            pre_releases,
            undecided,
            wider,
        } = tally;
        println!(
            "{ecosystem}: {} of {listed} listed versions are affected, {} of {outside} others are not ({} records are wider than their list), {pre_releases} pre-releases that lists lack, {undecided} undecided",
            listed - missed,
            outside - extra,
            wider.len()
        );
        // Of the others the tables are printed, and not yet judged.
        if !JUDGED.contains(&ecosystem.as_str()) {
            continue;
        }
        assert_eq!(*missed, 0, "{ecosystem}");
        // Where there is little to compare, one is too large a share.
        let most = (outside / EXTRA_ONE_IN).max(2);
        assert!(*extra <= most, "{ecosystem}: {extra}: {wider:?}");
    }
}

/// The lists of a feed, for ecosystems whose versions are compared.
fn listed(zip: &Path) -> Vec<Listed> {
    let mut archive = zip::ZipArchive::new(File::open(zip).expect("a file")).expect("a zip");
    let mut found = Vec::new();
    for index in 0..archive.len() {
        let mut bytes = Vec::new();
        let mut entry = archive.by_index(index).expect("an entry");
        entry.read_to_end(&mut bytes).expect("bytes");
        let record: Value = serde_json::from_slice(&bytes).expect("JSON");
        if !record["withdrawn"].is_null() {
            continue;
        }
        let mut by_package: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        for affected in record["affected"].as_array().into_iter().flatten() {
            let text = |name: &str| affected["package"][name].as_str().unwrap_or_default();
            let versions = affected["versions"].as_array().into_iter().flatten();
            let versions = versions.filter_map(Value::as_str).map(str::to_owned);
            let key = (text("ecosystem").to_owned(), text("name").to_owned());
            by_package.entry(key).or_default().extend(versions);
        }
        for ((ecosystem, name), versions) in by_package {
            if !versions.is_empty() && family(&ecosystem).is_some() {
                found.push(Listed {
                    id: record["id"].as_str().unwrap_or_default().to_owned(),
                    ecosystem,
                    name,
                    versions,
                    bytes: bytes.clone(),
                });
            }
        }
    }
    found
}

fn tally(lists: &[Listed], tallies: &mut BTreeMap<String, Tally>) {
    let mut all: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for list in lists {
        let known = all.entry((&list.ecosystem, &list.name)).or_default();
        known.extend(list.versions.iter().map(String::as_str));
    }
    for list in lists {
        let family = family(&list.ecosystem).expect("it was asked before");
        let parts = Advisory::parse(&list.bytes)
            .expect("a record")
            .split("test");
        let name = family.normalize(&list.name);
        let part = parts
            .iter()
            .find(|(key, part)| key.ecosystem == list.ecosystem && part.package == name);
        let Some((_, part)) = part else { continue };
        let base = ecosystems::base(&list.ecosystem).to_owned();
        let tally = tallies.entry(base).or_default();
        let read = |text: &str| ecosystems::version(family, text);
        let keys: BTreeSet<_> = list.versions.iter().filter_map(|text| read(text)).collect();
        let known = &all[&(list.ecosystem.as_str(), list.name.as_str())];
        for version in known {
            // Ubuntu lists the only binary packages that count.
            let name = part.binaries.first().unwrap_or(&list.name);
            let package = package(family.package_type(), name, version);
            let says = evaluate(family, part, &package, version);
            let is_listed = list.versions.contains(*version)
                || read(version).is_some_and(|key| keys.contains(&key));
            match (is_listed, says) {
                (true, Evaluation::Affected(_)) => tally.listed += 1,
                (true, _) => {
                    println!(
                        "{}: {} {version} is listed and not found",
                        list.id, list.name
                    );
                    tally.listed += 1;
                    tally.missed += 1;
                }
                (false, Evaluation::Affected(_)) if is_pre_release(version) => {
                    tally.pre_releases += 1;
                }
                (false, Evaluation::Affected(_)) => {
                    tally.outside += 1;
                    tally.extra += 1;
                    tally.wider.insert(list.id.clone());
                    println!(
                        "{}: {} {version} is held and not listed",
                        list.id, list.name
                    );
                }
                (false, Evaluation::Undecided(_)) => tally.undecided += 1,
                (false, _) => tally.outside += 1,
            }
        }
    }
}

/// Whether a text looks like a version before a release.
fn is_pre_release(version: &str) -> bool {
    let words = ["rc", "alpha", "beta", "pre", "dev"];
    let lower = version.to_ascii_lowercase();
    let has_letter = |(index, byte): (usize, u8)| {
        let at = |index: usize| lower.as_bytes().get(index).is_some_and(u8::is_ascii_digit);
        (byte == b'a' || byte == b'b') && index > 0 && at(index - 1) && at(index + 1)
    };
    words.iter().any(|word| lower.contains(word)) || lower.bytes().enumerate().any(has_letter)
}
