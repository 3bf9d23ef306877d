//! Where records come from: directories, zips in the layout of OSV.dev's `all.zip`, compressed tars,
//! single files, and servers ([`Feeds`]). Everything is bounded.

mod checksum;
mod export;
mod http;
mod increment;
mod packed;
#[cfg(test)]
pub(crate) mod tests;
mod vendors;

use std::{
    fmt, fs,
    io::{self, Cursor},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use bytes::Bytes;
use model::{EPSS, KEV};

#[cfg(test)]
pub(crate) use self::export::tests::export_of_junk;
pub(crate) use self::{
    export::{Export, document, stage_export},
    increment::Absent,
    packed::{inflate, is_packed},
    vendors::{PLACES, place},
};
pub use self::{
    export::{Exported, Unpacked, export, import_export, is_export},
    http::Feeds,
    increment::{Fetched, Latest},
};
use crate::FeedLimits;

/// Where the records of a feed are.
#[derive(Clone, Debug)]
pub enum Source {
    /// Every `*.json` below a directory.
    Directory(PathBuf),
    /// Every `*.json` in a zip, or in a compressed tar.
    Zip(PathBuf),
    /// The same, in memory.
    Bytes(Bytes),
    /// One record, or one table, which may be compressed.
    Record(PathBuf),
}

/// How names of files end that are compressed by themselves.
const COMPRESSED: [&str; 2] = [".gz", ".bz2"];

/// Takes a record's name and bytes.
type Visit<'a> = &'a mut dyn FnMut(&str, &[u8]);

/// What is left of the limits.
struct Budget {
    bytes: u64,
    records: usize,
    /// Bytes of one file.
    file_bytes_max: u64,
}

/// What a feed can tell and what not, in one sentence.
pub fn tells(feed: &str) -> &'static str {
    if let Some(vendor) = vulndb::vendor(feed) {
        return vendor.tells();
    }
    match feed {
        "AlmaLinux" | "Rocky Linux" | "Red Hat" | "SUSE" | "openSUSE" | "openEuler" | "Mageia"
        | "Wolfi" | "Chainguard" | "CleanStart" | "MinimOS" => {
            "vulnerabilities with a fix only: what has none yet is not in it"
        }
        "Alpine" => {
            "vulnerabilities with a fix only, of the repository `main` only: what has none yet, and \
             packages of `community`, are not in it"
        }
        "Debian" | "Ubuntu" => {
            "vulnerabilities with and without a fix; what will not be fixed is not told apart"
        }
        KEV => "what is known to be exploited; it finds nothing by itself",
        EPSS => "how likely exploitation is; it finds nothing by itself",
        _ => "what the ecosystem's own databases list",
    }
}

// === impl Source ===

impl Source {
    /// A directory, a zip or a single record, by what is there.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let kind = fs::metadata(path).with_context(|| format!("opening `{}`", path.display()))?;
        let name = path.to_string_lossy().to_ascii_lowercase();
        let plain = COMPRESSED.iter().find_map(|end| name.strip_suffix(end));
        let is_single = [".json", ".csv", ".xml"]
            .iter()
            .any(|end| plain.unwrap_or(&name).ends_with(end));
        Ok(match kind.is_dir() {
            true => Self::Directory(path.to_owned()),
            false if is_single => Self::Record(path.to_owned()),
            false => Self::Zip(path.to_owned()),
        })
    }

    /// Calls `visit` with each record's name and bytes.
    pub(crate) fn each_record(
        &self,
        limits: &FeedLimits,
        file_bytes_max: usize,
        visit: Visit<'_>,
    ) -> anyhow::Result<()> {
        let mut budget = Budget {
            bytes: limits.total_bytes_max,
            records: limits.records_max,
            file_bytes_max: file_bytes_max as u64,
        };
        match self {
            Self::Directory(path) => directory(path, limits.depth_max, &mut budget, visit),
            Self::Zip(path) => {
                let file = fs::File::open(path)?;
                let size = file.metadata()?.len();
                let most = limits.archive_bytes_max;
                anyhow::ensure!(size <= most, "its {size} bytes are more than {most}");
                packed::records(io::BufReader::new(file), &mut budget, visit)
            }
            Self::Bytes(bytes) => packed::records(Cursor::new(bytes), &mut budget, visit),
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
    let bytes = chassis::files::read_bounded(path, budget.file_bytes_max)
        .with_context(|| format!("reading `{}`", path.display()))?;
    let name = path.to_string_lossy();
    let (name, bytes) = match COMPRESSED.iter().find_map(|end| name.strip_suffix(end)) {
        Some(name) => {
            let bytes = inflate(&bytes, budget.file_bytes_max)
                .with_context(|| format!("reading `{}`", path.display()))?;
            (name, bytes)
        }
        None => (&*name, bytes),
    };
    budget.spend(bytes.len())?;
    visit(name, &bytes);
    Ok(())
}

fn is_record(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".json", ".csv", ".csv.gz", ".xml", ".xml.gz", ".xml.bz2"]
        .iter()
        .any(|end| name.ends_with(end))
}
