//! A run: one image of one platform.

use std::collections::{BTreeMap, HashMap};

use model::{Decision, Digest, Gap, Hides, ImageRef, Package, PackageId, Report};
use serde_json::{Value, json};

use super::{
    document::{
        ArtifactLocation, AutomationDetails, BaseId, Descriptor, Driver, Invocation, Location,
        LogicalLocation, Message, Notification, Outcome, PhysicalLocation, Region, Run, Tool,
    },
    item::{Item, Place, items},
    rules::{Rules, level},
    text::{message, uri},
};
use crate::Options;

/// What paths are relative to.
const ROOT: &str = "ROOTPATH";

/// The path of what is in the image's config and not in a file of it.
const CONFIG: &str = "image-config";

/// What locations need to know of the report.
struct Index<'a> {
    packages: HashMap<&'a PackageId, &'a Package>,
    /// The layer's number from the base, and the instruction that made it.
    layers: HashMap<Digest, (usize, Option<&'a str>)>,
}

/// One image, with at most so many results.
pub(super) fn run<'a>(report: &'a Report, options: &Options, results_max: usize) -> Run<'a> {
    let (mut items, accepted) = items(report, options);
    let all = items.len();
    items.truncate(results_max);
    let index = Index::new(report);
    let mut rules = Rules::default();
    let results: Vec<_> = items
        .iter()
        .map(|item| outcome(*item, &index, &mut rules))
        .collect();
    let target = &report.target;
    let mut run = Run {
        tool: Tool {
            driver: Driver {
                name: &report.tool.name,
                version: &report.tool.version,
                semantic_version: &report.tool.version,
                rules: rules.into_vec(),
            },
        },
        invocations: [Invocation {
            execution_successful: report.verdict.decision != Decision::Incomplete,
            end_time_utc: report.created_at.to_string(),
            tool_execution_notifications: report
                .gaps
                .iter()
                .map(|gap| notification(gap, &index))
                .collect(),
        }],
        automation_details: AutomationDetails {
            id: category(report),
            description: message(&format!("{} ({})", target.reference, target.platform)).into(),
        },
        original_uri_base_ids: BTreeMap::from([(
            ROOT,
            BaseId {
                uri: "file:///",
                description: Message::from("the root of the image".to_owned()),
            },
        )]),
        column_kind: "unicodeCodePoints",
        results,
        properties: properties(report),
    };
    if all > results_max {
        let more = all - results_max;
        run.say(format!(
            "truncated: the {results_max} worst of {all} results are listed, {more} are left out"
        ));
    }
    if accepted > 0 {
        run.say(format!(
            "not listed: {accepted} findings that waivers or VEX documents accept"
        ));
    }
    run
}

/// Keeps uploads of different images apart, and those of the same image together.
fn category(report: &Report) -> String {
    let target = &report.target;
    let name = target
        .reference
        .parse::<ImageRef>()
        .map_or_else(|_| target.reference.clone(), |reference| reference.name());
    // Up to the last slash it is the category; what would follow names the one run.
    format!("tidewaiter/{}/{}/", uri(&name), target.platform)
}

fn outcome<'a>(item: Item<'a>, index: &Index<'a>, rules: &mut Rules<'a>) -> Outcome<'a> {
    let fingerprint = item.fingerprint();
    Outcome {
        rule_id: item.rule_id(),
        rule_index: rules.number(item),
        level: level(item.severity()),
        message: item.message().into(),
        locations: [location(&item.place(), index)],
        partial_fingerprints: BTreeMap::from([
            ("primaryLocationLineHash", fingerprint.clone()),
            ("tidewaiterFinding/v1", fingerprint),
        ]),
        suppressions: item.suppressions(),
        properties: item.properties(),
    }
}

fn location(place: &Place<'_>, index: &Index<'_>) -> Location {
    let package = place.package.and_then(|id| index.packages.get(id));
    let logical = package.map(|package| LogicalLocation {
        name: message(&package.name),
        fully_qualified_name: package.purl.0.clone(),
        kind: "module",
    });
    let layer = place
        .layer
        .map(|digest| (digest, index.layers.get(&digest).copied()));
    let said = layer.map(|(digest, known)| {
        let text = match known {
            Some((number, Some(instruction))) => {
                format!("layer {number} ({digest}), made by: {instruction}")
            }
            Some((number, None)) => format!("layer {number} ({digest})"),
            None => format!("layer {digest}"),
        };
        message(&text).into()
    });
    let path = match place.path {
        "" => CONFIG,
        path => path,
    };
    Location {
        physical_location: PhysicalLocation {
            artifact_location: ArtifactLocation {
                uri: uri(path),
                uri_base_id: ROOT,
            },
            region: Region {
                start_line: place.line.unwrap_or(1).max(1),
                start_column: place.column.filter(|column| *column > 0),
                end_line: place.end_line.filter(|end| place.line <= Some(*end)),
            },
        },
        logical_locations: logical.into_iter().collect(),
        message: said,
        properties: layer.map_or(Value::Null, |(digest, known)| {
            json!({"layer": digest, "layerNumber": known.map(|(number, _)| number)})
        }),
    }
}

/// A gap: what the tool could not do.
fn notification(gap: &Gap, index: &Index<'_>) -> Notification {
    let place = gap.path.as_deref().map(|path| Place {
        path,
        line: None,
        column: None,
        end_line: None,
        layer: gap.layer,
        package: None,
    });
    let code = serde_json::to_value(gap.code).unwrap_or_default();
    Notification {
        level: if gap.hides == Hides::Nothing {
            "note"
        } else {
            "warning"
        },
        message: message(&gap.detail).into(),
        descriptor: Some(Descriptor {
            id: format!("gap/{}", code.as_str().unwrap_or("unknown")),
        }),
        locations: place.iter().map(|place| location(place, index)).collect(),
    }
}

fn properties(report: &Report) -> Value {
    let (target, verdict) = (&report.target, &report.verdict);
    json!({
        "imageReference": target.reference,
        "imageID": target.image_id,
        "manifestDigest": target.manifest_digest,
        "indexDigest": target.index_digest,
        "platform": target.platform,
        "os": target.os,
        "layers": target.layers,
        "advisoryRevision": report.advisories.revision,
        "feeds": report.advisories.feeds,
        "packages": report.packages.len(),
        "verdict": verdict,
    })
}

// === impl Index ===

impl<'a> Index<'a> {
    fn new(report: &'a Report) -> Self {
        let packages = report.packages.iter().map(|package| (&package.id, package));
        let layers = report.target.layers.iter().enumerate();
        Self {
            packages: packages.collect(),
            layers: layers
                .map(|(number, layer)| {
                    let instruction = layer.created_by.as_deref();
                    (layer.digest, (number + 1, instruction))
                })
                .collect(),
        }
    }
}
