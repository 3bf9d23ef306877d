//! Handing out the revision in force, as an export that lies unpacked: one download per
//! installation, from which everybody else has it.

use axum::{
    extract::{Path, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bus::Store;
use chassis::http::{Access, ApiError, Route};
use model::{
    AdvisoryHead, AdvisoryManifest, Digest,
    event::{ADVISORIES, FEED_OBJECTS},
};

use crate::{
    feeds,
    head::{HEAD, SHARD_BYTES_MAX},
};

const READ: Access = Access::Scope("read");
const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// The table of routes.
pub(crate) fn table() -> Vec<Route<Store>> {
    vec![
        READ.get(
            "/v1/advisories/tidewaiter-export.json",
            "getAdvisoryManifest",
            "Names the advisories in force",
            manifest,
        )
        .detail(
            "A manifest of feeds and shards, as in an export: `tidewaiter db update --from` takes it, \
             and fetches the shards that differ from its own.",
        )
        .never_same()
        .answers_with(StatusCode::OK, JSON, "the manifest")
        .refuses(StatusCode::NOT_FOUND, "there are no advisories yet"),
        READ.get(
            "/v1/advisories/shards/{digest}",
            "getAdvisoryShard",
            "Gives some of the advisories",
            shard,
        )
        .never_same()
        .path::<String>("digest", "The digest that the manifest names: 64 hex digits")
        .answers_with(StatusCode::OK, BYTES, "the shard")
        .refuses(StatusCode::BAD_REQUEST, "the digest is none")
        .refuses(StatusCode::NOT_FOUND, "no revision names it any more"),
    ]
}

async fn manifest(State(store): State<Store>) -> Result<Response, ApiError> {
    let none = || ApiError::not_found("there are no advisories yet");
    let head = store.get::<AdvisoryHead>(ADVISORIES, HEAD).await;
    let head = head.map_err(anyhow::Error::from)?.ok_or_else(none)?.body;
    let manifest = store.object::<AdvisoryManifest>(FEED_OBJECTS, &head.manifest);
    let manifest = manifest.await.map_err(anyhow::Error::from)?;
    let manifest = manifest.ok_or_else(none)?;
    let document = feeds::document(&manifest, head.published_at)?;
    Ok(([(CONTENT_TYPE, JSON)], document).into_response())
}

async fn shard(
    State(store): State<Store>,
    Path(digest): Path<String>,
) -> Result<Response, ApiError> {
    let Some(digest) = Digest::from_hex(&digest) else {
        return Err(ApiError::bad_request("a digest is 64 hex digits"));
    };
    let bytes = store.object_bytes(FEED_OBJECTS, &digest, SHARD_BYTES_MAX);
    match bytes.await.map_err(anyhow::Error::from)? {
        Some(bytes) => Ok(([(CONTENT_TYPE, BYTES)], bytes).into_response()),
        None => Err(ApiError::not_found("no revision names this shard any more")),
    }
}

#[cfg(test)]
mod tests;
