//! `GET /v1/vulnerabilities/{id}/images`: which images have it.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use cache::CacheError;
use chassis::http::{ApiError, Page, PageQuery};
use model::{Digest, Platform, Slug};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, Caller, page, permit};
use crate::view::{Hit, View, vulnerability_key};

/// An image with a vulnerability.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Affected {
    /// The image.
    image: Digest,
    /// Its platform.
    platform: Platform,
    /// The names that lead to it now.
    references: Vec<String>,
    /// Its packages that have the vulnerability.
    packages: Vec<Hit>,
}

/// `GET /v1/vulnerabilities/{id}/images`. An alias finds what its vulnerability finds.
pub(super) async fn images(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Affected>>, ApiError> {
    let tenant = permit(caller)?;
    let (limit, after) = (query.limit()?, page::after(&query, &tenant)?);
    let page = api
        .read(move |view| affected(view, &tenant, &id, after.as_deref(), limit))
        .await?;
    Ok(Json(page))
}

fn affected(
    view: &View,
    tenant: &Slug,
    id: &str,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Page<Affected>, CacheError> {
    let mut items = Vec::new();
    for name in view.vulnerability_names(tenant, id)? {
        // Names are in order, and so are the keys: what lies before the cursor was on a page.
        let last = vulnerability_key(tenant, &name, Digest::from_bytes([u8::MAX; 32]));
        if after.is_some_and(|after| after > last.as_slice()) {
            continue;
        }
        let first = vulnerability_key(tenant, &name, Digest::from_bytes([0; 32]));
        let after = after.filter(|after| *after >= first.as_slice());
        let after = after.and_then(|after| after.last_chunk::<32>()).copied();
        let room = limit.saturating_sub(items.len());
        let found = view.affected(tenant, &name, after.map(Digest::from_bytes), room)?;
        let is_full = found.len() >= room;
        let end = found
            .last()
            .map(|(image, _)| vulnerability_key(tenant, &name, *image));
        for (image, packages) in found {
            items.push(row(view, tenant, image, packages)?);
        }
        if is_full {
            return Ok(Page {
                items,
                next: end.map(|key| PageQuery::cursor(&key)),
            });
        }
    }
    Ok(Page { items, next: None })
}

fn row(
    view: &View,
    tenant: &Slug,
    image: Digest,
    packages: Vec<Hit>,
) -> Result<Affected, CacheError> {
    let known = view.image(tenant, image)?.and_then(|image| image.known);
    let references = known.iter().flat_map(model::Known::names).collect();
    let platform = known.map(|known| known.platform).unwrap_or_default();
    Ok(Affected {
        image,
        platform,
        references,
        packages,
    })
}
