//! Bills of materials as a source of packages: `CycloneDX` as JSON and XML, SPDX 2 as JSON and as tags
//! and values, SPDX 3 as JSON-LD.
//!
//! A document becomes a report of an image, so that matching, policy and every format work as after
//! a scan. What `tidewaiter` itself wrote comes back as it was; of what others wrote the package URL
//! counts, and what syft and trivy say beside it: source packages, layers, places. A document is
//! somebody's word: what it leaves out is not known to be absent, and a component without a package
//! URL cannot be compared with advisories, which is a gap.
//!
//! Files like that in an image are read by the same functions; see `found`.

mod convert;
mod cyclonedx;
mod found;
mod purl;
mod spdx;
mod spdx3;
mod tags;
#[cfg(test)]
mod tests;
mod xml;

use std::collections::HashMap;

use model::{
    Digest, Findings, Gap, GapCode, Hides, ImageReport, Platform, RuntimeConfig, Target,
    TargetLayer,
};

pub(crate) use self::found::{Sbom, is_document};
use crate::{Malformed, malformed};

/// Bytes of a document. What is parsed takes several times as much memory.
pub const SBOM_BYTES_MAX: u64 = 128 << 20;

/// Components of a document, and what it says of their needs.
const ITEMS_MAX: usize = 500_000;
const NEEDS_MAX: usize = 5_000_000;

/// Layers that a document says its image has.
const LAYERS_MAX: usize = 1000;

/// The document is no bill of materials that we read.
#[derive(Debug, thiserror::Error)]
#[error("it is no bill of materials: {0}")]
pub struct SbomError(String);

/// What a document says.
#[derive(Debug, Default)]
struct Bom {
    /// What it is about.
    subject: Option<Item>,
    items: Vec<Item>,
    /// Who needs whom, by reference.
    needs: Vec<(String, String)>,
    /// Whether it says itself that something is missing.
    is_incomplete: bool,
    /// Whether it has more than we take.
    is_cut: bool,
}

/// What a document says of one thing.
#[derive(Debug, Default)]
struct Item {
    /// How others in the document point to it.
    reference: String,
    kind: ItemKind,
    group: String,
    name: String,
    version: String,
    purl: String,
    description: String,
    licenses: Vec<String>,
    /// As `algorithm:value`.
    digests: Vec<String>,
    /// Who built it.
    vendor: String,
    /// The file that proves it.
    path: String,
    /// How sure the document is, of 1.
    confidence: Option<f32>,
    /// What the document's writer has its own words for.
    properties: Vec<(String, String)>,
}

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ItemKind {
    #[default]
    Package,
    OperatingSystem,
    Image,
    /// A file, a device, a lock file that others call an application, …
    Other,
}

/// Reads a document as the report of an image.
///
/// `reference` is what the user asked for. The image's digest is the document's.
pub fn read_sbom(bytes: &[u8], reference: &str) -> Result<ImageReport, SbomError> {
    let bom = parse(bytes).map_err(|error| SbomError(error.to_string()))?;
    let digest = Digest::of(bytes);
    let os = convert::operating_system(&bom);
    let layers = layers(&bom, digest, bytes.len() as u64);
    let mut gaps = Vec::new();
    let packages = convert::packages(&bom, os.as_ref(), digest, reference, &mut gaps);
    gaps.extend(gaps_of(&bom));
    let platform = bom
        .subject
        .as_ref()
        .and_then(|subject| subject.property("tidewaiter:image:platform"));
    let platform = platform.and_then(|text| text.parse().ok());
    Ok(ImageReport {
        image: digest,
        target: Target {
            reference: reference.to_owned(),
            index_digest: None,
            manifest_digest: None,
            image_id: digest,
            platform: platform.unwrap_or_else(Platform::default),
            created: None,
            os,
            layers,
            config: RuntimeConfig::default(),
        },
        analyzers: Vec::new(),
        packages,
        findings: Findings::default(),
        gaps,
    })
}

