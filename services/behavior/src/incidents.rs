//! Incidents: the detections of one container that belong together.
//!
//! A container has one incident at a time. It is known by the container and its number, 0 for the
//! first: so which detection of an attack arrives first changes nothing. A detection belongs to the
//! first incident that was not over for longer than the window when it happened. In an incident, a
//! rule and what it is about are one detection, however often it is seen; what repeats keeps the
//! incident open.
//!
//! The record is the truth: every change reads it, and is written by compare-and-set. What is
//! remembered only saves reading.

mod compose;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bus::{EncodeError, Outcome, Store, Stored};
use jiff::{SignedDuration, Timestamp};
use model::{
    Digest, Fingerprint, Slug,
    event::{EVIDENCE_OBJECTS, INCIDENTS},
    runtime::{ContainerDetected, Detection, Incident, IncidentChanged, IncidentState},
};

use crate::{
    config::Config,
    engine::{Draft, Node, hash_of, watch},
    metrics,
};

/// Detections of one incident. Beyond it only what is known already is told, and what makes it
/// another: a rule that it does not hold yet, or holds with less severity. So whoever fills it hides
/// nothing worse behind it, and there is no more of that than rules and severities.
pub(crate) const DETECTIONS_MAX: usize = 256;
/// Incidents of one container; then the last one takes all that comes.
const NUMBERS_MAX: u32 = 256;
/// So long after its container is gone an incident is closed.
const GONE: SignedDuration = SignedDuration::from_secs(60);

/// Joins detections.
pub(crate) struct Incidents {
    pub(crate) store: Store,
    pub(crate) config: Arc<Config>,
}

/// An incident that changes.
#[derive(Debug)]
pub(crate) struct Change {
    tenant: Slug,
    incident: Incident,
    expected: u64,
    /// Whether there is something to write.
    is_new: bool,
    detected: Vec<ContainerDetected>,
    changed: Option<IncidentChanged>,
    discards: Vec<Digest>,
}

/// An incident that may still grow, as far as this process knows.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) tenant: Slug,
    pub(crate) node: Slug,
    pub(crate) container: String,
    pub(crate) last_at: Timestamp,
}

/// Those by tenant and id.
pub(crate) type OpenIncidents = HashMap<(Slug, String), Open>;

/// An incident in the making.
struct Work {
    number: u32,
    revision: u64,
    incident: Incident,
    timeline: Vec<Detection>,
    before: Option<Incident>,
    is_changed: bool,
    added: Vec<Detection>,
    /// Detections that were stored already, and are told once more.
    retold: Vec<Detection>,
}

/// Whose detections are joined.
pub(crate) struct Place<'a> {
    pub(crate) tenant: &'a Slug,
    pub(crate) name: &'a Slug,
    pub(crate) node: &'a mut Node,
    /// Whether the events come again, and what they led to is told again.
    pub(crate) again: bool,
    pub(crate) now: Timestamp,
}

// === impl Incidents ===

impl Incidents {
    /// Joins drafts of a node with the incidents of its containers. `images` are the images of
    /// containers, as far as they are known.
    pub(crate) async fn join(
        &self,
        mut place: Place<'_>,
        drafts: Vec<Draft>,
        images: &HashMap<Box<str>, Digest>,
    ) -> anyhow::Result<Vec<Change>> {
        let mut by_container: BTreeMap<Box<str>, Vec<Draft>> = BTreeMap::new();
        for draft in drafts {
            let container = draft.container.clone();
            by_container.entry(container).or_default().push(draft);
        }
        let mut changes = Vec::new();
        for (container, mut drafts) in by_container {
            drafts.retain(|draft| !self.is_accepted(&place, draft));
            drafts.sort_by(|a, b| (a.at, &a.subject).cmp(&(b.at, &b.subject)));
            let image = images.get(&container).copied();
            let mut works: Vec<Work> = Vec::new();
            for draft in drafts {
                let at = self.place_of(&mut place, &mut works, &draft).await?;
                if let Some(work) = works.get_mut(at) {
                    self.add(&mut place, work, draft, image);
                }
            }
            for work in works {
                changes.extend(self.finish(&mut place, work).await?);
            }
        }
        Ok(changes)
    }

    /// An incident that is over: nothing came for the window, or its container is gone.
    pub(crate) async fn close(
        &self,
        (tenant, id): &(Slug, String),
        is_gone: bool,
        now: Timestamp,
    ) -> anyhow::Result<Option<Change>> {
        let key = key(tenant, id);
        let Some(Stored { revision, body }) = self.store.get::<Incident>(INCIDENTS, &key).await?
        else {
            return Ok(None);
        };
        if body.state == IncidentState::Closed || !self.is_over(&body.last_at, is_gone, now) {
            return Ok(None);
        }
        let incident = Incident {
            state: IncidentState::Closed,
            ..body
        };
        metrics::incident("closed");
        Ok(Some(Change {
            tenant: tenant.clone(),
            changed: Some(IncidentChanged {
                incident: incident.clone(),
                changed_at: now,
            }),
            incident,
            expected: revision,
            is_new: true,
            detected: Vec::new(),
            discards: Vec::new(),
        }))
    }

