//! What a person sees while images are scanned: a bar per layer on a terminal, lines elsewhere,
//! nothing with `--quiet`. Everything goes to standard error.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use model::Digest;
use oci::{BlobReader, Descriptor, Image, OciError, Resolved, Source, Wanted};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);
/// How many layers have a bar at the same time; the others count in the line below.
const BARS_MAX: usize = 12;

/// Where progress goes.
#[derive(Clone)]
pub(super) enum Progress {
    /// On a terminal.
    Bars(MultiProgress),
    /// To a log.
    Lines,
    /// Nowhere.
    Silent,
}

/// A step that takes a while and has no bytes to count.
pub(super) struct Step(Option<ProgressBar>);

/// An image's layers on their way.
pub(super) struct Layers {
    progress: Progress,
    total: Option<ProgressBar>,
    count: usize,
    opened: AtomicUsize,
    ended: AtomicUsize,
    started: Instant,
}

/// A source whose blobs are counted as they are read.
pub(super) struct Watched {
    inner: Arc<dyn Source>,
    layers: Arc<Layers>,
}

/// A layer that is being read.
struct WatchedBlob {
    inner: BlobReader,
    layers: Arc<Layers>,
    bar: Option<ProgressBar>,
    digest: Digest,
    bytes: u64,
    started: Instant,
    is_whole: bool,
}

// === impl Progress ===

impl Progress {
    /// `shown` says whether somebody watches a terminal.
    pub(super) fn new(is_wanted: bool, shown: bool) -> Self {
        match (is_wanted, shown) {
            (false, _) => Self::Silent,
            (true, true) => Self::Bars(MultiProgress::new()),
            (true, false) => Self::Lines,
        }
    }

    /// Shows a step until it is dropped.
    pub(super) fn step(&self, what: String) -> Step {
        match self {
            Self::Silent => Step(None),
            Self::Lines => {
                crate::complain(&what);
                Step(None)
            }
            Self::Bars(bars) => {
                let bar = bars.add(ProgressBar::new_spinner().with_style(style("{spinner} {msg}")));
                bar.set_message(what);
                bar.enable_steady_tick(TICK);
                Step(Some(bar))
            }
        }
    }

    /// Shows the layers of an image, as they are read from `source`.
    pub(super) fn watch(&self, image: &Image, source: Arc<dyn Source>) -> Arc<dyn Source> {
        if matches!(self, Self::Silent) {
            return source;
        }
        let count = layers_of(image);
        let total = match self {
            Self::Bars(bars) => {
                let bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg}"));
                let bar = bars.add(bar);
                bar.set_message(format!("{count} layers"));
                bar.enable_steady_tick(TICK);
                Some(bar)
            }
            _ => None,
        };
        let layers = Arc::new(Layers {
            progress: self.clone(),
            total,
            count,
            opened: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            started: Instant::now(),
        });
        Arc::new(Watched {
            inner: source,
            layers,
        })
    }

    /// Says how many layers did not have to be read.
    pub(super) fn known(&self, image: &Image, layers_read: u32) {
        let count = layers_of(image);
        let read = usize::try_from(layers_read).unwrap_or(count);
        let known = count.saturating_sub(read);
        if known > 0 && matches!(self, Self::Lines) {
            crate::complain(&format!("{known} of {count} layers were known"));
        }
    }

    /// Takes everything off the terminal, so that something else can be written.
    pub(super) fn clear(&self) {
        if let Self::Bars(bars) = self {
            // Where even that fails there is no terminal to be tidy on.
            drop(bars.clear());
        }
    }
}

// === impl Step ===

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

// === impl Layers ===

impl Layers {
    fn begin(self: &Arc<Self>, inner: BlobReader, blob: &Descriptor) -> WatchedBlob {
        let before = self.opened.fetch_add(1, Ordering::Relaxed);
        let active = before.saturating_sub(self.ended.load(Ordering::Relaxed));
        let bar = match &self.progress {
            Progress::Bars(bars) if active < BARS_MAX => {
                let bar = ProgressBar::new(blob.size).with_style(
                    style("  {prefix} {wide_bar} {bytes:>10} of {total_bytes:<10} {binary_bytes_per_sec:>12} {msg:<8}")
                        .progress_chars("█▉▊▋▌▍▎▏ "),
                );
                let bar = match &self.total {
                    Some(total) => bars.insert_before(total, bar),
                    None => bars.add(bar),
                };
                bar.set_prefix(blob.digest.short());
                bar.set_message("reading");
                Some(bar)
            }
            _ => None,
        };
        self.tell();
        WatchedBlob {
            inner,
            layers: Arc::clone(self),
            bar,
            digest: blob.digest,
            bytes: 0,
            started: Instant::now(),
            is_whole: false,
        }
    }

    fn end(&self, blob: &WatchedBlob) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        if let Some(bar) = &blob.bar {
            bar.finish_and_clear();
        }
        if matches!(self.progress, Progress::Lines) {
            let seconds = blob.started.elapsed().as_secs_f64();
            let (bytes, digest) = (HumanBytes(blob.bytes), blob.digest.short());
            let how = if blob.is_whole { "read" } else { "gave up" };
            crate::complain(&format!("layer {digest}: {how} {bytes} in {seconds:.1} s"));
        }
        self.tell();
    }

    /// Says how far the image is.
    fn tell(&self) {
        if let Some(total) = &self.total {
            let (ended, opened) = (
                self.ended.load(Ordering::Relaxed),
                self.opened.load(Ordering::Relaxed),
            );
            let open = opened.saturating_sub(ended);
            let seconds = self.started.elapsed().as_secs();
            total.set_message(format!(
                "{ended} of {} layers read, {open} in work, {seconds} s",
                self.count
            ));
        }
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        if let Some(total) = &self.total {
            total.finish_and_clear();
        }
    }
}

// === impl Watched ===

impl Source for Watched {
    fn resolve<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Resolved, OciError>> {
        self.inner.resolve(wanted)
    }

    fn open_blob<'a>(
        &'a self,
        repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobReader, OciError>> {
        Box::pin(async move {
            let inner = self.inner.open_blob(repository, blob).await?;
            Ok(Box::new(self.layers.begin(inner, blob)) as BlobReader)
        })
    }
}

// === impl WatchedBlob ===

impl Read for WatchedBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.is_whole = true;
            if let Some(bar) = &self.bar {
                bar.set_message("analyzing");
            }
        }
        self.bytes += count as u64;
        if let Some(bar) = &self.bar {
            bar.inc(count as u64);
        }
        Ok(count)
    }
}

impl Drop for WatchedBlob {
    fn drop(&mut self) {
        let layers = Arc::clone(&self.layers);
        layers.end(self);
    }
}

/// How many different layers an image has.
fn layers_of(image: &Image) -> usize {
    let layers = image.manifest.layers.iter();
    layers
        .map(|layer| layer.digest)
        .collect::<BTreeSet<_>>()
        .len()
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
