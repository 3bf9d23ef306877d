//! Layers on top of each other: what a container of the image would see.
//!
//! The layers' entries are laid over each other as a runtime unpacks them (module `tree`): what
//! layers removed, replaced and linked is known then, and each visible file leads back to the
//! entry that its content came from. Packages exist while the file that proves them is visible,
//! and a package manager's records count where the package manager itself would find them, by
//! whatever links. A package's layer is the one from which on the records list it without
//! interruption. Entries that a layer writes through a link of a lower layer go where the link leads,
//! as with a merged `/usr`; a whiteout never does, for runtimes unpack a layer by itself. Secrets and
//! malware of deleted files stay: they are still in the image.
//!
//! Of all entries only those are looked at that can matter (module `outline`), for the same layers
//! are laid over each other again for every image that has them. Whether a layer fits into an image's
//! limits is decided by the size of the whole layer, which is counted when it is prepared; steps are
//! counted as they are made.

mod budget;
mod directories;
mod findings;
mod gaps;
mod index;
mod outline;
mod packages;
mod packed;
mod prepared;
mod purl;
mod relations;
mod tampered;
#[cfg(test)]
mod tests;
mod tree;
mod view;

use archive::Limits;
use foldhash::quality::RandomState;
use model::{
    Digest, EntryKind, Findings, ImageConfig, ImageReport, LayerReport, Os, Platform, Target,
    TargetLayer,
};

pub(crate) use self::purl::{distro, normalized};
pub use self::{
    packed::{EntryList, EntryRef},
    prepared::{KeptEntries, KeptSection, PreparedLayer},
};
use self::{tampered::Suspects, view::View};
use crate::{licenses, os_release};

/// A map that many short texts are looked up in: seeded anew in each process, and cheaper than the
/// standard library's.
type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// The like set.
type HashSet<T> = std::collections::HashSet<T, RandomState>;

/// What is scanned, beside the layers' content and the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The image: its manifest's digest, or that of the manifest written for it.
    pub image: Digest,
    /// What the user asked for.
    pub reference: String,
    /// The index that led here.
    pub index_digest: Option<Digest>,
    /// The registry manifest; `None` for targets without one.
    pub manifest_digest: Option<Digest>,
    /// The config's digest.
    pub image_id: Digest,
    /// The platform: what the config says, else what the index says.
    pub platform: Platform,
    /// Bytes of each layer's blob, as the manifest says, base layer first.
    pub layer_sizes: Vec<u64>,
}

/// Makes an image's report of its layers' reports, base layer first.
///
/// It is a pure function: the same arguments give the same report, in the same order. What the
/// layers cost together is bounded by the `image_*` of the limits; what is beyond is a gap.
pub fn coalesce(
    layers: &[LayerReport],
    config: &ImageConfig,
    subject: Subject,
    limits: &Limits,
) -> ImageReport {
    let mut prepared = HashMap::default();
    for layer in layers {
        let known = prepared.entry(layer.blob);
        known.or_insert_with(|| PreparedLayer::new(layer.clone()));
    }
    let prepared = layers.iter().filter_map(|layer| prepared.get(&layer.blob));
    let prepared: Vec<_> = prepared.collect();
    coalesce_prepared(&prepared, config, subject, limits)
}

/// [`coalesce`] of layers that were prepared once and are used for many images.
pub fn coalesce_prepared(
    layers: &[&PreparedLayer],
    config: &ImageConfig,
    subject: Subject,
    limits: &Limits,
) -> ImageReport {
    let suspects = Suspects::new(layers, limits);
    let mut candidates = view::candidates(layers);
    candidates.extend(suspects.places());
    let view = View::new(layers, &candidates, limits);
    let mut report = report(&view, config, subject, limits);
    report.findings.tampered = suspects.tampered(&view, &report.packages);
    report.gaps.extend(suspects.gap());
    report.gaps.sort();
    packages::drop_guesses(&mut report.packages, &report.findings.tampered);
    report.findings.licenses = licenses::describe(layers, &mut report.packages);
    report
}

fn report(view: &View<'_>, config: &ImageConfig, subject: Subject, limits: &Limits) -> ImageReport {
    let layers = view.layers;
    let instructions = instructions(config, layers.len());
    let os = os(view);
    let target_layers = layers.iter().enumerate().map(|(at, layer)| TargetLayer {
        digest: layer.blob,
        diff_id: layer.entries.diff_id,
        size: subject
            .layer_sizes
            .get(at)
            .copied()
            .unwrap_or(layer.entries.compressed_bytes),
        created_by: instructions.get(at).cloned(),
    });
    let target_layers: Vec<_> = target_layers.collect();
    let mut analyzers = Vec::new();
    for section in layers.iter().flat_map(|layer| &layer.sections) {
        if !analyzers.contains(&section.analyzer) {
            analyzers.push(section.analyzer.clone());
        }
    }
    let listed = packages::listed(view);
    let packages_max = limits.image_packages_max;
    let (packages, packages_gap) = packages::collect(view, os.as_ref(), &listed, packages_max);
    let (removed, removed_gap) = packages::removed(view, os.as_ref(), &listed);
    let findings = Findings {
        removed,
        ..findings::collect(view, &instructions)
    };
    // Last: by then it is known whether the limits sufficed.
    let mut gaps = gaps::collect(view, config, &subject, limits);
    gaps.extend(packages_gap.into_iter().chain(removed_gap));
    ImageReport {
        image: subject.image,
        analyzers,
        packages,
        findings,
        gaps,
        target: Target {
            reference: subject.reference,
            index_digest: subject.index_digest,
            manifest_digest: subject.manifest_digest,
            image_id: subject.image_id,
            platform: subject.platform,
            created: config.created,
            os,
            layers: target_layers,
            config: config.runtime.clone(),
        },
    }
}

/// The instruction of each layer; empty where the history does not fit the layers.
fn instructions(config: &ImageConfig, layers: usize) -> Vec<String> {
    let steps = config.history.iter().filter(|step| !step.empty_layer);
    let steps: Vec<String> = steps.map(|step| step.created_by.clone()).collect();
    if steps.len() == layers {
        steps
    } else {
        Vec::new()
    }
}

/// The operating system, from the first place where a container would find one.
fn os(view: &View<'_>) -> Option<Os> {
    let found = os_release::places().find_map(|place| {
        let origin = view.seen_at(place)?;
        let entry = view
            .entry(origin)
            .filter(|entry| entry.kind == EntryKind::File)?;
        let layer = view.layers.get(origin.layer)?;
        let mut all = layer.sections.iter().flat_map(|section| &section.os);
        all.rfind(|os| os.path == entry.path)
    })?;
    Some(Os {
        id: found.id.clone(),
        version_id: found.version_id.clone(),
        eol: None,
        pretty_name: found.pretty_name.clone(),
        codename: found.codename.clone(),
    })
}
