//! Where sections come from and go to.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use bus::{Bus, Lease};
use cache::SectionCache;
use chassis::Cx;
use futures::future::BoxFuture;
use model::{AnalyzerId, Digest, Entries, Section, SectionKey, Slug};

/// What is stored of one layer.
#[derive(Clone, Debug, Default)]
pub struct LayerSections {
    /// The `entries` section.
    pub entries: Option<Arc<Entries>>,
    /// Sections, in the order that was asked for; `None` where there is none.
    pub sections: Vec<Option<Arc<Section>>>,
}

/// The right to read a layer; given back when dropped.
#[derive(Debug, Default)]
pub struct Claim(#[expect(dead_code, reason = "held for its drop")] Option<Lease>);

/// Where the sections of layers are kept, and who may read a layer that is missing.
pub trait Sections: Send + Sync {
    /// What is stored of a layer for these analyzers.
    fn get<'a>(
        &'a self,
        blob: Digest,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, anyhow::Result<LayerSections>>;

    /// Stores what a complete reading found. Partial readings are never handed in.
    fn put<'a>(
        &'a self,
        blob: Digest,
        wanted: &'a Wanted,
        entries: Arc<Entries>,
        sections: Vec<Arc<Section>>,
    ) -> BoxFuture<'a, anyhow::Result<()>>;

    /// Waits until nobody else in the fleet reads the layer, without holding a permit.
    fn claim(&self, blob: Digest) -> BoxFuture<'_, anyhow::Result<Claim>>;
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
}

/// Sections in a local cache, without leases: for the command line.
#[derive(Debug)]
pub struct CacheSections {
    cx: Cx,
    cache: Arc<SectionCache>,
}

/// Sections in a worker's cache, with a lease per layer in reading: for workers.
#[derive(Debug)]
pub struct LeasedSections {
    local: CacheSections,
    bus: Bus,
}

// === impl Wanted ===

impl Wanted {
    fn key(&self, blob: Digest, analyzer: &AnalyzerId) -> SectionKey {
        SectionKey {
            domain: self.domain.clone(),
            blob,
            analyzer: analyzer.clone(),
        }
    }
}

// === impl LayerSections ===

impl LayerSections {
    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.entries.is_some() && self.sections.iter().all(Option::is_some)
    }
}

// === impl CacheSections ===

impl CacheSections {
    /// Sections kept in `cache`.
    pub fn new(cx: Cx, cache: Arc<SectionCache>) -> Self {
        Self { cx, cache }
    }

    /// Opens the cache of one-off scans; missing or busy reads as empty.
    pub fn open_shared(cx: Cx, dir: &Path, bytes_max: u64) -> Self {
        Self::new(cx, Arc::new(SectionCache::open_shared(dir, bytes_max)))
    }

    /// The cache behind it.
    pub fn cache(&self) -> &Arc<SectionCache> {
        &self.cache
    }
}

impl Sections for CacheSections {
    fn get<'a>(
        &'a self,
        blob: Digest,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, anyhow::Result<LayerSections>> {
        let (cache, wanted) = (Arc::clone(&self.cache), wanted.clone());
        Box::pin(async move {
            let read = move || LayerSections {
                entries: cache.get(&wanted.key(blob, &wanted.entries)).map(Arc::new),
                sections: wanted
                    .analyzers
                    .iter()
                    .map(|id| cache.get(&wanted.key(blob, id)).map(Arc::new))
                    .collect(),
            };
            self.cx
                .blocking(read)
                .await
                .context("reading the layer cache")
        })
    }

    fn put<'a>(
        &'a self,
        blob: Digest,
        wanted: &'a Wanted,
        entries: Arc<Entries>,
        sections: Vec<Arc<Section>>,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        let (cache, wanted) = (Arc::clone(&self.cache), wanted.clone());
        Box::pin(async move {
            let write = move || {
                for section in &sections {
                    cache.put(&wanted.key(blob, &section.analyzer), &**section)?;
                }
                // Last, so that a layer with entries has all that was read with them.
                cache.put(&wanted.key(blob, &wanted.entries), &*entries)
            };
            self.cx
                .blocking(write)
                .await
                .context("writing the layer cache")??;
            Ok(())
        })
    }

    fn claim(&self, _blob: Digest) -> BoxFuture<'_, anyhow::Result<Claim>> {
        Box::pin(async { Ok(Claim::default()) })
    }
}

// === impl LeasedSections ===

impl LeasedSections {
    /// Sections in `cache`, with leases from `bus`.
    pub fn new(cx: Cx, bus: Bus, cache: Arc<SectionCache>) -> Self {
        Self {
            local: CacheSections::new(cx, cache),
            bus,
        }
    }
}

impl Sections for LeasedSections {
    fn get<'a>(
        &'a self,
        blob: Digest,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, anyhow::Result<LayerSections>> {
        self.local.get(blob, wanted)
    }

    fn put<'a>(
        &'a self,
        blob: Digest,
        wanted: &'a Wanted,
        entries: Arc<Entries>,
        sections: Vec<Arc<Section>>,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        self.local.put(blob, wanted, entries, sections)
    }

    fn claim(&self, blob: Digest) -> BoxFuture<'_, anyhow::Result<Claim>> {
        Box::pin(async move {
            let name = format!("layer.{}", blob.hex());
            let lease = self.bus.lease_wait(&self.local.cx, &name).await;
            let lease = lease.with_context(|| format!("taking the lease of layer `{blob}`"))?;
            let lease = lease.context("this process is stopping")?;
            Ok(Claim(Some(lease)))
        })
    }
}
