//! Push to verdict, cold and warm, and how many images a second are judged.

use std::{
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use crate::{
    figures::{Spread, mib},
    layout::{self, Image, Layer},
    registry::Registry,
    server::Server,
};

/// Flags of `push`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The OCI layout whose first image's gzip layers are pushed
    #[arg(value_name = "LAYOUT")]
    layout: PathBuf,
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// File that holds the bearer token
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// The registry that reports to the server, without TLS
    #[arg(long, value_name = "HOST:PORT")]
    registry: String,
    /// Repositories' prefix
    #[arg(long, default_value = "load")]
    prefix: String,
    /// Images pushed one after the other, cold, and as many warm
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Images pushed at once, to count how many are judged per second
    #[arg(long, default_value_t = 200)]
    images: u32,
    /// How many are pushed at the same time
    #[arg(long, default_value_t = 8)]
    at_once: usize,
    /// Give up on a verdict after this many seconds
    #[arg(long, default_value_t = 300)]
    timeout_s: u64,
}

/// The result of `push`.
#[derive(Debug, Serialize)]
pub(crate) struct Pushed {
    layers: usize,
    compressed_bytes: usize,
    /// Layers that the server has never seen.
    cold: Spread,
    /// Known layers, and a small new one.
    warm: Spread,
    /// `gzip -dc | sha256sum` of all layers, one after the other.
    gzip_sha256sum: Spread,
    images: u32,
    images_per_second: f64,
}

struct Load<'a> {
    options: &'a Options,
    registry: Registry,
    server: Server,
    layers: Vec<Layer>,
    /// Makes this run's layers new, whatever ran before.
    salt: u32,
}

/// Measures one after the other: cold, warm, many at once.
pub(crate) fn run(options: &Options) -> anyhow::Result<Pushed> {
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<Pushed> {
    let load = Load {
        options,
        registry: Registry::new(&options.registry)?,
        server: Server::new(&options.server, &options.token_file)?,
        layers: layout::layers(&options.layout)?,
        salt: std::process::id().wrapping_mul(10_007),
    };
    let (mut cold, mut warm, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let image = load.image(round, &load.new_layers(round)?)?;
        cold.push(load.push_and_wait(&format!("cold-{round}"), &image).await?);
        theirs.push(crate::scan::theirs_of(&load.layers)?);
    }
    // The first makes the layers known and does not count.
    for round in 0..=options.rounds {
        let image = load.image(options.rounds + round, &load.layers)?;
        warm.push(load.push_and_wait(&format!("warm-{round}"), &image).await?);
    }
    let took = load.push_many().await?;
    Ok(Pushed {
        layers: load.layers.len(),
        compressed_bytes: load.layers.iter().map(|layer| layer.bytes.len()).sum(),
        cold: Spread::of(&cold),
        warm: Spread::of(warm.get(1..).unwrap_or_default()),
        gzip_sha256sum: Spread::of(&theirs),
        images: options.images,
        images_per_second: f64::from(options.images) / took.as_secs_f64(),
    })
}

// === impl Load ===

impl Load<'_> {
    fn new_layers(&self, round: u32) -> anyhow::Result<Vec<Layer>> {
        let number = self.salt.wrapping_add(round);
        self.layers
            .iter()
            .map(|layer| layer.as_new(number))
            .collect()
    }

    /// An image of these layers and a small one of its own.
    fn image(&self, number: u32, layers: &[Layer]) -> anyhow::Result<Image> {
        let mut layers = layers.to_vec();
        layers.push(Layer::of_text(&format!(
            "image {number} of run {}",
            self.salt
        ))?);
        Image::of(&layers)
    }

    /// From the moment in which the registry has the whole image to its verdict.
    async fn push_and_wait(&self, name: &str, image: &Image) -> anyhow::Result<Duration> {
        let repository = format!("{}/{name}", self.options.prefix);
        self.registry.push_blobs(&repository, image).await?;
        let start = Instant::now();
        let digest = self
            .registry
            .push_manifest(&repository, "latest", image)
            .await?;
        let timeout = Duration::from_secs(self.options.timeout_s);
        self.server.wait_for_verdict(digest, timeout).await?;
        Ok(start.elapsed())
    }

    /// From the first manifest to the last verdict. Blobs are there before: the registry is not
    /// what is measured.
    async fn push_many(&self) -> anyhow::Result<Duration> {
        let repository = format!("{}/many", self.options.prefix);
        let mut images = Vec::new();
        for number in 0..self.options.images {
            images.push(self.image(1_000_000 + number, &self.layers)?);
        }
        let blobs = images
            .iter()
            .map(|image| self.registry.push_blobs(&repository, image));
        let blobs = stream::iter(blobs.collect::<Vec<_>>());
        blobs
            .buffer_unordered(self.options.at_once)
            .try_collect::<Vec<()>>()
            .await?;
        let start = Instant::now();
        let judged = images.iter().enumerate().map(|(number, image)| async move {
            let (repository, tag) = (
                format!("{}/many", self.options.prefix),
                format!("n{number}"),
            );
            self.registry.push_manifest(&repository, &tag, image).await
        });
        let pushed = stream::iter(judged.collect::<Vec<_>>()).buffered(self.options.at_once);
        let pushed: Vec<_> = pushed.try_collect().await?;
        let timeout = Duration::from_secs(self.options.timeout_s);
        // In order: when the last one asked for has its verdict, all have.
        for digest in pushed {
            self.server.wait_for_verdict(digest, timeout).await?;
        }
        Ok(start.elapsed())
    }
}

// === impl Pushed ===

impl fmt::Display for Pushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = mib(self.compressed_bytes as u64);
        writeln!(f, "{} layers, {bytes:.1} MiB compressed", self.layers)?;
        writeln!(
            f,
            "{:<36} {:>8} {:>8} {:>8}",
            "seconds", "median", "min", "max"
        )?;
        for (what, spread) in [
            ("push to verdict, all layers new", &self.cold),
            ("push to verdict, one small new layer", &self.warm),
            ("gzip -dc | sha256sum of the layers", &self.gzip_sha256sum),
        ] {
            let Spread {
                median_s,
                min_s,
                max_s,
                ..
            } = spread;
            writeln!(f, "{what:<36} {median_s:>8.3} {min_s:>8.3} {max_s:>8.3}")?;
        }
        writeln!(
            f,
            "images judged per second, {} with one small new layer each: {:.1}",
            self.images, self.images_per_second
        )
    }
}
