//! Containers and what is known of their images: joined when somebody asks.

use std::{
    collections::{BTreeSet, HashMap},
    ops::ControlFlow,
};

use cache::CacheError;
use jiff::Timestamp;
use model::{Counts, Decision, Digest, ImageRef, Severity, Slug, runtime::Container};

use super::images::decision;
use crate::{
    verdicts::Marks,
    view::{Holder, ImageView, Placed, View, digests},
};

/// What holds one image that is looked at for whether it runs.
const HOLDERS_MAX: usize = 100_000;
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
    /// Whether there is more than is named here.
    pub(super) is_cut: bool,
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

    /// Where an image is, of up to so many that may hold it.
    pub(super) fn held(
        &mut self,
        digest: Digest,
        image: &ImageView,
        max: usize,
    ) -> Result<Held, CacheError> {
        let mut held = Held::default();
        held.is_cut = self.each_holder((digest, image), max, |join, holder| {
            join.add(&mut held, holder, digest)?;
            Ok(ControlFlow::Continue(()))
        })?;
        held.instances
            .sort_by(|one, two| one.key.as_slice().cmp(two.key.as_slice()));
        for instance in held.instances.iter().filter(|one| one.runs()) {
            held.at_rest.remove(&instance.node);
        }
        Ok(held)
    }

    /// Whether a container of an image runs, and where none does, whether a node's disk has it. It
    /// looks no further than to the first that runs.
    pub(super) fn stands(
        &mut self,
        digest: Digest,
        image: &ImageView,
    ) -> Result<(bool, bool), CacheError> {
        let (mut runs, mut rests) = (false, false);
        self.each_holder((digest, image), HOLDERS_MAX, |join, holder| {
            rests |= holder.container.is_none();
            runs = join
                .instance(&holder, digest)?
                .is_some_and(|one| one.runs());
            Ok(if runs {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
        Ok((runs, rests && !runs))
    }

    /// Visits what may hold an image, each once, until a visit ends it. Whether there is more than is
    /// looked at.
    fn each_holder(
        &mut self,
        (digest, image): (Digest, &ImageView),
        max: usize,
        mut visit: impl FnMut(&mut Self, Holder) -> Result<ControlFlow<()>, CacheError>,
    ) -> Result<bool, CacheError> {
        let mut names = BTreeSet::from([digest]);
        if let Some(known) = &image.known {
            names.extend(known.config);
            names.extend(&known.indexes);
        }
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
                    if !seen.insert(holder.clone()) {
                        continue;
                    }
                    if seen.len() > max {
                        return Ok(true);
                    }
                    if visit(self, holder)?.is_break() {
                        return Ok(false);
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(false)
    }

    fn add(&mut self, held: &mut Held, holder: Holder, image: Digest) -> Result<(), CacheError> {
        if holder.container.is_none() {
            held.at_rest.insert(holder.node);
        } else {
            held.instances.extend(self.instance(&holder, image)?);
        }
        Ok(())
    }

    /// A container that holds an image counts where it is this one: an index leads to others, too.
    fn instance(&mut self, holder: &Holder, image: Digest) -> Result<Option<Placed>, CacheError> {
        let Some(id) = &holder.container else {
            return Ok(None);
        };
        let Some(placed) = self.view.container(self.tenant, &holder.node, id)? else {
            return Ok(None);
        };
        let joined = self.image_of(&holder.node, &placed.container)?;
        Ok(joined.images.contains(&image).then_some(placed))
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
