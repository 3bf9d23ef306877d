//! Memory of every process while images are pushed, pushed again and scanned again for minutes.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use reqwest::Method;
use serde::Serialize;
use serde_json::json;

use crate::{
    churn::Stage,
    figures::mib,
    fleet::Installation,
    server::Server,
    usage::rss_bytes,
    workload::{Images, REPOSITORY},
};

/// From one sample to the next.
const EVERY: Duration = Duration::from_secs(5);
/// What came before this does not count for the slope: caches fill.
const WARM_S: f64 = 120.0;
/// Every so many requests is a scan that is asked for again, the others are webhooks.
const RESCAN_EVERY: usize = 4;
/// A row of the printed table per so many seconds.
const ROW_S: u64 = 60;

/// Flags of `memory`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    installation: Installation,
    #[command(flatten)]
    images_of: Images,
    /// How many images are pushed and scanned again and again
    #[arg(long, default_value_t = 2_000)]
    images: usize,
    /// Requests per second
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    rate: f64,
    /// How long, in seconds
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

/// The result of `memory`.
#[derive(Debug, Serialize)]
pub(crate) struct Grown {
    images: usize,
    requests: usize,
    refused: usize,
    samples: Vec<Sample>,
    /// By process: MiB per minute after the second minute; absent where the run was too short.
    slopes_mib_per_minute: BTreeMap<String, Option<f64>>,
}

/// What every process had at a moment.
#[derive(Debug, Serialize)]
struct Sample {
    at_s: f64,
    rss_bytes: BTreeMap<String, u64>,
}

/// Measures.
pub(crate) fn run(options: &Options) -> anyhow::Result<Grown> {
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<Grown> {
    let stage = Stage::set(
        &options.installation,
        &options.images_of,
        options.images,
        false,
    );
    let stage = stage.await?;
    let end = Instant::now() + Duration::from_secs(options.seconds);
    crate::say("pushing and scanning, again and again");
    let (sent, samples) = tokio::join!(keep_busy(options, &stage, end), sample(&stage, end));
    let ((requests, refused), samples) = (sent?, samples?);
    let labels = stage.watched().into_iter().map(|watched| watched.label);
    let slope_of = |label: String| {
        let late = samples.iter().filter(|sample| sample.at_s >= WARM_S);
        let points = late.filter_map(|sample| {
            let rss = sample.rss_bytes.get(&label)?;
            Some((sample.at_s / 60.0, mib(*rss)))
        });
        let slope = slope(&points.collect::<Vec<_>>());
        (label, slope)
    };
    Ok(Grown {
        images: options.images,
        requests,
        refused,
        slopes_mib_per_minute: labels.map(slope_of).collect(),
        samples,
    })
}

/// Sends requests at the rate until the end; gives how many, and how many were refused.
async fn keep_busy(
    options: &Options,
    stage: &Stage,
    end: Instant,
) -> anyhow::Result<(usize, usize)> {
    let server = stage.fleet.server_of("gateway")?;
    let pause = Duration::from_secs_f64(1.0 / options.rate.max(0.001));
    let mut ticks = tokio::time::interval(pause);
    let (mut requests, mut refused) = (0, 0);
    while Instant::now() < end {
        ticks.tick().await;
        let image = &stage.images[requests % stage.images.len()];
        let was_pushed = requests >= stage.images.len();
        let accepted = if was_pushed && requests.is_multiple_of(RESCAN_EVERY) {
            scan_again(&server, stage, &image.digest.to_string()).await
        } else {
            let (digest, id) = (image.digest.to_string(), format!("request-{requests}"));
            let answered = stage.fleet.hook(REPOSITORY, &image.tag, &digest, &id);
            answered.await.is_accepted()
        };
        requests += 1;
        refused += usize::from(!accepted);
    }
    Ok((requests, refused))
}

async fn scan_again(server: &Server, stage: &Stage, digest: &str) -> bool {
    let reference = format!("{}/{REPOSITORY}@{digest}", stage.registry.host());
    let body = json!({"image": reference, "priority": "low", "force": true}).to_string();
    server.send(Method::POST, "/v1/scans", body).await.is_ok()
}

async fn sample(stage: &Stage, end: Instant) -> anyhow::Result<Vec<Sample>> {
    let (began, mut samples) = (Instant::now(), Vec::new());
    let mut ticks = tokio::time::interval(EVERY);
    while Instant::now() < end {
        ticks.tick().await;
        let watched = stage.watched().into_iter();
        let rss = watched.map(|one| Ok((one.label, rss_bytes(one.id)?)));
        samples.push(Sample {
            at_s: began.elapsed().as_secs_f64(),
            rss_bytes: rss.collect::<anyhow::Result<_>>()?,
        });
    }
    Ok(samples)
}

/// The slope of the line with the least squares.
#[expect(clippy::cast_precision_loss, reason = "a few hundred samples")]
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    if points.len() < 3 {
        return None;
    }
    let count = points.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let common: f64 = points
        .iter()
        .map(|(x, y)| (x - x_mean) * (y - y_mean))
        .sum();
    (spread > 0.0).then(|| common / spread)
}

// === impl Grown ===

impl fmt::Display for Grown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            images,
            requests,
            refused,
            ..
        } = self;
        writeln!(
            f,
            "{images} images, {requests} requests, {refused} refused; MiB in use:"
        )?;
        write!(f, "{:>8}", "seconds")?;
        for label in self.slopes_mib_per_minute.keys() {
            write!(f, " {label:>12}")?;
        }
        writeln!(f)?;
        let every = usize::try_from(ROW_S / EVERY.as_secs()).unwrap_or(1).max(1);
        for sample in self.samples.iter().step_by(every) {
            write!(f, "{:>8.0}", sample.at_s)?;
            for rss in sample.rss_bytes.values() {
                write!(f, " {:>12.1}", mib(*rss))?;
            }
            writeln!(f)?;
        }
        write!(f, "{:>8}", "per min")?;
        for slope in self.slopes_mib_per_minute.values() {
            match slope {
                Some(slope) => write!(f, " {slope:>12.2}")?,
                None => write!(f, " {:>12}", "too short")?,
            }
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_line_through_the_points() {
        let told = |points: &[(f64, f64)]| slope(points).map(|slope| format!("{slope:.3}"));
        assert_eq!(
            told(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]).as_deref(),
            Some("2.000")
        );
        assert_eq!(
            told(&[(0.0, 4.0), (1.0, 4.0), (3.0, 4.0)]).as_deref(),
            Some("0.000")
        );
        assert_eq!(told(&[(0.0, 1.0), (1.0, 3.0)]), None);
    }
}
