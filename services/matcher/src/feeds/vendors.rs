//! Where vendors' own feeds are, and how they are fetched.
//!
//! | layout | what is fetched |
//! |---|---|
//! | one file | it, unless it still has its tag |
//! | one archive | it, unless it still has its tag |
//! | documents | the archive once, then those that changed by the list beside it, oldest first; what was deleted is in a list of its own, or in none any more |
//! | repositories | the list of updates of each |

use std::collections::BTreeMap;

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use model::DEBIAN_TRACKER;
use vulndb::RECORD_BYTES_MAX;

use super::{
    Feeds, Fetched, Latest,
    http::{Download, Newer},
    increment::{FETCHES, is_id, parts, unchanged, zip},
    packed::inflate,
};
use crate::{Mode, Update, stage::ONE_FILE_BYTES_MAX};

/// Bytes of a list of documents, and of what names an archive or mirrors.
const LIST_BYTES_MAX: u64 = 64 << 20;
const NAME_BYTES_MAX: u64 = 64 << 10;

/// Where a vendor's feed is.
pub(crate) struct Place {
    pub(crate) feed: &'static str,
    pub(crate) url: fn(&Update) -> Option<&str>,
    layout: Layout,
}

#[derive(Clone, Copy)]
enum Layout {
    File,
    Archive,
    Documents,
    Repositories(&'static [&'static str]),
}

/// Every vendor's feed.
pub(crate) const PLACES: [Place; 5] = [
    Place {
        feed: "Amazon updates",
        url: |update| update.amazon_url.as_deref(),
        layout: Layout::Repositories(&["2/core/latest", "al2023/core/mirrors/latest"]),
    },
    Place {
        feed: DEBIAN_TRACKER,
        url: |update| update.debian_tracker_url.as_deref(),
        layout: Layout::File,
    },
    Place {
        feed: "Oracle OVAL",
        url: |update| update.oracle_oval_url.as_deref(),
        layout: Layout::File,
    },
    Place {
        feed: "Red Hat VEX",
        url: |update| update.red_hat_vex_url.as_deref(),
        layout: Layout::Documents,
    },
    Place {
        feed: "SUSE VEX",
        url: |update| update.suse_vex_url.as_deref(),
        layout: Layout::Archive,
    },
];

/// The list of a vendor's documents.
struct Listed {
    /// When each changed, and where it is, by the id that it has.
    documents: BTreeMap<String, (Timestamp, Vec<String>)>,
    etag: Option<String>,
}

/// The place of a feed; `None` where it is no vendor's.
pub(crate) fn place(feed: &str) -> Option<&'static Place> {
    PLACES.iter().find(|place| place.feed == feed)
}

// === impl Place ===

impl Place {
    /// Fetches what is new of the feed.
    pub(crate) async fn fetch(&self, feeds: &Feeds, latest: &Latest) -> anyhow::Result<Fetched> {
        match self.layout {
            Layout::File => feeds.fetch_file(self.feed, latest).await,
            Layout::Archive => feeds.archive(latest).await,
            Layout::Documents => feeds.documents(latest).await,
            Layout::Repositories(paths) => feeds.repositories(paths, latest).await,
        }
    }
}

// === impl Feeds ===

impl Feeds {
    async fn archive(&self, latest: &Latest) -> anyhow::Result<Fetched> {
        let download = match self.whole(latest.revision.as_deref()).await? {
            Newer::Same => return unchanged(latest.revision.clone()),
            Newer::Missing => anyhow::bail!("the archive is not there"),
            Newer::Here(download) => download,
        };
        Ok(Fetched {
            zip: self.bytes(&download)?,
            mode: Mode::Replace,
            revision: download.etag,
            changes: None,
            as_of: None,
        })
    }

