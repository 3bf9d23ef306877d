//! `reassess`: one advisory arrives, and how long it takes until the images that it touches are told
//! and judged.
//!
//! A broker, a matcher, a policy and an inventory run; no scanner and no registry. The images are
//! records, written as the router and the scanner write them, so that matcher and policy take them
//! up as they take up any image: the matcher's own code fills the reverse index. Packages have names
//! that real advisories have, in versions that none of these touches. Then one advisory after the
//! other is handed in with `tidewaiter db import`, each about a package that so many images have.
//!
//! Times are those at which the broker stored a message, from the moment before the command starts.

mod images;

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bus::{Bus, Start, Tail};
use chassis::Cx;
use clap::Args;
use futures::StreamExt as _;
use jiff::Timestamp;
use model::{
    Digest,
    event::{Change, ImageJudged, RESULTS, VulnerabilityChanged},
};
use serde::Serialize;
use serde_json::json;

use self::images::{Pile, marker};
use crate::{
    figures::mib,
    fleet::{Fleet, Installation, Setup},
    say,
    usage::{Before, Usage, rss_bytes},
};

/// Feeds with the names of packages.
const FEEDS: [&str; 3] = ["Debian", "PyPI", "npm"];
/// The feed that the new advisories are of.
const FEED: &str = "load";

/// Flags of `reassess`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    installation: Installation,
    /// A directory in the layout of OSV.dev's exports
    #[arg(value_name = "DIR")]
    osv: PathBuf,
    /// How many images
    #[arg(long, default_value_t = 100_000)]
    images: usize,
    /// Packages in each image
    #[arg(long, default_value_t = 200)]
    packages: usize,
    /// How many images each advisory touches; what the images are too few for is left out
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 1_000, 50_000])]
    affected: Vec<usize>,
    /// Images that are written at the same time
    #[arg(long, default_value_t = 64)]
    at_once: usize,
    /// Give up when nothing is told for this many seconds
    #[arg(long, default_value_t = 60)]
    patience_s: u64,
}

/// The result of `reassess`.
#[derive(Debug, Serialize)]
pub(crate) struct Reassessed {
    images: usize,
    packages_per_image: usize,
    names: usize,
    /// Until every image was assessed and judged for the first time.
    first_verdicts_s: f64,
    index: Indexed,
    advisories: Vec<Round>,
    /// Over everything.
    usage: Usage,
}

/// What the reverse index costs.
#[derive(Debug, Serialize)]
struct Indexed {
    /// (image, package) pairs.
    pairs: usize,
    /// What the matcher's memory and files grew by while the images came.
    memory_bytes: u64,
    disk_bytes: u64,
    memory_bytes_per_million_pairs: f64,
    disk_bytes_per_million_pairs: f64,
}

/// One advisory; seconds since the command began.
#[derive(Debug, Serialize)]
struct Round {
    affected: usize,
    /// Until the command ended.
    handed_in_s: f64,
    first_appeared_s: f64,
    last_appeared_s: f64,
    first_verdict_s: f64,
    last_verdict_s: f64,
}

/// The news of a running installation.
struct News {
    tail: Tail,
    patience: Duration,
    /// When an image had its last verdict.
    judged: HashMap<Digest, Timestamp>,
    /// When a vulnerability appeared in images.
    appeared: HashMap<String, Vec<Timestamp>>,
}

