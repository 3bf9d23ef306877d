//! Findings of the image. What a later layer deleted is still in it, and is marked.

use std::collections::HashMap;

use model::{Findings, Fingerprint, FoundFinding, FoundMalware, FoundSecret, Malware, Secret};

use super::view::View;

/// The file that a finding is in.
pub(super) fn path(finding: &FoundFinding) -> Option<&str> {
    match finding {
        FoundFinding::Secret(secret) => Some(&secret.path),
        FoundFinding::Malware(malware) => Some(&malware.path),
        FoundFinding::Misconfiguration(misconfiguration) => misconfiguration.path.as_deref(),
        FoundFinding::Unknown => None,
    }
}

/// All findings, sorted. A setting of a file that is gone is no finding any more.
pub(super) fn collect(view: &View<'_>, instructions: &[String]) -> Findings {
    let mut all = Findings::default();
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
                FoundFinding::Secret(found) => {
                    let instruction = instructions.get(number).cloned();
                    all.secrets
                        .push(secret(found, layer.blob, instruction, seen.is_none()));
                }
                FoundFinding::Malware(found) => all.malware.push(malware(found, layer.blob)),
                FoundFinding::Misconfiguration(found) => {
                    if found.path.is_none() || seen.is_some() {
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
        waived: None,
        fingerprint: Fingerprint(found.fingerprint.clone()),
    }
}

fn malware(found: &FoundMalware, layer: model::Digest) -> Malware {
    Malware {
        rule: found.rule.clone(),
        ruleset: found.ruleset.clone(),
        severity: found.severity,
        path: found.path.clone(),
        layer,
        digest: found.digest,
        waived: None,
        fingerprint: Fingerprint::of(&[&found.rule, &found.path, &found.digest.hex()]),
    }
}
