//! An image job in, a `scanned` record out.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, anyhow};
use bus::{Delivery, Failure, GivenUp, Handler, Outcome, Shares, Slots, Store, Stored};
use chassis::Cx;
use model::{
    Digest, Gap, GapCode, Hides, ImageReport, RecordKey, Scanned, ScannedFindings, ScannedPackages,
    Slug, What,
    event::{ImageScan, Priority, REPORT_OBJECTS},
};
use oci::{Image, OciError, Source, Wanted};
use tracing::{info, warn};

use crate::{
    Sections,
    scan::{Reader, Scan, ScanError, gap_code, scan, unreadable},
};

/// Finds the source that an image job names. The host comes from the operator's configuration,
/// never from a payload.
pub trait SourceOf: Send + Sync {
    /// The source, or `None` where nobody configured it.
    fn source(&self, name: &Slug) -> Option<Arc<dyn Source>>;

    /// How many there are.
    fn count(&self) -> usize;
}

/// The handler of image jobs.
pub struct ImageJobs<S> {
    cx: Cx,
    store: Store,
    reader: Reader,
    sources: Arc<dyn SourceOf>,
    sections: S,
    /// How many images of one source are at hand, by the job's priority: each has its own slots.
    shares: Vec<(Priority, Shares)>,
}

// === impl ImageJobs ===

impl<S: Sections + 'static> ImageJobs<S> {
    /// Scans with `reader` as many images at once as there are slots, keeps sections in `sections`.
    pub fn new(
        cx: Cx,
        store: Store,
        (reader, slots): (Reader, &Slots),
        sources: Arc<dyn SourceOf>,
        sections: S,
    ) -> Self {
        let shares = Priority::ALL.map(|priority| {
            let shares = Shares::new(&cx, slots.limit(priority), sources.count());
            (priority, shares)
        });
        Self {
            shares: shares.into(),
            cx,
            store,
            reader,
            sources,
            sections,
        }
    }

    /// Scans the image of a job; `alone` after it killed its scanner.
    async fn report(&self, job: &ImageScan, alone: bool) -> Result<Scan, Failure> {
        let unreadable = |code: GapCode, detail: String| Scan {
            unfinished: true,
            ..self.unread(job, Gap::new(code, Hides::Entries, detail))
        };
        let Some(source) = self.sources.source(&job.source) else {
            let detail = format!("no source `{}` is configured", job.source);
            return Ok(unreadable(GapCode::LayerUnavailable, detail));
        };
        let mut image = match resolve(&*source, &job.repository, job.image).await {
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
        let mut reader = self.reader.at(job.priority, &job.source);
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
        // What low limits left out is in the gaps. Another push of it is no reason to die again.
        scan.report.analyzers = self.reader.ids();
        Ok(scan)
    }

    async fn store_objects(
        &self,
        tenant: &Slug,
        report: &ImageReport,
    ) -> anyhow::Result<(Digest, Digest)> {
        let packages = ScannedPackages {
            image: report.image,
            os: report.target.os.clone(),
            packages: report.packages.clone(),
            gaps: report.gaps.clone(),
        };
        let findings = ScannedFindings {
            image: report.image,
            target: report.target.clone(),
            findings: report.findings.clone(),
        };
        let store = &self.store;
        let packages = store.put_object_of(tenant, REPORT_OBJECTS, &packages).await;
        let findings = store.put_object_of(tenant, REPORT_OBJECTS, &findings).await;
        Ok((
            packages.context("storing the packages")?,
            findings.context("storing the findings")?,
        ))
    }
}

impl<S: Sections + 'static> Handler for ImageJobs<S> {
    type Input = ImageScan;

    async fn handle(&self, delivery: Delivery<ImageScan>) -> Result<Outcome, Failure> {
        let job = &delivery.body;
        let key = RecordKey::new(&delivery.tenant, job.image, What::Scanned);
        let current = self.store.record::<Scanned>(&key).await?;
        if let Some(current) = &current
            && !delivery.retried
        {
            let ids = self.reader.ids().into_iter().collect();
            let is_good = current.body.is_good(&ids);
            if current.body.cause == job.cause || (!job.force && is_good) {
                return Ok(Outcome::none());
            }
        }
        // A source that answers slowly must not hold up the images of others.
        let mut shares = self.shares.iter();
        let shares = shares.find(|(priority, _)| *priority == job.priority);
        let share = shares.map(|(_, shares)| shares.take(job.source.as_str()));
        let Some(_share) = share.flatten() else {
            return Err(Failure::Later(Shares::pause(delivery.attempt)));
        };
        let scan = self.report(job, delivery.alone).await?;
        self.record(&key, job, current, scan).await
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
            ..self.unread(job, Gap::new(code, Hides::Entries, cause))
        };
        self.record(&key, job, current, scan).await
    }
}

impl<S: Sections + 'static> ImageJobs<S> {
    /// What there is to say of an image that was not read.
    fn unread(&self, job: &ImageScan, gap: Gap) -> Scan {
        Scan {
            report: unreadable(
                &self.reader,
                job.image,
                job.index,
                job.reference.clone(),
                gap,
            ),
            unfinished: false,
            layers_read: 0,
            duration: std::time::Duration::ZERO,
        }
    }

    /// What a scan leaves: its objects now, its record and what it replaces with the outcome.
    async fn record(
        &self,
        key: &RecordKey,
        job: &ImageScan,
        current: Option<Stored<Scanned>>,
        scan: Scan,
    ) -> Result<Outcome, Failure> {
        let Scan {
            report,
            unfinished,
            layers_read,
            duration,
        } = scan;
        let (packages, findings) = self
            .store_objects(&key.tenant, &report)
            .await
            .map_err(Failure::Retry)?;
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
            .field("reader", &self.reader)
            .finish_non_exhaustive()
    }
}

async fn resolve(source: &dyn Source, repository: &str, digest: Digest) -> Result<Image, OciError> {
    let resolved = source
        .resolve(&Wanted::by_digest(repository, digest))
        .await?;
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

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
