//! Gaps of the image: those of its layers, what the config and manifest claim wrongly, and
//! records of packages that nobody has read.

use model::{EntryKind, Gap, GapCode, Hides, ImageConfig};

use super::{Subject, tree::Node, view::View};
use crate::{apk, dpkg};

/// Whether a file written at a path is read as records.
type Reads = fn(&str) -> bool;

/// Where package managers keep their records, and who reads a file written at a path as such.
const RECORDS: &[(&str, Reads)] = &[
    ("lib/apk/db/installed", apk::is_database),
    ("usr/lib/apk/db/installed", apk::is_database),
    ("var/lib/dpkg/status", dpkg::is_database),
    ("var/lib/rpm/Packages", nobody),
    ("var/lib/rpm/Packages.db", nobody),
    ("var/lib/rpm/rpmdb.sqlite", nobody),
    ("usr/lib/sysimage/rpm/Packages", nobody),
    ("usr/lib/sysimage/rpm/Packages.db", nobody),
    ("usr/lib/sysimage/rpm/rpmdb.sqlite", nobody),
    ("usr/share/rpm/rpmdb.sqlite", nobody),
];

/// A directory in which every file is such a record.
const RECORD_DIRECTORY: &str = "var/lib/dpkg/status.d";

/// The name of that directory: everything in it counts.
pub(super) const RECORDS_OF_THEIR_OWN: &str = "status.d";

/// Where this module looks.
pub(super) fn places() -> impl Iterator<Item = &'static str> {
    RECORDS
        .iter()
        .map(|(place, _)| *place)
        .chain([RECORD_DIRECTORY])
}

/// All gaps, sorted, each once.
pub(super) fn collect(view: &View<'_>, config: &ImageConfig, subject: &Subject) -> Vec<Gap> {
    let mut gaps = of_layers(view);
    gaps.extend(of_claims(view, config, subject));
    gaps.extend(of_records(view));
    gaps.sort();
    gaps.dedup();
    gaps
}

fn of_layers(view: &View<'_>) -> Vec<Gap> {
    let mut gaps = Vec::new();
    for (number, layer) in view.layers.iter().enumerate() {
        let of_sections = layer.sections.iter().flat_map(|section| &section.gaps);
        let of_sections = of_sections.filter(|gap| !is_moot(view, number, gap));
        let all = layer
            .entries
            .gaps
            .iter()
            .chain(&layer.transient_gaps)
            .chain(of_sections);
        gaps.extend(all.map(|gap| gap.clone().in_layer(layer.blob)));
    }
    gaps
}

/// Whether a gap hides packages of a file that is deleted: there are none.
fn is_moot(view: &View<'_>, layer: usize, gap: &Gap) -> bool {
    let is_of_file = matches!(gap.code, GapCode::Malformed | GapCode::LimitFile);
    let path = gap
        .path
        .as_deref()
        .filter(|_| is_of_file && gap.hides == Hides::Packages);
    let origin = path.and_then(|path| view.origin(layer, path));
    // An entry that is no file has no number, and is never seen.
    origin.is_some_and(|origin| view.entry(origin).is_some() && view.path(origin).is_none())
}

fn of_claims(view: &View<'_>, config: &ImageConfig, subject: &Subject) -> Vec<Gap> {
    let mut gaps = Vec::new();
    if config.diff_ids.len() != view.layers.len() {
        let (claimed, found) = (config.diff_ids.len(), view.layers.len());
        let detail = format!("the config names {claimed} layers, the manifest {found}");
        gaps.push(Gap::new(
            GapCode::LayerCountMismatch,
            Hides::Entries,
            detail,
        ));
    }
    for (layer, claimed) in view.layers.iter().zip(&config.diff_ids) {
        if let Some(diff_id) = layer.entries.diff_id.filter(|diff_id| diff_id != claimed) {
            let detail = format!("the config claims {claimed}, the layer has {diff_id}");
            let gap = Gap::new(GapCode::DiffidMismatch, Hides::Entries, detail);
            gaps.push(gap.in_layer(layer.blob));
        }
    }
    for (layer, claimed) in view.layers.iter().zip(&subject.layer_sizes) {
        let found = layer.entries.compressed_bytes;
        // Where the diffID is known the blob was read to its end.
        if layer.entries.diff_id.is_some() && found != *claimed {
            let detail = format!("the blob has {found} bytes, the manifest says {claimed}");
            let gap = Gap::new(GapCode::SizeMismatch, Hides::Entries, detail);
            gaps.push(gap.in_layer(layer.blob));
        }
    }
    gaps
}

/// Records of packages that are there and were not read: of a kind that has no analyzer, or
/// reached by a link to a file with another name.
fn of_records(view: &View<'_>) -> Vec<Gap> {
    let mut gaps = Vec::new();
    for (place, is_read) in RECORDS {
        if let Some(node) = view.tree.find(place) {
            gaps.extend(unread(view, place, node, *is_read));
        }
    }
    if let Some(Node::Directory(children)) = view.tree.find(RECORD_DIRECTORY) {
        for name in children.keys() {
            let place = format!("{RECORD_DIRECTORY}/{name}");
            let is_list = name.ends_with(".md5sums");
            if let Some(node) = view.tree.find(&place).filter(|_| !is_list) {
                gaps.extend(unread(view, &place, node, dpkg::is_database));
            }
        }
    }
    gaps
}

fn unread(view: &View<'_>, place: &str, node: &Node<'_>, is_read: Reads) -> Option<Gap> {
    let Node::Leaf(origin) = node else {
        return None;
    };
    let entry = view.entry(*origin)?;
    if entry.kind == EntryKind::File && is_read(&entry.path) {
        return None;
    }
    let detail = if entry.path == place {
        "nothing here reads these records of packages".to_owned()
    } else {
        format!(
            "these records of packages are a link to `{}`, which was not read as such",
            entry.path
        )
    };
    let code = GapCode::UnsupportedMediaType;
    let layer = view.layers.get(origin.layer)?.blob;
    Some(
        Gap::new(code, Hides::Packages, detail)
            .at(place)
            .in_layer(layer),
    )
}

fn nobody(_path: &str) -> bool {
    false
}
