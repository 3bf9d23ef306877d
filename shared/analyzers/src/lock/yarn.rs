//! `yarn.lock`: of Yarn 1, a format of its own, and of its successors ("berry"), which looks like it
//! and is YAML. Both are lines, two blanks further in for each level, and are read as such.

use std::collections::HashMap;

use model::{FoundPackage, PackageType};

use super::{BYTES_MAX, Format, Lock, With, each, exactly, integrity};
use crate::{File, Malformed, malformed};

pub(crate) static FORMAT: Format = Format {
    name: "yarn-lock",
    version: 1,
    is_named: |name| name == "yarn.lock",
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Npm, found, read),
};

/// One block.
#[derive(Default)]
struct Block {
    /// What was asked for: `name@range`.
    asked: Vec<String>,
    version: String,
    /// Of berry: `name@npm:version`.
    resolution: String,
    /// Of Yarn 1.
    integrity: Option<String>,
    /// Name and range.
    needs: Vec<(String, String)>,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let text = file.text(BYTES_MAX)?;
    let is_berry = text.lines().any(|line| line.starts_with("__metadata:"));
    if !is_berry && !text.contains("yarn lockfile v1") && !text.trim().is_empty() {
        return Err(malformed("it is no lock file of Yarn"));
    }
    let blocks = blocks(&text);
    let mut resolved: HashMap<&str, usize> = HashMap::new();
    for (number, block) in blocks.iter().enumerate() {
        resolved.extend(block.asked.iter().map(|asked| (asked.as_str(), number)));
    }
    let find = |name: &str, range: &str| {
        let plain = resolved.get(format!("{name}@{range}").as_str());
        let number = plain.or_else(|| resolved.get(format!("{name}@npm:{range}").as_str()))?;
        blocks.get(*number)
    };
    let workspaces = blocks.iter().filter(|block| block.is_workspace());
    let asked = workspaces.flat_map(|block| &block.needs);
    let direct: Vec<&Block> = asked
        .filter_map(|(name, range)| find(name, range))
        .collect();
    let direct: std::collections::HashSet<*const Block> =
        direct.into_iter().map(std::ptr::from_ref).collect();
    for block in blocks.iter().filter(|block| !block.is_workspace()) {
        let Some(name) = block.name() else {
            continue;
        };
        let needs = block
            .needs
            .iter()
            .filter_map(|(name, range)| find(name, range));
        let needs = needs.filter(|block| !block.is_workspace());
        let needs = needs.filter_map(|block| Some(exactly(block.name()?, &block.version)));
        let package = FoundPackage {
            depends_on: needs.collect(),
            digests: block
                .integrity
                .as_deref()
                .and_then(integrity)
                .into_iter()
                .collect(),
            direct: is_berry.then(|| direct.contains(&std::ptr::from_ref(block))),
            ..lock.package(name, &block.version)
        };
        lock.add(package);
    }
    Ok(())
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut section = "";
    for line in text.lines() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let indent = line.len().saturating_sub(content.len());
        if indent == 0 {
            let names = content.trim_end().trim_end_matches(':');
            let names = names
                .split(", ")
                .flat_map(|part| unquoted(part).split(", "));
            blocks.push(Block {
                asked: names.map(|name| unquoted(name).to_owned()).collect(),
                ..Block::default()
            });
            section = "";
            continue;
        }
        let Some(block) = blocks.last_mut() else {
            continue;
        };
        let (key, value) = key_value(content);
        if indent <= 2 {
            section = key;
            match key {
                "version" => value.clone_into(&mut block.version),
                "resolution" => value.clone_into(&mut block.resolution),
                "integrity" => block.integrity = Some(value.to_owned()),
                _ => {}
            }
        } else if matches!(section, "dependencies" | "optionalDependencies") {
            block.needs.push((key.to_owned(), value.to_owned()));
        }
    }
    blocks
}

/// `key value`, `key: value` or `key:`, each quoted or not.
fn key_value(line: &str) -> (&str, &str) {
    let (key, value) = if let Some(rest) = line.strip_prefix('"') {
        rest.split_once('"').unwrap_or((rest, ""))
    } else {
        let end = line.find([' ', ':']).unwrap_or(line.len());
        line.split_at_checked(end).unwrap_or((line, ""))
    };
    (key, unquoted(value.trim_start_matches(':').trim()))
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches('"')
}

/// Name and the rest of `name@rest` or `@scope/name@rest`.
pub(super) fn split_name(text: &str) -> Option<(&str, &str)> {
    let scoped = usize::from(text.starts_with('@'));
    let (_, from) = text.split_at_checked(scoped)?;
    let at = from.find('@')?.saturating_add(scoped);
    let (name, rest) = text.split_at_checked(at)?;
    Some((name, rest.strip_prefix('@')?))
}

// === impl Block ===

impl Block {
    fn is_workspace(&self) -> bool {
        self.resolution.contains("@workspace:")
            || self.asked.iter().any(|name| name == "__metadata")
    }

    /// The package's real name: the one asked for may be an alias.
    fn name(&self) -> Option<&str> {
        if let Some((name, _)) = split_name(&self.resolution) {
            return Some(name);
        }
        let (name, range) = split_name(self.asked.first()?)?;
        let alias = range
            .strip_prefix("npm:")
            .filter(|of| split_name(of).is_some());
        match alias {
            Some(real) => split_name(real).map(|(name, _)| name),
            None => Some(name),
        }
    }
}
