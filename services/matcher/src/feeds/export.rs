//! A revision as one file, for sites without a network: manifest and shards in a zip, signed.
//!
//! Or the same, unpacked below an address ([`Unpacked`]).
//!
//! The signature (Ed25519) is over the manifest, which names each shard by its digest and so
//! vouches for all of them. Whoever imports says whose signature counts.

mod unpacked;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufReader, BufWriter, Read, Seek, Write as _},
    path::Path,
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use jiff::Timestamp;
use model::{AdvisoryManifest, Digest, Feed, ShardKey, Signature, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use vulndb::Shard;
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

pub use self::unpacked::Unpacked;
pub(crate) use self::unpacked::document;

use crate::{
    Advisories, FeedLimits, Imported,
    head::SHARD_BYTES_MAX,
    stage::{self, Parts, Staged},
};

const MANIFEST: &str = "tidewaiter-export.json";
const SIGNATURE: &str = "signature.json";
const SHARDS: &str = "shards/";
/// What is signed begins with this, so that the key's signatures mean nothing elsewhere.
const CONTEXT: &[u8] = b"tidewaiter advisory export 1\n";
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
const SIGNATURE_BYTES_MAX: u64 = 4096;
const VERSION: u32 = 1;

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The revision.
    pub revision: u64,
    /// How many feeds.
    pub feeds: usize,
    /// How many shards.
    pub shards: usize,
    /// Whose signature it has.
    pub key: Option<VerifyingKey>,
}

/// An export that was read and found whole.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    manifest: AdvisoryManifest,
    shards: BTreeMap<Digest, Bytes>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    exported_at: Timestamp,
    revision: u64,
    feeds: Vec<Feed>,
    feed_revisions: BTreeMap<String, String>,
    shards: BTreeMap<String, Digest>,
}

/// Writes the revision in force here into a file.
pub fn export(
    advisories: &Advisories,
    file: &Path,
    key: Option<&SigningKey>,
    now: Timestamp,
) -> anyhow::Result<Exported> {
    let manifest = advisories.manifest();
    ensure!(manifest.revision > 0, "there are no advisories to export");
    let document = document(&manifest, now)?;
    let out = File::create(file).with_context(|| format!("making `{}`", file.display()))?;
    let mut zip = ZipWriter::new(BufWriter::new(out));
    let options = SimpleFileOptions::default().large_file(true);
    zip.start_file(MANIFEST, options)?;
    zip.write_all(&document)?;
    if let Some(key) = key {
        zip.start_file(SIGNATURE, options)?;
        zip.write_all(&serde_json::to_vec(&key.sign(CONTEXT, &document))?)?;
    }
    let digests: BTreeSet<Digest> = manifest.shards.values().copied().collect();
    for digest in &digests {
        zip.start_file(format!("{SHARDS}{}", digest.hex()), options)?;
        zip.write_all(&advisories.shard_bytes(digest)?)?;
    }
    zip.finish()?.flush()?;
    Ok(Exported {
        revision: manifest.revision,
        feeds: manifest.feeds.len(),
        shards: digests.len(),
        key: key.map(SigningKey::verifying),
    })
}

/// Whether a zip is an export, and no zip of records.
pub fn is_export(zip: impl Read + Seek) -> bool {
    let archive = ZipArchive::new(BufReader::new(zip));
    archive.is_ok_and(|archive| archive.index_for_name(MANIFEST).is_some())
}

/// Imports an export into the local copy. Feeds that it has replace those here, unless those are
/// newer; others stay. Without a signature of one of `keys` it is refused, unless `unsigned`.
pub fn import_export(
    advisories: &Advisories,
    file: &Path,
    (keys, unsigned): (&[VerifyingKey], bool),
    limits: &FeedLimits,
) -> anyhow::Result<Imported> {
    let opened = File::open(file).with_context(|| format!("opening `{}`", file.display()))?;
    let export = Export::read(BufReader::new(opened), (keys, unsigned), limits)
        .with_context(|| format!("reading the export `{}`", file.display()))?;
    let staged = stage_export(advisories, export)?;
    if staged.is_new {
        advisories.install(&staged.imported.manifest, &staged.shards)?;
    }
    Ok(staged.imported)
}