    /// Whether an incident is over at a time.
    pub(crate) fn is_over(&self, last_at: &Timestamp, is_gone: bool, now: Timestamp) -> bool {
        let quiet = if is_gone { GONE } else { self.window() };
        now > after(*last_at, quiet)
    }

    fn window(&self) -> SignedDuration {
        SignedDuration::from_secs(self.config.incident_window_s.into())
    }

    fn is_accepted(&self, place: &Place<'_>, draft: &Draft) -> bool {
        let told = place.node.containers.get(&draft.container);
        let told = told.and_then(|watched| watched.told.as_deref());
        let what = (draft.definition.rule, draft.subject.as_str());
        let accepts = self
            .config
            .exceptions
            .iter()
            .any(|exception| exception.accepts(what, told, draft.at));
        if accepts {
            metrics::detection(draft.definition.rule, "accepted");
        }
        accepts
    }

    /// The place among `works` of the incident that a draft belongs to; reads or begins it.
    async fn place_of(
        &self,
        place: &mut Place<'_>,
        works: &mut Vec<Work>,
        draft: &Draft,
    ) -> anyhow::Result<usize> {
        let watched = place.node.containers.get(&draft.container);
        let mut number = watched.and_then(|watched| watched.incident).unwrap_or(0);
        let mut may_go_back = number > 0;
        loop {
            let known = works.iter().position(|work| work.number == number);
            let at = if let Some(at) = known {
                at
            } else {
                works.push(self.read(place, &draft.container, number).await?);
                works.len().saturating_sub(1)
            };
            let Some(work) = works.get(at) else {
                anyhow::bail!("an incident that was just read is not there");
            };
            let is_empty = work.timeline.is_empty();
            // What is late may belong to one before.
            if may_go_back && !is_empty && draft.at < work.incident.first_at {
                (number, may_go_back) = (0, false);
                continue;
            }
            let is_last = number >= NUMBERS_MAX;
            if is_empty || is_last || draft.at <= after(work.incident.last_at, self.window()) {
                return Ok(at);
            }
            number = number.saturating_add(1);
        }
    }

    async fn read(&self, place: &Place<'_>, container: &str, number: u32) -> anyhow::Result<Work> {
        let id = incident_id(place.tenant, place.name, container, number);
        let stored = self
            .store
            .get::<Incident>(INCIDENTS, &key(place.tenant, &id))
            .await?;
        let Some(Stored { revision, body }) = stored else {
            let incident = compose::begin(place, id, container);
            return Ok(Work {
                number,
                revision: 0,
                incident,
                timeline: Vec::new(),
                before: None,
                is_changed: false,
                added: Vec::new(),
                retold: Vec::new(),
            });
        };
        let timeline = match &body.timeline {
            Some(digest) => self.store.object(EVIDENCE_OBJECTS, digest).await?,
            None => None,
        };
        Ok(Work {
            number,
            revision,
            before: Some(body.clone()),
            incident: body,
            timeline: timeline.unwrap_or_default(),
            is_changed: false,
            added: Vec::new(),
            retold: Vec::new(),
        })
    }

    /// Adds a draft to its incident, where it is not in there yet.
    fn add(&self, place: &mut Place<'_>, work: &mut Work, draft: Draft, image: Option<Digest>) {
        let rule = draft.definition.rule;
        let hash = hash_of(rule, &draft.subject);
        let id = Fingerprint::of(&[&work.incident.id, rule, &draft.subject]).0;
        let half = self.window() / 2;
        let container = draft.container.clone();
        if let Some(known) = work.timeline.iter_mut().find(|known| known.id == id) {
            metrics::detection(rule, "repeated");
            if draft.at < known.at {
                known.at = draft.at;
                work.is_changed = true;
            }
            // What repeats keeps the incident open: it is told so now and then.
            if draft.at > after(work.incident.last_at, half) {
                work.incident.last_at = draft.at;
                work.is_changed = true;
            }
            let (since, until) = (known.at, after(work.incident.last_at, half));
            if place.again {
                work.retold.push(known.clone());
            }
            if let Some(watched) = watch(&mut place.node.containers, &container) {
                watched.note_raised(hash, since, until);
            }
            return;
        }
        let is_held = |held: &Detection| held.rule == rule && held.severity >= draft.severity;
        if work.timeline.len() >= DETECTIONS_MAX && work.timeline.iter().any(is_held) {
            metrics::detection(rule, "full");
            // What comes again was counted.
            if !place.again {
                work.incident.left_out = work.incident.left_out.saturating_add(1);
                work.is_changed = true;
            }
            if let Some(watched) = watch(&mut place.node.containers, &container) {
                watched.note_raised(hash, draft.at, after(draft.at, half));
            }
            return;
        }
        metrics::detection(rule, "raised");
        let detection = compose::detection(place, id, draft, image);
        work.added.push(detection.clone());
        work.timeline.push(detection);
        work.is_changed = true;
    }

