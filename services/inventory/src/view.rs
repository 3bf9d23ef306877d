//! The view: a summary per image, and indexes from names, vulnerabilities and packages to images.
//!
//! Keys begin with the tenant, so no scan of one tenant can reach another. Values of an index are
//! small; what is big stays an object and is read when somebody asks. Many images have the same
//! list of packages: it is in the index once per tenant, and goes with the last of its images.

mod anew;
mod connections;
mod image;
mod keys;
mod nodes;
mod ordered;
mod rows;
mod running;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use cache::{Batch, CacheError, Database, Schema};
use model::{
    Assessed, Digest, Judged, Known, PackageType, RecordKey, Scanned, Severity, Slug,
    Vulnerability, What,
    runtime::{Incident, NodeConnections, NodeRecord, ResponseRecord},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    image::{AssessedView, ScannedView},
    rows::Rows,
};
pub(crate) use self::{
    image::{ImageView, JudgedView, platform},
    keys::{
        NameKey, of_image as vulnerability_key, running_of as running_key, tenant as tenant_prefix,
    },
    nodes::{Holder, NodeKey, NodeView, Placed, digests, digests_at_rest},
    ordered::{Entry, IncidentKey, Ordered},
    rows::{PackageRows, VulnerabilityRows},
};
use crate::metrics;

const CURSORS: &str = "cursors";
const IMAGES: &str = "images";
const NAMES: &str = "names";
const LEADS: &str = "leads";
const VULNERABILITIES: &str = "vulnerabilities";
const ALIASES: &str = "aliases";
const PACKAGES: &str = "packages";
const LISTS: &str = "lists";
const MEMBERS: &str = "members";
const INDEXED: &str = "indexed";
const NODES: &str = "nodes";
const CONTAINERS: &str = "containers";
const CONTAINER_IDS: &str = "container_ids";
const HOLDERS: &str = "holders";
const RUNNING: &str = "running";
const CONNECTIONS: &str = "connections";
const ADDRESSES: &str = "addresses";
const INCIDENTS: &str = "incidents";
const INCIDENT_ORDER: &str = "incident_order";
const INCIDENT_PLACES: &str = "incident_places";
const RESPONSES: &str = "responses";
const RESPONSE_ORDER: &str = "response_order";

const SCHEMA: Schema<'_> = Schema {
    version: 7,
    families: &[
        CURSORS,
        IMAGES,
        NAMES,
        LEADS,
        VULNERABILITIES,
        ALIASES,
        PACKAGES,
        LISTS,
        MEMBERS,
        INDEXED,
        NODES,
        CONTAINERS,
        CONTAINER_IDS,
        HOLDERS,
        RUNNING,
        CONNECTIONS,
        ADDRESSES,
        INCIDENTS,
        INCIDENT_ORDER,
        INCIDENT_PLACES,
        RESPONSES,
        RESPONSE_ORDER,
    ],
};

/// The view; shared by who fills it and who asks.
#[derive(Debug)]
pub(crate) struct View {
    database: Database,
    /// Who has a list is read and written without another in between.
    lists: Mutex<()>,
}

/// What a record says, with what the indexes need of its object.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    Known(Known),
    /// `None`: the object is gone, so a newer record follows.
    Scanned(Scanned, Option<Arc<PackageRows>>),
    Assessed(Assessed, Option<Arc<VulnerabilityRows>>),
    Judged(Box<Judged>),
    /// The record was deleted.
    Gone,
}

/// What a key of a followed bucket says.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// A record of an image.
    Image(RecordKey, Box<Fact>),
    /// What a node reported last; `None`: it is not one any more.
    Node(NodeKey, Option<Box<NodeRecord>>),
    /// Whom a node's containers speak with; `None`: nobody knows any more.
    Connections(NodeKey, Option<Box<NodeConnections>>),
    /// An incident; `None`: it is forgotten.
    Incident(IncidentKey, Option<Box<Incident>>),
    /// The answer to an incident; `None`: it is forgotten.
    Response(IncidentKey, Option<Box<ResponseRecord>>),
}

/// A change of a bucket, in order.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) bucket: String,
    pub(crate) sequence: u64,
    /// `None`: a key that is not one of these, or that nobody can read.
    pub(crate) told: Option<Told>,
}

/// What a digest leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Image,
    Index,
    Config,
}

/// A package of an image with a vulnerability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AffectedPackage")]
pub(crate) struct Hit {
    /// The vulnerability.
    pub(crate) id: String,
    /// The package's name.
    pub(crate) package: String,
    /// The package's kind.
    #[serde(rename = "type")]
    pub(crate) kind: PackageType,
    /// The installed version.
    pub(crate) installed: String,
    /// Versions that fix it.
    pub(crate) fixed: Vec<String>,
    /// How bad it is.
    pub(crate) severity: Severity,
}

