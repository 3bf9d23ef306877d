//! What the view keeps of an image: the small part of each of its records.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{
    Assessed, Counts, Decision, Digest, Judged, Known, Platform, Scanned, ScannedConfig,
    SeenReference, Slug,
};
use serde::{Deserialize, Serialize};

use crate::verdicts::is_retired;

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageView {
    pub(crate) known: Option<Known>,
    pub(crate) scanned: Option<ScannedView>,
    pub(crate) assessed: Option<AssessedView>,
    pub(crate) judged: BTreeMap<Slug, JudgedView>,
}

/// Of a `scanned` record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScannedView {
    pub(crate) revision: u64,
    pub(crate) packages: u32,
    pub(crate) gaps: u32,
    pub(crate) scanned_at: Timestamp,
    /// The list of its packages in the index.
    pub(crate) list: Option<Digest>,
    pub(crate) config: ScannedConfig,
}

/// Of an `assessed` record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AssessedView {
    pub(crate) revision: u64,
    pub(crate) scan: u64,
    pub(crate) advisory: u64,
    pub(crate) counts: Counts,
    pub(crate) assessed_at: Timestamp,
}

/// Of a `judged` record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JudgedView {
    pub(crate) revision: u64,
    pub(crate) assessed: u64,
    pub(crate) scan: u64,
    pub(crate) decision: Decision,
    pub(crate) previous: Option<Decision>,
    pub(crate) counts: Counts,
    pub(crate) policy_revision: u64,
    pub(crate) advisory_revision: u64,
    pub(crate) judged_at: Timestamp,
    pub(crate) waivers_end: Option<Timestamp>,
    #[serde(default)]
    pub(crate) os_ends: Option<Timestamp>,
    #[serde(default)]
    pub(crate) ages_at: Option<Timestamp>,
    pub(crate) data_age_s_max: Option<i64>,
    /// The policy has no say any more.
    pub(crate) retired: bool,
    /// The repositories that select the policy.
    pub(crate) repositories: Vec<String>,
}

// === impl ImageView, ScannedView, AssessedView, JudgedView ===

impl ImageView {
    /// The platform, by its config where that was read, else by its index.
    pub(crate) fn platform(&self) -> Platform {
        let scanned = self.scanned.as_ref().map(|scanned| &scanned.config);
        let known = self.known.as_ref();
        platform(scanned, || known.map(|known| known.platform.clone()))
    }

    /// The config's labels.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let scanned = self.scanned.as_ref().map(|scanned| &scanned.config.labels);
        let known = self.known.as_ref().map(|known| &known.labels);
        let labels = scanned.filter(|labels| !labels.is_empty()).or(known);
        labels.cloned().unwrap_or_default()
    }
}

impl ScannedView {
    pub(super) fn new(record: &Scanned, revision: u64, list: Option<Digest>) -> Self {
        Self {
            revision,
            packages: record.package_count,
            gaps: record.gap_count,
            scanned_at: record.scanned_at,
            list,
            config: record.config.clone(),
        }
    }
}

impl AssessedView {
    pub(super) fn new(record: &Assessed, revision: u64) -> Self {
        Self {
            revision,
            scan: record.scan,
            advisory: record.advisory,
            counts: record.counts,
            assessed_at: record.assessed_at,
        }
    }
}

impl JudgedView {
    pub(super) fn new(record: &Judged, revision: u64) -> Self {
        Self {
            revision,
            assessed: record.assessed,
            scan: record.scan,
            decision: record.verdict.decision,
            previous: record.previous,
            counts: record.counts,
            policy_revision: record.verdict.policy_revision,
            advisory_revision: record.verdict.advisory_revision,
            judged_at: record.verdict.evaluated_at,
            waivers_end: record.waivers_end,
            os_ends: record.os_ends,
            ages_at: record.ages_at,
            data_age_s_max: record.data_age_s_max,
            retired: is_retired(record),
            repositories: record.repositories.clone(),
        }
    }
}

/// The platform that a config says, else the one that an index says.
pub(crate) fn platform(
    config: Option<&ScannedConfig>,
    of_index: impl FnOnce() -> Option<Platform>,
) -> Platform {
    let said = config.map(|config| config.platform.clone());
    said.filter(|platform| *platform != Platform::default())
        .or_else(of_index)
        .unwrap_or_default()
}

/// Names that lead to an image now: `registry/repository` and tag. A repository where it has a tag
/// is not named once more without one.
pub(super) fn names(known: &Known) -> Vec<(String, Option<&str>)> {
    let live: Vec<&SeenReference> = known
        .references
        .iter()
        .filter(|seen| seen.gone_at.is_none())
        .collect();
    let is_tagged = |seen: &SeenReference| {
        live.iter().any(|other| {
            other.tag.is_some()
                && (&other.registry, &other.repository) == (&seen.registry, &seen.repository)
        })
    };
    let wanted = live
        .iter()
        .filter(|seen| seen.tag.is_some() || !is_tagged(seen));
    wanted
        .map(|seen| {
            (
                format!("{}/{}", seen.registry, seen.repository),
                seen.tag.as_deref(),
            )
        })
        .collect()
}