    /// Writes what an incident shows, and says what is to be told.
    async fn finish(
        &self,
        place: &mut Place<'_>,
        mut work: Work,
    ) -> anyhow::Result<Option<Change>> {
        if work.timeline.is_empty() {
            return Ok(None);
        }
        let container = work.incident.container.clone();
        let watched = watch(&mut place.node.containers, &container);
        let surroundings = watched.map(|watched| {
            watched.incident = Some(watched.incident.unwrap_or(0).max(work.number));
            watched.surroundings()
        });
        if !work.is_changed && work.retold.is_empty() {
            return Ok(None);
        }
        let mut discards = Vec::new();
        if work.is_changed {
            compose::update(place, &mut work.incident, &mut work.timeline);
            let (tenant, bucket) = (place.tenant, EVIDENCE_OBJECTS);
            let timeline = self
                .store
                .put_object_of(tenant, bucket, &work.timeline)
                .await?;
            let old = work.incident.timeline.replace(timeline);
            discards.extend(old.filter(|old| *old != timeline));
            if let (false, Some(mut shown)) = (work.added.is_empty(), surroundings) {
                compose::mask_surroundings(&mut shown);
                shown.incident.clone_from(&work.incident.id);
                shown.detections = work.incident.detections;
                let object = self.store.put_object_of(tenant, bucket, &shown).await?;
                let old = work.incident.surroundings.replace(object);
                discards.extend(old.filter(|old| *old != object));
            }
        }
        Ok(Some(change(place, work, discards)))
    }
}

// === impl Change ===

impl Change {
    /// Adds what it writes, and what it tells, to an outcome.
    pub(crate) fn into_outcome(self, outcome: Outcome) -> Result<Outcome, EncodeError> {
        let mut outcome = self.write(outcome)?;
        for detected in &self.detected {
            outcome = outcome.emit(&self.tenant, detected)?;
        }
        if let Some(changed) = &self.changed {
            outcome = outcome.emit(&self.tenant, changed)?;
        }
        Ok(outcome)
    }

    /// Adds what it writes to an outcome.
    pub(crate) fn write(&self, mut outcome: Outcome) -> Result<Outcome, EncodeError> {
        if self.is_new {
            let key = key(&self.tenant, &self.incident.id);
            outcome = outcome.put_kv(INCIDENTS, &key, &self.incident, Some(self.expected))?;
            for digest in &self.discards {
                outcome = outcome.discard(EVIDENCE_OBJECTS, *digest);
            }
        }
        Ok(outcome)
    }

    /// What it tells.
    pub(crate) fn news(&self) -> (&Slug, &[ContainerDetected], Option<&IncidentChanged>) {
        (&self.tenant, &self.detected, self.changed.as_ref())
    }

    /// The incident, where it may still grow.
    pub(crate) fn open(&self) -> ((Slug, String), Option<Open>) {
        let Incident {
            id,
            state,
            node,
            container,
            last_at,
            ..
        } = &self.incident;
        let open = Open {
            tenant: self.tenant.clone(),
            node: node.clone(),
            container: container.clone(),
            last_at: *last_at,
        };
        let key = (self.tenant.clone(), id.clone());
        (key, (*state == IncidentState::Open).then_some(open))
    }
}

/// What an incident in the making leads to.
fn change(place: &Place<'_>, work: Work, discards: Vec<Digest>) -> Change {
    let Work {
        revision,
        incident,
        before,
        is_changed,
        added,
        retold,
        ..
    } = work;
    let is_opened = before
        .as_ref()
        .is_none_or(|old| old.state == IncidentState::Closed);
    let is_worse = before
        .as_ref()
        .is_some_and(|old| old.severity < incident.severity);
    let is_told = (is_changed && (is_opened || is_worse)) || !retold.is_empty();
    if is_changed {
        metrics::incident(match (is_opened, is_worse) {
            (true, _) => "opened",
            (false, true) => "worse",
            (false, false) => "grown",
        });
    }
    let detected = added
        .into_iter()
        .chain(retold)
        .map(|detection| ContainerDetected {
            detection,
            incident: incident.id.clone(),
        });
    Change {
        tenant: place.tenant.clone(),
        expected: revision,
        is_new: is_changed,
        detected: detected.collect(),
        changed: is_told.then(|| IncidentChanged {
            incident: incident.clone(),
            changed_at: place.now,
        }),
        incident,
        discards,
    }
}

/// The key of an incident's record.
pub(crate) fn key(tenant: &Slug, id: &str) -> String {
    format!("{tenant}.{id}")
}

fn incident_id(tenant: &Slug, node: &Slug, container: &str, number: u32) -> String {
    let number = number.to_string();
    Fingerprint::of(&[
        "incident",
        tenant.as_str(),
        node.as_str(),
        container,
        &number,
    ])
    .0
}

/// A time later; the end of the calendar where that is past it.
fn after(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}
