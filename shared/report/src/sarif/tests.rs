use std::collections::HashSet;

use model::{Decision, Severity};
use serde_json::Value;

use crate::{
    Format, Options, sarif,
    tests::{
        samples::{empty, full, vulnerability},
        schemas::{document, document_of_all, hostile, index},
    },
};

fn run_of(report: &model::Report, options: &Options) -> Value {
    document(report, Format::Sarif, options)["runs"][0].take()
}

fn texts(run: &Value) -> Vec<String> {
    let said = &run["invocations"][0]["toolExecutionNotifications"];
    let said = said.as_array().unwrap();
    let text = |one: &Value| one["message"]["text"].as_str().unwrap().to_owned();
    said.iter().map(text).collect()
}

#[test]
fn a_run_with_everything() {
    let run = run_of(&full(), &Options::default());
    insta::assert_json_snapshot!("rule", run["tool"]["driver"]["rules"][0]);
    insta::assert_json_snapshot!("result", run["results"][0]);
    let short: Vec<_> = run["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let place = &one["locations"][0]["physicalLocation"];
            format!(
                "{} {} {}:{} {}",
                one["level"].as_str().unwrap(),
                one["ruleId"].as_str().unwrap(),
                place["artifactLocation"]["uri"].as_str().unwrap(),
                place["region"]["startLine"],
                one["message"]["text"].as_str().unwrap(),
            )
        })
        .collect();
    insta::assert_snapshot!(short.join("\n"), @"
    error CVE-2025-0001 var/lib/dpkg/status:1 openssl 3.0.11-1~deb12u1 has CVE-2025-0001 (critical): fixed in 3.0.11-1~deb12u2
    error malware/miners/xmrig usr/bin/.x:1 the rule xmrig of miners fires on the file sha256:3b9c358f36f0a31b6ad3e14f309c7cf198ac9246e8316f9ce543d5b19ac02b80
    error CVE-2025-0003 var/lib/dpkg/status:1 zlib1g 1:1.2.13 has CVE-2025-0003 (high): no fixed version is known
    error secret/aws-access-key app/.env:3 AWS access key: AKIA****; a later layer deletes the file, but it is still in the image. revoke it
    warning misconfiguration/TW-ROOT image-config:1 runs as root: no USER. add USER
    note CVE-2025-0002 var/lib/dpkg/status:1 openssl 3.0.11-1~deb12u1 has CVE-2025-0002 (low): no fixed version is known
    note tampered-file usr/bin/openssl:1 the file is not as its package deb/openssl made it
    ");
    insta::assert_snapshot!(texts(&run).join("\n"), @"
    file of 2 GiB, limit 1 GiB
    not listed: 2 findings that waivers or VEX documents accept
    ");
    assert_eq!(
        run["automationDetails"]["id"],
        "tidewaiter/registry.example/team/app/linux/amd64/"
    );
    assert_eq!(run["invocations"][0]["executionSuccessful"], true);
}

#[test]
fn an_incomplete_scan_was_no_success() {
    let mut report = empty();
    report.verdict.decision = Decision::Incomplete;
    let run = run_of(&report, &Options::default());
    assert_eq!(run["invocations"][0]["executionSuccessful"], false);
}

#[test]
fn what_is_accepted_is_listed_only_on_request_and_then_suppressed() {
    let all = Options {
        show_suppressed: true,
        ..Options::default()
    };
    let run = run_of(&full(), &all);
    let suppressed: Vec<_> = run["results"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["suppressions"][0]["justification"].as_str())
        .collect();
    assert_eq!(
        suppressed,
        [
            "not reachable (ann, until 2026-02-01, policy.yaml)",
            "not_affected: component_not_present (vendor.vex.json)"
        ]
    );
    assert!(
        !texts(&run)
            .iter()
            .any(|text| text.starts_with("not listed"))
    );
}

#[test]
fn results_are_named_the_same_over_versions_of_the_package() {
    let mut report = full();
    let prints = |report: &model::Report| -> HashSet<String> {
        let run = run_of(report, &Options::default());
        let results = run["results"].as_array().unwrap();
        let print = |one: &Value| {
            let prints = &one["partialFingerprints"];
            assert_eq!(
                prints["primaryLocationLineHash"],
                prints["tidewaiterFinding/v1"]
            );
            prints["primaryLocationLineHash"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        results.iter().map(print).collect()
    };
    let before = prints(&report);
    assert_eq!(before.len(), 7, "each finding has its own");
    for found in &mut report.vulnerabilities {
        found.installed_version.push_str(".1");
        found.layer = model::Digest::of(b"another");
    }
    assert_eq!(prints(&report), before);
}

#[test]
fn the_worst_results_are_kept_and_the_rest_is_said() {
    let mut report = empty();
    for number in 0..sarif::RESULTS_MAX + 100 {
        let severity = if number % 2 == 0 {
            Severity::Low
        } else {
            Severity::High
        };
        let id = format!("CVE-2025-{number:05}");
        report
            .vulnerabilities
            .push(vulnerability(&id, "openssl", "1", severity));
    }
    let run = run_of(&report, &Options::default());
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), sarif::RESULTS_MAX);
    let errors = results.iter().filter(|one| one["level"] == "error").count();
    assert_eq!(
        errors,
        usize::midpoint(sarif::RESULTS_MAX, 100),
        "no high one is left out"
    );
    assert_eq!(results[0]["level"], "error");
    assert_eq!(
        texts(&run),
        ["truncated: the 5000 worst of 5100 results are listed, 100 are left out"]
    );
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), sarif::RESULTS_MAX, "no rule without a result");

    report.vulnerabilities.truncate(sarif::RESULTS_MAX);
    let run = run_of(&report, &Options::default());
    assert_eq!(run["results"].as_array().unwrap().len(), sarif::RESULTS_MAX);
    assert!(texts(&run).is_empty());
}

