//! `db`: advisories, here or on a server.

use std::{
    fmt::Write as _,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use chassis::Cx;
use matcher::{Advisories, Feeds, Import, Imported, Mode, Source};
use serde_json::Value;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    cli::{DbCommand, DbPlace, Global, Server},
    client::Client,
    commands::print,
    config::Config,
    exit::Exit,
    paths::CacheDirs,
};

pub(crate) async fn run(
    config: Config,
    global: &Global,
    command: DbCommand,
) -> anyhow::Result<Exit> {
    let db = Db {
        cx: Cx::system(),
        config: config.matcher,
        quiet: global.quiet,
    };
    match command {
        DbCommand::Update {
            url,
            ecosystems,
            place,
        } => db.update(url, ecosystems, &place).await?,
        DbCommand::Import {
            paths,
            feed,
            replace,
            place,
        } => {
            let mode = if replace { Mode::Replace } else { Mode::Merge };
            db.import(&paths, feed, mode, &place).await?;
        }
        DbCommand::Status { place } => db.status(&place).await?,
    }
    Ok(Exit::Ok)
}

/// The advisories of one-off scans, and what is needed to change them.
struct Db {
    cx: Cx,
    config: matcher::Config,
    quiet: bool,
}

/// Records on their way in.
struct Feed {
    name: String,
    source: Source,
}

// === impl Db ===

impl Db {
    async fn update(
        &self,
        url: Option<String>,
        ecosystems: Vec<String>,
        place: &DbPlace,
    ) -> anyhow::Result<()> {
        let update = self.config.update.clone().unwrap_or_default();
        let url = url.unwrap_or(update.url);
        let ecosystems = if ecosystems.is_empty() {
            update.ecosystems
        } else {
            ecosystems
        };
        let feeds = Feeds::new(&url, &self.config.limits)?;
        for name in ecosystems {
            self.tell(&format!("fetching {name} from {url}"));
            let file = feeds.fetch(&name).await?;
            let source = Source::Zip(file.path().to_owned());
            self.take(Feed { name, source }, Mode::Replace, place)
                .await?;
        }
        Ok(())
    }

    async fn import(
        &self,
        paths: &[PathBuf],
        feed: Option<String>,
        mode: Mode,
        place: &DbPlace,
    ) -> anyhow::Result<()> {
        for path in paths {
            let feeds = feeds_at(path)?;
            ensure!(
                feed.is_none() || feeds.len() == 1,
                "`{}` holds several feeds; --feed names one",
                path.display()
            );
            for found in feeds {
                let name = feed.clone().unwrap_or(found.name);
                self.take(
                    Feed {
                        name,
                        source: found.source,
                    },
                    mode,
                    place,
                )
                .await?;
            }
        }
        Ok(())
    }

    /// Brings a feed to where it shall go.
    async fn take(&self, feed: Feed, mode: Mode, place: &DbPlace) -> anyhow::Result<()> {
        if let Source::Directory(dir) = &feed.source {
            let mut files = Vec::new();
            json_files(dir, 0, &mut files)?;
            // With --replace it would withdraw the whole feed.
            ensure!(
                !files.is_empty(),
                "`{}` has no OSV records: give a directory of *.json, or OSV.dev's all.zip",
                dir.display()
            );
        }
        match place.server.server() {
            Some(server) => self.hand_in(feed, mode, &server).await,
            None => self.keep(feed, mode, place).await,
        }
    }

    async fn keep(&self, feed: Feed, mode: Mode, place: &DbPlace) -> anyhow::Result<()> {
        let dir = CacheDirs::find(place.cache_dir.as_deref())?.advisories();
        let import = Import {
            feed: feed.name.clone(),
            mode,
            fetched_at: self.cx.now(),
        };
        let limits = self.config.limits.clone();
        let work = move || -> anyhow::Result<Imported> {
            let advisories = Advisories::open(&dir).context("opening the advisories")?;
            matcher::import(&advisories, &import, &feed.source, &limits)
        };
        let imported = self.cx.blocking(work).await.context("importing")??;
        for problem in &imported.problems {
            self.tell(&format!("left out: {problem}"));
        }
        let feeds = &imported.manifest.feeds;
        if let Some(feed) = feeds
            .iter()
            .find(|known| known.name == feed.name && known.partial)
        {
            let name = &feed.name;
            self.tell(&format!(
                "`{name}` was never given whole, so it covers nothing: --replace gives it whole"
            ));
        }
        print(&format!(
            "{}: {} records, {} shards changed, {} left out; revision {}\n",
            feed.name,
            imported.records,
            imported.changed.len(),
            imported.malformed,
            imported.manifest.revision
        ))
    }

    async fn hand_in(&self, feed: Feed, mode: Mode, server: &Server) -> anyhow::Result<()> {
        let limit = self.config.limits.archive_bytes_max;
        let source = feed.source;
        let zip = self
            .cx
            .blocking(move || zip_of(&source, limit))
            .await
            .context("packing")??;
        let mode = match mode {
            Mode::Merge => "merge",
            Mode::Replace => "replace",
        };
        let bytes = zip.len();
        let query = [("feed", feed.name.clone()), ("mode", mode.to_owned())];
        let _: Value = Client::new(server)?
            .put("/v1/advisories", &query, zip)
            .await?;
        print(&format!(
            "{}: {bytes} bytes handed in; affected images are assessed again as soon as it is in force (`tidewaiter db status --server {}`)\n",
            feed.name, server.url
        ))
    }

