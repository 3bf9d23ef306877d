//! Where sections come from and go to.
//!
//! | place | of | holds | bound |
//! |---|---|---|---|
//! | memory | this process | layers that were used of late, decoded | [`crate::Config::memory_bytes_max`] |
//! | disk | this worker | sections, each under its key | [`crate::Config::cache_bytes_max`] |
//! | shared | the fleet | layers, whole, each as one object | `bus.layers_bytes_max` |
//!
//! None of them is the truth, and none can fail a scan: what is missing, damaged, late or gone is
//! read from the image's source again. What is partial enters none of them.

mod flights;
mod health;
mod leased;
mod memory;
mod shared;
#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use analyzers::{KeptEntries, KeptSection, PreparedLayer};
use anyhow::Context as _;
use bus::Lease;
use cache::{SectionBatch, SectionCache};
use chassis::Cx;
use futures::future::BoxFuture;
use model::{AnalyzerId, Digest, Hasher, SectionKey, Slug};
use tokio::sync::{RwLock, oneshot};

use self::{
    flights::{Flight, Flights},
    health::Health,
    memory::Memory,
};

pub use self::leased::LeasedSections;

/// The version of what stands in the shared place; part of each name there.
const SHARED_VERSION: u32 = 4;

/// Stored bytes of entries from which on a thread is worth it: they take half a millisecond.
const APART_BYTES_MIN: usize = 256 << 10;

/// What is stored of a layer.
#[derive(Debug)]
pub enum Stored {
    /// All of it.
    Whole(Arc<PreparedLayer>, Tier),
    /// Some of it, or nothing.
    Part(LayerSections),
}

/// Some of a layer's sections.
#[derive(Debug, Default)]
pub struct LayerSections {
    /// The `entries` section.
    pub entries: Option<Box<KeptEntries>>,
    /// Sections, in the order that was asked for; `None` where there is none.
    pub sections: Vec<Option<Arc<KeptSection>>>,
}

/// A place where sections are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// This process's memory.
    Memory,
    /// This worker's disk.
    Disk,
    /// The fleet's objects.
    Shared,
}

/// The right to read a layer; given back when dropped.
#[derive(Debug, Default)]
pub struct Claim {
    /// Dropped first: the fleet may go on, then this process.
    #[expect(dead_code, reason = "held for its drop")]
    lease: Option<Lease>,
    #[expect(dead_code, reason = "held for its drop")]
    flight: Option<Flight>,
    /// Nobody else had it for so long before.
    unused_for: Option<Duration>,
}

/// Where the sections of layers are kept, and who may read a layer that is missing.
pub trait Sections: Send + Sync {
    /// Where the sections of a layer with so many bytes are kept.
    fn of_size(&self, bytes: u64) -> &dyn Sections;

    /// What is stored of a layer.
    fn get<'a>(&'a self, blob: Digest, wanted: &'a Wanted)
    -> BoxFuture<'a, anyhow::Result<Stored>>;

    /// Stores a layer of which every section is there and complete. Partial readings are never
    /// handed in. What cannot be stored is not.
    fn put<'a>(&'a self, wanted: &'a Wanted, layer: Arc<PreparedLayer>) -> BoxFuture<'a, ()>;

    /// The right to read a layer, if nobody else in the fleet reads it for the same analyzers.
    fn claim<'a>(
        &'a self,
        blob: Digest,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, anyhow::Result<Option<Claim>>>;

    /// Told once every layer of an image is there, if one of them was read: what is whole comes by
    /// [`Sections::put`], if it has not yet.
    fn all_read(&self) {}

    /// Waits until who reads the layer has ended, or until it is time to look again.
    fn ended<'a>(&'a self, blob: Digest, wanted: &'a Wanted) -> BoxFuture<'a, anyhow::Result<()>>;
}

/// The sections that a scan needs of each layer.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The cache domain.
    pub domain: Slug,
    /// The key part of the `entries` section.
    pub entries: AnalyzerId,
    /// The key parts of the analyzers' sections.
    pub analyzers: Vec<AnalyzerId>,
    /// The digest of all of that.
    set: Digest,
}

