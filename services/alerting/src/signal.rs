//! Signals: what a piece of news means for an alert. Pure.
//!
//! An incident is one alert, however many detections it has: its id is the alert's fingerprint. What
//! was detected is told within it, and raises none of its own.
//!
//! One cause gives one alert. A new advisory makes the matcher tell of a vulnerability and policy
//! tell of a verdict; both lead to the same people. So by default verdicts alone raise alerts:
//! policy has weighed the vulnerability already. Who turns on `vulnerability` beside `verdict` gets
//! the ones that change no decision: those in images whose alert stood before the vulnerability
//! appeared. Where none stood, either the verdict raises one, or policy accepts the vulnerability.

mod response;

use jiff::Timestamp;
use model::{
    AlertState, Counts, Decision, Digest, Fingerprint, Severity, Slug, Vulnerability,
    event::{Change, ImageJudged, VulnerabilityChanged},
    runtime::{Incident, IncidentChanged, IncidentState},
};

pub(crate) use self::response::{Known, of_closed, of_response};

/// Reasons that an alert's text has.
const REASONS_MAX: usize = 10;

/// What news say of an alert: whether it stands, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signal {
    /// The same cause has the same one.
    pub(crate) fingerprint: Fingerprint,
    pub(crate) state: AlertState,
    pub(crate) severity: Severity,
    pub(crate) title: String,
    pub(crate) text: String,
    pub(crate) image: Option<Digest>,
    pub(crate) references: Vec<String>,
    /// The policy, where it is about a verdict.
    pub(crate) policy: Option<Slug>,
    /// When it happened.
    pub(crate) at: Timestamp,
    /// Nobody is reminded of it while it stands.
    pub(crate) once: bool,
}

/// The fingerprint of the alert on a verdict.
pub(crate) fn verdict_fingerprint(tenant: &Slug, image: &Digest, policy: &Slug) -> Fingerprint {
    Fingerprint::of(&["verdict", tenant.as_str(), &image.hex(), policy.as_str()])
}

/// What a verdict says of its alert. `decisions` are those that raise one.
pub(crate) fn of_verdict(tenant: &Slug, news: &ImageJudged, decisions: &[Decision]) -> Signal {
    let ImageJudged {
        image,
        policy,
        decision,
        reasons,
        counts,
        references,
        judged_at,
        ..
    } = news;
    let raised = decisions.contains(decision);
    let name = references
        .first()
        .cloned()
        .unwrap_or_else(|| image.to_string());
    let mut lines: Vec<_> = reasons
        .iter()
        .take(REASONS_MAX)
        .map(String::as_str)
        .collect();
    match reasons.len() {
        0 => lines.push("nothing speaks against it"),
        count if count > REASONS_MAX => lines.push("…"),
        _ => {}
    }
    Signal {
        fingerprint: verdict_fingerprint(tenant, image, policy),
        state: if raised {
            AlertState::Raised
        } else {
            AlertState::Resolved
        },
        severity: severity_of(*decision, counts),
        title: format!("{name}: {decision} by policy {policy}"),
        text: lines.join("\n"),
        image: Some(*image),
        references: references.clone(),
        policy: Some(policy.clone()),
        at: *judged_at,
        once: false,
    }
}

/// What a vulnerability that appeared or left says of its alert.
pub(crate) fn of_vulnerability(tenant: &Slug, news: &VulnerabilityChanged) -> Signal {
    let VulnerabilityChanged {
        image,
        change,
        vulnerability,
        changed_at,
        ..
    } = news;
    let Vulnerability {
        id,
        severity,
        package,
        installed_version,
        title,
        url,
        ..
    } = vulnerability;
    let fix = match vulnerability.fixed_versions.first() {
        Some(version) if vulnerability.is_fixable() => format!("fixed in {version}"),
        _ => "no fix is known".to_owned(),
    };
    let lines = [
        title.clone(),
        format!("{package} {installed_version}: {fix}"),
        url.clone(),
    ];
    let lines: Vec<_> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    Signal {
        fingerprint: Fingerprint::of(&[
            "vulnerability",
            tenant.as_str(),
            &image.hex(),
            &vulnerability.fingerprint.0,
        ]),
        state: match change {
            Change::Appeared => AlertState::Raised,
            Change::Resolved => AlertState::Resolved,
        },
        severity: *severity,
        title: format!("{id} ({severity}) in {package} of image {}", image.short()),
        text: lines.join("\n"),
        image: Some(*image),
        references: Vec::new(),
        policy: None,
        at: *changed_at,
        once: false,
    }
}

/// What an incident says of its alert.
pub(crate) fn of_incident(news: &IncidentChanged) -> Signal {
    let Incident {
        id,
        state,
        severity,
        title,
        node,
        container,
        image_name,
        image,
        namespace,
        pod,
        rules,
        tactics,
        ..
    } = &news.incident;
    let place = [
        Some(format!("node {node}")),
        namespace.as_ref().map(|name| format!("namespace {name}")),
        pod.as_ref().map(|name| format!("pod {name}")),
        Some(format!("container {container}")),
    ];
    let place: Vec<String> = place.into_iter().flatten().collect();
    let lines = [
        place.join(", "),
        format!("rules: {}", rules.join(", ")),
        format!("tactics: {}", tactics.join(", ")),
        format!("incident: {id}"),
    ];
    Signal {
        fingerprint: Fingerprint(id.clone()),
        state: match state {
            IncidentState::Open => AlertState::Raised,
            IncidentState::Closed => AlertState::Resolved,
        },
        severity: *severity,
        title: title.clone(),
        text: lines.join("\n"),
        image: *image,
        references: Some(image_name.clone())
            .filter(|name| !name.is_empty())
            .into_iter()
            .collect(),
        policy: None,
        at: news.changed_at,
        once: false,
    }
}

/// A refusal is as bad as the worst that is left in the image, and no less than `high`.
fn severity_of(decision: Decision, counts: &Counts) -> Severity {
    match decision {
        Decision::Deny if counts.critical > 0 => Severity::Critical,
        Decision::Deny => Severity::High,
        Decision::Incomplete => Severity::Medium,
        Decision::Warn => Severity::Low,
        Decision::Allow => Severity::Negligible,
    }
}
