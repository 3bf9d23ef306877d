//! The seam of architecture section 5: an image and what is known of its layers go in, a report
//! comes out. Workers and the command line run this very function.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use analyzers::{
    Analyzers, LayerBlob, LayerRead, PreparedLayer, Subject, image_report, read_layer,
};
use anyhow::Context as _;
use archive::Limits;
use chassis::Cx;
use futures::{FutureExt as _, StreamExt as _, stream};
use model::{
    AnalyzerId, Digest, Entries, Findings, Gap, GapCode, Hides, ImageReport, LayerReport, Slug,
    Target, event::Priority,
};
use oci::{Descriptor, Image, OciError, Source};
use tracing::{Instrument as _, info, info_span, warn};

use crate::{
    metrics,
    permits::{Permit, Permits},
    sections::{LayerSections, Sections, Stored, Wanted},
};

/// How images are read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cache domain.
    pub domain: Slug,
    /// What the analyzers look for.
    pub analyzers: analyzers::Config,
    /// What looks for malware, if anything does.
    pub malware: Option<malware::Malware>,
    /// Whether lock files are read as well: of a directory, and never of an image.
    pub lock_files: bool,
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
    settings: Arc<Settings>,
    /// Made once: a layer that nobody knows is read by all of them.
    analyzers: Analyzers,
    pub(crate) wanted: Arc<Wanted>,
    permits: Permits,
    priority: Priority,
    /// The name of where it reads from, for its share of the permits.
    source: Arc<str>,
}

/// A finished scan.
#[derive(Clone, Debug)]
pub struct Scan {
    /// What was found.
    pub report: ImageReport,
    /// The layers that show it, base layer first, one that the image names often as often.
    pub layers: Vec<Arc<PreparedLayer>>,
    /// Whether something stood in the way that may be gone the next time.
    pub unfinished: bool,
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
    layer: Arc<PreparedLayer>,
    was_read: bool,
    unfinished: bool,
}

/// What became of the attempt to read a layer.
enum Read {
    Layer(LayerRead),
    Gap(Gap),
}

// === impl Settings ===

impl Settings {
    fn analyzers(&self) -> Analyzers {
        let mut analyzers = if self.lock_files {
            Analyzers::of_directory(&self.analyzers, &self.limits)
        } else {
            Analyzers::all(&self.analyzers, &self.limits)
        };
        if let Some(malware) = &self.malware {
            analyzers.push(malware.analyzer(&self.analyzers.skip, &self.limits));
        }
        analyzers
    }
}

// === impl Reader ===

impl Reader {
    /// A reader with these settings.
    pub fn new(settings: Settings) -> Self {
        let analyzers = settings.analyzers();
        let ids = analyzers.ids();
        let entries = analyzers::entries_id(&settings.limits);
        Self {
            wanted: Arc::new(Wanted::new(settings.domain.clone(), entries, ids)),
            permits: Permits::new(settings.layers_at_once),
            analyzers,
            settings: Arc::new(settings),
            priority: Priority::default(),
            source: Arc::from(""),
        }
    }

    /// The same reader, with the same permits, for work of another priority and from another
    /// source.
    #[must_use]
    pub fn at(&self, priority: Priority, source: &Slug) -> Self {
        Self {
            priority,
            source: Arc::from(source.as_str()),
            ..self.clone()
        }
    }

    /// The same reader, with the same permits, under other rules for malware.
    #[must_use]
    pub fn with_malware(&self, malware: Option<malware::Malware>) -> Self {
        let settings = Settings {
            malware,
            ..(*self.settings).clone()
        };
        Self {
            permits: self.permits.clone(),
            ..Self::new(settings)
        }
    }

    /// A reader for an image that is suspected of killing its scanner: lower limits, and one layer
    /// at a time. What it reads has keys of its own.
    #[must_use]
    pub fn sparing(&self) -> Self {
        let settings = Settings {
            limits: self.settings.limits.low(),
            layers_at_once: 1,
            ..(*self.settings).clone()
        };
        Self {
            priority: self.priority,
            source: Arc::clone(&self.source),
            ..Self::new(settings)
        }
    }

    /// The key parts of everything that a scan looks for: decides whether an older scan is still
    /// good.
    pub fn ids(&self) -> Vec<AnalyzerId> {
        let mut ids = vec![self.wanted.entries.clone()];
        ids.extend(self.wanted.analyzers.iter().cloned());
        ids
    }
}

