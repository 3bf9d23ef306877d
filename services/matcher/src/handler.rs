//! A scan arrives: index its packages, match them, write the assessment.
//!
//! First assessments make no news. Every later one is news of the difference to the assessment
//! that the record names as its previous, so that doing it again says the same again.
//!
//! It can die between any two steps. The index is written first and says nothing about the
//! assessment, so a sweep finds the image whether it was assessed or not; the message is
//! acknowledged after the record and its news are out, so what is missing is done again; and where
//! the record stands already, its news are told again under the same ids.
//!
//! A scan whose packages cannot be read, or that makes matching panic, is assessed as well: without
//! vulnerabilities, with a gap that hides packages. So it has a verdict, and its partition's sweeps
//! come to their end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Instant,
};

use anyhow::anyhow;
use bus::{Delivery, Failure, Handler, Outcome, Store, StoreError, Stored};
use chassis::{Cx, Lost};
use jiff::{SignedDuration, Timestamp};
use model::{
    Assessed, AssessedContents, Assessment, Digest, Fingerprint, Gap, GapCode, Hides, RecordKey,
    Scanned, ScannedPackages, Vulnerability, What,
    event::{Change, REPORT_OBJECTS, VulnerabilityChanged},
};
use vulndb::Lookup;

use crate::{
    Advisories,
    index::Index,
    matches::{Matched, Matches, Own, Packages, Question},
    metrics,
};

/// How often an assessment is repeated when advisories move meanwhile, before the message comes
/// again later.
const REPEATS_MAX: usize = 5;
/// How often packages that are not there are waited for.
pub(crate) const TRIES_MAX: u64 = 4;
/// News of a record this young are told again when a newer scan replaces it: whoever wrote it may
/// have died before it told, and its message went with its scan.
const TELL_AGAIN: SignedDuration = SignedDuration::from_hours(1);

/// Assesses images.
#[derive(Clone, Debug)]
pub(crate) struct Assessor {
    pub(crate) cx: Cx,
    pub(crate) store: Store,
    pub(crate) advisories: Arc<Advisories>,
    pub(crate) index: Index,
    pub(crate) packages: Packages,
    pub(crate) matches: Matches,
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
    /// The rules of matching are others than those of the partition's mark: the same, also where the
    /// record rests on the advisories in force.
    Rules {
        /// The mark's revision.
        swept: u64,
    },
}

/// The packages of a scan that is in force are not there. They may come back; in vain waited for,
/// the image gets an assessment that says so.
#[derive(Debug)]
pub(crate) struct PackagesMissing {
    image: Digest,
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
        let (scan, body) = (delivery.sequence, &delivery.body);
        match self.assess(key, scan, body, Cause::Scan).await {
            Err(Failure::Retry(error))
                if error.is::<PackagesMissing>() && delivery.attempt >= TRIES_MAX =>
            {
                self.unreadable(key, scan, body, Cause::Scan, &error).await
            }
            other => other,
        }
    }
}

// === impl Assessor ===

impl Assessor {
    /// Assesses one scan with the advisories in force. What can never be assessed gets an
    /// assessment that says so.
    pub(crate) async fn assess(
        &self,
        key: &RecordKey,
        scan: u64,
        scanned: &Scanned,
        cause: Cause,
    ) -> Result<Outcome, Failure> {
        match self.try_assess(key, scan, scanned, cause).await {
            Err(Failure::Reject(error)) => self.unreadable(key, scan, scanned, cause, &error).await,
            other => other,
        }
    }

    /// Assesses a scan of which nothing can be read.
    pub(crate) async fn unreadable(
        &self,
        key: &RecordKey,
        scan: u64,
        scanned: &Scanned,
        cause: Cause,
        why: &anyhow::Error,
    ) -> Result<Outcome, Failure> {
        let image = key.image;
        tracing::warn!(
            image.digest = %image,
            error = format!("{why:#}"),
            "image {image} is assessed without its packages: {why:#}"
        );
        let manifest = self.advisories.manifest();
        let advisory = manifest.revision;
        let present: Option<Stored<Assessed>> =
            self.store.record(&key.sibling(What::Assessed)).await?;
        if present
            .as_ref()
            .is_some_and(|present| present.body.scan > scan || present.body.advisory > advisory)
        {
            return Ok(Outcome::none());
        }
        let detail = format!("the image's packages could not be matched: {why:#}");
        let assessment = Assessment {
            image,
            scan,
            advisories: manifest.stamp(),
            os: None,
            os_ends: None,
            vulnerabilities: Vec::new(),
            gaps: vec![Gap::new(GapCode::ScanAborted, Hides::Packages, detail)],
        };
        let matched = Matched::new(&self.store, assessment)?;
        self.write(key, (scan, scanned), &matched, present, cause)
            .await
    }

