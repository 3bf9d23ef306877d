//! Versions of real packages: those that advisories in the test data name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use serde_json::Value;
use zip::ZipArchive;

use crate::{RECORD_BYTES_MAX, ecosystems};

/// A base ecosystem and a name in it.
type Package = (String, String);

/// Versions by package.
static KNOWN: OnceLock<BTreeMap<Package, Vec<String>>> = OnceLock::new();

/// The advisories in the test data; `None` where there is none, with a word about it.
pub(super) fn advisories() -> Option<PathBuf> {
    let found = std::env::var_os("TIDEWAITER_TEST_DATA")
        .map(|data| PathBuf::from(data).join("advisories"))
        .filter(|dir| dir.is_dir());
    if found.is_none() {
        println!("skipped: no `advisories` in TIDEWAITER_TEST_DATA");
    }
    found
}

/// Calls for every record of the test data; `names` are of files in OSV.dev's layout.
pub(super) fn each_record(dir: &Path, mut take: impl FnMut(Value)) {
    let entries = std::fs::read_dir(dir).expect("the test data can be read");
    let mut zips: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path().join("all.zip"))
        .filter(|path| path.is_file())
        .collect();
    zips.sort();
    for path in zips {
        let file = File::open(&path).expect("a zip can be opened");
        let mut zip = ZipArchive::new(file).expect("a zip");
        for index in 0..zip.len() {
            let entry = zip.by_index(index).expect("a member");
            let mut bytes = Vec::new();
            let most = RECORD_BYTES_MAX as u64;
            entry.take(most).read_to_end(&mut bytes).expect("a record");
            take(serde_json::from_slice(&bytes).expect("a record is JSON"));
        }
    }
}

/// What a record says is affected.
pub(super) fn affected(record: &Value) -> &[Value] {
    record["affected"].as_array().map_or(&[], Vec::as_slice)
}

/// The base ecosystem and the name of an affected package.
pub(super) fn package(affected: &Value) -> Option<(&str, &str)> {
    let ecosystem = affected["package"]["ecosystem"].as_str()?;
    let name = affected["package"]["name"].as_str()?;
    Some((ecosystems::base(ecosystem), name))
}

/// The versions that an affected package lists.
pub(super) fn listed(affected: &Value) -> impl Iterator<Item = &str> {
    let versions = affected["versions"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    versions.iter().filter_map(Value::as_str)
}

/// The versions of events.
fn events(affected: &Value) -> impl Iterator<Item = &str> {
    let ranges = affected["ranges"].as_array().map_or(&[][..], Vec::as_slice);
    let ranges = ranges.iter().filter(|range| range["type"] != "GIT");
    ranges
        .flat_map(|range| range["events"].as_array().map_or(&[][..], Vec::as_slice))
        .filter_map(|event| event.as_object()?.values().next()?.as_str())
        .filter(|version| *version != "0")
}

/// Versions by package, of ecosystems with these names; packages with two or more.
pub(super) fn versions(names: &[&str]) -> Vec<&'static [String]> {
    let known = KNOWN.get_or_init(all_versions).iter();
    let wanted = known.filter(|((ecosystem, _), versions)| {
        names.contains(&ecosystem.as_str()) && versions.len() > 1
    });
    wanted.map(|(_, versions)| versions.as_slice()).collect()
}

fn all_versions() -> BTreeMap<Package, Vec<String>> {
    let mut packages: BTreeMap<Package, BTreeSet<String>> = BTreeMap::new();
    let Some(dir) = advisories() else {
        return BTreeMap::new();
    };
    each_record(&dir, |record| {
        for affected in affected(&record) {
            let Some((ecosystem, name)) = package(affected) else {
                continue;
            };
            let key = (ecosystem.to_owned(), name.to_owned());
            let versions = listed(affected).chain(events(affected));
            packages
                .entry(key)
                .or_default()
                .extend(versions.map(ToOwned::to_owned));
        }
    });
    let packages = packages.into_iter();
    packages
        .map(|(key, versions)| (key, versions.into_iter().collect()))
        .collect()
}

#[test]
fn versions_of_real_advisories_can_be_read() {
    let mut unread: BTreeMap<&str, (usize, Vec<&str>)> = BTreeMap::new();
    for ((ecosystem, _), versions) in KNOWN.get_or_init(all_versions) {
        let family = ecosystems::family(ecosystem);
        let Some(family) = family else {
            panic!("no family of `{ecosystem}`");
        };
        let (count, failed) = unread.entry(ecosystem).or_default();
        *count += versions.len();
        let is_unread = |text: &&str| ecosystems::version(family, text).is_none();
        failed.extend(versions.iter().map(String::as_str).filter(is_unread));
    }
    for (ecosystem, (count, failed)) in unread {
        println!(
            "{ecosystem}: {} of {count} are no versions: {:?}",
            failed.len(),
            &failed[..failed.len().min(12)]
        );
        assert!(failed.len() * 100 <= count, "{ecosystem}: {failed:?}");
    }
}
