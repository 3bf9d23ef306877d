use chassis::files::read_text_bounded;

use crate::world::{World, shown};

#[test]
fn reports_go_to_several_places_at_once() {
    let world = World::new();
    let target = world.layout();
    world.advisories();
    let path = world.path("report.json");
    let file = shown(&path);
    let to_file = format!("json={file}");
    let ended = world.run(&["scan", &target, "-o", "table", "-o", &to_file]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stdout.contains("CVE-2018-18074"), "{}", ended.stdout);
    let written = read_text_bounded(&path, 1 << 20).expect("the report is written");
    assert!(
        written.contains(r#""schema": "tidewaiter.report/1""#),
        "{written}"
    );
    // Without a report on standard output, the verdict is still said.
    let ended = world.run(&["scan", &target, "-o", &to_file]);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains(": DENY: "), "{}", ended.stderr);
    let ended = world.run(&["scan", &target, "-o", &to_file, "--quiet"]);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
}

#[test]
fn filters_change_what_is_shown_and_not_the_verdict() {
    let world = World::new();
    let target = world.layout();
    world.advisories();
    for flags in [&["--severity", "low"][..], &["-s", "LOW,medium"]] {
        let ended = world.run(&[&["scan", &target], flags].concat());
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(
            !ended.stdout.contains("CVE-2018-18074  "),
            "{}",
            ended.stdout
        );
        assert!(
            ended.stdout.contains("1 more is not listed, but counted"),
            "{}",
            ended.stdout
        );
    }
    let ended = world.run(&["scan", &target, "--ignore-unfixed"]);
    assert!(ended.stdout.contains("2.20.0"), "{}", ended.stdout);
}

#[test]
fn the_table_ends_with_the_verdict_and_why() {
    let world = World::new();
    let target = world.layout();
    world.advisories();
    let ended = world.run(&["scan", &target]);
    let last = ended.stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with("DENY: "), "{}", ended.stdout);
    assert!(!ended.stdout.contains('\u{1b}'), "a pipe gets no colors");
    let forced = World::new().with("CLICOLOR_FORCE", "1");
    let ended = forced.run(&["scan", &target]);
    assert!(ended.stdout.contains('\u{1b}'), "{}", ended.stdout);
    let never = forced.with("NO_COLOR", "1");
    let ended = never.run(&["scan", &target]);
    assert!(!ended.stdout.contains('\u{1b}'), "{}", ended.stdout);
}

#[test]
fn progress_is_plain_lines_where_nobody_watches_and_nothing_with_quiet() {
    let world = World::new();
    let target = world.layout();
    world.advisories();
    let ended = world.run(&["scan", &target]);
    assert!(
        ended.stderr.starts_with("looking for oci:"),
        "{}",
        ended.stderr
    );
    let read = ended.stderr.lines().filter(|line| line.contains(": read "));
    assert_eq!(read.count(), 2, "{}", ended.stderr);
    let again = world.run(&["scan", &target]);
    assert!(
        again.stderr.contains("2 of 2 layers were known"),
        "{}",
        again.stderr
    );
    for flag in ["--quiet", "--no-progress"] {
        let ended = world.run(&["scan", &target, flag]);
        assert_eq!(ended.stderr, "", "{flag}");
    }
}
