//! Gaps of the image: those of its layers, what the config and manifest claim wrongly, and
//! records of packages that nobody has read.

use std::collections::BTreeSet;

use archive::Limits;
use model::{EntryKind, Gap, GapCode, Hides, ImageConfig};

use super::{Subject, tree::Node, view::View};
use crate::{apk, dpkg, opkg, read::rank, rpm};

/// Whether a file written at a path is read as records.
type Reads = fn(&str) -> bool;

/// Where package managers keep their records, and who reads a file written at a path as such.
const RECORDS: &[(&str, Reads)] = &[
    ("lib/apk/db/installed", apk::is_database),
    ("usr/lib/apk/db/installed", apk::is_database),
    ("var/lib/dpkg/status", dpkg::is_database),
    ("var/lib/rpm/Packages", rpm::is_database),
    ("var/lib/rpm/Packages.db", rpm::is_database),
    ("var/lib/rpm/rpmdb.sqlite", rpm::is_database),
    ("usr/lib/sysimage/rpm/Packages", rpm::is_database),
    ("usr/lib/sysimage/rpm/Packages.db", rpm::is_database),
    ("usr/lib/sysimage/rpm/rpmdb.sqlite", rpm::is_database),
    ("usr/share/rpm/rpmdb.sqlite", rpm::is_database),
    ("usr/share/rpm/Packages", rpm::is_database),
    ("usr/share/rpm/Packages.db", rpm::is_database),
    ("var/lib/rpmmanifest/container-manifest-2", rpm::is_database),
    ("usr/lib/opkg/status", opkg::is_database),
    ("var/lib/opkg/status", opkg::is_database),
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

/// Gaps, each once, up to a number of them; the rest are counted.
struct Gaps {
    found: BTreeSet<Gap>,
    gaps_max: usize,
    more: u64,
    /// What the ones that are only counted hide at worst.
    worst: Option<Hides>,
}

/// All gaps, sorted, each once.
pub(super) fn collect(
    view: &View<'_>,
    config: &ImageConfig,
    subject: &Subject,
    limits: &Limits,
) -> Vec<Gap> {
    let mut gaps = Gaps {
        found: BTreeSet::new(),
        gaps_max: limits.gaps_max,
        more: 0,
        worst: None,
    };
    of_layers(view, &mut gaps);
    of_claims(view, config, subject, &mut gaps);
    of_records(view, &mut gaps);
    of_links(view, &mut gaps);
    of_limits(view, limits, &mut gaps);
    gaps.into_vec()
}

// === impl Gaps ===

impl Gaps {
    fn add(&mut self, gap: Gap) {
        self.found.insert(gap);
        if self.found.len() <= self.gaps_max {
            return;
        }
        if let Some(gap) = self.found.pop_last() {
            self.more = self.more.saturating_add(1);
            let worst = self.worst.into_iter().chain([gap.hides]);
            self.worst = worst.min_by_key(|hides| rank(*hides));
        }
    }

    fn into_vec(self) -> Vec<Gap> {
        let mut gaps: Vec<_> = self.found.into_iter().collect();
        if let Some(worst) = self.worst {
            let detail = format!("{} more gaps", self.more);
            gaps.push(Gap::new(GapCode::LimitResults, worst, detail));
        }
        gaps.sort();
        gaps
    }
}

fn of_layers(view: &View<'_>, gaps: &mut Gaps) {
    for (number, layer) in view.layers.iter().enumerate() {
        let of_sections = layer.sections.iter().flat_map(|section| &section.gaps);
        let of_sections = of_sections.filter(|gap| !is_moot(view, number, gap));
        let all = layer
            .entries
            .gaps
            .iter()
            .chain(&layer.transient_gaps)
            .chain(of_sections);
        for gap in all {
            gaps.add(gap.clone().in_layer(layer.blob));
        }
    }
}

/// Whether a gap hides packages of a file that is deleted: there are none.
fn is_moot(view: &View<'_>, layer: usize, gap: &Gap) -> bool {
    let is_of_file = matches!(
        gap.code,
        GapCode::Malformed | GapCode::LimitFile | GapCode::LimitUncompressed
    );
    let path = gap
        .path
        .as_deref()
        .filter(|_| is_of_file && gap.hides == Hides::Packages);
    let origin = path.and_then(|path| view.origin(layer, path));
    // An entry that is no file has no number, and is never seen.
    origin.is_some_and(|origin| view.entry(origin).is_some() && view.path(origin).is_none())
}

fn of_claims(view: &View<'_>, config: &ImageConfig, subject: &Subject, gaps: &mut Gaps) {
    if config.diff_ids.len() != view.layers.len() {
        let (claimed, found) = (config.diff_ids.len(), view.layers.len());
        let detail = format!("the config names {claimed} layers, the manifest {found}");
        gaps.add(Gap::new(
            GapCode::LayerCountMismatch,
            Hides::Entries,
            detail,
        ));
    }
    for (layer, claimed) in view.layers.iter().zip(&config.diff_ids) {
        if let Some(diff_id) = layer.entries.diff_id.filter(|diff_id| diff_id != claimed) {
            let detail = format!("the config claims {claimed}, the layer has {diff_id}");
            let gap = Gap::new(GapCode::DiffidMismatch, Hides::Entries, detail);
            gaps.add(gap.in_layer(layer.blob));
        }
    }
    for (layer, claimed) in view.layers.iter().zip(&subject.layer_sizes) {
        let found = layer.entries.compressed_bytes;
        // Where the diffID is known the blob was read to its end.
        if layer.entries.diff_id.is_some() && found != *claimed {
            let detail = format!("the blob has {found} bytes, the manifest says {claimed}");
            let gap = Gap::new(GapCode::SizeMismatch, Hides::Entries, detail);
            gaps.add(gap.in_layer(layer.blob));
        }
    }
}

/// Records of packages that are there and were not read: reached by a link to a file with another
/// name.
fn of_records(view: &View<'_>, gaps: &mut Gaps) {
    for (place, is_read) in RECORDS {
        if let Some(node) = view.tree.find(place)
            && let Some(gap) = unread(view, place, node, *is_read)
        {
            gaps.add(gap);
        }
    }
    if let Some(Node::Directory(children)) = view.tree.find(RECORD_DIRECTORY) {
        for name in children.keys() {
            let place = format!("{RECORD_DIRECTORY}/{name}");
            let is_list = name.ends_with(".md5sums");
            if let Some(node) = view.tree.find(&place).filter(|_| !is_list)
                && let Some(gap) = unread(view, &place, node, dpkg::is_database)
            {
                gaps.add(gap);
            }
        }
    }
}

/// Links that runtimes and package managers follow, and we did not.
fn of_links(view: &View<'_>, gaps: &mut Gaps) {
    if let Some((count, first)) = &view.unread_links {
        let target = view.entry(first.origin).map_or("", |entry| entry.path);
        let detail = format!(
            "{count} records of packages are links to files that were not read as such, this one \
             to `{target}`"
        );
        let gap = Gap::new(GapCode::UnsupportedMediaType, Hides::Packages, detail);
        let gap = gap.at(&first.path);
        match view.layers.get(first.origin.layer) {
            Some(layer) => gaps.add(gap.in_layer(layer.blob)),
            None => gaps.add(gap),
        }
    }
    for (number, (count, first)) in &view.tree.through_links {
        let detail = format!(
            "{count} entries replace a file through a link of a lower layer, this one first; some \
             runtimes replace the link instead"
        );
        let gap = Gap::new(GapCode::UnsafePath, Hides::Entries, detail).at(*first);
        if let Some(layer) = view.layers.get(*number) {
            gaps.add(gap.in_layer(layer.blob));
        }
    }
}

/// What was too much for the image's limits.
fn of_limits(view: &View<'_>, limits: &Limits, gaps: &mut Gaps) {
    for layer in view.cut.iter().filter_map(|at| view.layers.get(*at)) {
        let detail = format!(
            "the image's layers have more than {} entries or {} bytes of names together; this one \
             was left out or cut",
            limits.image_entries_max, limits.image_name_bytes_max
        );
        let gap = Gap::new(GapCode::LimitEntries, Hides::Entries, detail);
        gaps.add(gap.in_layer(layer.blob));
    }
    if view.tree.budget.is_exhausted() {
        let detail = format!(
            "putting the layers together takes more than {} steps",
            limits.image_steps_max
        );
        gaps.add(Gap::new(GapCode::LimitEntries, Hides::Entries, detail));
    }
    if view.has_long_paths {
        let detail = "links make paths too long to be looked at";
        gaps.add(Gap::new(GapCode::LimitPath, Hides::Entries, detail));
    }
}

fn unread(view: &View<'_>, place: &str, node: &Node<'_>, is_read: Reads) -> Option<Gap> {
    let Node::Leaf(origin) = node else {
        return None;
    };
    let entry = view.entry(*origin)?;
    if entry.kind == EntryKind::File && is_read(entry.path) {
        return None;
    }
    let detail = format!(
        "these records of packages are a link to `{}`, which was not read as such",
        entry.path
    );
    let code = GapCode::UnsupportedMediaType;
    let layer = view.layers.get(origin.layer)?.blob;
    Some(
        Gap::new(code, Hides::Packages, detail)
            .at(place)
            .in_layer(layer),
    )
}
