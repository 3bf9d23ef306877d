//! Package lists and what was found for them. Images on one stack have the same list: it is fetched
//! and decoded once, matched once while a revision holds, and its result is packed once.

use std::sync::{Arc, Mutex, PoisonError};

use bus::{Common, Contents, EncodeError, Store};
use chassis::Recent;
use jiff::{Timestamp, civil::Date};
use model::{
    AdvisoryStamp, Assessment, Counts, Digest, Gap, Os, ScannedPackages, Vulnerability,
    event::REPORT_OBJECTS,
};
use serde::Serialize;

/// Encoded bytes of the lists that are kept.
const LISTS_BYTES_MAX: usize = 16 << 20;
/// Packed bytes of the results that are kept; decoded they take many times as much.
const RESULTS_BYTES_MAX: usize = 2 << 20;

/// Package lists of scans; the image in one is any that has it.
pub(crate) type Packages = Contents<ScannedPackages>;

/// What was found for lists of packages of late; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Matches(Arc<Mutex<Recent<Question, Arc<Matched>>>>);

/// What decides about a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// The list of packages, by content.
    pub(crate) list: Digest,
    /// The advisory revision.
    pub(crate) advisory: u64,
    /// The day, which decides about the end of life.
    pub(crate) today: Date,
}

/// What was found for a list of packages.
#[derive(Debug)]
pub(crate) struct Matched {
    /// The result; image and scan are those of any image with the list.
    pub(crate) assessment: Assessment,
    pub(crate) counts: Counts,
    /// The result without image and scan.
    pub(crate) common: Common,
}

/// What of an [`Assessment`] is one image's alone.
#[derive(Debug, Serialize)]
pub(crate) struct Own {
    pub(crate) image: Digest,
    pub(crate) scan: u64,
}

/// The rest of it.
#[derive(Serialize)]
struct InCommon<'a> {
    advisories: &'a AdvisoryStamp,
    os: Option<&'a Os>,
    #[serde(skip_serializing_if = "Option::is_none")]
    os_ends: Option<Timestamp>,
    vulnerabilities: &'a [Vulnerability],
    gaps: &'a [Gap],
}

/// Fetches package lists.
pub(crate) fn packages(store: Store) -> Packages {
    Contents::new(store, REPORT_OBJECTS, LISTS_BYTES_MAX)
}

// === impl Matches ===

impl Matches {
    pub(crate) fn get(&self, question: &Question) -> Option<Arc<Matched>> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.get(question)
    }

    pub(crate) fn keep(&self, question: Question, matched: &Arc<Matched>) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.put(question, Arc::clone(matched), matched.common.size());
    }
}

impl Default for Matches {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Recent::new(RESULTS_BYTES_MAX))))
    }
}

// === impl Matched ===

impl Matched {
    pub(crate) fn new(store: &Store, assessment: Assessment) -> Result<Self, EncodeError> {
        let common = store.common(&InCommon {
            advisories: &assessment.advisories,
            os: assessment.os.as_ref(),
            os_ends: assessment.os_ends,
            vulnerabilities: &assessment.vulnerabilities,
            gaps: &assessment.gaps,
        })?;
        Ok(Self {
            counts: Counts::of(&assessment.vulnerabilities),
            common,
            assessment,
        })
    }
}
