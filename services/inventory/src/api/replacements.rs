//! `GET /v1/replacements`: images with a better successor, and what still runs the old one.
//!
//! A successor is what the container's tag leads to now, where that is another image with a better
//! verdict. Where a tag leads to several platforms, that of the image that runs counts.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Json,
    extract::{Query, State},
};
use cache::CacheError;
use chassis::http::{ApiError, Page, PageQuery};
use model::{Decision, Digest, ImageRef, Slug};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, Caller, internal, join::Join, permit};
use crate::view::{Placed, View};

/// Containers that are looked at, and those of one image that are named.
const EXAMINED_MAX: usize = 50_000;
const NAMED_MAX: usize = 100;
/// Containers that are read at once.
const CHUNK: usize = 500;

/// An image that should be replaced, and how far that is.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Replacement {
    /// The name, as containers ask for it.
    image: String,
    /// What still runs.
    old: Digest,
    /// What policy says of it.
    old_decision: Option<Decision>,
    /// What the name leads to now.
    new: Digest,
    /// What policy says of that.
    new_decision: Option<Decision>,
    /// How many containers run the old one.
    old_running: usize,
    /// How many run the new one.
    new_running: usize,
    /// Nodes where the old one runs.
    old_nodes: BTreeSet<Slug>,
    /// Nodes where only the new one runs: they are done.
    done_nodes: BTreeSet<Slug>,
    /// Containers that run the old one; of many some.
    containers: Vec<Outdated>,
}

/// A container that runs an image with a successor.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OutdatedContainer")]
struct Outdated {
    /// The node.
    node: Slug,
    /// The runtime's id.
    id: String,
    /// Its name.
    name: String,
    /// What owns it there.
    owner: Option<String>,
}

/// What runs under one name.
#[derive(Default)]
struct Named {
    /// By image: what policy says, and where it runs.
    images: BTreeMap<Digest, (Option<Decision>, Vec<Placed>)>,
}

/// `GET /v1/replacements`.
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Replacement>>, ApiError> {
    let tenant = permit(caller)?;
    query.limit()?;
    let now = api.now();
    let marks = api.marks.get(&api.store, now).await.map_err(internal)?;
    let found = api
        .read(move |view| {
            let mut join = Join::new(view, &tenant, &marks, now);
            let named = running((view, &tenant), &mut join)?;
            let mut found = Vec::new();
            for (name, named) in named {
                successors((view, &tenant), &mut join, (&name, named), &mut found)?;
            }
            Ok(found)
        })
        .await?;
    let keyed = found.into_iter();
    let keyed = keyed.map(|one| (format!("{}@{}", one.image, one.old.hex()), one));
    Page::of(keyed, &query).map(Json)
}

/// What runs, by the name that it was asked for.
fn running(
    (view, tenant): (&View, &Slug),
    join: &mut Join<'_>,
) -> Result<BTreeMap<String, Named>, CacheError> {
    let mut all: BTreeMap<String, Named> = BTreeMap::new();
    let (mut after, mut examined): (Option<Vec<u8>>, usize) = (None, 0);
    loop {
        let page = view.containers(tenant, None, after.as_deref(), CHUNK)?;
        let is_last = page.len() < CHUNK;
        for placed in page {
            after = Some(placed.key.clone());
            examined = examined.saturating_add(1);
            if !placed.runs() {
                continue;
            }
            let joined = join.image_of(&placed.node, &placed.container)?;
            let [image] = joined.images.as_slice() else {
                continue;
            };
            let named = all.entry(placed.container.image.clone()).or_default();
            let entry = named.images.entry(*image);
            let (_, places) = entry.or_insert_with(|| (joined.decision, Vec::new()));
            places.push(placed);
        }
        if is_last || examined >= EXAMINED_MAX {
            return Ok(all);
        }
    }
}

/// Adds the images of a name that have a better successor.
fn successors(
    (view, tenant): (&View, &Slug),
    join: &mut Join<'_>,
    (name, named): (&str, Named),
    found: &mut Vec<Replacement>,
) -> Result<(), CacheError> {
    let Some(reference) = name
        .parse::<ImageRef>()
        .ok()
        .filter(|name| name.digest.is_none())
    else {
        return Ok(());
    };
    let now = view.named(tenant, &reference.name(), reference.tag.as_deref())?;
    for (old, (old_decision, places)) in &named.images {
        if now.contains(old) {
            continue;
        }
        let Some(platform) = view.image(tenant, *old)?.map(|image| image.platform()) else {
            continue;
        };
        let Some(node) = places.first().map(|placed| &placed.node) else {
            continue;
        };
        for new in &now {
            let image = view.image(tenant, *new)?;
            if image.is_none_or(|image| image.platform() != platform) {
                continue;
            }
            let new_decision = join.image_behind(node, vec![*new], name)?.decision;
            let is_better = match (old_decision, new_decision) {
                (Some(old), Some(new)) => new < *old,
                _ => false,
            };
            if is_better {
                let successor = (*new, new_decision);
                found.push(replacement(name, (*old, *old_decision), successor, &named));
            }
        }
    }
    Ok(())
}

fn replacement(
    name: &str,
    (old, old_decision): (Digest, Option<Decision>),
    (new, new_decision): (Digest, Option<Decision>),
    named: &Named,
) -> Replacement {
    let places = |image| {
        named
            .images
            .get(image)
            .map_or(&[][..], |(_, places)| places)
    };
    let nodes = |places: &[Placed]| -> BTreeSet<Slug> {
        places.iter().map(|placed| placed.node.clone()).collect()
    };
    let (old_places, new_places) = (places(&old), places(&new));
    let (old_nodes, new_nodes) = (nodes(old_places), nodes(new_places));
    let containers = old_places.iter().take(NAMED_MAX).map(|placed| Outdated {
        node: placed.node.clone(),
        id: placed.container.id.clone(),
        name: placed.container.name.clone(),
        owner: placed.container.owner.clone(),
    });
    Replacement {
        image: name.to_owned(),
        old,
        old_decision,
        new,
        new_decision,
        old_running: old_places.len(),
        new_running: new_places.len(),
        done_nodes: new_nodes.difference(&old_nodes).cloned().collect(),
        old_nodes,
        containers: containers.collect(),
    }
}
