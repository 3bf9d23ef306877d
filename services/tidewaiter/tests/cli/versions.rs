//! `versions`: answers, and what is said where there is none.

use std::{io::Write as _, process::Stdio};

use crate::world::{Ended, World, ended};

fn compare(arguments: &[&str]) -> Ended {
    World::new().run(&[&["versions", "compare"], arguments].concat())
}

/// With these lines on standard input.
fn answered(lines: &str, flags: &[&str]) -> Ended {
    let world = World::new();
    let mut command = world.command(&[&["versions", "compare", "-"], flags].concat());
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .expect("tidewaiter starts");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(lines.as_bytes()).expect("it reads");
    drop(input);
    ended(child)
}

#[test]
fn two_versions_are_compared_as_their_scheme_says() {
    for (arguments, expected) in [
        (["deb", "1.0~rc1", "1.0"], "<\n"),
        (["maven", "1.0", "1.0.Final"], "=\n"),
        (["AlmaLinux:9", "1:1.0-1.el9", "2.0-1.el9"], ">\n"),
        (["npm", "1.0.0", "1.0.0-rc.1"], ">\n"),
    ] {
        let ended = compare(&arguments);
        let text = format!("{arguments:?}\n{}", ended.stderr);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(0), expected),
            "{text}"
        );
    }
}

#[test]
fn what_is_no_version_is_undecided_and_an_unknown_scheme_an_error() {
    let ended = compare(&["pypi", "1.0", "0.1-bulbasaur"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""));
    let expected = "error: undecided: `0.1-bulbasaur` is no version of `pypi`";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    let ended = compare(&["rune", "1", "2"]);
    assert_eq!(ended.code, Some(1));
    for expected in ["no version scheme `rune`", "apk", "nuget"] {
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    for arguments in [&["deb"][..], &["deb", "1"], &["-", "1", "2", "3"]] {
        assert_eq!(compare(arguments).code, Some(1), "{arguments:?}");
    }
}

#[test]
fn lines_are_answered_one_by_one() {
    let ended = answered(
        "deb\t1.0\t1.0-0\nrpm\t1.0^git1\t1.0\r\nGo\tgo1.21rc2\t1.21.0",
        &[],
    );
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "=\n>\n<\n"));
    let ended = answered("pypi\t1\tx\npypi\t1\t2\n", &[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), "?\n<\n"));
    assert!(
        ended.stderr.contains("line 1 is undecided"),
        "{}",
        ended.stderr
    );
    let ended = answered("pypi\t1\tx\n", &["--quiet"]);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("?\n", ""));
    let ended = answered("pypi\t1\t2\npypi 1 2\n", &[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), "<\n"));
    assert!(
        ended.stderr.contains("line 2 is not a scheme"),
        "{}",
        ended.stderr
    );
}
