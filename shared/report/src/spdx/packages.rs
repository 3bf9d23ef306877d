//! Packages: the image, its operating system, what is installed.

use std::{borrow::Cow, collections::HashMap};

use model::{Digest, ImageRef, Os, Package, PackageId, Report, Reports, TargetLayer};

use super::document::{
    self, Annotation, Checksum, Document, ExternalRef, Extracted, Package as Written, Relationship,
};
use crate::{
    identifiers::{self, oci_purl},
    licenses,
    properties::{self, Property},
};

const UNSAID: &str = "NOASSERTION";

/// Characters of a licence's name in its identifier.
const ID_CHARS_MAX: usize = 40;

/// Writes what belongs to one report.
pub(super) struct Writer<'a> {
    report: &'a Report,
    /// Where one document has several images.
    prefix: String,
    date: String,
    annotator: String,
    packages: Vec<Written<'a>>,
    relationships: Vec<Relationship>,
    extracted: Vec<Extracted>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(report: &'a Report, prefix: String) -> Self {
        Self {
            report,
            prefix,
            date: document::second(report.created_at),
            annotator: document::creator(&report.tool),
            packages: Vec::new(),
            relationships: Vec::new(),
            extracted: Vec::new(),
        }
    }

    pub(super) fn move_to(self, document: &mut Document<'a>) {
        document.packages.extend(self.packages);
        document.relationships.extend(self.relationships);
        document.extracted.extend(self.extracted);
    }

    pub(super) fn relate(&mut self, from: &str, kind: &'static str, to: &str) {
        self.relationships.push(Relationship {
            from: from.to_owned(),
            kind,
            to: to.to_owned(),
        });
    }

    /// The index that leads to the images of several platforms; its identifier.
    pub(super) fn index(&mut self, reports: &'a Reports) -> String {
        let reference = &self.report.target.reference;
        let purl = oci_purl(reference, Some(reports.index_digest), None);
        let properties = vec![Property::new("tidewaiter:image:reference", &**reference)];
        self.container("Index", reports.index_digest, purl, properties)
    }

    /// The image; its identifier.
    pub(super) fn image(&mut self) -> String {
        let target = &self.report.target;
        let arch = &*target.platform.architecture;
        let purl = oci_purl(&target.reference, target.manifest_digest, Some(arch));
        let digest = target.manifest_digest.unwrap_or(target.image_id);
        self.container("Image", digest, purl, properties::image(self.report))
    }

    fn container(
        &mut self,
        what: &str,
        digest: Digest,
        purl: Option<String>,
        properties: Vec<Property<'_>>,
    ) -> String {
        let reference = &*self.report.target.reference;
        let name = reference.parse::<ImageRef>().map(|parsed| parsed.name());
        let id = self.id(what, "");
        self.packages.push(Written {
            name: name.map_or(Cow::Borrowed(reference), Cow::Owned),
            version_info: Some(Cow::Owned(digest.to_string())),
            checksums: vec![Checksum {
                algorithm: "SHA256",
                checksum_value: Cow::Owned(digest.hex()),
            }],
            external_refs: purl
                .map(|purl| reference_to(Cow::Owned(purl)))
                .into_iter()
                .collect(),
            primary_package_purpose: Some("CONTAINER"),
            annotations: self.annotations(properties),
            ..unsaid(id.clone())
        });
        id
    }

    /// The operating system and every package.
    pub(super) fn contents(&mut self, image: &str) {
        let report = self.report;
        if let Some(os) = &report.target.os {
            let id = self.operating_system(os);
            self.relate(image, "CONTAINS", &id);
        }
        let layers = report.target.layers.iter().enumerate();
        let layers: HashMap<Digest, (usize, &TargetLayer)> = layers
            .map(|(number, layer)| (layer.digest, (number + 1, layer)))
            .collect();
        let ids = report
            .packages
            .iter()
            .map(|package| (&package.id, self.id("Package", &package.id.0)));
        let ids: HashMap<&PackageId, String> = ids.collect();
        let expressions = licenses::Expressions::of(report);
        for package in &report.packages {
            let id = self.id("Package", &package.id.0);
            let layer = layers.get(&package.layer).copied();
            self.package(package, expressions.of_package(package), layer, id.clone());
            self.relate(image, "CONTAINS", &id);
            for needed in &package.depends_on {
                if let Some(needed) = ids.get(needed) {
                    self.relate(&id, "DEPENDS_ON", needed);
                }
            }
        }
    }

    fn operating_system(&mut self, os: &'a Os) -> String {
        let id = self.id("OperatingSystem", "");
        self.packages.push(Written {
            name: Cow::Borrowed(&os.id),
            version_info: Some(Cow::Borrowed(&*os.version_id))
                .filter(|version| !version.is_empty()),
            description: os.pretty_name.as_deref(),
            primary_package_purpose: Some("OPERATING_SYSTEM"),
            annotations: self.annotations(properties::operating_system(os)),
            ..unsaid(id.clone())
        });
        id
    }

    fn package(
        &mut self,
        package: &'a Package,
        licenses: &'a [String],
        layer: Option<(usize, &'a TargetLayer)>,
        id: String,
    ) {
        let checksums: Vec<_> = package
            .digests
            .iter()
            .filter_map(|text| checksum(text))
            .collect();
        let mut properties = vec![
            Property::new("tidewaiter:package:id", &*package.id.0),
            Property::new("tidewaiter:package:path", &*package.path),
        ];
        properties.extend(properties::package(package, layer));
        // A list of licences is one expression here, and the list is not to be had from it.
        let are_licenses_other = match package.licenses.as_slice() {
            [] => false,
            declared if declared != licenses => true,
            [one] => licenses::id(one) != Some(one),
            _ => true,
        };
        let are_digests_other = checksums.len() < package.digests.len();
        properties::verbatim(
            package,
            are_licenses_other,
            are_digests_other,
            &mut properties,
        );
        let vendor = package.vendor.as_ref().filter(|vendor| !vendor.is_empty());
        let license_declared = self.declared(licenses);
        self.packages.push(Written {
            name: Cow::Borrowed(&package.name),
            version_info: Some(Cow::Borrowed(&package.version)),
            supplier: vendor.map(|vendor| format!("Organization: {vendor}")),
            checksums,
            source_info: Some(format!("found in: {}", package.path)),
            license_declared,
            external_refs: vec![reference_to(Cow::Borrowed(&package.purl.0))],
            annotations: self.annotations(properties),
            ..unsaid(id)
        });
    }

    /// One expression of all licences; what the list does not have is named in the document.
    fn declared(&mut self, licenses: &'a [String]) -> Cow<'a, str> {
        let mut parts: Vec<Cow<'a, str>> = Vec::new();
        for text in licenses.iter().filter(|text| !text.trim().is_empty()) {
            let is_own = text.contains("LicenseRef-") || text.contains("DocumentRef-");
            let part = match licenses::id(text) {
                Some(id) => Cow::Borrowed(id),
                None if !is_own && licenses::is_expression(text) => {
                    let is_alone = licenses.len() == 1;
                    if is_alone {
                        Cow::Borrowed(text.as_str())
                    } else {
                        Cow::Owned(format!("({text})"))
                    }
                }
                None => Cow::Owned(self.extracted(text)),
            };
            parts.push(part);
        }
        match parts.len() {
            0 => Cow::Borrowed(UNSAID),
            1 => parts.remove(0),
            _ => Cow::Owned(parts.join(" AND ")),
        }
    }

    fn extracted(&mut self, text: &str) -> String {
        let plain = text.chars().map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        });
        let plain: String = plain.take(ID_CHARS_MAX).collect();
        let id = format!("LicenseRef-{plain}-{}", Digest::of(text.as_bytes()).short());
        self.extracted.push(Extracted {
            id: id.clone(),
            name: text.to_owned(),
            extracted_text: text.to_owned(),
        });
        id
    }

    fn annotations(&self, properties: Vec<Property<'_>>) -> Vec<Annotation> {
        let annotation = |property: Property<'_>| Annotation {
            annotation_date: self.date.clone(),
            annotation_type: "OTHER",
            annotator: self.annotator.clone(),
            comment: format!("{}: {}", property.name, property.value),
        };
        properties.into_iter().map(annotation).collect()
    }

    /// An identifier may have few kinds of characters: what tells one from another is a digest.
    fn id(&self, what: &str, of: &str) -> String {
        if self.prefix.is_empty() && of.is_empty() {
            return format!("SPDXRef-{what}");
        }
        let digest = Digest::of(format!("{}|{of}", self.prefix).as_bytes()).hex();
        format!("SPDXRef-{what}-{}", &digest[..16])
    }
}

/// A package of which nothing is said.
fn unsaid<'a>(id: String) -> Written<'a> {
    Written {
        id,
        download_location: UNSAID,
        license_concluded: UNSAID,
        license_declared: Cow::Borrowed(UNSAID),
        copyright_text: UNSAID,
        ..Written::default()
    }
}

fn reference_to(purl: Cow<'_, str>) -> ExternalRef<'_> {
    ExternalRef {
        reference_category: "PACKAGE-MANAGER",
        reference_type: "purl",
        reference_locator: purl,
    }
}

fn checksum(text: &str) -> Option<Checksum<'_>> {
    let (algorithm, content) = identifiers::digest(text)?;
    let algorithm = match algorithm {
        "md5" => "MD5",
        "sha1" => "SHA1",
        "sha256" => "SHA256",
        "sha384" => "SHA384",
        _ => "SHA512",
    };
    Some(Checksum {
        algorithm,
        checksum_value: Cow::Borrowed(content),
    })
}
