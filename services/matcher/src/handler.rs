//! A scan arrives: index its packages, match them, write the assessment.
//!
//! First assessments make no news. Every later one is news of the difference to the assessment
//! that the record names as its previous, so that doing it again says the same again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use anyhow::anyhow;
use bus::{Delivery, Failure, Handler, Outcome, Store, Stored};
use chassis::Cx;
use model::{
    Assessed, Assessment, Counts, Digest, Fingerprint, RecordKey, Scanned, ScannedPackages,
    Vulnerability, What,
    event::{Change, REPORT_OBJECTS, VulnerabilityChanged},
};
use vulndb::Lookup;

use crate::{
    Advisories,
    index::{Index, Indexed},
    metrics,
};

/// How often an assessment is repeated when advisories move meanwhile, before the message comes
/// again later.
const REPEATS_MAX: usize = 5;

/// Assesses images.
#[derive(Clone, Debug)]
pub(crate) struct Assessor {
    pub(crate) cx: Cx,
    pub(crate) store: Store,
    pub(crate) advisories: Arc<Advisories>,
    pub(crate) index: Index,
}

/// Why an image is assessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It was scanned: the record is written in any case.
    Scan,
    /// Advisories changed since the partition's mark: the record is written if the result did.
    Advisories {
        /// The mark's revision.
        swept: u64,
    },
}

impl Handler for Assessor {
    type Input = Scanned;

    async fn handle(&self, delivery: Delivery<Scanned>) -> Result<Outcome, Failure> {
        let Some(key) = &delivery.key else {
            let subject = &delivery.subject;
            return Err(Failure::Reject(anyhow!(
                "`{subject}` is not an image's record"
            )));
        };
        self.assess(key, delivery.sequence, &delivery.body, Cause::Scan)
            .await
    }
}

// === impl Assessor ===

impl Assessor {
    /// Assesses one scan with the advisories in force.
    pub(crate) async fn assess(
        &self,
        key: &RecordKey,
        scan: u64,
        scanned: &Scanned,
        cause: Cause,
    ) -> Result<Outcome, Failure> {
        let start = Instant::now();
        let packages: Option<ScannedPackages> =
            self.store.object(REPORT_OBJECTS, &scanned.packages).await?;
        let Some(packages) = packages.map(Arc::new) else {
            return self.without_packages(key, scan).await;
        };
        let mut assessment = self.matched(key, scan, &packages).await?;
        assessment.scan = scan;
        metrics::assessed(start.elapsed());
        let assessed_key = key.sibling(What::Assessed);
        let present: Option<Stored<Assessed>> = self.store.record(&assessed_key).await?;
        let advisory = assessment.advisories.revision;
        match present {
            Some(present) if present.body.scan > scan => Ok(Outcome::none()),
            Some(present) if present.body.advisory > advisory => {
                if present.body.scan == scan {
                    return Ok(Outcome::none());
                }
                // The other part would get smaller. Our advisories catch up.
                Err(Failure::Retry(anyhow!(
                    "advisories here are behind the record's"
                )))
            }
            Some(present) if (present.body.scan, present.body.advisory) == (scan, advisory) => {
                self.told_again(Outcome::none(), key, &present.body).await
            }
            present => self.write(key, scanned, assessment, present, cause).await,
        }
    }

    /// Indexes and matches, until the advisories stood still meanwhile. The index is written
    /// first: either a sweep finds the image there, or we see the sweep's revision here.
    async fn matched(
        &self,
        key: &RecordKey,
        scan: u64,
        packages: &Arc<ScannedPackages>,
    ) -> Result<Assessment, Failure> {
        let lookups = lookups(packages);
        for _ in 0..REPEATS_MAX {
            let advisory = self.advisories.manifest().revision;
            let entry = Indexed {
                scan,
                advisory,
                lookups: lookups.clone(),
            };
            let (index, image) = (self.index.clone(), key.clone());
            let written = self.cx.blocking(move || index.put(&image, entry)).await;
            written.map_err(Failure::retry)?.map_err(Failure::retry)?;
            let (advisories, packages) = (Arc::clone(&self.advisories), Arc::clone(packages));
            let now = self.cx.now();
            let matching = self
                .cx
                .compute(move || crate::assess(&advisories, &packages, now))
                .await;
            let assessment = matching.map_err(Failure::retry)?.map_err(Failure::Retry)?;
            let revision = assessment.advisories.revision;
            if revision == advisory && revision == self.advisories.manifest().revision {
                return Ok(assessment);
            }
        }
        Err(Failure::Retry(anyhow!("advisories do not stand still")))
    }

