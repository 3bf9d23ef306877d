//! Waivers: findings that somebody accepted, for a reason, until a day.
//!
//! A waiver must say what it accepts, why, who says so and until when; none of it has a default.
//! One that ran out accepts nothing, and where it would have, the verdict says so.

use std::collections::BTreeMap;

use analyzers::licenses;
use jiff::Timestamp;
use model::{
    Decision, Facts, Fingerprint, License, Misconfiguration, Reason, Vulnerability, Waived,
};
use serde::Deserialize;

use crate::{
    condition::{Trait, is_called},
    document::Policy,
    evidence::Evidence,
    values::{LastDay, NameGlobs, RepositoryGlobs, Text},
};

/// The rule that names waivers which ran out.
pub(crate) const EXPIRED_RULE: &str = "expired-waiver";

/// An accepted finding. Everything that is given must fit.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct Waiver {
    /// The vulnerability, by any of its names.
    pub cve: Option<Text>,
    /// The finding, by its fingerprint.
    pub fingerprint: Option<Text>,
    /// The licence: a whole expression, or one with which alone the package can be had.
    pub license: Option<Text>,
    /// What rules hold against the image itself.
    pub image: Option<Trait>,
    /// The package, by patterns.
    pub packages: NameGlobs,
    /// Only in images all of whose names under this policy fit; everywhere where there are none.
    pub repositories: RepositoryGlobs,
    /// Why it is accepted.
    pub reason: Text,
    /// Who accepted it.
    pub author: Text,
    /// The last day on which it holds, in UTC.
    pub expires: LastDay,
}

/// What waivers do to one image at one time.
#[derive(Debug, Default)]
pub(crate) struct InForce<'a> {
    /// What each accepted finding is marked with.
    pub(crate) marks: BTreeMap<Fingerprint, Waived>,
    /// Waivers that ran out, each with the findings that it accepted until then.
    pub(crate) expired: Vec<(&'a Waiver, Vec<Fingerprint>)>,
    /// When the first waiver in force ends.
    pub(crate) end: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    cve: Option<Text>,
    fingerprint: Option<Text>,
    license: Option<Text>,
    image: Option<Trait>,
    #[serde(default)]
    packages: NameGlobs,
    #[serde(default)]
    repositories: RepositoryGlobs,
    reason: Text,
    author: Text,
    expires: LastDay,
}

