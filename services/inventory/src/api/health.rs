//! `GET /v1/health`: how far the view is, and how old the advisory data are.

use axum::{Json, extract::State};
use chassis::http::ApiError;
use jiff::Timestamp;
use model::{Partition, event::images_bucket};
use serde::Serialize;

use super::{Api, Caller, advisories::head, internal, permit};

#[derive(Debug, Serialize)]
pub(super) struct Health {
    /// `ok`, or `catching_up` while the view is behind the records.
    status: &'static str,
    view: ViewHealth,
    partitions: Vec<PartitionHealth>,
    advisories: AdvisoryHealth,
}

/// Estimates, over all tenants.
#[derive(Debug, Serialize)]
struct ViewHealth {
    images: u64,
    names: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct PartitionHealth {
    partition: String,
    cursor: u64,
    last: u64,
    lag: u64,
}

#[derive(Debug, Serialize)]
struct AdvisoryHealth {
    /// The revision in force; 0 where there is none.
    revision: u64,
    /// The lowest revision that a partition holds for.
    swept: u64,
    published_at: Option<Timestamp>,
    /// When the oldest data that a partition holds for were fetched.
    data_at: Option<Timestamp>,
    age_seconds: Option<i64>,
}

/// `GET /v1/health`.
pub(super) async fn get(State(api): State<Api>, caller: Caller) -> Result<Json<Health>, ApiError> {
    permit(caller)?;
    let now = api.now();
    let mut partitions = Vec::with_capacity(usize::from(Partition::COUNT));
    for partition in Partition::all() {
        partitions.push(api.partition(partition).await?);
    }
    let (images, names, bytes) = api.read(crate::view::View::sizes).await?;
    let marks = api.marks.get(&api.store, now).await.map_err(internal)?;
    let head = head(&api.store).await?;
    let data_at = marks.data_at();
    let is_behind = partitions.iter().any(|partition| partition.lag > 0);
    Ok(Json(Health {
        status: if is_behind { "catching_up" } else { "ok" },
        view: ViewHealth {
            images,
            names,
            bytes,
        },
        partitions,
        advisories: AdvisoryHealth {
            revision: head.as_ref().map_or(0, |head| head.revision),
            swept: marks.revision(),
            published_at: head.map(|head| head.published_at),
            data_at,
            age_seconds: data_at.map(|at| now.duration_since(at).as_secs()),
        },
    }))
}

// === impl Api ===

impl Api {
    async fn partition(&self, partition: Partition) -> Result<PartitionHealth, ApiError> {
        let bucket = images_bucket(partition);
        let last = match &self.bus {
            Some(bus) => bus.last_sequence(&bucket).await.map_err(internal)?,
            None => 0,
        };
        let cursor = self.read(move |view| view.cursor(&bucket)).await?;
        let lag = last.saturating_sub(cursor);
        Ok(PartitionHealth {
            partition: partition.to_string(),
            cursor,
            last,
            lag,
        })
    }
}
