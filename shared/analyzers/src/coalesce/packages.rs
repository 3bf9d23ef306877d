//! Packages of the image: which of those that layers tell of are there, and since when.

use std::collections::BTreeMap;

use model::{
    Confidence, Digest, FoundPackage, Gap, GapCode, Hides, Os, Package, PackageId, PackageType,
    Purl, RemovedPackage, Tampered,
};

use super::{
    HashMap, HashSet,
    purl::{distro, normalized, purl},
    relations,
    tree::Origin,
    view::{View, places},
};
use crate::sbom;

/// What makes a package the same one in two versions of a file.
type Identity<'a> = (PackageType, &'a str, &'a str, Option<&'a str>);

/// A package that is there, with what its layer says of it.
pub(super) struct Installed<'a> {
    /// As found.
    pub(super) found: &'a FoundPackage,
    /// As reported.
    pub(super) package: Package,
}

/// Removed packages that are listed: those of an image that was upgraded as a whole, thrice.
const REMOVED_MAX: usize = 10_000;

/// The packages that a container would see, sorted, and the gap of those that are too many.
pub(super) fn collect(
    view: &View<'_>,
    os: Option<&Os>,
    listed: &Listed<'_>,
    packages_max: usize,
) -> (Vec<Package>, Option<Gap>) {
    let mut installed: Vec<Installed<'_>> = Vec::new();
    'layers: for (number, layer) in view.layers.iter().enumerate() {
        if !view.shows(number) {
            continue;
        }
        let counts = layer.sections.iter().map(|section| section.packages.len());
        installed.reserve(counts.fold(0, usize::saturating_add));
        let purls = layer.purls.of(layer, os);
        let mut purls = purls.unwrap_or_default().iter();
        for found in layer.sections.iter().flat_map(|section| &section.packages) {
            let known = purls.next();
            if !view.tree.budget.step(1) {
                break;
            }
            let Some(origin) = view.origin(number, &found.path) else {
                continue;
            };
            let Some((path, since)) = presence(view, origin, found, listed) else {
                continue;
            };
            let Some(layer) = view.layers.get(since) else {
                continue;
            };
            let purl = known.map_or_else(|| purl(found, os), Purl::clone);
            let package = report(found, path, (layer.blob, purl), os);
            installed.push(Installed { found, package });
            // Layers say again what lower ones said.
            if installed.len() > packages_max.saturating_mul(2) {
                sort(&mut installed);
                if installed.len() > packages_max {
                    break 'layers;
                }
            }
        }
    }
    sort(&mut installed);
    let detail = format!("the image has more than {packages_max} packages");
    let gap = (installed.len() > packages_max)
        .then(|| Gap::new(GapCode::LimitResults, Hides::Packages, detail));
    installed.truncate(packages_max);
    drop_told(&mut installed);
    relations::resolve(view, &mut installed);
    let packages = installed.into_iter().map(|installed| installed.package);
    (packages.collect(), gap)
}

/// Sorts packages, each once.
fn sort(installed: &mut Vec<Installed<'_>>) {
    // The sort is stable: of two that are the same, the one of the lower layer stays.
    installed.sort_by(|one, other| key(one).cmp(&key(other)));
    installed.dedup_by(|one, before| key(one) == key(before));
}

/// The order of packages, and what makes two of them one.
fn key<'a>(installed: &'a Installed<'_>) -> (Identity<'a>, &'a PackageId) {
    (identity(installed.found), &installed.package.id)
}

