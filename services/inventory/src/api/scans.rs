//! `GET /v1/scans/{id}?wait=SECONDS`: what became of a scan request.
//!
//! An id that nobody asked for is pending like one whose request is on its way, for what the
//! gateway has accepted may still be in its spool.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use bus::StoreError;
use chassis::http::ApiError;
use jiff::Timestamp;
use model::{
    Decision, Digest, Known, RecordKey, ScanRequestRecord, Scanned, Slug, Verdict, What, answer,
    event::{REFS, images_bucket},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    Api, Caller, bad_parameter, internal, permit,
    verdicts::{ImageVerdict, overall},
};
use crate::view::platform;

const WAIT_SECONDS_MAX: u64 = 120;
const ID_CHARS_MAX: usize = 64;

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScanQuery {
    /// Answer when there is a verdict, or after so many seconds.
    #[serde(default)]
    #[schemars(range(max = 120))]
    wait: u64,
}

/// What became of a request.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct ScanStatus {
    /// The request.
    id: String,
    /// How far it got.
    state: ScanState,
    /// What was asked for; null while nobody knows.
    reference: Option<String>,
    /// The index between, if any.
    index_digest: Option<Digest>,
    /// Why it led nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// When it was resolved.
    #[schemars(with = "Option<model::schema::Time>")]
    resolved_at: Option<Timestamp>,
    /// The worst of all images, once every one has a verdict.
    decision: Option<Decision>,
    /// That verdict.
    verdict: Option<Verdict>,
    /// Each image's.
    images: Vec<ImageVerdict>,
}

/// How far a request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ScanState {
    /// Not resolved yet.
    Pending,
    /// Its images are known; not all have their verdict.
    Resolved,
    /// Every image has its verdict.
    Done,
    /// It led to no image.
    Failed,
}

/// `GET /v1/scans/{id}`.
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<ScanQuery>,
) -> Result<Json<ScanStatus>, ApiError> {
    let tenant = permit(caller)?;
    if query.wait > WAIT_SECONDS_MAX {
        let what = format!("{} is more than {WAIT_SECONDS_MAX} seconds", query.wait);
        return Err(bad_parameter("wait", what));
    }
    let is_id = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if id.is_empty() || id.len() > ID_CHARS_MAX || !id.chars().all(is_id) {
        return Err(ApiError::not_found("that is not the id of a scan request")
            .hint("`POST /v1/scans` answers with the id and with the address to ask"));
    }
    let until = Instant::now() + Duration::from_secs(query.wait);
    api.wait_for(&tenant, &id, until)
        .await
        .map(Json)
        .map_err(internal)
}

// === impl Api ===

impl Api {
    /// Waits for the request to be resolved, then for its images to be judged.
    async fn wait_for(
        &self,
        tenant: &Slug,
        id: &str,
        until: Instant,
    ) -> Result<ScanStatus, StoreError> {
        let record_key = ScanRequestRecord::key(tenant, id);
        let keys = [format!("{REFS}/{record_key}")];
        let store = self.store.clone();
        let find = move || {
            let (store, key) = (store.clone(), record_key.clone());
            async move { store.get::<ScanRequestRecord>(REFS, &key).await }
        };
        let Some(record) = self.wait(&keys, until, find).await? else {
            return Ok(ScanStatus::pending(id));
        };
        let record = record.body;
        let keys = record.images.iter().map(|image| {
            let bucket = images_bucket(image.partition());
            format!("{bucket}/{tenant}.{}.judged", image.hex())
        });
        let keys: Vec<String> = keys.collect();
        let asked = (self.clone(), tenant.clone(), id.to_owned(), record.clone());
        let done = move || {
            let (api, tenant, id, record) = asked.clone();
            async move {
                let status = api.status(&tenant, &id, &record).await?;
                Ok((status.state != ScanState::Resolved).then_some(status))
            }
        };
        match self.wait(&keys, until, done).await? {
            Some(done) => Ok(done),
            None => self.status(tenant, id, &record).await,
        }
    }

    async fn wait<T>(
        &self,
        keys: &[String],
        until: Instant,
        check: impl AsyncFn() -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        match &self.bus {
            Some(bus) if until > Instant::now() => bus.wait(keys, until, check).await,
            _ => check().await,
        }
    }

    async fn status(
        &self,
        tenant: &Slug,
        id: &str,
        record: &ScanRequestRecord,
    ) -> Result<ScanStatus, StoreError> {
        let mut images = Vec::with_capacity(record.images.len());
        for image in &record.images {
            images.push(self.image_verdict(tenant, *image, record).await?);
        }
        let verdict = overall(&images);
        let state = match (&record.error, &verdict) {
            (Some(_), _) => ScanState::Failed,
            (None, Some(_)) => ScanState::Done,
            (None, None) => ScanState::Resolved,
        };
        Ok(ScanStatus {
            id: id.to_owned(),
            state,
            reference: Some(record.reference.clone()),
            index_digest: record.index,
            error: record.error.clone(),
            resolved_at: Some(record.resolved_at),
            decision: verdict.as_ref().map(|verdict| verdict.decision),
            verdict,
            images,
        })
    }

    /// The verdict on an image, if it rests on a scan that is new enough for the request.
    async fn image_verdict(
        &self,
        tenant: &Slug,
        image: Digest,
        record: &ScanRequestRecord,
    ) -> Result<ImageVerdict, StoreError> {
        let key = RecordKey::new(tenant, image, What::Scanned);
        let scanned = self.store.record::<Scanned>(&key).await?;
        let known = self
            .store
            .record::<Known>(&key.sibling(What::Known))
            .await?;
        let config = scanned.map(|scanned| scanned.body.config);
        let of_index = || known.map(|known| known.body.platform);
        let platform = platform(config.as_ref(), of_index);
        let answers = self.store.verdicts(tenant, image, self.now()).await?;
        let chosen = answer::of_request(record, &image, &answers);
        let verdict = chosen.map(|answer| answer.verdict.clone());
        Ok(ImageVerdict {
            image,
            platform,
            verdict,
        })
    }
}

// === impl ScanStatus ===

impl ScanStatus {
    fn pending(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            state: ScanState::Pending,
            reference: None,
            index_digest: None,
            error: None,
            resolved_at: None,
            decision: None,
            verdict: None,
            images: Vec::new(),
        }
    }
}
