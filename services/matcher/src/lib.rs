//! Package lists × advisories → vulnerabilities, when an image arrives *and* when an advisory
//! arrives.
//!
//! The decision that shapes it: an advisory revision is a manifest of shards that are named by
//! their content, so what changed between any two revisions is a comparison of two maps, and
//! whoever has the manifest can fetch what it lacks. A reverse index, package → images, turns a
//! changed shard into the few images to assess again, without reading a layer. It costs a local
//! copy of all advisories and an index per process; both can be deleted and come back.
//!
//! - [`Advisories`] is the local copy; [`import`] and [`assess`] are all that a one-off scan needs.
//! - One process, the leader, takes imports out of the inbox and moves `head` ([`leader`]); every
//!   process follows `head` ([`head`]).
//! - Per partition: scans are assessed as they come ([`handler`]), the index is kept ([`index`]),
//!   and after a new revision what it touches is assessed again ([`sweep`]); then the partition's
//!   mark says that everything in it holds for that revision. No image stops it: what cannot be
//!   assessed gets an assessment with a gap.
//! - Only a feed that was given whole covers anything and has an age; records that were merged add
//!   findings and nothing else.
//! - What a feed's server has of it is fetched whole once and then by what changed; a catalog of
//!   exploited vulnerabilities is a feed as well, looked up by CVE ([`Update`]). A revision travels
//!   to sites without a network as one signed file ([`export`]), and to everybody else as shards of
//!   which what differs is fetched ([`Unpacked`]): from a server, or from wherever an export lies.
//! - Images share packages: lists of packages are fetched once, and results of lists and of single
//!   packages are remembered while a revision holds ([`matches`]).
//! - The first assessment of an image is no news; every later difference is.
//!
//! It knows no version order and no rule of matching: those are `vulndb`'s. It judges nothing.
//! To add a feed in a format of its own: a `Vendor` in `vulndb`, and where it is in `feeds/vendors.rs`.

mod advisories;
mod config;
mod download;
mod feeds;
mod handler;
mod head;
mod index;
mod leader;
mod loose;
mod matches;
mod metrics;
mod partition;
mod stage;
mod sweep;
mod upload;

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Context as _;
use bus::Bus;
use chassis::Cx;
use futures::FutureExt as _;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use model::{Assessment, ScannedPackages};
use vulndb::{Explanation, Lookup};

pub use self::{
    advisories::Advisories,
    config::{Config, FeedLimits, Update},
    feeds::{
        Exported, Feeds, Fetched, Latest, Source, Unpacked, export, import_export, is_export, tells,
    },
    loose::{Loose, read_for},
    stage::{Import, Imported, Mode, import},
    upload::{hand_in, operations, routes},
};

/// Matches packages with the local advisories.
pub fn assess(
    advisories: &Advisories,
    packages: &ScannedPackages,
    now: Timestamp,
) -> anyhow::Result<Assessment> {
    let snapshot = advisories.snapshot();
    let today = day(now);
    let (stamp, limits) = (snapshot.manifest().stamp(), advisories.limits());
    vulndb::match_packages(packages, &snapshot, &stamp, today, &limits)
        .with_context(|| format!("matching packages of `{}`", packages.image))
}

/// Why an image has a vulnerability, or why not; with the packages that its advisories are about,
/// wherever, where the image has none of them.
pub fn explain(
    advisories: &Advisories,
    packages: &ScannedPackages,
    id: &str,
) -> anyhow::Result<(Explanation, BTreeSet<Lookup>)> {
    let explanation = vulndb::explain(
        packages,
        &advisories.snapshot(),
        id,
        advisories.limits().severity,
    )
    .with_context(|| format!("explaining `{id}` in `{}`", packages.image))?;
    let elsewhere = if explanation.packages.is_empty() {
        advisories.named(vulndb::canonical(id.trim()))?
    } else {
        BTreeSet::new()
    };
    Ok((explanation, elsewhere))
}

/// The day that decides about the end of life.
fn day(now: Timestamp) -> Date {
    now.to_zoned(TimeZone::UTC).date()
}

/// Starts the role: follows the advisories, leads the feeds where nobody else does, and serves the
/// partitions that it gets.
pub async fn run(cx: &Cx, bus: &Bus, config: &Config) -> anyhow::Result<axum::Router> {
    let dir = config.data_dir.join("matcher");
    let advisories = cx
        .blocking(move || Advisories::open(&dir))
        .await?
        .with_context(|| format!("opening the advisories in `{}`", config.data_dir.display()))?
        .rated_by(config.severity);
    let advisories = Arc::new(advisories);
    let head = head::Head::new(bus.store(), Arc::clone(&advisories));
    let leader = leader::Leader::new(bus.clone(), head.clone(), config);
    let task_cx = cx.clone();
    cx.spawn("feeds", async move {
        leader.run(&task_cx).await;
    });
    let partitions = Arc::new(partition::Partitions::new(
        bus.clone(),
        head.clone(),
        config,
    ));
    // Somebody must, and this role reads all records and deletes reports anyway.
    bus.collect(cx);
    bus.forget_records(cx, bus::RecordKind::Assessed);
    let (task_cx, task_bus) = (cx.clone(), bus.clone());
    cx.spawn("advisory-head", async move {
        // Before anything is assessed: an old copy, or an empty one, would give wrong answers.
        if !head.sync_at_last(&task_cx).await {
            return;
        }
        task_bus.own_partitions(&task_cx, "matcher", move |partition, cx| {
            let partitions = Arc::clone(&partitions);
            async move { partitions.serve(partition, &cx).await }.boxed()
        });
        head.follow(&task_cx, &task_bus).await;
    });
    Ok(axum::Router::new())
}
