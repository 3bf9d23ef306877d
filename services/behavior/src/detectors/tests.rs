use std::{collections::BTreeSet, fs, path::Path};

use super::{DETECTORS, Look};
use crate::{
    Config,
    testing::{World, recorded},
};

async fn rules_of(file: &str) -> Vec<String> {
    let world = World::new(Config::default());
    let heard = world.play(&recorded(file)).await;
    heard.rules().into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn every_detector_has_a_trace_that_fires_and_one_that_does_not() {
    let mut wrong = Vec::new();
    for detector in DETECTORS {
        let rule = detector.definition().rule;
        let name = rule.trim_start_matches("behavior/").replace('-', "_");
        let fires = rules_of(&format!("{name}/fires.jsonl")).await;
        if !fires.iter().any(|fired| fired == rule) {
            wrong.push(format!("{rule} does not fire: {fires:?}"));
        }
        let silent = rules_of(&format!("{name}/silent.jsonl")).await;
        if !silent.is_empty() {
            wrong.push(format!("{rule}: the silent trace makes {silent:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_detector_says_what_it_is() {
    let mut rules = BTreeSet::new();
    for detector in DETECTORS {
        let definition = detector.definition();
        assert!(rules.insert(definition.rule), "{}", definition.rule);
        assert!(definition.rule.starts_with("behavior/"));
        assert!(!definition.techniques.is_empty() && !definition.looks_at.is_empty());
        assert!(definition.advice.ends_with('.'), "{}", definition.rule);
        assert!(
            !definition.looks_at.contains(&Look::Listen),
            "nothing looks there yet"
        );
    }
}

/// What containers do all day.
#[tokio::test]
async fn nothing_is_told_of_what_is_harmless() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/benign");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let rules = rules_of(&format!("benign/{name}")).await;
        assert_eq!(rules, [""; 0], "{name}");
        count += 1;
    }
    assert!(count >= 7, "{count}");
}

/// What is told of although nobody attacks: it is called what it is, and an exception ends it.
#[tokio::test]
async fn what_people_do_by_hand_is_told_as_such() {
    let apt = rules_of("stated/apt_in_a_development_container.jsonl").await;
    let told = [
        "behavior/debug-session",
        "behavior/package-manager",
        "drift/added-executable",
    ];
    assert_eq!(apt, told);
    let exec = World::new(Config::default());
    let heard = exec
        .play(&recorded("stated/debugging_with_exec.jsonl"))
        .await;
    assert_eq!(heard.rules(), ["behavior/debug-session"]);
    assert_eq!(heard.changed.len(), 1);
    assert_eq!(heard.changed[0].incident.severity, model::Severity::Low);
}
