//! What every crate has.

use std::collections::HashSet;

use toml::{Table, Value};

use crate::repo::{at, files, is_rust, members, text, verdict};

/// Keys of `[package]` that come from the workspace.
const INHERITED: &[&str] = &["version", "edition", "rust-version", "license", "publish"];

#[test]
fn every_member_takes_the_lints_of_the_workspace() {
    let mut wrong = Vec::new();
    for member in members() {
        if at(&member.manifest, &["lints", "workspace"]).and_then(Value::as_bool) != Some(true) {
            wrong.push(format!(
                "{}/Cargo.toml: add `[lints]` `workspace = true`",
                member.path
            ));
        }
        for key in INHERITED {
            let inherits = at(&member.manifest, &["package", key, "workspace"]);
            if inherits.and_then(Value::as_bool) != Some(true) {
                wrong.push(format!(
                    "{}/Cargo.toml: write `{key}.workspace = true`",
                    member.path
                ));
            }
        }
    }
    verdict("manifests", &wrong);
}

#[test]
fn every_member_is_named_as_its_folder() {
    let wrong: Vec<String> = members()
        .iter()
        .filter(|member| member.path.rsplit('/').next() != Some(&member.name))
        .map(|member| format!("{}: the package is called `{}`", member.path, member.name))
        .collect();
    verdict("names of packages", &wrong);
}

#[test]
fn every_dependency_is_listed_in_the_workspace() {
    let mut wrong = Vec::new();
    for member in members() {
        for dependency in member.dependencies() {
            if dependency.value.get("workspace").and_then(Value::as_bool) != Some(true) {
                wrong.push(format!(
                    "{}/Cargo.toml: `{name}`: put the version into `[workspace.dependencies]` and write `{name}.workspace = true`",
                    member.path,
                    name = dependency.name
                ));
            }
        }
    }
    verdict("versions of dependencies stand in one place", &wrong);
}

#[test]
fn every_dependency_is_used() {
    let (mut wrong, mut listed) = (Vec::new(), HashSet::new());
    for member in members() {
        let folder = format!("{}/", member.path);
        let sources = files()
            .iter()
            .filter(|file| file.starts_with(&folder) && is_rust(file));
        let words: HashSet<String> = sources
            .filter_map(|file| text(file))
            .flat_map(|text| words(&text).map(str::to_owned).collect::<Vec<_>>())
            .collect();
        for dependency in member.dependencies() {
            listed.insert(dependency.name.to_owned());
            if !words.contains(&dependency.name.replace('-', "_")) {
                wrong.push(format!(
                    "{}/Cargo.toml: nothing there names `{}`",
                    member.path, dependency.name
                ));
            }
        }
    }
    let root: Table = text("Cargo.toml")
        .expect("it is there")
        .parse()
        .expect("TOML");
    let versions = at(&root, &["workspace", "dependencies"]).and_then(Value::as_table);
    for name in versions.into_iter().flat_map(Table::keys) {
        // A crate of ours is listed for those who will want it.
        let ours = members().iter().any(|member| member.name == *name);
        if !ours && !listed.contains(name) {
            wrong.push(format!("Cargo.toml: no crate of ours depends on `{name}`"));
        }
    }
    verdict("dependencies that nothing uses", &wrong);
}

#[test]
fn no_library_but_the_model_has_doctests() {
    let mut wrong = Vec::new();
    for member in members().iter().filter(|member| member.name != "model") {
        let has_library = files().contains(&format!("{}/src/lib.rs", member.path));
        let doctest = at(&member.manifest, &["lib", "doctest"]).and_then(Value::as_bool);
        if has_library && doctest != Some(false) {
            wrong.push(format!(
                "{}/Cargo.toml: add `[lib]` `doctest = false`",
                member.path
            ));
        }
    }
    verdict("doctests", &wrong);
}

#[test]
fn every_crate_opens_with_a_sentence_that_says_what_it_is_for() {
    let mut wrong = Vec::new();
    for member in members() {
        let Some(entry) = member.entry() else {
            wrong.push(format!(
                "{}: neither src/lib.rs nor src/main.rs",
                member.path
            ));
            continue;
        };
        let text = text(&entry).unwrap_or_default();
        let doc = text.lines().map_while(|line| line.strip_prefix("//!"));
        let first: Vec<&str> = doc
            .map(str::trim)
            .take_while(|line| !line.is_empty())
            .collect();
        let first = first.join(" ");
        if first.len() < 30 || !first.contains(['.', ':']) || first.contains("written below") {
            wrong.push(format!(
                "{entry}: begin with `//!` and a sentence that says what it is for"
            ));
        }
    }
    verdict("first doc sentences", &wrong);
}

/// Names in a source.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
}
