//! `tidewaiter scan`, which needs no server.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::Instant,
};

use serde_json::{Value, json};
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

/// How often an import is killed.
const KILLS: u32 = 10;
/// So many records that an import has a middle.
const RECORDS: usize = 1_500;

#[test]
fn an_import_that_is_killed_leaves_the_advisories_as_they_were() {
    let home = testkit::temp_dir();
    let (old, new) = (home.path().join("old"), home.path().join("new"));
    Advisory::requests().write(&old);
    write_many(&new);
    let replacement = [
        "db",
        "import",
        &new.display().to_string(),
        "--feed",
        "test",
        "--replace",
    ]
    .map(ToOwned::to_owned);
    let status = || {
        let output = run(home.path(), &["db", "status"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let imported = run(
        home.path(),
        &[
            "db",
            "import",
            &old.display().to_string(),
            "--feed",
            "test",
            "--replace",
        ],
    );
    assert!(imported.status.success(), "{imported:?}");
    let before = status();
    assert!(before.starts_with("revision 1 "), "{before}");
    let elsewhere = testkit::temp_dir();
    let began = Instant::now();
    let whole = tidewaiter(elsewhere.path()).args(&replacement).output();
    assert!(whole.expect("tidewaiter runs").status.success());
    let took = began.elapsed();

    let mut in_the_middle = 0;
    for kill in 1..=KILLS {
        let mut import = tidewaiter(home.path())
            .args(&replacement)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tidewaiter starts");
        std::thread::sleep(took * kill / (KILLS + 1));
        let has_ended = import.try_wait().expect("it can be asked").is_some();
        import.kill().expect("it can be killed");
        import.wait().expect("it can be reaped");
        let after = status();
        if after == before {
            in_the_middle += u32::from(!has_ended);
            continue;
        }
        // It was faster than the one that was measured, or done and about to end.
        assert!(after.starts_with("revision 2 "), "{after}");
        break;
    }
    assert!(in_the_middle > 0, "no import was killed in time");
    let imported = tidewaiter(home.path()).args(&replacement).output();
    let imported = imported.expect("tidewaiter runs");
    assert!(imported.status.success(), "{imported:?}");
    let after = status();
    assert!(after.contains(&format!(" {RECORDS} records")), "{after}");
}

/// Writes records of many packages.
fn write_many(dir: &Path) {
    std::fs::create_dir_all(dir).expect("a directory");
    for number in 0..RECORDS {
        let id = format!("CVE-2026-{number}");
        let record = json!({
            "id": id,
            "affected": [{
                "package": {"ecosystem": "PyPI", "name": format!("package-{number}")},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2"}]}],
            }],
        });
        let file = dir.join(format!("{id}.json"));
        std::fs::write(file, record.to_string()).expect("a record");
    }
}
