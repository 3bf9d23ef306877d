//! An image job in, a `scanned` record out.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, anyhow};
use bus::{Delivery, Failure, GivenUp, Handler, Outcome, Shares, Slots, Store, Stored};
use chassis::Cx;
use model::{
    Digest, Findings, Gap, GapCode, Hides, ImageReport, Os, Package, RecordKey, Scanned,
    ScannedConfig, ScannedContents, Slug, Target, What,
    event::{ImageScan, Priority, REPORT_OBJECTS},
    runtime::OnNode,
};
use oci::{Image, Kept, OciError, Source, Wanted};
use serde::Serialize;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    Sections,
    files::FileObjects,
    scan::{Reader, Scan, ScanError, gap_code, scan, unreadable},
};

/// Finds the source that an image job names. The host comes from the operator's configuration,
/// never from a payload.
pub trait SourceOf: Send + Sync {
    /// The source, or `None` where nobody configured it.
    fn source(&self, name: &Slug) -> Option<Arc<dyn Source>>;

    /// An image on a node of a tenant, or `None` where no line leads to nodes.
    fn on_node(&self, tenant: &Slug, at: &OnNode) -> Option<Arc<dyn Source>>;

    /// How many there are.
    fn count(&self) -> usize;
}

/// The handler of image jobs.
pub struct ImageJobs<S> {
    cx: Cx,
    store: Store,
    /// The one in force: there is another when the rules for malware change. A job ends with the one
    /// that it began with.
    readers: watch::Receiver<Reader>,
    sources: Arc<dyn SourceOf>,
    sections: S,
    files: FileObjects,
    /// How many images of one source are at hand, by the job's priority: each has its own slots.
    shares: Vec<(Priority, Shares)>,
}

/// A scan, and the objects with the files of its layers.
struct Seen {
    scan: Scan,
    files: Vec<Option<Digest>>,
}

/// The objects of a scan.
struct Objects {
    packages: Digest,
    findings: Digest,
    contents: ScannedContents,
}

/// Labels that a record has, and characters of each name and value.
const LABELS_MAX: usize = 64;
const LABEL_CHARS_MAX: usize = 512;

/// What of a [`model::ScannedPackages`] is this image's alone.
#[derive(Serialize)]
struct OwnPackages {
    image: Digest,
}

/// The rest of it: the same for all images on the same stack.
#[derive(Serialize)]
struct PackagesInCommon<'a> {
    os: Option<&'a Os>,
    packages: &'a [Package],
    gaps: &'a [Gap],
}

/// What of a [`model::ScannedFindings`] is this image's alone.
#[derive(Serialize)]
struct OwnFindings<'a> {
    image: Digest,
    target: &'a Target,
}

/// The rest of it.
#[derive(Serialize)]
struct FindingsInCommon<'a> {
    findings: &'a Findings,
}

// === impl ImageJobs ===

