//! Many distinct images that share their stacks: how many are judged per second, how long each
//! takes, and what that costs.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use reqwest::Method;
use serde::Serialize;

use crate::{
    figures::{Latency, latency_head, mib, per_second},
    fleet::{Answered, Fleet, Installation, Setup},
    sending::send,
    usage::{Before, Usage, Watched},
    watch::Watch,
    workload::{Images, Registry, RegistryKind, Stored, Workload, write_advisories},
};

/// A policy that differs from the built-in one in what it warns of, so that all is judged again.
const POLICY: &str = "name: default
rules:
  - name: low
    when: { vulnerability: { severity: low } }
    then: warn
";

/// Flags of `churn`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    installation: Installation,
    #[command(flatten)]
    images_of: Images,
    /// How many images
    #[arg(long, default_value_t = 10_000)]
    images: usize,
    /// Webhooks per second; as fast as they are taken where it is left out
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// All roles in one process
    #[arg(long)]
    together: bool,
    /// Also edit the policy at the end, and wait until everything is judged again
    #[arg(long)]
    policy_edit: bool,
    /// Give up when no verdict came for this many seconds
    #[arg(long, default_value_t = 60)]
    patience_s: u64,
}

/// The result of `churn`.
#[derive(Debug, Serialize)]
pub(crate) struct Churned {
    registry: RegistryKind,
    images: usize,
    judged: usize,
    webhooks_per_second: Option<f64>,
    refused: usize,
    took_s: f64,
    judged_per_second: f64,
    /// From webhook to answer.
    answers: Latency,
    /// From webhook to verdict.
    verdicts: Latency,
    bytes_read: u64,
    bytes_held: u64,
    bytes_ratio: f64,
    /// What was asked of the registry, how often.
    requests: BTreeMap<String, u64>,
    /// Messages and requests that the broker took in, per image.
    broker_messages_per_image: f64,
    usage: Usage,
    rejudged_per_second: Option<f64>,
}

/// A running installation with images in its registry.
pub(crate) struct Stage {
    pub(crate) fleet: Fleet,
    pub(crate) registry: Registry,
    pub(crate) images: Vec<Stored>,
    /// The advisory revision in force.
    pub(crate) revision: u64,
}

// === impl Stage ===

impl Stage {
    /// Puts so many images into a registry, starts an installation, and hands advisories in.
    pub(crate) async fn set(
        installation: &Installation,
        images_of: &Images,
        images: usize,
        together: bool,
    ) -> anyhow::Result<Self> {
        let registry = Registry::start(images_of.registry)?;
        crate::say(&format!("putting {images} images into the registry"));
        let workload = Workload::make(images_of, &registry);
        let images = (0..images).map(|number| workload.put(&registry, "n", number));
        let images = images.collect();
        let mut setup = Setup::roles(registry.host());
        if together {
            setup.processes = vec![setup.processes.concat()];
        }
        let fleet = Fleet::start(installation, setup).await?;
        let records = testkit::temp_dir();
        write_advisories(records.path(), images_of.packages)?;
        let revision = fleet.import(records.path()).await?;
        Ok(Self {
            fleet,
            registry,
            images,
            revision,
        })
    }

    /// Every process but this one.
    pub(crate) fn watched(&self) -> Vec<Watched> {
        let mut watched = self.fleet.watched();
        watched.extend(self.registry.id().map(|id| Watched {
            label: "registry".to_owned(),
            id,
        }));
        watched
    }
}

