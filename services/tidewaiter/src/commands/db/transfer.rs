//! Advisories as one signed file.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use matcher::{Advisories, Mode, SigningKey, Source};

use super::{Db, Feed, Trust};
use crate::{cli::DbPlace, commands::print, paths::CacheDirs};

/// A key is 64 hex digits.
const KEY_BYTES_MAX: u64 = 1024;
/// What an export is called among what is handed in.
const EXPORT: &str = "export";

// === impl Db ===

impl Db {
    pub(super) async fn export(
        &self,
        file: PathBuf,
        key: Option<PathBuf>,
        cache_dir: Option<&Path>,
    ) -> anyhow::Result<()> {
        let key = key.as_deref().map(read_key).transpose()?;
        let dir = CacheDirs::find(cache_dir)?.advisories();
        let (now, out) = (self.cx.now(), file.clone());
        let work = move || {
            let advisories = Advisories::open_read_only(&dir).context("opening the advisories")?;
            matcher::export(&advisories, &out, key.as_ref(), now)
        };
        let exported = self.cx.blocking(work).await.context("exporting")??;
        let signed = match exported.key {
            Some(key) => format!("signed by {key}"),
            None => "not signed".to_owned(),
        };
        print(&format!(
            "{}: revision {}, {} feeds, {} shards, {signed}\n",
            file.display(),
            exported.revision,
            exported.feeds,
            exported.shards
        ))
    }

    pub(super) async fn import_export(
        &self,
        path: &Path,
        trust: &Trust,
        place: &DbPlace,
    ) -> anyhow::Result<()> {
        if let Some(server) = place.server.server() {
            // The server has its own list of those whom it trusts.
            let feed = Feed {
                feed: EXPORT.to_owned(),
                source: Source::Zip(path.to_owned()),
            };
            return self.hand_in(feed, Mode::Merge, &server).await;
        }
        let dir = CacheDirs::find(place.cache_dir.as_deref())?.advisories();
        let limits = self.config.limits.clone();
        let (keys, unsigned, file) = (trust.keys.clone(), trust.unsigned, path.to_owned());
        let work = move || {
            let advisories = Advisories::open(&dir).context("opening the advisories")?;
            matcher::import_export(&advisories, &file, (&keys, unsigned), &limits)
        };
        let imported = self.cx.blocking(work).await.context("importing")??;
        print(&format!(
            "{}: {} records, {} shards changed; revision {}\n",
            path.display(),
            imported.records,
            imported.changed.len(),
            imported.manifest.revision
        ))
    }
}

/// Makes a key, for its owner alone, and prints the half that others may know.
pub(super) fn make_key(file: &Path) -> anyhow::Result<()> {
    let key = SigningKey::generate()?;
    // A key that is there already is never written over.
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut out = options
        .open(file)
        .with_context(|| format!("making `{}`", file.display()))?;
    writeln!(out, "{}", key.secret())?;
    print(&format!("{}\n", key.verifying()))
}

fn read_key(file: &Path) -> anyhow::Result<SigningKey> {
    let text = chassis::files::read_text_bounded(file, KEY_BYTES_MAX)
        .with_context(|| format!("reading the key `{}`", file.display()))?;
    text.parse()
        .with_context(|| format!("in the key `{}`", file.display()))
}

/// Whether a file is what `db export` wrote.
pub(super) fn is_export(path: &Path) -> bool {
    path.is_file() && File::open(path).is_ok_and(matcher::is_export)
}
