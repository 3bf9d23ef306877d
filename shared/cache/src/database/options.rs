//! Settings of RocksDB: memory and files are bounded for the process, however many databases it has.
//!
//! | memory | at most |
//! |---|---|
//! | what was written and is not on disk, of all databases | [`WRITES_BYTES`] |
//! | that, and blocks of files with their indexes and filters | [`MEMORY_BYTES`] |
//! | a job in the background, of which there are [`JOBS`] | [`READ_AHEAD_BYTES`] for each file it reads, 1 MiB for each that it writes |
//! | an open file, of which there are [`OPEN_FILES_MAX`] for each database | some KiB |
//!
//! What comes faster than the disk takes it goes beyond the first bound until something is written
//! after it, by at most twice as much for each family: then RocksDB lets who writes wait.
//!
//! Both bounds are shared, since what one family needs another does not: the family that was begun
//! first is the next to be written to disk, so a busy one gets most of the room. The room for writes
//! is small on purpose. It is full within minutes even where little is written, so that a process
//! has its size soon, and what is written again within seconds, as the records of an image that is
//! new, still goes to disk once.

use std::sync::LazyLock;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType,
    DEFAULT_COLUMN_FAMILY_NAME, InfoLogger, LogLevel, LruCacheOptions, Options, WriteBufferManager,
};

const MEMORY_BYTES: usize = 64 << 20;
pub(super) const WRITES_BYTES: usize = 8 << 20;
/// A family takes memory for writes in pieces of this size: there are families of a few keys.
const WRITES_PIECE_BYTES: usize = 64 << 10;
/// How large the first sorted level may get; what is rewritten with it comes from memory.
const LEVEL_BYTES: u64 = 8 * WRITES_BYTES as u64;
const WAL_BYTES_MAX: u64 = 64 << 20;
const OPEN_FILES_MAX: i32 = 256;
const JOBS: i32 = 2;
const READ_AHEAD_BYTES: usize = 256 << 10;
/// Two to this power are the parts of the cache that have a lock and a bound each.
const CACHE_PARTS_LOG2: i32 = 4;
/// Larger values stand in files of their own and are not rewritten by compaction.
const BLOB_BYTES_MIN: u64 = 32 << 10;
/// Blocks of a file that is deleted leave the cache with it, as long as one in ten is found there;
/// they would stay until the cache is full. The bindings have no function for it.
const UNCACHE: &str = "uncache_aggressiveness=230";

/// One cache of blocks for all databases of the process; what is written counts as well.
static BLOCKS: LazyLock<Cache> = LazyLock::new(|| {
    let mut options = LruCacheOptions::default();
    options.set_capacity(MEMORY_BYTES);
    options.set_num_shard_bits(CACHE_PARTS_LOG2);
    Cache::new_lru_cache_opts(&options)
});
/// One bound for what all databases of the process hold before it goes to disk.
static WRITES: LazyLock<WriteBufferManager> = LazyLock::new(|| {
    WriteBufferManager::new_write_buffer_manager_with_cache(WRITES_BYTES, false, BLOCKS.clone())
});

/// The settings of every family. Reading one from its text takes a tenth of a millisecond, which is
/// much where a database of nine families is opened to be asked once.
static FAMILY: LazyLock<Options> = LazyLock::new(family);

/// Memory that the databases of the process have in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Blocks of files.
    pub(crate) blocks: usize,
    /// What was written and is not on disk.
    pub(crate) writes: usize,
}

/// What is in use now.
pub(crate) fn memory() -> Memory {
    let writes = WRITES.get_usage();
    Memory {
        blocks: BLOCKS.get_usage().saturating_sub(writes),
        writes,
    }
}

/// For reading and writing.
pub(super) fn database() -> Options {
    let mut options = common();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_write_buffer_manager(&WRITES);
    options.increase_parallelism(JOBS);
    options.set_compaction_readahead_size(READ_AHEAD_BYTES);
    options
}

/// For reading beside a writer: every file is opened at once, so that one that the writer deletes
/// afterwards can still be read.
pub(super) fn read_only() -> Options {
    let mut options = common();
    options.set_max_open_files(-1);
    options
}

pub(super) fn families(names: &[&str]) -> Vec<ColumnFamilyDescriptor> {
    let names = names.iter().copied().chain([DEFAULT_COLUMN_FAMILY_NAME]);
    names
        .map(|name| ColumnFamilyDescriptor::new(name, FAMILY.clone()))
        .collect()
}

fn common() -> Options {
    let mut options = Options::default();
    // It would start sixteen for each family that has files, which takes longer than opening the few
    // that there are.
    options.set_max_file_opening_threads(1);
    // No files of its own for log lines: a reader must leave no trace beside the writer's files.
    options.set_info_logger(InfoLogger::new_callback_logger(
        LogLevel::Warn,
        |level, line| match level {
            LogLevel::Error | LogLevel::Fatal => tracing::warn!("RocksDB: {}", line.trim()),
            _ => tracing::debug!("RocksDB: {}", line.trim()),
        },
    ));
    options
}

fn family() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&BLOCKS);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_bloom_filter(10.0, false);
    table.set_block_size(16 << 10);
    let defaults = Options::default().get_options_from_string(UNCACHE);
    let mut options = defaults.expect("RocksDB knows the setting");
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITES_BYTES);
    options.set_arena_block_size(WRITES_PIECE_BYTES);
    options.set_max_bytes_for_level_base(LEVEL_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_enable_blob_files(true);
    options.set_min_blob_size(BLOB_BYTES_MIN);
    options.set_enable_blob_gc(true);
    // Half of the oldest files' bytes being dead is enough to rewrite them.
    options.set_blob_gc_force_threshold(0.5);
    options
}
