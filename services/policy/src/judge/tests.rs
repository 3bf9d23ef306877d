use model::{Decision, Facts, Reason};
use proptest::prelude::{Just, Strategy, prop_assert_eq, proptest};

use super::{Judgement, judge};
use crate::{cases::Given, document::Policy, run_tests};

const RULES: [&str; 5] = [
    include_str!("../../rules/default.yaml"),
    include_str!("../../rules/known-exploited.yaml"),
    include_str!("../../rules/secure-build.yaml"),
    include_str!("../../rules/licenses.yaml"),
    include_str!("../../rules/house.yaml"),
];

fn judged(policy: &str, given: &str) -> Judgement {
    let given: Given = serde_saphyr::from_str(given).unwrap();
    judged_given(&Policy::parse(policy).unwrap(), &given)
}

fn judged_given(policy: &Policy, given: &Given) -> Judgement {
    let (assessment, findings) = given.facts();
    let facts = Facts {
        assessment: &assessment,
        findings: &findings,
        target: &given.target(),
    };
    judge(
        policy,
        &facts,
        &given.repositories,
        given.at,
        assessment.advisories.data_at(),
    )
}

fn printed(reasons: &[Reason]) -> String {
    let line = |reason: &Reason| {
        let Reason {
            rule,
            decision,
            message,
            remediation,
            fingerprints,
        } = reason;
        format!(
            "{decision} {rule} [{}]: {message} => {remediation}",
            fingerprints.len()
        )
    };
    reasons.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_rule_file_passes_its_own_cases() {
    for yaml in RULES {
        let results = run_tests(yaml).unwrap();
        assert!(!results.is_empty());
        let failures: Vec<_> = results
            .iter()
            .filter_map(crate::CaseResult::failure)
            .collect();
        assert!(failures.is_empty(), "{failures:#?}");
    }
}

/// What a document may say, as the message says that refuses a word that nobody knows.
fn words(when: &str) -> Vec<String> {
    let yaml = format!("name: default\nrules: [{{ name: a, when: {when}, then: deny }}]");
    let error = Policy::parse(&yaml).unwrap_err().to_string();
    let (_, words) = error.split_once("expected one of ").expect(&error);
    let (words, _) = words.split_once(" at line").expect(&error);
    words.split(", ").map(ToOwned::to_owned).collect()
}

/// The fields of a condition; none where it has none.
fn fields(condition: &str) -> Vec<String> {
    if condition == "advisories_older_than" {
        return Vec::new();
    }
    let fields = words(&format!("{{ {condition}: {{ no_such_field: 1 }} }}"));
    // Only failed checks have clauses, and elsewhere the word is refused.
    let has = |field: &&String| condition == "misconfiguration" || *field != "clauses";
    fields
        .iter()
        .filter(has)
        .map(|field| format!("{condition}.{field}"))
        .collect()
}

#[test]
fn every_condition_and_each_of_its_fields_fires_in_a_case() {
    let mut shown = std::collections::BTreeSet::new();
    for yaml in RULES {
        assert_eq!(crate::untested(yaml).unwrap(), Vec::<String>::new());
        // None is untested, so that every condition in the file fires.
        let document: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
        let parts = ["rules", "checks"].map(|part| document[part].as_array());
        for part in parts.into_iter().flatten().flatten() {
            for (condition, filter) in part["when"].as_object().unwrap() {
                let fields = filter.as_object().into_iter().flatten();
                shown.extend(fields.map(|(field, _)| format!("{condition}.{field}")));
                shown.insert(condition.clone());
            }
        }
    }
    let conditions = words("{ no_such_condition: {} }");
    assert!(conditions.contains(&"image".to_owned()), "{conditions:?}");
    let fields = conditions.iter().flat_map(|condition| fields(condition));
    let all: Vec<_> = conditions.iter().cloned().chain(fields).collect();
    let silent: Vec<_> = all.iter().filter(|word| !shown.contains(*word)).collect();
    assert!(silent.is_empty(), "no case shows {silent:?}");
    assert!(all.len() > 30, "{all:?}");
}

#[test]
fn a_rule_that_no_case_makes_fire_is_named() {
    let yaml = "
        name: default
        checks: [{ id: c, title: t, severity: low, when: { image: { root: true } }, remediation: r }]
        rules: [{ name: a, when: { malware: {} }, then: deny }]
        tests: [{ name: n, expect: allow, checks: [] }]
        ";
    assert_eq!(crate::untested(yaml).unwrap(), ["a", "c"]);
    let wrong = yaml.replace("checks: []", "checks: [c]");
    let [result] = run_tests(&wrong).unwrap().try_into().unwrap();
    assert_eq!(
        result.failure().unwrap(),
        "`n`: expected allow failing c, got allow"
    );
}

#[test]
fn no_rule_file_is_forgotten_here() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), RULES.len());
}

