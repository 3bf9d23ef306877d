//! Components: the image, its operating system, its packages.

use std::{borrow::Cow, collections::HashMap, fmt::Write as _};

use model::{
    Confidence, Digest, ImageRef, Os, Package, PackageId, PackageType, Report, Reports,
    TargetLayer, Tool,
};

use super::{
    document::{Component, Evidence, Hash, Identity, Method, Occurrence, Property},
    licenses,
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
    let mut properties = vec![
        Property::new("tidewaiter:image:reference", &*target.reference),
        Property::new("tidewaiter:image:id", target.image_id.to_string()),
        Property::new("tidewaiter:image:platform", target.platform.to_string()),
        Property::new(
            "tidewaiter:advisories:revision",
            report.advisories.revision.to_string(),
        ),
        Property::new("tidewaiter:verdict", report.verdict.decision.as_str()),
    ];
    properties.extend(target.layers.iter().flat_map(layer));
    let arch = &*target.platform.architecture;
    Component {
        purl: oci_purl(&target.reference, target.manifest_digest, Some(arch)).map(Cow::Owned),
        properties,
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
    let packages = report
        .packages
        .iter()
        .map(|one| package(one, layers.get(&one.layer).copied(), refs));
    os.chain(packages).collect()
}

fn operating_system<'a>(os: &'a Os, refs: &Refs) -> Component<'a> {
    Component {
        kind: "operating-system",
        bom_ref: refs.os(),
        name: Cow::Borrowed(&os.id),
        version: Some(Cow::Borrowed(&*os.version_id)).filter(|version| !version.is_empty()),
        description: os.pretty_name.as_deref(),
        properties: os
            .eol
            .map(|eol| Property::new("tidewaiter:os:endOfLife", eol.to_string()))
            .into_iter()
            .collect(),
        ..Component::default()
    }
}

fn package<'a>(
    package: &'a Package,
    layer: Option<(usize, &'a TargetLayer)>,
    refs: &Refs,
) -> Component<'a> {
    let (group, name) = names(package);
    Component {
        kind: "library",
        bom_ref: refs.package(&package.id),
        group,
        name: Cow::Borrowed(name),
        version: Some(Cow::Borrowed(&package.version)),
        scope: (package.dev == Some(true)).then_some("optional"),
        hashes: package
            .digests
            .iter()
            .filter_map(|text| hash(text))
            .collect(),
        licenses: licenses::choices(&package.licenses),
        purl: Some(Cow::Borrowed(&package.purl.0)),
        evidence: Some(evidence(package, layer)),
        properties: properties(package, layer),
        ..Component::default()
    }
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

fn properties<'a>(
    package: &'a Package,
    layer: Option<(usize, &'a TargetLayer)>,
) -> Vec<Property<'a>> {
    let text =
        |name, value: &'a Option<String>| value.as_deref().map(|value| Property::new(name, value));
    let flag =
        |name, value: Option<bool>| value.map(|value| Property::new(name, value.to_string()));
    let layer_number =
        layer.map(|(number, _)| Property::new("tidewaiter:layer:number", number.to_string()));
    let diff_id = layer.and_then(|(_, layer)| layer.diff_id);
    let owned_by = package.owned_by.as_ref();
    let optional = [
        layer_number,
        diff_id.map(|id| Property::new("tidewaiter:layer:diffId", id.to_string())),
        text("tidewaiter:package:arch", &package.arch),
        text("tidewaiter:package:distro", &package.distro),
        text("tidewaiter:source:name", &package.source_name),
        text("tidewaiter:source:version", &package.source_version),
        owned_by.map(|id| Property::new("tidewaiter:package:ownedBy", &*id.0)),
        flag("tidewaiter:package:direct", package.direct),
        flag("tidewaiter:package:dev", package.dev),
    ];
    let mut properties = vec![
        Property::new("tidewaiter:package:type", package.kind.as_str()),
        Property::new("tidewaiter:layer:digest", package.layer.to_string()),
    ];
    properties.extend(optional.into_iter().flatten());
    properties
}

fn layer(layer: &TargetLayer) -> impl Iterator<Item = Property<'_>> {
    let diff_id = layer.diff_id.map(|id| id.to_string());
    let made_by = layer.created_by.as_deref();
    [
        Some(Property::new(
            "tidewaiter:layer:digest",
            layer.digest.to_string(),
        )),
        diff_id.map(|id| Property::new("tidewaiter:layer:diffId", id)),
        made_by.map(|text| Property::new("tidewaiter:layer:createdBy", text)),
    ]
    .into_iter()
    .flatten()
}

/// `md5:…` and the like; what is no digest of that kind is left out.
fn hash(text: &str) -> Option<Hash<'_>> {
    let (algorithm, content) = text.split_once(':')?;
    let (alg, digits) = match algorithm.to_ascii_lowercase().replace('-', "").as_str() {
        "md5" => ("MD5", 32),
        "sha1" => ("SHA-1", 40),
        "sha256" => ("SHA-256", 64),
        "sha384" => ("SHA-384", 96),
        "sha512" => ("SHA-512", 128),
        _ => return None,
    };
    let is_hex = content.len() == digits && content.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then_some(Hash {
        alg,
        content: Cow::Borrowed(content),
    })
}

/// `pkg:oci/app@sha256%3A…?arch=amd64&repository_url=registry.example%2Fteam%2Fapp&tag=1.0`; only
/// what a registry has.
fn oci_purl(reference: &str, digest: Option<Digest>, arch: Option<&str>) -> Option<String> {
    let (reference, digest) = (reference.parse::<ImageRef>().ok()?, digest?);
    let name = reference.repository.rsplit('/').next()?;
    let mut purl = format!("pkg:oci/{name}@sha256%3A{}?", digest.hex());
    if let Some(arch) = arch {
        let _written = write!(purl, "arch={}&", percent(arch));
    }
    let _written = write!(purl, "repository_url={}", percent(&reference.name()));
    if let Some(tag) = &reference.tag {
        let _written = write!(purl, "&tag={}", percent(tag));
    }
    Some(purl)
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => write!(encoded, "%{byte:02X}").expect("writing to a String cannot fail"),
        }
        encoded
    })
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

    pub(super) fn vulnerability(&self, number: usize, id: &str) -> String {
        format!("{}vulnerability:{number}:{id}", self.prefix)
    }
}