/// What an image has in the indexes, so that it can be taken out again.
#[derive(Default, Serialize, Deserialize)]
struct Indexed(BTreeSet<String>);

// === impl View ===

impl View {
    /// Opens the view, and makes it where there is none.
    pub(crate) fn open(dir: &Path) -> Result<Self, CacheError> {
        Ok(Self {
            database: Database::open(dir, &SCHEMA)?,
            lists: Mutex::default(),
        })
    }

    /// The last sequence of a bucket that is in the view.
    pub(crate) fn cursor(&self, bucket: &str) -> Result<u64, CacheError> {
        let stored: Option<u64> = self.database.get_as(CURSORS, bucket.as_bytes())?;
        Ok(stored.unwrap_or_default())
    }

    /// Takes up a change and moves the cursor, both or neither. What is older than the cursor
    /// changes nothing.
    pub(crate) fn apply(&self, write: &Write) -> Result<(), CacheError> {
        if write.sequence <= self.cursor(&write.bucket)? {
            return Ok(());
        }
        let touches_lists = matches!(
            &write.told,
            Some(Told::Image(_, fact)) if matches!(**fact, Fact::Scanned(..) | Fact::Gone)
        );
        let _guard =
            touches_lists.then(|| self.lists.lock().unwrap_or_else(PoisonError::into_inner));
        self.database.batch(|batch| {
            match &write.told {
                Some(Told::Image(key, fact)) => {
                    metrics::changed(name_of(&key.what));
                    self.take(batch, key, fact, write.sequence)?;
                }
                Some(Told::Node(key, record)) => {
                    metrics::changed("node");
                    self.take_node(batch, key, record.as_deref())?;
                }
                Some(Told::Connections(key, record)) => {
                    metrics::changed("connections");
                    self.take_connections(batch, key, record.as_deref())?;
                }
                Some(Told::Incident(key, incident)) => {
                    metrics::changed("incident");
                    self.take_dated(batch, key, incident.as_deref())?;
                }
                Some(Told::Response(key, record)) => {
                    metrics::changed("response");
                    self.take_dated(batch, key, record.as_deref())?;
                }
                None => {}
            }
            batch.put_as(CURSORS, write.bucket.as_bytes(), &write.sequence)
        })
    }

    /// An image.
    pub(crate) fn image(
        &self,
        tenant: &Slug,
        image: Digest,
    ) -> Result<Option<ImageView>, CacheError> {
        self.database.get_as(IMAGES, &keys::image(tenant, image))
    }

