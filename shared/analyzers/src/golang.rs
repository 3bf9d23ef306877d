//! Go modules of a program, from the build information that Go's linker writes (Go,
//! `debug/buildinfo`): its own module (or package, where it was built without modules), those
//! it was built with, and the standard library.

mod stated;

use archive::Entry;
use model::{Confidence, FoundPackage, Gap, GapCode, Hides, PackageType};

use crate::{
    File, Found, Malformed,
    each::EachFile,
    executable::{self, Executable},
};

const MAGIC: &[u8] = b"\xff Go buildinf:";
const HEAD_BYTES: u64 = 32;
const ALIGN: usize = 16;

/// Sections that hold it, and the one where older linkers and those of Windows put it.
const SECTIONS: &[&str] = &[".go.buildinfo", "__go_buildinfo", ".data"];

/// How far into such a section it is looked for.
const SEARCH_BYTES_MAX: u64 = 1 << 20;

/// Kubernetes' own list has 40 KB.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// What Go writes where it knows no version.
const DEVELOPMENT: &str = "(devel)";

/// How it begins what it writes for a commit before which it knows no tag.
const UNTAGGED: &str = "v0.0.0-";

/// The list stands between two marks of so many bytes.
const MARK_BYTES: usize = 16;

/// Reads Go's build information.
pub(crate) struct Golang;

/// What the linker wrote.
struct BuildInfo {
    /// `go1.25.1`
    toolchain: String,
    /// A line each of `path`, `mod`, `dep`, `=>` and `build`.
    modules: String,
}

// === impl Golang ===

impl EachFile for Golang {
    const NAME: &'static str = "golang";
    const VERSION: u32 = 4;

    fn is_wanted(entry: &Entry<'_>, head: &[u8]) -> bool {
        executable::may_carry_list(entry, head)
    }

    fn read(file: &File, found: &mut Found) -> Result<(), Malformed> {
        let content = executable::content(file);
        let Some(executable) = Executable::parse(&content) else {
            return Ok(());
        };
        match build_info(&executable) {
            None => {}
            Some(Err(detail)) => found.malformed(file.path(), detail),
            Some(Ok(info)) => info.read(file.path(), found),
        }
        Ok(())
    }
}

/// `None` where it is no program of Go's.
fn build_info(executable: &Executable<'_>) -> Option<Result<BuildInfo, String>> {
    let at = SECTIONS.iter().find_map(|name| {
        let (address, length) = executable.section(&[name])?;
        let bytes = executable.at(address, length.min(SEARCH_BYTES_MAX))?;
        let found = bytes
            .chunks(ALIGN)
            .position(|chunk| chunk.starts_with(MAGIC))?;
        address.checked_add(found.checked_mul(ALIGN)? as u64)
    })?;
    let info = read_info(executable, at);
    Some(info.ok_or_else(|| "its build information is cut off or damaged".to_owned()))
}

fn read_info(executable: &Executable<'_>, at: u64) -> Option<BuildInfo> {
    let head = executable.at(at, HEAD_BYTES)?;
    let (pointer_bytes, flags) = (u64::from(*head.get(14)?), *head.get(15)?);
    let (toolchain, modules) = if flags & 2 != 0 {
        let (toolchain, next) = inline(executable, at.checked_add(HEAD_BYTES)?)?;
        (toolchain, inline(executable, next)?.0)
    } else {
        let number = Number {
            pointer_bytes,
            is_big: flags & 1 != 0,
        };
        let first = number.read(executable, at.checked_add(16)?)?;
        let second = number.read(executable, at.checked_add(16)?.checked_add(pointer_bytes)?)?;
        (
            number.text(executable, first)?,
            number.text(executable, second)?,
        )
    };
    Some(BuildInfo {
        toolchain: String::from_utf8_lossy(toolchain).into_owned(),
        modules: String::from_utf8_lossy(unmarked(modules)).into_owned(),
    })
}

/// A text behind its length, and where the next begins.
fn inline<'a>(executable: &Executable<'a>, at: u64) -> Option<(&'a [u8], u64)> {
    let mut length = 0_u64;
    for index in 0..5_u32 {
        let byte = *executable.at(at.checked_add(index.into())?, 1)?.first()?;
        length |= u64::from(byte & 0x7f).checked_shl(index.checked_mul(7)?)?;
        if byte & 0x80 == 0 {
            let start = at.checked_add(u64::from(index))?.checked_add(1)?;
            let text = text(executable, start, length)?;
            return Some((text, start.checked_add(length)?));
        }
    }
    None
}

fn text<'a>(executable: &Executable<'a>, at: u64, length: u64) -> Option<&'a [u8]> {
    match length {
        0 => Some(&[]),
        _ if length > TEXT_BYTES_MAX => None,
        _ => executable.at(at, length),
    }
}