/// A finding as waivers see it.
enum Subject<'a> {
    Vulnerability(&'a Vulnerability),
    License(&'a License),
    Trait(Trait, &'a Fingerprint),
    Other(&'a Fingerprint),
}

// === impl Waiver ===

impl TryFrom<Written> for Waiver {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written {
            cve,
            fingerprint,
            license,
            image,
            packages,
            repositories,
            reason,
            author,
            expires,
        } = written;
        let kinds = [cve.is_some(), license.is_some(), image.is_some()];
        match kinds.into_iter().filter(|named| *named).count() {
            0 if fingerprint.is_none() && packages.is_empty() => {
                return Err(
                    "a waiver must name a `cve`, a `license`, an `image`, a `fingerprint` or `packages`",
                );
            }
            0 | 1 => {}
            _ => return Err("a waiver names one of `cve`, `license` and `image`: write another"),
        }
        Ok(Self {
            cve,
            fingerprint,
            license,
            image,
            packages,
            repositories,
            reason,
            author,
            expires,
        })
    }
}

impl Waiver {
    /// Whether the waiver is about images with these names.
    fn is_about(&self, repositories: &[String]) -> bool {
        self.repositories.is_empty()
            || !repositories.is_empty()
                && repositories.iter().all(|name| self.repositories.fits(name))
    }

    fn accepts(&self, subject: &Subject<'_>) -> bool {
        let named = |fingerprint: &Fingerprint| {
            self.fingerprint
                .as_ref()
                .is_none_or(|wanted| wanted.0 == fingerprint.0)
        };
        let in_packages = |name: &str| self.packages.is_empty() || self.packages.fits(name);
        match subject {
            Subject::Vulnerability(found) => {
                self.license.is_none()
                    && self.image.is_none()
                    && named(&found.fingerprint)
                    && self.cve.as_ref().is_none_or(|cve| is_called(found, &cve.0))
                    && in_packages(&found.package)
            }
            // `packages` alone accepts vulnerabilities, and no licence.
            Subject::License(found) => {
                let is_enough = |wanted: &Text| {
                    wanted.0 == found.expression
                        || licenses::is_satisfied(&found.expression, |name, _| name == wanted.0)
                };
                (self.license.is_some() || self.fingerprint.is_some())
                    && self.cve.is_none()
                    && self.image.is_none()
                    && named(&found.fingerprint)
                    && self.license.as_ref().is_none_or(is_enough)
                    && in_packages(&found.package)
            }
            Subject::Trait(of, fingerprint) => {
                (self.image == Some(*of) || self.image.is_none() && self.fingerprint.is_some())
                    && self.cve.is_none()
                    && self.license.is_none()
                    && self.packages.is_empty()
                    && named(fingerprint)
            }
            // Only its fingerprint names another finding.
            Subject::Other(fingerprint) => {
                self.fingerprint.is_some()
                    && self.cve.is_none()
                    && self.license.is_none()
                    && self.image.is_none()
                    && self.packages.is_empty()
                    && named(fingerprint)
            }
        }
    }

    fn mark(&self, policy: &str) -> Waived {
        Waived {
            reason: self.reason.0.clone(),
            author: self.author.0.clone(),
            expires: self.expires.0,
            source: format!("policy {policy}"),
        }
    }

    fn scope(&self) -> String {
        let packages = (!self.packages.is_empty()).then(|| self.packages.to_string());
        let image = self.image.map(|of| format!("the image's {of}"));
        let named = [&self.cve, &self.fingerprint, &self.license]
            .into_iter()
            .flatten()
            .map(ToString::to_string);
        named
            .chain(image)
            .chain(packages)
            .collect::<Vec<_>>()
            .join(" in ")
    }
}

// === impl InForce ===

impl<'a> InForce<'a> {
    /// Applies a policy's waivers to an image at a time. `late` are failed checks that nobody knew before.
    pub(crate) fn new(
        policy: &'a Policy,
        facts: &Facts<'_>,
        late: &[Misconfiguration],
        repositories: &[String],
        now: Timestamp,
    ) -> Self {
        let mut traits: Vec<_> = policy
            .conditions()
            .flat_map(|condition| condition.traits(facts.target, now))
            .map(|of| (of, of.fingerprint()))
            .collect();
        traits.sort();
        traits.dedup();
        let mut subjects = subjects(facts, late);
        let traits = traits.iter();
        subjects.extend(traits.map(|(of, name)| (name, Subject::Trait(*of, name))));
        let mut found = Self::default();
        for waiver in policy
            .waivers
            .iter()
            .filter(|waiver| waiver.is_about(repositories))
        {
            let accepted = subjects
                .iter()
                .filter(|(_, subject)| waiver.accepts(subject));
            let accepted: Vec<_> = accepted
                .map(|(fingerprint, _)| (*fingerprint).clone())
                .collect();
            if accepted.is_empty() {
                continue;
            }
            let end = waiver.expires.end();
            if end <= now {
                found.expired.push((waiver, accepted));
                continue;
            }
            found.end = Some(found.end.map_or(end, |known| known.min(end)));
            for fingerprint in accepted {
                found
                    .marks
                    .entry(fingerprint)
                    .or_insert_with(|| waiver.mark(policy.name.as_str()));
            }
        }
        // A finding that another waiver still accepts is not waiting for anybody.
        for (_, fingerprints) in &mut found.expired {
            fingerprints.retain(|fingerprint| !found.marks.contains_key(fingerprint));
        }
        found
            .expired
            .retain(|(_, fingerprints)| !fingerprints.is_empty());
        found
    }

    /// The reason that names waivers which ran out.
    pub(crate) fn expired_reason(&self) -> Option<Reason> {
        if self.expired.is_empty() {
            return None;
        }
        let piece = |waiver: &Waiver| {
            let Waiver {
                author,
                reason,
                expires,
                ..
            } = waiver;
            format!(
                "{} by {author} until {} ({reason})",
                waiver.scope(),
                expires.0
            )
        };
        let pieces = self
            .expired
            .iter()
            .map(|(waiver, _)| piece(waiver))
            .collect();
        let evidence = Evidence::plain(
            "waivers ran out and no longer apply",
            pieces,
            "fix what they accepted, or renew them",
        );
        let mut reason = evidence.into_reason(EXPIRED_RULE, Decision::Warn, None, None);
        reason.fingerprints = self
            .expired
            .iter()
            .flat_map(|(_, fingerprints)| fingerprints.clone())
            .collect();
        Some(reason)
    }
}

fn subjects<'a>(
    facts: &Facts<'a>,
    late: &'a [Misconfiguration],
) -> Vec<(&'a Fingerprint, Subject<'a>)> {
    let Facts {
        assessment,
        findings,
        target: _,
    } = facts;
    let vulnerabilities = assessment
        .vulnerabilities
        .iter()
        .map(|found| (&found.fingerprint, Subject::Vulnerability(found)));
    let secrets = findings.secrets.iter().map(|found| &found.fingerprint);
    let checks = findings.misconfigurations.iter().chain(late);
    let checks = checks.map(|found| &found.fingerprint);
    let malware = findings.malware.iter().map(|found| &found.fingerprint);
    let others = secrets.chain(checks).chain(malware);
    let licenses = findings
        .licenses
        .iter()
        .map(|found| (&found.fingerprint, Subject::License(found)));
    vulnerabilities
        .chain(licenses)
        .chain(others.map(|fingerprint| (fingerprint, Subject::Other(fingerprint))))
        .collect()
}
