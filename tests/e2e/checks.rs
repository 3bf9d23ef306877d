//! Checks that nobody can make before an image is judged: those of the installation's own policy, and that
//! an operating system has ended.

use serde_json::Value;
use testkit::{ImageBuilder, LayerBuilder};

use crate::fabric::{Advisory, Fabric, Options};

const POLICY: &str = "
name: default
checks:
  - id: owner-label
    title: nobody is named who answers for the image
    severity: high
    clauses: ['House rules 1']
    when: { image: { lacks_labels: [com.example.team] } }
    remediation: add `LABEL com.example.team=…`
rules:
  - name: house-rules
    when: { misconfiguration: { clauses: ['House rules *'] } }
    then: deny
waivers:
  - fingerprint: FINGERPRINT
    reason: it is replaced next month
    author: ada@example.com
    expires: 2999-12-31
";

const OS: &str = "ID=debian\nVERSION_ID=9\nVERSION_CODENAME=stretch\n";
const STATUS: &str =
    "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 4.4-5\n";

#[tokio::test(flavor = "multi_thread")]
async fn own_checks_and_the_end_of_an_operating_system_are_in_reports_of_a_server() {
    let dir = testkit::temp_dir();
    let file = dir.path().join("policy.yaml");
    // The name of the finding that an ended operating system is: of its check and what it says.
    let ended = model::Fingerprint::of(&["end-of-life-os", "debian 9", ""]);
    std::fs::write(&file, POLICY.replace("FINGERPRINT", &ended.0)).expect("a policy file");
    let options = Options {
        config: format!("policy:\n  files: ['{}']\n", file.display()),
        ..Options::default()
    };
    let Some(fabric) = Fabric::start(options).await else {
        return;
    };
    fabric.import(&Advisory::requests()).await;
    let layer = LayerBuilder::new()
        .file("etc/os-release", OS)
        .file("var/lib/dpkg/status", STATUS);
    let image = ImageBuilder::new().layer(layer.build(), "base").build();
    let digest = image.digest.to_string();
    let reference = fabric.push(image, "team/app", "1");
    let verdict = fabric.decision(&reference, "deny").await;
    let rules: Vec<_> = verdict["verdict"]["reasons"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|reason| reason["rule"].as_str())
        .collect();
    assert!(rules.contains(&"house-rules"), "{verdict:#}");
    let report = fabric.report(&digest).await;
    let of = |id: &str| -> Value {
        let found = report["misconfigurations"].as_array().expect("a list");
        let one = found.iter().find(|one| one["id"] == id);
        one.unwrap_or_else(|| panic!("no {id}: {report:#}")).clone()
    };
    let own = of("owner-label");
    assert_eq!(own["clauses"][0], "House rules 1");
    assert_eq!(own["waived"], Value::Null);
    let ended = of("end-of-life-os");
    assert_eq!(ended["evidence"], "debian 9");
    assert_eq!(ended["waived"]["author"], "ada@example.com");
}
