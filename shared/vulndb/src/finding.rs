//! One finding of what several advisories say about one vulnerability of one package.

use std::collections::BTreeSet;

use model::{
    Confidence, Cvss, Fingerprint, FixState, Match, Package, PackageType, Severity, Vulnerability,
};

use crate::{SeverityBy, evaluate::Hit, names, shard::ShardAdvisory};

/// An advisory that says that the package is affected.
#[derive(Debug)]
pub(crate) struct Affecting<'a> {
    pub(crate) advisory: &'a ShardAdvisory,
    pub(crate) hit: &'a Hit,
    /// The OSV ecosystem in which it was found.
    pub(crate) ecosystem: &'a str,
    /// The version that was compared.
    pub(crate) version: &'a str,
    /// Which name was looked up.
    pub(crate) method: &'static str,
}

/// Makes the finding. `others` are advisories about the same vulnerability that did not decide:
/// they may still know its severity. `None` where nothing affects the package.
pub(crate) fn finding(
    package: &Package,
    class: &BTreeSet<&str>,
    mut affecting: Vec<Affecting<'_>>,
    others: &[&ShardAdvisory],
    by: SeverityBy,
) -> Option<Vulnerability> {
    affecting.sort_by(|a, b| rank(a).cmp(&rank(b)));
    let first = affecting.first()?;
    let records: Vec<&ShardAdvisory> = affecting
        .iter()
        .map(|one| one.advisory)
        .chain(others.iter().copied())
        .collect();
    let id = class.iter().copied().find(|name| names::is_cve(name));
    let id = id.unwrap_or(&first.advisory.id).to_owned();
    let mut aliases: BTreeSet<&str> = class.clone();
    let own = records.iter().filter(|record| !names::is_bulletin(record));
    aliases.extend(own.map(|record| record.id.as_str()));
    aliases.remove(id.as_str());
    let (severity, cvss) = severity(&records, by);
    let mut fixed_versions = Vec::new();
    for version in affecting.iter().flat_map(|one| &one.hit.fixed) {
        if !fixed_versions.contains(version) {
            fixed_versions.push(version.clone());
        }
    }
    let title = records
        .iter()
        .map(|record| &record.title)
        .find(|title| !title.is_empty());
    Some(Vulnerability {
        url: url(&first.advisory.id, &id, package.kind),
        fingerprint: fingerprint(&id, package),
        aliases: aliases.into_iter().map(ToOwned::to_owned).collect(),
        package_id: package.id.clone(),
        package: package.name.clone(),
        kind: package.kind,
        installed_version: package.version.clone(),
        fixed_versions,
        fix_state: first.hit.fix_state,
        severity,
        severity_level: severity.level(),
        cvss,
        epss: None,
        kev: false,
        title: title.cloned().unwrap_or_default(),
        source: first.advisory.feed.clone(),
        published: records.iter().find_map(|record| record.published),
        modified: records.iter().find_map(|record| record.modified),
        path: package.path.clone(),
        layer: package.layer,
        matched: Match {
            method: first.method.to_owned(),
            confidence: confidence(package, first),
            evidence: affecting.iter().map(evidence).collect(),
        },
        vex: None,
        waived: None,
        id,
    })
}

/// Puts a finding where a package is that is the same but for its place.
pub(crate) fn place(found: &mut Vulnerability, package: &Package) {
    found.layer = package.layer;
    if found.package_id != package.id {
        found.package_id.clone_from(&package.id);
    }
    if found.path != package.path {
        found.path.clone_from(&package.path);
        found.fingerprint = fingerprint(&found.id, package);
    }
}

/// Which advisory speaks for the finding: a record of the vulnerability before a bulletin, one that
/// knows a fix, reviewed databases first.
fn rank<'a>(one: &Affecting<'a>) -> (bool, bool, u8, &'a str) {
    let id = one.advisory.id.as_str();
    let database = match id.split('-').next() {
        Some("GHSA") => 0,
        Some("PYSEC") => 1,
        _ => 2,
    };
    let is_fixed = one.hit.fix_state == FixState::Fixed;
    (names::is_bulletin(one.advisory), !is_fixed, database, id)
}