#[test]
fn a_rule_is_written_once_and_has_the_severity_of_its_worst_result() {
    let mut report = empty();
    let mut first = vulnerability("CVE-1", "a", "1", Severity::Low);
    let second = vulnerability("CVE-1", "b", "1", Severity::Critical);
    first.cvss.clone_from(&full().vulnerabilities[4].cvss);
    report.vulnerabilities = vec![first, second];
    let run = run_of(&report, &Options::default());
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0]["properties"]["security-severity"], "9.5");
    assert_eq!(rules[0]["defaultConfiguration"]["level"], "error");
    let levels: Vec<_> = run["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["ruleIndex"].as_u64().unwrap(),
                one["level"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(levels, [(0, "error"), (0, "note")]);
}

#[test]
fn a_score_never_contradicts_the_severity() {
    let check = |severity: Severity, score: f64, expected: Option<&str>| {
        let mut report = empty();
        let mut found = vulnerability("CVE-1", "a", "1", severity);
        found.cvss = full().vulnerabilities[4].cvss.clone();
        found.cvss[0].score = score;
        report.vulnerabilities = vec![found];
        let run = run_of(&report, &Options::default());
        let properties = &run["tool"]["driver"]["rules"][0]["properties"];
        assert_eq!(
            properties["security-severity"].as_str(),
            expected,
            "{severity} {score}"
        );
    };
    check(Severity::Critical, 9.8, Some("9.8"));
    check(Severity::Low, 9.8, Some("2.0"));
    check(Severity::Critical, f64::INFINITY, Some("9.5"));
    check(Severity::High, 7.0, Some("7.0"));
    check(Severity::Negligible, 5.0, Some("0.1"));
    check(Severity::Unknown, 9.8, None);
}

#[test]
fn more_platforms_than_a_file_may_have_are_said_and_the_worst_are_kept() {
    let mut reports = index(25);
    for report in reports.reports.iter_mut().take(10) {
        report.verdict.decision = Decision::Allow;
    }
    let log = document_of_all(&reports, Format::Sarif);
    let runs = log["runs"].as_array().unwrap();
    assert_eq!(runs.len(), sarif::RUNS_MAX);
    let denied = |run: &&Value| run["properties"]["verdict"]["decision"] == "deny";
    assert_eq!(runs.iter().filter(denied).count(), 15);
    let said = texts(runs.last().unwrap());
    assert_eq!(
        said.last().unwrap(),
        "truncated: 5 more platforms are not in this file, which may have 20: linux/arch5, \
         linux/arch6, linux/arch7, linux/arch8, linux/arch9"
    );
    let categories: HashSet<_> = runs
        .iter()
        .map(|run| run["automationDetails"]["id"].as_str())
        .collect();
    assert_eq!(categories.len(), sarif::RUNS_MAX);
}

#[test]
fn hostile_text_is_neither_markup_nor_a_path_elsewhere() {
    let run = run_of(&hostile(), &Options::default());
    for result in run["results"].as_array().unwrap() {
        let text = result["message"]["text"].as_str().unwrap();
        assert!(!text.contains("](") && !text.contains("{0"), "{text}");
        let place = &result["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().unwrap();
        assert!(!uri.contains([':', '\u{0}', ' ', '"']), "{uri}");
        assert!(place["region"]["startLine"].as_u64().unwrap() > 0);
    }
    for rule in run["tool"]["driver"]["rules"].as_array().unwrap() {
        assert_eq!(rule["helpUri"], Value::Null);
        let markdown = rule["help"]["markdown"].as_str().unwrap();
        assert!(
            !markdown.contains("<b>") && !markdown.contains("](0"),
            "{markdown}"
        );
    }
}

#[test]
fn severities_that_are_not_asked_for_are_left_out() {
    let options = Options {
        severities: vec![Severity::Critical],
        ..Options::default()
    };
    let run = run_of(&full(), &options);
    let ids: Vec<_> = run["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["ruleId"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        ["CVE-2025-0001", "malware/miners/xmrig", "tampered-file"]
    );
}
