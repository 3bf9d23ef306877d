//! `go.mod`, and `go.sum` beside it (go.dev, "Go Modules Reference"). Since Go 1.17 a `go.mod` lists
//! every module that the build takes; of an older one those that others need are taken from the
//! checksums, the newest of each, which is what Go chooses unless a checksum is left over.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap, HashSet},
};

use model::{Confidence, FoundPackage, Gap, GapCode, Hides, PackageType};

use super::{BYTES_MAX, Format, Lock, With, split};
use crate::{File, Found, Malformed};

pub(crate) static FORMAT: Format = Format {
    name: "go-mod",
    version: 1,
    is_named: |name| matches!(name, "go.mod" | "go.sum"),
    with: With::Directory,
    read,
};

/// Since this minor version of Go 1 a `go.mod` is complete.
const COMPLETE_SINCE: u32 = 17;

/// Since this one the `go` line is the least version that may build it.
const STRICT_SINCE: u32 = 21;

/// Module and version.
type Module<'a> = (&'a str, &'a str);

/// The same where the version may be left out.
type AnyVersion<'a> = (&'a str, Option<&'a str>);

#[derive(Default)]
struct GoMod<'a> {
    module: &'a str,
    go: Option<&'a str>,
    toolchain: Option<&'a str>,
    /// Whether each is required by the module itself.
    require: BTreeMap<Module<'a>, bool>,
    /// What is replaced, at one version or at each, by what; without a version it is a directory.
    replace: HashMap<AnyVersion<'a>, AnyVersion<'a>>,
    exclude: HashSet<Module<'a>>,
}

fn read(files: &[File], found: &mut Found) -> Result<(), Malformed> {
    let named = |name: &str| files.iter().find(|file| split(file.path()).1 == name);
    let Some(file) = named("go.mod") else {
        return Ok(());
    };
    let text = file.text(BYTES_MAX)?;
    let sums = named("go.sum").map(|file| file.text(BYTES_MAX)).transpose();
    let sums = match sums {
        Ok(sums) => sums.unwrap_or_default(),
        Err(error) => {
            found.malformed(file.path(), format!("go.sum: {error}"));
            "".into()
        }
    };
    let parsed = parse(&text);
    if parsed.module.is_empty() {
        return Err(crate::malformed("it names no module"));
    }
    let mut lock = Lock::new(PackageType::Golang, file.path());
    list(&parsed, &checksums(&sums), &mut lock);
    lock.finish(found);
    if !is_complete(parsed.go) && sums.is_empty() && !parsed.require.is_empty() {
        let detail = "it was written for a Go before 1.17 and there is no go.sum, so modules that others need are not known";
        let gap = Gap::new(GapCode::UnresolvedDependency, Hides::Packages, detail);
        found.add_gap(gap.at(file.path()));
    }
    Ok(())
}

fn list(parsed: &GoMod<'_>, sums: &HashMap<Module<'_>, &str>, lock: &mut Lock) {
    let mut chosen: BTreeMap<&str, (&str, Option<bool>, Confidence)> = BTreeMap::new();
    for ((name, version), direct) in &parsed.require {
        if parsed.exclude.contains(&(name, version)) {
            // Go takes the next newer one, and which that is only a proxy knows.
            lock.unresolved(name);
            continue;
        }
        let is_newer = chosen
            .get(name)
            .is_none_or(|(known, ..)| is_newer(version, known));
        if is_newer {
            chosen.insert(name, (version, Some(*direct), Confidence::High));
        }
    }
    if !is_complete(parsed.go) {
        for (name, version) in sums.keys() {
            match chosen.get_mut(name) {
                Some((known, ..)) if is_newer(version, known) => *known = version,
                Some(_) => {}
                None => drop(chosen.insert(name, (version, Some(false), Confidence::Medium))),
            }
        }
    }
    for (name, (version, direct, confidence)) in chosen {
        let at_version = parsed.replace.get(&(name, Some(version)));
        let replaced = at_version.or_else(|| parsed.replace.get(&(name, None)));
        let (name, version) = match replaced {
            // A directory: its code is here, and no module of a registry.
            Some((_, None)) => continue,
            Some((name, Some(version))) => (*name, *version),
            None => (name, version),
        };
        let sum = sums.get(&(name, version));
        lock.add(FoundPackage {
            direct,
            confidence,
            digests: sum.map(|sum| (*sum).to_owned()).into_iter().collect(),
            ..lock.package(name, version)
        });
    }
    let least = parsed.go.filter(|go| minor(go) >= STRICT_SINCE);
    if let Some(version) = parsed.toolchain.or(least) {
        // What builds it may be newer.
        lock.add(FoundPackage {
            confidence: Confidence::Medium,
            ..lock.package("stdlib", version.trim_start_matches("go"))
        });
    }
}

