//! Bills of materials: what is scanned directly, and through the document that was written of it, has
//! the same packages.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::fabric::tidewaiter_binary;

/// Scans a target and writes these documents of it.
fn scan(target: &str, home: &Path, outputs: &[(&str, &Path)]) {
    let mut command = Command::new(tidewaiter_binary());
    command.args(["scan", target, "--quiet", "--allow-incomplete"]);
    command.args(["--exit-code", "0", "--cache-dir"]);
    command.arg(home.join("cache"));
    for (format, path) in outputs {
        command.args(["--output", &format!("{format}={}", path.display())]);
    }
    let output = command.output().expect("tidewaiter runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{target}: {stderr}");
}

fn read(path: &Path) -> Value {
    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    let bytes = std::fs::read(path).expect("the report is there");
    serde_json::from_slice(&bytes).expect("a report is JSON")
}

/// Directories of this one, sorted.
fn directories(of: &Path) -> Vec<PathBuf> {
    let entries = of.read_dir().expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
    paths.sort();
    paths
}

/// The test data of every analyzer as directories, and the sample images where they are.
fn fixtures() -> Vec<String> {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/analyzers/testdata");
    let of_each = directories(&testdata).into_iter();
    let good = of_each
        .map(|of| of.join("good"))
        .filter(|good| good.is_dir());
    let mut fixtures: Vec<String> = good.map(|good| format!("dir:{}", good.display())).collect();
    assert!(fixtures.len() > 40, "{fixtures:?}");
    #[expect(
        clippy::disallowed_methods,
        reason = "where a test finds sample data is its own matter"
    )]
    let data = std::env::var("TIDEWAITER_TEST_DATA");
    if let Ok(data) = data {
        let images = directories(&Path::new(&data).join("images")).into_iter();
        // Of several platforms a document is written each.
        let images = images.filter(|image| !image.ends_with("alpine-3.19-multiarch"));
        fixtures.extend(images.map(|image| format!("oci:{}", image.display())));
    }
    fixtures
}

#[test]
fn every_fixture_has_the_same_packages_through_its_own_documents() {
    let home = testkit::temp_dir();
    let at = |name: &str| home.path().join(name);
    let (direct, through) = (at("direct.json"), at("through.json"));
    let documents = [
        ("cyclonedx", at("document.cdx.json")),
        ("spdx-json", at("document.spdx.json")),
    ];
    let mut compared = 0;
    for fixture in fixtures() {
        let mut outputs = vec![("json", direct.as_path())];
        outputs.extend(
            documents
                .iter()
                .map(|(format, path)| (*format, path.as_path())),
        );
        scan(&fixture, home.path(), &outputs);
        let expected = read(&direct);
        for (format, document) in &documents {
            let target = format!("sbom:{}", document.display());
            scan(&target, home.path(), &[("json", &through)]);
            let found = read(&through);
            for part in ["/packages", "/target/os", "/target/layers"] {
                assert_eq!(
                    found.pointer(part),
                    expected.pointer(part),
                    "{fixture} as {format}: {part}"
                );
            }
        }
        compared += expected["packages"].as_array().expect("packages").len();
    }
    assert!(compared > 100, "{compared}");
}
