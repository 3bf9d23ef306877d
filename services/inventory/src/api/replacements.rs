//! `GET /v1/replacements`: images with a better successor, and what still runs the old one.
//!
//! A successor is what the container's tag leads to now, where that is another image with a better
//! verdict. Where a tag leads to several platforms, that of the image that runs counts.
//!
//! Names are looked at one after another, each with all that runs under it, so a page costs what its
//! names run and not what the fleet does. A page ends after so many items or so many containers that
//! were looked at, whichever comes first; the cursor says with which name and images it ended, so
//! what changes in between moves no other row.

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

use super::{Api, Caller, internal, join::Join, page::Bounds, permit};
use crate::view::{View, running_key, tenant_prefix};

/// Containers of one image that are named.
const NAMED_MAX: usize = 100;
/// Containers that are read at once.
const CHUNK: usize = 1_000;

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

/// Where a page ended: with a name, or with an image of it and its successor.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    name: String,
    within: Option<(Digest, Digest)>,
}

/// What runs of an image under a name.
#[derive(Default)]
struct Running {
    decision: Option<Decision>,
    count: usize,
    nodes: BTreeSet<Slug>,
    /// The first of them, by node and id.
    first: Vec<(Slug, String)>,
}

/// An image that a name leads to now, and what policy says of it.
#[derive(Clone, Copy)]
struct Successor {
    image: Digest,
    decision: Decision,
}

/// What runs under one name, by image.
type Named = BTreeMap<Digest, Running>;

/// `GET /v1/replacements`.
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Replacement>>, ApiError> {
    let tenant = permit(caller)?;
    let bounds = api.bounds(&query, &tenant)?;
    let from = bounds.after.as_deref();
    let from = from.map(|key| Place::parse(&tenant, key).ok_or_else(PageQuery::foreign));
    let from = from.transpose()?;
    let now = api.now();
    let marks = api.marks.get(&api.store, now).await.map_err(internal)?;
    let page = api
        .read(move |view| {
            let mut join = Join::new(view, &tenant, &marks, now);
            page((view, &tenant), &mut join, (from, &bounds))
        })
        .await?;
    Ok(Json(page))
}

fn page(
    (view, tenant): (&View, &Slug),
    join: &mut Join<'_>,
    (mut place, bounds): (Option<Place>, &Bounds),
) -> Result<Page<Replacement>, CacheError> {
    let (mut items, mut examined) = (Vec::new(), 0_usize);
    let ends = |items, place: Option<Place>| {
        let next = place.map(|place| PageQuery::cursor(&place.key(tenant)));
        Ok(Page { items, next })
    };
    loop {
        let within = place.as_ref().and_then(|place| place.within);
        let name = match &place {
            Some(place) if within.is_some() => Some(place.name.clone()),
            _ => view.running_name(tenant, place.as_ref().map(|place| &*place.name))?,
        };
        let Some(name) = name else {
            return ends(items, None);
        };
        if examined >= bounds.examined_max {
            return ends(items, place);
        }
        let named = running((view, tenant), join, &name, &mut examined)?;
        for (old, new) in successors((view, tenant), join, (&name, &named))? {
            if within.is_some_and(|within| (old, new.image) <= within) {
                continue;
            }
            if items.len() >= bounds.limit {
                return ends(items, place);
            }
            items.push(replacement((view, tenant), (&name, &named), old, new)?);
            place = Some(Place {
                name: name.clone(),
                within: Some((old, new.image)),
            });
        }
        place = Some(Place { name, within: None });
    }
}

