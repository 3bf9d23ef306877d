//! What changed in a feed since it was fetched last: OSV.dev's `modified_id.csv`.
//!
//! A feed's own revision, as it is kept beside our copy, is `<newest change> <tag>`: when its newest
//! record changed, and the tag of the list. With a list that still has the tag nothing is fetched;
//! with another one the records that changed since; the whole export where that is not enough.

use std::{
    collections::BTreeSet,
    fmt,
    io::{Cursor, Write as _},
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use model::{EPSS, KEV};
use vulndb::RECORD_BYTES_MAX;
use zip::{ZipWriter, write::SimpleFileOptions};

use super::{
    Feeds,
    http::{Download, Newer},
    packed::inflate,
};
use crate::{Mode, stage::ONE_FILE_BYTES_MAX};

/// Records that are fetched at once.
pub(super) const FETCHES: usize = 8;
/// Bytes of the list of changes.
const LIST_BYTES_MAX: u64 = 256 << 20;
const ID_BYTES_MAX: usize = 256;

/// What is here of a feed.
#[derive(Clone, Debug, Default)]
pub struct Latest {
    /// The feed's own revision; `None` where the whole must be fetched.
    pub revision: Option<String>,
    /// The ids of its records here: one that the list lacks is gone.
    pub ids: BTreeSet<String>,
}

/// What a server gave.
#[derive(Debug)]
pub struct Fetched {
    /// A zip of records; without any where nothing changed.
    pub zip: Bytes,
    /// Whether they are the whole feed.
    pub mode: Mode,
    /// The feed's own revision after them.
    pub revision: Option<String>,
    /// How many records changed, where single ones were fetched.
    pub changes: Option<usize>,
    /// How new they are where there is more to fetch; `None` where that is all.
    pub as_of: Option<Timestamp>,
}

/// A server has no such feed.
#[derive(Debug)]
pub(crate) struct Absent(String);

/// The list of changes.
struct List {
    changes: Vec<(Timestamp, String)>,
    newest: Option<Timestamp>,
    etag: Option<String>,
}

// === impl Feeds ===

impl Feeds {
    /// Fetches what is new of the export of an ecosystem, `<base>/<ecosystem>/…`, from the first
    /// server that has all of it: the list of one and the records of another, which is behind, would
    /// pass over changes for good.
    pub async fn fetch(&self, ecosystem: &str, latest: &Latest) -> anyhow::Result<Fetched> {
        let first = match self.export(ecosystem, latest).await {
            Ok(fetched) => return Ok(fetched),
            Err(error) => error,
        };
        for mirror in self.mirrors() {
            if let Ok(fetched) = mirror.export(ecosystem, latest).await {
                return Ok(fetched);
            }
        }
        Err(first)
    }

    async fn export(&self, ecosystem: &str, latest: &Latest) -> anyhow::Result<Fetched> {
        let known = latest.revision.as_deref().map(parts);
        let etag = known.and_then(|(_, etag)| etag);
        let list = self.below(&[ecosystem, "modified_id.csv"], etag).await?;
        let list = match list {
            Newer::Same => return unchanged(latest.revision.clone()),
            Newer::Missing => None,
            Newer::Here(download) => Some(List::read(download)?),
        };
        let since = known.and_then(|(newest, _)| newest);
        if let (Some(list), Some(since)) = (&list, since)
            && let Some(wanted) = list.since(since, &latest.ids, self.limits.increment_records_max)
        {
            return self.records(ecosystem, wanted, list.revision()).await;
        }
        // The list was fetched first: what changes from here on is in the next one.
        match self.below(&[ecosystem, "all.zip"], None).await? {
            Newer::Here(download) => Ok(Fetched {
                zip: self.bytes(&download)?,
                mode: Mode::Replace,
                revision: list.and_then(|list| list.revision()),
                changes: None,
                as_of: None,
            }),
            _ => Err(Absent(format!("`{ecosystem}/all.zip` does not exist there")).into()),
        }
    }

    /// Fetches a feed that is one file: CISA's, FIRST's, or a vendor's.
    pub async fn fetch_file(&self, feed: &str, latest: &Latest) -> anyhow::Result<Fetched> {
        let etag = latest.revision.as_deref();
        let download = match self.whole(etag).await? {
            Newer::Same => return unchanged(latest.revision.clone()),
            Newer::Missing => anyhow::bail!("the file of `{feed}` is not there"),
            Newer::Here(download) => download,
        };
        let bytes = inflate(&self.bytes(&download)?, ONE_FILE_BYTES_MAX as u64)?;
        let name = match (feed, vulndb::vendor(feed)) {
            (_, Some(vendor)) => format!("feed.{}", vendor.extension()),
            (KEV, _) => "kev.json".to_owned(),
            (EPSS, _) => "epss.csv".to_owned(),
            (other, _) => anyhow::bail!("`{other}` is not one file"),
        };
        Ok(Fetched {
            zip: zip([(name, Bytes::from(bytes))])?,
            mode: Mode::Replace,
            revision: download.etag,
            changes: None,
            as_of: None,
        })
    }

    async fn records(
        &self,
        ecosystem: &str,
        ids: Vec<String>,
        revision: Option<String>,
    ) -> anyhow::Result<Fetched> {
        let changes = ids.len();
        let mut fetching = stream::iter(ids)
            .map(|id| self.record(ecosystem, id))
            .buffered(FETCHES);
        let mut files = Vec::new();
        let mut left = self.limits.archive_bytes_max;
        while let Some(record) = fetching.try_next().await? {
            let size = record.1.len() as u64;
            left = left
                .checked_sub(size)
                .context("the changed records have more bytes than allowed")?;
            files.push(record);
        }
        Ok(Fetched {
            zip: zip(files)?,
            mode: Mode::Increment,
            revision,
            changes: Some(changes),
            as_of: None,
        })
    }

    async fn record(&self, ecosystem: &str, id: String) -> anyhow::Result<(String, Bytes)> {
        let file = format!("{id}.json");
        match self.below(&[ecosystem, &file], None).await? {
            Newer::Here(download) => {
                let most = RECORD_BYTES_MAX as u64;
                let bytes = chassis::files::read_bounded(download.file.path(), most)?;
                Ok((file, bytes.into()))
            }
            _ => anyhow::bail!("record `{id}` is in the list and not there"),
        }
    }

    pub(super) fn bytes(&self, download: &Download) -> anyhow::Result<Bytes> {
        let most = self.limits.archive_bytes_max;
        Ok(chassis::files::read_bounded(download.file.path(), most)?.into())
    }
}

// === impl Absent ===

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Absent {}

// === impl List ===

impl List {
    fn read(download: Download) -> anyhow::Result<Self> {
        let text = chassis::files::read_text_bounded(download.file.path(), LIST_BYTES_MAX)
            .context("reading the list of changes")?;
        let mut changes = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let wrong = || format!("line {} of the list is not `<time>,<id>`", index + 1);
            let (time, id) = line.split_once(',').with_context(wrong)?;
            let time: Timestamp = time.parse().with_context(wrong)?;
            anyhow::ensure!(is_id(id), wrong());
            changes.push((time, id.to_owned()));
        }
        Ok(Self {
            newest: changes.iter().map(|change| change.0).max(),
            changes,
            etag: download.etag,
        })
    }

    fn revision(&self) -> Option<String> {
        let newest = self.newest?;
        let etag = self.etag.as_deref().unwrap_or_default();
        Some(format!("{newest} {etag}").trim_end().to_owned())
    }

    /// The ids that changed since a time, that time included: another record may have the same.
    /// `None` where the whole is needed: too many changed, or some are gone.
    fn since(&self, since: Timestamp, here: &BTreeSet<String>, most: usize) -> Option<Vec<String>> {
        let all: BTreeSet<&str> = self
            .changes
            .iter()
            .map(|change| change.1.as_str())
            .collect();
        if here.iter().any(|id| !all.contains(id.as_str())) {
            return None;
        }
        let changed = self.changes.iter().filter(|change| change.0 >= since);
        let changed: BTreeSet<&str> = changed.map(|change| change.1.as_str()).collect();
        let changed: Vec<String> = changed.into_iter().map(ToOwned::to_owned).collect();
        (changed.len() <= most).then_some(changed)
    }
}

pub(super) fn unchanged(revision: Option<String>) -> anyhow::Result<Fetched> {
    Ok(Fetched {
        zip: zip([])?,
        mode: Mode::Increment,
        revision,
        changes: Some(0),
        as_of: None,
    })
}

/// The newest change and the tag of a revision.
pub(super) fn parts(revision: &str) -> (Option<Timestamp>, Option<&str>) {
    let (newest, etag) = revision.split_once(' ').unwrap_or((revision, ""));
    (
        newest.parse().ok(),
        Some(etag).filter(|etag| !etag.is_empty()),
    )
}

/// Whether a text can be the name of a record's file.
pub(super) fn is_id(id: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len())
        && !id.starts_with('.')
        && id
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'/' && b != b'\\')
}

pub(super) fn zip(files: impl IntoIterator<Item = (String, Bytes)>) -> anyhow::Result<Bytes> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(name, SimpleFileOptions::default())?;
        zip.write_all(&bytes)?;
    }
    Ok(zip.finish()?.into_inner().into())
}

#[cfg(test)]
mod tests;
