//! Deletes objects that nothing names any more, an hour after they were replaced: who still reads
//! the old record has that long to finish.
//!
//! Before an object is deleted the records that could name it are read again, and what one of them
//! names stays, as does what was stored again within that hour ([`Store::collect`]). What is in the
//! queue when the process ends is not deleted here: comparing the objects of a bucket with its
//! records finds it ([`crate::collector`]). Beyond [`QUEUE_MAX`] objects the oldest is deleted early.

use std::{collections::VecDeque, time::Duration};

use chassis::Cx;
use model::{
    Assessed, Digest, Record, RecordKey, Scanned, Slug, What,
    event::{INCIDENTS, images_bucket},
    runtime::Incident,
};
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

/// An object to delete, unless one of `namers` names it. It waits for an hour, with all others of
/// that hour, so it is small.
#[derive(Debug)]
struct Doomed {
    bucket: String,
    digest: Digest,
    namers: Box<[Namer]>,
}

/// What could name an object.
#[derive(Clone, Debug)]
enum Namer {
    /// The records of an image.
    Image(Slug, Digest),
    /// A key of a bucket.
    Key { bucket: String, key: String },
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
                namers: Box::new([Namer::Key {
                    bucket: bucket.to_owned(),
                    key: key.to_owned(),
                }]),
            });
        }
    }

    /// The discards of an outcome: they go unless a record of the same images, or another key that
    /// it writes, names them.
    pub(crate) fn discard(&self, writes: &[Write], discards: &[Discard]) {
        if discards.is_empty() {
            return;
        }
        let namers: Box<[Namer]> = writes.iter().map(Namer::of).collect();
        for Discard { bucket, digest } in discards {
            self.hand(Doomed {
                bucket: bucket.clone(),
                digest: *digest,
                namers: namers.clone(),
            });
        }
    }

    fn hand(&self, doomed: Doomed) {
        if self.queue.try_send(doomed).is_err() {
            tracing::debug!("an object stays although nothing names it any more");
        }
    }
}

// === impl Namer ===

impl Namer {
    /// What may name objects of what is written: the records of an image, or the key itself.
    fn of(write: &Write) -> Self {
        match &write.kind {
            WriteKind::Record { key, .. } => Self::Image(key.tenant.clone(), key.image),
            WriteKind::Plain => Self::Key {
                bucket: write.bucket.clone(),
                key: write.key.clone(),
            },
        }
    }

    /// Buckets and keys.
    fn keys(&self) -> Vec<(String, String)> {
        match self {
            Self::Image(tenant, image) => {
                let bucket = images_bucket(image.partition());
                let of = |what| {
                    let key = RecordKey::new(tenant, *image, what);
                    (bucket.clone(), key.to_string())
                };
                [What::Scanned, What::Assessed].map(of).into()
            }
            Self::Key { bucket, key } => vec![(bucket.clone(), key.clone())],
        }
    }
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
    for (bucket, key) in doomed.namers.iter().flat_map(Namer::keys) {
        if let Some(raw) = store.raw(&bucket, &key).await?
            && names(store, &bucket, &key, raw)
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
pub(crate) async fn names(
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
    } else if bucket == INCIDENTS {
        let incident = store.value::<Incident>(bucket, key, raw).await?;
        let evidence = incident.map(|at| [at.body.timeline, at.body.surroundings]);
        names.extend(evidence.into_iter().flatten().flatten());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use model::event::EVIDENCE_OBJECTS;

    use super::*;
    use crate::Outcome;

    #[tokio::test]
    async fn evidence_that_an_incident_names_once_more_stays() {
        let store = Store::memory();
        let golden = include_str!("../../model/testdata/stored/incident/v1.json");
        let incident: Incident = serde_json::from_str(golden).unwrap();
        let (timeline, shown) = (incident.timeline.unwrap(), incident.surroundings.unwrap());
        let gone = Digest::of(b"an earlier timeline");
        let key = "default.incident-1";
        let outcome = Outcome::none()
            .put_kv(INCIDENTS, key, &incident, None)
            .unwrap();
        store.apply(&outcome).await.unwrap();
        let namers: Box<[Namer]> = outcome.writes.iter().map(Namer::of).collect();
        for (digest, expected) in [(timeline, true), (shown, true), (gone, false)] {
            let doomed = Doomed {
                bucket: EVIDENCE_OBJECTS.to_owned(),
                digest,
                namers: namers.clone(),
            };
            assert_eq!(is_named(&store, &doomed).await.unwrap(), expected);
        }
    }
}
