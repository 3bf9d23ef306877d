//! What an incident and a detection say. Pure.

use std::collections::BTreeSet;

use model::{
    Digest, Severity,
    runtime::{Container, Detection, DetectionKind, Incident, IncidentState, Surroundings},
};

use super::Place;
use crate::{attack::Tactic, engine::Draft, mask::mask};

/// Where so many tactics meet, it is no accident.
const TACTICS_MANY: usize = 3;
/// Characters of a title.
const TITLE_CHARS_MAX: usize = 240;

/// An incident without detections.
pub(super) fn begin(place: &Place<'_>, id: String, container: &str) -> Incident {
    Incident {
        id,
        state: IncidentState::Open,
        severity: Severity::Unknown,
        title: String::new(),
        node: place.name.clone(),
        container: container.to_owned(),
        container_name: String::new(),
        image_name: String::new(),
        image: None,
        namespace: None,
        pod: None,
        host: String::new(),
        rules: Vec::new(),
        detections: 0,
        left_out: 0,
        tactics: Vec::new(),
        timeline: None,
        surroundings: None,
        first_at: place.now,
        last_at: place.now,
    }
}

/// A detection of a draft: with names, and arguments without secrets.
pub(super) fn detection(
    place: &Place<'_>,
    id: String,
    draft: Draft,
    image: Option<Digest>,
) -> Detection {
    let Draft {
        container,
        definition,
        severity,
        title,
        mut process,
        mut ancestors,
        evidence,
        at,
        ..
    } = draft;
    let mut all: Vec<_> = ancestors.iter_mut().collect();
    all.push(&mut process);
    mask(&mut all);
    let told = told(place, &container);
    let container_name = told.map(|told| told.name.clone()).unwrap_or_default();
    let name = called(&container_name, &container);
    let (kind, title) = if definition.rule.starts_with("drift/") {
        (DetectionKind::Drift, format!("{name} {title}"))
    } else {
        (DetectionKind::Behavior, format!("{title}, in {name}"))
    };
    Detection {
        id,
        rule: definition.rule.to_owned(),
        kind,
        severity,
        title: clean(&title),
        advice: definition.advice.to_owned(),
        techniques: definition
            .techniques
            .iter()
            .map(|attack| attack.technique())
            .collect(),
        node: place.name.clone(),
        container: container.into(),
        container_name,
        image,
        process,
        ancestors,
        evidence,
        at,
    }
}

/// Makes an incident say what its timeline shows.
pub(super) fn update(place: &Place<'_>, incident: &mut Incident, timeline: &mut [Detection]) {
    timeline.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    if let Some(told) = told(place, &incident.container) {
        incident.container_name.clone_from(&told.name);
        incident.image_name.clone_from(&told.image);
        incident.namespace.clone_from(&told.namespace);
        incident.pod.clone_from(&told.pod);
    }
    if let Some(host) = &place.node.host {
        let parts = [&host.name, &host.os, &host.kernel];
        let parts: Vec<&str> = parts.into_iter().map(String::as_str).collect();
        incident.host = clean(&parts.join(", "));
    }
    let rules: BTreeSet<&str> = timeline.iter().map(|one| one.rule.as_str()).collect();
    incident.rules = rules.into_iter().map(str::to_owned).collect();
    incident.tactics = tactics(timeline);
    incident.image = timeline
        .iter()
        .rev()
        .find_map(|one| one.image)
        .or(incident.image);
    incident.detections = u32::try_from(timeline.len()).unwrap_or(u32::MAX);
    incident.state = IncidentState::Open;
    let worst = timeline.iter().max_by(|a, b| {
        // Of several that are as bad the first one counts: the others followed.
        (a.severity, b.at).cmp(&(b.severity, a.at))
    });
    if let Some(worst) = worst {
        incident.severity = raised(worst.severity, incident.tactics.len());
        let more = match timeline.len() {
            0 | 1 => String::new(),
            many => format!(" (and {} more)", many.saturating_sub(1)),
        };
        incident.title = format!("{}{more}", worst.title);
    }
    if let (Some(first), Some(last)) = (timeline.first(), timeline.last()) {
        let is_new = incident.timeline.is_none();
        incident.first_at = first.at;
        incident.last_at = if is_new {
            last.at
        } else {
            incident.last_at.max(last.at)
        };
    }
}

/// Arguments of all processes without secrets.
pub(super) fn mask_surroundings(shown: &mut Surroundings) {
    let mut all: Vec<_> = shown
        .processes
        .iter_mut()
        .map(|node| &mut node.process)
        .collect();
    mask(&mut all);
}

/// The tactics that detections serve, in the order of an attack.
fn tactics(timeline: &[Detection]) -> Vec<String> {
    let served: BTreeSet<&str> = timeline
        .iter()
        .flat_map(|one| &one.techniques)
        .map(|technique| technique.tactic.as_str())
        .collect();
    let all = Tactic::ALL.map(Tactic::as_str).into_iter();
    all.filter(|tactic| served.contains(tactic))
        .map(str::to_owned)
        .collect()
}

/// The severity of what serves so many tactics.
fn raised(severity: Severity, tactics: usize) -> Severity {
    if tactics < TACTICS_MANY {
        return severity;
    }
    match severity {
        Severity::Unknown | Severity::Negligible | Severity::Low => Severity::Medium,
        Severity::Medium => Severity::High,
        Severity::High | Severity::Critical => Severity::Critical,
    }
}

fn told<'a>(place: &'a Place<'_>, container: &str) -> Option<&'a Container> {
    let watched = place.node.containers.get(container);
    watched.and_then(|watched| watched.told.as_deref())
}

/// A container's name, or the beginning of its id.
fn called(name: &str, id: &str) -> String {
    if name.is_empty() {
        id.chars().take(12).collect()
    } else {
        name.to_owned()
    }
}

/// Names come from where the attacker is: one line, and not a long one.
fn clean(text: &str) -> String {
    let mut clean: String = text
        .chars()
        .take(TITLE_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(TITLE_CHARS_MAX).is_some() {
        clean.push('…');
    }
    clean
}
