//! `CycloneDX` as JSON, of versions 1.2 to 1.6 and what later ones keep of it.

use serde::Deserialize;

use super::{Bom, Item, ItemKind};
use crate::{Malformed, malformed};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    pub(super) metadata: Option<Metadata>,
    pub(super) components: Option<Vec<Component>>,
    pub(super) dependencies: Option<Vec<Dependency>>,
    pub(super) compositions: Option<Vec<Composition>>,
}

#[derive(Default, Deserialize)]
pub(super) struct Metadata {
    pub(super) component: Option<Component>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Component {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(rename = "bom-ref")]
    pub(super) bom_ref: Option<String>,
    pub(super) group: Option<String>,
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) purl: Option<String>,
    pub(super) description: Option<String>,
    pub(super) publisher: Option<String>,
    pub(super) supplier: Option<Named>,
    pub(super) hashes: Option<Vec<Hash>>,
    pub(super) licenses: Option<Vec<LicenseChoice>>,
    pub(super) evidence: Option<Evidence>,
    pub(super) properties: Option<Vec<Property>>,
    pub(super) components: Option<Vec<Component>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Named {
    pub(super) name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Hash {
    pub(super) alg: String,
    pub(super) content: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct LicenseChoice {
    pub(super) license: Option<License>,
    pub(super) expression: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct License {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Evidence {
    pub(super) identity: Option<OneOrMany>,
    pub(super) occurrences: Option<Vec<Occurrence>>,
}

/// One until version 1.5, several since.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    Many(Vec<Identity>),
    One(Identity),
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Identity {
    pub(super) confidence: Option<f32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Occurrence {
    pub(super) location: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) value: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Dependency {
    #[serde(rename = "ref")]
    pub(super) from: String,
    pub(super) depends_on: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Composition {
    pub(super) aggregate: String,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Bom, Malformed> {
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| malformed(format!("as CycloneDX it is broken: {error}")))?;
    Ok(bom(document))
}

/// The document in the words of all kinds.
pub(super) fn bom(document: Document) -> Bom {
    let mut bom = Bom::default();
    let mut subject = document.metadata.and_then(|metadata| metadata.component);
    let inner = subject
        .as_mut()
        .and_then(|subject| subject.components.take());
    bom.subject = subject.map(item);
    // A component within another is a part of it, and there all the same. Nobody's reader allows
    // more than 128 levels.
    let mut due: Vec<Component> = document.components.into_iter().flatten().collect();
    due.extend(inner.into_iter().flatten());
    due.reverse();
    while let Some(mut component) = due.pop() {
        let parts = component.components.take().into_iter().flatten().rev();
        due.extend(parts);
        bom.push(item(component));
    }
    for dependency in document.dependencies.into_iter().flatten() {
        for to in dependency.depends_on.iter().flatten() {
            bom.need(&dependency.from, to);
        }
    }
    let compositions = document.compositions.into_iter().flatten();
    let mut aggregates = compositions.map(|composition| composition.aggregate);
    bom.is_incomplete = aggregates.any(|aggregate| aggregate.starts_with("incomplete"));
    bom
}

fn item(component: Component) -> Item {
    let kind = match component.kind.as_str() {
        "operating-system" => ItemKind::OperatingSystem,
        "container" => ItemKind::Image,
        "library" | "framework" | "platform" | "" => ItemKind::Package,
        // What has no package URL is a lock file, or a program that nobody installed by a manager.
        "application" if component.purl.is_some() => ItemKind::Package,
        _ => ItemKind::Other,
    };
    let evidence = component.evidence.unwrap_or_default();
    let confidence = evidence.identity.and_then(|identity| match identity {
        OneOrMany::One(one) => one.confidence,
        OneOrMany::Many(all) => all.into_iter().find_map(|one| one.confidence),
    });
    let mut occurrences = evidence.occurrences.into_iter().flatten();
    let supplier = component.supplier.and_then(|supplier| supplier.name);
    let properties = component.properties.into_iter().flatten();
    Item {
        reference: component.bom_ref.unwrap_or_default(),
        kind,
        group: component.group.unwrap_or_default(),
        name: component.name,
        version: component.version.unwrap_or_default(),
        purl: component.purl.unwrap_or_default(),
        description: component.description.unwrap_or_default(),
        licenses: component
            .licenses
            .into_iter()
            .flatten()
            .filter_map(license)
            .collect(),
        digests: component
            .hashes
            .into_iter()
            .flatten()
            .filter_map(|hash| digest(&hash))
            .collect(),
        vendor: component.publisher.or(supplier).unwrap_or_default(),
        path: occurrences
            .next()
            .map(|place| place.location)
            .unwrap_or_default(),
        confidence,
        properties: properties
            .map(|property| (property.name, property.value.unwrap_or_default()))
            .collect(),
    }
}

fn license(choice: LicenseChoice) -> Option<String> {
    let named = choice
        .license
        .and_then(|license| license.id.or(license.name));
    choice.expression.or(named).filter(|text| !text.is_empty())
}

fn digest(hash: &Hash) -> Option<String> {
    let algorithm = hash.alg.to_ascii_lowercase();
    let algorithm = match algorithm.strip_prefix("sha-") {
        Some(bits) => format!("sha{bits}"),
        None => algorithm,
    };
    (!algorithm.is_empty() && !hash.content.is_empty())
        .then(|| format!("{algorithm}:{}", hash.content))
}
