//! Why an image has a vulnerability, or why not: every advisory about it that speaks of one of the
//! image's packages, with the versions compared and what each range says.

use std::collections::BTreeSet;

use model::{Package, PackageType, ScannedPackages, Severity, Vulnerability};
use serde::Serialize;

use crate::{
    Exploitation, SeverityBy,
    ecosystems::{self, Ecosystem},
    evaluate::{self, Evaluation, Installed},
    matching::{self, Candidate},
    names::{self, Names},
    shard::{ShardAdvisory, ShardError, Shards},
    subscription,
};

/// Why, or why not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// What was asked for.
    pub id: String,
    /// All its names, as far as the advisories about the image's packages know them.
    pub names: BTreeSet<String>,
    /// Whether a package of the image has it.
    pub affected: bool,
    /// What is known of its exploitation.
    pub exploitation: Vec<Exploitation>,
    /// The packages that its advisories speak of.
    pub packages: Vec<ExplainedPackage>,
}

/// A package that an advisory speaks of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedPackage {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: PackageType,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The file that proves it.
    pub path: String,
    /// `affected`, `not affected` or `undecided`, and why in one sentence.
    pub verdict: String,
    /// The finding, where there is one.
    pub finding: Option<ExplainedFinding>,
    /// The advisories, as they were found.
    pub advisories: Vec<ExplainedAdvisory>,
}

/// The finding, in short.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedFinding {
    /// How it is called.
    pub id: String,
    /// How bad.
    pub severity: Severity,
    /// Versions that fix it.
    pub fixed_versions: Vec<String>,
    /// Whether there is a fix.
    pub fix_state: model::FixState,
}

/// An advisory about a package.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedAdvisory {
    /// Its id.
    pub id: String,
    /// Its feed.
    pub feed: String,
    /// The ecosystem in which it was found.
    pub ecosystem: String,
    /// The name that was looked up.
    pub name: String,
    /// Which name that is.
    pub method: String,
    /// The version that was compared.
    pub version: String,
    /// What it says of that version.
    pub says: String,
    /// Each range and what it says.
    pub ranges: Vec<ExplainedRange>,
    /// What is to be known of the record.
    pub notes: Vec<String>,
}

/// A range of an advisory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedRange {
    /// The range.
    pub range: String,
    /// Whether it holds the version.
    pub says: String,
}

/// Explains what the advisories say of one vulnerability, by any of its names.
pub fn explain(
    scanned: &ScannedPackages,
    shards: &dyn Shards,
    id: &str,
    severity: SeverityBy,
) -> Result<Explanation, ShardError> {
    let wanted = names::canonical(id.trim()).to_owned();
    let covered = matching::covered(scanned, shards);
    let mut explanation = Explanation {
        id: id.trim().to_owned(),
        names: BTreeSet::from([wanted.clone()]),
        affected: false,
        exploitation: Vec::new(),
        packages: Vec::new(),
    };
    for package in &scanned.packages {
        let Some(family) = ecosystems::family_of(package) else {
            continue;
        };
        let queries = family.queries(package, scanned.os.as_ref());
        let asked = matching::asked(&queries, shards)?;
        let candidates = matching::candidates(&asked);
        let about = about(&candidates, &wanted, &mut explanation.names);
        if about.is_empty() {
            continue;
        }
        let left = if matching::is_spoken_for(package, &covered) {
            let owner = package.owned_by.as_ref().map(ToString::to_string);
            Some(format!(
                "not affected: `{}` of the operating system owns it, and its advisories decide",
                owner.unwrap_or_default()
            ))
        } else {
            family.is_exempt(package).then(|| {
                "not affected: what its source is vulnerable to is not in this package".to_owned()
            })
        };
        let matched = matching::judge(package, family, &candidates, severity);
        let finding = asked_for(
            &matched.vulnerabilities,
            &about,
            &explanation.names,
            &wanted,
        );
        let finding = finding.filter(|_| left.is_none());
        let explained = of_package(family, package, &about, (left, finding, severity));
        explanation.affected |= explained.finding.is_some();
        explanation.packages.push(explained);
    }
    let cves: Vec<String> = explanation.names.iter().cloned().collect();
    for cve in cves.iter().filter(|name| names::is_whole_cve(name)) {
        let known = matching::exploitation(shards, cve)?;
        explanation.exploitation.extend(known);
    }
    Ok(explanation)
}

