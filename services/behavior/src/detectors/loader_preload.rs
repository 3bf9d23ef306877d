//! A library that every program loads first.

use model::Severity;

use super::{Actor, Definition, Detector, Look, Sighting, Start};
use crate::{attack, wire::FileOpen};

pub(super) struct LoaderPreload;

/// How a library gets before all others of one program.
const VARIABLES: &[&str] = &["LD_PRELOAD=", "LD_AUDIT="];
/// Where systems and those who add to them keep libraries; the loader looks for a bare name there.
const LIBRARIES: &[&str] = &["/usr/", "/lib", "/opt/"];

static DEFINITION: Definition = Definition {
    rule: "behavior/loader-preload",
    severity: Severity::High,
    advice: "Look at the library that is named there; remove the line, then restart what \
        runs.",
    techniques: &[attack::LOADER],
    looks_at: &[Look::Start, Look::Open],
};

impl Detector for LoaderPreload {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let words = start
            .exec
            .args
            .iter()
            .flat_map(|arg| arg.split_whitespace());
        let words = words.map(|word| word.trim_matches(['"', '\'', ';']));
        let mut libraries = words.filter_map(value);
        let library = libraries.find(|library| is_elsewhere(library))?;
        let title = format!(
            "{}, started by {}, has a program load {library} first",
            start.name,
            start.by()
        );
        Some(start.sighting(title))
    }

    fn opened(&self, open: &FileOpen<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        if !open.write || open.path != "etc/ld.so.preload" {
            return None;
        }
        Some(Sighting::of_file(
            open,
            format!("{} writes {}", actor.name(), open.path),
        ))
    }
}

fn value(word: &str) -> Option<&str> {
    VARIABLES.iter().find_map(|name| word.strip_prefix(name))
}

/// Whether any of several libraries lies where none should.
fn is_elsewhere(value: &str) -> bool {
    let mut paths = value.split(':').map(|path| path.trim_matches(['"', '\'']));
    paths.any(|path| path.contains('/') && !LIBRARIES.iter().any(|folder| path.starts_with(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_libraries_of_the_system_are_loaded_first_without_a_word() {
        assert_eq!(value("LD_PRELOAD=./x.so"), Some("./x.so"));
        assert_eq!(value("XLD_PRELOAD=./x.so"), None);
        for silent in [
            "",
            "libjemalloc.so.2",
            "/usr/lib/libjemalloc.so.2",
            "/lib/a.so:/opt/b.so",
        ] {
            assert!(!is_elsewhere(silent), "{silent}");
        }
        for told in [
            "./x.so",
            "/tmp/x.so",
            "/usr/lib/a.so:/dev/shm/b.so",
            "\"/tmp/x\"",
        ] {
            assert!(is_elsewhere(told), "{told}");
        }
    }
}