/// Measures.
pub(crate) fn run(options: &Options) -> anyhow::Result<Churned> {
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<Churned> {
    let stage = Stage::set(
        &options.installation,
        &options.images_of,
        options.images,
        options.together,
    );
    let stage = stage.await?;
    let patience = Duration::from_secs(options.patience_s);
    let mut watch = Watch::of(stage.fleet.server()?, stage.revision, &stage.images);
    let before = Before::of(stage.watched())?;
    stage.registry.forget();
    let messages_before = stage.fleet.messages().await?;
    crate::say("sending webhooks");
    let (answers, watched) = tokio::join!(
        send(&stage.fleet, &stage.images, options.rate, 0),
        watch.until_all(patience)
    );
    watched?;
    let usage = before.until_now(options.images)?;
    let messages = stage.fleet.messages().await? - messages_before;
    let bytes_read = stage.registry.bytes_read();
    let mut churned = churned(options, &stage, &answers, watch.seen());
    (churned.usage, churned.bytes_read) = (usage, bytes_read);
    churned.requests = stage.registry.requests();
    churned.broker_messages_per_image = ratio(messages, options.images as u64);
    churned.bytes_ratio = ratio(bytes_read, churned.bytes_held);
    if options.policy_edit {
        churned.rejudged_per_second = Some(edit(&stage, &mut watch, patience).await?);
    }
    Ok(churned)
}

fn churned(
    options: &Options,
    stage: &Stage,
    answers: &[Answered],
    seen: &[Option<Instant>],
) -> Churned {
    let sent = answers.iter().map(|answer| answer.at);
    let took = match (sent.clone().min(), seen.iter().flatten().max()) {
        (Some(first), Some(last)) => last.saturating_duration_since(first),
        _ => Duration::ZERO,
    };
    let judged = seen.iter().flatten().count();
    let since = |(sent, seen): (Instant, &Option<Instant>)| {
        seen.map(|seen| seen.saturating_duration_since(sent))
    };
    Churned {
        registry: options.images_of.registry,
        images: options.images,
        judged,
        webhooks_per_second: options.rate,
        refused: answers
            .iter()
            .filter(|answer| !answer.is_accepted())
            .count(),
        took_s: took.as_secs_f64(),
        judged_per_second: per_second(judged, took),
        answers: Latency::of(answers.iter().map(|answer| answer.took)),
        verdicts: Latency::of(sent.zip(seen).filter_map(since)),
        bytes_read: 0,
        bytes_held: stage.images.iter().map(|image| image.bytes).sum(),
        bytes_ratio: 0.0,
        requests: BTreeMap::new(),
        broker_messages_per_image: 0.0,
        usage: Usage::default(),
        rejudged_per_second: None,
    }
}

/// Edits the policy; gives how many verdicts per second followed.
async fn edit(stage: &Stage, watch: &mut Watch, patience: Duration) -> anyhow::Result<f64> {
    crate::say("editing the policy");
    watch.again();
    let began = Instant::now();
    let server = stage.fleet.server_of("policy")?;
    server
        .send(Method::PUT, "/v1/policies/default", POLICY.to_owned())
        .await?;
    watch.until_all(patience).await?;
    let judged = watch.seen().iter().flatten();
    let (count, last) = (judged.clone().count(), judged.max());
    let took = last.map_or(Duration::ZERO, |last| last.saturating_duration_since(began));
    Ok(per_second(count, took))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

// === impl Churned ===

impl fmt::Display for Churned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { images, judged, .. } = self;
        let rate = self
            .webhooks_per_second
            .map_or("all at once".to_owned(), |rate| {
                format!("{rate} per second")
            });
        writeln!(
            f,
            "{images} images, webhooks {rate}, {} refused",
            self.refused
        )?;
        writeln!(
            f,
            "judged {judged} in {:.1} s: {:.1} per second",
            self.took_s, self.judged_per_second
        )?;
        writeln!(f, "{}", latency_head("milliseconds"))?;
        writeln!(f, "{:<34} {}", "webhook to answer", self.answers)?;
        writeln!(f, "{:<34} {}", "webhook to verdict", self.verdicts)?;
        writeln!(
            f,
            "read {:.1} MiB from the registry of {:.1} MiB that the images hold: ratio {:.3}",
            mib(self.bytes_read),
            mib(self.bytes_held),
            self.bytes_ratio
        )?;
        for (kind, count) in &self.requests {
            writeln!(f, "asked the registry: {kind}: {count}")?;
        }
        writeln!(
            f,
            "messages to the broker per image: {:.1}",
            self.broker_messages_per_image
        )?;
        if let Some(rejudged) = self.rejudged_per_second {
            writeln!(
                f,
                "judged again after a policy edit: {rejudged:.1} per second"
            )?;
        }
        write!(f, "{}", self.usage)
    }
}
