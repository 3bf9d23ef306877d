//! Images that are records alone: what the router and the scanner would have written of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
};

use anyhow::{Context as _, ensure};
use bus::{Common, Store};
use chassis::Cx;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use model::{
    Digest, Findings, Gap, Known, Os, Package, PackageType, Platform, RecordKey, RuntimeConfig,
    Scanned, ScannedConfig, ScannedContents, SeenReference, Slug, Target, What,
    event::REPORT_OBJECTS,
};
use serde::Serialize;
use vulndb::WindowEnd;

use crate::matching::{package, parts};

/// The packages that the new advisories are about.
pub(super) mod marker {
    /// Where they are.
    pub(crate) const ECOSYSTEM: &str = "PyPI";
    /// Newer than what every image has.
    pub(crate) const FIXED: &str = "100000";
}

/// Newer than every fix.
const VERSION: &str = "99999.0.0";
/// The ecosystems that names come from: of Debian those of all its releases.
const KINDS: [(&str, PackageType); 3] = [
    ("Debian", PackageType::Deb),
    (marker::ECOSYSTEM, PackageType::Pypi),
    ("npm", PackageType::Npm),
];

/// What images are made of.
pub(super) struct Pile {
    names: Vec<(PackageType, String)>,
    packages: usize,
    /// The packages that advisories will be about, each with the images that have it.
    markers: Vec<(String, Range<usize>)>,
}

/// What is the same for all images.
struct Same {
    tenant: Slug,
    source: Slug,
    os: Os,
    findings: Common,
    now: Timestamp,
}

/// What of a [`model::ScannedPackages`] is the same for images on one stack.
#[derive(Serialize)]
struct PackagesInCommon<'a> {
    os: Option<&'a Os>,
    packages: &'a [Package],
    gaps: &'a [Gap],
}

#[derive(Serialize)]
struct OwnPackages {
    image: Digest,
}

/// What of a [`model::ScannedFindings`] is.
#[derive(Serialize)]
struct FindingsInCommon<'a> {
    findings: &'a Findings,
}

#[derive(Serialize)]
struct OwnFindings<'a> {
    image: Digest,
    target: &'a Target,
}

// === impl Pile ===

impl Pile {
    /// Takes the names of packages of which every flaw is fixed, and puts some of them by for the
    /// advisories to come: one for each count of images.
    pub(super) fn of(osv: &Path, packages: usize, affected: &[usize]) -> anyhow::Result<Self> {
        let mut names = Vec::new();
        let mut aside: Vec<String> = Vec::new();
        for (ecosystem, kind) in KINDS {
            let mut by_name: BTreeMap<String, bool> = BTreeMap::new();
            for (key, part) in parts(osv, ecosystem)? {
                if key.split(':').next() == Some(ecosystem) {
                    let mut ends = part.windows.iter().map(|window| &window.end);
                    let is_fixed = ends.all(|end| matches!(end, WindowEnd::Fixed(_)));
                    *by_name.entry(part.package).or_insert(true) &= is_fixed;
                }
            }
            let mut fixed = by_name
                .into_iter()
                .filter_map(|(name, is_fixed)| is_fixed.then_some(name));
            if ecosystem == marker::ECOSYSTEM {
                aside.extend(fixed.by_ref().take(affected.len()));
            }
            names.extend(fixed.map(|name| (kind, name)));
        }
        ensure!(
            names.len() >= packages && aside.len() == affected.len(),
            "there are advisories about {} packages only",
            names.len()
        );
        let mut next = 0;
        let ranges = affected.iter().map(|count| {
            let range = next..next + count;
            next = range.end;
            range
        });
        Ok(Self {
            markers: aside.into_iter().zip(ranges).collect(),
            names,
            packages,
        })
    }

    /// How many names packages have.
    pub(super) fn names(&self) -> usize {
        self.names.len()
    }

    /// The package that an advisory will be about.
    pub(super) fn marker(&self, number: usize) -> anyhow::Result<&str> {
        let marker = self.markers.get(number).context("no such advisory")?;
        Ok(&marker.0)
    }

    /// The images that have it.
    pub(super) fn touched(&self, number: usize) -> BTreeSet<Digest> {
        let marker = self.markers.get(number);
        marker
            .into_iter()
            .flat_map(|(_, images)| images.clone())
            .map(image)
            .collect()
    }

