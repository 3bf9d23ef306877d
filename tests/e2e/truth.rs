//! Package lists against what the package managers' own tools say.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::Value;

use crate::fabric::tidewaiter_binary;

/// A package as (kind, name, version).
type Named = (String, String, String);

fn scan(target: &str) -> Value {
    let home = testkit::temp_dir();
    let output = Command::new(tidewaiter_binary())
        .args([
            "scan",
            target,
            "--format",
            "json",
            "--quiet",
            "--allow-incomplete",
        ])
        .env("XDG_CACHE_HOME", home.path())
        .output()
        .expect("tidewaiter runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

fn found(report: &Value) -> BTreeSet<Named> {
    let text =
        |package: &Value, field: &str| package[field].as_str().unwrap_or_default().to_owned();
    let packages = report["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|p| (text(p, "type"), text(p, "name"), text(p, "version")))
        .collect()
}

/// What is in an image beyond what its truth lists: a Go program that Debian built without modules,
/// which says its path and no more. The truth has its Debian package only.
const BEYOND: &[(&str, (&str, &str, &str))] = &[(
    "distroless-nats",
    ("golang", "github.com/nats-io/nats-server", "(devel)"),
)];

#[expect(clippy::print_stdout, reason = "a test says what it compared")]
fn compare(what: &str, truth: &BTreeSet<Named>, found: &BTreeSet<Named>) {
    let missing: Vec<_> = truth.difference(found).collect();
    let extra: Vec<_> = found.difference(truth).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{what}: missing {missing:?}, extra {extra:?}"
    );
    println!("{what}: {} packages, none missing, none extra", truth.len());
}

#[test]
fn sample_images_hold_exactly_what_their_truth_says() {
    #[expect(
        clippy::disallowed_methods,
        reason = "where a test finds sample data is its own matter"
    )]
    let Ok(data) = std::env::var("TIDEWAITER_TEST_DATA") else {
        println!("skipped: TIDEWAITER_TEST_DATA names no directory with sample images");
        return;
    };
    let images = Path::new(&data).join("images");
    let names = [
        "alpine-3.15",
        "alpine-python-app",
        "alpine-node-app",
        "distroless-nats",
        "rpm-centos7-bdb",
        "rpm-mariner2-bdb",
        "rpm-mariner2-sqlite",
        "rpm-sle15-ndb",
        "scratch-go",
        "scratch-rust",
    ];
    for name in names {
        let truth_file = images.join(format!("{name}.truth.json"));
        #[expect(clippy::disallowed_methods, reason = "a test's own file")]
        let Ok(truth) = std::fs::read(&truth_file) else {
            println!("skipped {name}: {} is not there", truth_file.display());
            continue;
        };
        let truth: Vec<Value> = serde_json::from_slice(&truth).expect("a list of packages");
        let text =
            |package: &Value, field: &str| package[field].as_str().unwrap_or_default().to_owned();
        let truth: BTreeSet<Named> = truth
            .iter()
            .map(|p| (text(p, "ecosystem"), text(p, "name"), text(p, "version")))
            .collect();
        let beyond = BEYOND.iter().filter(|(image, _)| *image == name);
        let beyond = beyond.map(|(_, (kind, package, version))| {
            [kind, package, version]
                .map(|text| (*text).to_owned())
                .into()
        });
        let truth = truth.into_iter().chain(beyond).collect();
        let report = scan(&format!("oci:{}", images.join(name).display()));
        compare(name, &truth, &found(&report));
    }
}

