//! What bills of materials have no words for, as names and values: a reader gets back from them
//! everything that the report says of a package. Names begin with `tidewaiter:`.

use std::borrow::Cow;

use model::{Confidence, Os, Package, Report, TargetLayer};
use serde::Serialize;

/// A name and its value.
#[derive(Debug, Serialize)]
pub(crate) struct Property<'a> {
    pub(crate) name: &'static str,
    pub(crate) value: Cow<'a, str>,
}

impl<'a> Property<'a> {
    pub(crate) fn new(name: &'static str, value: impl Into<Cow<'a, str>>) -> Self {
        Self {
            name,
            value: value.into(),
        }
    }
}

/// Of the image.
pub(crate) fn image(report: &Report) -> Vec<Property<'_>> {
    let target = &report.target;
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
    properties
}

/// Each layer begins with its digest.
fn layer(layer: &TargetLayer) -> impl Iterator<Item = Property<'_>> {
    let digest = layer.digest.to_string();
    let diff_id = layer.diff_id.map(|id| id.to_string());
    let made_by = layer.created_by.as_deref();
    [
        Some(Property::new("tidewaiter:layer:digest", digest)),
        diff_id.map(|id| Property::new("tidewaiter:layer:diffId", id)),
        Some(Property::new(
            "tidewaiter:layer:size",
            layer.size.to_string(),
        )),
        made_by.map(|text| Property::new("tidewaiter:layer:createdBy", text)),
    ]
    .into_iter()
    .flatten()
}

/// Of the operating system.
pub(crate) fn operating_system(os: &Os) -> Vec<Property<'_>> {
    let eol = os.eol.map(|eol| eol.to_string());
    let codename = os.codename.as_deref();
    let eol = eol.map(|eol| Property::new("tidewaiter:os:endOfLife", eol));
    let codename = codename.map(|name| Property::new("tidewaiter:os:codename", name));
    eol.into_iter().chain(codename).collect()
}

/// Of a package.
pub(crate) fn package<'a>(
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
    let confidence = match package.confidence {
        Confidence::High => "high",
        Confidence::Medium => "medium",
        Confidence::Low => "low",
    };
    let optional = [
        layer_number,
        diff_id.map(|id| Property::new("tidewaiter:layer:diffId", id.to_string())),
        text("tidewaiter:package:within", &package.within),
        text("tidewaiter:package:arch", &package.arch),
        text("tidewaiter:package:distro", &package.distro),
        text("tidewaiter:source:name", &package.source_name),
        text("tidewaiter:source:version", &package.source_version),
        text("tidewaiter:package:vendor", &package.vendor),
        text("tidewaiter:package:modularity", &package.modularity),
        owned_by.map(|id| Property::new("tidewaiter:package:ownedBy", &*id.0)),
        flag("tidewaiter:package:direct", package.direct),
        flag("tidewaiter:package:dev", package.dev),
        Some(Property::new("tidewaiter:package:confidence", confidence)),
    ];
    let mut properties = vec![
        Property::new("tidewaiter:package:type", package.kind.as_str()),
        Property::new("tidewaiter:layer:digest", package.layer.to_string()),
    ];
    properties.extend(optional.into_iter().flatten());
    properties
}

/// Licences and digests as the package declares them, where the format's own fields say them in
/// other words.
pub(crate) fn verbatim<'a>(
    package: &'a Package,
    licenses: bool,
    digests: bool,
    properties: &mut Vec<Property<'a>>,
) {
    let mut add = |name, values: &'a [String]| {
        properties.extend(values.iter().map(|value| Property::new(name, &**value)));
    };
    if licenses {
        add("tidewaiter:package:license", &package.licenses);
    }
    if digests {
        add("tidewaiter:package:digest", &package.digests);
    }
}
