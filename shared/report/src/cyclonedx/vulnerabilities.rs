//! Vulnerabilities: each once, with every package that it affects and what was decided of it.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
};

use model::{FixState, Report, Severity, Vulnerability as Found, Waived};

use super::{
    components::Refs,
    document::{
        Advisory, AffectedVersion, Affects, Analysis, Rating, Reference, Source, Vulnerability,
    },
};
use crate::{Options, clean::web_address, properties::Property};

/// What makes two findings the same entry: one decision may differ between packages.
type Key<'a> = (&'a str, &'a str, Severity, FixState, Option<Analysis>);

pub(super) fn of<'a>(report: &'a Report, refs: &Refs, options: &Options) -> Vec<Vulnerability<'a>> {
    let mut numbers: HashMap<Key<'a>, usize> = HashMap::new();
    let mut groups: Vec<Vec<&Found>> = Vec::new();
    let shown = report.vulnerabilities.iter();
    for found in shown.filter(|found| options.shows_vulnerability(found)) {
        let (id, source) = (&*found.id, &*found.source);
        let key = (id, source, found.severity, found.fix_state, analysis(found));
        let number = *numbers.entry(key).or_insert(groups.len());
        match groups.get_mut(number) {
            Some(group) => group.push(found),
            None => groups.push(vec![found]),
        }
    }
    let numbered = groups.iter().enumerate();
    numbered
        .filter_map(|(number, group)| Some(entry(number, group.first()?, group, refs)))
        .collect()
}

fn entry<'a>(
    number: usize,
    first: &'a Found,
    group: &[&'a Found],
    refs: &Refs,
) -> Vulnerability<'a> {
    let (aliases, url) = (first.aliases.iter(), web_address(&first.url));
    Vulnerability {
        bom_ref: refs.vulnerability(number, &first.id),
        id: &first.id,
        source: Source {
            name: &first.source,
            url,
        },
        references: aliases.map(|alias| reference(alias)).collect(),
        ratings: ratings(first),
        cwes: &[],
        description: &first.title,
        recommendation: recommendation(group),
        advisories: url.map(|url| Advisory { url }).into_iter().collect(),
        published: first.published.map(|time| time.to_string()),
        updated: first.modified.map(|time| time.to_string()),
        analysis: analysis(first),
        affects: group.iter().map(|found| affects(found, refs)).collect(),
        properties: properties(first, group),
    }
}

/// Another name of the same vulnerability, and whose it is.
fn reference(id: &str) -> Reference<'_> {
    let name = match id.split_once('-') {
        Some(("CVE", _)) => "CVE",
        Some(("GHSA", _)) => "GitHub Advisories",
        Some((prefix, _)) => prefix,
        None => "OSV",
    };
    Reference {
        id,
        source: Source { name, url: None },
    }
}

/// The severity that the verdict counts, then every score.
fn ratings(found: &Found) -> Vec<Rating<'_>> {
    let own = Rating {
        source: Source {
            name: &found.source,
            url: None,
        },
        score: None,
        severity: severity(found.severity),
        method: "other",
        vector: None,
    };
    let scored = found.cvss.iter().map(|cvss| Rating {
        source: Source {
            name: &cvss.source,
            url: None,
        },
        score: Some(cvss.score),
        severity: severity(Severity::from_score(cvss.score)),
        method: match &*cvss.version {
            "2.0" => "CVSSv2",
            "3.0" => "CVSSv3",
            "3.1" => "CVSSv31",
            "4.0" => "CVSSv4",
            _ => "other",
        },
        vector: Some(&cvss.vector),
    });
    std::iter::once(own).chain(scored).collect()
}

/// The format's word.
pub(super) const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Negligible => "info",
        other => other.as_str(),
    }
}

fn recommendation(group: &[&Found]) -> Option<String> {
    let lines: BTreeSet<String> = group
        .iter()
        .filter_map(|found| {
            let best = found.fixed_versions.first()?;
            Some(format!("upgrade {} to {best}", found.package))
        })
        .collect();
    let lines: Vec<_> = lines.into_iter().collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn affects<'a>(found: &'a Found, refs: &Refs) -> Affects<'a> {
    let installed = AffectedVersion {
        version: &found.installed_version,
        status: "affected",
    };
    let fixed = found
        .fixed_versions
        .iter()
        .filter(|version| **version != found.installed_version)
        .map(|version| AffectedVersion {
            version,
            status: "unaffected",
        });
    Affects {
        to: refs.package(&found.package_id),
        versions: std::iter::once(installed).chain(fixed).collect(),
    }
}

/// What a VEX document or a waiver says; a document's word goes before a waiver's.
fn analysis(found: &Found) -> Option<Analysis> {
    let of_waiver = found.waived.as_ref().map(accepted);
    let Some(vex) = &found.vex else {
        return found.waived.as_ref().map(carried);
    };
    let state = match &*vex.status {
        "not_affected" => "not_affected",
        "fixed" => "resolved",
        "affected" => "exploitable",
        _ => "in_triage",
    };
    let said = vex.justification.as_deref();
    let mut detail = match said {
        Some(why) => format!("{}: {why} ({})", vex.status, vex.source),
        None => format!("{} ({})", vex.status, vex.source),
    };
    if let Some(waived) = &of_waiver {
        detail = format!("{detail}; {waived}");
    }
    Some(Analysis {
        state,
        justification: said.and_then(justification),
        response: of_waiver.map(|_| "will_not_fix").into_iter().collect(),
        detail,
    })
}

fn accepted(waived: &Waived) -> String {
    let Waived {
        author,
        expires,
        reason,
        source,
        ..
    } = waived;
    format!("accepted by {author} until {expires}: {reason} ({source})")
}

/// Accepted is not "not affected": the risk stays and is carried.
pub(super) fn carried(waived: &Waived) -> Analysis {
    Analysis {
        state: "exploitable",
        justification: None,
        response: vec!["will_not_fix"],
        detail: accepted(waived),
    }
}

/// The words of `OpenVEX` and CSAF in those of the format; those of the format are its own.
fn justification(text: &str) -> Option<&'static str> {
    const OWN: [&str; 9] = [
        "code_not_present",
        "code_not_reachable",
        "requires_configuration",
        "requires_dependency",
        "requires_environment",
        "protected_by_compiler",
        "protected_at_runtime",
        "protected_at_perimeter",
        "protected_by_mitigating_control",
    ];
    match text {
        "component_not_present" | "vulnerable_code_not_present" => Some("code_not_present"),
        "vulnerable_code_not_in_execute_path" => Some("code_not_reachable"),
        "inline_mitigations_already_exist" => Some("protected_by_mitigating_control"),
        _ => OWN.into_iter().find(|own| *own == text),
    }
}

fn properties<'a>(first: &'a Found, group: &[&'a Found]) -> Vec<Property<'a>> {
    let state = match first.fix_state {
        FixState::Fixed => "fixed",
        FixState::NotFixed => "not_fixed",
        FixState::WontFix => "wont_fix",
        FixState::Investigating => "investigating",
        FixState::EndOfLife => "end_of_life",
        FixState::Unknown => "unknown",
    };
    let mut properties = vec![
        Property::new("tidewaiter:fixState", state),
        Property::new("tidewaiter:kev", first.kev.to_string()),
    ];
    let epss = first.epss.map(|epss| epss.to_string());
    properties.extend(epss.map(|epss| Property::new("tidewaiter:epss", epss)));
    let fingerprints = group.iter().map(|found| &*found.fingerprint.0);
    properties.extend(
        fingerprints.map(|text| Property::new("tidewaiter:fingerprint", Cow::Borrowed(text))),
    );
    properties
}
