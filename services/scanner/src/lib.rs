//! Reads images: an image job goes in, a `scanned` record comes out.
//!
//! The decision that shapes it: a layer is the unit of work, and its blob digest the only name it
//! is known by. [`scan`] asks [`Sections`] for what is known of each layer, reads only what is
//! missing, biggest layer first, and coalesces the result. The seam is that one trait: a worker
//! brings its cache and the fleet's leases, the command line brings a cache alone, and both run the
//! same code. The price is that a recompressed copy of a known layer is read once more.
//!
//! In a fleet a layer is read once for each set of analyzers: by who holds its lease, for all who
//! find it in the shared objects afterwards (module `sections`). Who is urgent reads first, and
//! upkeep never takes all permits (module `permits`).
//!
//! Whatever the image is, it gets a report: a layer that lies, breaks or is too much becomes a gap.
//! Only a source that is briefly away is an error, because trying again may help.
//!
//! Memory of a process that scans, whatever the images are:
//!
//! ```text
//!   layers_at_once x (one `analyzers::read_layer`, as its crate's doc sums it up
//!                     + what its source holds: at most 7 MiB of network buffers)
//! + images_at_once x what is known of the layers of one image until they are put together
//! + memory_bytes_max of layers that were used of late (a single scan keeps none)
//! + engines x (about 60 MiB, and what one may take to look at a file: crate `malware`)
//! + RocksDB: 64 MiB of blocks and 96 MiB that are not yet written
//! ```
//!
//! An ordinary layer takes 2 MiB of buffers, its window, and what it has of entries and results:
//! the layers of an image of 1 GB stay below 100 MiB together.
//!
//! It matches no advisories and judges nothing. A new analyzer goes to `analyzers`, a new kind of
//! source to `oci`.

mod config;
mod documents;
mod files;
mod handler;
mod metrics;
mod permits;
mod scan;
mod sections;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{Bus, Consume};
use cache::SectionCache;
use chassis::Cx;
use model::event::{JOBS, Priority};
use tokio::sync::watch;

pub use self::{
    config::Config,
    documents::Documents,
    handler::{ImageJobs, SourceOf},
    scan::{Reader, Scan, ScanError, Settings, scan, unreadable},
    sections::{
        CacheSections, Claim, LayerSections, LeasedSections, Sections, Stored, Tier, Wanted,
    },
};

/// Starts the workers: one consumer per priority, all on one pool of slots. They scan with the reader
/// in force. `documents` are those that the sources were made with; they are kept beside the layers'
/// sections.
pub async fn run(
    cx: &Cx,
    bus: &Bus,
    config: &Config,
    readers: watch::Receiver<Reader>,
    (sources, documents): (Arc<dyn SourceOf>, &Documents),
) -> anyhow::Result<axum::Router> {
    let (dir, bytes_max) = (config.data_dir.join("scanner"), config.cache_bytes_max);
    let cache = cx
        .blocking(move || SectionCache::open_or_without(&dir, bytes_max))
        .await?
        .with_context(|| format!("opening the layer cache in `{}`", config.data_dir.display()))?;
    let cache = Arc::new(cache);
    let domain = config.cache_domain.clone();
    let secrets = config.analyzers.secrets.clone();
    documents.keep_in(cx.clone(), Arc::clone(&cache), domain, secrets);
    let sections = Arc::new(LeasedSections::new(
        cx.clone(),
        bus.clone(),
        CacheSections::new(cx.clone(), cache, config.memory_bytes_max),
        config.shared_layer_bytes_min,
        Duration::from_millis(config.shared_deadline_ms),
    ));
    cx.spawn("layer caches", Arc::clone(&sections).watch());
    bus.forget_records(cx, bus::RecordKind::Scanned);
    let slots = config.slots();
    let jobs = Arc::new(ImageJobs::new(
        cx.clone(),
        bus.store(),
        (readers, &slots),
        sources,
        sections,
    ));
    for priority in Priority::ALL {
        let durable = format!("image_{priority}");
        let consume = Consume::new(bus, JOBS, &durable, config.images_at_once);
        bus.consume_sharing(cx, consume, (&slots, priority), Arc::clone(&jobs));
    }
    Ok(axum::Router::new())
}