/// How a program writes addresses and lengths.
struct Number {
    pointer_bytes: u64,
    is_big: bool,
}

// === impl Number ===

impl Number {
    fn read(&self, executable: &Executable<'_>, at: u64) -> Option<u64> {
        if !matches!(self.pointer_bytes, 4 | 8) {
            return None;
        }
        let bytes = executable.at(at, self.pointer_bytes)?.iter();
        let add = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if self.is_big {
            bytes.fold(0, add)
        } else {
            bytes.rev().fold(0, add)
        })
    }

    /// A text of Go's: where it is and its length.
    fn text<'a>(&self, executable: &Executable<'a>, at: u64) -> Option<&'a [u8]> {
        let start = self.read(executable, at)?;
        let length = self.read(executable, at.checked_add(self.pointer_bytes)?)?;
        text(executable, start, length)
    }
}

/// Programs that were built without modules have no list.
fn unmarked(modules: &[u8]) -> &[u8] {
    let end = modules.len().checked_sub(MARK_BYTES);
    let list = end.and_then(|end| modules.get(MARK_BYTES..end));
    list.filter(|list| list.ends_with(b"\n"))
        .unwrap_or_default()
}

/// The program's own module. Where Go knew no version, or of a checkout without tags the commit alone,
/// it is the one that the build states. Without that, the commit stands anywhere among the releases,
/// and confidence is as low as that.
fn own<'a>(
    name: &'a str,
    version: &'a str,
    stated: Option<&'a str>,
) -> (&'a str, &'a str, Confidence) {
    let is_untagged = version.starts_with(UNTAGGED);
    match stated {
        _ if version != DEVELOPMENT && !is_untagged => (name, version, Confidence::High),
        Some(stated) => (name, stated, Confidence::Medium),
        None if is_untagged => (name, version, Confidence::Low),
        None => (name, version, Confidence::High),
    }
}

// === impl BuildInfo ===

impl BuildInfo {
    /// The module that was built.
    fn main_module(&self) -> Option<&str> {
        let mut lines = self.modules.lines();
        let line = lines.find_map(|line| line.strip_prefix("mod\t"))?;
        line.split('\t').next()
    }

    /// The package that was built, where it has a name that others know: none is built from single
    /// files (`command-line-arguments`) or outside of every workspace (`_/srv/a`).
    fn main_package(&self) -> Option<&str> {
        let mut lines = self.modules.lines();
        let name = lines.find_map(|line| line.strip_prefix("path\t"))?;
        (!name.is_empty() && name != "command-line-arguments" && !name.starts_with("_/"))
            .then_some(name)
    }

    fn read(&self, path: &str, found: &mut Found) {
        let mut modules: Vec<(&str, &str, Confidence)> = Vec::new();
        let name = self.main_module().or_else(|| self.main_package());
        let stated = name.and_then(|name| stated::version(&self.modules, name));
        for line in self.modules.lines() {
            let mut fields = line.split('\t');
            let kind = fields.next();
            let (Some(name), version) = (fields.next(), fields.next().unwrap_or_default()) else {
                continue;
            };
            match kind {
                Some("mod") => modules.push(own(name, version, stated.as_deref())),
                Some("dep") => modules.push((name, version, Confidence::High)),
                // What stands in its place is what was built in. A directory has no name that
                // anybody else knows, and may hold anything.
                Some("=>") => {
                    if let Some(last) = modules.last_mut() {
                        let is_directory = name.starts_with(['.', '/']) || version.is_empty();
                        *last = if is_directory {
                            (last.0, last.1, Confidence::Medium)
                        } else {
                            (name, version, Confidence::High)
                        };
                    }
                }
                _ => {}
            }
        }
        let main = self.main_package();
        // Commands of Go itself take nobody else's code.
        let is_of_go = main.is_some_and(|name| name.starts_with("cmd/"));
        if modules.is_empty() && !is_of_go {
            // It has a name then, and no version but what its builder may have written: without
            // one, any advisory of that name is undecided.
            let version = stated.as_deref().unwrap_or(DEVELOPMENT);
            modules.extend(main.map(|name| (name, version, Confidence::Medium)));
            // Most are of a distribution, which builds them so, and whose package is compared.
            let detail = "it was built without modules: whose code is in it, it does not say";
            let gap = Gap::new(GapCode::UnresolvedDependency, Hides::Nothing, detail);
            found.add_gap(gap.at(path));
        }
        let mut words = self.toolchain.split_whitespace();
        let toolchain = words.find(|word| word.starts_with("go"));
        modules.extend(toolchain.map(|version| ("stdlib", version, Confidence::High)));
        for (name, version, confidence) in modules {
            found.add_package(FoundPackage {
                confidence,
                ..FoundPackage::new(PackageType::Golang, name, version, path)
            });
        }
    }
}

#[cfg(test)]
mod tests;
