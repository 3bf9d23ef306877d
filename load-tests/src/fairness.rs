//! Fresh pushes while many rescans of low priority wait: who was not in a hurry must not be felt.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use serde::Serialize;
use serde_json::json;
use testkit::SeededLayer;

use crate::{
    churn::Stage,
    figures::{Latency, latency_head},
    fleet::Installation,
    sending::send,
    watch::{Watch, verdict},
    workload::{Images, REPOSITORY, RegistryKind, Stored},
};

/// Requests that are out at the same time.
const AT_ONCE: usize = 16;

/// Flags of `fairness`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    installation: Installation,
    /// Rescans of images that are known
    #[arg(long, default_value_t = 400)]
    warm: usize,
    /// Scans of images with a large layer that nobody has read
    #[arg(long, default_value_t = 100)]
    cold: usize,
    /// Bytes of such a layer
    #[arg(long, default_value_t = 20 << 20)]
    cold_bytes: u64,
    /// Fresh pushes, one after the other, before and again while the rescans wait
    #[arg(long, default_value_t = 50)]
    fresh: usize,
    /// From one fresh push to the next, milliseconds
    #[arg(long, default_value_t = 100)]
    every_ms: u64,
    /// Give up on a verdict after this many seconds
    #[arg(long, default_value_t = 120)]
    timeout_s: u64,
}

/// The result of `fairness`.
#[derive(Debug, Serialize)]
pub(crate) struct Fair {
    empty: Latency,
    loaded: Latency,
    /// Rescans that waited when the first and the last fresh push were made.
    waiting: (u64, u64),
    /// p99 under load in parts of that of an empty system.
    ratio: f64,
    /// What the p99 may be: three times that of an empty system, or 250 ms.
    bar_ms: f64,
}

/// Measures.
pub(crate) fn run(options: &Options) -> anyhow::Result<Fair> {
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<Fair> {
    let images_of = Images {
        stacks: 5,
        packages: 200,
        stack_bytes: 1 << 20,
        registry: RegistryKind::StandIn,
    };
    let (warm, fresh) = (options.warm, options.fresh);
    let stage = Stage::set(&options.installation, &images_of, warm + 2 * fresh, false).await?;
    let (known, new) = stage.images.split_at(warm);
    let cold: Vec<Stored> = (0..options.cold)
        .map(|number| {
            let layer = SeededLayer {
                seed: 1_000_000 + number as u64,
                bytes: options.cold_bytes,
            };
            let tag = format!("cold-{number:07}");
            stage
                .registry
                .put_seeded(layer, &tag)
                .map(|(image, _)| image)
        })
        .collect::<anyhow::Result<_>>()?;
    let patience = Duration::from_secs(options.timeout_s);
    let mut watch = Watch::of(stage.fleet.server()?, stage.revision, known);
    let (_, watched) = tokio::join!(
        send(&stage.fleet, known, None, 0),
        watch.until_all(patience)
    );
    watched?;
    anyhow::ensure!(watch.missing() == 0, "the known images are not all judged");
    let (one, two) = new.split_at(fresh);
    crate::say("pushing to an empty system");
    let empty = push(options, &stage, one).await?;
    crate::say("queueing rescans");
    let rescans: Vec<&Stored> = cold.iter().chain(known).collect();
    queue(&stage, &rescans).await?;
    let at_first = stage.fleet.waiting("JOBS", "image_low").await?;
    crate::say("pushing while they wait");
    let loaded = push(options, &stage, two).await?;
    let at_last = stage.fleet.waiting("JOBS", "image_low").await?;
    Ok(Fair {
        ratio: loaded.p99_ms / empty.p99_ms.max(f64::EPSILON),
        bar_ms: (empty.p99_ms * 3.0).max(250.0),
        empty,
        loaded,
        waiting: (at_first, at_last),
    })
}

/// Pushes images one after the other, and waits for each verdict.
async fn push(options: &Options, stage: &Stage, images: &[Stored]) -> anyhow::Result<Latency> {
    let server = stage.fleet.server()?;
    let patience = Duration::from_secs(options.timeout_s);
    let mut took = Vec::with_capacity(images.len());
    for image in images {
        let (began, digest) = (Instant::now(), image.digest.to_string());
        let answered = stage
            .fleet
            .hook(REPOSITORY, &image.tag, &digest, &image.tag)
            .await;
        anyhow::ensure!(answered.is_accepted(), "a webhook was refused");
        let judged = verdict(&server, image.digest, patience).await?;
        took.push(judged.saturating_duration_since(began));
        tokio::time::sleep(Duration::from_millis(options.every_ms)).await;
    }
    Ok(Latency::of(took))
}

/// Asks for a scan of each, in no hurry, and waits until the router has made the jobs.
async fn queue(stage: &Stage, images: &[&Stored]) -> anyhow::Result<()> {
    let (server, host) = (stage.fleet.server_of("gateway")?, stage.registry.host());
    let server = &server;
    let requests = images.iter().map(|image| {
        let reference = format!("{host}/{REPOSITORY}@{}", image.digest);
        let body = json!({"image": reference, "priority": "low", "force": true});
        async move {
            server
                .send(Method::POST, "/v1/scans", body.to_string())
                .await
        }
    });
    stream::iter(requests)
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while stage.fleet.waiting("EVENTS", "router").await? > 0 {
        anyhow::ensure!(
            Instant::now() < deadline,
            "the router does not come to an end"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

// === impl Fair ===

impl fmt::Display for Fair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", latency_head("push to verdict, milliseconds"))?;
        writeln!(f, "{:<34} {}", "in an empty system", self.empty)?;
        writeln!(f, "{:<34} {}", "while rescans wait", self.loaded)?;
        let (first, last) = self.waiting;
        writeln!(
            f,
            "rescans that waited at the first such push: {first}, after the last: {last}"
        )?;
        writeln!(
            f,
            "p99 is {:.1} times that of an empty system; it may be {:.0} ms",
            self.ratio, self.bar_ms
        )
    }
}
