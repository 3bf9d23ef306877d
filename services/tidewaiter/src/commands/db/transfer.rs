//! Advisories as one signed file.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use matcher::{Advisories, Imported, Mode, Source, Unpacked};
use model::SigningKey;

use super::{Db, Feed, Trust};
use crate::{
    cli::{DbPlace, Server},
    client::Client,
    commands::print,
    paths::CacheDirs,
};

/// Below a server's address, where its advisories are.
const ADVISORIES: &str = "/v1/advisories";
/// Shards that are fetched at once.
const FETCHES: usize = 16;
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
        place: &DbPlace,
    ) -> anyhow::Result<()> {
        let key = key.as_deref().map(read_key).transpose()?;
        let mut dir = CacheDirs::find(place.cache_dir.as_deref())?.advisories();
        // A server's own is fetched into a copy that is gone afterwards.
        let copy = tempfile::tempdir()?;
        if let Some(mut server) = place.server.server() {
            server.url = format!("{}{ADVISORIES}", server.url.trim_end_matches('/'));
            dir = copy.path().to_owned();
            let trust = Trust {
                keys: Vec::new(),
                unsigned: true,
            };
            self.pull(&Client::new(&server)?, &dir, trust).await?;
        }
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

    /// Takes what another one has, as far as it differs from what is here.
    pub(super) async fn update_from(
        &self,
        url: &str,
        trust: Trust,
        place: &DbPlace,
    ) -> anyhow::Result<()> {
        let server = Server {
            url: url.to_owned(),
            token: place.server.token.clone(),
            trust: place.server.trust.clone(),
        };
        // A token that nobody named is for another server, which gives no word for this one.
        let is_own = server.token.token_file.is_some();
        let client = Client::new(&server)?;
        let client = if is_own { client } else { client.anonymous() };
        let trust = Trust {
            unsigned: trust.unsigned || is_own,
            ..trust
        };
        let dir = CacheDirs::find(place.cache_dir.as_deref())?.advisories();
        let (imported, fetched) = self.pull(&client, &dir, trust).await?;
        print(&format!(
            "{url}: {fetched} shards fetched, {} changed; revision {}\n",
            imported.changed.len(),
            imported.manifest.revision
        ))
    }

    /// Fetches the manifest and the shards that are not in `dir`, and imports them.
    async fn pull(
        &self,
        client: &Client,
        dir: &Path,
        trust: Trust,
    ) -> anyhow::Result<(Imported, usize)> {
        let at = |name: &str| format!("/{name}");
        let document = client.bytes(&at(Unpacked::MANIFEST)).await?;
        let document = document.with_context(|| {
            format!(
                "there are no advisories: `{}` is not there",
                Unpacked::MANIFEST
            )
        })?;
        let signature = client.bytes(&at(Unpacked::SIGNATURE)).await?;
        let keys = (trust.keys.as_slice(), trust.unsigned);
        let unpacked = Unpacked::read(&document, signature.as_deref(), keys)
            .context("reading the manifest of the advisories")?;
        let dir = dir.to_owned();
        let opening = move || -> anyhow::Result<_> {
            let advisories = Advisories::open(&dir).context("opening the advisories")?;
            let missing = unpacked.missing(&advisories)?;
            Ok((advisories, unpacked, missing))
        };
        let opened = self.cx.blocking(opening).await.context("opening")??;
        let (advisories, unpacked, missing) = opened;
        let mut left = self.config.limits.total_bytes_max;
        let mut shards = BTreeMap::new();
        let mut fetching = stream::iter(missing)
            .map(|digest| async move {
                let bytes = client.bytes(&at(&Unpacked::shard(&digest))).await?;
                let bytes = bytes.with_context(|| format!("shard `{digest}` is not there"))?;
                Ok::<_, anyhow::Error>((digest, Bytes::from(bytes)))
            })
            .buffer_unordered(FETCHES);
        while let Some((digest, bytes)) = fetching.try_next().await? {
            left = left
                .checked_sub(bytes.len() as u64)
                .context("the advisories have more bytes than allowed")?;
            shards.insert(digest, bytes);
        }
        drop(fetching);
        let (fetched, limits) = (shards.len(), self.config.limits.clone());
        let work = move || unpacked.import(&advisories, shards, &limits);
        let imported = self.cx.blocking(work).await.context("importing")??;
        Ok((imported, fetched))
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
pub(crate) fn make_key(file: &Path) -> anyhow::Result<()> {
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

/// The key in a file.
pub(crate) fn read_key(file: &Path) -> anyhow::Result<SigningKey> {
    let text = chassis::files::read_text_bounded(file, KEY_BYTES_MAX)
        .with_context(|| format!("reading the key `{}`", file.display()))?;
    text.parse()
        .with_context(|| format!("in the key `{}`", file.display()))
}

/// Whether a file is what `db export` wrote.
pub(super) fn is_export(path: &Path) -> bool {
    path.is_file() && File::open(path).is_ok_and(matcher::is_export)
}
