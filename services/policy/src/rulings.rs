//! Rulings: what an image's records and the policies in force ask us to write.
//!
//! A verdict rests on an assessment and a policy, each with a revision. One that rests on a newer
//! part is never replaced by one that rests on an older. Everything here may be done twice.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, ensure};
use bus::{Contents, Store, StoreError, Stored};
use chassis::Cx;
use jiff::Timestamp;
use model::{
    Assessed, Assessment, Facts, Findings, Judged, Known, RecordKey, ScannedFindings, SweptMark,
    What, event::REPORT_OBJECTS,
};
use tokio::sync::watch;

use crate::{
    document::Policy,
    judge::{Judgement, judge},
    metrics,
    ruling::{Ruling, is_retired, replacing, retired, standing, waits_for_data},
    set::{PolicySet, Selected},
};

/// Names of an image that its verdicts carry.
const NAMES_MAX: usize = 10;
/// An image with up to so many facts is judged at once: handing it to another thread would take
/// longer.
const FACTS_HERE_MAX: usize = 64;
/// Encoded bytes of the facts of each kind that are kept.
const FACTS_BYTES_MAX: usize = 16 << 20;

/// Judges images whose facts are in the store.
#[derive(Clone)]
pub(crate) struct Judges {
    pub(crate) cx: Cx,
    pub(crate) store: Store,
    pub(crate) objects: Objects,
    /// The policies in force.
    pub(crate) policies: watch::Receiver<Arc<PolicySet>>,
}

/// Facts that were read of late; the image in them is any that has the same.
#[derive(Clone)]
pub(crate) struct Objects {
    assessments: Contents<Assessment>,
    findings: Contents<ScannedFindings>,
}

/// An image's assessment, with its revision.
#[derive(Clone, Debug)]
pub(crate) struct Basis {
    pub(crate) revision: u64,
    pub(crate) assessed: Assessed,
    /// The mark of its partition, where it was read a moment ago.
    pub(crate) mark: Option<SweptMark>,
}

/// An image that is being judged.
struct Image {
    key: RecordKey,
    names: Vec<String>,
    /// The revision of its assessment, and what that says.
    revision: u64,
    assessed: Assessed,
    mark: SweptMark,
    now: Timestamp,
}

/// What a verdict that is stored is worth.
enum Worth {
    /// It rests on a newer assessment than we have.
    Newer,
    /// It says what judging again would say.
    Good,
    /// There is none, or it must be judged again.
    Due,
}

/// A verdict that is to be written.
struct Due {
    selected: Selected,
    key: RecordKey,
    known: Option<Stored<Judged>>,
}

// === impl Judges ===

impl Judges {
    /// What shall be done about an image whose assessment has this revision. `again`: its message
    /// came before.
    ///
    /// Its names are read here, after the verdicts, and never taken from a message: a message may
    /// be older than a verdict. Who changes the names in between judges too, and then the
    /// compare-and-set of ours fails.
    pub(crate) async fn assessed(
        &self,
        key: &RecordKey,
        basis: Basis,
        again: bool,
    ) -> anyhow::Result<Vec<Ruling>> {
        let Basis {
            revision,
            assessed,
            mark,
        } = basis;
        let started = Instant::now();
        let policies = Arc::clone(&self.policies.borrow());
        let mut verdicts = Vec::new();
        for policy in policies.all() {
            let key = key.sibling(What::Judged(policy.name.clone()));
            let stored = self.store.record::<Judged>(&key).await?;
            verdicts.push((policy, key, stored));
        }
        let known = self
            .store
            .record::<Known>(&key.sibling(What::Known))
            .await?;
        let known = known.map(|stored| stored.body).unwrap_or_default();
        let mark = match mark {
            Some(mark) => mark,
            None => self.store.swept_mark(key.image.partition()).await?,
        };
        let image = Image {
            key: key.clone(),
            names: known.names().take(NAMES_MAX).collect(),
            revision,
            assessed,
            mark,
            now: self.cx.now(),
        };
        let mut selected = policies.of(&known);
        let (mut rulings, mut due) = (Vec::new(), Vec::new());
        for (policy, key, known) in verdicts {
            let at = selected
                .iter()
                .position(|one| one.policy.name == policy.name);
            match at.map(|at| selected.swap_remove(at)) {
                None => {
                    let revision = Some(policy.revision);
                    rulings.extend(known.and_then(|old| retired(key, old, revision, image.now)));
                }
                Some(selected) => match image.worth_of(known.as_ref(), &selected)? {
                    Worth::Newer => {}
                    Worth::Good => {
                        let good = known.map(|old| standing(key, old.body, again, image.now));
                        rulings.extend(good);
                    }
                    Worth::Due => due.push(Due {
                        selected,
                        key,
                        known,
                    }),
                },
            }
        }
        if !due.is_empty() {
            rulings.extend(self.judge(image, due).await?);
            metrics::judged(started.elapsed());
        }
        Ok(rulings)
    }

    /// What shall be done about an image whose names changed.
    pub(crate) async fn known(&self, key: &RecordKey) -> anyhow::Result<Vec<Ruling>> {
        let stored = self
            .store
            .record::<Assessed>(&key.sibling(What::Assessed))
            .await?;
        // Without an assessment there is nothing to judge; when it comes it finds the names.
        let Some(Stored { revision, body }) = stored else {
            return Ok(Vec::new());
        };
        self.assessed(key, Basis::of(revision, body), false).await
    }

