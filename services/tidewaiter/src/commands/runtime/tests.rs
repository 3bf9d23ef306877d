use serde_json::json;

use super::*;

fn drawn(answer: &Value, shape: Shape) -> String {
    let mut out = Vec::new();
    let mut page = Page {
        width: Some(100),
        color: false,
        out: &mut out,
    };
    shape(answer, &mut page).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    text
}

fn row() -> Value {
    json!({
        "id": "3f2a9c0d1e4b5a6978", "node": "node-1", "name": "web", "runtime": "podman",
        "state": "running", "image": "registry.example/team/app:1.2", "exposed": true,
        "decision": "deny", "counts": {"critical": 1, "high": 4},
        "unauthorized": {"reason": "denied", "detail": null},
        "settings_failed": 3, "settings_worst": "high", "ports": [],
    })
}

#[test]
fn containers_fit_the_terminal_and_say_what_is_wrong() {
    let mut unknown = row();
    unknown["unauthorized"] = json!({"reason": "no_source", "detail": null});
    unknown["decision"] = Value::Null;
    unknown["counts"] = Value::Null;
    unknown["exposed"] = json!(false);
    unknown["pod"] = json!("web-5d8");
    unknown["namespace"] = json!("shop\u{1b}[31m");
    let text = drawn(&json!([row(), unknown]), containers);
    insta::assert_snapshot!(text);
    assert!(!text.contains('\u{1b}'), "a name commands the terminal");
    assert_eq!(
        drawn(&json!([]), containers),
        "no container fits\n0 containers\n"
    );
}

#[test]
fn a_container_shows_its_settings_and_how_to_mend_them() {
    let mut answer = row();
    answer["security"] = json!({"user": "0"});
    answer["ports"] =
        json!([{"host_address": "", "host_port": 80, "container_port": 8080, "protocol": "tcp"}]);
    answer["misconfigurations"] = json!([{
        "id": "privileged", "severity": "critical", "clauses": ["CIS Docker 5.5"],
        "title": "The container is privileged", "evidence": "privileged", "remediation": "do not",
    }]);
    insta::assert_snapshot!(drawn(&answer, container));
}

#[test]
fn nodes_and_their_latent_images_are_shown() {
    let answer = json!({
        "node": "node-1", "state": "reporting", "running": 2, "containers": 3, "images": 2,
        "sensor": "bpf", "runtimes": ["podman 4.3.1"], "os": "Debian 12", "kernel": "6.1.0",
        "sensors": {"sees": ["exec"], "enforces": [], "missing": {"lsm": "not built in"}},
        "latent": 1,
        "images_on_disk": [
            {"id": "sha256:aa", "names": ["registry.example/app:1"], "active": true, "bytes": 5_000_000,
             "decision": "allow", "counts": {"critical": 0, "high": 1}},
            {"id": "sha256:bb", "names": [], "active": false, "bytes": 0},
        ],
    });
    insta::assert_snapshot!(drawn(&answer, node));
}

#[test]
fn where_it_runs_is_one_line_per_container() {
    let answer = json!([{
        "image": "sha256:aa", "references": ["registry.example/team/app:1.2"],
        "packages": [{"package": "openssl", "installed": "3.0.1", "fixed": ["3.0.2"]}],
        "containers": 2, "nodes": ["node-1", "node-2"], "exposed": true,
        "instances": [
            {"node": "node-1", "id": "3f2a9c0d1e4b5a", "name": "web", "exposed": true},
            {"node": "node-2", "id": "77aa9c0d1e4b5a", "name": "job", "exposed": false},
        ],
    }]);
    insta::assert_snapshot!(drawn(&answer, places));
    assert_eq!(drawn(&json!([]), places), "nothing that runs has it\n");
}

#[test]
fn connections_are_one_line_per_peer_and_name_containers() {
    let peer = |address: &str, container: Value| {
        json!({
            "transport": "tcp", "address": address, "port": 5432, "container": container,
        })
    };
    let db =
        json!({"id": "77aa", "node": "node-1", "name": "db", "pod": "db-0", "namespace": "shop"});
    let answer = json!([
        {
            "node": "node-1", "id": "3f2a", "name": "web", "exposed": true, "addresses": ["10.88.0.2"],
            "ports": [{"host_address": "", "host_port": 443, "container_port": 8080, "protocol": "tcp"}],
            "listens": [{"transport": "tcp", "address": "0.0.0.0", "port": 8080}],
            "connects_to": [peer("10.88.0.3", db), peer("192.0.2.1", Value::Null)],
        },
        {"node": "node-1", "id": "77aa", "name": "db", "exposed": false, "ports": [],
         "listens": [{"transport": "tcp", "address": "::", "port": 5432}], "connects_to": []},
    ]);
    insta::assert_snapshot!(drawn(&answer, connections));
    assert_eq!(
        drawn(&json!([]), connections),
        "no container was seen to speak\n"
    );
}

#[test]
fn an_incident_has_its_timeline() {
    let answer = json!({
        "id": "4be1d7", "title": "tmp/x is not of the image", "severity": "critical", "state": "open",
        "container": "3f2a9c", "container_name": "web", "image_name": "registry.example/app:1",
        "node": "node-1", "host": "node-1, Debian 12, 6.1.0",
        "first_at": "2026-03-01T12:00:00.123Z", "last_at": "2026-03-01T12:00:05.5Z",
        "events": [{
            "at": "2026-03-01T12:00:00.123Z", "severity": "high", "rule": "drift/added-executable",
            "title": "tmp/x is not of the image", "techniques": [{"id": "T1105"}],
            "process": {"path": "tmp/x", "args": ["/tmp/x", "-q"]},
        }],
        "image_now": {"decision": "deny", "counts": {"critical": 1, "high": 4}},
        "around": {
            "processes": [
                {"process": {"key": {"pid": 7, "started_ns": 1}, "path": "bin/sh", "args": ["sh", "-c", "\u{1b}[31m"]},
                 "parent": {"pid": 1, "started_ns": 0}, "ended": false},
                {"process": {"key": {"pid": 8, "started_ns": 2}, "path": "tmp/x", "args": []},
                 "parent": {"pid": 7, "started_ns": 1}, "ended": true},
            ],
            "flows": [{"transport": "tcp", "address": "192.0.2.1", "port": 443}],
            "listens": [{"transport": "tcp", "address": "::", "port": 8080}],
            "files": ["etc/shadow"], "is_cut": true,
        },
    });
    let text = drawn(&answer, incident);
    assert!(
        !text.contains('\u{1b}'),
        "an argument commands the terminal"
    );
    insta::assert_snapshot!(text);
    insta::assert_snapshot!(drawn(&json!([answer]), incidents));
}

#[test]
fn whatever_is_typed_stays_one_segment_of_the_path() {
    assert_eq!(segment("CVE-2021-44228"), "CVE-2021-44228");
    assert_eq!(segment("../x?a=b#c é"), "..%2Fx%3Fa%3Db%23c%20%C3%A9");
}
