//! pip's requirements files (pip, "Requirements File Format"): what they pin is there as named, what
//! they leave open is a gap.

use std::collections::{BTreeMap, HashMap, HashSet};

use model::{FoundPackage, Gap, GapCode, Hides, PackageType};

use super::{BYTES_MAX, Format, Lock, With, beside, split};
use crate::{File, Found, Malformed};

pub(crate) static FORMAT: Format = Format {
    name: "requirements",
    version: 1,
    is_named,
    with: With::All,
    read,
};

/// Constraints that are gone through for all files of a directory.
const STEPS_MAX: usize = 5_000_000;

/// What one file says.
#[derive(Default)]
struct Requirements {
    pins: Vec<Pin>,
    /// Names without one exact version.
    open: Vec<String>,
    /// Paths of files that are read in its place.
    includes: Vec<String>,
    /// Paths of files that say versions for what is left open.
    constraints: Vec<String>,
}

struct Pin {
    name: String,
    version: String,
    digests: Vec<String>,
}

fn is_named(name: &str) -> bool {
    name.strip_suffix(".txt").is_some()
        && (name.contains("requirements") || name.contains("constraints"))
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of every format")]
fn read(files: &[File], found: &mut Found) -> Result<(), Malformed> {
    let mut all = BTreeMap::new();
    for file in files {
        match file.text(BYTES_MAX) {
            Ok(text) => drop(all.insert(file.path(), parse(file.path(), &text))),
            Err(error) => found.malformed(file.path(), error.to_string()),
        }
    }
    let mut steps = 0;
    for (path, requirements) in &all {
        // Constraints are no wish to install anything.
        if split(path).1.contains("constraints") {
            continue;
        }
        let mut lock = Lock::new(PackageType::Pypi, path);
        for pin in &requirements.pins {
            lock.add(FoundPackage {
                digests: pin.digests.clone(),
                ..lock.package(&pin.name, &pin.version)
            });
        }
        let constraints = if requirements.open.is_empty() {
            HashMap::new()
        } else {
            constraints(&all, requirements, &mut steps)
        };
        for name in &requirements.open {
            match constraints.get(normalized(name).as_str()) {
                Some(version) => lock.add(lock.package(name, version)),
                None => lock.unresolved(name),
            }
        }
        lock.finish(found);
        for other in &requirements.includes {
            if !all.contains_key(other.as_str()) {
                let detail = format!("it includes `{other}`, which was not read");
                let gap = Gap::new(GapCode::UnresolvedDependency, Hides::Packages, detail);
                found.add_gap(gap.at(*path));
            }
        }
    }
    Ok(())
}

/// The versions that the files say which it names as constraints, with what these include.
fn constraints<'a>(
    all: &'a BTreeMap<&str, Requirements>,
    requirements: &'a Requirements,
    steps: &mut usize,
) -> HashMap<String, &'a str> {
    let mut versions = HashMap::new();
    let mut seen: HashSet<&str> = HashSet::new();
    let mut due: Vec<&str> = requirements
        .constraints
        .iter()
        .map(String::as_str)
        .collect();
    while let Some(path) = due.pop() {
        if !seen.insert(path) {
            continue;
        }
        let Some(other) = all.get(path) else {
            continue;
        };
        let size = other.pins.len().saturating_add(other.includes.len());
        *steps = steps
            .saturating_add(size)
            .saturating_add(other.constraints.len());
        if *steps > STEPS_MAX {
            // What is left open then is a gap, as without constraints.
            break;
        }
        for pin in &other.pins {
            versions
                .entry(normalized(&pin.name))
                .or_insert(pin.version.as_str());
        }
        due.extend(
            other
                .includes
                .iter()
                .chain(&other.constraints)
                .map(String::as_str),
        );
    }
    versions
}

fn parse(path: &str, text: &str) -> Requirements {
    let mut requirements = Requirements::default();
    let mut line = String::new();
    for part in text.lines() {
        let is_comment = part.trim_start().starts_with('#');
        if let Some(part) = part.strip_suffix('\\').filter(|_| !is_comment) {
            line.push_str(part);
            line.push(' ');
            continue;
        }
        if !is_comment {
            line.push_str(part);
        }
        requirement(path, &line, &mut requirements);
        line.clear();
    }
    requirement(path, &line, &mut requirements);
    requirements
}

