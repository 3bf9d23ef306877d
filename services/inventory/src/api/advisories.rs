//! `GET /v1/advisories`: the advisory data in force.

use axum::{Json, extract::State};
use bus::Store;
use chassis::http::ApiError;
use jiff::Timestamp;
use model::{
    AdvisoryHead, AdvisoryManifest, Feed,
    event::{ADVISORIES, FEED_OBJECTS},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, Caller, internal, permit};

/// The advisory data in force.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Advisories {
    /// 0: there are none yet.
    revision: u64,
    /// When they came into force.
    #[schemars(with = "Option<model::schema::Time>")]
    published_at: Option<Timestamp>,
    /// Where they are from.
    feeds: Vec<Feed>,
}

/// `GET /v1/advisories`.
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Json<Advisories>, ApiError> {
    permit(caller)?;
    let Some(head) = head(&api.store).await? else {
        return Ok(Json(Advisories {
            revision: 0,
            published_at: None,
            feeds: Vec::new(),
        }));
    };
    let manifest = api
        .store
        .object::<AdvisoryManifest>(FEED_OBJECTS, &head.manifest)
        .await;
    let manifest = manifest.map_err(internal)?.unwrap_or_default();
    Ok(Json(Advisories {
        revision: head.revision,
        published_at: Some(head.published_at),
        feeds: manifest.feeds,
    }))
}

/// The head, if there is one.
pub(super) async fn head(store: &Store) -> Result<Option<AdvisoryHead>, ApiError> {
    let stored = store
        .get::<AdvisoryHead>(ADVISORIES, "head")
        .await
        .map_err(internal)?;
    Ok(stored.map(|stored| stored.body))
}
