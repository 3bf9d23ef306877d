//! Settings of RocksDB: memory and files are bounded for the process, however many databases it has.

use std::sync::LazyLock;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, InfoLogger, LogLevel,
    Options, WriteBufferManager,
};

const BLOCK_CACHE_BYTES: usize = 64 << 20;
const WRITE_BUFFERS_BYTES: usize = 96 << 20;
const WRITE_BUFFER_BYTES: usize = 16 << 20;
const WAL_BYTES_MAX: u64 = 64 << 20;
const OPEN_FILES_MAX: i32 = 256;
/// Larger values stand in files of their own and are not rewritten by compaction.
const BLOB_BYTES_MIN: u64 = 32 << 10;

/// One cache of blocks for all databases of the process.
static BLOCKS: LazyLock<Cache> = LazyLock::new(|| Cache::new_lru_cache(BLOCK_CACHE_BYTES));
/// One bound for what all databases of the process hold before it goes to disk.
static WRITE_BUFFERS: LazyLock<WriteBufferManager> =
    LazyLock::new(|| WriteBufferManager::new_write_buffer_manager(WRITE_BUFFERS_BYTES, false));

/// For reading and writing.
pub(super) fn database() -> Options {
    let mut options = common();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_write_buffer_manager(&WRITE_BUFFERS);
    options.increase_parallelism(2);
    options
}

/// For reading beside a writer: every file is opened at once, so that one that the writer deletes
/// afterwards can still be read. RocksDB would start sixteen threads for each family that has files,
/// which takes longer than opening the few that there are.
pub(super) fn read_only() -> Options {
    let mut options = common();
    options.set_max_open_files(-1);
    options.set_max_file_opening_threads(1);
    options
}

pub(super) fn families(names: &[&str]) -> Vec<ColumnFamilyDescriptor> {
    let names = names.iter().copied().chain(["default"]);
    names
        .map(|name| ColumnFamilyDescriptor::new(name, family()))
        .collect()
}

fn common() -> Options {
    let mut options = Options::default();
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
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
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
