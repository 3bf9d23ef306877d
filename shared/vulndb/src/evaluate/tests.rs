//! The rules of evaluation, one by one.

use model::{Confidence, Package, PackageType};
use serde_json::json;

use super::{Evaluation, Installed, Why, evaluate, explain, pseudo};
use crate::{Advisory, ShardAdvisory, family, matching::tests::package};

/// The part of a record with these `affected[]` fields for a package of the ecosystem.
fn part(ecosystem: &str, fields: &str) -> Option<ShardAdvisory> {
    let json = format!(
        r#"{{"id": "X-1", "affected": [{{"package": {{"ecosystem": "{ecosystem}", "name": "p"}}, {fields}}}]}}"#
    );
    let parts = Advisory::parse(json.as_bytes())
        .expect("a record")
        .split("test");
    parts.into_iter().next().map(|(_, part)| part)
}

fn check(ecosystem: &str, fields: &str, installed: &str) -> String {
    let kind = family(ecosystem).expect("a family").package_type();
    check_package(ecosystem, fields, &package(kind, "p", installed))
}

fn check_package(ecosystem: &str, fields: &str, package: &Package) -> String {
    let Some(part) = part(ecosystem, fields) else {
        return "no verdict".to_owned();
    };
    let family = family(ecosystem).expect("a family");
    let installed = Installed::of(family, package, &package.version);
    match evaluate(family, &part, package, &installed) {
        Evaluation::Unaffected(Why::Outside) => "unaffected".to_owned(),
        Evaluation::Unaffected(why) => format!("unaffected: {why}"),
        Evaluation::Never => "never".to_owned(),
        Evaluation::Affected(hit) => format!(
            "affected: {}; {:?} {}",
            hit.range,
            hit.fix_state,
            hit.fixed.join(" ")
        )
        .trim_end()
        .to_owned(),
        Evaluation::Undecided(why) => format!("undecided: {why}"),
    }
}

