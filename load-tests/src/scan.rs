//! Images read by us, beside pipes that everybody can run and beside other scanners.
//!
//! All of them in turns, round by round, in one run: absolute times say little on a machine that
//! others use as well, and ratios within a round hold. The first round fills the page cache, counts
//! packages, and is not timed.

mod image;
mod library;
mod measured;
mod subject;
mod warm;

use std::{
    fmt,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use self::{image::Image, measured::Once, subject::Subject};
use crate::figures::{Spread, mib};
pub(crate) use library::{read_once, theirs_of};

/// Bytes of an answer that is looked into for packages.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// Flags of `scan`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// OCI layouts, whose first image is scanned by the whole command; or single layers, which the
    /// library reads
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How often each is read; the first reading fills the page cache and does not count
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Leave other scanners out, even if they are on the PATH
    #[arg(long)]
    without_tools: bool,
    /// Measure layouts whose layers are known: pushed to a registry on this machine, scanned by
    /// tag with this cache directory, which may hold advisories
    #[arg(long, value_name = "DIR")]
    warm: Option<PathBuf>,
}

/// The result of `scan`.
#[derive(Debug, Serialize)]
pub(crate) struct Scanned {
    images: Vec<Figures>,
}

/// An image and who read it.
#[derive(Debug, Serialize)]
struct Figures {
    image: PathBuf,
    layers: usize,
    compressed_bytes: u64,
    uncompressed_bytes: u64,
    subjects: Vec<Measured>,
}

/// What one subject took.
#[derive(Debug, Default, Serialize)]
struct Measured {
    name: String,
    wall: Spread,
    cpu_s: f64,
    /// Processor seconds per second.
    busy_cores: f64,
    ns_per_byte: f64,
    peak_rss_bytes: u64,
    packages: Option<u64>,
    /// Its median in parts of the pipe's that hashes, and of the one that does not.
    ratio_to_hash: Option<f64>,
    ratio_to_unpack: Option<f64>,
    /// Why there are no figures.
    failed: Option<String>,
}

/// Measures every image.
pub(crate) fn run(options: &Options) -> anyhow::Result<Scanned> {
    let work = testkit::temp_dir();
    let mut images = Vec::new();
    for path in &options.paths {
        let image = Image::find(path)?;
        let subjects = if let Some(cache) = &options.warm {
            warm::measure(&image, cache, options.rounds.max(1))?
        } else {
            let subjects = subject::all(&image, work.path(), options.without_tools)?;
            measure(&image, &subjects, work.path(), options.rounds.max(1))?
        };
        images.push(Figures {
            image: image.path,
            layers: image.layers.len(),
            compressed_bytes: image.compressed_bytes,
            uncompressed_bytes: image.uncompressed_bytes,
            subjects,
        });
    }
    Ok(Scanned { images })
}

/// All subjects in turns.
fn measure(
    image: &Image,
    subjects: &[Subject],
    work: &Path,
    rounds: usize,
) -> anyhow::Result<Vec<Measured>> {
    crate::say(&format!("`{}`, {rounds} rounds", image.path.display()));
    let mut all: Vec<(Measured, Vec<Once>)> = Vec::new();
    for subject in subjects {
        all.push((first(subject, work)?, Vec::new()));
    }
    for _ in 0..rounds {
        for (subject, (measured, runs)) in subjects.iter().zip(&mut all) {
            if measured.failed.is_none() {
                runs.push(measured::once(&mut subject.command(work)?, None)?);
            }
        }
    }
    let mut done: Vec<Measured> = all
        .into_iter()
        .map(|(measured, runs)| measured.with(&runs, image.uncompressed_bytes))
        .collect();
    let median = |end: &str| {
        let of = done.iter().find(|one| one.name.ends_with(end));
        of.map(|one| one.wall.median_s)
    };
    let (hash, unpack) = (median("| sha256sum"), median(">/dev/null"));
    for one in done.iter_mut().filter(|one| one.failed.is_none()) {
        one.ratio_to_hash = hash.map(|hash| one.wall.median_s / hash);
        one.ratio_to_unpack = unpack.map(|unpack| one.wall.median_s / unpack);
    }
    Ok(done)
}

/// The round that does not count: whether it works, and how many packages it finds.
fn first(subject: &Subject, work: &Path) -> anyhow::Result<Measured> {
    let answer = work.join("answer");
    let out = File::create(&answer).with_context(|| format!("making `{}`", answer.display()))?;
    let once = measured::once(&mut subject.command(work)?, Some(out))?;
    let mut bytes = Vec::new();
    File::open(&answer)?
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    let is_done = subject.is_done(once.status.code());
    Ok(Measured {
        name: subject.name.clone(),
        packages: subject.count.of(&bytes),
        failed: (!is_done).then(|| once.status.to_string()),
        ..Measured::default()
    })
}

// === impl Measured ===

impl Measured {
    /// With what these runs took.
    fn with(mut self, runs: &[Once], bytes: u64) -> Self {
        let walls: Vec<Duration> = runs.iter().map(|run| run.wall).collect();
        let cpus: Vec<Duration> = runs
            .iter()
            .map(|run| Duration::from_secs_f64(run.cpu_s.max(0.0)))
            .collect();
        self.wall = Spread::of(&walls);
        self.cpu_s = Spread::of(&cpus).median_s;
        self.busy_cores = self.cpu_s / self.wall.median_s.max(f64::EPSILON);
        self.ns_per_byte = per_byte(self.wall.median_s, bytes);
        let peaks = runs.iter().map(|run| run.peak_rss_bytes);
        self.peak_rss_bytes = peaks.max().unwrap_or_default();
        self
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people, to three digits")]
fn per_byte(seconds: f64, bytes: u64) -> f64 {
    seconds * 1e9 / bytes.max(1) as f64
}

// === impl Scanned ===

impl fmt::Display for Scanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for image in &self.images {
            writeln!(
                f,
                "{}: {} layers, {:.1} MiB, {:.1} MiB unpacked",
                image.image.display(),
                image.layers,
                mib(image.compressed_bytes),
                mib(image.uncompressed_bytes)
            )?;
            writeln!(
                f,
                "  {:<24} {:>8} {:>8} {:>8} {:>7} {:>5} {:>7} {:>8} {:>8} {:>8} {:>8}",
                "",
                "median s",
                "min s",
                "max s",
                "CPU s",
                "cores",
                "ns/byte",
                "peak MiB",
                "packages",
                "/ hash",
                "/ unpack"
            )?;
            for one in &image.subjects {
                writeln!(f, "  {one}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24} ", self.name)?;
        if let Some(why) = &self.failed {
            return write!(f, "did not do it: {why}");
        }
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let ratio = |ratio: Option<f64>| or_none(ratio.map(|ratio| format!("{ratio:.3}")));
        write!(
            f,
            "{:>8.3} {:>8.3} {:>8.3} {:>7.2} {:>5.2} {:>7.3} {:>8.1} {:>8} {:>8} {:>8}",
            self.wall.median_s,
            self.wall.min_s,
            self.wall.max_s,
            self.cpu_s,
            self.busy_cores,
            self.ns_per_byte,
            mib(self.peak_rss_bytes),
            or_none(self.packages.map(|count| count.to_string())),
            ratio(self.ratio_to_hash),
            ratio(self.ratio_to_unpack)
        )
    }
}
