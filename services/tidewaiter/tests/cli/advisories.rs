//! Advisories: from files alone, explained, and carried from one site to another.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

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
    // The same, unpacked at a URL: fetched once, and then only what differs.
    let (url, asked) = unpacked(&world.path("all.export"));
    let third = shown(&world.path("third site"));
    let from = ["db", "update", "--from", &url, "--cache-dir", &third];
    let refused = world.run(&from);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("not trusted here"),
        "{}",
        refused.stderr
    );
    let from = [&from[..], &["--trust", public]].concat();
    let first = world.stdout(&from);
    assert!(!first.contains(" 0 shards fetched"), "{first}");
    let report = world.report(&[&target, "--cache-dir", &third]);
    assert_eq!(report["vulnerabilities"][0]["id"], "CVE-2018-18074");
    let is_shard = |path: &String| path.contains("shards/");
    assert!(asked.lock().unwrap().drain(..).any(|path| is_shard(&path)));
    let again = world.stdout(&from);
    assert!(again.contains(" 0 shards fetched, 0 changed"), "{again}");
    assert!(!asked.lock().unwrap().iter().any(is_shard));
    // A key is never written over, and nobody exports without saying how.
    assert_eq!(world.run(&["db", "key", &key]).code, Some(1));
    assert_eq!(world.run(&["db", "export", &file]).code, Some(1));
}

/// A server of what an export holds, until the test ends; and the paths that it was asked for.
fn unpacked(export: &Path) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (export, seen) = (export.to_owned(), Arc::clone(&asked));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("a copy"));
            let mut first = String::new();
            reader.read_line(&mut first).expect("a request");
            let mut line = first.clone();
            while line.trim() != "" {
                line.clear();
                reader.read_line(&mut line).expect("a header");
            }
            let path = first.split(' ').nth(1).expect("a path").to_owned();
            let mut zip =
                zip::ZipArchive::new(File::open(&export).expect("the export")).expect("a zip");
            let mut body = Vec::new();
            let status = match zip.by_name(path.trim_start_matches('/')) {
                Ok(mut entry) => {
                    entry.read_to_end(&mut body).expect("an entry");
                    "200 OK"
                }
                Err(_) => "404 Not Found",
            };
            seen.lock().expect("nobody panicked").push(path);
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            )
            .expect("an answer");
            stream.write_all(&body).expect("a body");
        }
    });
    (url, asked)
}
