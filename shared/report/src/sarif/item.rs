//! What becomes a result: a finding of any kind, and its place among the others.

use std::{borrow::Cow, cmp::Ordering};

use model::{
    Digest, Fingerprint, Malware, Misconfiguration, PackageId, Report, Secret, Severity, Tampered,
    Vulnerability, Waived,
};
use serde_json::{Value, json};

use super::{document::Suppression, text::message};
use crate::{Options, suppressed::is_suppressed};

/// A finding of any kind.
#[derive(Clone, Copy)]
pub(super) enum Item<'a> {
    Vulnerability(&'a Vulnerability),
    Secret(&'a Secret),
    Misconfiguration(&'a Misconfiguration),
    Malware(&'a Malware),
    Tampered(&'a Tampered),
}

/// Where a finding is.
pub(super) struct Place<'a> {
    pub(super) path: &'a str,
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
    pub(super) end_line: Option<u32>,
    pub(super) layer: Option<Digest>,
    pub(super) package: Option<&'a PackageId>,
}

/// Everything of the report that is to be shown, worst first, and how many findings are left out
/// because somebody accepted them.
pub(super) fn items<'a>(report: &'a Report, options: &Options) -> (Vec<Item<'a>>, usize) {
    let vulnerabilities = report.vulnerabilities.iter();
    let vulnerabilities = vulnerabilities.filter(|found| options.shows_vulnerability(found));
    let vulnerabilities = vulnerabilities.map(Item::Vulnerability);
    let secrets = report.secrets.iter().map(Item::Secret);
    let misconfigurations = report.misconfigurations.iter().map(Item::Misconfiguration);
    let malware = report.malware.iter().map(Item::Malware);
    let all = vulnerabilities
        .chain(secrets)
        .chain(misconfigurations)
        .chain(malware)
        .filter(|item| options.shows(item.severity()))
        .chain(report.tampered.iter().map(Item::Tampered));
    let (accepted, mut shown): (Vec<_>, Vec<_>) =
        all.partition(|item| !options.show_suppressed && item.is_suppressed());
    shown.sort_by(by_risk);
    (shown, accepted.len())
}

/// Known to be exploited, severe, likely to be exploited: in this order, then by name.
fn by_risk(a: &Item<'_>, b: &Item<'_>) -> Ordering {
    let exploits = |item: &Item<'_>| match item {
        Item::Vulnerability(found) => (found.kev, found.epss.unwrap_or_default()),
        _ => (false, 0.0),
    };
    let ((kev_a, epss_a), (kev_b, epss_b)) = (exploits(a), exploits(b));
    (kev_b, b.severity())
        .cmp(&(kev_a, a.severity()))
        .then(epss_b.total_cmp(&epss_a))
        .then_with(|| a.rule_id().cmp(&b.rule_id()))
        .then_with(|| a.place().path.cmp(b.place().path))
        .then_with(|| a.fingerprint().cmp(&b.fingerprint()))
}

// === impl Item ===

impl<'a> Item<'a> {
    pub(super) fn severity(self) -> Severity {
        match self {
            Self::Vulnerability(found) => found.severity,
            Self::Secret(found) => found.severity,
            Self::Misconfiguration(found) => found.severity,
            Self::Malware(found) => found.severity,
            // Somebody may have meant it; policy knows better than we do.
            Self::Tampered(_) => Severity::Unknown,
        }
    }

    /// Vulnerabilities by their names; the others have theirs from rule sets of several kinds.
    pub(super) fn rule_id(self) -> Cow<'a, str> {
        match self {
            Self::Vulnerability(found) => Cow::Borrowed(&found.id),
            Self::Secret(found) => Cow::Owned(format!("secret/{}", found.rule)),
            Self::Misconfiguration(found) => Cow::Owned(format!("misconfiguration/{}", found.id)),
            Self::Malware(found) => Cow::Owned(format!("malware/{}/{}", found.ruleset, found.rule)),
            Self::Tampered(_) => Cow::Borrowed("tampered-file"),
        }
    }

    pub(super) fn fingerprint(self) -> Cow<'a, str> {
        match self {
            Self::Vulnerability(found) => Cow::Borrowed(&found.fingerprint.0),
            Self::Secret(found) => Cow::Borrowed(&found.fingerprint.0),
            Self::Misconfiguration(found) => Cow::Borrowed(&found.fingerprint.0),
            Self::Malware(found) => Cow::Borrowed(&found.fingerprint.0),
            Self::Tampered(found) => Cow::Owned(Fingerprint::of(&["tampered", &found.path]).0),
        }
    }

    pub(super) fn place(self) -> Place<'a> {
        let at = |path: &'a str, layer: Option<Digest>| Place {
            path,
            line: None,
            column: None,
            end_line: None,
            layer,
            package: None,
        };
        match self {
            Self::Vulnerability(found) => Place {
                package: Some(&found.package_id),
                ..at(&found.path, Some(found.layer))
            },
            Self::Secret(found) => Place {
                line: Some(found.line),
                column: Some(found.column),
                end_line: Some(found.end_line),
                ..at(&found.path, Some(found.layer))
            },
            Self::Misconfiguration(found) => Place {
                line: found.line,
                ..at(found.path.as_deref().unwrap_or_default(), None)
            },
            Self::Malware(found) => at(&found.path, Some(found.layer)),
            Self::Tampered(found) => Place {
                package: Some(&found.package_id),
                ..at(&found.path, Some(found.layer))
            },
        }
    }

    /// What is wrong, for a person.
    pub(super) fn message(self) -> String {
        let text = match self {
            Self::Vulnerability(found) => {
                let fix = match found.fixed_versions.as_slice() {
                    [] => "no fixed version is known".to_owned(),
                    versions => format!("fixed in {}", versions.join(", ")),
                };
                format!(
                    "{} {} has {} ({}): {fix}",
                    found.package, found.installed_version, found.id, found.severity
                )
            }
            Self::Secret(found) => {
                let deleted = deleted(found.deleted_later);
                format!(
                    "{}: {}{deleted}. {}",
                    found.title, found.masked, found.advice
                )
            }
            Self::Misconfiguration(found) => {
                format!("{}: {}. {}", found.title, found.evidence, found.remediation)
            }
            Self::Malware(found) => format!(
                "the rule {} of {} fires on the file {}{}",
                found.rule,
                found.ruleset,
                found.digest,
                deleted(found.deleted_later)
            ),
            Self::Tampered(found) => format!(
                "the file is not as its package {} made it",
                found.package_id
            ),
        };
        message(&text)
    }

    pub(super) fn suppressions(self) -> Vec<Suppression> {
        let accepted = |justification: String| Suppression {
            kind: "external",
            status: "accepted",
            justification,
        };
        let waived = self.waived().map(|waived| {
            accepted(format!(
                "{} ({}, until {}, {})",
                waived.reason, waived.author, waived.expires, waived.source
            ))
        });
        let vex = match self {
            Self::Vulnerability(found) if is_suppressed(found) => found.vex.as_ref().map(|vex| {
                let why = vex.justification.as_deref().unwrap_or("no justification");
                accepted(format!("{}: {why} ({})", vex.status, vex.source))
            }),
            _ => None,
        };
        waived.into_iter().chain(vex).collect()
    }

    /// What programs may want to know beside the message.
    pub(super) fn properties(self) -> Value {
        match self {
            Self::Vulnerability(found) => json!({
                "aliases": found.aliases,
                "package": found.package,
                "packageType": found.kind,
                "installedVersion": found.installed_version,
                "fixedVersions": found.fixed_versions,
                "fixState": found.fix_state,
                "severity": found.severity,
                "cvss": found.cvss,
                "epss": found.epss,
                "kev": found.kev,
                "source": found.source,
                "match": found.matched,
            }),
            Self::Secret(found) => json!({
                "severity": found.severity,
                "instruction": found.instruction,
                "deletedLater": found.deleted_later,
            }),
            Self::Misconfiguration(found) => json!({
                "severity": found.severity,
                "clauses": found.clauses,
            }),
            Self::Malware(found) => json!({
                "severity": found.severity,
                "digest": found.digest,
                "deletedLater": found.deleted_later,
            }),
            Self::Tampered(found) => json!({"package": found.package_id}),
        }
    }

    fn is_suppressed(self) -> bool {
        match self {
            Self::Vulnerability(found) => is_suppressed(found),
            _ => self.waived().is_some(),
        }
    }

    fn waived(self) -> Option<&'a Waived> {
        match self {
            Self::Vulnerability(found) => found.waived.as_ref(),
            Self::Secret(found) => found.waived.as_ref(),
            Self::Misconfiguration(found) => found.waived.as_ref(),
            Self::Malware(found) => found.waived.as_ref(),
            Self::Tampered(_) => None,
        }
    }
}

/// What is said of a file that a later layer deletes.
const fn deleted(is_deleted: bool) -> &'static str {
    if is_deleted {
        "; a later layer deletes the file, but it is still in the image"
    } else {
        ""
    }
}
