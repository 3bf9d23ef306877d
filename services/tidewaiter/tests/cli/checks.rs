//! Checks of the operator's own: in the report, in the verdict, beside a benchmark, in `policy test`.

use serde_json::Value;

use crate::world::{World, shown};

const POLICY: &str = "
name: default
defaults: { missing_advisories: allow, max_advisory_age: never }
checks:
  - id: owner-label
    title: nobody is named who answers for the image
    severity: medium
    clauses: ['CIS Docker 4.2', 'House rules 1']
    when: { image: { lacks_labels: [com.example.team] } }
    remediation: add `LABEL com.example.team=…`
  - id: few-layers
    title: the image has too many layers
    severity: low
    when: { image: { layers_more_than: 100 } }
    remediation: join instructions
rules:
  - name: owner
    when: { misconfiguration: { rules: [owner-label] } }
    then: deny
tests:
  - name: nobody answers for it
    expect: deny
    rules: [owner]
    checks: [owner-label]
";

fn found(all: &Value) -> Vec<&str> {
    let all = all.as_array().into_iter().flatten();
    all.filter_map(|one| one["id"].as_str()).collect()
}

#[test]
fn own_checks_stand_beside_the_built_in_ones() {
    let world = World::new();
    world.advisories();
    let target = world.layout();
    let policy = shown(&world.write("policy.yaml", POLICY));
    let report = world.report(&[&target, "--policy", &policy]);
    let ids = found(&report["misconfigurations"]);
    assert!(ids.contains(&"owner-label"), "{ids:?}");
    assert!(ids.contains(&"user-root"), "{ids:?}");
    assert!(!ids.contains(&"few-layers"), "{ids:?}");
    let reason = &report["verdict"]["reasons"][0];
    assert_eq!(reason["rule"], "owner", "{report}");
    assert_eq!(reason["remediation"], "add `LABEL com.example.team=…`");

    let scan = [
        "scan",
        &target,
        "--policy",
        &policy,
        "--compliance",
        "docker-cis",
    ];
    let table = world.run(&scan).stdout;
    for (start, status) in [
        // A clause of a benchmark fails because of it.
        ("4.2 ", "fail"),
        ("owner-label ", "fail"),
        ("few-layers ", "pass"),
    ] {
        let line = table
            .lines()
            .find(|line| line.trim_start().starts_with(start));
        assert!(
            line.is_some_and(|line| line.contains(status)),
            "{start}\n{table}"
        );
    }
    let json = world.run(&[&scan[..], &["-f", "json"]].concat()).stdout;
    let document: Value = serde_json::from_str(&json).expect("it is JSON");
    let checks = &document["checks"];
    assert_eq!(found(checks), ["owner-label", "few-layers"]);
    assert_eq!(checks[0]["status"], "fail");
    assert_eq!(
        checks[0]["evidence"][0],
        "the image: it has no label `com.example.team`"
    );
    assert_eq!(checks[1]["status"], "pass");
}

#[test]
fn policies_are_tested_with_their_checks() {
    let world = World::new();
    world.write("policy.yaml", POLICY);
    let tested = world.stdout(&["policy", "test", "policy.yaml"]);
    assert!(tested.contains("1 passed, 0 failed"), "{tested}");
    assert!(
        tested.contains("note    `few-layers` fires in none of them"),
        "{tested}"
    );
    assert!(!tested.contains("`owner"), "{tested}");
    world.write(
        "policy.yaml",
        POLICY.replace("checks: [owner-label]", "checks: []"),
    );
    let wrong = world.run(&["policy", "test", "policy.yaml"]);
    assert_eq!(wrong.code, Some(1));
    assert!(
        wrong
            .stdout
            .contains("got deny by owner failing owner-label"),
        "{}",
        wrong.stdout
    );
}