    async fn status(&self, place: &DbPlace) -> anyhow::Result<()> {
        if let Some(server) = place.server.server() {
            let health: Value = Client::new(&server)?
                .get("/v1/health", &[])
                .await?
                .context("the server has no /v1/health; does it run the inventory role?")?;
            let advisories = health.get("advisories").unwrap_or(&Value::Null);
            return print(&format!("{}\n", serde_json::to_string_pretty(advisories)?));
        }
        let dir = CacheDirs::find(place.cache_dir.as_deref())?.advisories();
        let manifest = Advisories::open_read_only(&dir)?.manifest();
        let mut text = format!("revision {} in {}\n", manifest.revision, dir.display());
        if manifest.feeds.is_empty() {
            text.push_str(
                "no advisories yet: run `tidewaiter db update`, or `tidewaiter db import DIR`\n",
            );
        }
        for feed in &manifest.feeds {
            let age = self.cx.now().duration_since(feed.fetched_at).as_hours();
            let (name, advisories) = (&feed.name, feed.advisories);
            writeln!(
                text,
                "{name:<24} {advisories:>8} advisories, fetched {age} h ago"
            )?;
        }
        print(&text)
    }

    fn tell(&self, text: &str) {
        if !self.quiet {
            crate::complain(text);
        }
    }
}

/// The feeds at a path: one of its own, or, for a mirror of OSV.dev's exports, one per ecosystem.
fn feeds_at(path: &Path) -> anyhow::Result<Vec<Feed>> {
    let mut feeds = Vec::new();
    let own = path.join("all.zip");
    if own.is_file() {
        return Ok(vec![Feed {
            name: feed_name(&own),
            source: Source::open(&own)?,
        }]);
    }
    if path.is_dir() {
        let entries =
            std::fs::read_dir(path).with_context(|| format!("in `{}`", path.display()))?;
        for entry in entries {
            let ecosystem = entry?.path();
            let zip = ecosystem.join("all.zip");
            if zip.is_file() {
                feeds.push(Feed {
                    name: feed_name(&ecosystem),
                    source: Source::open(&zip)?,
                });
            }
        }
        feeds.sort_by(|one, other| one.name.cmp(&other.name));
    }
    if feeds.is_empty() {
        feeds.push(Feed {
            name: feed_name(path),
            source: Source::open(path)?,
        });
    }
    Ok(feeds)
}

/// `Debian` for `Debian`, `Debian.zip` and `Debian/all.zip`.
fn feed_name(path: &Path) -> String {
    let path = if path.file_name().is_some_and(|name| name == "all.zip") {
        path.parent().unwrap_or(path)
    } else {
        path
    };
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = path
        .file_stem()
        .map(|name| name.to_string_lossy().into_owned());
    let name = if path.is_dir() {
        path.file_name().map(|n| n.to_string_lossy().into_owned())
    } else {
        name
    };
    name.unwrap_or_else(|| "import".to_owned())
}

/// The records as the server takes them: a zip.
fn zip_of(source: &Source, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let mut root = Path::new("");
    let files = match source {
        Source::Zip(path) => {
            return chassis::files::read_bounded(path, bytes_max)
                .with_context(|| format!("reading `{}`", path.display()));
        }
        Source::Bytes(bytes) => return Ok(bytes.to_vec()),
        Source::Record(path) => vec![path.clone()],
        Source::Directory(dir) => {
            let mut files = Vec::new();
            json_files(dir, 0, &mut files)?;
            root = dir;
            files
        }
    };
    ensure!(!files.is_empty(), "{source} has no *.json");
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for file in files {
        let bytes = chassis::files::read_bounded(&file, bytes_max)
            .with_context(|| format!("reading `{}`", file.display()))?;
        // With its folders: two ecosystems may have a record of the same id.
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy();
        let name = name.trim_start_matches('/').to_owned();
        zip.start_file(name, SimpleFileOptions::default())?;
        zip.write_all(&bytes)?;
    }
    Ok(zip.finish()?.into_inner())
}

fn json_files(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    ensure!(depth < 8, "`{}` is nested too deeply", dir.display());
    let entries = std::fs::read_dir(dir).with_context(|| format!("in `{}`", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            json_files(&path, depth + 1, found)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_one_id_in_two_folders_are_handed_in_both() {
        let dir = testkit::temp_dir();
        for ecosystem in ["npm", "PyPI"] {
            let folder = dir.path().join(ecosystem);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("GHSA-1.json"), "{}").unwrap();
        }
        let source = Source::open(dir.path()).unwrap();
        let zip = zip_of(&source, 1 << 20).unwrap();
        let zip = zip::ZipArchive::new(Cursor::new(zip)).unwrap();
        let names: Vec<_> = zip.file_names().map(Result::unwrap).collect();
        assert_eq!(names, ["PyPI/GHSA-1.json", "npm/GHSA-1.json"]);
    }
}
