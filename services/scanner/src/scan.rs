//! The seam of architecture section 5: an image and what is known of its layers go in, a report
//! comes out. Workers and the command line run this very function.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use analyzers::{Analyzers, LayerBlob, LayerRead, Subject, coalesce, read_layer};
use anyhow::Context as _;
use archive::Limits;
use chassis::Cx;
use futures::{FutureExt as _, StreamExt as _, stream};
use model::{
    AnalyzerId, Digest, Entries, Findings, Gap, GapCode, Hides, ImageReport, LayerReport, Section,
    Slug, Target,
};
use oci::{Descriptor, Image, OciError, Source};
use tokio::sync::Semaphore;
use tracing::{Instrument as _, info, info_span, warn};

use crate::{
    metrics,
    sections::{LayerSections, Sections, Wanted},
};

/// How images are read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cache domain.
    pub domain: Slug,
    /// What the analyzers look for.
    pub analyzers: analyzers::Config,
    /// How much one layer may be.
    pub limits: Limits,
    /// How many layers one process reads at once.
    pub layers_at_once: usize,
    /// How many layers an image may have.
    pub layers_max: usize,
}

/// Reads layers, at most so many at once in one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    settings: Settings,
    ids: Vec<AnalyzerId>,
    permits: Arc<Semaphore>,
}

/// A finished scan.
#[derive(Clone, Debug)]
pub struct Scan {
    /// What was found.
    pub report: ImageReport,
    /// How many layers were read, and not taken from a cache.
    pub layers_read: u32,
    /// How long it took.
    pub duration: Duration,
}

/// Why there is no report: something that may be gone the next time.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The source is away or asks us to come back later.
    #[error("reading layer `{layer}`")]
    Source {
        /// The layer.
        layer: Digest,
        /// What the source said.
        #[source]
        error: OciError,
    },
    /// The cache, the leases or this process broke.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// One layer as the scan got it.
struct GotLayer {
    report: LayerReport,
    was_read: bool,
}

/// What became of the attempt to read a layer.
enum Read {
    Report(LayerReport),
    Gap(Gap),
}

// === impl Reader ===

impl Reader {
    /// A reader with these settings.
    pub fn new(settings: Settings) -> Self {
        let ids = Analyzers::all(&settings.analyzers, &settings.limits).ids();
        let permits = Arc::new(Semaphore::new(settings.layers_at_once));
        Self {
            settings,
            ids,
            permits,
        }
    }

    /// The key parts of everything that a scan looks for: decides whether an older scan is still
    /// good.
    pub fn ids(&self) -> Vec<AnalyzerId> {
        let mut ids = vec![analyzers::entries_id(&self.settings.limits)];
        ids.extend(self.ids.iter().cloned());
        ids
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            domain: self.settings.domain.clone(),
            entries: analyzers::entries_id(&self.settings.limits),
            analyzers: self.ids.clone(),
        }
    }
}

