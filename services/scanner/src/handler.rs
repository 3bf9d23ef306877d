//! An image job in, a `scanned` record out.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, anyhow};
use bus::{Delivery, Failure, Handler, Outcome, Store};
use chassis::Cx;
use model::{
    Digest, Gap, GapCode, Hides, ImageReport, RecordKey, Scanned, ScannedFindings, ScannedPackages,
    Slug, What,
    event::{ImageScan, REPORT_OBJECTS},
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
}

/// The handler of image jobs.
pub struct ImageJobs<S> {
    cx: Cx,
    store: Store,
    reader: Reader,
    sources: Arc<dyn SourceOf>,
    sections: S,
}

// === impl ImageJobs ===

impl<S: Sections + 'static> ImageJobs<S> {
    /// Scans with `reader`, keeps sections in `sections`.
    pub fn new(
        cx: Cx,
        store: Store,
        reader: Reader,
        sources: Arc<dyn SourceOf>,
        sections: S,
    ) -> Self {
        Self {
            cx,
            store,
            reader,
            sources,
            sections,
        }
    }

    async fn report(&self, job: &ImageScan) -> Result<Scan, Failure> {
        let unreadable = |code: GapCode, detail: String| {
            let gap = Gap::new(code, Hides::Entries, detail);
            Scan {
                report: unreadable(
                    &self.reader,
                    job.image,
                    job.index,
                    job.reference.clone(),
                    gap,
                ),
                layers_read: 0,
                duration: std::time::Duration::ZERO,
            }
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
        let reader = self.reader.at(job.priority);
        scan(&self.cx, &reader, &image, &source, &self.sections)
            .await
            .map_err(|error| {
                let context = format!("scanning `{}`", job.reference);
                match error {
                    ScanError::Other(error) => Failure::Retry(error.context(context)),
                    error @ ScanError::Source { .. } => {
                        Failure::Retry(anyhow!(error).context(context))
                    }
                }
            })
    }

    async fn store_objects(&self, report: &ImageReport) -> anyhow::Result<(Digest, Digest)> {
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
        let packages = self.store.put_object(REPORT_OBJECTS, &packages).await;
        let findings = self.store.put_object(REPORT_OBJECTS, &findings).await;
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
        if let Some(current) = &current {
            let same_job = current.body.cause == job.cause;
            if same_job || (!job.force && current.body.analyzers == self.reader.ids()) {
                return Ok(Outcome::none());
            }
        }
        let Scan {
            report,
            layers_read,
            duration,
        } = self.report(job).await?;
        let (packages, findings) = self.store_objects(&report).await.map_err(Failure::Retry)?;
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
        };
        info!(
            image.digest = %job.image,
            duration_ms = record.duration_ms,
            "scanned {}: {} packages, {} gaps, {layers_read} layers read",
            job.reference, record.package_count, record.gap_count
        );
        let expected = current.as_ref().map_or(0, |current| current.revision);
        let mut outcome = Outcome::none().put(&key, &record, expected)?;
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
