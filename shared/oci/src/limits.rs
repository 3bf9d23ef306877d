//! What a registry, a layout or an archive may ask of us.

use std::time::Duration;

/// Limits on everything that a source answers. A hostile source can make an image unreadable, never
/// a process large or slow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a manifest or an index (registries refuse to store more than 4 MiB themselves).
    pub manifest_bytes_max: u64,
    /// Bytes of an image config.
    pub config_bytes_max: u64,
    /// Bytes of a token server's answer.
    pub token_bytes_max: u64,
    /// Redirects followed for one request.
    pub redirects_max: usize,
    /// Images that one index, with all indexes in it, may lead to.
    pub platforms_max: usize,
    /// Indexes in indexes: 1 is an index of images, 2 an index of such indexes.
    pub index_depth_max: usize,
    /// Layers of one image; what is beyond is a gap.
    pub layers_max: usize,
    /// Steps of a config's history; what is beyond is dropped.
    pub history_max: usize,
    /// Entries of a tar file with an image.
    pub archive_entries_max: usize,
    /// Bytes of a tar file with an image: layers of Docker's are hashed before the first one is scanned.
    pub archive_bytes_max: u64,
    /// Bytes of an archive that is unpacked into a file without a name, because it came compressed
    /// or from an engine.
    pub unpacked_bytes_max: u64,
    /// Files of a directory that is looked at as a layer.
    pub directory_entries_max: usize,
    /// Bytes of one file of a directory; a larger one is a gap.
    pub directory_file_bytes_max: u64,
    /// Bytes of all paths and link targets of a directory.
    pub directory_name_bytes_max: usize,
    /// Files of a directory that could not be read and are named; further ones are counted.
    pub directory_gaps_max: usize,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time without a single byte.
    pub idle_timeout: Duration,
    /// Time without a single byte of a container engine, which packs an image before it sends it.
    pub engine_idle_timeout: Duration,
    /// Time for a whole manifest, config or token.
    pub request_timeout: Duration,
    /// How often a request is tried again that failed in a way that may pass.
    pub retries_max: u32,
    /// Longest wait before the first retry; it doubles with each, and a random part of it is waited.
    pub retry_wait: Duration,
    /// Longest wait before any retry that the source did not ask for.
    pub retry_wait_max: Duration,
    /// Time for all retries together, and the longest wait that a source may ask for before its
    /// caller is told to come back later.
    pub retry_time_max: Duration,
    /// How often a broken blob stream is taken up again where it broke.
    pub blob_resumes_max: u32,
    /// Manifests and configs fetched at the same time for one index.
    pub parallel_max: usize,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes_max: 4 << 20,
            config_bytes_max: 8 << 20,
            token_bytes_max: 64 << 10,
            redirects_max: 5,
            platforms_max: 200,
            index_depth_max: 2,
            layers_max: 1000,
            history_max: 4000,
            archive_entries_max: 100_000,
            archive_bytes_max: 256 << 30,
            unpacked_bytes_max: 64 << 30,
            directory_entries_max: 1_000_000,
            directory_file_bytes_max: 8 << 30,
            directory_name_bytes_max: 256 << 20,
            directory_gaps_max: 100,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            engine_idle_timeout: Duration::from_mins(5),
            request_timeout: Duration::from_mins(1),
            retries_max: 4,
            retry_wait: Duration::from_millis(250),
            retry_wait_max: Duration::from_secs(8),
            retry_time_max: Duration::from_secs(30),
            blob_resumes_max: 4,
            parallel_max: 8,
        }
    }
}