    async fn try_assess(
        &self,
        key: &RecordKey,
        scan: u64,
        scanned: &Scanned,
        cause: Cause,
    ) -> Result<Outcome, Failure> {
        let start = Instant::now();
        let assessed_key = key.sibling(What::Assessed);
        let present: Option<Stored<Assessed>> = self.store.record(&assessed_key).await?;
        if let Some(present) = &present {
            let advisory = self.advisories.manifest().revision;
            let at = (scan, advisory);
            if let Some(standing) = self.standing(key, at, &present.body, cause).await? {
                return Ok(standing);
            }
        }
        let content = scanned.contents.packages;
        let packages = match self.packages.get(&scanned.packages, content.as_ref()).await {
            Ok(packages) => packages,
            Err(error) if error.is_permanent() => return Err(Failure::reject(error)),
            Err(error @ StoreError::Corrupt { .. }) => return Err(Failure::reject(error)),
            Err(error) => return Err(error.into()),
        };
        let Some(packages) = packages else {
            return self.without_packages(key, scan).await;
        };
        let matched = self.matched(key, (scan, scanned), &packages).await?;
        metrics::assessed(start.elapsed());
        let advisory = matched.assessment.advisories.revision;
        if let Some(present) = &present
            && let at = (scan, advisory)
            && let Some(standing) = self.standing(key, at, &present.body, cause).await?
        {
            return Ok(standing);
        }
        self.write(key, (scan, scanned), &matched, present, cause)
            .await
    }

    /// What is to be done where a record stands that must not be replaced: nothing, or its news
    /// once more. `None`: an assessment of this scan at this revision replaces it.
    async fn standing(
        &self,
        key: &RecordKey,
        (scan, advisory): (u64, u64),
        present: &Assessed,
        cause: Cause,
    ) -> Result<Option<Outcome>, Failure> {
        if present.scan > scan {
            return Ok(Some(Outcome::none()));
        }
        if present.advisory > advisory {
            if present.scan == scan {
                return Ok(Some(Outcome::none()));
            }
            // The other part would get smaller. Our advisories catch up.
            return Err(Failure::Retry(anyhow!(
                "advisories here are behind the record's"
            )));
        }
        let is_by_rules = matches!(cause, Cause::Rules { .. });
        if (present.scan, present.advisory) == (scan, advisory) && !is_by_rules {
            let told = self.told_again(Outcome::none(), key, present).await?;
            return Ok(Some(told));
        }
        Ok(None)
    }

    /// Indexes and matches, until the advisories stood still meanwhile. The index is written
    /// first: either a sweep finds the image there, or we see the sweep's revision here.
    async fn matched(
        &self,
        key: &RecordKey,
        (scan, scanned): (u64, &Scanned),
        packages: &Arc<ScannedPackages>,
    ) -> Result<Arc<Matched>, Failure> {
        let (index, image, list) = (self.index.clone(), key.clone(), Arc::clone(packages));
        let name = list_of(scanned);
        let indexing = move || index.put_scan(&image, scan, name, || lookups(&list));
        let indexed = self.cx.blocking(indexing).await;
        indexed.map_err(Failure::retry)?.map_err(Failure::retry)?;
        for _ in 0..REPEATS_MAX {
            let now = self.cx.now();
            let question = Question {
                list: name,
                advisory: self.advisories.manifest().revision,
                today: crate::day(now),
            };
            if let Some(known) = self.matches.get(&question) {
                return Ok(known);
            }
            let (advisories, packages) = (Arc::clone(&self.advisories), Arc::clone(packages));
            let store = self.store.clone();
            let matching = self.cx.compute(move || {
                let assessment = crate::assess(&advisories, &packages, now)?;
                Ok(Arc::new(Matched::new(&store, assessment)?))
            });
            let matched = match matching.await {
                Ok(matched) => matched.map_err(Failure::Retry)?,
                Err(panic @ Lost::Panicked) => {
                    let image = key.image;
                    tracing::error!(image.digest = %image, "matching image {image} panicked");
                    return Err(Failure::Reject(
                        anyhow!(panic).context("matching its packages"),
                    ));
                }
                Err(stop @ Lost::Stopped) => return Err(Failure::retry(stop)),
            };
            let advisory = matched.assessment.advisories.revision;
            if advisory == question.advisory {
                self.matches.keep(question, &matched);
            }
            if advisory == self.advisories.manifest().revision {
                return Ok(matched);
            }
        }
        Err(Failure::Retry(anyhow!("advisories do not stand still")))
    }

