//! What was found for packages before. Images of a fleet share most of their packages, and comparing
//! a package with all its advisories costs many times what looking up the result does.
//!
//! A result is that of a package wherever it lies: images that were built again have the same
//! packages in other layers. Who takes a result puts its own place into it.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use model::{Confidence, Gap, Package, PackageType, Vulnerability};

use crate::{ecosystems::Query, shard::Shard};

/// How many packages one generation holds.
const PACKAGES_MAX: usize = 16_384;
/// How many findings they may have.
const FINDINGS_MAX: usize = 65_536;

/// Results by package, for as long as the very same shards are asked. It is bounded: in two
/// generations, of which the older one is dropped when the younger one is full.
#[derive(Default)]
pub struct Memo {
    hasher: RandomState,
    generations: Mutex<Generations>,
}

/// What is found for one package.
#[derive(Debug, Default)]
pub(crate) struct Matched {
    pub(crate) vulnerabilities: Vec<Vulnerability>,
    /// Versions that cannot be compared.
    pub(crate) undecided: Vec<Gap>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<u64, Arc<Entry>>,
    young_findings: usize,
    old: HashMap<u64, Arc<Entry>>,
}

struct Entry {
    package: Identity,
    asked: Vec<(Query, Arc<Shard>)>,
    matched: Arc<Matched>,
}

/// All of a package that decides about a result, beside what is asked about it.
struct Identity {
    kind: PackageType,
    name: String,
    version: String,
    modularity: Option<String>,
    confidence: Confidence,
}

// === impl Memo ===

impl Memo {
    /// Forgets everything: for when shards are replaced, which it would keep in memory.
    pub fn clear(&self) {
        *self.generations() = Generations::default();
    }

    pub(crate) fn get(
        &self,
        package: &Package,
        asked: &[(&Query, Arc<Shard>)],
    ) -> Option<Arc<Matched>> {
        let hash = self.hash(package);
        let entry = self.generations().get(hash)?;
        // Compared in full: the hash only finds it.
        let is_same = entry.package.is_of(package)
            && entry.asked.len() == asked.len()
            && entry
                .asked
                .iter()
                .zip(asked)
                .all(|(known, now)| known.0 == *now.0 && Arc::ptr_eq(&known.1, &now.1));
        is_same.then(|| Arc::clone(&entry.matched))
    }

    pub(crate) fn put(
        &self,
        package: &Package,
        asked: &[(&Query, Arc<Shard>)],
        matched: Arc<Matched>,
    ) {
        let hash = self.hash(package);
        let asked = asked
            .iter()
            .map(|(query, shard)| ((*query).clone(), Arc::clone(shard)));
        let entry = Entry {
            package: Identity::of(package),
            asked: asked.collect(),
            matched,
        };
        self.generations().put(hash, Arc::new(entry));
    }

    fn hash(&self, package: &Package) -> u64 {
        self.hasher.hash_one((&package.name, &package.version))
    }

    fn generations(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Identity ===

impl Identity {
    fn of(package: &Package) -> Self {
        Self {
            kind: package.kind,
            name: package.name.clone(),
            version: package.version.clone(),
            modularity: package.modularity.clone(),
            confidence: package.confidence,
        }
    }

    fn is_of(&self, package: &Package) -> bool {
        let Self {
            kind,
            name,
            version,
            modularity,
            confidence,
        } = self;
        *kind == package.kind
            && *name == package.name
            && *version == package.version
            && *modularity == package.modularity
            && *confidence == package.confidence
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo").finish_non_exhaustive()
    }
}

// === impl Generations ===

impl Generations {
    fn get(&mut self, hash: u64) -> Option<Arc<Entry>> {
        if let Some(entry) = self.young.get(&hash) {
            return Some(Arc::clone(entry));
        }
        // What is used stays: it grows young again.
        let entry = self.old.remove(&hash)?;
        self.put(hash, Arc::clone(&entry));
        Some(entry)
    }

    fn put(&mut self, hash: u64, entry: Arc<Entry>) {
        if self.young.len() >= PACKAGES_MAX || self.young_findings >= FINDINGS_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_findings = 0;
        }
        let findings = entry.matched.vulnerabilities.len();
        self.young_findings = self.young_findings.saturating_add(findings);
        self.young.insert(hash, entry);
    }
}
