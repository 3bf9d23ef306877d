//! Follows the records of every partition, nodes, incidents and the answers to them into the view.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{BucketEnd, Bus, Change, Contents, Store, StoreError};
use chassis::Cx;
use futures::StreamExt as _;
use model::{
    Assessed, Judged, Known, Partition, RecordKey, Scanned, What,
    event::{INCIDENTS, NODES, REPORT_OBJECTS, images_bucket},
    runtime::{NodeConnections, NodeRecord, RESPONSE_RECORDS},
};
use serde::de::DeserializeOwned;
use tracing::{debug, error, warn};

use crate::view::{Fact, IncidentKey, NodeKey, PackageRows, Told, View, VulnerabilityRows, Write};

/// Changes that are taken up together.
const CHUNK: usize = 64;
/// Objects that are read at once.
const PARALLEL: usize = 8;
const PAUSE: Duration = Duration::from_secs(1);
/// Encoded bytes of the objects of each kind whose rows are kept.
const OBJECTS_BYTES_MAX: usize = 16 << 20;

/// Where the objects of records are read, and turned into rows.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    packages: Contents<PackageRows>,
    vulnerabilities: Contents<VulnerabilityRows>,
}

/// Starts one task per bucket.
pub(crate) fn start(cx: &Cx, bus: &Bus, view: &Arc<View>) {
    let objects = Objects::new(&bus.store());
    let of_images = Partition::all().map(images_bucket);
    for bucket in of_images.chain([NODES, INCIDENTS, RESPONSE_RECORDS].map(str::to_owned)) {
        let (task, bus, view) = (cx.clone(), bus.clone(), Arc::clone(view));
        let objects = objects.clone();
        cx.spawn("inventory.follow", async move {
            while !task.is_stopping() {
                if let Err(error) = follow(&task, &bus, (&view, &objects), &bucket).await {
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
async fn follow(
    cx: &Cx,
    bus: &Bus,
    (view, objects): (&Arc<View>, &Objects),
    bucket: &str,
) -> anyhow::Result<()> {
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
    let changes = bus.follow_after(cx, bucket, cursor, &made);
    let mut chunks = std::pin::pin!(changes.ready_chunks(CHUNK));
    while let Some(chunk) = chunks.next().await {
        let writes = futures::stream::iter(chunk)
            .map(async |change| patient_write(cx, objects, bucket, &change).await)
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
async fn patient_write(cx: &Cx, objects: &Objects, bucket: &str, change: &Change) -> Option<Write> {
    loop {
        match write_of(objects, bucket, change).await {
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
                    told: None,
                });
            }
        }
    }
}

/// What a change means for the view.
pub(crate) async fn write_of(
    objects: &Objects,
    bucket: &str,
    change: &Change,
) -> Result<Write, StoreError> {
    let told = match bucket {
        NODES => told_of_node(change).await?,
        INCIDENTS => told_of(change, Told::Incident).await?,
        RESPONSE_RECORDS => told_of(change, Told::Response).await?,
        _ => told_of_image(objects, change).await?,
    };
    Ok(Write {
        bucket: bucket.to_owned(),
        sequence: change.sequence,
        told,
    })
}

async fn told_of_node(change: &Change) -> Result<Option<Told>, StoreError> {
    if let Some(key) = NodeKey::of(&change.key, "connections") {
        return told_of_connections(change, key).await;
    }
    let Ok(key) = change.key.parse::<NodeKey>() else {
        return Ok(None);
    };
    if change.body.is_none() {
        return Ok(Some(Told::Node(key, None)));
    }
    let record = change.decode::<NodeRecord>().await?;
    Ok(record.map(|record| Told::Node(key, Some(Box::new(record)))))
}

async fn told_of_connections(change: &Change, key: NodeKey) -> Result<Option<Told>, StoreError> {
    if change.body.is_none() {
        return Ok(Some(Told::Connections(key, None)));
    }
    let record = change.decode::<NodeConnections>().await?;
    Ok(record.map(|record| Told::Connections(key, Some(Box::new(record)))))
}

/// Of an incident, or of the answer to one.
async fn told_of<T: DeserializeOwned>(
    change: &Change,
    told: impl FnOnce(IncidentKey, Option<Box<T>>) -> Told,
) -> Result<Option<Told>, StoreError> {
    // The ledger of a tenant is none.
    let Ok(key) = change.key.parse::<IncidentKey>() else {
        return Ok(None);
    };
    if change.body.is_none() {
        return Ok(Some(told(key, None)));
    }
    let read = change.decode::<T>().await?;
    Ok(read.map(|read| told(key, Some(Box::new(read)))))
}

async fn told_of_image(objects: &Objects, change: &Change) -> Result<Option<Told>, StoreError> {
    let Ok(key) = change.key.parse::<RecordKey>() else {
        return Ok(None);
    };
    let fact = if change.body.is_none() {
        Some(Fact::Gone)
    } else {
        match key.what {
            What::Known => change.decode::<Known>().await?.map(Fact::Known),
            What::Scanned => match change.decode::<Scanned>().await? {
                Some(scanned) => {
                    let (object, content) = (&scanned.packages, &scanned.contents.packages);
                    let rows = objects.packages.get(object, content.as_ref()).await?;
                    Some(Fact::Scanned(scanned, rows))
                }
                None => None,
            },
            What::Assessed => match change.decode::<Assessed>().await? {
                Some(assessed) => {
                    let (object, content) = (&assessed.assessment, &assessed.contents.assessment);
                    let rows = objects
                        .vulnerabilities
                        .get(object, content.as_ref())
                        .await?;
                    Some(Fact::Assessed(assessed, rows))
                }
                None => None,
            },
            What::Judged(_) => change
                .decode::<Judged>()
                .await?
                .map(|judged| Fact::Judged(Box::new(judged))),
        }
    };
    Ok(fact.map(|fact| Told::Image(key, Box::new(fact))))
}

// === impl Objects ===

impl Objects {
    pub(crate) fn new(store: &Store) -> Self {
        Self {
            packages: Contents::new(store.clone(), REPORT_OBJECTS, OBJECTS_BYTES_MAX),
            vulnerabilities: Contents::new(store.clone(), REPORT_OBJECTS, OBJECTS_BYTES_MAX),
        }
    }
}
