//! SPDX 2 as tags and values: lines `Tag: value`, a value of several lines in `<text>…</text>`.

use super::{
    Bom,
    spdx::{self, Annotation, Checksum, Document, ExternalRef, Extracted, Package, Relationship},
};
use crate::{Malformed, malformed};

pub(super) fn parse(text: &str) -> Result<Bom, Malformed> {
    if !text
        .lines()
        .any(|line| line.starts_with("SPDXVersion: SPDX-2."))
    {
        return Err(malformed("it is no JSON, no XML and no SPDX 2"));
    }
    let mut document = Document::default();
    let mut packages: Vec<Package> = Vec::new();
    let mut relationships = Vec::new();
    let mut extracted: Vec<Extracted> = Vec::new();
    // What an annotation is about is said after it.
    let mut annotation: Option<String> = None;
    let mut annotations: Vec<(String, String)> = Vec::new();
    let mut is_package = false;
    let values = Values(text.lines());
    for (tag, value) in values {
        match tag {
            "PackageName" => {
                is_package = true;
                packages.push(Package {
                    name: value,
                    ..Package::default()
                });
            }
            "FileName" | "SnippetSPDXID" => is_package = false,
            "LicenseID" => {
                is_package = false;
                extracted.push(Extracted {
                    license_id: value,
                    name: None,
                });
            }
            "LicenseName" => {
                if let Some(license) = extracted.last_mut() {
                    license.name = Some(value);
                }
            }
            "Relationship" => {
                let mut words = value.split_whitespace().map(ToOwned::to_owned);
                if let (Some(from), Some(kind), Some(to)) =
                    (words.next(), words.next(), words.next())
                {
                    relationships.push(Relationship { from, to, kind });
                }
            }
            "AnnotationComment" => annotation = Some(value),
            "SPDXREF" => annotations.extend(annotation.take().map(|comment| (value, comment))),
            _ if is_package => {
                if let Some(package) = packages.last_mut() {
                    field(package, tag, value);
                }
            }
            _ => {}
        }
    }
    annotate(&mut packages, annotations);
    document.packages = Some(packages);
    document.relationships = Some(relationships);
    document.extracted = Some(extracted);
    Ok(spdx::bom(document))
}

fn field(package: &mut Package, tag: &str, value: String) {
    match tag {
        "SPDXID" => package.id = value,
        "PackageVersion" => package.version_info = Some(value),
        "PackageSupplier" => package.supplier = Some(value),
        "PackageSourceInfo" => package.source_info = Some(value),
        "PackageDescription" => package.description = Some(value),
        "PackageLicenseDeclared" => package.license_declared = Some(value),
        "PackageLicenseConcluded" => package.license_concluded = Some(value),
        "PrimaryPackagePurpose" => package.primary_package_purpose = Some(value),
        "PackageAttributionText" => {
            package
                .attribution_texts
                .get_or_insert_default()
                .push(value);
        }
        "PackageChecksum" => {
            if let Some((algorithm, checksum)) = value.split_once(": ") {
                package.checksums.get_or_insert_default().push(Checksum {
                    algorithm: algorithm.to_owned(),
                    checksum_value: checksum.trim().to_owned(),
                });
            }
        }
        "ExternalRef" => {
            let mut words = value.split_whitespace().skip(1).map(ToOwned::to_owned);
            if let (Some(reference_type), Some(reference_locator)) = (words.next(), words.next()) {
                package
                    .external_refs
                    .get_or_insert_default()
                    .push(ExternalRef {
                        reference_type,
                        reference_locator,
                    });
            }
        }
        _ => {}
    }
}

fn annotate(packages: &mut [Package], annotations: Vec<(String, String)>) {
    let places = packages.iter().enumerate();
    let places: std::collections::HashMap<String, usize> = places
        .map(|(number, package)| (package.id.clone(), number))
        .collect();
    for (id, comment) in annotations {
        if let Some(package) = places.get(&id).and_then(|number| packages.get_mut(*number)) {
            package
                .annotations
                .get_or_insert_default()
                .push(Annotation { comment });
        }
    }
}

/// Tags and values of some lines.
struct Values<'a>(std::str::Lines<'a>);

impl<'a> Iterator for Values<'a> {
    type Item = (&'a str, String);

    fn next(&mut self) -> Option<Self::Item> {
        let (tag, value) = loop {
            let line = self.0.next()?;
            if let Some((tag, value)) = line.split_once(':').filter(|_| !line.starts_with('#')) {
                break (tag.trim(), value.trim());
            }
        };
        let Some(first) = value.strip_prefix("<text>") else {
            return Some((tag, value.to_owned()));
        };
        let mut text = String::new();
        let mut line = first;
        loop {
            if let Some((end, _)) = line.split_once("</text>") {
                text.push_str(end);
                return Some((tag, text));
            }
            text.push_str(line);
            text.push('\n');
            match self.0.next() {
                Some(next) => line = next,
                None => return Some((tag, text)),
            }
        }
    }
}
