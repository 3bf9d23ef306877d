//! A layer read by the library, beside `gzip -dc | sha256sum` of the same file.

use std::{
    fmt,
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use analyzers::{Analyzers, LayerBlob, read_layer};
use anyhow::Context as _;
use archive::Limits;
use clap::Args;
use model::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use crate::{
    figures::{Spread, mib},
    layout::{self, Layer},
};

/// Flags of `scan`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Gzip layers, or OCI layouts whose first image's layers are read
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How often each is read; the first reading fills the page cache and does not count
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// The result of `scan`.
#[derive(Debug, Serialize)]
pub(crate) struct Scanned {
    layers: Vec<Figures>,
}

#[derive(Debug, Serialize)]
struct Figures {
    file: PathBuf,
    compressed_bytes: u64,
    uncompressed_bytes: u64,
    entries: usize,
    packages: usize,
    gaps: usize,
    ours: Spread,
    gzip_sha256sum: Spread,
    /// Our time in parts of theirs.
    ratio: f64,
    peak_rss_bytes: u64,
}

/// What one reading took, as a child process says it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Once {
    nanoseconds: u64,
    peak_rss_bytes: u64,
    uncompressed_bytes: u64,
    entries: usize,
    packages: usize,
    gaps: usize,
}

/// Measures every layer, ours and theirs in turns.
pub(crate) fn run(options: &Options) -> anyhow::Result<Scanned> {
    let mut layers = Vec::new();
    for path in &options.paths {
        for file in files(path)? {
            layers.push(measure(&file, options.rounds.max(1))?);
        }
    }
    Ok(Scanned { layers })
}

/// Reads one layer once, with every analyzer.
pub(crate) fn read_once(file: &Path) -> anyhow::Result<Once> {
    let (digest, size) = digest_of(file)?;
    let limits = Limits::default();
    let analyzers = Analyzers::all(&analyzers::Config::default(), &limits);
    let blob = LayerBlob {
        digest,
        size,
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
    };
    let start = Instant::now();
    let read = read_layer(File::open(file)?, &blob, &analyzers, &limits, None);
    let took = start.elapsed();
    anyhow::ensure!(
        read.complete,
        "`{}` could not be read to its end",
        file.display()
    );
    let report = read.report;
    let gaps = report
        .sections
        .iter()
        .map(|section| section.gaps.len())
        .sum::<usize>();
    Ok(Once {
        nanoseconds: u64::try_from(took.as_nanos())?,
        peak_rss_bytes: peak_rss()?,
        uncompressed_bytes: report.entries.uncompressed_bytes,
        entries: report.entries.entries.len(),
        packages: report
            .sections
            .iter()
            .map(|section| section.packages.len())
            .sum(),
        gaps: gaps + report.entries.gaps.len(),
    })
}

fn measure(file: &Path, rounds: usize) -> anyhow::Result<Figures> {
    let mut last = ours(file)?;
    theirs(file)?;
    let (mut our_rounds, mut their_rounds, mut peak) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        last = ours(file)?;
        our_rounds.push(Duration::from_nanos(last.nanoseconds));
        peak = peak.max(last.peak_rss_bytes);
        their_rounds.push(theirs(file)?);
    }
    let (ours, gzip_sha256sum) = (Spread::of(&our_rounds), Spread::of(&their_rounds));
    Ok(Figures {
        file: file.to_owned(),
        compressed_bytes: file.metadata()?.len(),
        uncompressed_bytes: last.uncompressed_bytes,
        entries: last.entries,
        packages: last.packages,
        gaps: last.gaps,
        ratio: ours.median_s / gzip_sha256sum.median_s,
        ours,
        gzip_sha256sum,
        peak_rss_bytes: peak,
    })
}

/// In a process of its own: its peak memory is that of this layer alone.
fn ours(file: &Path) -> anyhow::Result<Once> {
    let program = std::env::current_exe().context("finding this program")?;
    let output = Command::new(program)
        .arg("read-once")
        .arg(file)
        .stderr(Stdio::inherit())
        .output();
    let output = output.context("starting this program again")?;
    anyhow::ensure!(
        output.status.success(),
        "reading `{}`: {}",
        file.display(),
        output.status
    );
    serde_json::from_slice(&output.stdout).context("reading the child's answer")
}

fn theirs(file: &Path) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let status = Command::new("sh")
        .args(["-c", "gzip -dc \"$1\" | sha256sum", "sh"])
        .arg(file)
        .stdout(Stdio::null())
        .status()
        .context("starting gzip and sha256sum")?;
    anyhow::ensure!(status.success(), "gzip -dc `{}`: {status}", file.display());
    Ok(start.elapsed())
}

/// `gzip -dc | sha256sum` of layers in memory, one after the other.
pub(crate) fn theirs_of(layers: &[Layer]) -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for layer in layers {
        let start = Instant::now();
        let mut child = Command::new("sh")
            .args(["-c", "gzip -dc | sha256sum"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("starting gzip and sha256sum")?;
        let mut input = child.stdin.take().context("the child has an input")?;
        input.write_all(&layer.bytes)?;
        drop(input);
        anyhow::ensure!(child.wait()?.success(), "gzip could not read a layer");
        sum += start.elapsed();
    }
    Ok(sum)
}

fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let index = layout::read_json(&path.join("index.json"))?;
    let manifest = layout::read_json(&layout::blob(path, &index["manifests"][0]["digest"])?)?;
    let layers = manifest["layers"]
        .as_array()
        .context("the manifest has no layers")?;
    layers
        .iter()
        .map(|layer| layout::blob(path, &layer["digest"]))
        .collect()
}

fn digest_of(file: &Path) -> anyhow::Result<(Digest, u64)> {
    let mut file = File::open(file).with_context(|| format!("opening `{}`", file.display()))?;
    let (mut hasher, mut size, mut buffer) = (Hasher::default(), 0, vec![0; 1 << 18]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hasher.finish(), size));
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
}

/// `VmHWM` of `/proc/self/status`.
fn peak_rss() -> anyhow::Result<u64> {
    let mut status = String::new();
    File::open("/proc/self/status")?
        .take(1 << 16)
        .read_to_string(&mut status)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .context("no VmHWM")?;
    Ok(kilobytes.trim().parse::<u64>()? * 1024)
}

// === impl Scanned ===

impl fmt::Display for Scanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>9} {:>9} {:>8} {:>8} {:>5} {:>9} {:>14} {:>6} {:>9}  layer",
            "MiB",
            "unpacked",
            "entries",
            "packages",
            "gaps",
            "ours s",
            "gzip|sha256 s",
            "ratio",
            "peak MiB"
        )?;
        for layer in &self.layers {
            writeln!(
                f,
                "{:>9.1} {:>9.1} {:>8} {:>8} {:>5} {:>9.3} {:>14.3} {:>6.2} {:>9.1}  {}",
                mib(layer.compressed_bytes),
                mib(layer.uncompressed_bytes),
                layer.entries,
                layer.packages,
                layer.gaps,
                layer.ours.median_s,
                layer.gzip_sha256sum.median_s,
                layer.ratio,
                mib(layer.peak_rss_bytes),
                layer.file.display()
            )?;
        }
        Ok(())
    }
}