/// What runs under a name, and how many containers that are.
fn running(
    (view, tenant): (&View, &Slug),
    join: &mut Join<'_>,
    name: &str,
    examined: &mut usize,
) -> Result<Named, CacheError> {
    let mut named = Named::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let chunk = view.running(tenant, name, after.as_deref(), CHUNK)?;
        let is_last = chunk.len() < CHUNK;
        *examined = examined.saturating_add(chunk.len());
        for one in chunk {
            after = Some(one.key);
            let joined = join.image_behind(&one.node, one.digests, name)?;
            let [image] = joined.images.as_slice() else {
                continue;
            };
            let running = named.entry(*image).or_insert_with(|| Running {
                decision: joined.decision,
                ..Running::default()
            });
            running.count = running.count.saturating_add(1);
            if running.first.len() < NAMED_MAX {
                running.first.push((one.node.clone(), one.id));
            }
            running.nodes.insert(one.node);
        }
        if is_last {
            return Ok(named);
        }
    }
}

/// Images that run under a name and have a better successor, each with it and with what policy says
/// of that; in order.
fn successors(
    (view, tenant): (&View, &Slug),
    join: &mut Join<'_>,
    (name, named): (&str, &Named),
) -> Result<Vec<(Digest, Successor)>, CacheError> {
    let mut found = Vec::new();
    let Ok(reference) = name.parse::<ImageRef>() else {
        return Ok(found);
    };
    let now = view.named(tenant, &reference.name(), reference.tag.as_deref())?;
    for (old, running) in named {
        let (Some(old_decision), Some(node)) = (running.decision, running.nodes.first()) else {
            continue;
        };
        if now.contains(old) {
            continue;
        }
        let Some(platform) = view.image(tenant, *old)?.map(|image| image.platform()) else {
            continue;
        };
        for new in &now {
            let image = view.image(tenant, *new)?;
            if image.is_none_or(|image| image.platform() != platform) {
                continue;
            }
            let decision = join.image_behind(node, vec![*new], name)?.decision;
            if let Some(decision) = decision.filter(|decision| *decision < old_decision) {
                let image = *new;
                found.push((*old, Successor { image, decision }));
            }
        }
    }
    Ok(found)
}

fn replacement(
    (view, tenant): (&View, &Slug),
    (name, named): (&str, &Named),
    old: Digest,
    new: Successor,
) -> Result<Replacement, CacheError> {
    let none = Running::default();
    let of = |image| named.get(image).unwrap_or(&none);
    let (old_runs, new_runs) = (of(&old), of(&new.image));
    let mut containers = Vec::with_capacity(old_runs.first.len());
    for (node, id) in &old_runs.first {
        // One that ended since is not there any more.
        let placed = view.container(tenant, node, id)?;
        containers.extend(placed.map(|placed| Outdated {
            node: placed.node,
            id: placed.container.id,
            name: placed.container.name,
            owner: placed.container.owner,
        }));
    }
    let done = new_runs.nodes.difference(&old_runs.nodes);
    Ok(Replacement {
        image: name.to_owned(),
        old,
        old_decision: old_runs.decision,
        new: new.image,
        new_decision: Some(new.decision),
        old_running: old_runs.count,
        new_running: new_runs.count,
        done_nodes: done.cloned().collect(),
        old_nodes: old_runs.nodes.clone(),
        containers,
    })
}

// === impl Place ===

impl Place {
    fn key(&self, tenant: &Slug) -> Vec<u8> {
        let mut key = running_key(tenant, &self.name);
        for image in self.within.iter().flat_map(|(old, new)| [old, new]) {
            key.extend_from_slice(image.as_bytes());
        }
        key
    }

    /// Reads the client's word.
    fn parse(tenant: &Slug, key: &[u8]) -> Option<Self> {
        let rest = key.strip_prefix(&*tenant_prefix(tenant))?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (name, images) = rest.split_at_checked(end)?;
        let name = std::str::from_utf8(name).ok()?.to_owned();
        let within = match images.get(1..)? {
            [] => None,
            images => {
                let (old, new) = images.split_first_chunk()?;
                let new = new.try_into().ok()?;
                Some((Digest::from_bytes(*old), Digest::from_bytes(new)))
            }
        };
        Some(Self { name, within })
    }
}
