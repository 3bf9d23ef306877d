//! Packages of a Conda environment: `conda-meta/NAME-VERSION-BUILD.json` (conda, "Package
//! metadata").

use archive::Entry;
use model::{FoundPackage, PackageType};
use serde::Deserialize;

use crate::{File, Found, Malformed, each::EachFile, malformed};

/// The list of a package's files makes it long.
const BYTES_MAX: u64 = 32 << 20;

/// Reads the records of Conda environments.
pub(crate) struct Conda;

#[derive(Deserialize)]
struct Record {
    name: String,
    version: String,
    #[serde(default)]
    subdir: Option<String>,
    #[serde(default)]
    license: Option<String>,
    #[serde(default)]
    depends: Vec<String>,
    #[serde(default)]
    sha256: Option<String>,
}

// === impl Conda ===

impl EachFile for Conda {
    const NAME: &'static str = "conda";
    const VERSION: u32 = 1;
    const PIECES: &'static [&'static str] = &["/conda-meta/"];

    fn is_wanted(entry: &Entry<'_>, _head: &[u8]) -> bool {
        let directory = entry
            .path
            .strip_suffix(".json")
            .and_then(|path| path.rsplit_once('/'));
        directory.is_some_and(|(directory, _)| is_records(directory))
    }

    fn read(file: &File, found: &mut Found) -> Result<(), Malformed> {
        let bytes = file.bytes(BYTES_MAX)?;
        let record: Record = serde_json::from_slice(&bytes)
            .map_err(|error| malformed(format!("it is no record of a package: {error}")))?;
        let names = record
            .depends
            .iter()
            .filter_map(|need| need.split_whitespace().next());
        // Those with two underscores are properties of the machine.
        let names = names.filter(|name| !name.starts_with("__"));
        let depends_on = names.map(ToOwned::to_owned).collect();
        found.add_package(FoundPackage {
            arch: record.subdir,
            licenses: record.license.into_iter().collect(),
            depends_on,
            digests: record
                .sha256
                .map(|hex| format!("sha256:{hex}"))
                .into_iter()
                .collect(),
            ..FoundPackage::new(PackageType::Conda, record.name, record.version, file.path())
        });
        Ok(())
    }
}

fn is_records(directory: &str) -> bool {
    let root = directory.strip_suffix("conda-meta");
    root.is_some_and(|root| root.is_empty() || root.ends_with('/'))
}