/// As sure as the package is there; less where only texts were compared.
fn confidence(package: &Package, first: &Affecting<'_>) -> Confidence {
    if first.hit.range.starts_with("lists ") {
        return package.confidence.min(Confidence::Medium);
    }
    package.confidence
}

/// The severity, as whoever decides about it says, and every CVSS rating.
fn severity(records: &[&ShardAdvisory], by: SeverityBy) -> (Severity, Vec<Cvss>) {
    let mut cvss: Vec<Cvss> = Vec::new();
    for rated in records.iter().flat_map(|record| &record.cvss) {
        if !cvss.contains(rated) {
            cvss.push(rated.clone());
        }
    }
    // What is a remark to one source is a vulnerability where another one rates it.
    let is_rating = |record: &&&ShardAdvisory| record.notice.is_none();
    let records: Vec<&ShardAdvisory> = records.iter().filter(is_rating).copied().collect();
    if records.is_empty() {
        return (Severity::Negligible, cvss);
    }
    let newest = |record: &ShardAdvisory| {
        let rated = record.cvss.iter().max_by(|a, b| a.version.cmp(&b.version));
        rated.map(|rated| Severity::from_score(rated.score))
    };
    let own = || records.iter().find_map(|record| record.rating);
    let by_source = || {
        let mut records = records.iter();
        records.find_map(|record| newest(record).or(record.word))
    };
    let rated = match by {
        SeverityBy::Vendor => own().or_else(by_source),
        SeverityBy::Cvss => {
            let by_score = records.iter().find_map(|record| newest(record));
            by_score.or_else(own).or_else(by_source)
        }
        SeverityBy::Highest => {
            let words = records
                .iter()
                .flat_map(|record| [record.rating, record.word]);
            let scores = cvss
                .iter()
                .map(|rated| Some(Severity::from_score(rated.score)));
            words.chain(scores).flatten().max()
        }
    };
    (rated.unwrap_or_default(), cvss)
}

fn evidence(one: &Affecting<'_>) -> String {
    let Affecting {
        advisory,
        hit,
        ecosystem,
        version,
        ..
    } = one;
    let mut line = format!(
        "{} ({}): {ecosystem} `{}` {version} is in {}",
        advisory.id, advisory.feed, advisory.package, hit.range
    );
    if let Some(word) = &advisory.notice {
        line.push_str("; by its source a remark (");
        line.push_str(word);
        line.push(')');
    }
    if !advisory.modules.is_empty() {
        line.push_str("; module ");
        line.push_str(&advisory.modules.join(", "));
    }
    for note in &advisory.notes {
        line.push_str("; ");
        line.push_str(note);
    }
    line
}

fn url(advisory: &str, id: &str, kind: PackageType) -> String {
    let prefix = advisory.split('-').next().unwrap_or_default();
    match (prefix, kind) {
        ("GHSA", _) => format!("https://github.com/advisories/{advisory}"),
        ("DEBIAN" | "DSA" | "DLA", _) => {
            format!("https://security-tracker.debian.org/tracker/{id}")
        }
        ("UBUNTU" | "USN", _) => format!("https://ubuntu.com/security/{id}"),
        ("ALPINE", _) => format!("https://security.alpinelinux.org/vuln/{id}"),
        ("CVE", PackageType::Deb) => format!("https://security-tracker.debian.org/tracker/{id}"),
        ("CVE", _) => format!("https://www.cve.org/CVERecord?id={id}"),
        _ => format!("https://osv.dev/vulnerability/{advisory}"),
    }
}

/// The same for the same vulnerability of the same package at the same place, whatever the version.
fn fingerprint(id: &str, package: &Package) -> Fingerprint {
    let path = if package.version.is_empty() {
        package.path.clone()
    } else {
        package.path.replace(&package.version, "*")
    };
    Fingerprint::of(&[id, package.kind.as_str(), &package.name, &path])
}
