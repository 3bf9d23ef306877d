//! Deletes objects that nothing names any more, an hour after they were replaced: who still reads
//! the old record has that long to finish.
//!
//! Before an object is deleted the records that could name it are read again, and what one of them
//! names stays, as does what was stored again within that hour ([`Store::collect`]). What is in the queue when the process ends is not deleted: it costs disk and
//! nothing else, and comparing the objects of a bucket with its records finds it. Beyond
//! [`QUEUE_MAX`] objects the oldest is deleted early.

use std::{collections::VecDeque, time::Duration};

use chassis::Cx;
use model::{Assessed, Digest, Record, RecordKey, Scanned, What, event::images_bucket};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    envelope::CE_TYPE,
    error::StoreError,
    handler::{Discard, Write, WriteKind},
    store::{Collected, Store, pointer},
    wire::Raw,
};

/// How many objects may wait; about 20 MB.
const QUEUE_MAX: usize = 100_000;
/// How many may be handed over at once; beyond that they stay, see the module's text.
const CHANNEL: usize = 4_096;

/// Hands objects over to the task that deletes them.
#[derive(Clone, Debug)]
pub(crate) struct Janitor {
    queue: mpsc::Sender<Doomed>,
    after: Duration,
}

/// An object to delete, unless one of `keys` names it.
#[derive(Debug)]
struct Doomed {
    bucket: String,
    digest: Digest,
    /// Bucket and key of the records that could name it.
    keys: Vec<(String, String)>,
}

// === impl Janitor ===

impl Janitor {
    pub(crate) fn start(cx: &Cx, store: Store, after: Duration) -> Self {
        let (queue, receiver) = mpsc::channel(CHANNEL);
        let stopping = cx.clone();
        cx.spawn("janitor", async move {
            tokio::select! {
                () = stopping.stopped() => {}
                () = clean(receiver, store, after) => {}
            }
        });
        Self { queue, after }
    }

    /// How old an object is at least that goes.
    pub(crate) const fn after(&self) -> Duration {
        self.after
    }

    /// A record was replaced: the object that held its body goes, by bucket and digest.
    pub(crate) fn replaced(&self, bucket: &str, key: &str, object: Option<(String, Digest)>) {
        if let Some((object_bucket, digest)) = object {
            self.hand(Doomed {
                bucket: object_bucket,
                digest,
                keys: vec![(bucket.to_owned(), key.to_owned())],
            });
        }
    }

    /// The discards of an outcome: they go unless a record of the same images names them.
    pub(crate) fn discard(&self, writes: &[Write], discards: &[Discard]) {
        if discards.is_empty() {
            return;
        }
        let images = writes.iter().filter_map(|write| match &write.kind {
            WriteKind::Record { key, .. } => Some(key),
            WriteKind::Plain => None,
        });
        let keys: Vec<_> = images.flat_map(naming).collect();
        for Discard { bucket, digest } in discards {
            self.hand(Doomed {
                bucket: bucket.clone(),
                digest: *digest,
                keys: keys.clone(),
            });
        }
    }

    fn hand(&self, doomed: Doomed) {
        if self.queue.try_send(doomed).is_err() {
            tracing::debug!("an object stays although nothing names it any more");
        }
    }
}

/// The records of an image that name objects.
fn naming(key: &RecordKey) -> [(String, String); 2] {
    let bucket = images_bucket(key.image.partition());
    [What::Scanned, What::Assessed].map(|what| (bucket.clone(), key.sibling(what).to_string()))
}

async fn clean(mut incoming: mpsc::Receiver<Doomed>, store: Store, after: Duration) {
    let mut queue: VecDeque<(Instant, Doomed)> = VecDeque::new();
    loop {
        let due = queue.front().map(|(due, _)| *due);
        let due = due.map(|due| {
            if queue.len() > QUEUE_MAX {
                Instant::now()
            } else {
                due
            }
        });
        tokio::select! {
            doomed = incoming.recv() => match doomed {
                Some(doomed) => queue.push_back((Instant::now() + after, doomed)),
                None => return,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                if let Some((_, doomed)) = queue.pop_front()
                    && !is_done(&store, &doomed, after).await
                {
                    queue.push_back((Instant::now() + after, doomed));
                }
            }
        }
    }
}

/// Whether the object is gone, or named.
async fn is_done(store: &Store, doomed: &Doomed, after: Duration) -> bool {
    let is_named = || is_named(store, doomed);
    let collected = store.collect(&doomed.bucket, &doomed.digest, after, is_named);
    match collected.await {
        Ok(Collected::Gone | Collected::Named) => true,
        Ok(Collected::Young) => false,
        Err(error) => {
            tracing::debug!(%error, "an object stays for now: {error}");
            false
        }
    }
}

async fn is_named(store: &Store, doomed: &Doomed) -> Result<bool, StoreError> {
    for (bucket, key) in &doomed.keys {
        if let Some(raw) = store.raw(bucket, key).await?
            && names(store, bucket, key, raw)
                .await?
                .contains(&doomed.digest)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The objects that a record names. An assessment before the present one is not among them: it is
/// there for an hour, as everything replaced.
async fn names(
    store: &Store,
    bucket: &str,
    key: &str,
    raw: Raw,
) -> Result<Vec<Digest>, StoreError> {
    let kind = raw.headers.attribute(CE_TYPE).unwrap_or_default();
    let mut names: Vec<Digest> = pointer(&raw.headers)
        .map(|(_, digest)| digest)
        .into_iter()
        .collect();
    if kind == Scanned::TYPE {
        let scanned = store.value::<Scanned>(bucket, key, raw).await?;
        for Scanned {
            packages,
            findings,
            files,
            ..
        } in scanned.into_iter().map(|at| at.body)
        {
            names.extend([packages, findings]);
            names.extend(files.into_iter().flatten());
        }
    } else if kind == Assessed::TYPE {
        let assessed = store.value::<Assessed>(bucket, key, raw).await?;
        names.extend(
            assessed
                .into_iter()
                .flat_map(|at| [at.body.assessment, at.body.findings]),
        );
    }
    Ok(names)
}
