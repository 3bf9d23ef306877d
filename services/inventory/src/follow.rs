//! Follows the records of every partition into the view.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{BucketEnd, Bus, Change, Store, StoreError};
use chassis::Cx;
use futures::StreamExt as _;
use model::{
    Assessed, Assessment, Judged, Known, Partition, RecordKey, Scanned, ScannedPackages, What,
    event::{REPORT_OBJECTS, images_bucket},
};
use tracing::{debug, error, warn};

use crate::view::{Fact, View, Write};

/// Changes that are taken up together.
const CHUNK: usize = 64;
/// Objects that are read at once.
const PARALLEL: usize = 8;
const PAUSE: Duration = Duration::from_secs(1);

/// Starts one task per partition.
pub(crate) fn start(cx: &Cx, bus: &Bus, view: &Arc<View>) {
    for partition in Partition::all() {
        let (task, bus, view) = (cx.clone(), bus.clone(), Arc::clone(view));
        cx.spawn("inventory.follow", async move {
            let bucket = images_bucket(partition);
            while !task.is_stopping() {
                if let Err(error) = follow(&task, &bus, &view, &bucket).await {
                    error!(
                        bucket,
                        "following `{bucket}` stopped, trying again: {error:#}"
                    );
                }
                task.sleep(PAUSE).await;
            }
        });
    }
}

/// Follows a bucket from where the view stands, until it is made anew: then the view of it begins
/// again.
async fn follow(cx: &Cx, bus: &Bus, view: &Arc<View>, bucket: &str) -> anyhow::Result<()> {
    let BucketEnd { last, made } = loop {
        match bus.position(bucket).await {
            Ok(position) => break position,
            Err(error) => debug!(%error, "`{bucket}` is followed later: {error}"),
        }
        if !cx.sleep(PAUSE).await {
            return Ok(());
        }
    };
    let (name, reader, of) = (bucket.to_owned(), Arc::clone(view), made.clone());
    let cursor = cx
        .blocking(move || reader.begin(&name, last, &of))
        .await?
        .context("reading the cursor")?;
    let store = bus.store();
    let changes = bus.follow_after(cx, bucket, cursor, &made);
    let mut chunks = std::pin::pin!(changes.ready_chunks(CHUNK));
    while let Some(chunk) = chunks.next().await {
        let store = &store;
        let writes = futures::stream::iter(chunk)
            .map(async |change| patient_write(cx, store, bucket, &change).await)
            .buffered(PARALLEL);
        let writes: Vec<Option<Write>> = writes.collect().await;
        let Some(writes) = writes.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(());
        };
        let target = Arc::clone(view);
        let applied = cx.blocking(move || writes.iter().try_for_each(|write| target.apply(write)));
        applied.await?.context("writing the view")?;
    }
    Ok(())
}

/// Tries until the store answers; `None` when the process stops.
async fn patient_write(cx: &Cx, store: &Store, bucket: &str, change: &Change) -> Option<Write> {
    loop {
        match write_of(store, bucket, change).await {
            Ok(write) => return Some(write),
            Err(error @ StoreError::Unavailable { .. }) => {
                warn!("the view waits for the store: {error:#}");
                if !cx.sleep(PAUSE).await {
                    return None;
                }
            }
            Err(error) => {
                // Waiting helps nobody: the record stays out of the view until it is replaced.
                let key = &change.key;
                error!(
                    bucket,
                    key, "record `{key}` cannot be read and is left out: {error:#}"
                );
                let bucket = bucket.to_owned();
                return Some(Write {
                    bucket,
                    sequence: change.sequence,
                    fact: None,
                });
            }
        }
    }
}

/// What a change means for the view.
pub(crate) async fn write_of(
    store: &Store,
    bucket: &str,
    change: &Change,
) -> Result<Write, StoreError> {
    let mut write = Write {
        bucket: bucket.to_owned(),
        sequence: change.sequence,
        fact: None,
    };
    let Ok(key) = change.key.parse::<RecordKey>() else {
        return Ok(write);
    };
    let fact = if change.body.is_none() {
        Some(Fact::Gone)
    } else {
        match key.what {
            What::Known => change.decode::<Known>().await?.map(Fact::Known),
            What::Scanned => match change.decode::<Scanned>().await? {
                Some(scanned) => {
                    let packages = store
                        .object::<ScannedPackages>(REPORT_OBJECTS, &scanned.packages)
                        .await?;
                    Some(Fact::Scanned(
                        scanned,
                        packages.map(|object| object.packages),
                    ))
                }
                None => None,
            },
            What::Assessed => match change.decode::<Assessed>().await? {
                Some(assessed) => {
                    let assessment = store
                        .object::<Assessment>(REPORT_OBJECTS, &assessed.assessment)
                        .await?;
                    Some(Fact::Assessed(assessed, assessment.map(Box::new)))
                }
                None => None,
            },
            What::Judged(_) => change
                .decode::<Judged>()
                .await?
                .map(|judged| Fact::Judged(Box::new(judged))),
        }
    };
    write.fact = fact.map(|fact| (key, fact));
    Ok(write)
}
