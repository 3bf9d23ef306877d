//! Handing in advisories: an object and a key in the inbox, which the leader takes up.

use axum::{
    Json, Router,
    body::Bytes as Body,
    extract::{Query, State},
    http::StatusCode,
};
use bus::Store;
use bytes::Bytes;
use chassis::http::{Access, ApiError, Operation, Route, body_limit};
use jiff::Timestamp;
use model::{
    AdvisoryInbox, Fingerprint,
    event::{ADVISORIES, FEED_OBJECTS},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::{FeedLimits, Import, Mode, download, feeds, leader::INBOX, stage};

const ADMIN: Access = Access::Scope("admin");
const ZIP: &str = "application/zip";

/// What the routes need.
#[derive(Clone)]
pub(crate) struct Uploads {
    store: Store,
    clock: Arc<dyn chassis::Clock>,
}

/// The query of `PUT /v1/advisories`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// The feed that the records belong to.
    feed: String,
    /// Whether the records are added to the feed, or are all of it.
    #[serde(default)]
    mode: WantedMode,
    /// When they were fetched; now where it is not said.
    #[serde(default)]
    #[schemars(with = "Option<model::schema::Time>")]
    fetched_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WantedMode {
    /// They are added, and replace older ones of the same name.
    #[default]
    Merge,
    /// They are all of it: what is missing is withdrawn.
    Replace,
}

/// The answer of `PUT /v1/advisories`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AdvisoriesAccepted")]
struct Accepted {
    /// The key in the inbox; it is gone when the records are in force.
    inbox: String,
    /// The feed.
    feed: String,
    /// How many bytes came.
    bytes: usize,
}

/// The routes; whoever mounts them brings an `Extension<Arc<dyn Tokens>>`.
pub fn routes(store: Store, clock: Arc<dyn chassis::Clock>, limits: &FeedLimits) -> Router {
    let most = usize::try_from(limits.archive_bytes_max).unwrap_or(usize::MAX);
    let downloads = chassis::http::router(download::table(), store.clone());
    let uploads = chassis::http::router(table(), Uploads { store, clock });
    uploads.layer(body_limit(most)).merge(downloads)
}

/// What is to be said of the routes.
pub fn operations() -> Vec<Operation> {
    let mut all = chassis::http::operations(table());
    all.extend(chassis::http::operations(download::table()));
    all
}

/// The table of routes.
pub(crate) fn table() -> Vec<Route<Uploads>> {
    vec![
        ADMIN
            .put(
                "/v1/advisories",
                "putAdvisories",
                "Hands in advisories",
                upload,
            )
            .detail(
                "The body is a zip of OSV records, as OSV.dev's `all.zip`; or, for a vendor's feed, a \
                 zip or compressed tar of its files.",
            )
            .query::<Wanted>()
            .body_of(ZIP)
            .answers::<Accepted>(
                StatusCode::ACCEPTED,
                "they are stored, and come into force soon",
            ),
    ]
}

/// Stores records for the leader to take up. Doing it again with the same time changes nothing.
///
/// The object is this entry's alone: its first bytes name feed, mode and time. So whoever is done
/// with another entry of the same records does not delete it.
pub async fn hand_in(store: &Store, import: &Import, zip: Bytes) -> anyhow::Result<String> {
    stage::check_feed(&import.feed)?;
    let (replace, increment) = (import.mode == Mode::Replace, import.mode == Mode::Increment);
    let mode = match import.mode {
        Mode::Replace => "replace",
        Mode::Increment => "increment",
        Mode::Merge => "merge",
    };
    let (feed, fetched_at) = (&import.feed, import.fetched_at);
    let front = format!("{feed}\n{mode}\n{fetched_at}\n");
    let object = [front.as_bytes(), &zip].concat();
    let entry = AdvisoryInbox {
        object: store.put_object_bytes(FEED_OBJECTS, object.into()).await?,
        offset: front.len() as u64,
        feed: import.feed.clone(),
        replace,
        increment,
        fetched_at,
        revision: import.revision.clone(),
    };
    let key = format!("{INBOX}{}", Fingerprint::of(&[&entry.object.hex()]));
    store.put(ADVISORIES, &key, &entry, None).await?;
    Ok(key)
}

async fn upload(
    State(uploads): State<Uploads>,
    Query(wanted): Query<Wanted>,
    body: Body,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    stage::check_feed(&wanted.feed).map_err(|error| ApiError::bad_request(error.to_string()))?;
    if !feeds::is_packed(&body) {
        return Err(ApiError::bad_request(
            "the body is neither a zip of OSV records nor a compressed tar",
        ));
    }
    let import = Import {
        feed: wanted.feed,
        mode: match wanted.mode {
            WantedMode::Merge => Mode::Merge,
            WantedMode::Replace => Mode::Replace,
        },
        fetched_at: wanted.fetched_at.unwrap_or_else(|| uploads.clock.now()),
        revision: None,
    };
    let bytes = body.len();
    let inbox = hand_in(&uploads.store, &import, body).await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(Accepted {
            inbox,
            feed: import.feed,
            bytes,
        }),
    ))
}
