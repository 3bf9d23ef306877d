//! What a source file may not be or hold.

use crate::repo::{extension, files, is_rust, is_testdata, root, text, verdict};

const LINES_MAX: usize = 800;

/// Files that may be longer, with the reason.
const LONG: &[(&str, &str)] = &[(
    "deploy/asyncapi.json",
    "made from the types of events, for those who read documents",
)];

/// What people write in, by extension; files without one are scripts and dot files.
const WRITTEN: &[&str] = &[
    "rs", "toml", "sh", "py", "md", "yaml", "yml", "js", "html", "css", "json", "service", "",
];

#[test]
fn no_file_is_too_long() {
    let mut wrong = Vec::new();
    for file in written().filter(|file| !is_testdata(file) && !is_generated(file)) {
        let lines = text(file).map_or(0, |text| text.lines().count());
        let is_listed = LONG.iter().any(|(listed, _)| listed == file);
        if lines > LINES_MAX && !is_listed {
            wrong.push(format!(
                "{file}: {lines} lines: split it by subject; over {LINES_MAX} only tables of equal entries may go, listed in tests/tidy/sources.rs"
            ));
        }
    }
    for (listed, reason) in LONG {
        if !files().iter().any(|file| file == listed) || reason.is_empty() {
            wrong.push(format!(
                "tests/tidy/sources.rs: `{listed}` is listed and gone, or has no reason"
            ));
        }
    }
    verdict("length of files", &wrong);
}

#[test]
fn modules_stand_beside_their_folder() {
    let wrong: Vec<String> = files()
        .iter()
        .filter(|file| file.ends_with("/mod.rs"))
        .map(|file| format!("{file}: call it `{}.rs`", file.trim_end_matches("/mod.rs")))
        .collect();
    verdict("no mod.rs", &wrong);
}

#[test]
fn nothing_is_left_for_later_without_an_issue() {
    // Written apart, so that this file does not find itself.
    let (fix, todo) = (concat!("FIX", "ME"), concat!("TO", "DO"));
    let mut wrong = Vec::new();
    for_each_line(|file, number, line| {
        if line.contains(fix) {
            wrong.push(format!(
                "{file}:{number}: `{fix}`: fix it, or file an issue"
            ));
        }
        for (start, _) in line.match_indices(todo) {
            let rest = &line[start + todo.len()..];
            let names_issue = rest
                .strip_prefix("(#")
                .and_then(|rest| rest.split_once(')'))
                .is_some_and(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            if !names_issue {
                wrong.push(format!(
                    "{file}:{number}: write `{todo}(#<issue>)`, or do it"
                ));
            }
        }
    });
    verdict("loose ends", &wrong);
}

#[test]
fn the_project_speaks_of_itself_alone() {
    let mut wrong = Vec::new();
    let root = root().to_str().unwrap_or_default();
    // A clone at `/src` tells nothing: too many texts have that in them.
    let is_telling = root.matches('/').count() > 1;
    let machine = ["/.cargo/registry/", "/.rustup/toolchains/", "/rustc/"];
    for_each_line(|file, number, line| {
        if is_telling && line.contains(root) {
            wrong.push(format!(
                "{file}:{number}: `{root}` is a path of this machine"
            ));
        }
        let found = machine.iter().find(|path| line.contains(**path));
        if let Some(path) = found.filter(|_| !file.starts_with("tests/tidy/")) {
            wrong.push(format!(
                "{file}:{number}: `{path}` is a path of a build machine"
            ));
        }
        if line.contains("../shared/") && !is_manifest_or_code(file) {
            wrong.push(format!(
                "{file}:{number}: `../shared/` is outside the project"
            ));
        }
    });
    verdict("no word of the machine it was made on", &wrong);
}

/// `../shared/` is also how a crate beside `shared/` names a file of it.
fn is_manifest_or_code(file: &str) -> bool {
    let inside = file.contains("/src/") || file.contains("/tests/");
    inside || extension(file) == "toml" || file.starts_with("tests/")
}

fn for_each_line(mut check: impl FnMut(&str, usize, &str)) {
    for file in written().filter(|file| !is_testdata(file) && !is_generated(file)) {
        let Some(text) = text(file) else { continue };
        for (index, line) in text.lines().enumerate() {
            check(file, index + 1, line);
        }
    }
}

fn written() -> impl Iterator<Item = &'static String> {
    files()
        .iter()
        .filter(|file| is_rust(file) || WRITTEN.contains(&extension(file)))
}

fn is_generated(file: &str) -> bool {
    file == "Cargo.lock" || file.starts_with("deploy/demo/advisories/")
}
