//! `Package.resolved` of the Swift package manager, of versions 1 to 3: JSON, a list of pins.

use model::PackageType;
use serde::Deserialize;

use super::{Format, Lock, With, each, json};
use crate::{File, Malformed};

pub(crate) static FORMAT: Format = Format {
    name: "package-resolved",
    version: 1,
    is_named: |name| name == "Package.resolved",
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Swift, found, read),
};

#[derive(Deserialize)]
struct Document {
    /// Of version 1.
    object: Option<Pins>,
    #[serde(default)]
    pins: Vec<Pin>,
}

#[derive(Deserialize)]
struct Pins {
    pins: Vec<Pin>,
}

#[derive(Deserialize)]
struct Pin {
    #[serde(alias = "repositoryURL")]
    location: String,
    state: State,
}

#[derive(Deserialize)]
struct State {
    /// Absent where a branch or a commit was asked for.
    version: Option<String>,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let document: Document = json(file)?;
    let old = document
        .object
        .map(|object| object.pins)
        .unwrap_or_default();
    for pin in document.pins.iter().chain(&old) {
        let package = lock.package(
            &name(&pin.location),
            pin.state.version.as_deref().unwrap_or_default(),
        );
        lock.add(package);
    }
    Ok(())
}

/// `github.com/owner/name` of an address in any of the forms that Git takes.
fn name(address: &str) -> String {
    let plain = address.split_once("://").map_or(address, |(_, rest)| rest);
    let plain = plain.split_once('@').map_or(plain, |(_, rest)| rest);
    let plain = plain.trim_end_matches('/');
    plain
        .strip_suffix(".git")
        .unwrap_or(plain)
        .replacen(':', "/", 1)
}