/// Reads a document of any kind, by what is in it.
fn parse(bytes: &[u8]) -> Result<Bom, Malformed> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let start = bytes.trim_ascii_start();
    if start.starts_with(b"<") {
        return xml::parse(&String::from_utf8_lossy(bytes));
    }
    if !start.starts_with(b"{") {
        let text = String::from_utf8_lossy(bytes);
        return tags::parse(&text);
    }
    let kind: Kind = serde_json::from_slice(bytes)
        .map_err(|error| malformed(format!("it is no JSON object: {error}")))?;
    match kind {
        Kind {
            bom_format: Some(format),
            ..
        } if format == "CycloneDX" => cyclonedx::parse(bytes),
        Kind {
            spdx_version: Some(version),
            ..
        } if version.starts_with("SPDX-2.") => spdx::parse(bytes),
        Kind {
            context: Some(_),
            graph: Some(_),
            ..
        } => spdx3::parse(bytes),
        Kind {
            spdx_version: Some(version),
            ..
        } => Err(malformed(format!("it is of version `{}`", short(&version)))),
        _ => Err(malformed("it is JSON, but neither CycloneDX nor SPDX")),
    }
}

/// What tells one kind of JSON document from another.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    bom_format: Option<String>,
    spdx_version: Option<String>,
    #[serde(rename = "@context")]
    context: Option<serde::de::IgnoredAny>,
    #[serde(rename = "@graph")]
    graph: Option<serde::de::IgnoredAny>,
}

fn gaps_of(bom: &Bom) -> Vec<Gap> {
    let mut gaps = Vec::new();
    if bom.is_cut {
        let detail = format!(
            "the document has more than {ITEMS_MAX} components or says more than {NEEDS_MAX} times what they need"
        );
        gaps.push(Gap::new(GapCode::LimitResults, Hides::Packages, detail));
    }
    if bom.is_incomplete {
        let detail = "the document calls itself incomplete";
        gaps.push(Gap::new(
            GapCode::UnresolvedDependency,
            Hides::Packages,
            detail,
        ));
    }
    gaps
}

/// The layers that the document says its image has; the document itself where it says none.
fn layers(bom: &Bom, digest: Digest, size: u64) -> Vec<TargetLayer> {
    let mut layers: Vec<TargetLayer> = Vec::new();
    let properties = bom.subject.iter().flat_map(|subject| &subject.properties);
    for (name, value) in properties {
        match name.as_str() {
            "tidewaiter:layer:digest" => {
                if let Ok(digest) = value.parse()
                    && layers.len() < LAYERS_MAX
                {
                    layers.push(TargetLayer {
                        digest,
                        diff_id: None,
                        size: 0,
                        created_by: None,
                    });
                }
            }
            "tidewaiter:layer:diffId" => {
                if let Some(layer) = layers.last_mut() {
                    layer.diff_id = value.parse().ok();
                }
            }
            "tidewaiter:layer:size" => {
                if let Some(layer) = layers.last_mut() {
                    layer.size = value.parse().unwrap_or_default();
                }
            }
            "tidewaiter:layer:createdBy" => {
                if let Some(layer) = layers.last_mut() {
                    layer.created_by = Some(value.clone());
                }
            }
            _ => {}
        }
    }
    if layers.is_empty() {
        layers.push(TargetLayer {
            digest,
            diff_id: None,
            size,
            created_by: None,
        });
    }
    layers
}

/// The beginning of a text, for a message.
fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

// === impl Bom, Item ===

impl Bom {
    fn push(&mut self, item: Item) {
        if self.items.len() < ITEMS_MAX {
            self.items.push(item);
        } else {
            self.is_cut = true;
        }
    }

    fn need(&mut self, from: &str, to: &str) {
        if self.needs.len() < NEEDS_MAX {
            self.needs.push((from.to_owned(), to.to_owned()));
        } else {
            self.is_cut = true;
        }
    }
}

impl Item {
    /// The first value of a property that is not empty.
    fn property(&self, name: &str) -> Option<&str> {
        let mut all = self.properties.iter();
        let (_, value) = all.find(|(key, value)| key == name && !value.is_empty())?;
        Some(value)
    }

    /// All values of a property.
    fn properties_of(&self, name: &str) -> Vec<String> {
        let all = self.properties.iter().filter(|(key, _)| key == name);
        all.map(|(_, value)| value.clone()).collect()
    }
}

/// The items by reference.
fn by_reference(bom: &Bom) -> HashMap<&str, usize> {
    let items = bom.items.iter().enumerate();
    items
        .map(|(number, item)| (item.reference.as_str(), number))
        .collect()
}
