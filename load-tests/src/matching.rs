//! `match`: packages matched per second on one core, with real advisories.
//!
//! The image is made of names that the advisories themselves have: some with a version that a
//! range holds, most with one that is fixed, and names of other ecosystems, about which there is
//! nothing. A package has as many findings as its advisories make of it, so the affected ones are
//! chosen until there are as many findings as were asked for. It is matched with warm advisories, in
//! three ways: as an image whose packages nobody saw before, so that nothing is remembered; as one
//! that was built again, with the same packages in other layers; and as one that was matched.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use jiff::Timestamp;
use matcher::{Advisories, FeedLimits, Import, Mode, Source};
use model::{Confidence, Digest, Os, Package, PackageId, PackageType, Purl, ScannedPackages};
use serde::Serialize;
use vulndb::{Advisory, ShardAdvisory, WindowEnd};

use crate::{figures::Spread, say};

/// The ecosystems that the image has packages of, and how those are called.
const KINDS: [(&str, &str, PackageType); 3] = [
    ("Debian", "Debian:10", PackageType::Deb),
    ("PyPI", "PyPI", PackageType::Pypi),
    ("npm", "npm", PackageType::Npm),
];
/// An ecosystem whose names the packages without advisories have.
const OTHERS: &str = "crates.io";

/// Flags of `match`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A directory in the layout of OSV.dev's exports
    #[arg(value_name = "DIR")]
    osv: PathBuf,
    /// Packages of the image
    #[arg(long, default_value_t = 1000)]
    packages: usize,
    /// Packages that advisories are about
    #[arg(long, default_value_t = 300)]
    candidates: usize,
    /// Findings, at least
    #[arg(long, default_value_t = 100)]
    findings: usize,
    /// How often the image is matched
    #[arg(long, default_value_t = 101)]
    rounds: usize,
}

/// The table.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    advisories: u64,
    packages: usize,
    with_candidates: usize,
    comparisons: usize,
    findings: usize,
    import_s: f64,
    first_s: f64,
    new_image: Spread,
    rebuilt_image: Spread,
    known_image: Spread,
}

/// What was matched before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// None of the packages.
    Nothing,
    /// The packages, in other layers.
    Packages,
    /// The very same image.
    Image,
}

