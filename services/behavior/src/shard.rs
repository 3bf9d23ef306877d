//! A shard: the nodes that are watched together, by one process at a time, one message after
//! another.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use bus::{Outcome, Store, StoreError};
use chassis::Clock;
use jiff::{SignedDuration, Timestamp};
use model::{
    Digest, Slug,
    event::{Event as _, INCIDENTS, NODES},
    runtime::{ImageSighted, Incident, IncidentState, NodeReported, RuntimeBatch, Shard},
};
use tokio::sync::Mutex;

use crate::{
    config::Config,
    drift::{self, Judgement},
    engine::{Draft, Found, Node, Suspect, hash_of},
    facts::{Facts, ImageFiles, StoredFacts},
    incidents::{Change, Incidents, OpenIncidents, Place},
    metrics, nodes,
    wire::Batch,
};

/// Files that wait for their image to be scanned; beyond it the oldest are judged without.
const WAITING_MAX: usize = 10_000;
/// Nodes that are watched; what is heard of others is not remembered.
const NODES_MAX: usize = 8_192;
/// A node that says nothing for so long is forgotten.
const SILENT: SignedDuration = SignedDuration::from_hours(1);

/// A shard that is held here.
pub(crate) struct Watch<F = StoredFacts> {
    pub(crate) number: Shard,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Arc<Config>,
    pub(crate) facts: Arc<F>,
    /// Who knows what was scanned.
    pub(crate) scans: Arc<StoredFacts>,
    pub(crate) state: Mutex<State>,
}

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct State {
    nodes: HashMap<(Slug, Slug), Node>,
    sighted: nodes::Sighted,
    waiting: VecDeque<Waiting>,
    open: OpenIncidents,
}

/// A file that waits for its image to be scanned.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    node: (Slug, Slug),
    suspect: Suspect,
    since: Timestamp,
}

/// What a message or a tick leads to.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) outcome: Outcome,
    pub(crate) changes: Vec<Change>,
    pub(crate) sighted: Vec<(Slug, ImageSighted)>,
    /// What waited, to be judged again where the changes could not be written.
    pub(crate) waited: Vec<Waiting>,
}

/// What is known of the images of a node's containers, for one message.
#[derive(Default)]
struct Images {
    known: HashMap<Box<str>, Option<Arc<ImageFiles>>>,
    digests: HashMap<Box<str>, Digest>,
}

// === impl Watch ===

impl<F: Facts> Watch<F> {
    /// Takes a report. It comes from the node whose subject it is on. `again`: it may have been
    /// taken before, and what it led to is told again.
    pub(crate) async fn report(
        &self,
        (tenant, subject): (&Slug, &str),
        report: NodeReported,
        again: bool,
    ) -> anyhow::Result<Effects> {
        anyhow::ensure!(
            report.subject(tenant) == subject,
            "a report of another node"
        );
        let mut state = self.state.lock().await;
        let state = &mut *state;
        let now = self.clock.now();
        let kept = nodes::kept(&self.store, tenant, &report.node).await?;
        let expected = kept.as_ref().map_or(0, |kept| kept.revision);
        let is_new = kept.is_none_or(|kept| nodes::is_newer(&report, &kept.body.report));
        let mut effects = Effects::default();
        // What is stored already may not have been told of: its process died in between.
        let sighted = state
            .sighted
            .look(&self.scans, (tenant, &report), (now, again))
            .await?;
        effects.sighted = sighted
            .into_iter()
            .map(|one| (tenant.clone(), one))
            .collect();
        if let Some(node) = self.node(state, tenant, &report.node).await? {
            if is_new || node.host.is_none() {
                nodes::learn(node, &report);
            }
            node.heard_at = now;
        }
        if is_new {
            effects.outcome = nodes::record(effects.outcome, (tenant, expected), report, now)?;
        }
        Ok(effects)
    }

