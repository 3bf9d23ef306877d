//! Secrets and their baseline, Dockerfiles, benchmarks.

use std::path::{Path, PathBuf};

use chassis::files::read_bounded;
use serde_json::Value;

use crate::world::{World, shown};

/// A directory with a secret in it; the secret is put together here, so that it stands nowhere.
fn with_secret(world: &World) -> (String, String) {
    let secret = ["glp", "at-", "k3Jd9sQ2xLw8Zr5Tn1Vb"].concat();
    world.write(
        "root/etc/os-release",
        "ID=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm\n",
    );
    world.write("root/app/settings", format!("token: {secret}\n"));
    (format!("dir:{}", shown(&world.path("root"))), secret)
}

/// All files below a directory, with what is in them.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in directory.read_dir().expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let bytes = read_bounded(&path, 64 << 20).expect("it can be read");
            all.push((path, bytes));
        }
    }
    all
}

fn rules(report: &Value) -> Vec<&str> {
    let reasons = report["verdict"]["reasons"].as_array();
    let rules = reasons.into_iter().flatten();
    rules.filter_map(|reason| reason["rule"].as_str()).collect()
}

#[test]
fn a_baseline_accepts_a_secret_until_its_day() {
    let world = World::new();
    let (target, secret) = with_secret(&world);
    let report = world.report(&[&target]);
    assert_eq!(report["secrets"][0]["rule"], "gitlab-personal-token");
    assert!(rules(&report).contains(&"secret"), "{report}");
    assert!(!report.to_string().contains(&secret));
    // Not even a log of everything tells it.
    let logged = world.run(&["--log", "trace", "scan", &target, "--cache-dir", "fresh"]);
    assert!(logged.stderr.contains("TRACE") || logged.stderr.contains("DEBUG"));
    assert!(!(logged.stderr + &logged.stdout).contains(&secret));
    let kept = files(&world.path("fresh"));
    assert!(!kept.is_empty());
    for (path, bytes) in kept {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(&secret), "{}", path.display());
    }

    let baseline = shown(&world.path("known.yaml"));
    world.write("known.yaml", "secrets: []\n");
    let ended = world.run(&["scan", &target, "--secret-baseline", &baseline]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("known.yaml.key"), "{}", ended.stderr);
    world.write("known.yaml.key", "0123456789abcdef0123456789abcdef\n");
    let named = world.report(&[&target, "--secret-baseline", &baseline]);
    let fingerprint = &named["secrets"][0]["fingerprint"];
    // Another key gives another name.
    assert_ne!(fingerprint, &report["secrets"][0]["fingerprint"]);

    let known = |expires: &str| {
        format!(
            "secrets:\n  - fingerprint: {fingerprint}\n    reason: test bench\n    \
             author: ada@example.com\n    expires: {expires}\n"
        )
    };
    world.write("known.yaml", known("2999-12-31"));
    let accepted = world.report(&[&target, "--secret-baseline", &baseline]);
    let waived = &accepted["secrets"][0]["waived"];
    assert_eq!(waived["reason"], "test bench");
    let source = waived["source"].as_str().unwrap_or_default();
    assert!(source.starts_with("secret baseline "), "{source}");
    assert!(!rules(&accepted).contains(&"secret"), "{accepted}");
    world.write("known.yaml", known("2020-01-01"));
    let ended = world.report(&[&target, "--secret-baseline", &baseline]);
    assert!(rules(&ended).contains(&"secret"), "{ended}");
    assert!(rules(&ended).contains(&"expired-waiver"), "{ended}");
}

#[test]
fn a_baseline_is_made_of_a_report() {
    let world = World::new();
    let (target, _) = with_secret(&world);
    world.stdout(&["secrets", "key", "known.yaml.key"]);
    let key = world.stdout(&["secrets", "key", "known.yaml.key"]);
    assert_eq!(key.trim().len(), 16, "{key}");
    world.write("known.yaml", "secrets: []\n");
    let flags = ["--secret-baseline", "known.yaml"];
    let report = world.report(&[&[target.as_str()], &flags[..]].concat());
    world.write("report.json", report.to_string());
    let made = world.stdout(&[
        "secrets",
        "baseline",
        "report.json",
        "--reason",
        "a: \"b\"",
        "--author",
        "ada",
        "--expires",
        "2999-12-31",
    ]);
    world.write("known.yaml", made);
    let accepted = world.report(&[&[target.as_str()], &flags[..]].concat());
    assert_eq!(accepted["secrets"][0]["waived"]["reason"], "a: \"b\"");
    let bad = world.run(&[
        "secrets",
        "baseline",
        "known.yaml",
        "--reason",
        "r",
        "--author",
        "a",
        "--expires",
        "2999-12-31",
    ]);
    assert_eq!(bad.code, Some(1));
}