/// The packages that layers brought and later ones removed or replaced, sorted by kind and name, and
/// the gap of those that are too many.
pub(super) fn removed(
    view: &View<'_>,
    os: Option<&Os>,
    listed: &Listed<'_>,
) -> (Vec<RemovedPackage>, Option<Gap>) {
    let mut removed = BTreeMap::new();
    let mut known = HashSet::default();
    for (number, layer) in view.layers.iter().enumerate() {
        if !known.insert(layer.blob) {
            continue;
        }
        let packages = layer.sections.iter().flat_map(|section| &section.packages);
        // A guess may be at a file of another package, which says it better.
        for found in packages.filter(|found| found.confidence != Confidence::Low) {
            if !view.tree.budget.step(1) {
                break;
            }
            let origin = view.origin(number, &found.path);
            let by = origin.and_then(|origin| removal(view, origin, found, listed));
            let Some(by) = by.and_then(|by| view.layers.get(by)) else {
                continue;
            };
            let key = (found.kind, id(found, &found.path));
            removed.entry(key).or_insert_with(|| RemovedPackage {
                kind: found.kind,
                name: found.name.clone(),
                version: found.version.clone(),
                purl: purl(found, os),
                path: found.path.clone(),
                layer: layer.blob,
                removed_by: by.blob,
            });
        }
    }
    let more = removed.len().saturating_sub(REMOVED_MAX);
    let detail = format!("more than {REMOVED_MAX} packages were removed: {more} are not listed");
    let gap = (more > 0).then(|| Gap::new(GapCode::LimitResults, Hides::Nothing, detail));
    (removed.into_values().take(REMOVED_MAX).collect(), gap)
}

/// The layer from which on a package that was there is not: where the last of the files at its
/// place that lists it was replaced or removed.
fn removal(
    view: &View<'_>,
    origin: Origin,
    found: &FoundPackage,
    listed: &Listed<'_>,
) -> Option<usize> {
    let is_elsewhere = !found.kind.is_os() && view.path(origin).is_some();
    if is_elsewhere {
        return None;
    }
    places(found).find_map(|place| {
        if !view.past(&place).any(|(_, file)| file == Some(origin)) {
            return None;
        }
        let mut gone = None;
        for (layer, file) in view.past(&place) {
            let is_listed =
                file.is_some_and(|file| file == origin || lists(view, file, found, listed));
            if is_listed || !view.tree.budget.step(1) {
                break;
            }
            gone = Some(layer);
        }
        gone
    })
}

/// Whether a file lists a package.
fn lists(view: &View<'_>, file: Origin, found: &FoundPackage, listed: &Listed<'_>) -> bool {
    let layer = view.layers.get(file.layer);
    let all = layer.and_then(|layer| listed.get(&(layer.blob, file.entry)));
    all.is_some_and(|all| all.contains(&identity(found)))
}

/// Leaves out what is only guessed of files that packages own: their package says it better. What
/// is guessed of a file that is not as its package made it stays. Of the files of one installation,
/// a program and its library, the first is enough.
pub(super) fn drop_guesses(packages: &mut Vec<Package>, tampered: &[Tampered]) {
    let changed: HashSet<&str> = tampered.iter().map(|one| one.path.as_str()).collect();
    let is_guess = |package: &Package| {
        package.kind == PackageType::Generic && package.confidence == Confidence::Low
    };
    packages.retain(|package| {
        let is_owned = package.owned_by.is_some() && !changed.contains(package.path.as_str());
        !is_guess(package) || !is_owned
    });
    let mut known = HashSet::default();
    packages.retain(|package| {
        let place = installation(&package.path).to_owned();
        let one = (package.name.clone(), package.version.clone(), place);
        !is_guess(package) || known.insert(one)
    });
}

/// The directory above the one for programs or libraries.
fn installation(path: &str) -> &str {
    let mut directory = path;
    while let Some((above, name)) = directory.rsplit_once('/') {
        let is_file = directory.len() == path.len();
        if !is_file && (matches!(name, "bin" | "sbin") || name.starts_with("lib")) {
            return above;
        }
        directory = above;
    }
    path
}

