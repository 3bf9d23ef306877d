//! Erlang and Elixir applications: `ebin/NAME.app` (Erlang/OTP, `app(4)`), a term of Erlang's.

use archive::Entry;
use model::{FoundPackage, PackageType};

use crate::{File, Found, Malformed, each::EachFile, malformed};

/// A list of modules makes it long.
const BYTES_MAX: u64 = 4 << 20;

/// Reads the resource files of applications.
pub(crate) struct Erlang;

// === impl Erlang ===

impl EachFile for Erlang {
    const NAME: &'static str = "erlang";
    const VERSION: u32 = 1;
    const PIECES: &'static [&'static str] = &["/ebin/"];

    fn is_wanted(entry: &Entry<'_>, _head: &[u8]) -> bool {
        let directory = entry
            .path
            .strip_suffix(".app")
            .and_then(|path| path.rsplit_once('/'));
        directory.is_some_and(|(directory, _)| directory.ends_with("/ebin"))
    }

    fn read(file: &File, found: &mut Found) -> Result<(), Malformed> {
        let text = file.text(BYTES_MAX)?;
        let text = without_comments(&text);
        let name = after(&text, "application", ',').map(|rest| atom(rest).to_owned());
        let version = after(&text, "vsn", ',').and_then(quoted);
        let (Some(name), Some(version)) = (name.filter(|name| !name.is_empty()), version) else {
            return Err(malformed("there is no name or no version"));
        };
        let needed = after(&text, "applications", ',').and_then(|rest| rest.strip_prefix('['));
        let needed = needed
            .and_then(|rest| rest.split_once(']'))
            .map(|(list, _)| list);
        let needed = needed.unwrap_or_default().split(',').map(atom);
        // What comes with Erlang/OTP has no page of its own anywhere.
        let kind = if file.path().contains("/erlang/lib/") {
            PackageType::Otp
        } else {
            PackageType::Hex
        };
        found.add_package(FoundPackage {
            depends_on: needed
                .filter(|name| !name.is_empty())
                .map(ToOwned::to_owned)
                .collect(),
            ..FoundPackage::new(kind, name, version, file.path())
        });
        Ok(())
    }
}

/// Comments go from `%` to the line's end; in texts there are none in practice.
fn without_comments(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.split('%').next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// What follows `{KEY,` with any blanks in it.
fn after<'a>(text: &'a str, key: &str, comma: char) -> Option<&'a str> {
    text.split('{').skip(1).find_map(|part| {
        let rest = part.trim_start().strip_prefix(key)?;
        let rest = rest.trim_start().strip_prefix(comma)?;
        Some(rest.trim_start())
    })
}

/// A name, which may stand in quotes.
fn atom(text: &str) -> &str {
    let text = text.trim().trim_start_matches('\'');
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '@' | '.')));
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

fn quoted(text: &str) -> Option<&str> {
    let (version, _) = text.strip_prefix('"')?.split_once('"')?;
    (!version.is_empty()).then_some(version)
}