/// A package that advisories are about.
struct Known {
    kind: PackageType,
    name: String,
    /// The windows of each advisory about it: where they end.
    advisories: Vec<ShardAdvisory>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Measured> {
    let dir = testkit::temp_dir();
    let advisories = Advisories::open(dir.path())?;
    say("importing");
    let start = Instant::now();
    let count = import(&options.osv, &advisories)?;
    let import_s = start.elapsed().as_secs_f64();
    say("choosing packages");
    let mut image = image(options, &advisories)?;
    let comparisons = image.comparisons;
    say("matching");
    // What choosing has read is forgotten.
    drop(advisories);
    let advisories = Advisories::open(dir.path())?;
    let now = now()?;
    let start = Instant::now();
    let findings = matcher::assess(&advisories, &image.scanned, now)?
        .vulnerabilities
        .len();
    let first_s = start.elapsed().as_secs_f64();
    ensure!(
        findings > 0,
        "nothing is found: the packages are chosen wrong"
    );
    let mut round = |seen: Seen, number: usize| -> anyhow::Result<Duration> {
        let layer = Digest::of(&number.to_be_bytes());
        for package in &mut image.scanned.packages {
            if seen != Seen::Image {
                package.layer = layer;
            }
            // It is a part of what a package is, and nobody asks about it here.
            if seen == Seen::Nothing {
                package.modularity = Some(number.to_string());
            }
        }
        let start = Instant::now();
        let assessment = matcher::assess(&advisories, &image.scanned, now)?;
        let took = start.elapsed();
        ensure!(
            assessment.vulnerabilities.len() == findings,
            "another result"
        );
        Ok(took)
    };
    let mut rounds = |seen: Seen| -> anyhow::Result<Spread> {
        let numbers = 0..options.rounds;
        let took: anyhow::Result<Vec<Duration>> =
            numbers.map(|number| round(seen, number)).collect();
        Ok(Spread::of(&took?))
    };
    let (new_image, rebuilt_image, known_image) = (
        rounds(Seen::Nothing)?,
        rounds(Seen::Packages)?,
        rounds(Seen::Image)?,
    );
    Ok(Measured {
        advisories: count,
        packages: image.scanned.packages.len(),
        with_candidates: image.candidates,
        comparisons,
        findings,
        import_s,
        first_s,
        new_image,
        rebuilt_image,
        known_image,
    })
}

/// Imports the feeds; gives how many records they have.
fn import(osv: &Path, advisories: &Advisories) -> anyhow::Result<u64> {
    let mut count = 0;
    for (feed, _, _) in KINDS {
        let import = Import {
            feed: feed.to_owned(),
            mode: Mode::Replace,
            fetched_at: Timestamp::UNIX_EPOCH,
            revision: None,
        };
        let source = Source::Zip(zip_of(osv, feed));
        let imported = matcher::import(advisories, &import, &source, &FeedLimits::default())?;
        count += imported.records as u64;
    }
    Ok(count)
}

/// Packages with advisories.
#[derive(Default)]
struct Chosen {
    packages: Vec<Package>,
    comparisons: usize,
    findings: usize,
}

/// An image, and what is known of it.
struct Made {
    scanned: ScannedPackages,
    candidates: usize,
    comparisons: usize,
}

fn image(options: &Options, advisories: &Advisories) -> anyhow::Result<Made> {
    let mut chosen = chosen(options, advisories)?;
    let mut others: Vec<String> = parts(&options.osv, OTHERS)?
        .into_iter()
        .map(|(_, part)| part.package)
        .collect();
    others.sort();
    others.dedup();
    let candidates = chosen.packages.len();
    let kinds = KINDS.iter().map(|kind| kind.2).cycle();
    let missing = options.packages.saturating_sub(candidates);
    for (name, kind) in others.iter().zip(kinds).take(missing) {
        chosen.packages.push(package(kind, name, "1.2.3"));
    }
    Ok(Made {
        scanned: scanned(chosen.packages),
        candidates,
        comparisons: chosen.comparisons,
    })
}

/// Packages that advisories are about, spread evenly over all names and kinds, and their findings
/// over them.
fn chosen(options: &Options, advisories: &Advisories) -> anyhow::Result<Chosen> {
    let known = known(options)?;
    let step = (known.len() / options.candidates.max(1)).max(1);
    let rounds = (0..step).flat_map(|from| known.iter().skip(from).step_by(step));
    let mut chosen = Chosen::default();
    for one in rounds {
        let count = chosen.packages.len();
        if count == options.candidates {
            break;
        }
        let is_affected = chosen.findings * options.candidates < options.findings * (count + 1);
        let package = package(one.kind, &one.name, &version(one, is_affected));
        let alone = scanned(vec![package.clone()]);
        let findings = matcher::assess(advisories, &alone, now()?)?;
        let findings = findings.vulnerabilities.len();
        // Where nothing is fixed, every version is affected.
        if is_affected == (findings > 0) {
            chosen.findings += findings;
            chosen.comparisons += one.advisories.len();
            chosen.packages.push(package);
        }
    }
    ensure!(
        chosen.packages.len() == options.candidates,
        "there are {} packages only with advisories that fit",
        chosen.packages.len()
    );
    Ok(chosen)
}

/// Every package that advisories are about.
fn known(options: &Options) -> anyhow::Result<Vec<Known>> {
    let mut known: Vec<Known> = Vec::new();
    for (feed, ecosystem, kind) in KINDS {
        let mut by_name: BTreeMap<String, Vec<ShardAdvisory>> = BTreeMap::new();
        for (key, part) in parts(&options.osv, feed)? {
            if key == ecosystem {
                by_name.entry(part.package.clone()).or_default().push(part);
            }
        }
        known.extend(by_name.into_iter().map(|(name, advisories)| Known {
            kind,
            name,
            advisories,
        }));
    }
    Ok(known)
}

fn scanned(packages: Vec<Package>) -> ScannedPackages {
    let os = Os {
        id: "debian".to_owned(),
        version_id: "10".to_owned(),
        eol: None,
        pretty_name: None,
        codename: None,
    };
    ScannedPackages {
        image: Digest::of(b"image"),
        os: Some(os),
        packages,
        gaps: Vec::new(),
    }
}

/// The time of all rounds.
fn now() -> anyhow::Result<Timestamp> {
    Ok(Timestamp::from_second(1_800_000_000)?)
}

/// A version that one advisory's window holds, or one that is newer than all.
fn version(known: &Known, is_affected: bool) -> String {
    if !is_affected {
        let epoch = if known.kind == PackageType::Deb {
            "99:"
        } else {
            ""
        };
        return format!("{epoch}99999.0.0");
    }
    let windows = known.advisories.iter().flat_map(|one| &one.windows);
    let mut starts = windows.filter(|window| !matches!(window.end, WindowEnd::Limit(_)));
    let first = starts.find_map(|window| window.introduced.clone());
    first.unwrap_or_else(|| "0.0.1".to_owned())
}

/// The parts of a feed's records, with their ecosystems.
pub(crate) fn parts(osv: &Path, feed: &str) -> anyhow::Result<Vec<(String, ShardAdvisory)>> {
    let path = zip_of(osv, feed);
    let file = File::open(&path).with_context(|| format!("opening `{}`", path.display()))?;
    let mut archive = zip::ZipArchive::new(file)?;
    let mut found = Vec::new();
    for index in 0..archive.len() {
        let mut bytes = Vec::new();
        let most = vulndb::RECORD_BYTES_MAX as u64;
        archive
            .by_index(index)?
            .take(most)
            .read_to_end(&mut bytes)?;
        let parts = Advisory::parse(&bytes)?.split(feed);
        found.extend(parts.into_iter().map(|(key, part)| (key.ecosystem, part)));
    }
    Ok(found)
}

fn zip_of(osv: &Path, feed: &str) -> PathBuf {
    osv.join(feed).join("all.zip")
}

pub(crate) fn package(kind: PackageType, name: &str, version: &str) -> Package {
    Package {
        id: PackageId(format!("{kind}/{name}")),
        kind,
        name: name.to_owned(),
        version: version.to_owned(),
        purl: Purl(format!("pkg:{kind}/{name}@{version}")),
        path: format!("usr/lib/{name}/metadata"),
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

// === impl Measured ===

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            advisories,
            packages,
            with_candidates,
            comparisons,
            findings,
            import_s,
            first_s,
            new_image,
            rebuilt_image,
            known_image,
        } = self;
        writeln!(
            f,
            "{packages} packages, {with_candidates} of them with candidates ({comparisons} advisories), {findings} findings; {advisories} advisories imported in {import_s:.1} s"
        )?;
        writeln!(f, "first, advisories cold   {:>9.3} ms", first_s * 1000.0)?;
        for (what, spread) in [
            ("a new image", new_image),
            ("a rebuilt image", rebuilt_image),
            ("a known image", known_image),
        ] {
            let count = u32::try_from(*packages).unwrap_or(u32::MAX);
            let rate = f64::from(count) / spread.median_s.max(f64::EPSILON);
            writeln!(
                f,
                "{what:<24} {:>9.3} ms  (min {:.3}, max {:.3}; {} rounds), {rate:.0} packages/s on one core",
                spread.median_s * 1000.0,
                spread.min_s * 1000.0,
                spread.max_s * 1000.0,
                spread.rounds
            )?;
        }
        Ok(())
    }
}
