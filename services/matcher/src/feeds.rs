//! Where OSV records come from: directories, zips in the layout of OSV.dev's `all.zip`, and base
//! URLs in the layout of its exports. Everything is bounded.

use std::{
    fmt, fs,
    io::{self, Cursor, Read, Seek, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::StreamExt as _;
use reqwest::Url;
use tempfile::NamedTempFile;
use vulndb::RECORD_BYTES_MAX;
use zip::ZipArchive;

use crate::FeedLimits;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may be silent.
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// Where the records of a feed are.
#[derive(Clone, Debug)]
pub enum Source {
    /// Every `*.json` below a directory.
    Directory(PathBuf),
    /// Every `*.json` in a zip.
    Zip(PathBuf),
    /// Every `*.json` in a zip that is in memory.
    Bytes(Bytes),
    /// One record.
    Record(PathBuf),
}

/// Exports that can be fetched.
#[derive(Clone, Debug)]
pub struct Feeds {
    client: reqwest::Client,
    base: Url,
    limits: FeedLimits,
}

/// Takes a record's name and bytes.
type Visit<'a> = &'a mut dyn FnMut(&str, &[u8]);

/// What is left of the limits.
struct Budget {
    bytes: u64,
    records: usize,
}

/// Fetches the export of one ecosystem: `<url>/<ecosystem>/all.zip`.
pub async fn fetch(
    url: &str,
    ecosystem: &str,
    limits: &FeedLimits,
) -> anyhow::Result<NamedTempFile> {
    Feeds::new(url, limits)?.fetch(ecosystem).await
}

// === impl Source ===

impl Source {
    /// A directory, a zip or a single record, by what is there.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let kind = fs::metadata(path).with_context(|| format!("opening `{}`", path.display()))?;
        let is_json = path
            .extension()
            .is_some_and(|ext| ext.eq_ignore_ascii_case("json"));
        Ok(match kind.is_dir() {
            true => Self::Directory(path.to_owned()),
            false if is_json => Self::Record(path.to_owned()),
            false => Self::Zip(path.to_owned()),
        })
    }

    /// Calls `visit` with each record's name and bytes.
    pub(crate) fn each_record(&self, limits: &FeedLimits, visit: Visit<'_>) -> anyhow::Result<()> {
        let mut budget = Budget {
            bytes: limits.total_bytes_max,
            records: limits.records_max,
        };
        match self {
            Self::Directory(path) => directory(path, limits.depth_max, &mut budget, visit),
            Self::Zip(path) => {
                let file = fs::File::open(path)?;
                let size = file.metadata()?.len();
                let most = limits.archive_bytes_max;
                anyhow::ensure!(size <= most, "its {size} bytes are more than {most}");
                archive(io::BufReader::new(file), &mut budget, visit)
            }
            Self::Bytes(bytes) => archive(Cursor::new(bytes), &mut budget, visit),
            Self::Record(path) => record(path, &mut budget, visit),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) | Self::Zip(path) | Self::Record(path) => {
                write!(f, "`{}`", path.display())
            }
            Self::Bytes(bytes) => write!(f, "a zip of {} bytes", bytes.len()),
        }
    }
}

// === impl Feeds ===

impl Feeds {
    /// Exports below a base URL.
    pub fn new(base: &str, limits: &FeedLimits) -> anyhow::Result<Self> {
        let base: Url = base
            .parse()
            .with_context(|| format!("reading URL `{base}`"))?;
        anyhow::ensure!(
            matches!(base.scheme(), "http" | "https"),
            "`{base}` is not an http or https URL"
        );
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(Duration::from_secs(limits.fetch_timeout_s))
            .user_agent(concat!("tidewaiter/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            client,
            base,
            limits: limits.clone(),
        })
    }

    /// Fetches `<base>/<ecosystem>/all.zip` into a file that goes when it is dropped.
    pub async fn fetch(&self, ecosystem: &str) -> anyhow::Result<NamedTempFile> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("`{}` cannot have a path", self.base))?
            .pop_if_empty()
            .extend([ecosystem, "all.zip"]);
        self.fetch_url(&url)
            .await
            .with_context(|| format!("fetching `{url}`"))
    }

    async fn fetch_url(&self, url: &Url) -> anyhow::Result<NamedTempFile> {
        let response = self
            .client
            .get(url.clone())
            .send()
            .await?
            .error_for_status()?;
        let most = self.limits.archive_bytes_max;
        let mut file = NamedTempFile::new()?;
        let mut size = 0_u64;
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            size += chunk.len() as u64;
            anyhow::ensure!(size <= most, "it has more than {most} bytes");
            // A page-cached write of a network chunk; too short to move to another thread.
            file.write_all(&chunk)?;
        }
        file.flush()?;
        Ok(file)
    }
}

// === impl Budget ===

impl Budget {
    fn spend(&mut self, bytes: usize) -> anyhow::Result<()> {
        let left = self
            .bytes
            .checked_sub(bytes as u64)
            .zip(self.records.checked_sub(1));
        let (bytes, records) = left.context("it has more records or bytes than allowed")?;
        (self.bytes, self.records) = (bytes, records);
        Ok(())
    }
}

fn directory(
    path: &Path,
    depth: usize,
    budget: &mut Budget,
    visit: Visit<'_>,
) -> anyhow::Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("listing `{}`", path.display()))? {
        entries.push(entry?.path());
        anyhow::ensure!(
            entries.len() <= budget.records,
            "it has more files than allowed"
        );
    }
    entries.sort();
    for path in entries {
        // Links are not followed: they may lead out or around.
        let kind = fs::symlink_metadata(&path)?;
        if kind.is_dir() {
            anyhow::ensure!(depth > 0, "`{}` is nested too deep", path.display());
            directory(&path, depth - 1, budget, visit)?;
        } else if kind.is_file() && is_record(&path.to_string_lossy()) {
            record(&path, budget, visit)?;
        }
    }
    Ok(())
}

fn record(path: &Path, budget: &mut Budget, visit: Visit<'_>) -> anyhow::Result<()> {
    let bytes = chassis::files::read_bounded(path, RECORD_BYTES_MAX as u64)
        .with_context(|| format!("reading `{}`", path.display()))?;
    budget.spend(bytes.len())?;
    visit(&path.to_string_lossy(), &bytes);
    Ok(())
}

fn archive(reader: impl Read + Seek, budget: &mut Budget, visit: Visit<'_>) -> anyhow::Result<()> {
    let mut archive = ZipArchive::new(reader).context("it is not a zip")?;
    let mut bytes = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index)?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        if !entry.is_file() || !is_record(&name) {
            continue;
        }
        bytes.clear();
        // One byte more than allowed: the parser refuses a record that is too large, and says so.
        entry
            .take(RECORD_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("reading `{}`", name.escape_debug()))?;
        budget.spend(bytes.len())?;
        visit(&name, &bytes);
    }
    Ok(())
}

fn is_record(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".json")
}
