//! Containers and what is known of their images: joined when somebody asks.

use std::collections::{BTreeSet, HashMap};

use cache::CacheError;
use jiff::Timestamp;
use model::{Counts, Decision, Digest, ImageRef, Severity, Slug, runtime::Container};

use super::images::decision;
use crate::{
    verdicts::Marks,
    view::{Holder, ImageView, Placed, View, digests},
};

/// What holds one image that is looked at.
const HOLDERS_MAX: usize = 20_000;
/// Holders that are read at once.
const CHUNK: usize = 1_000;

/// Joins of one request; it remembers what it looked up.
pub(super) struct Join<'a> {
    view: &'a View,
    tenant: &'a Slug,
    marks: &'a Marks,
    now: Timestamp,
    machines: HashMap<Slug, String>,
    joined: HashMap<Question, Joined>,
}

/// What an answer depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    digests: Vec<Digest>,
    name: String,
    machine: String,
}

/// What is known of the image of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Joined {
    /// The images: none where it is not known, several where manifests share a config.
    pub(super) images: Vec<Digest>,
    /// What policy says, as it reads now.
    pub(super) decision: Option<Decision>,
    /// How many vulnerabilities it has; `None` where nobody looked.
    pub(super) counts: Option<Counts>,
    /// Whether it is known from nodes alone: no source has it.
    pub(super) on_nodes_alone: bool,
}

/// Where an image is.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    /// Its containers, by node and id.
    pub(super) instances: Vec<Placed>,
    /// Nodes whose disk has it and that have no container of it that runs.
    pub(super) at_rest: BTreeSet<Slug>,
}

// === impl Join ===

impl<'a> Join<'a> {
    pub(super) fn new(view: &'a View, tenant: &'a Slug, marks: &'a Marks, now: Timestamp) -> Self {
        Self {
            view,
            tenant,
            marks,
            now,
            machines: HashMap::new(),
            joined: HashMap::new(),
        }
    }

    /// What is known of a container's image.
    pub(super) fn image_of(
        &mut self,
        node: &Slug,
        container: &Container,
    ) -> Result<Joined, CacheError> {
        self.image_behind(node, digests(container).collect(), &container.image)
    }

    /// What is known of an image that a node knows by these digests, under a name.
    pub(super) fn image_behind(
        &mut self,
        node: &Slug,
        digests: Vec<Digest>,
        name: &str,
    ) -> Result<Joined, CacheError> {
        let question = Question {
            digests,
            name: name.to_owned(),
            machine: self.machine(node)?,
        };
        if let Some(known) = self.joined.get(&question) {
            return Ok(known.clone());
        }
        let found = self
            .view
            .images_behind(self.tenant, &question.digests, &question.machine)?;
        // The name selects the policy.
        let repository = name.parse::<ImageRef>().ok().map(|name| name.name());
        let mut joined = Joined::default();
        for (digest, image) in &found {
            let says = decision(
                (*digest, image),
                repository.as_deref(),
                self.marks,
                self.now,
            );
            joined.images.push(*digest);
            joined.decision = joined.decision.max(says);
            let counts = image.assessed.as_ref().map(|assessed| assessed.counts);
            // Manifests of one config have the same layers.
            joined.counts = joined.counts.or(counts);
        }
        joined.on_nodes_alone =
            !found.is_empty() && found.iter().all(|(_, image)| is_on_nodes_alone(image));
        self.joined.insert(question, joined.clone());
        Ok(joined)
    }

    /// Where an image is.
    pub(super) fn held(&mut self, digest: Digest, image: &ImageView) -> Result<Held, CacheError> {
        let mut names = BTreeSet::from([digest]);
        if let Some(known) = &image.known {
            names.extend(known.config);
            names.extend(&known.indexes);
        }
        let mut held = Held::default();
        let mut seen: BTreeSet<Holder> = BTreeSet::new();
        for name in names {
            let mut after: Option<Holder> = None;
            loop {
                let page = self
                    .view
                    .holders(self.tenant, name, after.as_ref(), CHUNK)?;
                let is_last = page.len() < CHUNK;
                after = page.last().cloned();
                for holder in page {
                    if seen.insert(holder.clone()) {
                        self.add(&mut held, holder, digest)?;
                    }
                }
                if is_last || seen.len() >= HOLDERS_MAX {
                    break;
                }
            }
        }
        held.instances
            .sort_by(|one, two| one.key.as_slice().cmp(two.key.as_slice()));
        for instance in held.instances.iter().filter(|one| one.runs()) {
            held.at_rest.remove(&instance.node);
        }
        Ok(held)
    }

    /// A holder counts where it is this image: an index leads to others, too.
    fn add(&mut self, held: &mut Held, holder: Holder, image: Digest) -> Result<(), CacheError> {
        let Holder { node, container } = holder;
        let Some(id) = container else {
            held.at_rest.insert(node);
            return Ok(());
        };
        if let Some(placed) = self.view.container(self.tenant, &node, &id)?
            && self
                .image_of(&node, &placed.container)?
                .images
                .contains(&image)
        {
            held.instances.push(placed);
        }
        Ok(())
    }

    fn machine(&mut self, node: &Slug) -> Result<String, CacheError> {
        if let Some(machine) = self.machines.get(node) {
            return Ok(machine.clone());
        }
        let view = self.view.node(self.tenant, node)?;
        let machine = view.map(|view| view.host.machine).unwrap_or_default();
        self.machines.insert(node.clone(), machine.clone());
        Ok(machine)
    }
}

/// Whether every name that an image has is one of a node.
fn is_on_nodes_alone(image: &ImageView) -> bool {
    let names = image.known.iter().flat_map(|known| &known.references);
    let mut names = names.peekable();
    names.peek().is_some() && names.all(|seen| seen.source == Slug::node_source())
}

// === impl Joined ===

impl Joined {
    /// Whether it has a vulnerability that is at least so bad.
    pub(super) fn has(&self, least: Severity) -> bool {
        let mut bad = Severity::ALL.into_iter().filter(|level| *level >= least);
        self.counts
            .is_some_and(|counts| bad.any(|level| counts.of_severity(level) > 0))
    }
}