/// Measures.
pub(crate) fn run(options: &Options) -> anyhow::Result<Reassessed> {
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<Reassessed> {
    let affected = fitting(&options.affected, options.images);
    let pile = Pile::of(&options.osv, options.packages, &affected)?;
    let fleet = Fleet::start(&options.installation, setup()).await?;
    let before = Before::of(fleet.watched())?;
    say("importing");
    let mut revision = 0;
    for feed in FEEDS {
        let zip = options.osv.join(feed).join("all.zip");
        fleet.hand_in(&zip, feed, true)?;
        revision = fleet.swept(revision + 1).await?;
    }
    let cx = Cx::system();
    let config = bus::Config {
        url: Some(fleet.nats_url()),
        ..bus::Config::default()
    };
    let bus = Bus::connect(&cx, &config, "load-test").await?;
    let tail = bus.tail(&cx, RESULTS, Start::New, "tw.res.>").await?;
    let mut news = News {
        tail,
        patience: Duration::from_secs(options.patience_s),
        judged: HashMap::new(),
        appeared: HashMap::new(),
    };
    let (matcher, data) = (fleet.process("matcher")?, fleet.data_dir("matcher")?);
    let empty = (rss_bytes(matcher)?, bytes_below(&data)?);
    say(&format!("writing {} images", options.images));
    let began = Instant::now();
    let store = bus.store();
    let (written, judged) = tokio::join!(
        pile.write(&cx, &store, options.images, options.at_once),
        news.until(|news| news.judged.len() == options.images),
    );
    written?;
    judged.context("waiting for the first verdicts")?;
    let first_verdicts_s = began.elapsed().as_secs_f64();
    let full = (rss_bytes(matcher)?, bytes_below(&data)?);
    let mut rounds = Vec::new();
    for (number, count) in affected.iter().enumerate() {
        say(&format!("an advisory about {count} images"));
        rounds.push(round(&cx, &fleet, &pile, &mut news, (number, *count)).await?);
    }
    let usage = before.until_now(options.images)?;
    cx.stop();
    let pairs = options.images * options.packages;
    Ok(Reassessed {
        images: options.images,
        packages_per_image: options.packages,
        names: pile.names(),
        first_verdicts_s,
        index: Indexed::of(pairs, empty, full),
        advisories: rounds,
        usage,
    })
}

/// Each role in a process of its own; nobody asks a registry.
fn setup() -> Setup {
    Setup {
        processes: ["matcher", "policy", "inventory"]
            .map(|role| vec![role])
            .to_vec(),
        ..Setup::roles("127.0.0.1:1".to_owned())
    }
}

/// As many of the rounds as there are images for: no image is touched twice.
fn fitting(affected: &[usize], images: usize) -> Vec<usize> {
    let mut left = images;
    let mut fitting = Vec::new();
    for count in affected {
        if let Some(rest) = left.checked_sub(*count) {
            left = rest;
            fitting.push(*count);
        }
    }
    fitting
}

async fn round(
    cx: &Cx,
    fleet: &Fleet,
    pile: &Pile,
    news: &mut News,
    (number, affected): (usize, usize),
) -> anyhow::Result<Round> {
    let id = format!("LOAD-2026-{number}");
    let dir = testkit::temp_dir();
    write_advisory(dir.path(), &id, pile.marker(number)?)?;
    news.judged.clear();
    let (began, start) = (cx.now(), Instant::now());
    fleet.hand_in(dir.path(), FEED, false)?;
    let handed_in_s = start.elapsed().as_secs_f64();
    let told = news.until(|news| {
        let appeared = news.appeared.get(&id).map_or(0, Vec::len);
        appeared >= affected && news.judged.len() >= affected
    });
    told.await.with_context(|| format!("waiting for `{id}`"))?;
    let appeared = news.appeared.remove(&id).unwrap_or_default();
    ensure!(
        appeared.len() == affected,
        "`{id}` appeared in {} images, not in {affected}",
        appeared.len()
    );
    let touched = pile.touched(number);
    ensure!(
        news.judged.keys().all(|image| touched.contains(image)),
        "images have other verdicts that `{id}` is not about"
    );
    let judged: Vec<Timestamp> = news.judged.values().copied().collect();
    let since =
        |at: Option<&Timestamp>| at.map_or(0.0, |at| at.duration_since(began).as_secs_f64());
    Ok(Round {
        affected,
        handed_in_s,
        first_appeared_s: since(appeared.iter().min()),
        last_appeared_s: since(appeared.iter().max()),
        first_verdict_s: since(judged.iter().min()),
        last_verdict_s: since(judged.iter().max()),
    })
}

fn write_advisory(dir: &Path, id: &str, package: &str) -> anyhow::Result<()> {
    let record = json!({
        "id": id,
        "modified": "2026-01-01T00:00:00Z",
        "affected": [{
            "package": {"ecosystem": marker::ECOSYSTEM, "name": package},
            "ranges": [{
                "type": "ECOSYSTEM",
                "events": [{"introduced": "0"}, {"fixed": marker::FIXED}],
            }],
        }],
        "database_specific": {"severity": "CRITICAL"},
    });
    std::fs::write(dir.join(format!("{id}.json")), record.to_string())
        .context("writing the advisory")
}

/// Bytes of all files below a directory that is being written.
fn bytes_below(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            // Files come and go while they are counted.
            let Ok(data) = entry.metadata() else { continue };
            if data.is_dir() {
                open.push(entry.path());
            } else {
                bytes += data.len();
            }
        }
    }
    Ok(bytes)
}