/// The candidates that are about the vulnerability, by any name.
fn about<'a>(
    candidates: &'a [Candidate<'a>],
    wanted: &'a str,
    known: &mut BTreeSet<String>,
) -> Vec<&'a Candidate<'a>> {
    let mut joined = Names::default();
    for candidate in candidates {
        joined.join(candidate.advisory);
    }
    let root = joined.root(wanted);
    let mut about = Vec::new();
    for candidate in candidates {
        let advisory = candidate.advisory;
        let own = names::canonical(&advisory.id);
        let is_named = own == wanted
            || joined.root(own) == root
            || names::subjects(advisory)
                .iter()
                .any(|subject| joined.root(subject) == root);
        if is_named {
            about.push(candidate);
        }
    }
    if !about.is_empty()
        && let Some(class) = joined.classes().remove(&root)
    {
        known.extend(class.into_iter().map(ToOwned::to_owned));
    }
    about
}

/// The finding that was asked for, by one of its names or by a bulletin that contains it. A bulletin
/// may contain others that affect the package.
fn asked_for<'a>(
    found: &'a [Vulnerability],
    about: &[&Candidate<'_>],
    known: &BTreeSet<String>,
    wanted: &str,
) -> Option<&'a Vulnerability> {
    let contained: BTreeSet<&str> = about
        .iter()
        .filter(|candidate| names::canonical(&candidate.advisory.id) == wanted)
        .flat_map(|candidate| names::subjects(candidate.advisory))
        .collect();
    let is_asked = |name: &String| {
        let name = names::canonical(name);
        known.contains(name) || contained.contains(name)
    };
    found
        .iter()
        .find(|one| is_asked(&one.id) || one.aliases.iter().any(is_asked))
}

fn of_package(
    family: &dyn Ecosystem,
    package: &Package,
    about: &[&Candidate<'_>],
    (left, finding, severity): (Option<String>, Option<&Vulnerability>, SeverityBy),
) -> ExplainedPackage {
    let owned: Vec<Candidate<'_>> = about
        .iter()
        .map(|candidate| Candidate {
            advisory: candidate.advisory,
            query: candidate.query,
        })
        .collect();
    let undecided = matching::judge(package, family, &owned, severity).undecided;
    let verdict = match (left, finding, undecided.first()) {
        (Some(left), _, _) => left,
        (None, Some(found), _) => affected(found),
        (None, None, Some(gap)) => format!("undecided: {}", gap.detail),
        (None, None, None) => "not affected: no advisory that counts holds its version".to_owned(),
    };
    ExplainedPackage {
        kind: package.kind,
        name: package.name.clone(),
        version: package.version.clone(),
        path: package.path.clone(),
        verdict,
        finding: finding.map(|found| ExplainedFinding {
            id: found.id.clone(),
            severity: found.severity,
            fixed_versions: found.fixed_versions.clone(),
            fix_state: found.fix_state,
        }),
        advisories: about
            .iter()
            .map(|candidate| of_advisory(family, package, candidate))
            .collect(),
    }
}

fn affected(found: &Vulnerability) -> String {
    let fix = match found.fixed_versions.first() {
        Some(version) => format!("fixed in {version}"),
        None => "no fix is known".to_owned(),
    };
    format!("affected: {} ({}), {fix}", found.id, found.severity)
}

fn of_advisory(
    family: &dyn Ecosystem,
    package: &Package,
    candidate: &Candidate<'_>,
) -> ExplainedAdvisory {
    let Candidate { advisory, query } = candidate;
    let says = if advisory.withdrawn {
        "nothing: it is withdrawn".to_owned()
    } else {
        let installed = Installed::of(family, package, &query.version);
        let mut says = evaluate::evaluate(family, advisory, package, &installed);
        subscription::take_fixes(query, &mut says);
        match says {
            Evaluation::Affected(hit) => format!("affected: it is in {}", hit.range),
            Evaluation::Unaffected(why) => format!("not affected: {why}"),
            Evaluation::Never => "not affected: the vendor says that no version is".to_owned(),
            Evaluation::Undecided(why) => format!("undecided: {why}"),
        }
    };
    let ranges = evaluate::explain(family, advisory, package, &query.version).into_iter();
    ExplainedAdvisory {
        id: advisory.id.clone(),
        feed: advisory.feed.clone(),
        ecosystem: query.lookup.ecosystem.clone(),
        name: query.lookup.name.clone(),
        method: query.method.to_owned(),
        version: query.version.clone(),
        says,
        ranges: ranges
            .map(|shown| ExplainedRange {
                range: shown.window,
                says: shown.verdict,
            })
            .collect(),
        notes: notes(advisory),
    }
}

fn notes(advisory: &ShardAdvisory) -> Vec<String> {
    let mut notes = advisory.notes.clone();
    if let Some(word) = &advisory.notice {
        notes.push(format!("by its source a remark: {word}"));
    }
    if !advisory.modules.is_empty() {
        notes.push(format!("module {}", advisory.modules.join(", ")));
    }
    if !advisory.platforms.is_empty() {
        notes.push(format!("on {} only", advisory.platforms.join(", ")));
    }
    if names::is_bulletin(advisory) {
        notes.push("a bulletin: the record of the vulnerability itself outranks it".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests;