/// Computes the revision that an export leads to.
pub(crate) fn stage_export(advisories: &Advisories, export: Export) -> anyhow::Result<Staged> {
    let old = advisories.manifest();
    let mut manifest = AdvisoryManifest::clone(&old);
    let taken: BTreeSet<String> = export
        .manifest
        .feeds
        .iter()
        .filter(|feed| is_newer(feed, &old.feeds))
        .map(|feed| feed.name.clone())
        .collect();
    let mut keys: BTreeSet<ShardKey> = export.manifest.shards.keys().cloned().collect();
    for feed in &taken {
        keys.extend(advisories.standing(feed, None)?);
    }
    let mut shards = BTreeMap::new();
    for key in keys {
        let theirs = export.manifest.shards.get(&key);
        if theirs.is_some() && theirs == old.shards.get(&key) {
            continue;
        }
        let theirs = theirs.and_then(|digest| export.shards.get(digest));
        let theirs = theirs.map(|bytes| Shard::decode(bytes)).transpose()?;
        let theirs = theirs.unwrap_or_default();
        let ours = advisories.shard_of(&old, &key)?;
        let is_taken = |feed: &String| taken.contains(feed);
        let ours_stay = ours.advisories().iter().filter(|one| !is_taken(&one.feed));
        let theirs_come = theirs.advisories().iter().filter(|one| is_taken(&one.feed));
        let known = ours
            .exploitation()
            .iter()
            .filter(|one| !is_taken(&one.feed));
        let new = theirs
            .exploitation()
            .iter()
            .filter(|one| is_taken(&one.feed));
        let shard = Shard::of(
            ours_stay.chain(theirs_come).cloned().collect(),
            known.chain(new).cloned().collect(),
        );
        stage::put(&mut manifest, &mut shards, key, &shard);
    }
    manifest.feeds.retain(|feed| !taken.contains(&feed.name));
    let feeds = export.manifest.feeds.into_iter();
    let feeds: Vec<Feed> = feeds.filter(|feed| taken.contains(&feed.name)).collect();
    let records = feeds.iter().map(|feed| feed.advisories).sum();
    manifest.feeds.extend(feeds);
    manifest.feeds.sort_by(|a, b| a.name.cmp(&b.name));
    manifest
        .feed_revisions
        .retain(|feed, _| !taken.contains(feed));
    let revisions = export.manifest.feed_revisions.into_iter();
    let revisions = revisions.filter(|(feed, _)| taken.contains(feed));
    manifest.feed_revisions.extend(revisions);
    Ok(Parts::of_export(records).staged(&old, manifest, shards))
}

/// Whether a feed of an export takes the place of what is here.
fn is_newer(feed: &Feed, here: &[Feed]) -> bool {
    let known = here.iter().find(|known| known.name == feed.name);
    known
        .is_none_or(|known| known.partial || (!feed.partial && feed.fetched_at >= known.fetched_at))
}

// === impl Export ===

impl Export {
    /// Reads an export; an error names what is wrong with it.
    pub(crate) fn read(
        zip: impl Read + Seek,
        (keys, unsigned): (&[VerifyingKey], bool),
        limits: &FeedLimits,
    ) -> anyhow::Result<Self> {
        let mut archive = ZipArchive::new(zip).context("it is not a zip")?;
        let document = entry(&mut archive, MANIFEST, MANIFEST_BYTES_MAX)?
            .context("it is no export of advisories")?;
        let signature = entry(&mut archive, SIGNATURE, SIGNATURE_BYTES_MAX)?;
        let manifest = manifest(&document, signature.as_deref(), (keys, unsigned))?;
        let mut left = limits.total_bytes_max;
        let mut shards = BTreeMap::new();
        for digest in manifest.shards.values() {
            if shards.contains_key(digest) {
                continue;
            }
            let bytes = entry(
                &mut archive,
                &format!("{SHARDS}{}", digest.hex()),
                SHARD_BYTES_MAX,
            )?
            .with_context(|| format!("shard `{digest}` is missing"))?;
            ensure!(
                Digest::of(&bytes) == *digest,
                "shard `{digest}` has other bytes"
            );
            // Of a newer version, perhaps: then no part of it comes into force.
            Shard::decode(&bytes).with_context(|| format!("reading shard `{digest}`"))?;
            left = left
                .checked_sub(bytes.len() as u64)
                .context("it has more bytes than allowed")?;
            shards.insert(*digest, Bytes::from(bytes));
        }
        Ok(Self { manifest, shards })
    }
}

/// What a manifest says, if whoever signed it is trusted.
fn manifest(
    document: &[u8],
    signature: Option<&[u8]>,
    (keys, unsigned): (&[VerifyingKey], bool),
) -> anyhow::Result<AdvisoryManifest> {
    match signature {
        Some(signature) => {
            let signature: Signature =
                serde_json::from_slice(signature).context("its signature cannot be read")?;
            signature.check(CONTEXT, document, (keys, unsigned))?;
        }
        None if unsigned => {}
        None => bail!("it is not signed"),
    }
    let document: Document =
        serde_json::from_slice(document).context("its manifest cannot be read")?;
    ensure!(
        document.version == VERSION,
        "its version is {}, and {VERSION} is known",
        document.version
    );
    let mut manifest = AdvisoryManifest {
        revision: document.revision,
        feeds: document.feeds,
        feed_revisions: document.feed_revisions,
        shards: BTreeMap::new(),
    };
    for feed in &manifest.feeds {
        stage::check_feed(&feed.name)?;
    }
    for (key, digest) in document.shards {
        manifest.shards.insert(key.parse()?, digest);
    }
    Ok(manifest)
}

/// An entry of a zip; `None` where there is none.
fn entry(
    archive: &mut ZipArchive<impl Read + Seek>,
    name: &str,
    bytes_max: u64,
) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(index) = archive.index_for_name(name) else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    let reader = archive.by_index(index)?;
    reader
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading `{name}`"))?;
    ensure!(
        bytes.len() as u64 <= bytes_max,
        "`{name}` is larger than allowed"
    );
    Ok(Some(bytes))
}

#[cfg(test)]
pub(crate) mod tests;