/// Sections in memory and in a local cache, without leases: for the command line, and for layers
/// that are read sooner than a fleet agrees on who reads them.
#[derive(Debug)]
pub struct CacheSections {
    cx: Cx,
    cache: Arc<SectionCache>,
    memory: Memory,
    flights: Flights,
    health: Arc<Health>,
    /// Of one-off scans: what is written beside the scan.
    aside: Option<Aside>,
}

/// Layers that are written while their image is put together.
#[derive(Debug)]
struct Aside {
    /// By the name of a layer with what is wanted of it.
    writes: Flights,
    /// Who writes holds it together with others; who waits for all of them wants it alone.
    all: Arc<RwLock<()>>,
    /// Whether no image follows, so that the cache may be held from its last reading on.
    is_last: AtomicBool,
}

impl<S: Sections + ?Sized> Sections for Arc<S> {
    fn of_size(&self, bytes: u64) -> &dyn Sections {
        (**self).of_size(bytes)
    }

    fn get<'a>(
        &'a self,
        blob: Digest,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, anyhow::Result<Stored>> {
        (**self).get(blob, wanted)
    }

    fn put<'a>(&'a self, wanted: &'a Wanted, layer: Arc<PreparedLayer>) -> BoxFuture<'a, ()> {
        (**self).put(wanted, layer)
    }

    fn claim<'a>(
        &'a self,
        blob: Digest,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, anyhow::Result<Option<Claim>>> {
        (**self).claim(blob, wanted)
    }

    fn all_read(&self) {
        (**self).all_read();
    }

    fn ended<'a>(&'a self, blob: Digest, wanted: &'a Wanted) -> BoxFuture<'a, anyhow::Result<()>> {
        (**self).ended(blob, wanted)
    }
}

// === impl Claim ===

impl Claim {
    /// Whether nobody else had it since, so that what was stored then is still all there is.
    pub fn is_first_since(&self, then: Instant) -> bool {
        self.unused_for
            .is_some_and(|unused| then.elapsed() < unused)
    }
}

// === impl Tier ===

impl Tier {
    /// As metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Shared => "shared",
        }
    }
}

// === impl Wanted ===

impl Wanted {
    /// Everything that these analyzers find, in this cache domain.
    pub fn new(domain: Slug, entries: AnalyzerId, analyzers: Vec<AnalyzerId>) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(&SHARED_VERSION.to_be_bytes());
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        };
        text(domain.as_str());
        for id in std::iter::once(&entries).chain(&analyzers) {
            text(&id.name);
            text(&id.version.to_string());
            text(&id.config.hex());
        }
        let set = hasher.finish();
        Self {
            domain,
            entries,
            analyzers,
            set,
        }
    }

    /// Names a layer together with all that is wanted of it.
    fn name(&self, blob: Digest) -> Digest {
        let mut hasher = Hasher::default();
        hasher.update(self.set.as_bytes());
        hasher.update(blob.as_bytes());
        hasher.finish()
    }

    fn key(&self, blob: Digest, analyzer: &AnalyzerId) -> SectionKey {
        SectionKey {
            domain: self.domain.clone(),
            blob,
            analyzer: analyzer.clone(),
        }
    }

    /// Whether these are the sections that are wanted, in order.
    fn fits(&self, sections: &[Arc<KeptSection>]) -> bool {
        let of_sections = sections.iter().map(|section| &section.analyzer);
        self.analyzers.iter().eq(of_sections)
    }
}

// === impl LayerSections ===

impl LayerSections {
    /// The layer, if nothing is missing.
    fn whole(mut self, blob: Digest) -> Result<PreparedLayer, Self> {
        let sections: Option<Vec<_>> = self.sections.iter().cloned().collect();
        match (self.entries.take(), sections) {
            (Some(entries), Some(sections)) => Ok(PreparedLayer::of_kept(blob, *entries, sections)),
            (entries, _) => Err(Self { entries, ..self }),
        }
    }
}

