//! Findings of the image. What a later layer deleted is still in it, and is marked.

use model::{Findings, Fingerprint, FoundFinding, FoundMalware, FoundSecret, Malware, Secret};

use super::{
    HashMap, HashSet,
    outline::{Name, hash, last},
    packed::Recorded,
    view::View,
};

/// The file that a finding is in.
pub(super) fn path(finding: &FoundFinding) -> Option<&str> {
    match finding {
        // Of a file in an archive it is the archive that is there or not.
        FoundFinding::Secret(secret) => secret.path.split("!/").next(),
        FoundFinding::Malware(malware) => malware.path.split("!/").next(),
        FoundFinding::Misconfiguration(misconfiguration) => misconfiguration.path.as_deref(),
        FoundFinding::Unknown => None,
    }
}

/// All findings, sorted. A setting of a file that is gone is no finding any more.
pub(super) fn collect(view: &View<'_>, instructions: &[String]) -> Findings {
    let mut all = Findings::default();
    let unmodified = unmodified(view);
    // Of the same layer twice the upper one decides what is to be seen.
    let numbers = view.layers.iter().enumerate();
    let upper: HashMap<_, _> = numbers
        .map(|(number, layer)| (layer.blob, number))
        .collect();
    for (number, layer) in view.layers.iter().enumerate() {
        if upper.get(&layer.blob) != Some(&number) {
            continue;
        }
        for finding in layer.sections.iter().flat_map(|section| &section.findings) {
            let origin = path(finding).and_then(|path| view.origin(number, path));
            let seen = origin.and_then(|origin| view.path(origin));
            match finding {
                FoundFinding::Secret(found) if is_unmodified(found, &unmodified) => {}
                FoundFinding::Secret(found) => {
                    let instruction = instructions.get(number).cloned();
                    all.secrets
                        .push(secret(found, layer.blob, instruction, seen.is_none()));
                }
                FoundFinding::Malware(found) => {
                    all.malware.push(malware(found, layer.blob, seen.is_none()));
                }
                FoundFinding::Misconfiguration(found) => {
                    let is_file = origin.is_some_and(|origin| view.entry(origin).is_some());
                    let is_directory =
                        |path: &String| !is_file && view.shows_directory(number, path);
                    let is_there = found.path.as_ref().is_none_or(is_directory);
                    if is_there || seen.is_some() {
                        all.misconfigurations.push(found.clone());
                    }
                }
                FoundFinding::Unknown => {}
            }
        }
    }
    all.secrets.sort_by(|a, b| {
        (&a.path, a.line, a.column, &a.rule).cmp(&(&b.path, b.line, b.column, &b.rule))
    });
    all.secrets.dedup();
    all.malware
        .sort_by(|a, b| (&a.path, &a.rule, a.layer).cmp(&(&b.path, &b.rule, b.layer)));
    all.malware.dedup();
    all.misconfigurations
        .sort_by(|a, b| (&a.id, &a.path).cmp(&(&b.id, &b.path)));
    all.misconfigurations.dedup();
    all
}

/// Files with secrets in them that operating system packages own, with the digests that were recorded
/// when they were installed.
fn unmodified<'a>(view: &View<'a>) -> HashSet<(&'a str, Recorded<'a>)> {
    let sections = || view.layers.iter().flat_map(|layer| &layer.sections);
    let findings = sections().flat_map(|section| &section.findings);
    let secrets = findings.filter(|finding| matches!(finding, FoundFinding::Secret(_)));
    let places: HashSet<&str> = secrets.filter_map(path).map(real).collect();
    if places.is_empty() {
        return HashSet::default();
    }
    let names: HashSet<Name> = places.iter().map(|place| hash(last(place))).collect();
    let owned = sections().flat_map(|section| {
        let numbers = names.iter().flat_map(|name| section.owned.named(*name));
        numbers.filter_map(|number| section.owned.get(number))
    });
    let owned = owned.filter(|owned| places.contains(real(owned.path)));
    let owned = owned.filter_map(|owned| Some((real(owned.path), owned.digest?)));
    owned.collect()
}

/// Whether a file is as its package made it: what is in it everybody has.
fn is_unmodified(found: &FoundSecret, unmodified: &HashSet<(&str, Recorded<'_>)>) -> bool {
    let path = found.path.split("!/").next().map(real).unwrap_or_default();
    let mut digests = found.file_digests.iter();
    digests.any(|digest| unmodified.contains(&(path, Recorded::of(digest))))
}

/// The path in a merged `/usr`: packages name either.
fn real(path: &str) -> &str {
    let below = path.strip_prefix("usr/");
    below
        .filter(|rest| {
            ["bin/", "sbin/", "lib/", "lib64/"]
                .iter()
                .any(|dir| rest.starts_with(dir))
        })
        .unwrap_or(path)
}

fn secret(
    found: &FoundSecret,
    layer: model::Digest,
    instruction: Option<String>,
    deleted_later: bool,
) -> Secret {
    Secret {
        rule: found.rule.clone(),
        title: found.title.clone(),
        severity: found.severity,
        path: found.path.clone(),
        line: found.line,
        column: found.column,
        end_line: found.end_line,
        layer,
        instruction,
        deleted_later,
        masked: found.masked.clone(),
        advice: found.advice.clone(),
        expires_at: found.expires_at,
        waived: None,
        fingerprint: Fingerprint(found.fingerprint.clone()),
    }
}

fn malware(found: &FoundMalware, layer: model::Digest, deleted_later: bool) -> Malware {
    Malware {
        rule: found.rule.clone(),
        ruleset: found.ruleset.clone(),
        severity: found.severity,
        path: found.path.clone(),
        layer,
        digest: found.digest,
        deleted_later,
        waived: None,
        fingerprint: Fingerprint::of(&[&found.rule, &found.path, &found.digest.hex()]),
    }
}