impl<S: Sections + 'static> ImageJobs<S> {
    /// Scans with the reader in force as many images at once as there are slots, keeps sections in
    /// `sections`.
    pub fn new(
        cx: Cx,
        store: Store,
        (readers, slots): (watch::Receiver<Reader>, &Slots),
        sources: Arc<dyn SourceOf>,
        sections: S,
    ) -> Self {
        let shares = Priority::ALL.map(|priority| {
            let shares = Shares::new(&cx, slots.limit(priority), sources.count());
            (priority, shares)
        });
        Self {
            shares: shares.into(),
            files: FileObjects::new(cx.clone(), store.clone()),
            cx,
            store,
            readers,
            sources,
            sections,
        }
    }

    fn reader(&self) -> Reader {
        self.readers.borrow().clone()
    }

    /// Scans the image of a job; `alone` after it killed its scanner.
    async fn report(
        &self,
        tenant: &Slug,
        in_force: &Reader,
        (job, alone): (&ImageScan, bool),
    ) -> Result<Seen, Failure> {
        let unreadable = |code: GapCode, detail: String| Seen {
            scan: Scan {
                unfinished: true,
                ..unread(in_force, job, Gap::new(code, Hides::Entries, detail))
            },
            files: Vec::new(),
        };
        let (source, what) = match &job.on_node {
            None => (
                self.sources.source(&job.source),
                format!("source `{}` is configured", job.source),
            ),
            Some(at) => (
                self.sources.on_node(tenant, at),
                format!("line leads to node `{}`", at.node),
            ),
        };
        let Some(source) = source else {
            let detail = format!("no {what}");
            return Ok(unreadable(GapCode::LayerUnavailable, detail));
        };
        let mut image = match resolve(&*source, job).await {
            Ok(image) => image,
            Err(error) if error.is_transient() => {
                let context = format!("resolving `{}`", job.reference);
                return Err(Failure::Retry(anyhow!(error).context(context)));
            }
            Err(error) => {
                let reference = &job.reference;
                warn!(image.digest = %job.image, "image {reference} cannot be read: {error:#}");
                return Ok(unreadable(gap_code(&error), error.to_string()));
            }
        };
        image.reference.clone_from(&job.reference);
        image.index = job.index;
        let mut reader = in_force.at(job.priority, &job.source);
        if alone {
            reader = reader.sparing();
        }
        let scanned = scan(&self.cx, &reader, &image, &source, &self.sections).await;
        let mut scan = scanned.map_err(|error| {
            let context = format!("scanning `{}`", job.reference);
            match error {
                ScanError::Other(error) => Failure::Retry(error.context(context)),
                error @ ScanError::Source { .. } => Failure::Retry(anyhow!(error).context(context)),
            }
        })?;
        let (layers, gaps) = (std::mem::take(&mut scan.layers), &mut scan.report.gaps);
        let files = self
            .files
            .of(tenant, &reader.wanted.entries, &layers, gaps)
            .await
            .map_err(Failure::Retry)?;
        gaps.sort();
        gaps.dedup();
        // What low limits left out is in the gaps. Another push of it is no reason to die again.
        scan.report.analyzers = in_force.ids();
        Ok(Seen { scan, files })
    }

    /// Stores what a [`model::ScannedPackages`] and a [`model::ScannedFindings`] are read from.
    async fn store_objects(&self, tenant: &Slug, report: &ImageReport) -> anyhow::Result<Objects> {
        let store = &self.store;
        let packages = store.common(&PackagesInCommon {
            os: report.target.os.as_ref(),
            packages: &report.packages,
            gaps: &report.gaps,
        })?;
        let findings = store.common(&FindingsInCommon {
            findings: &report.findings,
        })?;
        let contents = ScannedContents {
            packages: Some(packages.content()),
            findings: Some(findings.content()),
        };
        let of_packages = OwnPackages {
            image: report.image,
        };
        let of_findings = OwnFindings {
            image: report.image,
            target: &report.target,
        };
        let (packages, findings) = tokio::join!(
            store.put_object_with(tenant, REPORT_OBJECTS, &of_packages, &packages),
            store.put_object_with(tenant, REPORT_OBJECTS, &of_findings, &findings),
        );
        Ok(Objects {
            packages: packages.context("storing the packages")?,
            findings: findings.context("storing the findings")?,
            contents,
        })
    }
}

impl<S: Sections + 'static> Handler for ImageJobs<S> {
    type Input = ImageScan;

    async fn handle(&self, delivery: Delivery<ImageScan>) -> Result<Outcome, Failure> {
        let job = &delivery.body;
        let key = RecordKey::new(&delivery.tenant, job.image, What::Scanned);
        let reader = self.reader();
        let current = self.store.record::<Scanned>(&key).await?;
        if let Some(current) = &current
            && !delivery.retried
        {
            let ids = reader.ids().into_iter().collect();
            let is_good = current.body.is_good(&ids);
            if current.body.cause == job.cause || (!job.force && is_good) {
                return Ok(Outcome::none());
            }
        }
        // A source that answers slowly must not hold up the images of others.
        let mut shares = self.shares.iter();
        let shares = shares.find(|(priority, _)| *priority == job.priority);
        let share = shares.map(|(_, shares)| shares.take(&party(&delivery.tenant, job)));
        let Some(_share) = share.flatten() else {
            return Err(Failure::Later(Shares::pause(delivery.attempt)));
        };
        let job_now = (job, delivery.alone);
        let seen = self.report(&key.tenant, &reader, job_now).await?;
        self.record(&key, job, current, seen).await
    }

    /// An image that kills its scanner, or whose source stays away, gets a record all the same, with
    /// a gap that hides everything: whoever pushed it gets a verdict. What is known of an image
    /// stays where its source is merely away.
    async fn given_up(
        &self,
        delivery: Delivery<ImageScan>,
        why: &GivenUp,
    ) -> Result<Outcome, Failure> {
        let (job, cause) = (&delivery.body, why.cause());
        let key = RecordKey::new(&delivery.tenant, job.image, What::Scanned);
        let current = self.store.record::<Scanned>(&key).await?;
        warn!(image.digest = %job.image, "image {} is given up: {cause}", job.reference);
        let (code, unfinished) = match why {
            GivenUp::Broken(_) => (GapCode::ScanAborted, false),
            GivenUp::Away(_) if current.is_some() => return Ok(Outcome::none()),
            GivenUp::Away(_) => (GapCode::LayerUnavailable, true),
        };
        let scan = Scan {
            unfinished,
            ..unread(&self.reader(), job, Gap::new(code, Hides::Entries, cause))
        };
        let files = Vec::new();
        self.record(&key, job, current, Seen { scan, files }).await
    }
}

