//! Components: the image, its operating system, its packages.

use std::{borrow::Cow, collections::HashMap};

use model::{
    Confidence, Digest, ImageRef, Os, Package, PackageId, PackageType, Report, Reports,
    TargetLayer, Tool,
};

use super::document::{Component, Evidence, Hash, Identity, Method, Occurrence};
use crate::{
    identifiers::{self, oci_purl},
    licenses,
    properties::{self, Property},
};

/// Makes the names by which parts of the document point to each other.
#[derive(Default)]
pub(super) struct Refs {
    /// Where one document has several images.
    prefix: String,
}

pub(super) fn tool(tool: &Tool) -> Component<'_> {
    Component {
        kind: "application",
        name: Cow::Borrowed(&tool.name),
        version: Some(Cow::Borrowed(&tool.version)),
        ..Component::default()
    }
}

/// The image itself.
pub(super) fn image<'a>(report: &'a Report, refs: &Refs) -> Component<'a> {
    let target = &report.target;
    let digest = target.manifest_digest.unwrap_or(target.image_id);
    let arch = &*target.platform.architecture;
    Component {
        purl: oci_purl(&target.reference, target.manifest_digest, Some(arch)).map(Cow::Owned),
        properties: properties::image(report),
        ..container(refs.image(), &target.reference, digest)
    }
}

/// The index that leads to the images of several platforms.
pub(super) fn index<'a>(reports: &'a Reports, first: &'a Report) -> Component<'a> {
    let reference = &first.target.reference;
    Component {
        purl: oci_purl(reference, Some(reports.index_digest), None).map(Cow::Owned),
        properties: vec![Property::new("tidewaiter:image:reference", &**reference)],
        ..container("index".to_owned(), reference, reports.index_digest)
    }
}

fn container(bom_ref: String, reference: &str, digest: Digest) -> Component<'_> {
    let name = reference.parse::<ImageRef>().map(|parsed| parsed.name());
    Component {
        kind: "container",
        bom_ref,
        name: name.map_or(Cow::Borrowed(reference), Cow::Owned),
        version: Some(Cow::Owned(digest.to_string())),
        ..Component::default()
    }
}

/// The operating system and every package.
pub(super) fn packages<'a>(report: &'a Report, refs: &Refs) -> Vec<Component<'a>> {
    let layers: HashMap<Digest, (usize, &TargetLayer)> = report
        .target
        .layers
        .iter()
        .enumerate()
        .map(|(number, layer)| (layer.digest, (number + 1, layer)))
        .collect();
    let os = report.target.os.iter().map(|os| operating_system(os, refs));
    let expressions = licenses::Expressions::of(report);
    let packages = report.packages.iter().map(|one| {
        let licenses = expressions.of_package(one);
        package(one, licenses, layers.get(&one.layer).copied(), refs)
    });
    os.chain(packages).collect()
}

fn operating_system<'a>(os: &'a Os, refs: &Refs) -> Component<'a> {
    Component {
        kind: "operating-system",
        bom_ref: refs.os(),
        name: Cow::Borrowed(&os.id),
        version: Some(Cow::Borrowed(&*os.version_id)).filter(|version| !version.is_empty()),
        description: os.pretty_name.as_deref(),
        properties: properties::operating_system(os),
        ..Component::default()
    }
}

fn package<'a>(
    package: &'a Package,
    licenses: &'a [String],
    layer: Option<(usize, &'a TargetLayer)>,
    refs: &Refs,
) -> Component<'a> {
    let (group, name) = names(package);
    let licenses = licenses::choices(licenses);
    let hashes: Vec<_> = package
        .digests
        .iter()
        .filter_map(|text| hash(text))
        .collect();
    let mut properties = properties::package(package, layer);
    let are_licenses_other = !licenses::are_verbatim(&licenses, &package.licenses);
    let are_digests_other = hashes.len() < package.digests.len();
    properties::verbatim(
        package,
        are_licenses_other,
        are_digests_other,
        &mut properties,
    );
    Component {
        kind: "library",
        bom_ref: refs.package(&package.id),
        group,
        name: Cow::Borrowed(name),
        version: Some(Cow::Borrowed(&package.version)),
        scope: (package.dev == Some(true)).then_some("optional"),
        hashes,
        licenses,
        purl: Some(Cow::Borrowed(&package.purl.0)),
        evidence: Some(evidence(package, layer)),
        properties,
        ..Component::default()
    }
}

/// `md5:…` and the like; what is no digest of that kind is left out.
fn hash(text: &str) -> Option<Hash<'_>> {
    let (algorithm, content) = identifiers::digest(text)?;
    let alg = match algorithm {
        "md5" => "MD5",
        "sha1" => "SHA-1",
        "sha256" => "SHA-256",
        "sha384" => "SHA-384",
        _ => "SHA-512",
    };
    Some(Hash {
        alg,
        content: Cow::Borrowed(content),
    })
}

/// Group and name, as the ecosystem divides them.
fn names(package: &Package) -> (Option<&str>, &str) {
    let separator = match package.kind {
        PackageType::Npm if package.name.starts_with('@') => '/',
        PackageType::Maven => ':',
        PackageType::Composer => '/',
        _ => return (None, &package.name),
    };
    match package.name.split_once(separator) {
        Some((group, name)) => (Some(group), name),
        None => (None, &package.name),
    }
}

fn evidence<'a>(package: &'a Package, layer: Option<(usize, &TargetLayer)>) -> Evidence<'a> {
    let (confidence, technique) = match package.confidence {
        Confidence::High => (1.0, "manifest-analysis"),
        Confidence::Medium => (0.7, "manifest-analysis"),
        Confidence::Low => (0.3, "other"),
    };
    let additional_context = match layer {
        Some((number, _)) => format!("layer {number}, {}", package.layer),
        None => package.layer.to_string(),
    };
    Evidence {
        identity: [Identity {
            field: "purl",
            confidence,
            methods: [Method {
                technique,
                confidence,
                value: &package.path,
            }],
        }],
        occurrences: [Occurrence {
            location: &package.path,
            additional_context,
        }],
    }
}

// === impl Refs ===

impl Refs {
    /// Of one of several images.
    pub(super) fn of_platform(platform: &str) -> Self {
        Self {
            prefix: format!("{platform}|"),
        }
    }

    pub(super) fn image(&self) -> String {
        format!("{}image", self.prefix)
    }

    pub(super) fn os(&self) -> String {
        format!("{}os", self.prefix)
    }

    pub(super) fn package(&self, id: &PackageId) -> String {
        format!("{}{id}", self.prefix)
    }

    pub(super) fn file(&self, number: usize, path: &str) -> String {
        format!("{}file:{number}:{path}", self.prefix)
    }

    pub(super) fn malware(&self, number: usize, rule: &str) -> String {
        format!("{}malware:{number}:{rule}", self.prefix)
    }

    pub(super) fn vulnerability(&self, number: usize, id: &str) -> String {
        format!("{}vulnerability:{number}:{id}", self.prefix)
    }
}
