//! `mix.lock` of Elixir: one line for each package, a tuple:
//! `"name": {:hex, :name, "1.0.0", "sha256", [:mix], [{:other, "~> 1.0", [hex: :other]}], …},`

use std::collections::{BTreeMap, BTreeSet};

use model::{FoundPackage, PackageType};

use super::{BYTES_MAX, Format, Lock, With, each, exactly};
use crate::{File, Malformed, malformed};

pub(crate) static FORMAT: Format = Format {
    name: "mix-lock",
    version: 1,
    is_named: |name| name == "mix.lock",
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Hex, found, read),
};

struct Line<'a> {
    version: &'a str,
    digest: Option<&'a str>,
    /// Names in the order of the line; those that the file does not list are words of the tuple.
    atoms: BTreeSet<&'a str>,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let text = file.text(BYTES_MAX)?;
    if !text.trim_start().starts_with("%{") {
        return Err(malformed("it is no lock file of Mix"));
    }
    let mut lines: BTreeMap<&str, Line<'_>> = BTreeMap::new();
    for line in text.lines() {
        let Some((key, tuple)) = line
            .trim()
            .trim_start_matches("%{")
            .trim()
            .split_once(": {")
        else {
            continue;
        };
        let key = key.trim_matches('"');
        let Some(hex) = tuple.strip_prefix(":hex,") else {
            // From a repository of its own, at a commit.
            lock.unresolved(key);
            continue;
        };
        let mut fields = hex.split(',').map(str::trim);
        let name = fields
            .next()
            .map_or(key, |name| name.trim_start_matches(':').trim_matches('"'));
        let mut quoted = fields.map(|field| field.trim_matches('"'));
        let version = quoted.next().unwrap_or_default();
        let digest = quoted.next().filter(|text| text.len() == 64);
        let atoms = hex
            .split("{:")
            .skip(1)
            .filter_map(|atom| atom.split(',').next());
        let atoms = atoms.map(|atom| atom.trim_matches('"')).collect();
        lines.insert(
            name,
            Line {
                version,
                digest,
                atoms,
            },
        );
    }
    for (name, line) in &lines {
        let needs = line.atoms.iter().filter_map(|needed| {
            let of = lines.get(needed)?;
            Some(exactly(needed, of.version))
        });
        lock.add(FoundPackage {
            depends_on: needs.collect(),
            digests: line
                .digest
                .map(|text| format!("sha256:{text}"))
                .into_iter()
                .collect(),
            ..lock.package(name, line.version)
        });
    }
    Ok(())
}
