//! What needs what. Everything is reached from the image, so that a reader's tree shows it.

use std::collections::{HashMap, HashSet};

use model::{Package, PackageId, Report};

use super::{components::Refs, document::Dependency};

/// The index needs its images.
pub(super) fn of_index(platforms: Vec<String>) -> Dependency {
    Dependency {
        from: "index".to_owned(),
        depends_on: platforms,
    }
}

/// The image, its operating system and every package.
pub(super) fn of(report: &Report, refs: &Refs) -> Vec<Dependency> {
    let graph = Graph::new(&report.packages);
    let os = report.target.os.as_ref().map(|_| refs.os());
    let tops = graph.tops().into_iter().map(|id| refs.package(id));
    let mut all = vec![Dependency {
        from: refs.image(),
        depends_on: os.iter().cloned().chain(tops).collect(),
    }];
    all.extend(os.map(|from| Dependency {
        from,
        depends_on: Vec::new(),
    }));
    all.extend(report.packages.iter().map(|package| {
        Dependency {
            from: refs.package(&package.id),
            depends_on: graph
                .needs(package)
                .into_iter()
                .map(|id| refs.package(id))
                .collect(),
        }
    }));
    all
}

struct Graph<'a> {
    packages: &'a [Package],
    by_id: HashMap<&'a PackageId, &'a Package>,
}

impl<'a> Graph<'a> {
    fn new(packages: &'a [Package]) -> Self {
        let by_id = packages.iter().map(|package| (&package.id, package));
        Self {
            packages,
            by_id: by_id.collect(),
        }
    }

    /// What a package needs and the image has, each once.
    fn needs(&self, package: &'a Package) -> Vec<&'a PackageId> {
        let mut seen = HashSet::from([&package.id]);
        let needs = package.depends_on.iter();
        needs
            .filter(|id| self.by_id.contains_key(id) && seen.insert(id))
            .collect()
    }

    /// The packages that nothing else needs, and of each circle that cannot be reached from these
    /// the first one.
    fn tops(&self) -> Vec<&'a PackageId> {
        let needed: HashSet<&PackageId> = self
            .packages
            .iter()
            .flat_map(|package| self.needs(package))
            .collect();
        let (inner, mut tops): (Vec<_>, Vec<_>) = self
            .packages
            .iter()
            .map(|package| &package.id)
            .partition(|id| needed.contains(id));
        let mut reached = HashSet::new();
        for top in tops.clone() {
            self.reach(top, &mut reached);
        }
        for id in inner {
            if !reached.contains(id) {
                tops.push(id);
                self.reach(id, &mut reached);
            }
        }
        tops
    }

    fn reach(&self, from: &'a PackageId, reached: &mut HashSet<&'a PackageId>) {
        let mut due = vec![from];
        while let Some(id) = due.pop() {
            let Some(package) = self.by_id.get(id) else {
                continue;
            };
            if reached.insert(id) {
                due.extend(self.needs(package));
            }
        }
    }
}