/// Scans an image: takes what `sections` know of its layers, reads the others from `source`,
/// biggest first, and puts them together.
///
/// # Errors
/// Only for what may be gone the next time; whatever the image itself is, there is a report.
pub async fn scan(
    cx: &Cx,
    reader: &Reader,
    image: &Image,
    source: &Arc<dyn Source>,
    sections: &dyn Sections,
) -> Result<Scan, ScanError> {
    let started = Instant::now();
    let mut gaps = image.gaps.clone();
    let layers = allowed_layers(image, reader.settings.layers_max, &mut gaps);
    let mut order: Vec<&Descriptor> = layers.iter().collect();
    order.sort_by_key(|layer| (std::cmp::Reverse(layer.size), layer.digest));
    order.dedup_by_key(|layer| layer.digest);
    let wanted = reader.wanted();
    let job = Job {
        cx,
        reader,
        image,
        source,
        sections,
        wanted: &wanted,
    };

    // Collected first: a stream of futures that borrow is not `Send` for every lifetime.
    let layers_due: Vec<_> = order
        .into_iter()
        .map(|layer| job.layer(layer).boxed())
        .collect();
    let mut got =
        stream::iter(layers_due).buffer_unordered(reader.settings.layers_at_once.saturating_mul(2));
    let mut reports: HashMap<Digest, LayerReport> = HashMap::new();
    let mut layers_read = 0;
    while let Some(layer) = got.next().await {
        let layer = layer?;
        layers_read += u32::from(layer.was_read);
        reports.insert(layer.report.blob, layer.report);
    }
    drop(got);

    let ordered: Vec<LayerReport> = layers
        .iter()
        .filter_map(|layer| reports.get(&layer.digest).cloned())
        .collect();
    let (config, subject) = (image.config.clone(), subject(image, layers));
    let (limits, layer_count) = (reader.settings.limits.clone(), ordered.len());
    let mut report = cx
        .compute(move || coalesce(&ordered, &config, subject, &limits))
        .await
        .context("putting the layers together")?;
    report.gaps.extend(gaps);
    report.gaps.sort();
    report.gaps.dedup();
    report.analyzers = reader.ids();
    let duration = started.elapsed();
    metrics::scanned(
        duration,
        layers_read,
        u32::try_from(layer_count).unwrap_or(u32::MAX),
    );
    Ok(Scan {
        report,
        layers_read,
        duration,
    })
}

/// The report of an image that could not even be resolved: one gap that hides everything. Whoever
/// pushed it still gets a verdict.
pub fn unreadable(reader: &Reader, digest: Digest, reference: String, gap: Gap) -> ImageReport {
    ImageReport {
        image: digest,
        target: Target {
            reference,
            index_digest: None,
            manifest_digest: Some(digest),
            image_id: digest,
            platform: model::Platform::default(),
            os: None,
            layers: Vec::new(),
            config: model::RuntimeConfig::default(),
        },
        analyzers: reader.ids(),
        packages: Vec::new(),
        findings: Findings::default(),
        gaps: vec![gap],
    }
}

/// One scan at work.
struct Job<'a> {
    cx: &'a Cx,
    reader: &'a Reader,
    image: &'a Image,
    source: &'a Arc<dyn Source>,
    sections: &'a dyn Sections,
    wanted: &'a Wanted,
}

impl Job<'_> {
    /// A layer's report: from the sections that exist, or by reading the layer once.
    async fn layer(&self, layer: &Descriptor) -> Result<GotLayer, ScanError> {
        let known = self.sections.get(layer.digest, self.wanted).await?;
        if let Some(report) = from_sections(layer.digest, known) {
            return Ok(GotLayer {
                report,
                was_read: false,
            });
        }
        let claim = self.sections.claim(layer.digest).await?;
        // Whoever held the claim before us may have read the layer.
        let known = self.sections.get(layer.digest, self.wanted).await?;
        if let Some(report) = from_sections(layer.digest, known.clone()) {
            return Ok(GotLayer {
                report,
                was_read: false,
            });
        }
        let span = info_span!("read layer", layer.digest = %layer.digest, layer.bytes = layer.size);
        let got = self.read(layer, known).instrument(span).await;
        drop(claim);
        got
    }

    async fn read(&self, layer: &Descriptor, known: LayerSections) -> Result<GotLayer, ScanError> {
        let missing: Vec<AnalyzerId> = self
            .wanted
            .analyzers
            .iter()
            .zip(&known.sections)
            .filter(|(_, section)| section.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        // A layer without entries is read for everything, so that all its sections tell of one reading.
        let subset = if known.entries.is_some() {
            missing
        } else {
            self.wanted.analyzers.clone()
        };
        let read = match self.read_from_source(layer, &subset).await? {
            Read::Gap(gap) => {
                return Ok(GotLayer {
                    report: empty(layer.digest, gap),
                    was_read: false,
                });
            }
            Read::Report(report) => report,
        };
        let report = merge(self.wanted, read, &known.sections);
        Ok(GotLayer {
            report,
            was_read: true,
        })
    }

    async fn read_from_source(
        &self,
        layer: &Descriptor,
        subset: &[AnalyzerId],
    ) -> Result<Read, ScanError> {
        let permit = self
            .reader
            .permits
            .acquire()
            .await
            .context("this process is stopping")?;
        let opened = self.source.open_blob(&self.image.repository, layer).await;
        let stream = match opened {
            Ok(stream) => stream,
            Err(error) if error.is_transient() => {
                return Err(ScanError::Source {
                    layer: layer.digest,
                    error,
                });
            }
            Err(error) => {
                warn!(layer.digest = %layer.digest, "layer {} is not to be had: {error:#}", layer.digest);
                let gap = Gap::new(gap_code(&error), Hides::Entries, error.to_string());
                return Ok(Read::Gap(gap.in_layer(layer.digest)));
            }
        };
        let blob = LayerBlob {
            digest: layer.digest,
            size: layer.size,
            media_type: layer.media_type.clone(),
        };
        let Settings {
            analyzers, limits, ..
        } = self.reader.settings.clone();
        let analyzers = Analyzers::all(&analyzers, &limits).subset(subset);
        let LayerRead { report, complete } = self
            .cx
            .blocking(move || read_layer(stream, &blob, &analyzers, &limits, None))
            .await
            .with_context(|| format!("reading layer `{}`", layer.digest))?;
        drop(permit);
        info!(
            layer.digest = %layer.digest,
            "read layer {} with {} entries", layer.digest, report.entries.entries.len()
        );
        if complete {
            let (entries, sections) = (Arc::clone(&report.entries), report.sections.clone());
            self.sections
                .put(layer.digest, self.wanted, entries, sections)
                .await?;
        }
        Ok(Read::Report(report))
    }
}