#[test]
fn reasons_name_the_rule_the_evidence_and_the_remedy() {
    let judgement = judged(
        RULES[0],
        "
        vulnerabilities:
          - { id: CVE-2024-0002, package: zlib1g, version: 1.2, severity: critical }
          - { id: CVE-2024-0001, package: libssl3, version: 3.0.1, severity: high, fixed: 3.0.2 }
          - { id: CVE-2024-0003, package: libssl3, version: 3.0.1, severity: critical, fixed: 3.0.5, kev: true }
          - { id: CVE-2024-0004, package: bash, version: 5.2, severity: low, fixed: 5.3 }
        gaps: [{ code: truncated, hides: entries }]
        ",
    );
    insta::assert_snapshot!(printed(&judgement.verdict.reasons), @"
    deny fixable-high-or-critical [2]: 2 vulnerabilities of severity high or worse with a fix: CVE-2024-0003 (critical, known to be exploited) in libssl3 3.0.1, fixed in 3.0.5; CVE-2024-0001 (high) in libssl3 3.0.1, fixed in 3.0.2 => upgrade libssl3 3.0.1 to 3.0.5
    incomplete hidden-content [0]: 1 gap: truncated: made up => build and push the image again; what cannot be read cannot be judged
    warn unfixed-high-or-critical [1]: 1 vulnerability of severity high or worse without a fix: CVE-2024-0002 (critical) in zlib1g 1.2 => no fix is known for zlib1g: replace it, or accept the risk with a waiver
    ");
    insta::assert_debug_snapshot!(judgement.counts, @"
    Counts {
        critical: 2,
        high: 1,
        medium: 0,
        low: 1,
        negligible: 0,
        unknown: 0,
        fixable: 3,
    }
    ");
}

#[test]
fn long_evidence_is_cut_and_counted() {
    let one =
        |n| format!("{{ id: CVE-2024-{n:04}, package: p{n}, severity: critical, fixed: '2' }}");
    let all: Vec<_> = (0..25).map(one).collect();
    let judgement = judged(RULES[0], &format!("vulnerabilities: [{}]", all.join(", ")));
    let [reason] = judgement.verdict.reasons.as_slice() else {
        panic!("one reason")
    };
    assert_eq!(reason.fingerprints.len(), 25);
    assert!(
        reason.message.ends_with("and 15 more"),
        "{}",
        reason.message
    );
    assert!(
        reason.remediation.ends_with("and 15 more"),
        "{}",
        reason.remediation
    );
}

#[test]
fn waivers_mark_what_they_accept_and_bound_the_answer() {
    let judgement = judged(
        RULES[1],
        "
        repositories: [registry.example/production/reports]
        vulnerabilities:
          - { id: GHSA-1, aliases: [cve-2024-0009], package: libxml2, severity: critical, fixed: '3' }
          - { id: CVE-2024-0010, package: libxml2, severity: low }
        ",
    );
    insta::assert_debug_snapshot!((&judgement.waived.values().collect::<Vec<_>>(), judgement.waivers_end, judgement.data_age_s_max, judgement.verdict.valid_until, judgement.counts.total()), @r#"
    (
        [
            Waived {
                reason: "the parser is never given foreign documents",
                author: "ada@example.com",
                expires: 2026-03-31,
                source: "policy production",
            },
        ],
        Some(
            2026-04-01T00:00:00Z,
        ),
        Some(
            172800,
        ),
        Some(
            2026-01-03T00:00:00Z,
        ),
        1,
    )
    "#);
}

#[test]
fn a_waiver_that_ran_out_is_named() {
    let judgement = judged(
        RULES[1],
        "
        at: 2026-04-01T00:00:00Z
        repositories: [registry.example/production/reports]
        vulnerabilities: [{ id: CVE-2024-0009, package: libxml2, severity: high }]
        ",
    );
    insta::assert_snapshot!(printed(&judgement.verdict.reasons), @"
    warn high-or-critical [1]: 1 vulnerability of severity high or worse: CVE-2024-0009 (high) in libxml2 1.0 => no fix is known for libxml2: replace it, or accept the risk with a waiver
    warn expired-waiver [1]: waivers ran out and no longer apply: CVE-2024-0009 in libxml2 by ada@example.com until 2026-03-31 (the parser is never given foreign documents) => fix what they accepted, or renew them
    ");
    assert_eq!(judgement.waivers_end, None);
}

#[test]
fn marks_reach_the_findings_of_a_report() {
    let policy = "
        name: default
        waivers:
          - { packages: ['lib*'], reason: r, author: a, expires: 2026-01-01 }
        ";
    let given: Given = serde_saphyr::from_str(
        "vulnerabilities: [{ id: A, package: libx, severity: high }, { id: B, package: x, severity: high }]",
    )
    .unwrap();
    let judgement = judged_given(&Policy::parse(policy).unwrap(), &given);
    let (mut assessment, mut findings) = given.facts();
    judgement.complete(&mut assessment.vulnerabilities, &mut findings);
    let waived: Vec<_> = assessment
        .vulnerabilities
        .iter()
        .map(|v| v.waived.is_some())
        .collect();
    assert_eq!(waived, [true, false]);
}

#[test]
fn a_demonstration_without_feeds_is_possible_by_configuration() {
    let open = "name: default\ndefaults: { missing_advisories: warn, max_advisory_age: never }";
    let judgement = judged(open, "no_advisories: true");
    insta::assert_snapshot!(printed(&judgement.verdict.reasons), @"warn missing-advisories [0]: there are no advisory data: revision 0 => fetch advisories for these packages: `tidewaiter db update`");
    assert_eq!(judgement.verdict.valid_until, None);
}

#[test]
fn the_strictest_limit_of_age_bounds_the_answer() {
    let policy = "
        name: default
        rules: [{ name: fresh, when: { advisories_older_than: 2d }, then: deny }]
        ";
    assert_eq!(
        judged(policy, "advisory_age: 1d").data_age_s_max,
        Some(2 * 86_400)
    );
    let policy = policy.replace("deny", "warn");
    assert_eq!(
        judged(&policy, "advisory_age: 1d").data_age_s_max,
        Some(7 * 86_400)
    );
}

#[test]
fn rules_in_another_order_decide_the_same() {
    let given: Given = serde_saphyr::from_str(
        "
        repositories: [registry.example/production/reports]
        advisory_age: 30h
        vulnerabilities:
          - { id: CVE-2021-44228, package: linux-libc-dev, severity: critical, kev: true }
          - { id: CVE-2024-0009, package: libxml2, severity: critical, kev: true }
          - { id: CVE-2024-0003, package: bash, severity: high, fixed: '2' }
        gaps: [{ code: truncated, hides: secrets }, { code: undecided-version }]
        ",
    )
    .unwrap();
    let policy = Policy::parse(RULES[1]).unwrap();
    let rules = policy.rules.clone();
    let sorted = |judgement: Judgement| {
        let mut reasons = judgement.verdict.reasons;
        reasons.sort_by(|one, other| one.rule.cmp(&other.rule));
        (judgement.verdict.decision, reasons, judgement.waived)
    };
    let expected = sorted(judged_given(&policy, &given));
    proptest!(|(some in Just(rules).prop_shuffle())| {
        let shuffled = Policy { rules: some, ..policy.clone() };
        prop_assert_eq!(sorted(judged_given(&shuffled, &given)), expected.clone());
    });
    // And any part of the rules decides no graver than all of them.
    proptest!(|(some in proptest::sample::subsequence(policy.rules.clone(), 0..=policy.rules.len()))| {
        let part = Policy { rules: some, ..policy.clone() };
        assert!(judged_given(&part, &given).verdict.decision <= expected.0);
    });
}

#[test]
fn what_is_held_against_an_image_itself_names_what_it_is_and_what_to_do() {
    let judgement = judged(
        RULES[4],
        "{ user: '0:0', layers: 61, base: docker.io/library/debian:11 }",
    );
    let reasons = printed(&judgement.verdict.reasons);
    for part in [
        "deny no-root [1]: the image: its user is `0:0` => end the Dockerfile with a USER that is not root",
        "deny no-old-base [1]: the image: it is built on docker.io/library/debian:11 => build it on another image",
        "warn few-layers [1]: the image: it has 61 layers, more than 60 => join instructions",
        "deny house-rules [1]: 1 failed check: the image is not built on one of the house (high) => build it on an image",
    ] {
        assert!(reasons.contains(part), "{part}\n{reasons}");
    }
}

#[test]
fn own_checks_and_the_end_of_support_are_findings_that_waivers_accept() {
    let policy = "
        name: default
        checks: [{ id: labels, title: t, severity: high, clauses: [House 1], when: { image: { lacks_labels: [a, b] } }, remediation: r }]
        rules: [{ name: high, when: { misconfiguration: { severity: high } }, then: deny }]
        ";
    let given = "{ labels: { a: x }, support_ends: 2026-01-01T00:00:00Z }";
    let judgement = judged(policy, given);
    let ids: Vec<_> = judgement
        .checks
        .iter()
        .map(|check| check.id.as_str())
        .collect();
    assert_eq!(ids, ["end-of-life-os", "labels"]);
    let own = &judgement.checks[1];
    assert_eq!(
        (own.clauses.as_slice(), own.evidence.as_str()),
        (
            &["House 1".to_owned()][..],
            "the image: it has no label `b`"
        )
    );
    let high = judgement
        .verdict
        .reasons
        .iter()
        .find(|reason| reason.rule == "high");
    assert_eq!(high.unwrap().fingerprints.len(), 2);
    let waivers: Vec<_> = judgement
        .checks
        .iter()
        .map(|check| {
            format!(
                "{{ fingerprint: {}, reason: r, author: a, expires: 2026-12-31 }}",
                check.fingerprint
            )
        })
        .collect();
    let policy = format!("{policy}\n        waivers: [{}]", waivers.join(", "));
    let accepted = judged(&policy, given);
    let mut findings = model::Findings::default();
    accepted.complete(&mut [], &mut findings);
    let waived = findings
        .misconfigurations
        .iter()
        .map(|one| one.waived.is_some());
    assert_eq!(waived.collect::<Vec<_>>(), [true, true]);
    assert!(
        accepted
            .verdict
            .reasons
            .iter()
            .all(|reason| reason.rule != "high")
    );
}

#[test]
fn an_image_gets_old_at_a_time_that_is_known_before() {
    let policy = "
        name: default
        rules: [{ name: old, when: { image: { older_than: 30d, root: false } }, then: deny }]
        ";
    let check = |given: &str, expected: Option<&str>| {
        let judgement = judged(policy, given);
        let at = judgement.ages_at.map(|at| at.to_string());
        assert_eq!(at.as_deref(), expected, "{given}");
        judgement.verdict.decision
    };
    let built = "created: 2025-12-15T00:00:00Z";
    let end = Some("2026-01-14T00:00:00Z");
    assert_eq!(check(&format!("{{ {built} }}"), end), Decision::Allow);
    let at = "at: 2026-01-14T00:00:00Z";
    assert_eq!(check(&format!("{{ {built}, {at} }}"), None), Decision::Deny);
    // Time alone is not enough here.
    assert_eq!(
        check(&format!("{{ {built}, user: root }}"), None),
        Decision::Allow
    );
    // Who does not say when it was built is of no age.
    assert_eq!(check(&format!("{{ {at} }}"), None), Decision::Allow);
}

#[test]
fn of_what_has_no_config_nothing_is_held_against_the_config() {
    let policy = Policy::parse(RULES[4]).unwrap();
    let given = Given::default();
    let (assessment, findings) = given.facts();
    let target = model::Target {
        platform: model::Platform::default(),
        config: model::RuntimeConfig::default(),
        ..given.target()
    };
    let facts = Facts {
        assessment: &assessment,
        findings: &findings,
        target: &target,
    };
    let judgement = judge(
        &policy,
        &facts,
        &given.repositories,
        given.at,
        assessment.advisories.data_at(),
    );
    assert_eq!(printed(&judgement.verdict.reasons), "");
}
