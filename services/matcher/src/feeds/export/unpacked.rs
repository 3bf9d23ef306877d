//! An export whose manifest and shards lie one by one below an address: unpacked there, or a server's
//! own revision. Whoever has most of it fetches what differs and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use jiff::Timestamp;
use model::{AdvisoryManifest, Digest, VerifyingKey};

use super::{Document, Export, MANIFEST, SHARDS, SIGNATURE, VERSION, stage_export};
use crate::{Advisories, FeedLimits, Imported};

/// A revision that is named and was not fetched yet.
#[derive(Clone, Debug)]
pub struct Unpacked {
    manifest: AdvisoryManifest,
}

/// A revision as others read it.
pub(crate) fn document(
    manifest: &AdvisoryManifest,
    exported_at: Timestamp,
) -> anyhow::Result<Vec<u8>> {
    let shards = manifest.shards.iter();
    Ok(serde_json::to_vec(&Document {
        version: VERSION,
        exported_at,
        revision: manifest.revision,
        feeds: manifest.feeds.clone(),
        feed_revisions: manifest.feed_revisions.clone(),
        shards: shards
            .map(|(key, digest)| (key.to_string(), *digest))
            .collect(),
    })?)
}

// === impl Unpacked ===

impl Unpacked {
    /// Where the manifest lies.
    pub const MANIFEST: &str = MANIFEST;
    /// Where its signature lies, if it has one.
    pub const SIGNATURE: &str = SIGNATURE;

    /// Where a shard lies.
    pub fn shard(digest: &Digest) -> String {
        format!("{SHARDS}{}", digest.hex())
    }

    /// Reads the manifest. Without a signature of one of `keys` it is refused, unless `unsigned`.
    pub fn read(
        document: &[u8],
        signature: Option<&[u8]>,
        trust: (&[VerifyingKey], bool),
    ) -> anyhow::Result<Self> {
        let manifest = super::manifest(document, signature, trust)?;
        Ok(Self { manifest })
    }

    /// The shards that are not here.
    pub fn missing(&self, advisories: &Advisories) -> anyhow::Result<BTreeSet<Digest>> {
        advisories.missing(self.wanted(advisories))
    }

    /// Imports it, with the shards that were missing: as an export in a file is.
    pub fn import(
        self,
        advisories: &Advisories,
        mut fetched: BTreeMap<Digest, Bytes>,
        limits: &FeedLimits,
    ) -> anyhow::Result<Imported> {
        let mut shards = BTreeMap::new();
        let mut left = limits.total_bytes_max;
        for digest in self.wanted(advisories) {
            let bytes = match fetched.remove(&digest) {
                Some(bytes) => bytes,
                None => Bytes::from(advisories.shard_bytes(&digest)?),
            };
            ensure!(
                Digest::of(&bytes) == digest,
                "shard `{digest}` has other bytes"
            );
            left = left
                .checked_sub(bytes.len() as u64)
                .context("it has more bytes than allowed")?;
            shards.insert(digest, bytes);
        }
        let export = Export {
            manifest: self.manifest,
            shards,
        };
        let staged = stage_export(advisories, export)?;
        if staged.is_new {
            advisories.install(&staged.imported.manifest, &staged.shards)?;
        }
        Ok(staged.imported)
    }

    /// The shards that differ from those in force here.
    fn wanted(&self, advisories: &Advisories) -> BTreeSet<Digest> {
        let here = advisories.manifest();
        let changed = self.manifest.changed_since(&here);
        changed
            .into_iter()
            .filter_map(|key| self.manifest.shards.get(key).copied())
            .collect()
    }
}
