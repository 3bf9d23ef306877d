//! Secrets of the config, and of files that layers delete or packages own.

use archive::Limits;
use model::{Digest, Environment, HistoryStep, ImageConfig, ImageReport, RuntimeConfig};

use super::{
    super::samples::{expand, told},
    planted::{digest_of, layer},
};
use crate::{Config, PreparedLayer, Subject, image_report};

pub(super) fn subject() -> Subject {
    Subject {
        image: Digest::of(b"image"),
        reference: "test".to_owned(),
        index_digest: None,
        manifest_digest: None,
        image_id: Digest::of(b"config"),
        platform: model::Platform::default(),
        layer_sizes: Vec::new(),
    }
}

fn step(text: &str, empty_layer: bool) -> HistoryStep {
    HistoryStep {
        created_by: text.to_owned(),
        empty_layer,
    }
}

pub(super) fn image(layers: &[PreparedLayer], config: &ImageConfig) -> ImageReport {
    let layers: Vec<&PreparedLayer> = layers.iter().collect();
    image_report(
        &layers,
        config,
        subject(),
        &Limits::default(),
        &Config::default(),
    )
}

#[test]
fn a_variable_that_looks_random_is_masked_and_no_finding() {
    let (value, argument) = (expand("{w:24}", 1), expand("{x:32}", 2));
    let part = expand("{w:24}", 3);
    let config = ImageConfig {
        history: vec![
            step(&format!("ENV LICENSE={value} MODE=fast"), true),
            step(
                &format!("|1 SITE={argument} /bin/sh -c echo {argument}"),
                false,
            ),
        ],
        environment: Environment(vec![
            ("LICENSE".to_owned(), value.clone()),
            ("HOOK".to_owned(), format!("https://hooks.example/{part}/a")),
        ]),
        runtime: RuntimeConfig {
            cmd: vec!["serve".to_owned(), format!("--license={value}")],
            entrypoint: vec!["call".to_owned(), part.clone()],
            ..RuntimeConfig::default()
        },
        ..ImageConfig::default()
    };
    let report = image(&[layer(&[("a", b"a")])], &config);
    assert!(report.findings.secrets.is_empty(), "{report:?}");
    let text = format!("{report:?}");
    for secret in [&value, &argument, &part] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(text.contains("--license=****"), "{text}");
}

#[test]
fn secrets_of_the_config_are_found_and_masked_everywhere() {
    let token = expand("glpat-{b:20}", 1);
    let password = expand("{w:18}", 2);
    let argument = expand("{w:22}", 3);
    let label = expand("dop_v1_{x:64}", 4);
    let config = ImageConfig {
        history: vec![
            step("/bin/sh -c #(nop) ADD file:aa in / ", false),
            step(&format!("ENV DB_PASSWORD={password}"), true),
            step(
                &format!("RUN |1 API_KEY={argument} /bin/sh -c make KEY={argument} # buildkit"),
                false,
            ),
            step(
                &format!("RUN /bin/sh -c git clone https://oauth2:{token}@git.example.org/a"),
                false,
            ),
        ],
        runtime: RuntimeConfig {
            labels: [("org.example.build".to_owned(), label.clone())].into(),
            cmd: vec!["serve".to_owned(), format!("--password={password}")],
            ..RuntimeConfig::default()
        },
        environment: Environment(vec![
            ("PATH".to_owned(), "/usr/bin".to_owned()),
            ("DB_PASSWORD".to_owned(), password.clone()),
        ]),
        ..ImageConfig::default()
    };
    let layers = [
        layer(&[("a", b"a")]),
        layer(&[("b", b"b")]),
        layer(&[("c", b"c")]),
    ];
    let report = image(&layers, &config);
    let secrets = &report.findings.secrets;
    let found: Vec<_> = secrets
        .iter()
        .map(|one| (one.path.as_str(), one.rule.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("image-config/env/DB_PASSWORD", "image-environment-secret"),
            ("image-config/args/API_KEY", "image-environment-secret"),
            ("image-config/history/3", "gitlab-personal-token"),
            (
                "image-config/labels/org.example.build",
                "digitalocean-token"
            ),
        ]
    );
    assert_eq!(secrets[0].layer, Digest::of(b"config"));
    assert_eq!(
        secrets[0].instruction.as_deref(),
        Some("ENV DB_PASSWORD=****")
    );
    assert_eq!(secrets[1].layer, layers[1].blob);
    assert_eq!(secrets[2].layer, layers[2].blob);
    let text = serde_json::to_string(&report).unwrap() + &format!("{report:?}");
    for secret in [&token, &password, &argument, &label] {
        for form in told(secret) {
            assert!(!text.contains(&form), "{form}");
        }
    }
    assert!(text.contains("RUN |1 API_KEY=**** /bin/sh -c make KEY=****"));
    assert_eq!(report.target.config.cmd[1], "--password=****");
}

#[test]
fn what_a_later_layer_deletes_is_still_found() {
    let text = expand("glpat-{b:20}", 1);
    let layers = [
        layer(&[("app/a", text.as_bytes())]),
        layer(&[("app/.wh.a", b"")]),
    ];
    let report = image(&layers, &ImageConfig::default());
    let [one] = report.findings.secrets.as_slice() else {
        panic!("{:?}", report.findings.secrets)
    };
    assert!(one.deleted_later);
    assert_eq!(one.layer, layers[0].blob);
    let report = image(&layers[..1], &ImageConfig::default());
    assert!(!report.findings.secrets[0].deleted_later);
}

#[test]
fn a_file_that_is_as_its_package_made_it_holds_no_secret() {
    let text = expand("glpat-{b:20}", 1);
    let check = |sums: &str, expected: usize| {
        let status = "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n";
        let layers = [layer(&[
            ("var/lib/dpkg/status", status.as_bytes()),
            ("var/lib/dpkg/info/a.md5sums", sums.as_bytes()),
            ("srv/a.conf", text.as_bytes()),
        ])];
        let report = image(&layers, &ImageConfig::default());
        assert_eq!(report.findings.secrets.len(), expected, "{sums}");
    };
    let digest = digest_of(text.as_bytes());
    check(&format!("{digest}  srv/a.conf\n"), 0);
    // Changed since, or another file.
    check(&format!("{}  srv/a.conf\n", digest_of(b"another")), 1);
    check(&format!("{digest}  srv/b.conf\n"), 1);
    check("", 1);
}
