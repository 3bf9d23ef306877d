//! Installed Ruby gems: the specification that `RubyGems` writes for each (its
//! `Gem::Specification#to_ruby`), one assignment or call a line.

use archive::Entry;
use model::{FoundPackage, PackageType};

use crate::{File, Found, Malformed, each::EachFile, malformed};

/// The list of a gem's files makes it long.
const BYTES_MAX: u64 = 4 << 20;

/// Reads gem specifications.
pub(crate) struct Gem;

// === impl Gem ===

impl EachFile for Gem {
    const NAME: &'static str = "gem";
    const VERSION: u32 = 1;
    const PIECES: &'static [&'static str] = &["/specifications/"];

    fn is_wanted(entry: &Entry<'_>, _head: &[u8]) -> bool {
        is_specification(entry.path)
    }

    fn read(file: &File, found: &mut Found) -> Result<(), Malformed> {
        let text = file.text(BYTES_MAX)?;
        let value = |name| assigned(&text, name).and_then(|value| texts(value).next());
        let (Some(name), Some(version)) = (value("name"), value("version")) else {
            return Err(malformed("there is no name or no version"));
        };
        let licenses = assigned(&text, "licenses").or_else(|| assigned(&text, "license"));
        let licenses = licenses.into_iter().flat_map(texts);
        found.add_package(FoundPackage {
            licenses: licenses.map(ToOwned::to_owned).collect(),
            depends_on: dependencies(&text),
            ..FoundPackage::new(PackageType::Gem, name, version, file.path())
        });
        Ok(())
    }
}

/// `specifications/rack-3.0.8.gemspec`, and those of Ruby itself in `specifications/default/`.
fn is_specification(path: &str) -> bool {
    let Some((directory, name)) = path.rsplit_once('/') else {
        return false;
    };
    let directory = directory.strip_suffix("/default").unwrap_or(directory);
    name.ends_with(".gemspec") && directory.ends_with("/specifications")
}

/// What stands behind `s.NAME =`.
fn assigned<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix("s.")?.strip_prefix(name)?;
        rest.trim_start().strip_prefix('=')
    })
}

/// Texts in quotes, or in `%q<…>`.
fn texts(value: &str) -> impl Iterator<Item = &str> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let start = rest.find(['"', '\'', '<'])?;
        let (_, from) = rest.split_at_checked(start)?;
        let mut characters = from.chars();
        let end = match characters.next()? {
            '<' => '>',
            quote => quote,
        };
        let (text, after) = characters.as_str().split_once(end)?;
        rest = after;
        Some(text)
    })
}

/// Those that are needed to run it. Older versions write each twice, for two of `RubyGems`.
fn dependencies(text: &str) -> Vec<String> {
    let calls = ["s.add_runtime_dependency", "s.add_dependency"];
    let lines = text.lines().map(str::trim_start);
    let needed = lines.filter(|line| calls.iter().any(|call| line.starts_with(call)));
    let mut names: Vec<String> = needed
        .filter_map(|line| texts(line).next())
        .map(ToOwned::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_in_quotes_of_several_kinds() {
        let found: Vec<_> = texts(r#" (%q<rack>.freeze, [">= 1", '< 3'])"#).collect();
        assert_eq!(found, ["rack", ">= 1", "< 3"]);
        assert_eq!(texts(" \"open").count(), 0);
    }

    #[test]
    fn specifications_stand_in_their_directory() {
        assert!(is_specification(
            "usr/lib/ruby/gems/3.1.0/specifications/rack-3.0.8.gemspec"
        ));
        assert!(is_specification(
            "opt/specifications/default/json-2.6.1.gemspec"
        ));
        assert!(!is_specification("app/rack.gemspec"));
    }
}
