//! `db`: advisories, here or on a server.

pub(super) mod transfer;

pub(crate) use self::transfer::read_key;

use std::{
    fmt::Write as _,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use chassis::Cx;
use matcher::{Advisories, Fetched, Import, Imported, Latest, Loose as Feed, Mode, Source, Update};
use model::{EPSS, KEV, VerifyingKey};
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

/// What `db update` fetches where nothing is here yet: the ecosystems of most images.
const USUAL: [&str; 16] = [
    "AlmaLinux",
    "Alpine",
    "Debian",
    "Go",
    "Maven",
    "NuGet",
    "Packagist",
    "PyPI",
    "Red Hat",
    "Rocky Linux",
    "RubyGems",
    "Ubuntu",
    "crates.io",
    "npm",
    KEV,
    EPSS,
];

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
            from: Some(from),
            trust,
            unsigned,
            place,
            ..
        } => {
            let trust = db.trust(trust, unsigned);
            db.update_from(&from, trust, &place).await?;
        }
        DbCommand::Update {
            url,
            ecosystems,
            place,
            ..
        } => db.update(url, ecosystems, &place).await?,
        DbCommand::Import {
            paths,
            feed,
            replace,
            trust,
            unsigned,
            place,
        } => {
            let mode = if replace { Mode::Replace } else { Mode::Merge };
            let trust = db.trust(trust, unsigned);
            db.import(&paths, feed, mode, &trust, &place).await?;
        }
        DbCommand::Export {
            file,
            key,
            unsigned: _,
            place,
        } => db.export(file, key, &place).await?,
        DbCommand::Key { file } => transfer::make_key(&file)?,
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

/// Whose exports are taken.
struct Trust {
    keys: Vec<VerifyingKey>,
    unsigned: bool,
}

// === impl Db ===

impl Db {
    /// Whose exports are taken: those that are named here, and those of the configuration.
    fn trust(&self, named: Vec<VerifyingKey>, unsigned: bool) -> Trust {
        let mut keys = self.config.trusted_keys.clone();
        keys.extend(named);
        Trust { keys, unsigned }
    }

    async fn update(
        &self,
        url: Option<String>,
        ecosystems: Vec<String>,
        place: &DbPlace,
    ) -> anyhow::Result<()> {
        let mut update = self.config.update.clone().unwrap_or_default();
        let is_mirror = url.is_some();
        if let Some(url) = url {
            update.url = url;
            update.mirrors.clear();
        }
        if !ecosystems.is_empty() {
            update.ecosystems = ecosystems;
        } else if update.ecosystems.is_empty() {
            update.ecosystems = usual(place, is_mirror)?;
        }
        let count = update.ecosystems.len();
        let mut failed = Vec::new();
        for name in &update.ecosystems {
            self.tell(&format!("fetching {name}"));
            // One that cannot be had does not keep the others away.
            if let Err(error) = self.update_one(&update, name, place).await {
                crate::advice::complain(&error);
                failed.push(name.as_str());
            }
        }
        ensure!(
            failed.is_empty(),
            "{} of {count} feeds were not updated: {}",
            failed.len(),
            failed.join(", ")
        );
        Ok(())
    }

    /// Fetches what is new of a feed, in as many steps as there are.
    async fn update_one(&self, update: &Update, name: &str, place: &DbPlace) -> anyhow::Result<()> {
        while !self.update_step(update, name, place).await? {}
        Ok(())
    }

    /// One step; false where there is more.
    async fn update_step(
        &self,
        update: &Update,
        name: &str,
        place: &DbPlace,
    ) -> anyhow::Result<bool> {
        let limits = &self.config.limits;
        let Some(server) = place.server.server() else {
            let dir = CacheDirs::find(place.cache_dir.as_deref())?.advisories();
            let latest = Advisories::open_read_only(&dir)?.latest(name);
            // Without a local copy there is nothing that could be added to.
            let fetched = update
                .fetch(name, &latest.unwrap_or_default(), limits)
                .await?;
            let is_all = fetched.as_of.is_none();
            self.keep_fetched(name, fetched, place).await?;
            return Ok(is_all);
        };
        let fetched = update.fetch(name, &Latest::default(), limits).await?;
        let feed = Feed {
            feed: name.to_owned(),
            source: Source::Bytes(fetched.zip),
        };
        // The server knows how far it is; from here only what is whole can be brought.
        self.hand_in(feed, fetched.mode, &server).await?;
        Ok(true)
    }

    async fn keep_fetched(
        &self,
        name: &str,
        fetched: Fetched,
        place: &DbPlace,
    ) -> anyhow::Result<()> {
        let import = Import {
            feed: name.to_owned(),
            mode: fetched.mode,
            fetched_at: fetched.as_of.unwrap_or_else(|| self.cx.now()),
            revision: fetched.revision,
        };
        if fetched.changes == Some(0) {
            self.tell(&format!("{name} is as it was"));
        }
        let source = Source::Bytes(fetched.zip);
        self.import_one(import, source, place).await
    }