    /// Takes a batch. `again`: it may have been taken before, and what it led to is told again.
    pub(crate) async fn batch(
        &self,
        (tenant, subject): (&Slug, &str),
        bytes: &[u8],
        again: bool,
    ) -> anyhow::Result<Effects> {
        let started = Instant::now();
        let batch = Batch::read(bytes)?;
        let name: Slug = batch.node.parse()?;
        anyhow::ensure!(
            subject_of(tenant, &name) == subject,
            "a batch of another node"
        );
        for drop in &batch.drops {
            metrics::dropped(&drop.class, drop.count);
        }
        let mut state = self.state.lock().await;
        let state = &mut *state;
        let now = self.clock.now();
        let Some(node) = self.node(state, tenant, &name).await? else {
            anyhow::bail!("more than {NODES_MAX} nodes in a shard");
        };
        node.heard_at = now;
        let mut found = Found::default();
        node.take(&batch, again, &mut found);
        let events = batch.events.len();
        let key = (tenant.clone(), name);
        let effects = self.raise(state, key, found, again).await;
        metrics::batch(events, started.elapsed());
        effects
    }

    /// Judges what waited, closes what is over, forgets what is silent.
    pub(crate) async fn tick(&self) -> anyhow::Result<Effects> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        let now = self.clock.now();
        let mut effects = Effects::default();
        let mut by_node: HashMap<(Slug, Slug), Found> = HashMap::new();
        for Waiting {
            node,
            suspect,
            since,
        } in std::mem::take(&mut state.waiting)
        {
            let found = by_node.entry(node).or_default();
            found.suspects.push(suspect);
            found.waited_since = Some(found.waited_since.map_or(since, |at| at.min(since)));
        }
        for (key, found) in by_node {
            let since = found.waited_since.unwrap_or(now);
            let waited = found.suspects.iter().map(|suspect| Waiting {
                node: key.clone(),
                suspect: suspect.clone(),
                since,
            });
            let waited: Vec<_> = waited.collect();
            match self.raise(state, key, found, false).await {
                Ok(more) if more.changes.is_empty() => {}
                Ok(more) => {
                    effects.changes.extend(more.changes);
                    effects.waited.extend(waited);
                }
                Err(error) => {
                    state.waiting.extend(waited);
                    tracing::info!(
                        error = format!("{error:#}"),
                        "files that ran are judged later: {error:#}"
                    );
                }
            }
        }
        let due: Vec<_> = state
            .open
            .iter()
            .map(|(key, open)| (key.clone(), open.clone()))
            .collect();
        let incidents = self.incidents();
        for (key, open) in due {
            let node = state.nodes.get(&(open.tenant.clone(), open.node.clone()));
            let is_gone = node.is_some_and(|node| {
                node.host.is_some() && nodes::is_gone(node.containers.get(open.container.as_str()))
            });
            if !incidents.is_over(&open.last_at, is_gone, now) {
                continue;
            }
            if let Some(change) = incidents.close(&key, is_gone, now).await? {
                effects.changes.push(change);
            } else {
                state.open.remove(&key);
            }
        }
        for ((tenant, name), node) in &mut state.nodes {
            if let Some(record) = nodes::connections(node, now) {
                let key = nodes::connections_key(tenant, name);
                // Nobody else writes it while the shard is held here.
                effects.outcome = effects.outcome.put_kv(NODES, &key, &record, None)?;
            }
        }
        let is_heard = |node: &Node| now.duration_since(node.heard_at) < SILENT;
        state.nodes.retain(|_, node| is_heard(node));
        state.sighted.forget(now);
        Ok(effects)
    }

    /// Finds the incidents that may still grow: their process may have died.
    pub(crate) async fn load(&self) -> anyhow::Result<()> {
        let stored = self.store.list::<Incident>(INCIDENTS, "").await?;
        let mut state = self.state.lock().await;
        for (key, incident) in stored {
            let incident = incident.body;
            let is_ours = Shard::of(&incident.node) == self.number;
            let tenant = key.split('.').next().unwrap_or_default().parse::<Slug>();
            if let (true, IncidentState::Open, Ok(tenant)) = (is_ours, incident.state, tenant) {
                let open = crate::incidents::Open {
                    tenant: tenant.clone(),
                    node: incident.node,
                    container: incident.container,
                    last_at: incident.last_at,
                };
                state.open.insert((tenant, incident.id), open);
            }
        }
        Ok(())
    }

    /// What was judged could not be written: it waits again.
    pub(crate) async fn wait_again(&self, waited: Vec<Waiting>) {
        let mut state = self.state.lock().await;
        state.waiting.extend(waited);
    }

    /// A change was written: what may still grow is looked at again.
    pub(crate) async fn note(&self, changes: &[Change]) {
        let mut state = self.state.lock().await;
        note(&mut state.open, changes);
    }

    fn incidents(&self) -> Incidents {
        Incidents {
            store: self.store.clone(),
            config: Arc::clone(&self.config),
        }
    }

    /// A node, with what its last report said. `None`: there are too many.
    async fn node<'a>(
        &self,
        state: &'a mut State,
        tenant: &Slug,
        name: &Slug,
    ) -> anyhow::Result<Option<&'a mut Node>> {
        let key = (tenant.clone(), name.clone());
        if !state.nodes.contains_key(&key) {
            if state.nodes.len() >= NODES_MAX {
                return Ok(None);
            }
            let mut node = Node::default();
            if let Some(kept) = nodes::kept(&self.store, tenant, name).await? {
                nodes::learn(&mut node, &kept.body.report);
            }
            nodes::remember(&mut node, &self.store, (tenant, name)).await?;
            state.nodes.insert(key.clone(), node);
        }
        Ok(state.nodes.get_mut(&key))
    }

    /// Makes detections of what was found, and joins them with incidents.
    async fn raise(
        &self,
        state: &mut State,
        key: (Slug, Slug),
        found: Found,
        again: bool,
    ) -> anyhow::Result<Effects> {
        let mut effects = Effects::default();
        if found.drafts.is_empty() && found.suspects.is_empty() {
            return Ok(effects);
        }
        let now = self.clock.now();
        let Some(node) = state.nodes.get_mut(&key) else {
            return Ok(effects);
        };
        let since = found.waited_since.unwrap_or(now);
        let mut drafts = found.drafts;
        let mut images = Images::default();
        for draft in &drafts {
            self.image(&key.0, node, &draft.container, &mut images)
                .await?;
        }
        for suspect in found.suspects {
            let must_end = state.waiting.len() >= WAITING_MAX || self.is_tired(since, now);
            match self
                .judge(&key.0, node, suspect, must_end, &mut images)
                .await?
            {
                Verdict::Nothing => {}
                Verdict::Draft(draft) => {
                    let watched = node.containers.get(&draft.container);
                    let hash = hash_of(draft.definition.rule, &draft.subject);
                    let is_stored = watched.is_some_and(|known| known.is_raised(hash, draft.at));
                    if again || !is_stored {
                        drafts.push(*draft);
                    }
                }
                Verdict::Wait(suspect) => {
                    metrics::file("waiting");
                    state.waiting.push_back(Waiting {
                        node: key.clone(),
                        suspect: *suspect,
                        since,
                    });
                }
            }
        }
        let place = Place {
            tenant: &key.0,
            name: &key.1,
            node,
            again,
            now,
        };
        effects.changes = self
            .incidents()
            .join(place, drafts, &images.digests)
            .await?;
        Ok(effects)
    }

    /// Whether what waits since then has waited for long enough.
    fn is_tired(&self, since: Timestamp, now: Timestamp) -> bool {
        let patience = SignedDuration::from_secs(self.config.facts_wait_s.into());
        now.duration_since(since) >= patience
    }

    async fn judge(
        &self,
        tenant: &Slug,
        node: &mut Node,
        suspect: Suspect,
        must_end: bool,
        images: &mut Images,
    ) -> anyhow::Result<Verdict> {
        let hash = drift::hash_of(&suspect.file.path, suspect.file.digest);
        let known = node.containers.get(&suspect.container);
        let known = known.and_then(|watched| watched.judgement(hash));
        let mut image = None;
        let judgement = if let Some(judgement) = known {
            judgement
        } else {
            let needs_image = drift::needs_image(suspect.file.origin);
            if needs_image {
                image = self.image(tenant, node, &suspect.container, images).await?;
                if image.is_none() && !must_end {
                    return Ok(Verdict::Wait(Box::new(suspect)));
                }
            }
            let severity = self.config.volume_severity;
            let judgement = drift::judge(&suspect, image.as_deref(), severity);
            let watched = node.containers.get_mut(&suspect.container);
            if let (true, Some(watched)) = (image.is_some() || !needs_image, watched) {
                watched.note_judgement(hash, judgement);
            }
            judgement
        };
        Ok(match judgement {
            Judgement::Unchanged => {
                metrics::file("unchanged");
                Verdict::Nothing
            }
            Judgement::Drift(_, severity) if severity <= model::Severity::Negligible => {
                Verdict::Nothing
            }
            Judgement::Drift(definition, severity) => {
                let is_judged = image.is_some() || !drift::needs_image(suspect.file.origin);
                metrics::file(if is_judged { "drift" } else { "unverified" });
                let what = (definition, severity);
                Verdict::Draft(Box::new(drift::draft(suspect, what, image.as_deref())))
            }
        })
    }

    /// The files of a container's image, as far as they are known.
    async fn image(
        &self,
        tenant: &Slug,
        node: &Node,
        container: &str,
        images: &mut Images,
    ) -> anyhow::Result<Option<Arc<ImageFiles>>> {
        if let Some(known) = images.known.get(container) {
            return Ok(known.clone());
        }
        let told = node.containers.get(container);
        let id = told.and_then(|watched| watched.told.as_ref()?.image_id);
        let machine = node.host.as_ref().map_or("", |host| host.machine.as_str());
        let image = match id {
            Some(id) => self
                .facts
                .image(tenant, &id, machine)
                .await
                .or_else(|error| unread(id, error))?,
            None => None,
        };
        if let Some(digest) = image.as_ref().and_then(|image| image.image) {
            images.digests.insert(container.into(), digest);
        }
        images.known.insert(container.into(), image.clone());
        Ok(image)
    }
}