    async fn write(
        &self,
        key: &RecordKey,
        (scan, scanned): (u64, &Scanned),
        matched: &Matched,
        present: Option<Stored<Assessed>>,
        cause: Cause,
    ) -> Result<Outcome, Failure> {
        let assessment = &matched.assessment;
        let (expected, present) =
            present.map_or((0, None), |stored| (stored.revision, Some(stored.body)));
        let before = self
            .assessment(present.as_ref().map(|present| present.assessment))
            .await?;
        let mut outcome = Outcome::none();
        // Whoever wrote the record may have died before it told.
        if let Some(present) = present
            .as_ref()
            .filter(|present| cause.may_be_untold(present, scan, self.cx.now()))
        {
            outcome = self.told_again(outcome, key, present).await?;
        }
        let is_same = before
            .as_ref()
            .is_some_and(|before| before.scan == scan && says_the_same(before, assessment));
        if is_same && cause != Cause::Scan {
            return Ok(outcome);
        }
        let (image, common) = (key.image, &matched.common);
        let own = Own { image, scan };
        let object = self
            .store
            .put_object_with(&key.tenant, REPORT_OBJECTS, &own, common);
        let record = Assessed {
            scan,
            advisory: assessment.advisories.revision,
            assessment: object.await?,
            findings: scanned.findings,
            previous: present.as_ref().map(|present| present.assessment),
            counts: matched.counts,
            assessed_at: self.cx.now(),
            contents: AssessedContents {
                assessment: Some(common.content()),
                findings: scanned.contents.findings,
            },
        };
        outcome = outcome.put(&key.sibling(What::Assessed), &record, expected)?;
        if let Some(gone) = present.and_then(|present| present.previous) {
            outcome = outcome.discard(REPORT_OBJECTS, gone);
        }
        news(outcome, key, &record, before.as_ref(), assessment)
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
            Some(present) if present.revision <= scan => {
                let image = key.image;
                Err(Failure::retry(PackagesMissing { image }))
            }
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

// === impl PackagesMissing ===

impl fmt::Display for PackagesMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packages of `{}` are missing", self.image)
    }
}

impl std::error::Error for PackagesMissing {}

// === impl Cause ===

impl Cause {
    /// Whether the news of the record that is replaced may not have been told.
    ///
    /// A sweep tells before it marks its revision, so a record that an older sweep wrote is told.
    /// One at the mark's revision may be of a scan whose message comes again, and finds the record
    /// that replaces it. A scan that is replaced takes its message with it.
    fn may_be_untold(self, present: &Assessed, scan: u64, now: Timestamp) -> bool {
        match self {
            Self::Scan => {
                present.scan == scan || now.duration_since(present.assessed_at) < TELL_AGAIN
            }
            Self::Advisories { swept } | Self::Rules { swept } => present.advisory >= swept,
        }
    }
}

/// The name of a scan's list of packages: by content, else by its object.
pub(crate) fn list_of(scanned: &Scanned) -> Digest {
    scanned.contents.packages.unwrap_or(scanned.packages)
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
    a.vulnerabilities == b.vulnerabilities && a.gaps == b.gaps && a.os == b.os
}

/// Whether something keeps results of matching out of an assessment that do not follow from the
/// packages alone.
fn is_cut(assessment: &Assessment) -> bool {
    let cuts = |gap: &Gap| {
        gap.hides == Hides::Packages
            && matches!(gap.code, GapCode::LimitResults | GapCode::ScanAborted)
    };
    assessment.gaps.iter().any(cuts)
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
    // What is only out of sight now is not resolved.
    let is_hidden = is_cut(after) && !is_cut(before);
    let resolved = old
        .iter()
        .filter(|(name, _)| !is_hidden && !new.contains_key(*name));
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