fn parse(text: &str) -> GoMod<'_> {
    let mut parsed = GoMod::default();
    let mut block = None;
    for line in text.lines() {
        let (content, comment) = line.split_once("//").unwrap_or((line, ""));
        let content = content.trim();
        if content.is_empty() {
            continue;
        }
        if content == ")" {
            block = None;
            continue;
        }
        if let Some(verb) = content.strip_suffix('(') {
            block = Some(verb.trim());
            continue;
        }
        let (verb, rest) = match block {
            Some(verb) => (verb, content),
            None => content
                .split_once(char::is_whitespace)
                .unwrap_or((content, "")),
        };
        let is_indirect = comment.trim_start().starts_with("indirect");
        parsed.take(verb, rest.trim(), is_indirect);
    }
    parsed
}

impl<'a> GoMod<'a> {
    fn take(&mut self, verb: &str, rest: &'a str, is_indirect: bool) {
        let mut words = rest
            .split_whitespace()
            .map(|word| word.trim_matches(['"', '`']));
        match verb {
            "module" => self.module = words.next().unwrap_or_default(),
            "go" => self.go = words.next(),
            "toolchain" => self.toolchain = words.next().filter(|word| *word != "default"),
            "require" => {
                if let (Some(name), Some(version)) = (words.next(), words.next()) {
                    self.require.insert((name, version), !is_indirect);
                }
            }
            "exclude" => {
                if let (Some(name), Some(version)) = (words.next(), words.next()) {
                    self.exclude.insert((name, version));
                }
            }
            "replace" => {
                let Some((old, new)) = rest.split_once("=>") else {
                    return;
                };
                let (mut old, mut new) = (old.split_whitespace(), new.split_whitespace());
                if let (Some(name), Some(by)) = (old.next(), new.next()) {
                    self.replace.insert((name, old.next()), (by, new.next()));
                }
            }
            _ => {}
        }
    }
}

/// Checksums of modules, and not those of their `go.mod` alone.
fn checksums(text: &str) -> HashMap<Module<'_>, &str> {
    let mut sums = HashMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version), Some(sum)) = (words.next(), words.next(), words.next())
            && !version.ends_with("/go.mod")
        {
            sums.insert((name, version), sum);
        }
    }
    sums
}

fn is_complete(go: Option<&str>) -> bool {
    go.is_some_and(|go| minor(go) >= COMPLETE_SINCE)
}

/// The 21 in `1.21.3`.
fn minor(go: &str) -> u32 {
    let minor = go.split('.').nth(1).unwrap_or_default();
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// Semantic versions as Go compares them: `v1.2.3-pre+build`.
fn is_newer(one: &str, other: &str) -> bool {
    let parts = |version: &str| {
        let version = version.trim_start_matches('v');
        let version = version.split('+').next().unwrap_or(version).to_owned();
        let (release, pre) = version.split_once('-').unwrap_or((&version, ""));
        let numbers: Vec<u64> = release
            .split('.')
            .map(|part| part.parse().unwrap_or(0))
            .collect();
        let pre: Vec<String> = pre.split('.').map(ToOwned::to_owned).collect();
        (numbers, pre)
    };
    let ((numbers, pre), (others, other_pre)) = (parts(one), parts(other));
    let by_pre = || match (pre == [""], other_pre == [""]) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => by_parts(&pre, &other_pre),
    };
    numbers.cmp(&others).then_with(by_pre) == Ordering::Greater
}

fn by_parts(one: &[String], other: &[String]) -> Ordering {
    for (one, other) in one.iter().zip(other) {
        let order = match (one.parse::<u64>(), other.parse::<u64>()) {
            (Ok(one), Ok(other)) => one.cmp(&other),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => one.cmp(other),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    one.len().cmp(&other.len())
}
