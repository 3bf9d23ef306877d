//! The broker is away for a while, and webhooks go on.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use crate::{
    churn::Stage,
    figures::{Latency, latency_head},
    fleet::{Answered, Installation},
    sending::send,
    watch::Watch,
    workload::Images,
};

/// Flags of `outage`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    installation: Installation,
    #[command(flatten)]
    images_of: Images,
    /// Webhooks per second
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    rate: f64,
    /// Seconds before the broker is killed
    #[arg(long, default_value_t = 10)]
    before_s: u64,
    /// Seconds that it is away
    #[arg(long, default_value_t = 60)]
    down_s: u64,
    /// Seconds after it is back in which webhooks go on
    #[arg(long, default_value_t = 10)]
    after_s: u64,
    /// Give up when no verdict came for this many seconds
    #[arg(long, default_value_t = 120)]
    patience_s: u64,
}

/// The result of `outage`.
#[derive(Debug, Serialize)]
pub(crate) struct Outage {
    down_s: f64,
    webhooks: usize,
    /// Answers that were no 202.
    refused: usize,
    /// Accepted webhooks whose image never got a verdict.
    lost: usize,
    before: Latency,
    down: Latency,
    after: Latency,
    /// From the broker's return to the last verdict on what was pushed until then.
    drained_s: Option<f64>,
}

/// Measures.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outage> {
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<Outage> {
    let seconds = options.before_s + options.down_s + options.after_s;
    let images = webhooks(options.rate, seconds);
    let stage = Stage::set(&options.installation, &options.images_of, images, false);
    let Stage {
        mut fleet,
        registry,
        images,
        revision,
    } = stage.await?;
    let server = fleet.server()?;
    let mut watch = Watch::of(server, revision, &images);
    let mut broker = fleet.take_broker()?;
    let (answers, gone) = tokio::join!(
        send(&fleet, &images, Some(options.rate), 0),
        outage(&mut broker, options)
    );
    crate::say("waiting for the last verdicts");
    watch
        .until_all(Duration::from_secs(options.patience_s))
        .await?;
    let (went, came) = gone;
    drop((fleet, broker, registry));
    Ok(figures(&answers, &watch, went, came))
}

/// Kills the broker and brings it back; says when.
async fn outage(broker: &mut testkit::NatsServer, options: &Options) -> (Instant, Instant) {
    tokio::time::sleep(Duration::from_secs(options.before_s)).await;
    crate::say("killing the broker");
    let went = Instant::now();
    broker.kill();
    tokio::time::sleep(Duration::from_secs(options.down_s)).await;
    crate::say("starting the broker again");
    broker.restart();
    (went, Instant::now())
}

fn figures(answers: &[Answered], watch: &Watch, went: Instant, came: Instant) -> Outage {
    let between = |from: Option<Instant>, to: Option<Instant>| {
        let inside = answers.iter().filter(move |answer| {
            from.is_none_or(|from| answer.at >= from) && to.is_none_or(|to| answer.at < to)
        });
        Latency::of(inside.map(|answer| answer.took))
    };
    let seen = watch.seen();
    let never = answers
        .iter()
        .zip(seen)
        .filter(|(answer, seen)| answer.is_accepted() && seen.is_none());
    let waited = answers.iter().zip(seen);
    let waited = waited.filter(|(answer, _)| answer.at < came && answer.is_accepted());
    let last: Option<Option<Instant>> = waited.map(|(_, seen)| *seen).max();
    Outage {
        down_s: came.saturating_duration_since(went).as_secs_f64(),
        webhooks: answers.len(),
        refused: answers
            .iter()
            .filter(|answer| !answer.is_accepted())
            .count(),
        lost: never.count(),
        before: between(None, Some(went)),
        down: between(Some(went), Some(came)),
        after: between(Some(came), None),
        drained_s: last
            .flatten()
            .map(|last| last.saturating_duration_since(came).as_secs_f64()),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a number of requests from a command line"
)]
fn webhooks(per_second: f64, seconds: u64) -> usize {
    (per_second * seconds as f64).max(1.0) as usize
}

// === impl Outage ===

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            webhooks,
            refused,
            lost,
            ..
        } = self;
        writeln!(
            f,
            "{webhooks} webhooks, {refused} refused, {lost} lost; the broker was away for {:.1} s",
            self.down_s
        )?;
        writeln!(f, "{}", latency_head("webhook to answer, milliseconds"))?;
        writeln!(f, "{:<34} {}", "before", self.before)?;
        writeln!(f, "{:<34} {}", "while the broker is away", self.down)?;
        writeln!(f, "{:<34} {}", "after", self.after)?;
        match self.drained_s {
            Some(drained) => writeln!(
                f,
                "all that waited was judged {drained:.1} s after its return"
            ),
            None => writeln!(f, "nothing waited"),
        }
    }
}
