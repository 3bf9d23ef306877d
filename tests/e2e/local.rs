//! `tidewaiter scan`, which needs no server.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use testkit::{Image, ImageBuilder, debian_layer, python_layer};

use crate::fabric::{Advisory, tidewaiter_binary};

fn tidewaiter(home: &Path) -> Command {
    let mut command = Command::new(tidewaiter_binary());
    command
        .env("XDG_CACHE_HOME", home)
        .env("DOCKER_CONFIG", home)
        .stdin(Stdio::null());
    command
}

fn run(home: &Path, arguments: &[&str]) -> Output {
    tidewaiter(home)
        .args(arguments)
        .output()
        .expect("tidewaiter runs")
}

fn vulnerable() -> Image {
    ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(
            python_layer(&[("requests", "2.19.1")]).build(),
            "RUN pip install requests",
        )
        .build()
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let home = testkit::temp_dir();
    let layout = home.path().join("image");
    testkit::Artifact::from(vulnerable()).write_layout(&layout, "latest");
    let target = format!("oci:{}", layout.display());
    let code = |arguments: &[&str]| {
        let output = run(home.path(), arguments);
        let text = format!(
            "{arguments:?}\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.code(), text)
    };
    let check = |arguments: &[&str], expected: i32| {
        let (code, text) = code(arguments);
        assert_eq!(code, Some(expected), "{text}");
    };
    check(&["scan", &target], 3);
    check(&["scan", &target, "--allow-incomplete"], 0);
    let advisories = home.path().join("advisories-in");
    Advisory::requests().write(&advisories);
    let advisories = advisories.display().to_string();
    check(&["db", "import", &advisories], 0);
    // A few records say nothing about the rest; only a whole feed does.
    check(&["scan", &target, "--severity", "low"], 2);
    check(&["db", "import", &advisories, "--replace"], 0);
    check(&["db", "status"], 0);
    check(&["scan", &target], 2);
    check(&["scan", &target, "--exit-code", "9"], 9);
    check(&["scan", &target, "--severity", "low"], 2);
    check(&["scan", "oci:/no/such/directory"], 4);
    check(&["scan", "127.0.0.1:1/no/registry:1"], 4);
    check(&["scan", &target, "--timeout", "0s"], 5);
    check(&["scan"], 1);
    check(&["no-such-command"], 1);
    check(&["--help"], 0);
    check(&["policy", "test"], 0);
}

#[test]
fn the_json_report_has_the_fields_of_the_contract() {
    let home = testkit::temp_dir();
    let layout = home.path().join("image");
    testkit::Artifact::from(vulnerable()).write_layout(&layout, "latest");
    let output = run(
        home.path(),
        &[
            "scan",
            &layout.display().to_string(),
            "--format",
            "json",
            "--quiet",
        ],
    );
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(report["schema"], "tidewaiter.report/1");
    for field in [
        "tool",
        "created_at",
        "target",
        "analyzers",
        "advisories",
        "packages",
        "vulnerabilities",
        "secrets",
        "misconfigurations",
        "malware",
        "licenses",
        "tampered",
        "gaps",
        "verdict",
    ] {
        assert!(report.get(field).is_some(), "{field} is missing");
    }
    let packages = report["packages"].as_array().expect("packages");
    let requests = packages
        .iter()
        .find(|package| package["name"] == "requests");
    assert_eq!(requests.expect("requests is found")["version"], "2.19.1");
}

#[test]
fn eight_scans_run_side_by_side_with_one_cache() {
    let home = testkit::temp_dir();
    let layout = home.path().join("image");
    testkit::Artifact::from(vulnerable()).write_layout(&layout, "latest");
    let target = layout.display().to_string();
    let scan = || {
        tidewaiter(home.path())
            .args(["scan", &target, "--format", "json", "--quiet"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tidewaiter starts")
    };
    for round in 0..2 {
        let scans: Vec<_> = (0..8).map(|_| scan()).collect();
        let mut packages = Vec::new();
        for scan in scans {
            let output = scan.wait_with_output().expect("tidewaiter ends");
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(3), "round {round}: {stderr}");
            let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
            packages.push(report["packages"].clone());
        }
        assert!(
            packages.windows(2).all(|pair| pair[0] == pair[1]),
            "round {round}"
        );
    }
}
