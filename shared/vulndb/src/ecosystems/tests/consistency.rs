//! Real records that list versions: whether their ranges hold those, and no others of the package.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::real::{advisories, affected, each_record, listed, package};
use crate::{
    Advisory,
    ecosystems::{self, Ecosystem},
    evaluate::{Evaluation, Installed, evaluate},
    matching::tests::package as installed,
    shard::{ShardAdvisory, WindowEnd},
};

/// How many of an ecosystem's answers may stay without an explanation, of 1,000.
const UNEXPLAINED_MAX: usize = 1;

/// One affected package with a list and ranges.
struct Listing {
    id: String,
    ecosystem: String,
    name: String,
    listed: BTreeSet<String>,
    /// Its ranges alone.
    ranges: ShardAdvisory,
}

#[derive(Debug, Default)]
struct Score {
    right: usize,
    tried: usize,
    explained: BTreeMap<&'static str, usize>,
    unexplained: Vec<String>,
}

/// The ranges of an affected package, without its list.
fn ranges(affected: &Value) -> Option<ShardAdvisory> {
    let record = json!({
        "id": "X-1",
        "affected": [{"package": affected["package"], "ranges": affected["ranges"]}],
    });
    let advisory = Advisory::parse(record.to_string().as_bytes()).ok()?;
    let parts = advisory.split("x");
    parts.into_iter().next().map(|(_, part)| part)
}

fn listings(dir: &std::path::Path) -> Vec<Listing> {
    let mut found = Vec::new();
    each_record(dir, |record| {
        let is_withdrawn = record["withdrawn"].is_string();
        for affected in affected(&record).iter().filter(|_| !is_withdrawn) {
            let listed: BTreeSet<String> = listed(affected).map(ToOwned::to_owned).collect();
            let (Some((_, name)), false) = (package(affected), listed.is_empty()) else {
                continue;
            };
            let ecosystem = affected["package"]["ecosystem"]
                .as_str()
                .unwrap_or_default();
            if let Some(ranges) = ranges(affected) {
                found.push(Listing {
                    id: record["id"].as_str().unwrap_or_default().to_owned(),
                    ecosystem: ecosystem.to_owned(),
                    name: name.to_owned(),
                    listed,
                    ranges,
                });
            }
        }
    });
    found
}

/// Why a record's list and its ranges may differ, whoever compares them.
fn explanation(
    family: &dyn Ecosystem,
    listing: &Listing,
    version: &str,
    is_listed: bool,
) -> Option<&'static str> {
    let read = |text: &str| ecosystems::version(family, text);
    let Some(key) = read(version) else {
        return Some("not a version of the ecosystem");
    };
    if is_listed {
        // Maven's older comparison, by which OSV.dev makes its lists, puts `9.0.0.M1` after
        // `9.0.0-M11`.
        let bounds = listing
            .ranges
            .windows
            .iter()
            .flat_map(|window| match &window.end {
                WindowEnd::Fixed(end) | WindowEnd::Last(end) | WindowEnd::Limit(end) => {
                    [window.introduced.as_deref(), Some(end.as_str())]
                }
                WindowEnd::Open => [window.introduced.as_deref(), None],
            });
        let mut texts = bounds.flatten().chain([version]);
        let is_mixed = listing.ecosystem == "Maven" && texts.any(has_qualifier_behind_dot);
        return is_mixed.then_some("listed by Maven's older order: `.X` later than `-X`");
    }
    let listed: Vec<_> = listing
        .listed
        .iter()
        .filter_map(|text| read(text))
        .collect();
    if listed.contains(&key) {
        return Some("listed in another spelling");
    }
    let is_between = listing.ranges.windows.iter().any(|window| {
        let alone = ShardAdvisory {
            windows: vec![window.clone()],
            ..ShardAdvisory::default()
        };
        let is_in = |text: &&String| {
            let installed = installed(family.package_type(), &listing.name, text);
            matches!(
                evaluate(
                    family,
                    &alone,
                    &installed,
                    &Installed::of(family, &installed, text)
                ),
                Evaluation::Affected(_)
            )
        };
        let inside: Vec<_> = listing
            .listed
            .iter()
            .filter(is_in)
            .filter_map(|text| read(text))
            .collect();
        inside.iter().any(|other| *other < key) && inside.iter().any(|other| *other > key)
    });
    if is_between {
        return Some("between two that are listed in the same window: the list leaves it out");
    }
    let has_newer = listed.iter().any(|other| *other > key);
    let has_older = listed.iter().any(|other| *other < key);
    match (has_older, has_newer) {
        (true, false) => Some("newer than all that are listed: the list is older than the version"),
        (false, true) => Some("older than all that are listed: the list begins later"),
        _ => None,
    }
}

fn has_qualifier_behind_dot(text: &str) -> bool {
    let mut parts = text.split('.').skip(1);
    parts.any(|part| part.starts_with(|c: char| c.is_ascii_alphabetic()))
}

#[test]
fn lists_of_versions_and_ranges_agree() {
    let Some(dir) = advisories() else {
        return;
    };
    let listings = listings(&dir);
    let mut known: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for listing in &listings {
        let key = (listing.ecosystem.clone(), listing.name.clone());
        known
            .entry(key)
            .or_default()
            .extend(listing.listed.iter().cloned());
    }
    let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
    for listing in &listings {
        let base = ecosystems::base(&listing.ecosystem);
        let score = scores.entry(base).or_default();
        let Some(family) = ecosystems::family(&listing.ecosystem) else {
            continue;
        };
        let key = (listing.ecosystem.clone(), listing.name.clone());
        for version in known.get(&key).into_iter().flatten() {
            let is_listed = listing.listed.contains(version);
            let installed = installed(family.package_type(), &listing.name, version);
            let version_read = Installed::of(family, &installed, version);
            let found = evaluate(family, &listing.ranges, &installed, &version_read);
            score.tried += 1;
            if matches!(found, Evaluation::Affected(_)) == is_listed
                && !matches!(found, Evaluation::Undecided(_))
            {
                score.right += 1;
            } else if let Some(why) = explanation(family, listing, version, is_listed) {
                *score.explained.entry(why).or_default() += 1;
            } else {
                let Listing { id, name, .. } = listing;
                score
                    .unexplained
                    .push(format!("{id} {name} {version}, listed: {is_listed}"));
            }
        }
    }
    for (ecosystem, score) in &scores {
        let Score {
            right,
            tried,
            explained,
            unexplained,
        } = score;
        println!(
            "{ecosystem}: {right} of {tried} right, {} unexplained",
            unexplained.len()
        );
        for (why, count) in explained {
            println!("  {count} {why}");
        }
        for line in unexplained.iter().take(20) {
            println!("  ? {line}");
        }
    }
    for (ecosystem, score) in scores {
        let most = score.tried * UNEXPLAINED_MAX / 1_000;
        assert!(
            score.unexplained.len() <= most,
            "{ecosystem}: {:#?}",
            score.unexplained
        );
    }
}
