//! SPDX 2 as JSON (spdx.github.io/spdx-spec/v2.3).

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::{Bom, Item, ItemKind};
use crate::{Malformed, malformed};

/// The only relationships that say what is needed, and which end needs the other.
const NEEDS: &[&str] = &["DEPENDS_ON", "DYNAMIC_LINK", "STATIC_LINK"];
const NEEDED_BY: &[&str] = &["DEPENDENCY_OF", "RUNTIME_DEPENDENCY_OF"];

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Document {
    pub(super) packages: Option<Vec<Package>>,
    pub(super) relationships: Option<Vec<Relationship>>,
    #[serde(rename = "documentDescribes")]
    pub(super) describes: Option<Vec<String>>,
    #[serde(rename = "hasExtractedLicensingInfos")]
    pub(super) extracted: Option<Vec<Extracted>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Package {
    #[serde(rename = "SPDXID")]
    pub(super) id: String,
    pub(super) name: String,
    pub(super) version_info: Option<String>,
    pub(super) supplier: Option<String>,
    pub(super) source_info: Option<String>,
    pub(super) description: Option<String>,
    pub(super) license_declared: Option<String>,
    pub(super) license_concluded: Option<String>,
    pub(super) primary_package_purpose: Option<String>,
    pub(super) checksums: Option<Vec<Checksum>>,
    pub(super) external_refs: Option<Vec<ExternalRef>>,
    pub(super) annotations: Option<Vec<Annotation>>,
    /// Where others put what annotations are for.
    pub(super) attribution_texts: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Checksum {
    pub(super) algorithm: String,
    pub(super) checksum_value: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ExternalRef {
    pub(super) reference_type: String,
    pub(super) reference_locator: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Annotation {
    pub(super) comment: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Relationship {
    #[serde(rename = "spdxElementId")]
    pub(super) from: String,
    #[serde(rename = "relatedSpdxElement")]
    pub(super) to: String,
    #[serde(rename = "relationshipType")]
    pub(super) kind: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Extracted {
    pub(super) license_id: String,
    pub(super) name: Option<String>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Bom, Malformed> {
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| malformed(format!("as SPDX it is broken: {error}")))?;
    Ok(bom(document))
}

/// The document in the words of all kinds.
pub(super) fn bom(document: Document) -> Bom {
    let mut bom = Bom::default();
    let extracted = document.extracted.into_iter().flatten();
    let names = extracted.filter_map(|license| Some((license.license_id, license.name?)));
    let names: HashMap<String, String> = names.collect();
    let described = document.describes.into_iter().flatten();
    let mut described: HashSet<String> = described.collect();
    for Relationship { from, to, kind } in document.relationships.into_iter().flatten() {
        let kind = kind.as_str();
        if NEEDS.contains(&kind) {
            bom.need(&from, &to);
        } else if NEEDED_BY.contains(&kind) {
            bom.need(&to, &from);
        } else if kind == "DESCRIBES" {
            described.insert(to);
        } else if kind == "CONTAINS" && to == "NOASSERTION" {
            bom.is_incomplete = true;
        }
    }
    for package in document.packages.into_iter().flatten() {
        let item = item(package, &names);
        if item.kind == ItemKind::Image
            && bom.subject.is_none()
            && described.contains(&item.reference)
        {
            bom.subject = Some(item);
        } else {
            bom.push(item);
        }
    }
    bom
}

fn item(package: Package, licenses: &HashMap<String, String>) -> Item {
    let purls = package.external_refs.into_iter().flatten();
    let mut purls = purls.filter(|one| one.reference_type == "purl");
    let purl = purls
        .next()
        .map(|one| one.reference_locator)
        .unwrap_or_default();
    let kind = match package.primary_package_purpose.as_deref() {
        Some("OPERATING-SYSTEM" | "OPERATING_SYSTEM") => ItemKind::OperatingSystem,
        Some("CONTAINER") => ItemKind::Image,
        Some("FILE" | "SOURCE" | "DEVICE" | "FIRMWARE" | "ARCHIVE") if purl.is_empty() => {
            ItemKind::Other
        }
        // An image by its package URL, a lock file, …
        _ if purl.starts_with("pkg:oci/") || purl.starts_with("pkg:docker/") => ItemKind::Image,
        Some("APPLICATION") if purl.is_empty() => ItemKind::Other,
        _ => ItemKind::Package,
    };
    let supplier = said(package.supplier.as_deref());
    let vendor = supplier.split_once(": ").map_or(supplier, |(_, name)| name);
    let license = match said(package.license_declared.as_deref()) {
        "" => said(package.license_concluded.as_deref()),
        declared => declared,
    };
    let checksums = package.checksums.into_iter().flatten();
    let source_info = package.source_info.unwrap_or_default();
    Item {
        reference: package.id,
        kind,
        group: String::new(),
        name: package.name,
        version: said(package.version_info.as_deref()).to_owned(),
        purl,
        description: package.description.unwrap_or_default(),
        licenses: self::licenses(license, licenses),
        digests: checksums
            .map(|one| {
                format!(
                    "{}:{}",
                    one.algorithm.to_ascii_lowercase(),
                    one.checksum_value
                )
            })
            .collect(),
        vendor: vendor.to_owned(),
        path: path(&source_info).to_owned(),
        confidence: None,
        properties: properties(package.annotations, package.attribution_texts),
    }
}

/// A field that may say that it says nothing.
fn said(text: Option<&str>) -> &str {
    let text = text.unwrap_or_default();
    if matches!(text, "NOASSERTION" | "NONE") {
        ""
    } else {
        text
    }
}

/// The names in a conjunction of licences, or the expression as it is.
fn licenses(expression: &str, names: &HashMap<String, String>) -> Vec<String> {
    let called = |id: &str| names.get(id).map_or(id, String::as_str).to_owned();
    if expression.is_empty() {
        return Vec::new();
    }
    if expression.contains(" OR ") || expression.contains(" WITH ") || expression.contains('(') {
        return vec![called(expression)];
    }
    expression.split(" AND ").map(called).collect()
}

/// The first path in what syft writes: `acquired package info from DPKG DB: /var/lib/dpkg/status`.
fn path(source_info: &str) -> &str {
    let paths = source_info.rsplit_once(": ").map_or("", |(_, paths)| paths);
    let first = paths.split(", ").next().unwrap_or_default();
    first.strip_prefix('/').unwrap_or(first)
}

/// What we and trivy write as `name: value`; names that are ours have colons in them.
fn properties(
    annotations: Option<Vec<Annotation>>,
    texts: Option<Vec<String>>,
) -> Vec<(String, String)> {
    let told = annotations.into_iter().flatten().map(|one| one.comment);
    let all = told.chain(texts.into_iter().flatten());
    let named = all.filter_map(|text| {
        let (name, value) = text.split_once(": ")?;
        Some((name.to_owned(), value.to_owned()))
    });
    named.collect()
}