    /// Writes so many images.
    pub(super) async fn write(
        &self,
        cx: &Cx,
        store: &Store,
        images: usize,
        at_once: usize,
    ) -> anyhow::Result<()> {
        let same = Same {
            tenant: Slug::default_tenant(),
            source: "main".parse()?,
            os: Os {
                id: "debian".to_owned(),
                version_id: "12".to_owned(),
                eol: None,
                pretty_name: None,
                codename: None,
            },
            findings: store.common(&FindingsInCommon {
                findings: &Findings::default(),
            })?,
            now: cx.now(),
        };
        stream::iter(0..images)
            .map(|number| self.write_one(store, &same, number))
            .buffer_unordered(at_once.max(1))
            .try_collect()
            .await
    }

    async fn write_one(&self, store: &Store, same: &Same, number: usize) -> anyhow::Result<()> {
        let Same {
            tenant,
            source,
            os,
            findings,
            now,
        } = same;
        let image = image(number);
        let packages = store.common(&PackagesInCommon {
            os: Some(os),
            packages: &self.packages_of(number),
            gaps: &[],
        })?;
        let target = Target {
            reference: format!("127.0.0.1:1/load/reassess:{number}"),
            index_digest: None,
            manifest_digest: Some(image),
            image_id: image,
            platform: Platform::default(),
            created: None,
            os: Some(os.clone()),
            layers: Vec::new(),
            config: RuntimeConfig::default(),
        };
        let of_packages = OwnPackages { image };
        let target = &target;
        let of_findings = OwnFindings { image, target };
        let (packages_object, findings_object) = tokio::join!(
            store.put_object_with(tenant, REPORT_OBJECTS, &of_packages, &packages),
            store.put_object_with(tenant, REPORT_OBJECTS, &of_findings, findings),
        );
        let known = Known {
            references: vec![SeenReference {
                source: source.clone(),
                registry: "127.0.0.1:1".to_owned(),
                repository: "load/reassess".to_owned(),
                tag: Some(number.to_string()),
                since: *now,
                gone_at: None,
            }],
            ..Known::default()
        };
        let key = RecordKey::new(tenant, image, What::Known);
        store.put_record(&key, &known, 0).await?;
        let scanned = Scanned {
            analyzers: Vec::new(),
            packages: packages_object?,
            findings: findings_object?,
            package_count: u32::try_from(self.packages)?,
            gap_count: 0,
            scanned_at: *now,
            duration_ms: 0,
            layers_read: 0,
            cause: String::new(),
            unfinished: false,
            contents: ScannedContents {
                packages: Some(packages.content()),
                findings: Some(findings.content()),
            },
            files: Vec::new(),
            config: ScannedConfig::default(),
        };
        let key = key.sibling(What::Scanned);
        store.put_record(&key, &scanned, 0).await?;
        Ok(())
    }

    /// An image's packages: names drawn at random, and the one that an advisory will be about.
    fn packages_of(&self, number: usize) -> Vec<Package> {
        let markers = self.markers.iter();
        let own = markers.filter(|(_, images)| images.contains(&number));
        let mut packages: Vec<Package> = own
            .map(|(name, _)| package(PackageType::Pypi, name, VERSION))
            .collect();
        let (mut state, mut drawn) = (number as u64, BTreeSet::new());
        let missing = self.packages.saturating_sub(packages.len());
        while drawn.len() < missing {
            let place = usize::try_from(random(&mut state) % self.names.len() as u64);
            drawn.extend(place.ok());
        }
        let names = drawn.into_iter().filter_map(|place| self.names.get(place));
        packages.extend(names.map(|(kind, name)| {
            let epoch = if *kind == PackageType::Deb { "99:" } else { "" };
            package(*kind, name, &format!("{epoch}{VERSION}"))
        }));
        packages
    }
}

/// An image's digest.
fn image(number: usize) -> Digest {
    Digest::of(format!("reassess {number}").as_bytes())
}

/// The next number of a sequence that every run has (`SplitMix64`).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_differ_and_have_the_package_of_their_advisory() {
        let names = (0..50).map(|number| (PackageType::Npm, format!("n{number}")));
        let pile = Pile {
            names: names.collect(),
            packages: 10,
            markers: vec![("m".to_owned(), 0..2)],
        };
        let [first, second, third] = [0, 1, 2].map(|number| pile.packages_of(number));
        assert!(first.len() == 10 && third.len() == 10);
        assert!(first[0].name == "m" && second[0].name == "m" && third[0].name != "m");
        assert_ne!(first[1..], second[1..]);
        assert_eq!(pile.packages_of(1), second);
        assert_eq!(pile.touched(0), BTreeSet::from([image(0), image(1)]));
    }
}
