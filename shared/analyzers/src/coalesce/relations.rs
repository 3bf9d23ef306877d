//! Who needs whom, and which operating system package brought a language's package.

use std::borrow::Cow;

use model::{Package, PackageId, PackageType};

use super::{
    HashMap, HashSet,
    outline::{hash, last},
    packages::Installed,
    packed::OwnedRef,
    prepared::PreparedLayer,
    purl::normalized,
    tree::Origin,
    view::View,
};
use crate::{lock, npm};

/// Fills `depends_on` and `owned_by`, as far as the other package is there.
pub(super) fn resolve(view: &View<'_>, installed: &mut [Installed<'_>]) {
    let names = Names::new(view, installed);
    let owners = owners(view, installed);
    let mut related = Vec::with_capacity(installed.len());
    for one in installed.iter() {
        let needed = one
            .found
            .depends_on
            .iter()
            .filter_map(|name| names.find(name, one));
        let mut needed: Vec<&PackageId> = needed.filter(|id| **id != one.package.id).collect();
        needed.sort_unstable();
        needed.dedup();
        let needed: Vec<PackageId> = needed.into_iter().cloned().collect();
        related.push((needed, owners.get(&one.package.path).cloned()));
    }
    for (one, (needed, owner)) in installed.iter_mut().zip(related) {
        one.package.depends_on = needed;
        if !one.package.kind.is_os() {
            one.package.owned_by = owner;
        }
    }
}

/// Packages by name; npm's by the place where Node.js would look.
struct Names<'a> {
    view: &'a View<'a>,
    /// By name and nearness: architecture, or the directory above the package's own.
    near: HashMap<(PackageType, Cow<'a, str>, Option<&'a str>), &'a PackageId>,
    /// The first of each name.
    any: HashMap<(PackageType, Cow<'a, str>), &'a PackageId>,
    by_directory: HashMap<&'a str, &'a PackageId>,
    /// By file and `name@version`: of lock files, which name exactly what is needed.
    exact: HashMap<(&'a str, Cow<'a, str>), &'a PackageId>,
    /// Names of directories among them: what is none is looked for nowhere.
    folders: HashSet<&'a str>,
}

// === impl Names ===

impl<'a> Names<'a> {
    fn new(view: &'a View<'a>, installed: &'a [Installed<'_>]) -> Self {
        let mut names = Self {
            view,
            near: HashMap::default(),
            any: HashMap::default(),
            by_directory: HashMap::default(),
            exact: HashMap::default(),
            folders: HashSet::default(),
        };
        for Installed { package, found } in installed {
            if is_locked(package) {
                let exactly = lock::exactly(&found.name, &found.version);
                let key = (package.path.as_str(), Cow::from(exactly));
                names.exact.insert(key, &package.id);
                continue;
            }
            let directory = directory(&package.path);
            if package.kind == PackageType::Npm {
                names.folders.insert(npm::required_as(directory));
                names.by_directory.insert(directory, &package.id);
                continue;
            }
            let key = key(package.kind, &package.name);
            let near = (package.kind, key.clone(), nearness(package));
            names.near.entry(near).or_insert(&package.id);
            let any = (package.kind, key);
            names.any.entry(any).or_insert(&package.id);
        }
        names
    }

    /// The package that `one` means by this name.
    fn find<'n>(&'n self, name: &'n str, one: &'n Installed<'_>) -> Option<&'n PackageId> {
        let package = &one.package;
        if !self.view.tree.budget.step(1) {
            return None;
        }
        if is_locked(package) {
            let key = (package.path.as_str(), Cow::from(name));
            return self.exact.get(&key).copied();
        }
        if package.kind == PackageType::Npm {
            return self.find_upwards(name, directory(&package.path));
        }
        let key = key(package.kind, name);
        let near = (package.kind, key, nearness(package));
        let (kind, key, _) = &near;
        let any = || self.any.get(&(*kind, key.clone()));
        self.near.get(&near).or_else(any).copied()
    }

    /// In `node_modules` of the package, or of a directory above it.
    fn find_upwards(&self, name: &str, mut directory: &str) -> Option<&PackageId> {
        /// Bytes of a path that are looked up in one step.
        const STEP_BYTES: usize = 64;
        if !self.folders.contains(name) {
            return None;
        }
        let mut place = String::new();
        loop {
            if !self
                .view
                .tree
                .budget
                .step((directory.len() / STEP_BYTES).saturating_add(1))
            {
                return None;
            }
            place.clear();
            if !directory.is_empty() {
                place.extend([directory, "/"]);
            }
            place.extend(["node_modules/", name]);
            if let Some(id) = self.by_directory.get(place.as_str()) {
                return Some(id);
            }
            if directory.is_empty() {
                let mut others = npm::debians(name);
                return others.find_map(|place| self.by_directory.get(place.as_str()).copied());
            }
            directory = directory.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
}

/// Whether it is told of by a lock file.
fn is_locked(package: &Package) -> bool {
    !package.kind.is_os() && lock::is_lock_file(&package.path)
}

/// Which of several packages of one name is meant by another: that of the same architecture, or
/// beside it.
fn nearness(package: &Package) -> Option<&str> {
    match package.kind {
        PackageType::Pypi => Some(site(directory(&package.path))),
        _ => package.arch.as_deref(),
    }
}

fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

fn key(kind: PackageType, name: &str) -> Cow<'_, str> {
    if kind == PackageType::Pypi {
        normalized(name).into()
    } else {
        name.into()
    }
}

