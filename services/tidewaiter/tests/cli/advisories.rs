//! Advisories: from files alone, explained, and carried from one site to another.

use serde_json::Value;

use crate::world::{World, shown};

#[test]
fn advisories_in_files_need_no_database() {
    let world = World::new();
    let target = world.layout();
    world.advisories();
    let (files, empty) = (world.path("advisories-in"), shown(&world.path("empty")));
    let flags = ["--advisories", &shown(&files), "--cache-dir", &empty];
    let report = world.report(&[&[target.as_str()][..], &flags].concat());
    let found = &report["vulnerabilities"][0];
    assert_eq!(found["id"], "CVE-2018-18074");
    assert_eq!(found["fixed_versions"][0], "2.20.0");
    assert_eq!(report["advisories"]["feeds"][0]["name"], "advisories-in");
    // Named as an ecosystem, a zip covers that one.
    let ended = world.run(&["scan", &target, "--advisories", "/nowhere"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("/nowhere"), "{}", ended.stderr);
}

#[test]
fn explain_says_why_and_why_not() {
    let world = World::new();
    let target = world.layout();
    let none = world.stdout(&["explain", &target, "CVE-2018-18074"]);
    assert!(none.contains("there are no advisories here"), "{none}");
    world.advisories();
    let why = world.stdout(&["explain", &target, "CVE-2018-18074"]);
    for part in [
        "CVE-2018-18074: yes",
        "pypi requests 2.19.1",
        "PyPI `requests`, by package, compared with 2.19.1",
        "range < 2.20.0 holds it",
    ] {
        assert!(why.contains(part), "`{part}` in {why}");
    }
    let not = world.stdout(&["explain", &target, "CVE-2000-0001"]);
    assert!(not.contains("CVE-2000-0001: no"), "{not}");
    assert!(
        not.contains("it is about `no-such-package` of Debian:12"),
        "{not}"
    );
    let json = world.stdout(&["explain", &target, "CVE-2018-18074", "--format", "json"]);
    let json: Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(json[0]["affected"], true);
    let range = &json[0]["packages"][0]["advisories"][0]["ranges"][0];
    assert_eq!(range["says"], "holds it");
}

#[test]
fn a_signed_export_brings_advisories_to_another_site() {
    let world = World::new();
    let target = world.layout();
    world.advisories();
    let (key, file) = (
        shown(&world.path("export.key")),
        shown(&world.path("all.export")),
    );
    let public = world.stdout(&["db", "key", &key]);
    let public = public.trim();
    world.stdout(&["db", "export", &file, "--key", &key]);
    let there = shown(&world.path("another site"));
    let import = ["db", "import", &file, "--cache-dir", &there];
    let refused = world.run(&import);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("not trusted here"),
        "{}",
        refused.stderr
    );
    world.stdout(&[&import[..], &["--trust", public]].concat());
    let report = world.report(&[&target, "--cache-dir", &there]);
    assert_eq!(report["vulnerabilities"][0]["id"], "CVE-2018-18074");
    // A key is never written over, and nobody exports without saying how.
    assert_eq!(world.run(&["db", "key", &key]).code, Some(1));
    assert_eq!(world.run(&["db", "export", &file]).code, Some(1));
}