    /// What shall be done about a verdict under a policy that is not in force any more.
    pub(crate) async fn orphan(&self, key: &RecordKey) -> anyhow::Result<Option<Ruling>> {
        let stored = self.store.record::<Judged>(key).await?;
        Ok(stored.and_then(|stored| retired(key.clone(), stored, None, self.cx.now())))
    }

    /// Loads the facts and judges them under the policies that are due.
    async fn judge(&self, image: Image, due: Vec<Due>) -> anyhow::Result<Vec<Ruling>> {
        let gone = || format!("the facts of image {} are gone", image.key.image);
        let (assessment, findings) = self.objects.of(&image.assessed).await?;
        let assessment = assessment.with_context(gone)?;
        let findings = findings.with_context(gone)?;
        let Findings {
            secrets,
            misconfigurations,
            malware,
            licenses,
            ..
        } = &findings.findings;
        let facts = [
            assessment.vulnerabilities.len(),
            assessment.gaps.len(),
            secrets.len(),
            misconfigurations.len(),
            malware.len(),
            licenses.len(),
        ];
        let is_small = facts.iter().sum::<usize>() <= FACTS_HERE_MAX;
        let work = move || {
            let facts = Facts {
                assessment: &assessment,
                findings: &findings.findings,
                target: &findings.target,
            };
            due.into_iter()
                .map(|due| image.ruling(&facts, due))
                .collect()
        };
        if is_small {
            return Ok(work());
        }
        Ok(self.cx.compute(work).await?)
    }
}

// === impl Objects ===

impl Objects {
    pub(crate) fn new(store: &Store) -> Self {
        Self {
            assessments: Contents::new(store.clone(), REPORT_OBJECTS, FACTS_BYTES_MAX),
            findings: Contents::new(store.clone(), REPORT_OBJECTS, FACTS_BYTES_MAX),
        }
    }

    /// What an assessment and the scan under it found, where it is still there.
    async fn of(
        &self,
        assessed: &Assessed,
    ) -> Result<(Option<Arc<Assessment>>, Option<Arc<ScannedFindings>>), StoreError> {
        let Assessed {
            assessment,
            findings,
            contents,
            ..
        } = assessed;
        tokio::try_join!(
            self.assessments
                .get(assessment, contents.assessment.as_ref()),
            self.findings.get(findings, contents.findings.as_ref()),
        )
    }
}

// === impl Basis ===

impl Basis {
    pub(crate) const fn of(revision: u64, assessed: Assessed) -> Self {
        Self {
            revision,
            assessed,
            mark: None,
        }
    }
}

// === impl Image ===

impl Image {
    fn worth_of(
        &self,
        known: Option<&Stored<Judged>>,
        selected: &Selected,
    ) -> anyhow::Result<Worth> {
        let Some(Stored { body: judged, .. }) = known else {
            return Ok(Worth::Due);
        };
        if judged.assessed > self.revision {
            return Ok(Worth::Newer);
        }
        let (policy, there) = (&selected.policy, judged.verdict.policy_revision);
        ensure!(
            there <= policy.revision,
            "policy `{}` is in force at revision {there}, and {} is the newest that is known here",
            policy.name,
            policy.revision,
        );
        let good = self.stands(judged, selected);
        Ok(if good { Worth::Good } else { Worth::Due })
    }

    /// Whether a verdict says what judging again would say.
    fn stands(&self, judged: &Judged, selected: &Selected) -> bool {
        let policy = &selected.policy;
        judged.assessed == self.revision
            && judged.verdict.policy_revision == policy.revision
            && judged.references == self.names
            && judged.repositories == selected.repositories
            && judged.waivers_end.is_none_or(|end| end > self.now)
            && judged.os_ends.is_none_or(|end| end > self.now)
            && judged.ages_at.is_none_or(|at| at > self.now)
            && !is_retired(judged)
            && !(waits_for_data(judged, policy) && self.data_came(judged, policy))
    }

    /// Whether the partition has newer data than those that a verdict waits for.
    fn data_came(&self, judged: &Judged, policy: &Policy) -> bool {
        let Some(data_at) = self.mark.data_at.filter(|_| self.holds_for_mark()) else {
            return false;
        };
        let age = self.now.duration_since(data_at);
        let limits = judged
            .verdict
            .reasons
            .iter()
            .filter_map(|one| policy.age_limit_of(&one.rule));
        judged.verdict.advisory_revision == 0 || limits.into_iter().any(|limit| age <= limit.0)
    }

    fn holds_for_mark(&self) -> bool {
        self.mark.revision >= self.assessed.advisory
    }

    fn ruling(&self, facts: &Facts<'_>, due: Due) -> Ruling {
        let Due {
            selected,
            key,
            known,
        } = due;
        let Selected {
            policy,
            repositories,
        } = selected;
        let data_at = facts.assessment.advisories.data_at();
        let swept_at = self.mark.data_at.filter(|_| self.holds_for_mark());
        let Judgement {
            mut verdict,
            counts,
            waivers_end,
            os_ends,
            ages_at,
            data_age_s_max,
            waived,
            checks,
        } = judge(
            &policy,
            facts,
            &repositories,
            self.now,
            data_at.max(swept_at),
        );
        // How long it holds is computed when somebody asks.
        verdict.valid_until = None;
        if self.holds_for_mark() {
            verdict.advisory_revision = self.mark.revision;
        }
        let judged = Judged {
            assessed: self.revision,
            scan: self.assessed.scan,
            previous: None,
            decided_at: None,
            verdict,
            counts,
            waivers_end,
            os_ends,
            ages_at,
            data_age_s_max,
            references: self.names.clone(),
            repositories,
            waived,
            checks,
        };
        replacing(key, judged, known, self.now)
    }
}
