//! Evidence: what stands against an image after waivers, and how a reason tells it to a person.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};
use model::{
    AdvisoryStamp, Decision, Facts, Fingerprint, Gap, License, Malware, Misconfiguration, Os,
    PackageType, Reason, Secret, Severity, Target, Vulnerability,
};

use crate::{
    condition::Trait,
    values::{Age, gap_code},
    waivers::InForce,
};

/// Pieces of evidence that a message names; the rest is counted.
const NAMED_MAX: usize = 10;
/// Characters of one piece of evidence: parts of it come from the image.
const PIECE_CHARS_MAX: usize = 300;

/// The facts that rules are asked about: those that no waiver accepts.
#[derive(Debug)]
pub(crate) struct Standing<'a> {
    /// Vulnerabilities, worst first.
    pub(crate) vulnerabilities: Vec<&'a Vulnerability>,
    /// Secrets.
    pub(crate) secrets: Vec<Finding<'a>>,
    /// Failed checks.
    pub(crate) misconfigurations: Vec<Finding<'a>>,
    /// Malware.
    pub(crate) malware: Vec<Finding<'a>>,
    /// Licences, those of the strictest kinds first.
    pub(crate) licenses: Vec<&'a License>,
    /// Packages, as what is said of their licences names them; no waiver takes one away.
    pub(crate) packages: &'a [License],
    /// The image itself.
    pub(crate) target: &'a Target,
    /// What waivers accept of it.
    pub(crate) accepted_traits: Vec<Trait>,
    /// When it is judged.
    pub(crate) now: Timestamp,
    /// What could not be looked at.
    pub(crate) gaps: &'a [Gap],
    /// The operating system.
    pub(crate) os: Option<&'a Os>,
    /// Whether it gets no security updates any more: it may have got them when it was assessed.
    pub(crate) os_has_ended: bool,
    /// The advisory data.
    pub(crate) advisories: &'a AdvisoryStamp,
    /// How old the advisory data are; `None` where there are none.
    pub(crate) data_age: Option<SignedDuration>,
}

/// A finding that needs no advisories.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finding<'a> {
    pub(crate) severity: Severity,
    /// The id of the rule or check.
    pub(crate) rule: &'a str,
    /// Clauses of benchmarks.
    pub(crate) clauses: &'a [String],
    title: &'a str,
    path: Option<&'a str>,
    advice: &'a str,
    fingerprint: &'a Fingerprint,
}

/// What speaks for a condition.
#[derive(Debug)]
pub(crate) struct Evidence {
    subject: String,
    pieces: Vec<String>,
    fingerprints: Vec<Fingerprint>,
    remediation: String,
}

// === impl Standing ===

impl<'a> Standing<'a> {
    /// `late` are failed checks that nobody knew before.
    pub(crate) fn new(
        facts: &Facts<'a>,
        late: &'a [Misconfiguration],
        waivers: &InForce<'_>,
        data_age: Option<SignedDuration>,
        now: Timestamp,
    ) -> Self {
        let Facts {
            assessment,
            findings,
            target,
        } = facts;
        let stands = |fingerprint: &Fingerprint| !waivers.marks.contains_key(fingerprint);
        let mut vulnerabilities: Vec<_> = assessment
            .vulnerabilities
            .iter()
            .filter(|found| stands(&found.fingerprint))
            .collect();
        vulnerabilities.sort_by(|one, other| {
            let name = |found: &'a Vulnerability| (&found.id, &found.package);
            other
                .severity
                .cmp(&one.severity)
                .then_with(|| name(one).cmp(&name(other)))
        });
        let secrets = findings.secrets.iter().map(Finding::from);
        let checks = findings.misconfigurations.iter().chain(late);
        let misconfigurations = checks.map(Finding::from);
        let malware = findings.malware.iter().map(Finding::from);
        let licenses = findings.licenses.iter();
        let mut licenses: Vec<_> = licenses
            .filter(|found| stands(&found.fingerprint))
            .collect();
        licenses.sort_by_key(|found| (Reverse(found.category), &found.package));
        Self {
            vulnerabilities,
            licenses,
            packages: &findings.licenses,
            target,
            accepted_traits: Trait::ALL
                .into_iter()
                .filter(|of| !stands(&of.fingerprint()))
                .collect(),
            now,
            secrets: secrets.filter(|found| stands(found.fingerprint)).collect(),
            misconfigurations: misconfigurations
                .filter(|found| stands(found.fingerprint))
                .collect(),
            malware: malware.filter(|found| stands(found.fingerprint)).collect(),
            gaps: &assessment.gaps,
            os: assessment.os.as_ref(),
            os_has_ended: assessment
                .os
                .as_ref()
                .is_some_and(|os| os.eol == Some(true))
                || assessment.os_ends.is_some_and(|ends| ends <= now),
            advisories: &assessment.advisories,
            data_age,
        }
    }

