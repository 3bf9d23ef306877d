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

use super::{Api, Caller, page::Bounds, permit};
use crate::view::{Hit, View, vulnerability_key};

/// Images that are read at once.
const CHUNK: usize = 128;

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
    let bounds = Bounds {
        examined_max: usize::MAX,
        ..api.bounds(&query, &tenant)?
    };
    let page = api
        .read(move |view| {
            walk(view, &tenant, &id, &bounds, |image, packages| {
                row(view, &tenant, image, packages).map(Some)
            })
        })
        .await?;
    Ok(Json(page))
}

/// A page of what `row` makes of images with a vulnerability.
pub(super) fn walk<T>(
    view: &View,
    tenant: &Slug,
    id: &str,
    bounds: &Bounds,
    mut row: impl FnMut(Digest, Vec<Hit>) -> Result<Option<T>, CacheError>,
) -> Result<Page<T>, CacheError> {
    let (mut items, mut examined, mut end) = (Vec::new(), 0_usize, None);
    for name in view.vulnerability_names(tenant, id)? {
        // Names are in order, and so are the keys: what lies before the cursor was on a page.
        let last = vulnerability_key(tenant, &name, Digest::from_bytes([u8::MAX; 32]));
        if bounds.after.as_ref().is_some_and(|after| *after > last) {
            continue;
        }
        let first = vulnerability_key(tenant, &name, Digest::from_bytes([0; 32]));
        let after = bounds.after.as_ref().filter(|after| **after >= first);
        let after = after.and_then(|after| after.last_chunk::<32>()).copied();
        let mut after = after.map(Digest::from_bytes);
        loop {
            let found = view.affected(tenant, &name, after, CHUNK)?;
            let is_last = found.len() < CHUNK;
            for (image, packages) in found {
                if items.len() >= bounds.limit || examined >= bounds.examined_max {
                    let next = end.map(|key: Vec<u8>| PageQuery::cursor(&key));
                    return Ok(Page { items, next });
                }
                examined = examined.saturating_add(1);
                items.extend(row(image, packages)?);
                end = Some(vulnerability_key(tenant, &name, image));
                after = Some(image);
            }
            if is_last {
                break;
            }
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
    let known = view.image(tenant, image)?.unwrap_or_default();
    let references = known.known.iter().flat_map(model::Known::names);
    let references = references.collect();
    Ok(Affected {
        image,
        platform: known.platform(),
        references,
        packages,
    })
}