    /// As Red Hat has its documents: `changes.csv` lists all of them, and those that are no more;
    /// `deletions.csv` says which these are, `archive_latest.txt` names an archive of a day, or one
    /// that is as old as its file.
    async fn documents(&self, latest: &Latest) -> anyhow::Result<Fetched> {
        let known = latest.revision.as_deref().map(parts);
        let etag = known.and_then(|(_, etag)| etag);
        let since = known.and_then(|(newest, _)| newest);
        let list = match self.below(&["changes.csv"], etag).await? {
            Newer::Same => return unchanged(latest.revision.clone()),
            Newer::Missing => anyhow::bail!("`changes.csv` is not there"),
            Newer::Here(download) => download,
        };
        let Some(since) = since else {
            return self.first_archive().await;
        };
        let mut list = Listed::read(&list)?;
        if let Newer::Here(deletions) = self.below(&["deletions.csv"], None).await? {
            list.leave_out(&Listed::read(&deletions)?);
        }
        self.changed(&list, since, latest).await
    }

    async fn first_archive(&self) -> anyhow::Result<Fetched> {
        let Newer::Here(named) = self.below(&["archive_latest.txt"], None).await? else {
            anyhow::bail!("`archive_latest.txt` is not there");
        };
        let name = chassis::files::read_text_bounded(named.file.path(), NAME_BYTES_MAX)?;
        let name = name.trim();
        anyhow::ensure!(
            is_id(name),
            "`{}` is no name of an archive",
            name.escape_debug()
        );
        let Newer::Here(download) = self.below(&[name], None).await? else {
            anyhow::bail!("`{name}` is not there");
        };
        let day = name.split(['_', '.']).find_map(day);
        let day = day.or(download.modified);
        let day = day.with_context(|| format!("nothing says of which day `{name}` is"))?;
        Ok(Fetched {
            zip: self.bytes(&download)?,
            mode: Mode::Replace,
            // Without a tag: what changed since that day is fetched next.
            revision: Some(day.to_string()),
            changes: None,
            as_of: Some(day),
        })
    }

    /// The documents that changed since a time, that time included, oldest first, as many as may be
    /// had at once; and what is here and in no list any more, as a document that says nothing.
    async fn changed(
        &self,
        list: &Listed,
        since: Timestamp,
        latest: &Latest,
    ) -> anyhow::Result<Fetched> {
        let gone = latest.ids.iter().filter(|id| {
            // Only what was a document of its own can be gone.
            is_id(id) && !list.documents.contains_key(*id)
        });
        let mut files: Vec<(String, Bytes)> = gone
            .map(|id| {
                let nothing = serde_json::json!({"document": {"tracking": {"id": id}}});
                (format!("{id}.json"), Bytes::from(nothing.to_string()))
            })
            .collect();
        let documents = list.documents.values();
        let mut changed: Vec<(Timestamp, Vec<String>)> =
            documents.filter(|one| one.0 >= since).cloned().collect();
        changed.sort();
        let all = changed.len();
        changed.truncate(self.limits.increment_records_max);
        let mut fetching =
            stream::iter(changed)
                .map(|(at, path)| async move {
                    self.document(path).await.map(|document| (at, document))
                })
                .buffered(FETCHES);
        let mut left = self.limits.archive_bytes_max;
        let (mut count, mut newest) = (0, since);
        while let Some((at, document)) = fetching.try_next().await? {
            let Some(rest) = left.checked_sub(document.1.len() as u64) else {
                break;
            };
            (left, count, newest) = (rest, count + 1, at);
            files.push(document);
        }
        let is_all = count == all;
        anyhow::ensure!(
            is_all || newest > since,
            "more documents changed at once, at {since}, than are fetched"
        );
        let etag = list.etag.as_deref().filter(|_| is_all);
        let revision = format!("{newest} {}", etag.unwrap_or_default());
        Ok(Fetched {
            changes: Some(files.len()),
            zip: zip(files)?,
            mode: Mode::Increment,
            revision: Some(revision.trim_end().to_owned()),
            as_of: (!is_all).then_some(newest),
        })
    }