    /// What speaks for "the advisory data are too old".
    pub(crate) fn stale_advisories(&self, limit: Age) -> Option<Evidence> {
        let piece = match self.data_age {
            Some(age) if age <= limit.0 => return None,
            Some(age) => format!(
                "fetched {} ago",
                Age(SignedDuration::from_hours(age.as_hours()))
            ),
            None => "there are none".to_owned(),
        };
        Some(Evidence::plain(
            format!("the advisory data are older than {limit}"),
            vec![piece],
            "update the advisories: `tidewaiter db update`",
        ))
    }
}

// === impl Finding ===

impl<'a> From<&'a Secret> for Finding<'a> {
    fn from(found: &'a Secret) -> Self {
        Self {
            severity: found.severity,
            rule: &found.rule,
            clauses: &[],
            title: &found.title,
            path: Some(&found.path),
            advice: &found.advice,
            fingerprint: &found.fingerprint,
        }
    }
}

impl<'a> From<&'a Misconfiguration> for Finding<'a> {
    fn from(found: &'a Misconfiguration) -> Self {
        Self {
            severity: found.severity,
            rule: &found.id,
            clauses: &found.clauses,
            title: &found.title,
            path: found.path.as_deref(),
            advice: &found.remediation,
            fingerprint: &found.fingerprint,
        }
    }
}

impl<'a> From<&'a Malware> for Finding<'a> {
    fn from(found: &'a Malware) -> Self {
        Self {
            severity: found.severity,
            rule: &found.rule,
            clauses: &[],
            title: &found.rule,
            path: Some(&found.path),
            advice: "remove the file, and find out how it came in",
            fingerprint: &found.fingerprint,
        }
    }
}

// === impl Evidence ===

impl Evidence {
    /// Evidence that rests on no finding.
    pub(crate) fn plain(
        subject: impl Into<String>,
        pieces: Vec<String>,
        remediation: impl Into<String>,
    ) -> Self {
        let (subject, remediation) = (subject.into(), remediation.into());
        Self {
            subject,
            pieces,
            fingerprints: Vec::new(),
            remediation,
        }
    }

    /// The same, resting on these findings.
    pub(crate) fn resting_on(self, fingerprints: Vec<Fingerprint>) -> Self {
        Self {
            fingerprints,
            ..self
        }
    }

    /// What it says, in one line.
    pub(crate) fn text(&self) -> String {
        let pieces: Vec<_> = self.pieces.iter().map(|piece| clip(piece)).collect();
        format!("{}: {}", self.subject, listed(&pieces))
    }

    /// `which` stands behind "vulnerabilities" in the message.
    pub(crate) fn of_vulnerabilities(which: &str, found: &[&Vulnerability]) -> Option<Self> {
        let subject = format!(
            "{}{which}",
            counted(found.len(), "vulnerability", "vulnerabilities")?
        );
        Some(Self {
            subject,
            pieces: found
                .iter()
                .map(|found| vulnerability_piece(found))
                .collect(),
            fingerprints: found
                .iter()
                .map(|found| found.fingerprint.clone())
                .collect(),
            remediation: upgrades(found),
        })
    }

    pub(crate) fn of_findings<'a>(
        one: &str,
        many: &str,
        found: impl Iterator<Item = &'a Finding<'a>>,
    ) -> Option<Self> {
        let found: Vec<_> = found.collect();
        let subject = counted(found.len(), one, many)?;
        let piece = |found: &&Finding<'_>| match found.path {
            Some(path) => format!("{} ({}) in {path}", found.title, found.severity),
            None => format!("{} ({})", found.title, found.severity),
        };
        let mut advice: Vec<_> = found.iter().map(|found| found.advice.to_owned()).collect();
        advice.sort();
        advice.dedup();
        Some(Self {
            subject,
            pieces: found.iter().map(piece).collect(),
            fingerprints: found
                .iter()
                .map(|found| found.fingerprint.clone())
                .collect(),
            remediation: listed(&advice),
        })
    }

    pub(crate) fn of_licenses(found: &[&License]) -> Option<Self> {
        let subject = counted(found.len(), "license", "licenses")?;
        let piece = |found: &&License| {
            let kind = found.category.as_str().replace('_', " ");
            format!("{} is under {} ({kind})", found.package, found.expression)
        };
        let mut names: Vec<_> = found.iter().map(|found| found.package.clone()).collect();
        names.dedup();
        Some(Self {
            subject,
            pieces: found.iter().map(piece).collect(),
            fingerprints: found
                .iter()
                .map(|found| found.fingerprint.clone())
                .collect(),
            remediation: format!(
                "replace {}, or accept the license with a waiver",
                listed(&names)
            ),
        })
    }

    pub(crate) fn of_packages<'a>(found: impl Iterator<Item = &'a License>) -> Option<Self> {
        let mut names: Vec<_> = found
            .map(|found| format!("{} ({})", found.package, found.kind.as_str()))
            .collect();
        names.sort();
        names.dedup();
        let subject = counted(names.len(), "package", "packages")?;
        let remediation = format!("remove {}", listed(&names));
        Some(Self::plain(subject, names, remediation))
    }

    pub(crate) fn of_gaps(found: &[&Gap], remediation: &str) -> Option<Self> {
        let subject = counted(found.len(), "gap", "gaps")?;
        let pieces = found.iter().map(|gap| gap_piece(gap)).collect();
        Some(Self::plain(subject, pieces, remediation))
    }

    /// The reason of a rule. What its author wrote comes before what we can say.
    pub(crate) fn into_reason(
        self,
        rule: &str,
        decision: Decision,
        message: Option<&str>,
        remediation: Option<&str>,
    ) -> Reason {
        let pieces: Vec<_> = self.pieces.iter().map(|piece| clip(piece)).collect();
        let subject = message.unwrap_or(&self.subject);
        Reason {
            rule: rule.to_owned(),
            decision,
            fingerprints: self.fingerprints,
            message: format!("{subject}: {}", listed(&pieces)),
            remediation: remediation.map_or(self.remediation, ToOwned::to_owned),
        }
    }
}

