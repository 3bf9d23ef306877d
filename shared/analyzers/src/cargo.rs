//! Rust crates of a program that was built with `cargo auditable` (rust-secure-code/cargo-auditable,
//! `PARSING.md`): a section of JSON, compressed by zlib.

use std::io::Read as _;

use archive::Entry;
use model::{FoundPackage, PackageType};
use serde::Deserialize;

use crate::{
    File, Found, Malformed,
    each::EachFile,
    executable::{self, Executable},
};

const SECTIONS: &[&str] = &[".dep-v0", "__dep_v0"];

/// A program of 1,000 crates has 20 KB, 100 KB unpacked.
const PACKED_BYTES_MAX: u64 = 4 << 20;
const BYTES_MAX: u64 = 8 << 20;

/// Reads the crates that a program was built from.
pub(crate) struct Cargo;

#[derive(Deserialize)]
struct Crates {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    /// Of building only, where it says `build`.
    #[serde(default)]
    kind: Option<String>,
    /// Numbers in the list.
    #[serde(default)]
    dependencies: Vec<usize>,
}

// === impl Cargo ===

impl EachFile for Cargo {
    const NAME: &'static str = "cargo";
    const VERSION: u32 = 1;

    fn is_wanted(entry: &Entry<'_>, head: &[u8]) -> bool {
        executable::may_carry_list(entry, head)
    }

    fn read(file: &File, found: &mut Found) -> Result<(), Malformed> {
        let content = executable::content(file);
        let Some(executable) = Executable::parse(&content) else {
            return Ok(());
        };
        if let Some(packed) = executable.section_data(SECTIONS, PACKED_BYTES_MAX) {
            match unpack(packed) {
                Ok(crates) => crates.read(file.path(), found),
                Err(error) => found.malformed(file.path(), error),
            }
        }
        Ok(())
    }
}

fn unpack(packed: &[u8]) -> Result<Crates, String> {
    let mut json = Vec::new();
    let unpacked = flate2::read::ZlibDecoder::new(packed);
    let read = unpacked
        .take(BYTES_MAX.saturating_add(1))
        .read_to_end(&mut json);
    read.map_err(|error| format!("its list of crates cannot be inflated: {error}"))?;
    if json.len() as u64 > BYTES_MAX {
        return Err(format!(
            "its list of crates has more than {BYTES_MAX} bytes"
        ));
    }
    serde_json::from_slice(&json).map_err(|error| format!("its list of crates: {error}"))
}

// === impl Crates ===

impl Crates {
    fn read(&self, path: &str, found: &mut Found) {
        for package in &self.packages {
            let needed = package.dependencies.iter();
            let needed = needed.filter_map(|number| self.packages.get(*number));
            found.add_package(FoundPackage {
                depends_on: needed.map(|needed| needed.name.clone()).collect(),
                dev: (package.kind.as_deref() == Some("build")).then_some(true),
                ..FoundPackage::new(
                    PackageType::Cargo,
                    package.name.clone(),
                    package.version.clone(),
                    path,
                )
            });
        }
    }
}