/// Scans an image: takes what `sections` know of its layers, reads the others from `source`,
/// biggest first, and puts them together.
///
/// What it knows of all layers is in memory until then, a layer that the image names often once: at
/// most `layers_max` layers, each within what [`Limits`] allow the entries and results of one, of
/// which those that are in the memory cache are shared with it and with other scans. What putting
/// them together takes beside that is bounded by the `image_*` of the limits.
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
    let job = Job {
        cx,
        reader,
        analyzers: Arc::new(reader.analyzers.for_image()),
        image,
        source,
        sections,
        layers_due: AtomicUsize::new(order.len()),
        is_reading: AtomicBool::new(false),
    };

    // Collected first: a stream of futures that borrow is not `Send` for every lifetime.
    let layers_due: Vec<_> = order
        .into_iter()
        .map(|layer| job.layer(layer).boxed())
        .collect();
    let mut got =
        stream::iter(layers_due).buffer_unordered(reader.settings.layers_at_once.saturating_mul(2));
    let mut reports: HashMap<Digest, Arc<PreparedLayer>> = HashMap::new();
    let (mut layers_read, mut unfinished) = (0, false);
    while let Some(got_layer) = got.next().await {
        let got_layer = got_layer?;
        layers_read += u32::from(got_layer.was_read);
        unfinished |= got_layer.unfinished;
        reports.insert(got_layer.layer.blob, got_layer.layer);
    }
    drop(got);

    let ordered: Vec<Arc<PreparedLayer>> = layers
        .iter()
        .filter_map(|layer| reports.get(&layer.digest).cloned())
        .collect();
    let (config, subject) = (image.config.clone(), subject(image, layers));
    let settings = Arc::clone(&reader.settings);
    let layers = ordered.clone();
    let laid = cx.compute(move || {
        let ordered: Vec<&PreparedLayer> = ordered.iter().map(|layer| &**layer).collect();
        let Settings {
            limits, analyzers, ..
        } = &*settings;
        image_report(&ordered, &config, subject, limits, analyzers)
    });
    let mut report = laid.await.context("putting the layers together")?;
    report.gaps.extend(gaps);
    report.gaps.sort();
    report.gaps.dedup();
    report.analyzers = reader.ids();
    let duration = started.elapsed();
    metrics::scanned(duration);
    Ok(Scan {
        report,
        layers,
        unfinished,
        layers_read,
        duration,
    })
}

