//! Advisories for one scan, from files, without a database: only those about the scanned packages
//! are kept, so that memory follows the image and not the feeds.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use model::{AdvisoryManifest, Digest, Feed, ScannedPackages, ShardKey};
use vulndb::{Exploitation, Shard, ShardAdvisory};

use crate::{Advisories, FeedLimits, Import, Mode, Source, handler, stage};

/// A feed in files.
#[derive(Clone, Debug)]
pub struct Loose {
    /// The feed's name; named as an ecosystem it covers that one alone.
    pub feed: String,
    /// Where its records are.
    pub source: Source,
}

/// What stands in one shard, feed by feed.
#[derive(Default)]
struct Gathered {
    advisories: Vec<ShardAdvisory>,
    exploitation: Vec<Exploitation>,
}

/// Reads the advisories about some packages, and says what of the records could not be read.
pub fn read_for(
    packages: &ScannedPackages,
    feeds: &[Loose],
    limits: &FeedLimits,
    now: Timestamp,
) -> anyhow::Result<(Advisories, Vec<String>)> {
    let wanted = handler::lookups(packages);
    let mut gathered: BTreeMap<ShardKey, Gathered> = BTreeMap::new();
    let mut manifest = AdvisoryManifest {
        revision: 1,
        ..AdvisoryManifest::default()
    };
    let mut problems = Vec::new();
    for Loose { feed, source } in feeds {
        let import = Import {
            feed: feed.clone(),
            mode: Mode::Replace,
            fetched_at: now,
            revision: None,
        };
        let parts = stage::read(&import, source, limits, Some(&wanted))?;
        let (records, malformed, said) = parts.tally();
        problems.extend(said.iter().map(|problem| format!("{feed}: {problem}")));
        let advisories = (records - malformed) as u64;
        let (shards, ecosystems) = parts.into_shards();
        for (key, shard) in shards {
            let into = gathered.entry(key).or_default();
            into.exploitation.extend_from_slice(shard.exploitation());
            into.advisories.extend(shard.into_advisories());
        }
        manifest.feeds.push(Feed {
            name: feed.clone(),
            fetched_at: now,
            coverage: stage::covered(feed, ecosystems).into_iter().collect(),
            advisories,
            partial: false,
        });
    }
    let mut memory = HashMap::new();
    for (key, gathered) in gathered {
        let shard = Shard::of(gathered.advisories, gathered.exploitation);
        let digest = Digest::of(&shard.encode());
        manifest.shards.insert(key, digest);
        memory.insert(digest, Arc::new(shard));
    }
    Ok((Advisories::in_memory(manifest, memory), problems))
}

#[cfg(test)]
mod tests {
    use model::{Confidence, DEBIAN_TRACKER, FixState, Os, Package, PackageId, PackageType, Purl};

    use super::*;
    use crate::stage::tests::{records, zipped};

    fn package(kind: PackageType, name: &str, version: &str) -> Package {
        Package {
            id: PackageId(name.to_owned()),
            kind,
            name: name.to_owned(),
            version: version.to_owned(),
            purl: Purl(format!("pkg:{kind}/{name}@{version}")),
            path: "package.json".to_owned(),
            within: None,
            layer: Digest::of(b"layer"),
            arch: None,
            distro: None,
            source_name: None,
            source_version: None,
            vendor: None,
            modularity: None,
            licenses: Vec::new(),
            depends_on: Vec::new(),
            digests: Vec::new(),
            owned_by: None,
            direct: None,
            dev: None,
            confidence: Confidence::High,
        }
    }

    #[test]
    fn files_alone_find_what_a_database_would() {
        let packages = ScannedPackages {
            image: Digest::of(b"image"),
            os: None,
            packages: vec![
                package(PackageType::Npm, "x", "1.0.0"),
                package(PackageType::Npm, "y", "3.0.0"),
            ],
            gaps: Vec::new(),
        };
        let zip = records(&[
            ("CVE-2024-1", "npm", "x", "2.0.0"),
            ("CVE-2024-2", "npm", "y", "2.0.0"),
            ("CVE-2024-3", "npm", "z", "2.0.0"),
        ]);
        let feeds = [Loose {
            feed: "npm".to_owned(),
            source: Source::Bytes(zip),
        }];
        let now = Timestamp::UNIX_EPOCH;
        let limits = FeedLimits::default();
        let (advisories, problems) = read_for(&packages, &feeds, &limits, now).unwrap();
        assert!(problems.is_empty());
        let assessment = crate::assess(&advisories, &packages, now).unwrap();
        let found: Vec<_> = assessment
            .vulnerabilities
            .iter()
            .map(|one| one.id.as_str())
            .collect();
        assert_eq!(found, ["CVE-2024-1"]);
        assert!(assessment.gaps.is_empty(), "{:?}", assessment.gaps);
        let (why_not, elsewhere) = crate::explain(&advisories, &packages, "CVE-2024-2").unwrap();
        assert_eq!((why_not.affected, why_not.packages.len()), (false, 1));
        assert!(elsewhere.is_empty());
    }

    #[test]
    fn what_will_not_be_fixed_is_told_by_the_tracker_beside_other_records() {
        let os = Os {
            id: "debian".to_owned(),
            version_id: "12".to_owned(),
            eol: None,
            pretty_name: None,
            codename: None,
        };
        let packages = ScannedPackages {
            image: Digest::of(b"image"),
            os: Some(os),
            packages: vec![package(PackageType::Deb, "curl", "1.0-1")],
            gaps: Vec::new(),
        };
        let tracker = r#"{"curl": {"CVE-2024-1": {"releases": {"bookworm":
            {"status": "open", "urgency": "low", "nodsa": "Minor issue", "nodsa_reason": "ignored"}}}}}"#;
        let rows = [("DEBIAN-CVE-2024-1", "Debian:12", "curl", "9.0-1")];
        let feeds = [
            Loose {
                feed: DEBIAN_TRACKER.to_owned(),
                source: Source::Bytes(zipped(&[("t.json".to_owned(), tracker.to_owned())])),
            },
            Loose {
                feed: "Debian".to_owned(),
                source: Source::Bytes(records(&rows)),
            },
        ];
        let now = Timestamp::UNIX_EPOCH;
        let state = |feeds: &[Loose]| {
            let (advisories, _) = read_for(&packages, feeds, &FeedLimits::default(), now).unwrap();
            let found = crate::assess(&advisories, &packages, now)
                .unwrap()
                .vulnerabilities;
            assert_eq!((found.len(), found[0].id.as_str()), (1, "CVE-2024-1"));
            found[0].fix_state
        };
        assert_eq!(state(&feeds[..1]), FixState::WontFix);
        // Who knows of a fix speaks for the finding.
        assert_eq!(state(&feeds), FixState::Fixed);
    }
}