    async fn document(&self, path: Vec<String>) -> anyhow::Result<(String, Bytes)> {
        let segments: Vec<&str> = path.iter().map(String::as_str).collect();
        let name = path.join("/");
        let Newer::Here(download) = self.below(&segments, None).await? else {
            anyhow::bail!("document `{name}` is in the list and not there");
        };
        let most = RECORD_BYTES_MAX as u64;
        let bytes = chassis::files::read_bounded(download.file.path(), most)?;
        Ok((name, bytes.into()))
    }

    /// As Amazon has its repositories: `<path>/x86_64/mirror.list` names a repository, of which only
    /// the path counts; updates are the same for all architectures.
    async fn repositories(&self, paths: &[&str], latest: &Latest) -> anyhow::Result<Fetched> {
        let mut files = Vec::new();
        let mut tags = Vec::new();
        for path in paths {
            let segments: Vec<&str> = path.split('/').chain(["x86_64", "mirror.list"]).collect();
            let Newer::Here(list) = self.below(&segments, None).await? else {
                anyhow::bail!("`{path}/x86_64/mirror.list` is not there");
            };
            let list = chassis::files::read_text_bounded(list.file.path(), NAME_BYTES_MAX)?;
            let repository = list.lines().next().and_then(|line| {
                let url: reqwest::Url = line.trim().parse().ok()?;
                Some(url.path().trim_matches('/').to_owned())
            });
            let repository = repository
                .filter(|path| !path.is_empty())
                .with_context(|| format!("`{path}/x86_64/mirror.list` names no repository"))?;
            let update = ["repodata", "updateinfo.xml.gz"];
            let segments: Vec<&str> = repository.split('/').chain(update).collect();
            let Newer::Here(download) = self.below(&segments, None).await? else {
                anyhow::bail!("`{repository}/repodata/updateinfo.xml.gz` is not there");
            };
            let plain = inflate(&self.bytes(&download)?, ONE_FILE_BYTES_MAX as u64)?;
            files.push((
                format!("{}.xml", path.replace('/', "-")),
                Bytes::from(plain),
            ));
            tags.push(download.etag);
        }
        let revision = tags.into_iter().collect::<Option<Vec<String>>>();
        let revision = revision.map(|tags| tags.join(" "));
        if revision.is_some() && revision == latest.revision {
            return unchanged(revision);
        }
        Ok(Fetched {
            zip: zip(files)?,
            mode: Mode::Replace,
            revision,
            changes: None,
            as_of: None,
        })
    }
}

// === impl Listed ===

impl Listed {
    /// Reads `"2024/cve-2024-1.json","2025-02-18T14:28:08+00:00"` and so on.
    fn read(download: &Download) -> anyhow::Result<Self> {
        let text = chassis::files::read_text_bounded(download.file.path(), LIST_BYTES_MAX)
            .context("reading the list of documents")?;
        let mut documents = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let read = || {
                let (path, at) = line.split_once(',')?;
                let path = path.trim().trim_matches('"');
                let at: Timestamp = at.trim().trim_matches('"').parse().ok()?;
                let segments: Vec<String> = path.split('/').map(ToOwned::to_owned).collect();
                let id = segments.last()?.strip_suffix(".json")?;
                let id = id.to_ascii_uppercase();
                let fits = segments.iter().all(|segment| is_id(segment));
                fits.then_some((id, (at, segments)))
            };
            let (id, document) = read().with_context(|| {
                let line = index + 1;
                format!("line {line} of the list is not `\"<path>.json\",\"<time>\"`")
            })?;
            documents.insert(id, document);
        }
        Ok(Self {
            documents,
            etag: download.etag.clone(),
        })
    }

    /// Leaves out what was deleted and has not come back since.
    fn leave_out(&mut self, deletions: &Self) {
        self.documents.retain(|id, (changed, _)| {
            let deletion = deletions.documents.get(id);
            deletion.is_none_or(|(deleted, _)| deleted < changed)
        });
    }
}

/// Midnight of `2025-02-15`.
fn day(text: &str) -> Option<Timestamp> {
    let day: jiff::civil::Date = text.parse().ok()?;
    Some(day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests;
