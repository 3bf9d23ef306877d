//! The library alone: `read_layer`, in a process of its own.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use analyzers::{Analyzers, LayerBlob, read_layer};
use anyhow::Context as _;
use archive::Limits;
use model::{Digest, Hasher};
use serde::Serialize;

use crate::layout::Layer;

/// What reading some layers gave.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Read {
    uncompressed_bytes: u64,
    entries: usize,
    packages: usize,
    gaps: usize,
}

/// Reads layers once, one after the other, with every analyzer. The digest is computed before and
/// costs about a tenth of the reading: nobody believes one here.
pub(crate) fn read_once(files: &[PathBuf]) -> anyhow::Result<Read> {
    let limits = Limits::default();
    let analyzers = Analyzers::all(&analyzers::Config::default(), &limits);
    let mut sum = Read::default();
    for file in files {
        let (digest, size) = digest_of(file)?;
        let blob = LayerBlob {
            digest,
            size,
            // The bytes decide.
            media_type: "application/octet-stream".to_owned(),
        };
        let read = read_layer(File::open(file)?, &blob, &analyzers, &limits, None);
        let report = read.report;
        sum.uncompressed_bytes += report.entries.uncompressed_bytes;
        sum.entries += report.entries.entries.len();
        sum.gaps += report.entries.gaps.len() + report.transient_gaps.len();
        for section in &report.sections {
            sum.packages += section.packages.len();
            sum.gaps += section.gaps.len();
        }
    }
    Ok(sum)
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