#[test]
fn rules_are_listed_with_those_of_the_configuration() {
    let world = World::new();
    let own =
        "{id: acme, title: Acme token, advice: revoke it, keywords: [acme_], regex: 'acme_[0-9]+'}";
    let config = format!(
        "scanner:\n  analyzers:\n    secrets:\n      rules: [{own}]\n      disable: [slack-webhook]\n"
    );
    let file = shown(&world.write("config.yaml", config));
    let listed = world.stdout(&["--config", &file, "secrets", "rules"]);
    assert!(listed.contains("Acme token"), "{listed}");
    let slack = listed.lines().find(|line| line.contains("slack-webhook"));
    assert!(
        slack.is_some_and(|line| line.contains("disabled")),
        "{slack:?}"
    );
    let listed = world.stdout(&["secrets", "rules", "-f", "json"]);
    let listed: Value = serde_json::from_str(&listed).expect("it is JSON");
    assert!(listed.as_array().is_some_and(|rules| rules.len() >= 150));
}

#[test]
fn a_dockerfile_is_checked_before_it_is_built() {
    let world = World::new();
    let file = world.write(
        "build/Dockerfile",
        "FROM debian\nRUN curl https://example.org/a | sh\nEXPOSE 22\n",
    );
    let report = world.report(&[&shown(&file)]);
    let found = report["misconfigurations"].as_array();
    let found: Vec<_> = found
        .into_iter()
        .flatten()
        .filter_map(|one| one["id"].as_str())
        .collect();
    for id in [
        "latest-base",
        "pipe-to-shell",
        "ssh-server",
        "user-root",
        "no-healthcheck",
    ] {
        assert!(found.contains(&id), "{id}: {found:?}");
    }
    assert_eq!(report["verdict"]["decision"], "allow");
    assert_eq!(report["gaps"].as_array().map(Vec::len), Some(0));
    let secret = ["glp", "at-", "k3Jd9sQ2xLw8Zr5Tn1Vb"].concat();
    world.write(
        "build/Dockerfile",
        format!("FROM debian:12\nENV A={secret}\n"),
    );
    let ended = world.run(&["scan", &shown(&file)]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(!ended.stdout.contains(&secret));
}

#[test]
fn what_is_not_asked_for_is_not_looked_for_and_said() {
    let world = World::new();
    let (target, secret) = with_secret(&world);
    let scan = |kinds: &[&str]| {
        let flags = ["scan", target.as_str(), "-f", "json"];
        let ended = world.run(&[&flags[..], kinds].concat());
        let report: Value = serde_json::from_str(&ended.stdout).expect("it is JSON");
        let found = report["secrets"].as_array().expect("it has a list").len();
        assert!(!ended.stdout.contains(&secret) && !ended.stderr.contains(&secret));
        (found, ended.code, ended.stderr)
    };
    let (found, code, said) = scan(&["--scanners", "vuln,secret"]);
    assert_eq!((found, code), (1, Some(2)), "{said}");
    assert!(
        said.contains("not looked for: ") && !said.contains("secrets"),
        "{said}"
    );
    let (found, code, said) = scan(&["--scanners", "vuln"]);
    assert_eq!(found, 0, "{said}");
    assert_ne!(code, Some(2), "{said}");
    assert!(
        said.contains("not looked for: ") && said.contains("secrets"),
        "{said}"
    );
    let (found, _, said) = scan(&[]);
    assert_eq!(found, 1, "{said}");
    assert!(!said.contains("not looked for: "), "{said}");
    let wrong = world.run(&["scan", &target, "--scanners", "everything"]);
    assert_eq!(wrong.code, Some(1), "{}", wrong.stderr);
}

#[test]
fn a_benchmark_is_printed_clause_by_clause() {
    let world = World::new();
    let (target, _) = with_secret(&world);
    let ended = world.run(&["scan", &target, "--compliance", "docker-cis"]);
    assert!(
        ended.stdout.contains("CIS Docker Benchmark"),
        "{}",
        ended.stdout
    );
    for (clause, status) in [
        // Nobody wrote how a directory is to run.
        ("4.1 ", "not applicable"),
        ("4.8 ", "pass"),
        ("4.10 ", "fail"),
    ] {
        let mut lines = ended.stdout.lines();
        let line = lines.find(|line| line.trim_start().starts_with(clause));
        let line = line.unwrap_or_default();
        assert!(line.contains(status), "{clause}: {line}");
    }
    let flags = ["--compliance", "nist-800-190", "-f", "json"];
    let ended = world.run(&[&["scan", &target], &flags[..]].concat());
    let document: Value = serde_json::from_str(&ended.stdout).expect("it is JSON");
    assert_eq!(document["schema"], "tidewaiter.compliance/1");
    let clauses = document["clauses"].as_array().expect("it has clauses");
    let secrets = clauses.iter().find(|one| one["clause"] == "4.1.4");
    assert_eq!(secrets.expect("it is there")["status"], "fail");
    let wrong = world.run(&["scan", &target, "--compliance", "docker-cis", "-f", "sarif"]);
    assert_eq!(wrong.code, Some(1));
}