// === impl News ===

impl News {
    /// Reads until something is so; an error where nothing comes for too long.
    async fn until(&mut self, mut is_so: impl FnMut(&Self) -> bool) -> anyhow::Result<()> {
        while !is_so(self) {
            let heard = tokio::time::timeout(self.patience, self.tail.next());
            let heard = heard.await.context("nothing is told any more")?;
            let heard = heard.context("the news ended")?;
            if let Some(message) = heard.message() {
                self.take(message.time, &message.subject, message.body.as_deref())?;
            }
        }
        Ok(())
    }

    fn take(&mut self, at: Timestamp, subject: &str, body: Option<&[u8]>) -> anyhow::Result<()> {
        let body = body.context("news have no body")?;
        if subject.ends_with(".image.judged") {
            let judged: ImageJudged = bus::decode(body)?;
            self.judged.insert(judged.image, at);
        } else if subject.contains(".vulnerability.") {
            let changed: VulnerabilityChanged = bus::decode(body)?;
            if changed.change == Change::Appeared {
                let appeared = self.appeared.entry(changed.vulnerability.id);
                appeared.or_default().push(at);
            }
        }
        Ok(())
    }
}

// === impl Indexed ===

impl Indexed {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn of(pairs: usize, empty: (u64, u64), full: (u64, u64)) -> Self {
        let memory_bytes = full.0.saturating_sub(empty.0);
        let disk_bytes = full.1.saturating_sub(empty.1);
        let per_million = |bytes: u64| bytes as f64 * 1e6 / pairs.max(1) as f64;
        Self {
            pairs,
            memory_bytes,
            disk_bytes,
            memory_bytes_per_million_pairs: per_million(memory_bytes),
            disk_bytes_per_million_pairs: per_million(disk_bytes),
        }
    }
}

// === impl Reassessed ===

impl fmt::Display for Reassessed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            images,
            packages_per_image,
            names,
            first_verdicts_s,
            index,
            ..
        } = self;
        writeln!(
            f,
            "{images} images of {packages_per_image} packages with {names} names; first verdicts on all after {first_verdicts_s:.1} s"
        )?;
        writeln!(
            f,
            "index of {} pairs: memory {:.1} MiB, disk {:.1} MiB; per million pairs {:.1} and {:.1} MiB",
            index.pairs,
            mib(index.memory_bytes),
            mib(index.disk_bytes),
            index.memory_bytes_per_million_pairs / f64::from(1 << 20),
            index.disk_bytes_per_million_pairs / f64::from(1 << 20),
        )?;
        writeln!(
            f,
            "{:>8} {:>10} {:>16} {:>15} {:>14} {:>13}",
            "images",
            "handed in",
            "first appeared",
            "last appeared",
            "first verdict",
            "last verdict"
        )?;
        for round in &self.advisories {
            writeln!(
                f,
                "{:>8} {:>8.3} s {:>14.3} s {:>13.3} s {:>12.3} s {:>11.3} s",
                round.affected,
                round.handed_in_s,
                round.first_appeared_s,
                round.last_appeared_s,
                round.first_verdict_s,
                round.last_verdict_s
            )?;
        }
        write!(f, "{}", self.usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_the_images_are_too_few_for_are_left_out() {
        assert_eq!(fitting(&[1, 10, 1_000, 50_000], 2_000), [1, 10, 1_000]);
        assert_eq!(fitting(&[1, 10], 100_000), [1, 10]);
        assert!(fitting(&[5], 4).is_empty());
    }
}
