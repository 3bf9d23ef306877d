use serde_json::json;

use super::*;
use crate::commands::runtime::pages::Shape;

/// An answer on a terminal of so many columns.
fn drawn(answer: &Value, shape: Shape, width: usize) -> String {
    let mut out = Vec::new();
    let mut page = Page {
        width: Some(width),
        color: false,
        out: &mut out,
    };
    shape(answer, &mut page).unwrap();
    String::from_utf8(out).unwrap()
}

fn answer() -> Value {
    json!({
        "incident": "4be1d7c0aa55a1e2c9d35f86b7f0e9c1", "node": "node-1",
        "container": "3f2a9c0d1e4b5a6978aa", "container_name": "web\u{1b}[31m",
        "image_name": "r.example/app:1", "updated_at": "2026-03-01T12:00:09.123456Z",
        "responses": [{
            "id": "00ff00ff00ff00ff00ff00ff00ff00ff", "rule": "shop/cut", "mode": "enforced",
            "action": {"quarantine": {"allow": []}}, "stage": "held", "reason": "a shell",
            "steps": [{
                "id": "x", "stage": "held", "at": "2026-03-01T12:00:09.5Z", "by": "shop/cut",
                "detail": "held: no node reports the container\u{1b}[2J",
            }],
        }],
        "orders": [],
    })
}

#[test]
fn the_list_fits_the_terminal() {
    let mut ordered = answer();
    ordered["responses"] = json!([]);
    ordered["orders"] = json!([{"id": "o", "stage": "held", "by": "alice", "detail": "no"}]);
    let text = drawn(&json!([answer(), ordered]), responses, 100);
    insta::assert_snapshot!(text, @r"
    INCIDENT                   NODE    CONTA…  ACTION      STAGE  MODE      BY      CHANGED
    4be1d7c0aa55a1e2c9d35f86…  node-1  web\u…  quarantine  held   enforced  shop/…  2026-03-01T12:00:09Z
    4be1d7c0aa55a1e2c9d35f86…  node-1  web\u…              held             alice   2026-03-01T12:00:09Z
    ");
    assert!(text.lines().all(|line| line.chars().count() <= 100));
    let none = drawn(&json!([]), responses, 100);
    assert_eq!(none, "nothing was done about any incident\n");
}

#[test]
fn what_waits_says_how_to_decide_and_commands_no_terminal() {
    let text = drawn(&answer(), response, 100);
    insta::assert_snapshot!(text, @r"
    incident   4be1d7c0aa55a1e2c9d35f86b7f0e9c1
    node       node-1
    container  web\u{1b}[31m 3f2a9c0d1e4b
    image      r.example/app:1

    quarantine (enforced): held
      response   00ff00ff00ff00ff00ff00ff00ff00ff
      by         shop/cut
      because    a shell
      2026-03-01T12:00:09Z  held       shop/cut  held: no node reports the container\u{1b}[2J
      tidewaiter response approve 4be1d7c0aa55a1e2c9d35f86b7f0e9c1 00ff00ff00ff00ff00ff00ff00ff00ff
      tidewaiter response deny 4be1d7c0aa55a1e2c9d35f86b7f0e9c1 00ff00ff00ff00ff00ff00ff00ff00ff
    ");
    assert!(!text.contains('\u{1b}'));
    // It waits for a time; what lapsed may be approved nevertheless.
    let mut bounded = answer();
    bounded["responses"][0]["expires_at"] = json!("2026-03-04T12:00:00Z");
    let text = drawn(&bounded, response, 100);
    assert!(text.contains("decide by  2026-03-04T12:00:00Z"), "{text}");
    bounded["responses"][0]["stage"] = json!("lapsed");
    assert!(drawn(&bounded, response, 100).contains("tidewaiter response approve"));
    let mut denied = answer();
    denied["responses"][0]["stage"] = json!("denied");
    assert!(!drawn(&denied, response, 100).contains("tidewaiter response"));
}

#[test]
fn a_replay_says_what_would_hold() {
    let replay = json!({
        "items": [{
            "incident": "i", "at": "2026-03-01T12:00:09.5Z", "severity": "high",
            "node": "node-1", "container_name": "web",
            "responses": [{
                "rule": "shop/cut", "action": "quarantine", "stage": "held",
                "guards": ["no node reports the container"],
            }],
        }],
        "left_out": 2,
    });
    insta::assert_snapshot!(drawn(&replay, replayed, 120), @r"
    AT                    SEVERITY  NODE    CONTAINER  ACTION      STAGE  RULE      HELD BY
    2026-03-01T12:00:09Z  high      node-1  web        quarantine  held   shop/cut  no node reports the container
    1 incidents, 2 older ones left out; nothing was changed
    ");
}