impl<S: Sections + 'static> ImageJobs<S> {
    /// What a scan leaves: its objects now, its record and what it replaces with the outcome.
    async fn record(
        &self,
        key: &RecordKey,
        job: &ImageScan,
        current: Option<Stored<Scanned>>,
        Seen { scan, files }: Seen,
    ) -> Result<Outcome, Failure> {
        let Scan {
            report,
            unfinished,
            layers_read,
            duration,
            ..
        } = scan;
        let stored = self.store_objects(&key.tenant, &report).await;
        let Objects {
            packages,
            findings,
            contents,
        } = stored.map_err(Failure::Retry)?;
        let record = Scanned {
            analyzers: report.analyzers.clone(),
            packages,
            findings,
            package_count: count(report.packages.len()),
            gap_count: count(report.gaps.len()),
            scanned_at: self.cx.now(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            layers_read,
            cause: job.cause.clone(),
            unfinished,
            contents,
            files,
            config: config(&report.target),
        };
        info!(
            image.digest = %job.image,
            duration_ms = record.duration_ms,
            "scanned {}: {} packages, {} gaps, {layers_read} layers read",
            job.reference, record.package_count, record.gap_count
        );
        let expected = current.as_ref().map_or(0, |current| current.revision);
        let mut outcome = Outcome::none().put(key, &record, expected)?;
        let kept = BTreeSet::from([packages, findings]);
        let old = current.map(|current| [current.body.packages, current.body.findings]);
        for replaced in old.into_iter().flatten().filter(|old| !kept.contains(old)) {
            outcome = outcome.discard(REPORT_OBJECTS, replaced);
        }
        Ok(outcome)
    }
}

impl<S> std::fmt::Debug for ImageJobs<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageJobs")
            .field("readers", &self.readers)
            .finish_non_exhaustive()
    }
}

/// What there is to say of an image that was not read.
fn unread(reader: &Reader, job: &ImageScan, gap: Gap) -> Scan {
    Scan {
        report: unreadable(reader, job.image, job.index, job.reference.clone(), gap),
        layers: Vec::new(),
        unfinished: false,
        layers_read: 0,
        duration: std::time::Duration::ZERO,
    }
}

/// Whose share a job takes.
fn party(tenant: &Slug, job: &ImageScan) -> String {
    match &job.on_node {
        Some(at) => format!("node {tenant}/{}", at.node),
        None => job.source.to_string(),
    }
}

async fn resolve(source: &dyn Source, job: &ImageScan) -> Result<Image, OciError> {
    let (repository, digest) = (&job.repository, job.image);
    let kept = Kept::of(job.manifest.clone().map(|manifest| manifest.0));
    let wanted = Wanted::by_digest(repository, digest);
    let resolved = source.resolve_from(&wanted, &kept).await?;
    if let Some(image) = resolved
        .images
        .into_iter()
        .find(|image| image.digest == digest)
    {
        return Ok(image);
    }
    let unreadable = resolved
        .unreadable
        .into_iter()
        .find(|image| image.digest == digest);
    Err(unreadable.map_or_else(
        || OciError::Malformed {
            what: format!("`{repository}@{digest}`"),
            detail: "it is an index and not an image".to_owned(),
        },
        |image| image.error,
    ))
}

/// What the record says of the config. Its secrets are masked in the report already.
fn config(target: &Target) -> ScannedConfig {
    let short = |text: &str| text.chars().take(LABEL_CHARS_MAX).collect();
    let labels = target.config.labels.iter().take(LABELS_MAX);
    ScannedConfig {
        platform: target.platform.clone(),
        labels: labels
            .map(|(name, value)| (short(name), short(value)))
            .collect(),
    }
}

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