/// What becomes of a file that ran.
enum Verdict {
    Nothing,
    Draft(Box<Draft>),
    Wait(Box<Suspect>),
}

/// An image whose objects are broken is one that nobody knows; a store that is away comes back.
fn unread(id: Digest, error: anyhow::Error) -> anyhow::Result<Option<Arc<ImageFiles>>> {
    if let Some(StoreError::Unavailable { .. }) = error.downcast_ref() {
        return Err(error.context(format!("reading what image {id} holds")));
    }
    tracing::warn!(
        image.id = %id,
        error = format!("{error:#}"),
        "what image {id} holds cannot be read: {error:#}"
    );
    Ok(None)
}

fn note(open: &mut OpenIncidents, changes: &[Change]) {
    for change in changes {
        match change.open() {
            (key, Some(one)) => {
                open.insert(key, one);
            }
            (key, None) => {
                open.remove(&key);
            }
        }
    }
}

/// The subject of a node's messages.
fn subject_of(tenant: &Slug, node: &Slug) -> String {
    let empty = RuntimeBatch {
        node: node.clone(),
        boot: String::new(),
        sequence: 0,
        booted_at: Timestamp::UNIX_EPOCH,
        containers: Vec::new(),
        events: Vec::new(),
        drops: Vec::new(),
    };
    empty.subject(tenant)
}
