//! Who needs whom, and which operating system package brought a language's package.

use std::collections::{HashMap, HashSet};

use model::{Owned, PackageId, PackageType};

use super::{
    outline::{hash, last},
    packages::Installed,
    purl::normalized,
    tree::Origin,
    view::View,
};

/// Fills `depends_on` and `owned_by`, as far as the other package is there.
pub(super) fn resolve(view: &View<'_>, installed: &mut [Installed<'_>]) {
    let names = Names::new(installed);
    let owners = owners(view, installed);
    let mut related = Vec::with_capacity(installed.len());
    for one in installed.iter() {
        let needed = one
            .found
            .depends_on
            .iter()
            .filter_map(|name| names.find(name, one));
        let mut needed: Vec<PackageId> = needed.filter(|id| *id != one.package.id).collect();
        needed.sort();
        needed.dedup();
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
struct Names {
    by_name: HashMap<(PackageType, String), Vec<Candidate>>,
    by_directory: HashMap<String, PackageId>,
}

struct Candidate {
    id: PackageId,
    arch: Option<String>,
    /// The directory above the package's own.
    site: String,
}

// === impl Names ===

impl Names {
    fn new(installed: &[Installed<'_>]) -> Self {
        let mut names = Self {
            by_name: HashMap::new(),
            by_directory: HashMap::new(),
        };
        for Installed { package, .. } in installed {
            let directory = package
                .path
                .rsplit_once('/')
                .map_or("", |(directory, _)| directory);
            if package.kind == PackageType::Npm {
                names
                    .by_directory
                    .insert(directory.to_owned(), package.id.clone());
            }
            let key = (package.kind, key(package.kind, &package.name));
            names.by_name.entry(key).or_default().push(Candidate {
                id: package.id.clone(),
                arch: package.arch.clone(),
                site: site(directory).to_owned(),
            });
        }
        names
    }

    /// The package that `one` means by this name.
    fn find(&self, name: &str, one: &Installed<'_>) -> Option<PackageId> {
        let package = &one.package;
        let directory = package
            .path
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory);
        if package.kind == PackageType::Npm {
            return self.find_upwards(name, directory);
        }
        let all = self.by_name.get(&(package.kind, key(package.kind, name)))?;
        let is_close = |candidate: &&Candidate| match package.kind {
            PackageType::Pypi => candidate.site == site(directory),
            _ => candidate.arch == package.arch,
        };
        all.iter()
            .find(is_close)
            .or(all.first())
            .map(|candidate| candidate.id.clone())
    }

    /// In `node_modules` of the package, or of a directory above it.
    fn find_upwards(&self, name: &str, mut directory: &str) -> Option<PackageId> {
        loop {
            let place = if directory.is_empty() {
                format!("node_modules/{name}")
            } else {
                format!("{directory}/node_modules/{name}")
            };
            if let Some(id) = self.by_directory.get(&place) {
                return Some(id.clone());
            }
            if directory.is_empty() {
                return None;
            }
            directory = directory.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
}

fn key(kind: PackageType, name: &str) -> String {
    if kind == PackageType::Pypi {
        normalized(name)
    } else {
        name.to_owned()
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
    let mut systems: HashMap<&str, Vec<&Installed<'_>>> = HashMap::new();
    for one in installed.iter().filter(|one| one.package.kind.is_os()) {
        systems.entry(&one.package.name).or_default().push(one);
    }
    let mut owners = HashMap::new();
    let mut known = HashSet::new();
    // A package's files are listed anew when it changes: the uppermost list counts.
    for layer in view.prepared.iter().rev() {
        let named = wanted_names
            .iter()
            .flat_map(|name| layer.outline.owned(hash(name)));
        let mut named: Vec<_> = named.collect();
        named.sort_unstable();
        let owned = named
            .into_iter()
            .filter_map(|(section, number)| layer.owned(section, number));
        for owned in owned {
            if known.contains(&owner(owned)) || !wanted_names.contains(last(&owned.path)) {
                continue;
            }
            let Some(all) = systems.get(owned.package.as_str()) else {
                continue;
            };
            let is_it =
                |one: &&&Installed<'_>| one.package.arch.as_deref() == owned.arch.as_deref();
            let Some(system) = all.iter().find(is_it).or(all.first()) else {
                continue;
            };
            let path = real_path(view, &owned.path);
            if wanted.contains(path.as_str()) {
                owners
                    .entry(path)
                    .or_insert_with(|| system.package.id.clone());
            }
        }
        let firsts = layer.outline.owners().iter();
        let firsts = firsts.filter_map(|(section, number)| layer.owned(*section, *number));
        known.extend(firsts.map(owner));
    }
    owners
}

/// Which package a list of files is of.
fn owner(owned: &Owned) -> (&str, Option<&str>) {
    (owned.package.as_str(), owned.arch.as_deref())
}

/// Where the file at a path is seen, by whatever links the path leads there.
fn real_path(view: &View<'_>, path: &str) -> String {
    let origin: Option<Origin> = view.find(path);
    origin
        .and_then(|origin| view.path(origin))
        .unwrap_or(path)
        .to_owned()
}
