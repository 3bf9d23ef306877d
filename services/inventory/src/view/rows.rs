//! What an image has in the indexes of packages and vulnerabilities: the same rows for all images
//! on one stack, so they are made once of an object and not once for each image.

use std::collections::{BTreeMap, BTreeSet};

use cache::CacheError;
use model::{Assessment, Package, ScannedPackages, Vulnerability};
use serde::{Deserialize, Serialize};

use super::{Hit, Indexed, keys};

/// An image's rows in one index, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    /// Names with encoded values, in order.
    pub(super) values: BTreeMap<String, Vec<u8>>,
    /// The names alone, encoded as [`Indexed`].
    pub(super) indexed: Vec<u8>,
}

/// Which packages an image has, in which versions.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ScannedPackages")]
pub(crate) struct PackageRows(pub(super) Rows);

/// Which vulnerabilities an image has, and what else they are called.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Assessment")]
pub(crate) struct VulnerabilityRows {
    pub(super) rows: Rows,
    /// Alias and name.
    pub(super) aliases: BTreeSet<(String, String)>,
}

// === impl Rows ===

impl Rows {
    fn new<T: Serialize>(values: &BTreeMap<String, T>) -> Result<Self, CacheError> {
        let encoded = values
            .iter()
            .map(|(name, value)| Ok((name.clone(), cache::encode(value)?)));
        Ok(Self {
            values: encoded.collect::<Result<_, CacheError>>()?,
            indexed: cache::encode(&Indexed(values.keys().cloned().collect()))?,
        })
    }
}

// === impl PackageRows, VulnerabilityRows ===

impl PackageRows {
    pub(crate) fn new(packages: &[Package]) -> Result<Self, CacheError> {
        let mut versions: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for package in packages {
            versions
                .entry(keys::folded(&package.name))
                .or_default()
                .insert(&package.version);
        }
        Rows::new(&versions).map(Self)
    }
}

impl VulnerabilityRows {
    pub(crate) fn new(vulnerabilities: &[Vulnerability]) -> Result<Self, CacheError> {
        let mut hits: BTreeMap<String, Vec<Hit>> = BTreeMap::new();
        let mut aliases = BTreeSet::new();
        for found in vulnerabilities {
            let name = keys::folded(&found.id);
            let others = found.aliases.iter().filter(|alias| **alias != found.id);
            aliases.extend(others.map(|alias| (keys::folded(alias), name.clone())));
            hits.entry(name).or_default().push(Hit::of(found));
        }
        let rows = Rows::new(&hits)?;
        Ok(Self { rows, aliases })
    }
}

impl TryFrom<ScannedPackages> for PackageRows {
    type Error = CacheError;

    fn try_from(object: ScannedPackages) -> Result<Self, CacheError> {
        Self::new(&object.packages)
    }
}

impl TryFrom<Assessment> for VulnerabilityRows {
    type Error = CacheError;

    fn try_from(object: Assessment) -> Result<Self, CacheError> {
        Self::new(&object.vulnerabilities)
    }
}