/// The demonstration image of the quickstart: Debian by debootstrap, and packages by pip and npm.
#[test]
fn a_debian_image_holds_exactly_what_dpkg_pip_and_npm_list() {
    let missing: Vec<&str> = ["dpkg-query", "python3", "npm", "tar"]
        .into_iter()
        .filter(|program| Command::new(program).arg("--version").output().is_err())
        .collect();
    if !missing.is_empty() {
        println!("skipped: {} is not installed", missing.join(", "));
        return;
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "where a test finds sample data is its own matter"
    )]
    let Ok(demo) = std::env::var("TIDEWAITER_DEMO_IMAGE") else {
        println!("skipped: TIDEWAITER_DEMO_IMAGE names no image of deploy/demo/make-image.sh");
        return;
    };
    let report = scan(&format!("oci:{demo}"));
    let found = found(&report);
    let of = |kind: &str| -> BTreeSet<Named> {
        found
            .iter()
            .filter(|(found, _, _)| found == kind)
            .cloned()
            .collect()
    };
    let dir = testkit::temp_dir();
    unpack(Path::new(&demo), &report, dir.path());
    compare("dpkg-query", &debian_truth(dir.path()), &of("deb"));
    compare(
        "pip list",
        &pip_truth(&dir.path().join("opt/app/python")),
        &of("pypi"),
    );
    compare(
        "npm ls --all",
        &npm_truth(&dir.path().join("opt/app/node")),
        &of("npm"),
    );

    let sources = debian_sources(dir.path());
    let packages = report["packages"].as_array().expect("packages");
    for package in packages.iter().filter(|package| package["type"] == "deb") {
        let name = package["name"].as_str().unwrap_or_default();
        let source = package["source_name"].as_str().unwrap_or(name).to_owned();
        let version = package["source_version"]
            .as_str()
            .or(package["version"].as_str());
        let expected = (
            name.to_owned(),
            source,
            version.unwrap_or_default().to_owned(),
        );
        assert!(sources.contains(&expected), "{expected:?}");
    }
}

/// Unpacks the image's layers as `tar` does it.
fn unpack(layout: &Path, report: &Value, dir: &Path) {
    let layers = report["target"]["layers"].as_array().expect("layers");
    for layer in layers {
        let digest = layer["digest"]
            .as_str()
            .unwrap_or_default()
            .trim_start_matches("sha256:");
        let status = Command::new("tar")
            .args(["--extract", "--gzip", "--exclude=./dev/*", "--file"])
            .arg(layout.join("blobs/sha256").join(digest))
            .arg("--directory")
            .arg(dir)
            .status()
            .expect("tar runs");
        assert!(status.success(), "layer {digest} can be unpacked");
    }
}

fn pip_truth(dir: &Path) -> BTreeSet<Named> {
    let output = Command::new("python3")
        .args([
            "-m",
            "pip",
            "list",
            "--disable-pip-version-check",
            "--format",
            "json",
            "--path",
        ])
        .arg(dir)
        .output()
        .expect("pip runs");
    let list: Vec<Value> = serde_json::from_slice(&output.stdout).expect("pip prints JSON");
    let text =
        |package: &Value, field: &str| package[field].as_str().unwrap_or_default().to_owned();
    list.iter()
        .map(|p| ("pypi".to_owned(), text(p, "name"), text(p, "version")))
        .collect()
}

fn npm_truth(dir: &Path) -> BTreeSet<Named> {
    let output = Command::new("npm")
        .args(["ls", "--all", "--json", "--prefix"])
        .arg(dir)
        .output()
        .expect("npm runs");
    let tree: Value = serde_json::from_slice(&output.stdout).expect("npm prints JSON");
    let mut found = BTreeSet::new();
    let mut rest = vec![&tree];
    while let Some(node) = rest.pop() {
        for (name, package) in node["dependencies"].as_object().into_iter().flatten() {
            let version = package["version"].as_str().unwrap_or_default();
            found.insert(("npm".to_owned(), name.clone(), version.to_owned()));
            rest.push(package);
        }
    }
    found
}

fn debian_truth(root: &Path) -> BTreeSet<Named> {
    let lines = dpkg_query(root, "deb\\t${Package}\\t${Version}\\n");
    lines.into_iter().collect()
}

fn debian_sources(root: &Path) -> BTreeSet<Named> {
    let lines = dpkg_query(
        root,
        "${Package}\\t${source:Package}\\t${source:Version}\\n",
    );
    lines.into_iter().collect()
}

fn dpkg_query(root: &Path, format: &str) -> Vec<Named> {
    let output = Command::new("dpkg-query")
        .arg(format!(
            "--admindir={}",
            root.join("var/lib/dpkg").display()
        ))
        .args(["--show", &format!("--showformat={format}")])
        .output()
        .expect("dpkg-query runs");
    let text = String::from_utf8(output.stdout).expect("dpkg-query prints UTF-8");
    let line = |line: &str| {
        let mut fields = line.split('\t').map(str::to_owned);
        Some((fields.next()?, fields.next()?, fields.next()?))
    };
    text.lines().filter_map(line).collect()
}