    /// Names with their images, in order, from a key on (that key excluded).
    pub(crate) fn names(
        &self,
        tenant: &Slug,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<NameKey>, CacheError> {
        let from = after.map(keys::after);
        let pairs =
            self.database
                .scan_prefix(NAMES, &keys::tenant(tenant), from.as_deref(), limit)?;
        Ok(pairs
            .into_iter()
            .filter_map(|(key, _)| NameKey::parse(key))
            .collect())
    }

    /// Images that `registry/repository:tag` leads to.
    pub(crate) fn named(
        &self,
        tenant: &Slug,
        repository: &str,
        tag: Option<&str>,
    ) -> Result<Vec<Digest>, CacheError> {
        let prefix = keys::names_of(tenant, repository, tag);
        let pairs = self.database.scan_prefix(NAMES, &prefix, None, 1000)?;
        Ok(pairs
            .iter()
            .filter_map(|(key, _)| keys::digest_at_end(key))
            .collect())
    }

    /// What a digest is, and the images that it leads to.
    pub(crate) fn lead(
        &self,
        tenant: &Slug,
        digest: Digest,
    ) -> Result<Option<(Kind, Vec<Digest>)>, CacheError> {
        if self.image(tenant, digest)?.is_some() {
            return Ok(Some((Kind::Image, vec![digest])));
        }
        let pairs = self
            .database
            .scan_prefix(LEADS, &keys::image(tenant, digest), None, 1000)?;
        let kind = match pairs.first().map(|(_, value)| value.as_slice()) {
            None => return Ok(None),
            Some([CONFIG_LEAD]) => Kind::Config,
            Some(_) => Kind::Index,
        };
        Ok(Some((
            kind,
            pairs
                .iter()
                .filter_map(|(key, _)| keys::digest_at_end(key))
                .collect(),
        )))
    }

    /// Names in the index of a vulnerability: its own, and those that it is an alias of.
    pub(crate) fn vulnerability_names(
        &self,
        tenant: &Slug,
        id: &str,
    ) -> Result<BTreeSet<String>, CacheError> {
        let id = keys::folded(id);
        let prefix = keys::aliases_of(tenant, &id);
        let pairs = self.database.scan_prefix(ALIASES, &prefix, None, 100)?;
        let others = pairs.iter().filter_map(|(key, _)| {
            key.strip_prefix(prefix.as_slice())
                .map(|name| String::from_utf8_lossy(name).into_owned())
        });
        Ok(others.chain([id]).collect())
    }

    /// What an image has of a vulnerability.
    pub(crate) fn hits(
        &self,
        tenant: &Slug,
        name: &str,
        image: Digest,
    ) -> Result<Option<Vec<Hit>>, CacheError> {
        self.database
            .get_as(VULNERABILITIES, &keys::of_image(tenant, name, image))
    }

    /// Images with a vulnerability, in the order of their digests, after one of them.
    pub(crate) fn affected(
        &self,
        tenant: &Slug,
        name: &str,
        after: Option<Digest>,
        limit: usize,
    ) -> Result<Vec<(Digest, Vec<Hit>)>, CacheError> {
        let prefix = keys::images_of(tenant, name);
        let from = after.map(|digest| keys::after(&keys::of_image(tenant, name, digest)));
        let pairs = self
            .database
            .scan_prefix(VULNERABILITIES, &prefix, from.as_deref(), limit)?;
        let parsed = pairs.iter().filter_map(|(key, value)| {
            let digest = keys::digest_at_end(key)?;
            Some(cache::decode(value).map(|hits| (digest, hits)))
        });
        parsed.collect()
    }

    /// Whether an image has a package of this name.
    pub(crate) fn has_package(
        &self,
        tenant: &Slug,
        name: &str,
        image: Digest,
    ) -> Result<bool, CacheError> {
        let scanned = self.image(tenant, image)?.and_then(|view| view.scanned);
        let Some(list) = scanned.and_then(|scanned| scanned.list) else {
            return Ok(false);
        };
        let key = keys::of_image(tenant, &keys::folded(name), list);
        Ok(self.database.get(PACKAGES, &key)?.is_some())
    }

    /// About how many images and names there are, of all tenants.
    pub(crate) fn sizes(&self) -> Result<(u64, u64, u64), CacheError> {
        let (images, names) = (
            self.database.estimate_keys(IMAGES)?,
            self.database.estimate_keys(NAMES)?,
        );
        Ok((images, names, self.database.size_bytes()?))
    }

    fn take(
        &self,
        batch: &mut Batch<'_>,
        key: &RecordKey,
        fact: &Fact,
        revision: u64,
    ) -> Result<(), CacheError> {
        let image_key = keys::image(&key.tenant, key.image);
        let old: Option<ImageView> = self.database.get_as(IMAGES, &image_key)?;
        let mut new = old.clone().unwrap_or_default();
        match fact {
            Fact::Known(known) => new.known = Some(known.clone()),
            Fact::Scanned(scanned, packages) => {
                let before = new.scanned.take().and_then(|scanned| scanned.list);
                let list = packages.as_ref().map_or(before, |_| {
                    Some(scanned.contents.packages.unwrap_or(scanned.packages))
                });
                if let Some((packages, list)) = packages.as_ref().zip(list)
                    && before != Some(list)
                {
                    self.leave(batch, key, before)?;
                    self.join(batch, key, list, &packages.0)?;
                }
                new.scanned = Some(ScannedView::new(scanned, revision, list));
            }
            Fact::Assessed(assessed, found) => {
                new.assessed = Some(AssessedView::new(assessed, revision));
                if let Some(found) = found {
                    for (alias, name) in &found.aliases {
                        // They are facts and stay: taking them back would need to know who else
                        // has them.
                        batch.put(ALIASES, &keys::alias(&key.tenant, alias, name), &[])?;
                    }
                    self.replace(batch, VULNERABILITIES, key, &found.rows)?;
                }
            }
            Fact::Judged(judged) => {
                let policy = judged.verdict.policy.clone();
                new.judged.insert(policy, JudgedView::new(judged, revision));
            }
            Fact::Gone => self.forget(batch, key, &mut new)?,
        }
        name_index(batch, key, old.as_ref(), &new)?;
        if new == ImageView::default() {
            return batch.delete(IMAGES, &image_key);
        }
        batch.put_as(IMAGES, &image_key, &new)
    }

    fn forget(
        &self,
        batch: &mut Batch<'_>,
        key: &RecordKey,
        view: &mut ImageView,
    ) -> Result<(), CacheError> {
        match &key.what {
            What::Known => view.known = None,
            What::Scanned => {
                let list = view.scanned.take().and_then(|scanned| scanned.list);
                self.leave(batch, key, list)?;
            }
            What::Assessed => {
                view.assessed = None;
                self.replace(batch, VULNERABILITIES, key, &Rows::default())?;
            }
            What::Judged(policy) => {
                view.judged.remove(policy);
            }
        }
        Ok(())
    }

    /// Adds an image to those that have a list of packages, which is written where it is not there.
    fn join(
        &self,
        batch: &mut Batch<'_>,
        key: &RecordKey,
        list: Digest,
        rows: &Rows,
    ) -> Result<(), CacheError> {
        let list_key = keys::image(&key.tenant, list);
        if self.database.get(LISTS, &list_key)?.is_none() {
            for (name, bytes) in &rows.values {
                let row = keys::of_image(&key.tenant, name, list);
                batch.put(PACKAGES, &row, bytes)?;
            }
            batch.put(LISTS, &list_key, &rows.indexed)?;
        }
        batch.put(MEMBERS, &keys::lead(&key.tenant, list, key.image), &[])
    }

    /// Takes an image from those that have a list, and with the last one the list.
    fn leave(
        &self,
        batch: &mut Batch<'_>,
        key: &RecordKey,
        list: Option<Digest>,
    ) -> Result<(), CacheError> {
        let Some(list) = list else { return Ok(()) };
        batch.delete(MEMBERS, &keys::lead(&key.tenant, list, key.image))?;
        let list_key = keys::image(&key.tenant, list);
        if self
            .database
            .scan_prefix(MEMBERS, &list_key, None, 2)?
            .len()
            > 1
        {
            return Ok(());
        }
        let names: Option<Indexed> = self.database.get_as(LISTS, &list_key)?;
        for name in names.unwrap_or_default().0 {
            batch.delete(PACKAGES, &keys::of_image(&key.tenant, &name, list))?;
        }
        batch.delete(LISTS, &list_key)
    }

    /// Writes an image's part of an index, only where it differs from what is there.
    fn replace(
        &self,
        batch: &mut Batch<'_>,
        family: &'static str,
        key: &RecordKey,
        rows: &Rows,
    ) -> Result<(), CacheError> {
        let indexed_key = keys::indexed(&key.tenant, key.image, family);
        let old: Indexed = self
            .database
            .get_as(INDEXED, &indexed_key)?
            .unwrap_or_default();
        for name in old.0.iter().filter(|name| !rows.values.contains_key(*name)) {
            batch.delete(family, &keys::of_image(&key.tenant, name, key.image))?;
        }
        for (name, bytes) in &rows.values {
            let row = keys::of_image(&key.tenant, name, key.image);
            let known = old.0.contains(name);
            if !known || self.database.get(family, &row)?.as_deref() != Some(bytes.as_slice()) {
                batch.put(family, &row, bytes)?;
            }
        }
        if rows.values.is_empty() {
            return batch.delete(INDEXED, &indexed_key);
        }
        batch.put(INDEXED, &indexed_key, &rows.indexed)
    }
}

/// The value of a lead from a config; any other is from an index.
const CONFIG_LEAD: u8 = b'c';
const INDEX_LEAD: u8 = b'i';

/// Names, indexes and configs that lead to an image: what `known` says.
fn name_index(
    batch: &mut Batch<'_>,
    key: &RecordKey,
    old: Option<&ImageView>,
    new: &ImageView,
) -> Result<(), CacheError> {
    let old = old.and_then(|old| old.known.as_ref());
    if old == new.known.as_ref() {
        return Ok(());
    }
    let rows = |known: Option<&Known>| {
        let mut names = BTreeSet::new();
        let mut leads = BTreeMap::new();
        if let Some(known) = known {
            for (repository, tag) in image::names(known) {
                names.insert(keys::name(&key.tenant, &repository, tag, key.image));
            }
            for index in &known.indexes {
                leads.insert(keys::lead(&key.tenant, *index, key.image), INDEX_LEAD);
            }
            if let Some(config) = known.config {
                leads.insert(keys::lead(&key.tenant, config, key.image), CONFIG_LEAD);
            }
        }
        (names, leads)
    };
    let ((old_names, old_leads), (names, leads)) = (rows(old), rows(new.known.as_ref()));
    for gone in old_names.difference(&names) {
        batch.delete(NAMES, gone)?;
    }
    for name in names.difference(&old_names) {
        batch.put(NAMES, name, &[])?;
    }
    for gone in old_leads.keys().filter(|lead| !leads.contains_key(*lead)) {
        batch.delete(LEADS, gone)?;
    }
    for (lead, kind) in &leads {
        batch.put(LEADS, lead, &[*kind])?;
    }
    Ok(())
}

const fn name_of(what: &What) -> &'static str {
    match what {
        What::Known => "known",
        What::Scanned => "scanned",
        What::Assessed => "assessed",
        What::Judged(_) => "judged",
    }
}

// === impl Hit ===

impl Hit {
    fn of(found: &Vulnerability) -> Self {
        Self {
            id: found.id.clone(),
            package: found.package.clone(),
            kind: found.kind,
            installed: found.installed_version.clone(),
            fixed: found.fixed_versions.clone(),
            severity: found.severity,
        }
    }
}

#[cfg(test)]
mod tests;