fn vulnerability_piece(found: &Vulnerability) -> String {
    let Vulnerability {
        id,
        severity,
        package,
        installed_version,
        ..
    } = found;
    let fix = match found.fixed_versions.first() {
        Some(version) if found.is_fixable() => format!(", fixed in {version}"),
        _ => String::new(),
    };
    let exploited = if found.kev {
        ", known to be exploited"
    } else {
        ""
    };
    format!("{id} ({severity}{exploited}) in {package} {installed_version}{fix}")
}

fn gap_piece(gap: &Gap) -> String {
    let layer = gap
        .layer
        .map(|layer| format!(" in layer {}", layer.short()))
        .unwrap_or_default();
    let path = gap
        .path
        .as_ref()
        .map(|path| format!(" at {path}"))
        .unwrap_or_default();
    format!("{}{layer}{path}: {}", gap_code(gap.code), gap.detail)
}

/// What would mend a package.
struct Upgrade<'a> {
    kind: PackageType,
    name: &'a str,
    installed: &'a str,
    /// The first version that fixes each vulnerability; none where nothing does.
    fixes: Vec<&'a str>,
}

/// `upgrade openssl 3.0.1 to 3.0.2, …`, one per package.
fn upgrades(found: &[&Vulnerability]) -> String {
    let mut packages: Vec<Upgrade<'_>> = Vec::new();
    for found in found {
        let fix = found.fixed_versions.first().filter(|_| found.is_fixable());
        let (name, installed) = (found.package.as_str(), found.installed_version.as_str());
        let at = packages.iter().position(|known| {
            (known.kind, known.name, known.installed) == (found.kind, name, installed)
        });
        let at = at.unwrap_or_else(|| {
            packages.push(Upgrade {
                kind: found.kind,
                name,
                installed,
                fixes: Vec::new(),
            });
            packages.len() - 1
        });
        if let Some(fix) = fix.filter(|fix| !packages[at].fixes.contains(&fix.as_str())) {
            packages[at].fixes.push(fix);
        }
    }
    let (fixed, unfixed): (Vec<_>, Vec<_>) = packages
        .into_iter()
        .partition(|package| !package.fixes.is_empty());
    let upgrades: Vec<_> = fixed.iter().map(Upgrade::advice).collect();
    let waiting: Vec<_> = unfixed
        .iter()
        .map(|package| package.name.to_owned())
        .collect();
    let advice = [
        (!upgrades.is_empty()).then(|| format!("upgrade {}", listed(&upgrades))),
        (!waiting.is_empty()).then(|| {
            format!(
                "no fix is known for {}: replace it, or accept the risk with a waiver",
                listed(&waiting)
            )
        }),
    ];
    advice.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

// === impl Upgrade ===

impl Upgrade<'_> {
    /// The newest of the fixing versions has all the fixes.
    fn advice(&self) -> String {
        let Self {
            kind,
            name,
            installed,
            fixes,
        } = self;
        match vulndb::newest(*kind, fixes) {
            Some(newest) => format!("{name} {installed} to {newest}"),
            None => format!("{name} {installed} to the newest of {}", fixes.join(", ")),
        }
    }
}

/// The first pieces, and how many more there are.
pub(crate) fn listed(pieces: &[String]) -> String {
    let named = pieces.len().min(NAMED_MAX);
    let more = match pieces.len() - named {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", pieces[..named].join("; "))
}

fn counted(count: usize, one: &str, many: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{count} {many}")),
    }
}

fn clip(text: &str) -> String {
    let mut clipped: String = text.chars().take(PIECE_CHARS_MAX).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}