fn requirement(path: &str, line: &str, requirements: &mut Requirements) {
    let line = line.split(" #").next().unwrap_or(line).trim();
    if line.is_empty() {
        return;
    }
    if line.starts_with('-') {
        let (option, value) = line.split_once([' ', '=']).unwrap_or((line, ""));
        // `-rother.txt` is fine, too.
        let (option, value) = match (line.get(..2), line.get(2..)) {
            (Some(short @ ("-r" | "-c" | "-e")), Some(value)) => (short, value),
            _ => (option, value),
        };
        let value = value.trim();
        match option {
            _ if value.is_empty() => {}
            "-r" | "--requirement" => requirements.includes.push(beside(path, value)),
            "-c" | "--constraint" => requirements.constraints.push(beside(path, value)),
            "-e" | "--editable" if value.contains("://") => {
                requirements.open.push(egg(value).to_owned());
            }
            _ => {}
        }
        return;
    }
    let (wanted, options) = line.split_once(" --").unwrap_or((line, ""));
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let end = wanted.find(|c| !is_name(c)).unwrap_or(wanted.len());
    let (name, rest) = wanted.split_at_checked(end).unwrap_or((wanted, ""));
    if rest.starts_with([':', '/']) || name.is_empty() || name.starts_with('.') {
        // An address, or a path of the project itself.
        if wanted.contains("://") {
            requirements.open.push(egg(wanted).to_owned());
        }
        return;
    }
    match pinned(rest) {
        Some(version) => requirements.pins.push(Pin {
            name: name.to_owned(),
            version: version.to_owned(),
            digests: digests(options),
        }),
        None => requirements.open.push(name.to_owned()),
    }
}

/// The version in `[extra] == 1.0 ; marker`.
fn pinned(rest: &str) -> Option<&str> {
    let rest = rest.split(';').next()?.trim();
    let specifiers = match rest.strip_prefix('[') {
        Some(extras) => extras.split_once(']')?.1,
        None => rest,
    };
    let specifiers = specifiers.trim().trim_matches(['(', ')']);
    let mut exact = specifiers.split(',').filter_map(|one| {
        let one = one.trim();
        one.strip_prefix("===").or_else(|| one.strip_prefix("=="))
    });
    let version = exact.next()?.trim();
    (!version.is_empty() && !version.contains('*')).then_some(version)
}

fn digests(options: &str) -> Vec<String> {
    let words = options.split_whitespace();
    let hashes = words.filter_map(|word| word.trim_start_matches('-').strip_prefix("hash="));
    hashes.map(ToOwned::to_owned).collect()
}

/// What an address is called: the name behind `#egg=`, or the address.
fn egg(address: &str) -> &str {
    let name = address.split_once("#egg=").map(|(_, name)| name);
    name.map_or(address, |name| {
        name.split(['&', '[', ' ']).next().unwrap_or(name)
    })
}

/// A name as indexes compare it (PEP 503).
fn normalized(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    let parts: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_gone_through_to_a_bound() {
        let all = BTreeMap::from([("c.txt", parse("c.txt", "a==1\nb==2\n"))]);
        let asking = parse("r.txt", "-c c.txt\na\n");
        let mut steps = STEPS_MAX - 2;
        assert_eq!(constraints(&all, &asking, &mut steps).len(), 2);
        assert!(constraints(&all, &asking, &mut steps).is_empty());
    }

    #[test]
    fn files_that_include_each_other_are_read_once() {
        let of = |path: &'static str, text: &str| (path, parse(path, text));
        let all = BTreeMap::from([
            of("a.txt", "-c b.txt\nx==1\n"),
            of("b.txt", "-c a.txt\ny==2\n"),
        ]);
        let asking = parse("r.txt", "-c a.txt\n");
        let versions = constraints(&all, &asking, &mut 0);
        assert_eq!(
            (versions.get("x"), versions.get("y")),
            (Some(&"1"), Some(&"2"))
        );
    }
}
