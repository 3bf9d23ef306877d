//! Every entry of a registry has test data and a row in its crate's documentation.

use crate::repo::{files, text, verdict};

/// A visible list of plug-ins.
struct Registry {
    /// The crate's folder.
    folder: &'static str,
    /// How the list is called.
    list: &'static str,
    /// Entries of a slice, or variants of an enum.
    form: Form,
    /// What shows that an entry was tried.
    proof: Proof,
}

enum Form {
    Slice,
    Enum,
}

/// What shows that an entry was tried; paths are from the crate's folder.
enum Proof {
    /// Good and bad input in `<folder>/<entry>/`, which a conformance test reads.
    Folder(&'static str),
    /// The entry is named in this file of tests.
    Tests(&'static str),
}

const REGISTRIES: &[Registry] = &[
    Registry {
        folder: "shared/analyzers",
        list: "ANALYZERS",
        form: Form::Slice,
        proof: Proof::Folder("testdata"),
    },
    Registry {
        folder: "shared/vulndb",
        list: "ECOSYSTEMS",
        form: Form::Slice,
        proof: Proof::Tests("src/ecosystems/tests.rs"),
    },
    Registry {
        folder: "services/gateway",
        list: "DECODERS",
        form: Form::Slice,
        proof: Proof::Folder("testdata"),
    },
    Registry {
        folder: "services/behavior",
        list: "DETECTORS",
        form: Form::Slice,
        proof: Proof::Folder("testdata"),
    },
    Registry {
        folder: "services/alerting",
        list: "SinkConfig",
        form: Form::Enum,
        proof: Proof::Tests("src/sinks/tests.rs"),
    },
];

#[test]
fn every_registry_entry_has_test_data_and_a_doc_row() {
    let mut wrong = Vec::new();
    for registry in REGISTRIES {
        let entries = entries(registry);
        if entries.is_empty() {
            wrong.push(format!(
                "{}: no list `{}`, or an empty one",
                registry.folder, registry.list
            ));
        }
        let doc = doc(registry);
        for entry in entries {
            if let Err(missing) = proven(registry, &entry) {
                wrong.push(missing);
            }
            let mut rows = doc.lines().filter_map(|line| line.split('`').nth(1));
            if !rows.any(|name| same(name, &entry)) {
                wrong.push(format!(
                    "{}/src: the doc with the table of {} has no row `{}`",
                    registry.folder,
                    registry.list,
                    snake(&entry)
                ));
            }
        }
    }
    verdict("plug-ins", &wrong);
}

fn proven(registry: &Registry, entry: &str) -> Result<(), String> {
    match registry.proof {
        Proof::Folder(folder) => {
            let data = format!("{}/{folder}/", registry.folder);
            let mut inside = files().iter().filter_map(|file| file.strip_prefix(&data));
            let found =
                inside.any(|rest| rest.split('/').next().is_some_and(|name| same(name, entry)));
            let name = snake(entry);
            found
                .then_some(())
                .ok_or(format!("{data}: add {name}/ with a good and a bad input"))
        }
        Proof::Tests(file) => {
            let path = format!("{}/{file}", registry.folder);
            let text = text(&path).unwrap_or_default();
            let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
            let found = words.any(|word| word == entry);
            found
                .then_some(())
                .ok_or(format!("{path}: no test names `{entry}`"))
        }
    }
}

/// The rows of all tables in the module docs of the registry's crate.
fn doc(registry: &Registry) -> String {
    let mut rows = String::new();
    for file in sources(registry) {
        let text = text(file).unwrap_or_default();
        for row in text.lines().filter(|line| line.starts_with("//! |")) {
            rows.push_str(row);
            rows.push('\n');
        }
    }
    rows
}

fn entries(registry: &Registry) -> Vec<String> {
    for file in sources(registry) {
        let text = text(file).unwrap_or_default();
        let found = match registry.form {
            Form::Slice => slice_entries(&text, registry.list),
            Form::Enum => enum_variants(&text, registry.list),
        };
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn sources(registry: &Registry) -> impl Iterator<Item = &'static String> {
    let prefix = format!("{}/src/", registry.folder);
    files().iter().filter(move |file| file.starts_with(&prefix))
}

/// The types that stand in `static NAME: … = &[…];`, as `Deb` of `&deb::Deb` and of `Deb::new`.
fn slice_entries(text: &str, list: &str) -> Vec<String> {
    let declared = ["static", "const"].iter().find_map(|word| {
        text.split_once(&format!("{word} {list}:"))
            .map(|(_, rest)| rest)
    });
    let body = declared
        .and_then(|rest| rest.split_once('='))
        .and_then(|(_, rest)| rest.split_once("];").map(|(body, _)| body));
    let code = body
        .unwrap_or_default()
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line));
    let code: String = code.collect();
    let types = code.split(',').filter_map(|entry| {
        let words = entry.split(|c: char| !c.is_alphanumeric() && c != '_');
        let mut types = words.filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()));
        types.rfind(|word| *word != "Box" && *word != "Arc")
    });
    types.map(ToOwned::to_owned).collect()
}

/// The variants of `enum NAME {…}`.
fn enum_variants(text: &str, list: &str) -> Vec<String> {
    let body = text
        .split_once(&format!("enum {list} {{"))
        .map(|(_, rest)| rest);
    let mut depth = 0_i32;
    let mut variants = Vec::new();
    for line in body.unwrap_or_default().lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        if depth == 0 && line.starts_with('}') {
            break;
        }
        if depth == 0 && line.starts_with(|c: char| c.is_ascii_uppercase()) {
            let end = line
                .find(|c: char| !c.is_alphanumeric())
                .unwrap_or(line.len());
            variants.push(line[..end].to_owned());
        }
        for c in line.chars() {
            depth += match c {
                '{' | '(' | '[' => 1,
                '}' | ')' | ']' => -1,
                _ => 0,
            };
        }
    }
    variants
}

/// `os_release`, `os-release` and `OsRelease` name the same entry.
fn same(name: &str, entry: &str) -> bool {
    let letters = |text: &str| -> String {
        text.chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_lowercase())
            .collect()
    };
    letters(name) == letters(entry)
}

fn snake(entry: &str) -> String {
    let mut name = String::new();
    for (index, c) in entry.chars().enumerate() {
        if c.is_ascii_uppercase() && index > 0 {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

#[test]
fn entries_are_found_in_lists_and_enums() {
    let list = "pub static LIST: &[fn(&Config) -> Box<dyn A>] = &[\n  Apk::new, // the first\n  os_release::OsRelease::new,\n];";
    assert_eq!(slice_entries(list, "LIST"), ["Apk", "OsRelease"]);
    let sinks = "pub enum SinkConfig {\n  /// Doc.\n  #[serde(x)]\n  Log(Log),\n  Webhook {\n    Url: u8,\n  },\n}\nenum B { C }";
    assert_eq!(enum_variants(sinks, "SinkConfig"), ["Log", "Webhook"]);
    assert!(same("os-release", "OsRelease"));
    assert_eq!(snake("OsRelease"), "os_release");
}
