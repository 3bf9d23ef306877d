//! SPDX 3 as JSON-LD (spdx.github.io/spdx-spec/v3.0.1): a flat list of elements, with packages and
//! what relates them. Only what the specification's own context calls things is understood.

use std::collections::HashMap;

use serde::Deserialize;

use super::{Bom, Item, ItemKind};
use crate::{Malformed, malformed};

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "@graph")]
    graph: Vec<Element>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Element {
    #[serde(rename = "type", alias = "@type")]
    kind: String,
    #[serde(alias = "@id")]
    spdx_id: String,
    name: Option<String>,
    description: Option<String>,
    #[serde(rename = "software_packageVersion")]
    version: Option<String>,
    #[serde(rename = "software_packageUrl")]
    package_url: Option<String>,
    #[serde(rename = "software_primaryPurpose")]
    purpose: Option<String>,
    external_identifier: Option<Vec<Identifier>>,
    verified_using: Option<Vec<Hash>>,
    #[serde(rename = "simplelicensing_licenseExpression")]
    license_expression: Option<String>,
    // Of relationships.
    from: Option<String>,
    to: Option<Vec<String>>,
    relationship_type: Option<String>,
    /// Of relationships: `complete`, `incomplete` or `noAssertion`.
    completeness: Option<String>,
    // Of annotations.
    subject: Option<String>,
    statement: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Identifier {
    external_identifier_type: String,
    identifier: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Hash {
    algorithm: Option<String>,
    hash_value: Option<String>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Bom, Malformed> {
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| malformed(format!("as SPDX 3 it is broken: {error}")))?;
    let is_spdx =
        |element: &Element| element.kind == "SpdxDocument" || element.kind == "software_Sbom";
    if !document.graph.iter().any(is_spdx) {
        return Err(malformed(
            "it is JSON-LD, but there is no document of SPDX in it",
        ));
    }
    Ok(bom(document))
}

fn bom(document: Document) -> Bom {
    let mut bom = Bom::default();
    let (mut licenses, mut expressions) = (HashMap::<String, Vec<String>>::new(), HashMap::new());
    let mut properties = HashMap::<String, Vec<(String, String)>>::new();
    let mut items = Vec::new();
    for element in document.graph {
        match element.kind.as_str() {
            "software_Package" => items.push(item(element)),
            "Relationship" | "LifecycleScopedRelationship" => {
                let from = element.from.unwrap_or_default();
                let to = element.to.into_iter().flatten();
                match element.relationship_type.as_deref() {
                    Some("dependsOn") => to.for_each(|to| bom.need(&from, &to)),
                    Some("hasDeclaredLicense") => licenses.entry(from).or_default().extend(to),
                    Some("contains") if element.completeness.as_deref() == Some("incomplete") => {
                        bom.is_incomplete = true;
                    }
                    _ => {}
                }
            }
            "Annotation" => {
                let statement = element.statement.unwrap_or_default();
                let pair = statement.split_once(": ");
                if let (Some(subject), Some((name, value))) = (element.subject, pair) {
                    let of_subject = properties.entry(subject).or_default();
                    of_subject.push((name.to_owned(), value.to_owned()));
                }
            }
            _ => {
                if let Some(expression) = element.license_expression {
                    expressions.insert(element.spdx_id, expression);
                }
            }
        }
    }
    for mut item in items {
        let of_item = licenses.remove(&item.reference).into_iter().flatten();
        item.licenses = of_item
            .filter_map(|id| expressions.get(&id).cloned())
            .collect();
        item.properties = properties.remove(&item.reference).unwrap_or_default();
        if item.kind == ItemKind::Image && bom.subject.is_none() {
            bom.subject = Some(item);
        } else {
            bom.push(item);
        }
    }
    bom
}

fn item(element: Element) -> Item {
    let mut identifiers = element.external_identifier.into_iter().flatten();
    let of_list = || {
        let purl = identifiers.find(|one| {
            one.external_identifier_type
                .eq_ignore_ascii_case("packageUrl")
        });
        purl.map(|one| one.identifier)
    };
    let purl = element.package_url.or_else(of_list).unwrap_or_default();
    let kind = match element.purpose.as_deref() {
        Some("operatingSystem") => ItemKind::OperatingSystem,
        Some("container") => ItemKind::Image,
        _ if purl.starts_with("pkg:oci/") || purl.starts_with("pkg:docker/") => ItemKind::Image,
        Some("application" | "file" | "source") if purl.is_empty() => ItemKind::Other,
        _ => ItemKind::Package,
    };
    let hashes = element.verified_using.into_iter().flatten();
    Item {
        reference: element.spdx_id,
        kind,
        name: element.name.unwrap_or_default(),
        version: element.version.unwrap_or_default(),
        purl,
        description: element.description.unwrap_or_default(),
        digests: hashes
            .filter_map(|hash| Some(format!("{}:{}", hash.algorithm?, hash.hash_value?)))
            .collect(),
        ..Item::default()
    }
}