/// Leaves out what a bill of materials in the image tells of, where the package's own records are
/// there as well.
fn drop_told(installed: &mut Vec<Installed<'_>>) {
    let is_told = |one: &Installed<'_>| sbom::is_document(&one.found.path);
    if !installed.iter().any(is_told) {
        return;
    }
    let same = |found: &FoundPackage| {
        // Metadata and bills of materials write a Python package's name as they like.
        let name = match found.kind {
            PackageType::Pypi => normalized(&found.name),
            _ => found.name.clone(),
        };
        (found.kind, name, found.version.clone())
    };
    let proven = installed.iter().filter(|one| !is_told(one));
    let proven: HashSet<_> = proven.map(|one| same(one.found)).collect();
    installed.retain(|one| !is_told(one) || !proven.contains(&same(one.found)));
}

fn identity(found: &FoundPackage) -> Identity<'_> {
    (
        found.kind,
        &found.name,
        &found.version,
        found.arch.as_deref(),
    )
}

/// Which packages each file lists, by blob and entry: the same layer twice has the same files.
pub(super) type Listed<'a> = HashMap<(Digest, usize), HashSet<Identity<'a>>>;

pub(super) fn listed<'a>(view: &View<'a>) -> Listed<'a> {
    let mut listed = Listed::default();
    let mut known = HashSet::default();
    for (number, layer) in view.layers.iter().enumerate() {
        if !known.insert(layer.blob) {
            continue;
        }
        for found in layer.sections.iter().flat_map(|section| &section.packages) {
            if let Some(origin) = view.origin(number, &found.path) {
                let of_file = listed.entry((layer.blob, origin.entry)).or_default();
                of_file.insert(identity(found));
            }
        }
    }
    listed
}

/// Where the package's file is seen, and the layer since which it lists the package.
fn presence<'v>(
    view: &'v View<'v>,
    origin: Origin,
    found: &'v FoundPackage,
    listed: &Listed<'_>,
) -> Option<(&'v str, usize)> {
    let path = view.path_of(origin, &found.path)?;
    let place = places(found).find(|place| view.seen_at(place) == Some(origin));
    let Some(place) = place else {
        // Nobody's records, but a file that can be reached by another name.
        return (!found.kind.is_os()).then_some((path, origin.layer));
    };
    let mut since = origin.layer;
    for (layer, file) in view.past(&place) {
        let is_listed = file.is_some_and(|file| file == origin || lists(view, file, found, listed));
        if !view.tree.budget.step(1) || !is_listed {
            break;
        }
        since = layer;
    }
    Some((path, since))
}

fn report(
    found: &FoundPackage,
    path: &str,
    (layer, purl): (Digest, Purl),
    os: Option<&Os>,
) -> Package {
    let distro = if found.kind.is_os() { distro(os) } else { None };
    Package {
        id: id(found, path),
        kind: found.kind,
        name: found.name.clone(),
        version: found.version.clone(),
        purl,
        path: path.to_owned(),
        within: found.within.clone(),
        layer,
        arch: found.arch.clone(),
        distro,
        source_name: found.source_name.clone(),
        source_version: found.source_version.clone(),
        vendor: found.vendor.clone(),
        modularity: found.modularity.clone(),
        licenses: found.licenses.clone(),
        depends_on: Vec::new(),
        digests: found.digests.clone(),
        owned_by: None,
        direct: found.direct,
        dev: found.dev,
        confidence: found.confidence,
    }
}

/// `deb:openssl@3.0.11-1~deb12u2/amd64`; of a language's package the place belongs to the id, for
/// the same version may be installed in several.
fn id(found: &FoundPackage, path: &str) -> PackageId {
    let FoundPackage {
        kind,
        name,
        version,
        arch,
        ..
    } = found;
    let mut text = [kind.as_str(), ":", name, "@", version].concat();
    let rest = match (arch, &found.within) {
        (Some(arch), _) if kind.is_os() => ["/", arch, "", ""],
        (None, _) if kind.is_os() => [""; 4],
        (_, Some(within)) => ["#", path, "!/", within],
        (_, None) => ["#", path, "", ""],
    };
    text.extend(rest);
    PackageId(text)
}
