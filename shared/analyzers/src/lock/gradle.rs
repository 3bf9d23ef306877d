//! Gradle's lock files: lines `group:name:version=configuration,configuration` (Gradle, "Locking
//! Versions"); of older ones, one file for each configuration, without what follows the version.

use model::{FoundPackage, PackageType};

use super::{BYTES_MAX, Format, Lock, With, each};
use crate::{File, Malformed, malformed};

pub(crate) static FORMAT: Format = Format {
    name: "gradle-lock",
    version: 1,
    is_named: |name| name.ends_with(".lockfile"),
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Maven, found, read),
};

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let text = file.text(BYTES_MAX)?;
    let (directory, name) = super::split(file.path());
    let is_old = directory.ends_with("dependency-locks");
    if !is_old && !name.ends_with("gradle.lockfile") {
        // Somebody else's.
        return Ok(());
    }
    let of_build = name.starts_with("buildscript-");
    let own = if is_old {
        name.strip_suffix(".lockfile").unwrap_or(name)
    } else {
        ""
    };
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (id, configurations) = line.split_once('=').unwrap_or((line, own));
        if id == "empty" {
            continue;
        }
        let mut parts = id.split(':');
        let (Some(group), Some(name), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("a line is no `group:name:version`"));
        };
        let is_for_tests = |text: &str| text.to_ascii_lowercase().contains("test");
        let dev = of_build || configurations.split(',').all(is_for_tests);
        let package = FoundPackage {
            dev: Some(dev),
            ..lock.package(&format!("{group}:{name}"), version)
        };
        lock.add(package);
    }
    Ok(())
}
