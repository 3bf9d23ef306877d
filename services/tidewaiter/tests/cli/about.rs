//! Commands that describe the program and its place.

use chassis::files::read_text_bounded;
use serde_json::Value;

use crate::world::{World, shown};

#[test]
fn each_setting_says_where_it_comes_from() {
    let world = World::new().with("TIDEWAITER_HTTP__LISTEN", "127.0.0.1:9");
    let file = world.write(
        "tidewaiter.yaml",
        "gateway: {}\nbus: {url: 'nats://a:secret@b:4222'}\n",
    );
    let flags = ["--config", &shown(&file), "--data-dir", "/srv/x", "--given"];
    let shown_as = world.stdout(&[&["config", "show"], &flags[..]].concat());
    let lines: Vec<Vec<&str>> = shown_as
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let file = shown(&file);
    assert_eq!(
        lines,
        [
            vec!["SETTING", "VALUE", "FROM"],
            vec!["bus.url", "nats://***@b:4222", &file],
            vec!["data_dir", "/srv/x", "--data-dir"],
            vec!["http.listen", "127.0.0.1:9", "TIDEWAITER_HTTP__LISTEN"],
        ]
    );
    let all: Value =
        serde_json::from_str(&world.stdout(&["config", "show", "-f", "json"])).expect("it is JSON");
    let all = all.as_array().expect("a list");
    let workers = all
        .iter()
        .find(|one| one["key"] == "scanner.images_at_once");
    assert_eq!(workers.expect("every setting is there")["from"], "default");
    let ended = world.run(&["config", "show", "--config", "/no/such/file"]);
    assert_eq!(ended.code, Some(1));
}

#[test]
fn completions_know_commands_and_flags() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = world.stdout(&["completions", shell]);
        for word in ["scan", "doctor", "ignore-unfixed", "skip-dirs"] {
            assert!(script.contains(word), "{word} is not in {shell}'s");
        }
    }
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let world = World::new();
    let page = world.stdout(&["man"]);
    assert!(
        page.contains(".TH tidewaiter 1") && page.contains("SUBCOMMANDS"),
        "{page}"
    );
    let dir = world.path("man1");
    world.stdout(&["man", "--dir", &shown(&dir)]);
    let scan = read_text_bounded(&dir.join("tidewaiter-scan.1"), 1 << 20).expect("it is there");
    assert!(scan.contains("ignore\\-unfixed"), "{scan}");
}

#[test]
fn the_version_is_for_people_and_for_programs() {
    let world = World::new();
    assert!(world.stdout(&["version"]).starts_with("tidewaiter 0."));
    let version: Value =
        serde_json::from_str(&world.stdout(&["version", "--json"])).expect("it is JSON");
    assert_eq!(version["name"], "tidewaiter");
    assert_eq!(version["report_schema"], "tidewaiter.report/1");
    assert!(
        version["analyzers"].to_string().contains("dpkg"),
        "{version}"
    );
}

#[test]
fn the_doctor_says_what_is_missing_and_how_to_mend_it() {
    let world = World::new();
    world.write(".docker/config.json", r#"{"credsStore": "no-such-helper"}"#);
    world.write("broken.yaml", "no_such_key: 1\n");
    let ended = world.run(&["doctor", "127.0.0.1:1", "--config", "broken.yaml"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let text = &ended.stdout;
    for expected in [
        "BROKEN   configuration",
        "no_such_key",
        "missing  advisories",
        "→ run `tidewaiter db update`",
        "BROKEN   logins",
        "install `docker-credential-no-such-helper`",
        "BROKEN   registry 127.0.0.1:1",
        "→ check the name, DNS, the network",
    ] {
        assert!(text.contains(expected), "`{expected}` is not in\n{text}");
    }
    world.advisories();
    let ended = world.run(&["doctor", "127.0.0.1:1", "-f", "json"]);
    let checks: Value = serde_json::from_str(&ended.stdout).expect("it is JSON");
    let checks = checks.as_array().expect("a list");
    let state = |name: &str| {
        &checks
            .iter()
            .find(|one| one["name"] == name)
            .expect("it is looked at")["state"]
    };
    assert_eq!(
        (state("advisories"), state("cache")),
        (&Value::from("ok"), &Value::from("ok"))
    );
}
