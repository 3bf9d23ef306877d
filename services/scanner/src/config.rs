//! What an operator can set.

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::Context as _;
use archive::Limits;
use bus::Slots;
use malware::Malware;
use model::Slug;
use serde::{Deserialize, Serialize};

use crate::Settings;

/// Settings of the scanner role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the layer cache lives; set from the process's data directory.
    #[serde(skip)]
    pub data_dir: PathBuf,
    /// How many image jobs one process works on. Most of them wait for layers. An eighth is reserved
    /// for jobs of high priority, another quarter for those of high or normal priority.
    pub images_at_once: usize,
    /// How many layers one process reads at once. Each takes two threads and the memory that the
    /// doc of `analyzers` states.
    pub layers_at_once: usize,
    /// How many layers an image may have.
    pub layers_max: usize,
    /// Bytes that the layer cache may take on disk.
    pub cache_bytes_max: u64,
    /// Bytes of memory for layers that were used of late, so that they need not be decoded again.
    pub memory_bytes_max: u64,
    /// From how many bytes on a layer, as it is stored in the registry, takes a lease and is shared
    /// with the fleet. Of a smaller one, agreeing on who reads it costs more than reading it does.
    pub shared_layer_bytes_min: u64,
    /// How long the broker may take to give or take a shared layer or a lease, milliseconds; what
    /// takes longer is done without it.
    pub shared_deadline_ms: u64,
    /// The cache domain; tenants that must not learn what others scanned need their own.
    pub cache_domain: Slug,
    /// The file with the key under which secrets get their fingerprints: the same for all scanners and
    /// routers of an installation, and for who scans by hand and uses its baselines. Without one
    /// `serve` makes one in its data directory, where it runs all roles.
    pub secret_key_file: Option<PathBuf>,
    /// What the analyzers look for.
    pub analyzers: analyzers::Config,
    /// The search for malware.
    pub malware: malware::Config,
    /// How much one layer may be.
    pub limits: Limits,
}

// === impl Config ===

impl Config {
    /// What [`crate::scan`] needs of it. The rules for malware are read, which may fail.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let malware = Malware::open(&self.malware).context("preparing the search for malware")?;
        Ok(Settings {
            domain: self.cache_domain.clone(),
            analyzers: self.analyzers.clone(),
            malware,
            lock_files: false,
            limits: self.limits.clone(),
            layers_at_once: self.layers_at_once.max(1),
            layers_max: self.layers_max,
        })
    }

    /// The slots that image jobs of all priorities share.
    pub(crate) fn slots(&self) -> Slots {
        let total = self.images_at_once;
        Slots::new(total, total.div_ceil(8), total.div_ceil(4))
    }
}

impl Default for Config {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        Self {
            data_dir: PathBuf::new(),
            images_at_once: 16,
            // A layer in work keeps a decoding thread busy; more decoders than cores gain nothing.
            layers_at_once: cores.min(8),
            layers_max: 512,
            cache_bytes_max: 10 << 30,
            memory_bytes_max: 256 << 20,
            shared_layer_bytes_min: 64 << 10,
            shared_deadline_ms: 5_000,
            cache_domain: Slug::default_tenant(),
            secret_key_file: None,
            analyzers: analyzers::Config::default(),
            malware: malware::Config::default(),
            limits: Limits::default(),
        }
    }
}
