//! `CycloneDX` as XML: the same parts under the same names, with lists in elements of their own.

use super::{
    Bom,
    cyclonedx::{
        self, Component, Composition, Dependency, Document, Evidence, Hash, Identity, License,
        LicenseChoice, Metadata, Named, Occurrence, OneOrMany, Property,
    },
};
use crate::{Malformed, malformed, xml::Element};

pub(super) fn parse(text: &str) -> Result<Bom, Malformed> {
    let root = Element::parse(text)?;
    let is_it = root.name == "bom" && root.attribute("xmlns").is_none_or(is_cyclonedx);
    if !is_it {
        return Err(malformed("it is XML, but no CycloneDX"));
    }
    let metadata = root.child("metadata");
    let subject = metadata.and_then(|metadata| metadata.child("component"));
    let dependencies = root
        .list("dependencies")
        .iter()
        .map(|dependency| Dependency {
            from: dependency.attribute("ref").unwrap_or_default().to_owned(),
            depends_on: Some(
                dependency
                    .children
                    .iter()
                    .filter_map(|child| child.attribute("ref").map(ToOwned::to_owned))
                    .collect(),
            ),
        });
    let compositions = root
        .list("compositions")
        .iter()
        .map(|composition| Composition {
            aggregate: text_of(composition, "aggregate").unwrap_or_default(),
        });
    Ok(cyclonedx::bom(Document {
        metadata: Some(Metadata {
            component: subject.map(component),
        }),
        components: Some(components(&root)),
        dependencies: Some(dependencies.collect()),
        compositions: Some(compositions.collect()),
    }))
}

fn is_cyclonedx(namespace: &str) -> bool {
    namespace.starts_with("http://cyclonedx.org/schema/bom")
}

fn components(element: &Element) -> Vec<Component> {
    let list = element.list("components").iter();
    list.filter(|child| child.name == "component")
        .map(component)
        .collect()
}

fn component(element: &Element) -> Component {
    let hashes = element.list("hashes").iter().map(|hash| Hash {
        alg: hash.attribute("alg").unwrap_or_default().to_owned(),
        content: hash.text.clone(),
    });
    let properties = element.list("properties").iter().map(|property| Property {
        name: property.attribute("name").unwrap_or_default().to_owned(),
        value: Some(property.text.clone()),
    });
    Component {
        kind: element.attribute("type").unwrap_or_default().to_owned(),
        bom_ref: element.attribute("bom-ref").map(ToOwned::to_owned),
        group: text_of(element, "group"),
        name: text_of(element, "name").unwrap_or_default(),
        version: text_of(element, "version"),
        purl: text_of(element, "purl"),
        description: text_of(element, "description"),
        publisher: text_of(element, "publisher"),
        supplier: element.child("supplier").map(|supplier| Named {
            name: text_of(supplier, "name"),
        }),
        hashes: Some(hashes.collect()),
        licenses: Some(element.list("licenses").iter().map(license).collect()),
        evidence: element.child("evidence").map(evidence),
        properties: Some(properties.collect()),
        components: Some(components(element)),
    }
}

fn license(element: &Element) -> LicenseChoice {
    if element.name == "expression" {
        return LicenseChoice {
            license: None,
            expression: Some(element.text.clone()),
        };
    }
    LicenseChoice {
        license: Some(License {
            id: text_of(element, "id"),
            name: text_of(element, "name"),
        }),
        expression: None,
    }
}

fn evidence(element: &Element) -> Evidence {
    let identities = element
        .children
        .iter()
        .filter(|child| child.name == "identity");
    let identities = identities.map(|identity| Identity {
        confidence: identity
            .text_of("confidence")
            .and_then(|text| text.parse().ok()),
    });
    let occurrences = element
        .list("occurrences")
        .iter()
        .map(|occurrence| Occurrence {
            location: text_of(occurrence, "location").unwrap_or_default(),
        });
    Evidence {
        identity: Some(OneOrMany::Many(identities.collect())),
        occurrences: Some(occurrences.collect()),
    }
}

fn text_of(element: &Element, name: &str) -> Option<String> {
    element.text_of(name).map(ToOwned::to_owned)
}