    async fn import(
        &self,
        paths: &[PathBuf],
        feed: Option<String>,
        mode: Mode,
        trust: &Trust,
        place: &DbPlace,
    ) -> anyhow::Result<()> {
        for path in paths {
            if transfer::is_export(path) {
                self.import_export(path, trust, place).await?;
                continue;
            }
            let feeds = feeds_at(path)?;
            ensure!(
                feed.is_none() || feeds.len() == 1,
                "`{}` holds several feeds; --feed names one",
                path.display()
            );
            for found in feeds {
                let feed = Feed {
                    feed: feed.clone().unwrap_or(found.feed),
                    source: found.source,
                };
                self.take(feed, mode, place).await?;
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
        let import = Import {
            feed: feed.feed,
            mode,
            fetched_at: self.cx.now(),
            revision: None,
        };
        self.import_one(import, feed.source, place).await
    }

    async fn import_one(
        &self,
        import: Import,
        source: Source,
        place: &DbPlace,
    ) -> anyhow::Result<()> {
        let dir = CacheDirs::find(place.cache_dir.as_deref())?.advisories();
        let limits = self.config.limits.clone();
        let name = import.feed.clone();
        let work = move || -> anyhow::Result<Imported> {
            let advisories = Advisories::open(&dir).context("opening the advisories")?;
            matcher::import(&advisories, &import, &source, &limits)
        };
        let imported = self.cx.blocking(work).await.context("importing")??;
        for problem in &imported.problems {
            self.tell(&format!("left out: {problem}"));
        }
        let feeds = &imported.manifest.feeds;
        if feeds
            .iter()
            .any(|known| known.name == name && known.partial)
        {
            self.tell(&format!(
                "`{name}` was never given whole, so it covers nothing: --replace gives it whole"
            ));
        }
        print(&format!(
            "{name}: {} records, {} shards changed, {} left out; revision {}\n",
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
        let mode = if mode == Mode::Replace {
            "replace"
        } else {
            "merge"
        };
        let bytes = zip.len();
        let query = [("feed", feed.feed.clone()), ("mode", mode.to_owned())];
        let _: Value = Client::new(server)?
            .put("/v1/advisories", &query, zip)
            .await?;
        print(&format!(
            "{}: {bytes} bytes handed in; affected images are assessed again as soon as it is in force (`tidewaiter db status --server {}`)\n",
            feed.feed, server.url
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
            let age = if feed.partial {
                "parts of it".to_owned()
            } else {
                format!("fetched {age} h ago")
            };
            writeln!(
                text,
                "{name:<24} {advisories:>8} records, {age}; {}",
                matcher::tells(name)
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

/// The feeds that are here already; where there are none, the usual ones. A mirror of OSV.dev
/// has none of the others.
fn usual(place: &DbPlace, is_mirror: bool) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    if place.server.url.is_none() {
        let dir = CacheDirs::find(place.cache_dir.as_deref())?.advisories();
        let manifest = Advisories::open_read_only(&dir)?.manifest();
        let whole = manifest.feeds.iter().filter(|feed| !feed.partial);
        names.extend(whole.map(|feed| feed.name.clone()));
    }
    if names.is_empty() {
        names.extend(USUAL.map(ToOwned::to_owned));
    }
    let is_elsewhere = |name: &str| [KEV, EPSS].contains(&name) || vulndb::vendor(name).is_some();
    names.retain(|name| !is_mirror || !is_elsewhere(name));
    Ok(names)
}

/// The feeds at a path: one of its own, or, for a mirror of OSV.dev's exports, one per ecosystem.
pub(super) fn feeds_at(path: &Path) -> anyhow::Result<Vec<Feed>> {
    let mut feeds = Vec::new();
    let own = path.join("all.zip");
    if own.is_file() {
        return Ok(vec![Feed {
            feed: feed_name(&own),
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
                    feed: feed_name(&ecosystem),
                    source: Source::open(&zip)?,
                });
            }
        }
        feeds.sort_by(|one, other| one.feed.cmp(&other.feed));
    }
    if feeds.is_empty() {
        feeds.push(Feed {
            feed: feed_name(path),
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
    // As they call their files themselves.
    match name {
        Some(name) if name == "known_exploited_vulnerabilities" => KEV.to_owned(),
        Some(name) if name.starts_with("epss_scores") => EPSS.to_owned(),
        Some(name) if name.starts_with("csaf_vex_") => "Red Hat VEX".to_owned(),
        Some(name) if name.starts_with("csaf-vex") => "SUSE VEX".to_owned(),
        Some(name) if name.starts_with("com.oracle.elsa-") => "Oracle OVAL".to_owned(),
        Some(name) if name.starts_with("updateinfo.xml") => "Amazon updates".to_owned(),
        Some(name) => name,
        None => "import".to_owned(),
    }
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