/// The report of an image that could not even be resolved: one gap that hides everything. Whoever
/// pushed it still gets a verdict.
pub fn unreadable(
    reader: &Reader,
    digest: Digest,
    index: Option<Digest>,
    reference: String,
    gap: Gap,
) -> ImageReport {
    ImageReport {
        image: digest,
        target: Target {
            reference,
            index_digest: index,
            manifest_digest: Some(digest),
            image_id: digest,
            platform: model::Platform::default(),
            created: None,
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
    /// Those of the reader, for the layers of this image.
    analyzers: Arc<Analyzers>,
    image: &'a Image,
    source: &'a Arc<dyn Source>,
    sections: &'a dyn Sections,
    /// How many layers are neither known nor read.
    layers_due: AtomicUsize,
    /// Whether a layer was not known.
    is_reading: AtomicBool,
}

impl Job<'_> {
    /// Counts a layer that is there.
    fn is_there(&self) {
        let is_last = self.layers_due.fetch_sub(1, Ordering::Relaxed) == 1;
        if is_last && self.is_reading.load(Ordering::Relaxed) {
            self.sections.all_read();
        }
    }

    /// A layer's report: from where it is kept, or by reading the layer once in the fleet.
    async fn layer(&self, layer: &Descriptor) -> Result<GotLayer, ScanError> {
        let wanted = &*self.reader.wanted;
        let sections = self.sections.of_size(layer.size);
        loop {
            let asked = Instant::now();
            let known = match self.stored(layer).await? {
                Ok(known) => return Ok(known),
                Err(known) => known,
            };
            // First the permit, then the claim: who is urgent must not wait for a claim whose
            // holder waits for a permit behind others.
            let (priority, source) = (self.reader.priority, &*self.reader.source);
            let permit = self.reader.permits.acquire(priority, source).await;
            if let Some(claim) = sections.claim(layer.digest, wanted).await? {
                // Whoever held the claim before us may have read the layer.
                let known = if claim.is_first_since(asked) {
                    known
                } else {
                    match self.stored(layer).await? {
                        Ok(known) => return Ok(known),
                        Err(known) => known,
                    }
                };
                metrics::missed();
                let span = info_span!("read layer", layer.digest = %layer.digest, layer.bytes = layer.size);
                let got = self.read(layer, known, permit).instrument(span).await;
                drop(claim);
                return got;
            }
            drop(permit);
            metrics::waits();
            sections.ended(layer.digest, wanted).await?;
        }
    }

    /// A layer that is known, or what is known of it.
    async fn stored(
        &self,
        layer: &Descriptor,
    ) -> Result<Result<GotLayer, LayerSections>, ScanError> {
        let sections = self.sections.of_size(layer.size);
        let stored = sections.get(layer.digest, &self.reader.wanted).await?;
        Ok(match stored {
            Stored::Part(known) => Err(known),
            Stored::Whole(known, tier) => {
                metrics::hit(tier, layer.size);
                self.is_there();
                Ok(GotLayer {
                    layer: known,
                    was_read: false,
                    unfinished: false,
                })
            }
        })
    }

    async fn read(
        &self,
        layer: &Descriptor,
        known: LayerSections,
        permit: Permit,
    ) -> Result<GotLayer, ScanError> {
        let wanted = &*self.reader.wanted;
        let is_missing =
            |(id, section): (&AnalyzerId, &Option<_>)| section.is_none().then(|| id.clone());
        // A layer without entries is read for everything, so that all its sections tell of one reading.
        let subset: Vec<AnalyzerId> = if known.entries.is_some() {
            let pairs = wanted.analyzers.iter().zip(&known.sections);
            pairs.filter_map(is_missing).collect()
        } else {
            wanted.analyzers.clone()
        };
        self.is_reading.store(true, Ordering::Relaxed);
        let read = self.read_from_source(layer, &subset).await?;
        self.is_there();
        let read = match read {
            Read::Gap(gap) => {
                return Ok(GotLayer {
                    layer: Arc::new(PreparedLayer::new(empty(layer.digest, gap))),
                    was_read: false,
                    unfinished: true,
                });
            }
            Read::Layer(read) => read,
        };
        drop(permit);
        metrics::read(layer.size);
        let report = merge(wanted, read.report, &known);
        // Gaps of this attempt are of this image, and not of the layer.
        let lasting = (read.complete && !report.transient_gaps.is_empty()).then(|| LayerReport {
            transient_gaps: Vec::new(),
            ..report.clone()
        });
        let report = self.prepared(report).await?;
        if read.complete {
            let kept = match lasting {
                Some(lasting) => self.prepared(lasting).await?,
                None => Arc::clone(&report),
            };
            self.sections.of_size(layer.size).put(wanted, kept).await;
        }
        Ok(GotLayer {
            layer: report,
            was_read: true,
            unfinished: !read.complete,
        })
    }

    async fn prepared(&self, layer: LayerReport) -> Result<Arc<PreparedLayer>, ScanError> {
        let prepared = self.cx.compute(move || PreparedLayer::new(layer));
        Ok(Arc::new(prepared.await.context("preparing a layer")?))
    }

    async fn read_from_source(
        &self,
        layer: &Descriptor,
        subset: &[AnalyzerId],
    ) -> Result<Read, ScanError> {
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
        let settings = Arc::clone(&self.reader.settings);
        let analyzers = if subset == self.reader.wanted.analyzers {
            Arc::clone(&self.analyzers)
        } else {
            Arc::new(Analyzers::clone(&self.analyzers).subset(subset))
        };
        let read = self
            .cx
            .blocking(move || read_layer(stream, &blob, &analyzers, &settings.limits, None))
            .await
            .with_context(|| format!("reading layer `{}`", layer.digest))?;
        let broken = read.source_error.as_ref().and_then(OciError::from_read);
        if let Some(error) = broken.filter(|error| error.is_transient()) {
            return Err(ScanError::Source {
                layer: layer.digest,
                error: error.clone(),
            });
        }
        info!(
            layer.digest = %layer.digest,
            "read layer {} with {} entries", layer.digest, read.report.entries.entries.len()
        );
        Ok(Read::Layer(read))
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

/// The report of a fresh reading, with the sections that were there already, in the list's order.
fn merge(wanted: &Wanted, read: LayerReport, known: &LayerSections) -> LayerReport {
    let fresh = |id: &AnalyzerId| {
        let mut sections = read.sections.iter();
        sections.find(|section| section.analyzer == *id).cloned()
    };
    let sections = wanted.analyzers.iter().zip(&known.sections);
    let sections = sections.filter_map(|(id, section)| {
        let known = || {
            let entries = known.entries.as_deref()?;
            Some(Arc::new(section.as_deref()?.to_section(entries)))
        };
        fresh(id).or_else(known)
    });
    LayerReport {
        sections: sections.collect(),
        ..read
    }
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
