use std::collections::BTreeSet;

use model::{FoundSecret, Severity};

use super::{
    FingerprintKey, SecretRule, SecretsConfig,
    engine::{Engine, HITS_MAX},
    rule::Example,
    samples::{self, Key, expand},
};

mod archives;
mod hostile;
mod image;
mod planted;

fn find(path: &str, text: &str) -> Vec<FoundSecret> {
    let engine = Engine::new(&SecretsConfig::default());
    engine.findings(path, text.as_bytes()).0
}

fn rules_that_fire(example: &Example, seed: u64) -> (String, Vec<String>) {
    let text = expand(example.text(), seed);
    let rules = find(example.path(), &text)
        .into_iter()
        .map(|one| one.rule)
        .collect();
    (text, rules)
}

#[test]
fn every_rule_finds_its_example_and_not_its_counter_example() {
    let rules = super::built_in_rules().unwrap();
    assert!(rules.len() >= 150, "{}", rules.len());
    let mut wrong = Vec::new();
    for rule in &rules {
        let id = &rule.id;
        let (Some(example), Some(counter)) = (&rule.example, &rule.counter_example) else {
            wrong.push(format!("{id}: it has no examples"));
            continue;
        };
        for seed in 0..8 {
            let (text, fired) = rules_that_fire(example, seed);
            if !fired.contains(id) {
                wrong.push(format!("{id}: does not find {text}; {fired:?}"));
                break;
            }
            let (text, fired) = rules_that_fire(counter, seed);
            if fired.contains(id) {
                wrong.push(format!("{id}: finds {text}"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_built_in_rules_can_be_used() {
    let rules = super::built_in_rules().unwrap();
    let ids: BTreeSet<_> = rules.iter().map(|rule| &rule.id).collect();
    assert_eq!(ids.len(), rules.len());
    let engine = Engine::new(&SecretsConfig::default());
    assert_eq!(engine.rules().len(), rules.len());
    for rule in engine.rules() {
        assert!(rule.regex().is_some(), "{}", rule.written.id);
        assert!(
            !rule.written.title.is_empty() && rule.written.advice.len() > 8,
            "{}",
            rule.written.id
        );
    }
}

#[test]
fn users_add_replace_and_disable_rules() {
    let own: SecretRule = serde_saphyr::from_str(
        "{id: acme, title: Acme token, advice: revoke it, keywords: [acme_], regex: 'acme_[0-9]{4}'}",
    )
    .unwrap();
    let other = SecretRule {
        id: "stripe-secret-key".to_owned(),
        ..own.clone()
    };
    let config = SecretsConfig {
        rules: vec![own, other],
        disable: vec!["slack-bot-token".to_owned()],
        ..SecretsConfig::default()
    };
    let engine = Engine::new(&config);
    let fired = |template: &str| -> Vec<String> {
        let text = expand(template, 1);
        engine
            .findings("a", text.as_bytes())
            .0
            .into_iter()
            .map(|one| one.rule)
            .collect()
    };
    assert_eq!(fired("acme_{d:4}"), ["acme"]);
    assert!(fired("sk_live_{w:99}").is_empty());
    assert!(fired("xoxb-{d:12}-{d:12}-{w:24}").is_empty());
    assert_eq!(fired("sk_test_{w:99}"), ["stripe-test-key"]);
}

#[test]
fn rules_are_made_ready_once_whatever_the_key_is() {
    let with_key = |key: &[u8]| {
        Engine::new(&SecretsConfig {
            key: FingerprintKey::new(key).unwrap(),
            ..SecretsConfig::default()
        })
    };
    let (one, other) = (with_key(b"0123456789abcdef"), with_key(b"fedcba9876543210"));
    assert!(one.shares_rules_with(&other));
    let without = Engine::new(&SecretsConfig {
        disable: vec!["slack-webhook".to_owned()],
        ..SecretsConfig::default()
    });
    assert!(!one.shares_rules_with(&without));
}

#[test]
fn a_finding_says_where_it_is_and_not_what_it_is() {
    let secret = expand("glpat-{b:20}", 7);
    let text = format!("first\nsecond: {secret}\n");
    let found = find("app/config", &text);
    assert_eq!(found.len(), 1);
    let one = &found[0];
    assert_eq!((one.line, one.column, one.end_line), (2, 9, 2));
    assert_eq!(one.masked, "second: glpa****");
    assert_eq!(one.fingerprint.len(), 32);
    // The same secret elsewhere has the same name.
    assert_eq!(find("b", &secret)[0].fingerprint, one.fingerprint);
    let told = format!("{found:?}");
    for form in samples::told(&secret) {
        assert!(!told.contains(&form), "{form}");
    }
}

#[test]
fn encrypted_keys_are_low_and_others_critical() {
    let check = |key: Key, severity: Severity| {
        let found = find("a", &samples::pem(key, 3));
        assert_eq!(found.len(), 1, "{key:?}");
        assert_eq!(found[0].severity, severity, "{key:?}");
        assert_eq!(found[0].line, 1);
        assert!(found[0].end_line > 3);
    };
    check(Key::Rsa, Severity::Critical);
    check(Key::OpenSsh, Severity::Critical);
    check(Key::OpenSshEncrypted, Severity::Low);
    check(Key::RsaEncrypted, Severity::Low);
    check(Key::Pkcs8Encrypted, Severity::Low);
    check(Key::PgpEncrypted, Severity::Low);
}

#[test]
fn the_end_of_a_web_token_is_read() {
    let found = find("a", &format!("token={}", samples::jwt(1, 1_700_000_000)));
    assert_eq!(
        found[0].expires_at.unwrap().to_string(),
        "2023-11-14T22:13:20Z"
    );
}

#[test]
fn dense_keywords_and_huge_lines_are_bounded() {
    let secret = expand("glpat-{b:20}", 1);
    // Keywords without end, and the secret behind them.
    let text = format!("{} {secret}", "glpat-".repeat(200_000));
    assert_eq!(find("a", &text).len(), 1);
    let many: String = (0..HITS_MAX + 10)
        .map(|seed| expand("glpat-{b:20}\n", seed as u64))
        .collect();
    let engine = Engine::new(&SecretsConfig::default());
    let (found, is_cut) = engine.findings("a", many.as_bytes());
    assert!(is_cut && found.len() <= HITS_MAX, "{}", found.len());
    let few: String = (0..100)
        .map(|seed| expand("glpat-{b:20}\n", seed))
        .collect();
    assert_eq!(engine.findings("a", few.as_bytes()).0.len(), 100);
}

#[test]
fn a_secret_longer_than_its_window_is_still_whole() {
    let key = samples::pem(Key::Rsa, 9);
    let text = format!("{}\n{key}\n{}", "x".repeat(100_000), "y".repeat(100_000));
    let found = find("a", &text);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].line, 2);
}

#[test]
fn of_two_rules_for_one_text_the_surer_one_wins() {
    let found = find(
        "root/.npmrc",
        &expand("//registry.npmjs.org/:_authToken=npm_{crc:36}", 1),
    );
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].rule, "npm-token");
}
