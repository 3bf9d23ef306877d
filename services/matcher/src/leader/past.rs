//! Revisions of not long ago: they stay, so that a partition whose mark names one can be swept from
//! there, and go when they are too many.
//!
//! `head` names them, so they are moved with it by one compare-and-set. A revision that is to go
//! stays in that list until its manifest, the last of its objects to be deleted, is gone: a leader
//! that dies between two deletions leaves the rest to the next.

use std::collections::BTreeSet;

use bus::Store;
use chassis::Cx;
use model::{AdvisoryHead, AdvisoryManifest, Digest, PastRevision, event::FEED_OBJECTS};

/// How many revisions stay beside the one in force: `db update` alone makes one per ecosystem.
pub(super) const PAST_MAX: usize = 16;

/// The past of the revision that follows the standing one, and what of it is to be deleted once
/// `head` has moved.
pub(super) async fn of(
    store: &Store,
    standing: Option<AdvisoryHead>,
) -> anyhow::Result<(Vec<PastRevision>, Vec<PastRevision>)> {
    let Some(standing) = standing else {
        return Ok((Vec::new(), Vec::new()));
    };
    let mut past = standing.past;
    past.push(PastRevision {
        revision: standing.revision,
        manifest: standing.manifest,
    });
    let kept = past.split_off(past.len().saturating_sub(PAST_MAX));
    let mut old = Vec::new();
    for one in past {
        if manifest(store, &one.manifest).await?.is_some() {
            old.push(one);
        }
    }
    let past = old.iter().cloned().chain(kept).collect();
    Ok((past, old))
}

/// Deletes the objects that only old revisions lead to. A revision that comes to be with one of
/// these shards meanwhile is another leader's, whose move of `head` fails since ours was first; it
/// stores its shards again.
pub(super) async fn trim(
    cx: &Cx,
    store: &Store,
    head: &AdvisoryHead,
    old: &[PastRevision],
) -> anyhow::Result<()> {
    if old.is_empty() {
        return Ok(());
    }
    let is_old = |one: &&PastRevision| old.contains(one);
    let kept = head.past.iter().filter(|one| !is_old(one));
    let manifests = kept.map(|one| one.manifest).chain([head.manifest]);
    let mut named: BTreeSet<Digest> = BTreeSet::new();
    for digest in manifests {
        let manifest = manifest(store, &digest).await?;
        // What cannot be read may name anything.
        let Some(manifest) = manifest else {
            return Ok(());
        };
        named.insert(digest);
        named.extend(manifest.shards.values());
    }
    for one in old {
        let Some(manifest) = manifest(store, &one.manifest).await? else {
            continue;
        };
        for digest in manifest.shards.values().chain([&one.manifest]) {
            if named.insert(*digest) {
                anyhow::ensure!(!cx.is_stopping(), "the lease was given up");
                store.delete_object(FEED_OBJECTS, digest).await?;
            }
        }
    }
    Ok(())
}

async fn manifest(store: &Store, digest: &Digest) -> anyhow::Result<Option<AdvisoryManifest>> {
    Ok(store.object(FEED_OBJECTS, digest).await?)
}
