//! Scanner processes against a slow registry: what more of them bring.

use std::{collections::BTreeSet, fmt, time::Duration};

use anyhow::Context as _;
use clap::Args;
use model::Digest;
use serde::Serialize;
use testkit::SeededLayer;

use crate::{
    figures::per_second,
    fleet::{Fleet, Installation, Setup},
    sending::send,
    watch::Watch,
    workload::{Registry, Stored},
};

/// More than there is ever to do at once.
const UNLIMITED: usize = 256;

/// Flags of `scale`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    installation: Installation,
    /// Numbers of scanner processes
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    scanners: Vec<usize>,
    /// Images of one layer each
    #[arg(long, default_value_t = 160)]
    images: usize,
    /// Bytes of a layer
    #[arg(long, default_value_t = 1 << 20)]
    layer_bytes: u64,
    /// How long the registry takes to begin an answer, milliseconds
    #[arg(long, default_value_t = 50)]
    delay_ms: u64,
    /// Bytes per second that the registry gives each connection
    #[arg(long, default_value_t = 20 << 20)]
    bytes_per_second: u64,
    /// Layers that a process reads at once
    #[arg(long, default_value_t = 2)]
    layers_at_once: usize,
    /// Give up when no verdict came for this many seconds
    #[arg(long, default_value_t = 60)]
    patience_s: u64,
}

/// The result of `scale`.
#[derive(Debug, Serialize)]
pub(crate) struct Scaled {
    images: usize,
    limited: Vec<Round>,
    unlimited: Vec<Round>,
}

/// So many processes.
#[derive(Debug, Serialize)]
struct Round {
    scanners: usize,
    layers_at_once: usize,
    judged: usize,
    /// From the first layer asked for to the last byte of one.
    took_s: f64,
    layers_per_second: f64,
    /// In parts of the first of its kind.
    speed_up: f64,
}

/// Measures.
pub(crate) fn run(options: &Options) -> anyhow::Result<Scaled> {
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(async {
        let mut scaled = Scaled {
            images: options.images,
            limited: Vec::new(),
            unlimited: Vec::new(),
        };
        for scanners in &options.scanners {
            let round = measure(options, *scanners, options.layers_at_once).await?;
            scaled.limited.push(round);
        }
        let most = options.scanners.iter().copied().max().unwrap_or(1);
        for scanners in [1, most] {
            let round = measure(options, scanners, UNLIMITED).await?;
            scaled.unlimited.push(round);
        }
        for rounds in [&mut scaled.limited, &mut scaled.unlimited] {
            let first = rounds.first().map_or(1.0, |round| round.layers_per_second);
            for round in rounds {
                round.speed_up = round.layers_per_second / first;
            }
        }
        Ok(scaled)
    })
}

async fn measure(
    options: &Options,
    scanners: usize,
    layers_at_once: usize,
) -> anyhow::Result<Round> {
    let delay = Duration::from_millis(options.delay_ms);
    let registry = Registry::slow(delay, Some(options.bytes_per_second));
    let images = (0..options.images)
        .map(|number| {
            let layer = SeededLayer {
                seed: number as u64,
                bytes: options.layer_bytes,
            };
            registry.put_seeded(layer, &format!("n-{number:07}"))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (images, layers): (Vec<Stored>, BTreeSet<Digest>) = images.into_iter().unzip();
    let mut setup = Setup::roles(registry.host());
    setup.processes.retain(|roles| *roles != ["scanner"]);
    setup.processes.extend(vec![vec!["scanner"]; scanners]);
    // The router asks the registry as well; it is not what is measured.
    setup.config = format!(
        "  events_at_once: 64
scanner:
  layers_at_once: {layers_at_once}
  images_at_once: {}
",
        layers_at_once.max(4) * 2
    );
    let fleet = Fleet::start(&options.installation, setup).await?;
    crate::say(&format!("{scanners} scanners of {layers_at_once} layers"));
    let mut watch = Watch::of(fleet.server()?, 0, &images);
    let patience = Duration::from_secs(options.patience_s);
    let (_, watched) = tokio::join!(send(&fleet, &images, None, 0), watch.until_all(patience));
    watched?;
    let Registry::StandIn(server) = &registry else {
        anyhow::bail!("the registry is a stand-in");
    };
    let (first, last) = server.busy(&layers).context("no layer was read")?;
    let judged = options.images - watch.missing();
    let took = last.saturating_duration_since(first);
    Ok(Round {
        scanners,
        layers_at_once,
        judged,
        took_s: took.as_secs_f64(),
        layers_per_second: per_second(judged, took),
        speed_up: 1.0,
    })
}

// === impl Scaled ===

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} images of one layer each", self.images)?;
        writeln!(
            f,
            "{:>8} {:>14} {:>8} {:>9} {:>9} {:>9}",
            "scanners", "layers at once", "judged", "seconds", "layers/s", "speed-up"
        )?;
        for round in self.limited.iter().chain(&self.unlimited) {
            let at_once = match round.layers_at_once {
                UNLIMITED => "no limit".to_owned(),
                layers => layers.to_string(),
            };
            writeln!(
                f,
                "{:>8} {at_once:>14} {:>8} {:>9.2} {:>9.1} {:>9.2}",
                round.scanners, round.judged, round.took_s, round.layers_per_second, round.speed_up
            )?;
        }
        Ok(())
    }
}
