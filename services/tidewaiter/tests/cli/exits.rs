use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    process::Command,
    thread,
    time::Duration,
};

use testkit::{StandInOptions, StandInRegistry};

use crate::world::{World, ended, vulnerable};

fn check(world: &World, arguments: &[&str], expected: i32) {
    let ended = world.run(arguments);
    let text = format!("{arguments:?}\n{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code, Some(expected), "{text}");
}

#[test]
fn a_verdict_decides_how_a_scan_ends() {
    let world = World::new();
    let target = world.layout();
    // Without advisories nobody knows.
    check(&world, &["scan", &target], 3);
    check(&world, &["scan", &target, "--allow-incomplete"], 0);
    world.advisories();
    check(&world, &["scan", &target], 2);
    check(&world, &["scan", &target, "--exit-code", "9"], 9);
    check(&world, &["scan", &target, "--allow-incomplete"], 2);
    let allow = world.write("allow.yaml", "name: default\nrules: []\n");
    let allow = allow.display().to_string();
    check(&world, &["scan", &target, "--policy", &allow], 0);
    check(
        &world,
        &["scan", &target, "--policy", &allow, "--fail-on", "critical"],
        2,
    );
    // Of several targets the worst counts: an error is worse than a denial.
    check(&world, &["scan", &target, "oci:/no/such/directory"], 4);
}

#[test]
fn usage_errors_end_with_1_and_not_with_the_code_of_a_denial() {
    let world = World::new();
    for arguments in [
        &["scan"][..],
        &["no-such-command"],
        &["scan", "--no-such-flag", "debian"],
        &["scan", "UPPER CASE"],
        &["scan", "debian", "--config", "/no/such/file"],
    ] {
        check(&world, arguments, 1);
    }
    check(&world, &["--help"], 0);
    check(&world, &["--version"], 0);
}

#[test]
fn a_registry_that_cannot_be_reached_ends_with_4() {
    check(&World::new(), &["scan", "127.0.0.1:1/no/registry:1"], 4);
}

#[test]
fn time_that_is_up_ends_with_5() {
    let slow = StandInRegistry::start(StandInOptions {
        delay: Duration::from_mins(1),
        ..StandInOptions::default()
    });
    slow.put(vulnerable(), "app", "1");
    let target = format!("{}/app:1", slow.host());
    let world = World::new();
    let ended = world.run(&["scan", &target, "--timeout", "300ms"]);
    assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("gave up after 0.3 s (--timeout)"),
        "{}",
        ended.stderr
    );
}

#[test]
fn an_interrupted_scan_ends_with_130() {
    let slow = StandInRegistry::start(StandInOptions {
        bytes_per_second: Some(1),
        ..StandInOptions::default()
    });
    slow.put(vulnerable(), "app", "1");
    let target = format!("{}/app:1", slow.host());
    let world = World::new();
    let mut child = world.start(&["scan", &target]);
    // The first line says that it is at work, so that it hears signals.
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("it says something");
    assert!(line.starts_with("looking for"), "{line}");
    let id = child.id().to_string();
    let killed = Command::new("kill").args(["-INT", &id]).status();
    assert!(killed.expect("kill runs").success());
    let ended = ended(child);
    let mut rest = String::new();
    lines.read_to_string(&mut rest).expect("it is text");
    assert_eq!(ended.code, Some(130), "{rest}");
    assert!(rest.contains("interrupted by"), "{rest}");
}

/// A server that answers every request alike, until the test ends.
fn server(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(&stream);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                line.clear();
            }
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            drop((&stream).write_all(head.as_bytes()));
        }
    });
    format!("http://{address}")
}

#[test]
fn a_check_without_a_verdict_ends_with_6() {
    let world = World::new();
    let none = server("404 Not Found", r#"{"detail": "unknown"}"#);
    let ended = world.run(&["check", "app:1", "--server", &none]);
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("no verdict on `app:1` yet; --wait 60s waits"),
        "{}",
        ended.stderr
    );
    let denied = server("200 OK", r#"{"decision": "deny", "images": []}"#);
    check(&world, &["check", "app:1", "--server", &denied], 2);
    let allowed = server("200 OK", r#"{"decision": "allow", "images": []}"#);
    check(&world, &["check", "app:1", "--server", &allowed], 0);
}