fn site(directory: &str) -> &str {
    directory.rsplit_once('/').map_or("", |(site, _)| site)
}

/// Operating system packages by the files of theirs that prove other packages.
fn owners(view: &View<'_>, installed: &[Installed<'_>]) -> HashMap<String, PackageId> {
    let languages = installed.iter().filter(|one| !one.package.kind.is_os());
    let wanted: HashSet<&str> = languages.map(|one| one.package.path.as_str()).collect();
    let wanted_names: HashSet<&str> = wanted.iter().map(|path| last(path)).collect();
    let (mut systems, mut any_arch) = (HashMap::default(), HashMap::default());
    for one in installed.iter().filter(|one| one.package.kind.is_os()) {
        let package = &one.package;
        let name = package.name.as_str();
        let key = (name, package.arch.as_deref());
        systems.entry(key).or_insert(&package.id);
        any_arch.entry(name).or_insert(&package.id);
    }
    let mut owners = HashMap::default();
    let mut known = HashSet::default();
    // A package's files are listed anew when it changes: the uppermost list counts.
    let mut blobs = HashSet::default();
    let layers = view.layers.iter().rev();
    for layer in layers.filter(|layer| blobs.insert(layer.blob)) {
        for owned in owned_of(view, layer, &wanted_names) {
            let owner = owner(&owned);
            if !view.tree.budget.step(1) {
                return owners;
            }
            if known.contains(&owner) || !wanted_names.contains(last(owned.path)) {
                continue;
            }
            let system = systems.get(&owner).or_else(|| any_arch.get(owner.0));
            let Some(system) = system else {
                continue;
            };
            let path = real_path(view, owned.path);
            if wanted.contains(path.as_str()) {
                owners
                    .entry(path)
                    .or_insert_with(|| PackageId::clone(system));
            }
        }
        for first in layer.owners() {
            if !view.tree.budget.step(1) {
                return owners;
            }
            known.insert(owner(&first));
        }
    }
    owners
}

/// The files with one of these names that packages of a layer own, in the layer's order.
fn owned_of<'a>(
    view: &View<'a>,
    layer: &'a PreparedLayer,
    names: &HashSet<&str>,
) -> impl Iterator<Item = OwnedRef<'a>> {
    let mut numbers = Vec::new();
    if layer.owns_any() && view.tree.budget.step(names.len()) {
        let of_names = names.iter().flat_map(|name| layer.owned_named(hash(name)));
        numbers.extend(of_names);
        numbers.sort_unstable();
    }
    let numbers = numbers.into_iter();
    numbers.filter_map(|(section, number)| layer.owned(section, number))
}

/// Which package a list of files is of.
fn owner<'a>(owned: &OwnedRef<'a>) -> (&'a str, Option<&'a str>) {
    (owned.package, owned.arch)
}

/// Where the file at a path is seen, by whatever links the path leads there.
fn real_path(view: &View<'_>, path: &str) -> String {
    let origin: Option<Origin> = view.find(path);
    origin
        .and_then(|origin| view.path(origin))
        .unwrap_or(path)
        .to_owned()
}
