//! `Gemfile.lock` and `gems.locked` of Bundler: sections of indented lines.

use std::collections::{BTreeMap, HashSet};

use model::{FoundPackage, PackageType};

use super::{BYTES_MAX, Format, Lock, With, each, exactly};
use crate::{File, Malformed, malformed};

pub(crate) static FORMAT: Format = Format {
    name: "gemfile-lock",
    version: 1,
    is_named: |name| matches!(name, "Gemfile.lock" | "gems.locked" | "Gemfile.next.lock"),
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Gem, found, read),
};

#[derive(Default)]
struct Gem<'a> {
    /// One for each platform.
    versions: Vec<&'a str>,
    needs: Vec<&'a str>,
    digests: Vec<String>,
    /// Whether it stands in the project.
    is_own: bool,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let text = file.text(BYTES_MAX)?;
    let mut gems: BTreeMap<&str, Gem<'_>> = BTreeMap::new();
    let mut direct = HashSet::new();
    let (mut section, mut current) = ("", None);
    let mut sections = 0_usize;
    for line in text.lines() {
        let content = line.trim_start();
        let indent = line.len().saturating_sub(content.len());
        if content.is_empty() {
            continue;
        }
        if indent == 0 {
            section = content;
            current = None;
            sections = sections.saturating_add(usize::from(
                section.bytes().all(|b| b.is_ascii_uppercase() || b == b' '),
            ));
            continue;
        }
        match (section, indent) {
            ("GEM" | "GIT" | "PATH" | "PLUGIN SOURCE", 4) => {
                let Some((name, version)) = name_version(content) else {
                    continue;
                };
                // A version has no hyphen: what follows is the platform.
                let version = version.split('-').next().unwrap_or(version);
                let gem = gems.entry(name).or_default();
                gem.versions.push(version);
                gem.is_own = section == "PATH";
                current = Some(name);
            }
            ("GEM" | "GIT" | "PATH" | "PLUGIN SOURCE", 6..) => {
                let name = content.split_once(' ').map_or(content, |(name, _)| name);
                if let Some(gem) = current.and_then(|current| gems.get_mut(current)) {
                    gem.needs.push(name.trim_end_matches('!'));
                }
            }
            ("DEPENDENCIES", _) => {
                let name = content.split_once(' ').map_or(content, |(name, _)| name);
                direct.insert(name.trim_end_matches('!'));
            }
            ("CHECKSUMS", _) => {
                let digests = content.rsplit_once(") ").map(|(_, digests)| digests);
                if let (Some((name, _)), Some(digests)) = (name_version(content), digests)
                    && let Some(gem) = gems.get_mut(name)
                {
                    gem.digests
                        .extend(digests.split(',').map(|one| one.replacen('=', ":", 1)));
                }
            }
            _ => {}
        }
    }
    if sections == 0 {
        return Err(malformed("it has no section"));
    }
    add(&gems, &direct, lock);
    Ok(())
}

fn add(gems: &BTreeMap<&str, Gem<'_>>, direct: &HashSet<&str>, lock: &mut Lock) {
    for (name, gem) in gems.iter().filter(|(_, gem)| !gem.is_own) {
        let needs = gem.needs.iter().filter_map(|needed| {
            let version = gems.get(needed)?.versions.first()?;
            Some(exactly(needed, version))
        });
        // One for each platform, of the same version.
        let (mut needs, mut digests): (Vec<String>, _) = (needs.collect(), gem.digests.clone());
        for version in &gem.versions {
            lock.add(FoundPackage {
                depends_on: std::mem::take(&mut needs),
                digests: std::mem::take(&mut digests),
                direct: Some(direct.contains(name)),
                ..lock.package(name, version)
            });
        }
    }
}

/// `name (version)` and what follows.
fn name_version(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.split_once(" (")?;
    Some((name, rest.split_once(')')?.0))
}