// === impl CacheSections ===

impl CacheSections {
    /// Sections kept in `cache`, and in up to so many bytes of memory.
    pub fn new(cx: Cx, cache: Arc<SectionCache>, memory_bytes_max: u64) -> Self {
        let health = Arc::new(Health::new(cx.notes().clone(), "layer cache on disk"));
        Self {
            cx,
            cache,
            memory: Memory::new(memory_bytes_max),
            flights: Flights::default(),
            health,
            aside: None,
        }
    }

    /// Opens the cache of one-off scans; missing or busy reads as empty. What is put into it is on its
    /// way until [`CacheSections::finish`].
    pub fn open_shared(cx: Cx, dir: &Path, bytes_max: u64) -> Self {
        let cache = Arc::new(SectionCache::open_shared(dir, bytes_max));
        let aside = Aside {
            writes: Flights::default(),
            all: Arc::default(),
            is_last: AtomicBool::new(false),
        };
        Self {
            aside: Some(aside),
            ..Self::new(cx, cache, 0)
        }
    }

    /// Says that the next image is the last one and soon put together once it is read, so that the end
    /// is prepared meanwhile.
    pub fn next_is_last(&self) {
        if let Some(aside) = &self.aside {
            aside.is_last.store(true, Ordering::Relaxed);
        }
    }

    /// Waits for what is on its way, and does what [`SectionCache::finish`] does: beside whoever waits
    /// for it, since nobody else can write to the cache until then.
    pub async fn finish(&self) -> anyhow::Result<usize> {
        let all = self.aside.as_ref().map(|aside| Arc::clone(&aside.all));
        let (cx, cache) = (self.cx.clone(), Arc::clone(&self.cache));
        let (sender, finished) = oneshot::channel();
        self.cx.spawn("ending the layer cache", async move {
            if let Some(all) = all {
                drop(all.write_owned().await);
            }
            // Nobody is told where nobody waits.
            drop(sender.send(cx.blocking(move || cache.finish()).await));
        });
        Ok(finished.await.context("this process is stopping")???)
    }

    /// The cache behind it.
    pub fn cache(&self) -> &Arc<SectionCache> {
        &self.cache
    }

    /// Waits until this process has read the layer; whether it was reading it.
    async fn flight_ended(&self, name: &Digest) -> bool {
        let Some(mut ended) = self.flights.ended(name) else {
            return false;
        };
        tokio::select! {
            // An error: the sender is gone, which is what is waited for.
            _ = ended.changed() => {}
            () = self.cx.stopped() => {}
        }
        true
    }

    /// Notes how full the disk's part is.
    fn check(&self) {
        let (bytes, bytes_max) = self.cache.fill();
        self.health.fills(bytes, bytes_max);
    }
}

impl Sections for CacheSections {
    fn of_size(&self, _bytes: u64) -> &dyn Sections {
        self
    }

    fn get<'a>(
        &'a self,
        blob: Digest,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, anyhow::Result<Stored>> {
        Box::pin(async move {
            let name = wanted.name(blob);
            if let Some(layer) = self.memory.get(&name) {
                return Ok(Stored::Whole(layer, Tier::Memory));
            }
            let written = self
                .aside
                .as_ref()
                .and_then(|aside| aside.writes.ended(&name));
            if let Some(mut written) = written {
                // An error: the sender is gone, which is what is waited for.
                drop(written.changed().await);
            }
            let (cache, what) = (Arc::clone(&self.cache), wanted.clone());
            let read = self.cx.blocking(move || read(&cache, blob, &what)).await;
            let found = read.context("reading the layer cache")?;
            if let Stored::Whole(layer, _) = &found {
                self.memory.put(name, layer);
            }
            Ok(found)
        })
    }