fn range(events: &str) -> String {
    format!(r#""ranges": [{{"type": "ECOSYSTEM", "events": [{events}]}}]"#)
}

#[test]
fn git_ranges_are_passed_over_and_the_others_united() {
    let fields = r#""ranges": [
        {"type": "GIT", "events": [{"introduced": "0"}, {"fixed": "abcdef"}]},
        {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.2.5"}]},
        {"type": "ECOSYSTEM", "events": [{"introduced": "2.3.0"}, {"fixed": "2.3.2"}]}]"#;
    assert_eq!(
        check("PyPI", fields, "1.0.0"),
        "affected: < 2.2.5; Fixed 2.2.5 2.3.2"
    );
    assert_eq!(
        check("PyPI", fields, "2.3.1"),
        "affected: >= 2.3.0, < 2.3.2; Fixed 2.3.2"
    );
    assert_eq!(check("PyPI", fields, "2.2.5"), "unaffected");
}

#[test]
fn listed_versions_are_compared_by_the_ecosystem() {
    let fields = r#""versions": ["1.0", "0.1-bulbasaur"]"#;
    assert_eq!(
        check("PyPI", fields, "1.0.0"),
        "affected: its list of versions; Unknown"
    );
    assert_eq!(
        check("PyPI", fields, "0.1-bulbasaur"),
        "affected: lists `0.1-bulbasaur`; Unknown"
    );
    assert_eq!(check("PyPI", fields, "1.0.1"), "unaffected");
}

#[test]
fn empty_touching_and_overlapping_windows_are_read_as_meant() {
    let empty = range(r#"{"introduced": "0.10.0"}, {"fixed": "0.10.0"}"#);
    assert_eq!(check("npm", &empty, "0.10.0"), "unaffected");
    let touching = range(
        r#"{"introduced": "3.0"}, {"fixed": "3.1.1"}, {"introduced": "3.1.1"}, {"fixed": "3.2"}"#,
    );
    assert_eq!(
        check("PyPI", &touching, "3.1.1"),
        "affected: >= 3.1.1, < 3.2; Fixed 3.2"
    );
    assert_eq!(
        check("PyPI", &touching, "3.0"),
        "affected: >= 3.0, < 3.1.1; Fixed 3.2"
    );
    let overlapping = range(
        r#"{"introduced": "0"}, {"fixed": "2.11.7"}, {"introduced": "2.11"}, {"fixed": "2.12.4"}"#,
    );
    assert_eq!(
        check("PyPI", &overlapping, "2.11.6"),
        "affected: < 2.11.7; Fixed 2.12.4"
    );
}

#[test]
fn several_windows_name_the_fix_of_their_own_line() {
    let fields = range(
        r#"{"introduced": "2.9.0"}, {"fixed": "2.9.12"}, {"introduced": "2.12.0"}, {"fixed": "2.12.2"}"#,
    );
    assert_eq!(
        check("npm", &fields, "2.9.3"),
        "affected: >= 2.9.0, < 2.9.12; Fixed 2.9.12 2.12.2"
    );
}

#[test]
fn fixed_zero_says_never() {
    let fields = range(r#"{"introduced": "0"}, {"fixed": "0"}"#);
    assert_eq!(check("Alpine:v3.15", &fields, "1.0-r0"), "never");
}

#[test]
fn an_inverted_window_is_cut_in_distributions_and_undecided_elsewhere() {
    let fields = range(r#"{"introduced": "5.28.0"}, {"fixed": "5.26.3-r0"}"#);
    assert_eq!(check("Alpine:v3.15", &fields, "5.30.0-r0"), "unaffected");
    assert_eq!(
        check("Alpine:v3.15", &fields, "5.26.2-r0"),
        "affected: >= 5.28.0, < 5.26.3-r0; Fixed 5.26.3-r0"
    );
    let fields = range(r#"{"introduced": "5.28.0"}, {"fixed": "5.26.3"}"#);
    assert_eq!(
        check("npm", &fields, "5.30.0"),
        "undecided: its range ends before it begins"
    );
    assert_eq!(check("npm", &fields, "5.27.0"), "unaffected");
}

#[test]
fn last_affected_and_open_windows_know_no_fix() {
    let last = range(r#"{"introduced": "1.0"}, {"last_affected": "1.5"}"#);
    assert_eq!(
        check("PyPI", &last, "1.5.0"),
        "affected: >= 1.0, <= 1.5; Unknown"
    );
    assert_eq!(check("PyPI", &last, "1.5.1"), "unaffected");
    let open = range(r#"{"introduced": "0"}"#);
    assert_eq!(
        check("Debian:12", &open, "1.2-3"),
        "affected: all versions; NotFixed"
    );
}

#[test]
fn neither_ranges_nor_versions_is_no_verdict() {
    assert_eq!(check("PyPI", r#""ranges": []"#, "1.0"), "no verdict");
    assert_eq!(check("PyPI", r#""versions": null"#, "1.0"), "no verdict");
}

#[test]
fn what_cannot_be_compared_is_undecided() {
    let fields = range(r#"{"introduced": "0"}, {"fixed": "2.0"}"#);
    assert_eq!(
        check("PyPI", &fields, "weird"),
        "undecided: version `weird` cannot be compared"
    );
    assert_eq!(
        check("PyPI", &fields, " "),
        "undecided: the package has no version"
    );
    let fields = range(r#"{"introduced": "1.0"}, {"fixed": "<end-of-life>"}"#);
    assert_eq!(
        check("Debian:12", &fields, "1.2-3"),
        "undecided: version `<end-of-life>` of its range cannot be compared"
    );
    assert_eq!(check("Debian:12", &fields, "0.9-1"), "unaffected");
}

#[test]
fn events_that_do_not_alternate_are_sorted() {
    let fields = range(r#"{"fixed": "1.5"}, {"introduced": "1.0"}"#);
    assert_eq!(
        check("npm", &fields, "1.2.0"),
        "affected: >= 1.0, < 1.5; Fixed 1.5"
    );
    assert_eq!(check("npm", &fields, "1.6.0"), "unaffected");
}

#[test]
fn listed_versions_that_a_window_holds_are_not_kept() {
    let fields = format!(
        r#"{}, "versions": ["1.0", "1.9", "2.5"]"#,
        range(r#"{"introduced": "0"}, {"fixed": "2.0"}"#)
    );
    assert_eq!(part("PyPI", &fields).expect("a part").versions, ["2.5"]);
    assert_eq!(
        check("PyPI", &fields, "2.5.0"),
        "affected: its list of versions; Unknown"
    );
}

#[test]
fn records_for_other_operating_systems_find_nothing() {
    let fields = |specific: &str| {
        let range = range(r#"{"introduced": "0"}"#);
        format!(r#"{range}, "ecosystem_specific": {specific}"#)
    };
    let windows = fields(r#"{"affects": {"os": ["windows"], "arch": []}}"#);
    assert_eq!(
        check("npm", &windows, "1.0.0"),
        "unaffected: it is about other operating systems"
    );
    let both = fields(r#"{"affects": {"os": ["windows", "linux"]}}"#);
    assert!(check("npm", &both, "1.0.0").starts_with("affected"));
    let one_import = fields(r#"{"imports": [{"path": "a", "goos": ["windows"]}]}"#);
    assert!(check("npm", &one_import, "1.0.0").starts_with("unaffected"));
    let other_import =
        fields(r#"{"imports": [{"path": "a", "goos": ["windows"]}, {"path": "b"}]}"#);
    assert!(check("npm", &other_import, "1.0.0").starts_with("affected"));
}

#[test]
fn custom_ranges_take_the_place_of_a_range_that_says_all() {
    let fields = r#""ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}]}],
        "ecosystem_specific": {"custom_ranges": [{"type": "ECOSYSTEM",
            "events": [{"introduced": "0"}, {"fixed": "2.9.12"}, {"introduced": "2.10.0"}, {"fixed": "2.10.10"}]}]}"#;
    assert_eq!(
        check("npm", fields, "2.9.3"),
        "affected: < 2.9.12; Fixed 2.9.12 2.10.10"
    );
    assert_eq!(check("npm", fields, "2.12.0"), "unaffected");
    let malformed = fields.replace("[{\"type\": \"ECOSYSTEM\"", "[1, {\"type\": \"GIT\"");
    assert!(check("npm", &malformed, "2.12.0").starts_with("affected: all versions"));
}

#[test]
fn a_binary_package_that_is_not_listed_is_undecided() {
    let fields = format!(
        r#"{}, "ecosystem_specific": {{"binaries": [{{"binary_name": "libp1", "binary_version": "1"}}, {{"p-bin": "1"}}]}}"#,
        range(r#"{"introduced": "0"}, {"fixed": "2"}"#)
    );
    let check = |name: &str| {
        check_package(
            "Ubuntu:22.04:LTS",
            &fields,
            &package(PackageType::Deb, name, "1"),
        )
    };
    assert!(check("libp1").starts_with("affected") && check("p-bin").starts_with("affected"));
    assert_eq!(
        check("p-doc"),
        "undecided: its list of binary packages lacks `p-doc`"
    );
}

#[test]
fn every_window_is_explained() {
    let fields = format!(
        r#"{}, "versions": ["3.5"]"#,
        range(
            r#"{"introduced": "0"}, {"fixed": "2.0"}, {"introduced": "3.0"}, {"last_affected": "3.1"}"#
        )
    );
    let part = part("PyPI", &fields).expect("a part");
    let package = package(PackageType::Pypi, "p", "3.0.5");
    let family = family("PyPI").expect("a family");
    let lines: Vec<String> = explain(family, &part, &package, "3.0.5")
        .into_iter()
        .map(|shown| format!("{} {}", shown.window, shown.verdict))
        .collect();
    assert_eq!(
        lines,
        [
            "range < 2.0 does not hold it",
            "range >= 3.0, <= 3.1 holds it",
            "list of 1 more versions does not hold it"
        ]
    );
}

#[test]
fn commits_after_an_advisory_are_undecided_on_another_line_than_the_fix() {
    let check = |version: &str, fixed: &str| {
        let window = crate::Window {
            introduced: None,
            end: crate::WindowEnd::Fixed(fixed.to_owned()),
        };
        let published = "2024-01-01T00:00:00Z".parse().ok();
        pseudo::may_hold_the_fix(version, published, &[&window])
    };
    assert!(check("v0.0.0-20240601000000-daa7c04131f5", "0.5.0"));
    assert!(check("v1.1.6-0.20240601000000-daa7c04131f5", "1.2.3"));
    assert!(
        !check("v0.0.0-20230601000000-daa7c04131f5", "0.5.0"),
        "before"
    );
    assert!(
        !check("v1.2.3-0.20240601000000-daa7c04131f5", "1.2.3"),
        "on the line"
    );
    assert!(!check("v1.1.6", "1.2.3"), "a release");
    assert!(!check("v1.1.6-rc.1", "1.2.3"), "a pre-release");
}

#[test]
fn a_go_program_whose_build_states_no_version_is_undecided() {
    let fields = range(r#"{"introduced": "0"}, {"fixed": "1.2.3"}"#);
    let none = "undecided: its build states no version";
    assert_eq!(
        check("Go", &fields, "(devel)"),
        format!("{none} (`(devel)`)")
    );
    // What a directory stands for.
    assert_eq!(check("Go", &fields, "v0.0.0"), format!("{none} (`v0.0.0`)"));
    assert_eq!(
        check("npm", &fields, "0.0.0"),
        "affected: < 1.2.3; Fixed 1.2.3"
    );
}

#[test]
fn a_commit_of_a_checkout_without_tags_is_compared_with_commits_alone() {
    let check = |fields: &str, confidence| {
        let version = "v0.0.0-20240601000000-daa7c04131f5";
        let package = Package {
            confidence,
            ..package(PackageType::Golang, "p", version)
        };
        check_package("Go", fields, &package)
    };
    let (low, high) = (Confidence::Low, Confidence::High);
    let releases = range(r#"{"introduced": "1.0.0"}, {"fixed": "1.2.3"}"#);
    let undecided = "undecided: `v0.0.0-20240601000000-daa7c04131f5` is a commit of a checkout without tags, anywhere among the releases";
    assert_eq!(check(&releases, low), undecided);
    assert_eq!(check(&releases, high), "unaffected");
    let fixed = range(r#"{"introduced": "0"}, {"fixed": "1.2.3"}"#);
    assert_eq!(check(&fixed, low), undecided);
    let commits = |fixed: &str| {
        range(&format!(
            r#"{{"introduced": "0"}}, {{"fixed": "0.0.0-{fixed}-1baeb1ce4c0b"}}"#
        ))
    };
    assert_eq!(
        check(&commits("20250101000000"), low),
        "affected: < 0.0.0-20250101000000-1baeb1ce4c0b; Fixed 0.0.0-20250101000000-1baeb1ce4c0b"
    );
    assert_eq!(check(&commits("20230101000000"), low), "unaffected");
    assert_eq!(
        check(&range(r#"{"introduced": "0"}"#), low),
        "affected: all versions; NotFixed"
    );
}

#[test]
fn a_module_build_that_is_one_of_the_fixes_is_fixed() {
    let (older, newer) = ("3-1.module_el8.4.0+1+a", "3-1.module_el8.6.0+2+b");
    let affected: Vec<_> = [older, newer]
        .iter()
        .map(|fix| {
            json!({
                "package": {"ecosystem": "AlmaLinux:8", "name": "p"},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fix}]}],
            })
        })
        .collect();
    let record = json!({"id": "ALSA-1", "summary": "Important: ruby:3 security update", "affected": affected});
    let advisory = Advisory::parse(record.to_string().as_bytes()).unwrap();
    let part = advisory.split("test").into_iter().next().unwrap().1;
    let says = |version: &str| {
        let package = Package {
            modularity: Some("ruby:3:8040020210702:f1b6c3".to_owned()),
            ..package(PackageType::Rpm, "p", version)
        };
        let family = family("AlmaLinux:8").unwrap();
        let installed = Installed::of(family, &package, version);
        evaluate(family, &part, &package, &installed)
    };
    assert!(matches!(
        says("2-1.module_el8.4.0+1+a"),
        Evaluation::Affected(_)
    ));
    assert_eq!(says(older), Evaluation::Unaffected(Why::Outside));
    assert_eq!(says(newer), Evaluation::Unaffected(Why::Outside));
}
