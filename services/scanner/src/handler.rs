//! An image job in, a `scanned` record out.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, anyhow};
use bus::{Delivery, Failure, Handler, Outcome, Store, Stored};
use chassis::Cx;
use model::{
    Digest, Findings, Gap, GapCode, Hides, ImageReport, Os, Package, RecordKey, Scanned,
    ScannedContents, Slug, Target, What,
    event::{ImageScan, REPORT_OBJECTS},
};
use oci::{Image, Kept, OciError, Source, Wanted};
use serde::Serialize;
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

/// The objects of a scan.
struct Objects {
    packages: Digest,
    findings: Digest,
    contents: ScannedContents,
}

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
        let unreadable = |code: GapCode, detail: String| Scan {
            unfinished: true,
            ..self.given_up(job, Gap::new(code, Hides::Entries, detail))
        };
        let Some(source) = self.sources.source(&job.source) else {
            let detail = format!("no source `{}` is configured", job.source);
            return Ok(unreadable(GapCode::LayerUnavailable, detail));
        };
        let resolved = match handed_over(job).await {
            Some(image) => Ok(image),
            None => resolve(&*source, &job.repository, job.image).await,
        };
        let mut image = match resolved {
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
        let scan = self.report(job).await?;
        self.record(&key, job, current, scan).await
    }

    /// An image that kills its scanner gets a record all the same, with a gap that hides everything:
    /// whoever pushed it gets a verdict.
    async fn condemned(
        &self,
        delivery: Delivery<ImageScan>,
        cause: &str,
    ) -> Result<Outcome, Failure> {
        let job = &delivery.body;
        let key = RecordKey::new(&delivery.tenant, job.image, What::Scanned);
        let current = self.store.record::<Scanned>(&key).await?;
        let gap = Gap::new(GapCode::ScanAborted, Hides::Entries, cause);
        warn!(image.digest = %job.image, "image {} is given up: {cause}", job.reference);
        let scan = self.given_up(job, gap);
        self.record(&key, job, current, scan).await
    }
}

impl<S: Sections + 'static> ImageJobs<S> {
    fn given_up(&self, job: &ImageScan, gap: Gap) -> Scan {
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

/// The image as its job brings it, if it brings what has the right digests.
async fn handed_over(job: &ImageScan) -> Option<Image> {
    let documents = job.documents.clone()?;
    let kept = Kept::of([documents.manifest, documents.config]);
    kept.image(&job.repository, job.image).await.ok()
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
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use analyzers::PreparedLayer;
    use futures::future::BoxFuture;
    use model::{AnalyzerId, ScannedPackages, event::Priority};

    use super::*;
    use crate::{Claim, Config, LayerSections, sections};

    /// Nothing is known here, and nothing is to be had.
    struct Nowhere(AtomicU32);

    impl SourceOf for Nowhere {
        fn source(&self, _name: &Slug) -> Option<Arc<dyn Source>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            None
        }
    }

    struct Empty;

    impl Sections for Empty {
        fn get<'a>(
            &'a self,
            _blob: Digest,
            _wanted: &'a sections::Wanted,
        ) -> BoxFuture<'a, anyhow::Result<sections::Stored>> {
            Box::pin(async { Ok(sections::Stored::Part(LayerSections::default())) })
        }

        fn put<'a>(
            &'a self,
            _wanted: &'a sections::Wanted,
            _layer: Arc<PreparedLayer>,
        ) -> BoxFuture<'a, ()> {
            Box::pin(async {})
        }

        fn claim<'a>(
            &'a self,
            _blob: Digest,
            _wanted: &'a sections::Wanted,
        ) -> BoxFuture<'a, anyhow::Result<Option<Claim>>> {
            Box::pin(async { Ok(Some(Claim::default())) })
        }

        fn ended<'a>(
            &'a self,
            _blob: Digest,
            _wanted: &'a sections::Wanted,
        ) -> BoxFuture<'a, anyhow::Result<()>> {
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test]
    async fn an_image_that_kills_its_scanner_has_a_record_with_a_gap_and_can_be_tried_again() {
        let (store, tenant) = (Store::memory(), Slug::default_tenant());
        let sources = Arc::new(Nowhere(AtomicU32::new(0)));
        let reader = Reader::new(Config::default().settings());
        let ids: Vec<AnalyzerId> = reader.ids();
        let of_jobs: Arc<dyn SourceOf> = sources.clone();
        let jobs = ImageJobs::new(Cx::for_tests(), store.clone(), reader, of_jobs, Empty);
        let job = ImageScan {
            image: Digest::of(b"image"),
            source: "main".parse().unwrap(),
            repository: "app".to_owned(),
            reference: "r.example/app:1".to_owned(),
            index: None,
            cause: "event".to_owned(),
            priority: Priority::Norm,
            force: false,
            documents: None,
        };
        let delivery = || Delivery::of_event(&tenant, job.clone());
        let outcome = jobs.condemned(delivery(), "it killed its process").await;
        store.apply(&outcome.unwrap()).await.unwrap();
        let key = RecordKey::new(&tenant, job.image, What::Scanned);
        let record = store.record::<Scanned>(&key).await.unwrap().unwrap().body;
        let packages = store.object(REPORT_OBJECTS, &record.packages).await;
        let packages: ScannedPackages = packages.unwrap().unwrap();
        let [gap] = packages.gaps.as_slice() else {
            panic!("one gap, not {:?}", packages.gaps);
        };
        assert_eq!(
            (gap.code, gap.hides),
            (GapCode::ScanAborted, Hides::Entries)
        );
        assert_eq!(gap.detail, "it killed its process");

        // A second push of it is no reason to die again; somebody's explicit wish is.
        assert_eq!(record.analyzers, ids);
        assert!(jobs.handle(delivery()).await.unwrap().is_empty());
        assert_eq!(sources.0.load(Ordering::SeqCst), 0);
        let retried = Delivery {
            retried: true,
            ..delivery()
        };
        assert!(!jobs.handle(retried).await.unwrap().is_empty());
        assert_eq!(sources.0.load(Ordering::SeqCst), 1);
    }
}