    async fn write(
        &self,
        key: &RecordKey,
        scanned: &Scanned,
        assessment: Assessment,
        present: Option<Stored<Assessed>>,
        cause: Cause,
    ) -> Result<Outcome, Failure> {
        let (expected, present) =
            present.map_or((0, None), |stored| (stored.revision, Some(stored.body)));
        let before = self
            .assessment(present.as_ref().map(|present| present.assessment))
            .await?;
        let mut outcome = Outcome::none();
        // Whoever wrote the record may have died before it told.
        if let Some(present) = present
            .as_ref()
            .filter(|present| cause.may_be_untold(present, &assessment))
        {
            outcome = self.told_again(outcome, key, present).await?;
        }
        let is_same = before
            .as_ref()
            .is_some_and(|before| says_the_same(before, &assessment));
        if is_same && cause != Cause::Scan {
            return Ok(outcome);
        }
        let record = Assessed {
            scan: assessment.scan,
            advisory: assessment.advisories.revision,
            assessment: self.store.put_object(REPORT_OBJECTS, &assessment).await?,
            findings: scanned.findings,
            previous: present.as_ref().map(|present| present.assessment),
            counts: Counts::of(&assessment.vulnerabilities),
            assessed_at: self.cx.now(),
        };
        outcome = outcome.put(&key.sibling(What::Assessed), &record, expected)?;
        if let Some(gone) = present.and_then(|present| present.previous) {
            outcome = outcome.discard(REPORT_OBJECTS, gone);
        }
        news(outcome, key, &record, before.as_ref(), &assessment)
    }

    /// The news that a record in force was written with, once more: they have the same ids.
    async fn told_again(
        &self,
        outcome: Outcome,
        key: &RecordKey,
        present: &Assessed,
    ) -> Result<Outcome, Failure> {
        let before = self.assessment(present.previous).await?;
        match self.assessment(Some(present.assessment)).await? {
            Some(after) => news(outcome, key, present, before.as_ref(), &after),
            None => Ok(outcome),
        }
    }

    /// The scan's object is gone: either a newer scan replaced it, or it comes back.
    async fn without_packages(&self, key: &RecordKey, scan: u64) -> Result<Outcome, Failure> {
        let scanned_key = key.sibling(What::Scanned);
        let present: Option<Stored<Scanned>> = self.store.record(&scanned_key).await?;
        match present {
            Some(present) if present.revision <= scan => Err(Failure::Retry(anyhow!(
                "packages of `{}` are missing",
                key.image
            ))),
            _ => Ok(Outcome::none()),
        }
    }

    async fn assessment(&self, digest: Option<Digest>) -> Result<Option<Assessment>, Failure> {
        match digest {
            Some(digest) => Ok(self.store.object(REPORT_OBJECTS, &digest).await?),
            None => Ok(None),
        }
    }
}

// === impl Cause ===

impl Cause {
    /// Whether the news of the record in force may not have been told: its scan was delivered
    /// before, or it was written after the last sweep that came to its end.
    fn may_be_untold(self, present: &Assessed, assessment: &Assessment) -> bool {
        match self {
            Self::Scan => present.scan == assessment.scan,
            Self::Advisories { swept } => present.advisory > swept,
        }
    }
}

/// What an image's packages are looked up by.
pub(crate) fn lookups(packages: &ScannedPackages) -> BTreeSet<Lookup> {
    let os = packages.os.as_ref();
    packages
        .packages
        .iter()
        .flat_map(|package| vulndb::lookups(package, os))
        .collect()
}

/// The same findings and gaps: policy would judge the same.
fn says_the_same(a: &Assessment, b: &Assessment) -> bool {
    a.scan == b.scan && a.vulnerabilities == b.vulnerabilities && a.gaps == b.gaps && a.os == b.os
}

/// Adds the news that follow from a difference.
fn news(
    mut outcome: Outcome,
    key: &RecordKey,
    record: &Assessed,
    before: Option<&Assessment>,
    after: &Assessment,
) -> Result<Outcome, Failure> {
    let Some(before) = before else {
        return Ok(outcome);
    };
    let (old, new) = (by_fingerprint(before), by_fingerprint(after));
    let appeared = new.iter().filter(|(name, _)| !old.contains_key(*name));
    let resolved = old.iter().filter(|(name, _)| !new.contains_key(*name));
    let changes = appeared
        .map(|(_, vulnerability)| (Change::Appeared, *vulnerability))
        .chain(resolved.map(|(_, vulnerability)| (Change::Resolved, *vulnerability)));
    for (change, vulnerability) in changes {
        let event = VulnerabilityChanged {
            image: key.image,
            change,
            vulnerability: vulnerability.clone(),
            advisory: record.advisory,
            changed_at: record.assessed_at,
        };
        metrics::changed(change);
        outcome = outcome.emit(&key.tenant, &event)?;
    }
    Ok(outcome)
}

fn by_fingerprint(assessment: &Assessment) -> BTreeMap<&Fingerprint, &Vulnerability> {
    let found = assessment.vulnerabilities.iter();
    found
        .map(|vulnerability| (&vulnerability.fingerprint, vulnerability))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