    fn put<'a>(&'a self, wanted: &'a Wanted, layer: Arc<PreparedLayer>) -> BoxFuture<'a, ()> {
        self.memory.put(wanted.name(layer.blob), &layer);
        let (cache, what) = (Arc::clone(&self.cache), wanted.clone());
        let (cx, health) = (self.cx.clone(), Arc::clone(&self.health));
        let name = wanted.name(layer.blob);
        let writing = async move {
            let written = cx.blocking(move || write(&cache, &what, &layer)).await;
            match written {
                Ok(Ok(())) => health.works(),
                Ok(Err(error)) => health.fails(&anyhow::Error::new(error)),
                // This process is stopping.
                Err(lost) => tracing::debug!("a layer is not kept: {lost}"),
            }
        };
        let Some(aside) = &self.aside else {
            return Box::pin(writing);
        };
        Box::pin(async move {
            let held = (
                aside.writes.enter(name),
                Arc::clone(&aside.all).read_owned().await,
            );
            self.cx.spawn("keeping a layer", async move {
                writing.await;
                drop(held);
            });
        })
    }

    fn all_read(&self) {
        let Some(aside) = &self.aside else { return };
        if !aside.is_last.load(Ordering::Relaxed) {
            return;
        }
        // Who ends waits for it, and who has ended needs it no longer.
        let Ok(held) = Arc::clone(&aside.all).try_read_owned() else {
            return;
        };
        let (cx, cache) = (self.cx.clone(), Arc::clone(&self.cache));
        self.cx.spawn("opening the layer cache", async move {
            let opened = cx.blocking(move || cache.prepare_to_finish()).await;
            if let Err(lost) = opened {
                tracing::debug!("the layer cache is not opened ahead: {lost}");
            }
            drop(held);
        });
    }

    fn claim<'a>(
        &'a self,
        blob: Digest,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, anyhow::Result<Option<Claim>>> {
        Box::pin(async move {
            let flight = self.flights.enter(wanted.name(blob));
            Ok(flight.map(|flight| Claim {
                flight: Some(flight),
                ..Claim::default()
            }))
        })
    }

    fn ended<'a>(&'a self, blob: Digest, wanted: &'a Wanted) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            self.flight_ended(&wanted.name(blob)).await;
            Ok(())
        })
    }
}

fn read(cache: &SectionCache, blob: Digest, wanted: &Wanted) -> Stored {
    // Without them nothing else is used, so nothing else is looked for.
    let nothing = || LayerSections {
        entries: None,
        sections: vec![None; wanted.analyzers.len()],
    };
    let Some(entries) = cache.find(&wanted.key(blob, &wanted.entries)) else {
        return Stored::Part(nothing());
    };
    let sections = || {
        let section = |id| cache.get(&wanted.key(blob, id)).map(Arc::new);
        wanted.analyzers.iter().map(section).collect()
    };
    // The entries take longer than all others, and who scans an image again waits for both.
    let (entries, sections) = if entries.bytes() < APART_BYTES_MIN {
        (entries.decode::<KeptEntries>(), sections())
    } else {
        thread::scope(|scope| {
            let sections = scope.spawn(sections);
            let entries = entries.decode::<KeptEntries>();
            let sections = sections.join();
            let sections = sections.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (entries, sections)
        })
    };
    let Some(entries) = entries else {
        return Stored::Part(nothing());
    };
    let found = LayerSections {
        entries: Some(Box::new(entries)),
        sections,
    };
    match found.whole(blob) {
        Ok(layer) => Stored::Whole(Arc::new(layer), Tier::Disk),
        Err(found) => Stored::Part(found),
    }
}

fn write(
    cache: &SectionCache,
    wanted: &Wanted,
    layer: &PreparedLayer,
) -> Result<(), cache::CacheError> {
    let mut kept = SectionBatch::default();
    for section in &layer.sections {
        kept.add(&wanted.key(layer.blob, &section.analyzer), &**section)?;
    }
    kept.add(&wanted.key(layer.blob, &wanted.entries), &layer.entries)?;
    cache.put_all(kept)
}
