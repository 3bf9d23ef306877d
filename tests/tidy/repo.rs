//! The repository as the rules see it: its files, its members, their manifests.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use toml::{Table, Value};

/// Folders that are not the project's.
const FOREIGN: &[&str] = &[".git", "target", "node_modules"];

/// A crate of the workspace.
pub(crate) struct Member {
    /// The package's name.
    pub(crate) name: String,
    /// The folder, from the root: `shared/model`.
    pub(crate) path: String,
    /// `Cargo.toml`.
    pub(crate) manifest: Table,
}

/// A kind of dependency.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Dev,
    Build,
}

/// A line of a dependency table.
pub(crate) struct Dependency<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
    pub(crate) value: &'a Value,
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        tests
            .parent()
            .expect("the tests stand in a folder of the root")
            .to_owned()
    });
    &ROOT
}

/// Every file of the project, from the root, in order.
pub(crate) fn files() -> &'static [String] {
    static FILES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut files = Vec::new();
        walk(Path::new(""), &mut files);
        files.sort();
        files
    });
    &FILES
}

/// Every crate of the workspace, in order of its folder.
pub(crate) fn members() -> &'static [Member] {
    static MEMBERS: LazyLock<Vec<Member>> = LazyLock::new(|| {
        let folders = files()
            .iter()
            .filter_map(|file| file.strip_suffix("/Cargo.toml"));
        let members = folders
            .filter(|folder| !folder.ends_with("/fuzz"))
            .map(|folder| {
                let text = text(&format!("{folder}/Cargo.toml")).expect("a manifest is text");
                let manifest: Table = text.parse().expect("a manifest is TOML");
                let name = at(&manifest, &["package", "name"]).and_then(Value::as_str);
                Member {
                    name: name.expect("a member has a name").to_owned(),
                    path: folder.to_owned(),
                    manifest,
                }
            });
        members.collect()
    });
    &MEMBERS
}

/// A file's text; `None` for files that are missing, large or not UTF-8.
pub(crate) fn text(path: &str) -> Option<String> {
    let file = File::open(root().join(path)).ok()?;
    let mut text = String::new();
    file.take(1 << 20).read_to_string(&mut text).ok()?;
    Some(text)
}

/// A value below a table.
pub(crate) fn at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (last, above) = path.split_last()?;
    let mut table = table;
    for key in above {
        table = table.get(*key)?.as_table()?;
    }
    table.get(*last)
}

/// Whether `path` is in somebody's `testdata`.
pub(crate) fn is_testdata(path: &str) -> bool {
    path.split('/')
        .any(|part| part == "testdata" || part == "corpus")
}

/// Ends a rule: nothing may be wrong.
pub(crate) fn verdict(rule: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{rule}:\n  {}\n", wrong.join("\n  "));
}

// === impl Member ===

impl Member {
    /// Every line of its dependency tables, those of single targets too.
    pub(crate) fn dependencies(&self) -> Vec<Dependency<'_>> {
        let mut found = Vec::new();
        collect(&self.manifest, &mut found);
        let targets = self.manifest.get("target").and_then(Value::as_table);
        for target in targets.into_iter().flat_map(|targets| targets.values()) {
            if let Some(target) = target.as_table() {
                collect(target, &mut found);
            }
        }
        found
    }

    /// The crate's first file.
    pub(crate) fn entry(&self) -> Option<String> {
        let candidates = ["src/lib.rs", "src/main.rs"];
        let mut candidates = candidates
            .iter()
            .map(|file| format!("{}/{file}", self.path));
        candidates.find(|file| files().contains(file))
    }

    /// Its sources, without its tests' and examples'.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &'static String> {
        let prefix = format!("{}/src/", self.path);
        files()
            .iter()
            .filter(move |file| file.starts_with(&prefix) && is_rust(file))
    }
}

/// Whether it is a Rust source.
pub(crate) fn is_rust(path: &str) -> bool {
    extension(path) == "rs"
}

/// What follows the last dot of a file's name; empty for `.gitignore`.
pub(crate) fn extension(path: &str) -> &str {
    let extension = Path::new(path).extension();
    extension
        .and_then(|found| found.to_str())
        .unwrap_or_default()
}

fn collect<'a>(table: &'a Table, out: &mut Vec<Dependency<'a>>) {
    let kinds = [
        ("dependencies", Kind::Normal),
        ("dev-dependencies", Kind::Dev),
        ("build-dependencies", Kind::Build),
    ];
    for (key, kind) in kinds {
        let lines = table.get(key).and_then(Value::as_table);
        for (name, value) in lines.into_iter().flatten() {
            out.push(Dependency { kind, name, value });
        }
    }
}

fn walk(folder: &Path, out: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(root().join(folder)) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let path = folder.join(&name);
        if kind.is_dir() {
            if !FOREIGN.contains(&name.as_str()) {
                walk(&path, out);
            }
        } else if let Some(path) = path.to_str() {
            out.push(path.to_owned());
        }
    }
}