fn allowed_layers<'a>(image: &'a Image, max: usize, gaps: &mut Vec<Gap>) -> &'a [Descriptor] {
    let layers = image.manifest.layers.as_slice();
    let Some(allowed) = layers.get(..max) else {
        return layers;
    };
    if allowed.len() < layers.len() {
        let detail = format!("the image has {} layers, {max} are allowed", layers.len());
        gaps.push(Gap::new(GapCode::LimitLayers, Hides::Entries, detail));
    }
    allowed
}

fn subject(image: &Image, layers: &[Descriptor]) -> Subject {
    Subject {
        image: image.digest,
        reference: image.reference.clone(),
        index_digest: image.index,
        manifest_digest: image.has_registry_manifest.then_some(image.digest),
        image_id: image.image_id,
        platform: image.platform.clone(),
        layer_sizes: layers.iter().map(|layer| layer.size).collect(),
    }
}

fn from_sections(blob: Digest, known: LayerSections) -> Option<LayerReport> {
    let sections: Option<Vec<Arc<Section>>> = known.sections.into_iter().collect();
    Some(LayerReport {
        blob,
        entries: known.entries?,
        sections: sections?,
        transient_gaps: Vec::new(),
    })
}

/// The report of a fresh reading, with the sections that were there already, in the list's order.
fn merge(wanted: &Wanted, read: LayerReport, known: &[Option<Arc<Section>>]) -> LayerReport {
    let fresh = |id: &AnalyzerId| read.sections.iter().find(|section| section.analyzer == *id);
    let sections = wanted
        .analyzers
        .iter()
        .zip(known)
        .filter_map(|(id, known)| fresh(id).or(known.as_ref()).cloned())
        .collect();
    LayerReport { sections, ..read }
}

fn empty(blob: Digest, gap: Gap) -> LayerReport {
    LayerReport {
        blob,
        entries: Arc::new(Entries::default()),
        sections: Vec::new(),
        transient_gaps: vec![gap],
    }
}

/// The name of the gap that a source's answer leaves.
pub(crate) fn gap_code(error: &OciError) -> GapCode {
    match error {
        OciError::Unsupported { .. } => GapCode::UnsupportedMediaType,
        OciError::TooLarge { .. } => GapCode::LimitCompressed,
        OciError::DigestMismatch { .. } => GapCode::DigestMismatch,
        OciError::Malformed { .. } => GapCode::Malformed,
        _ => GapCode::LayerUnavailable,
    }
}
