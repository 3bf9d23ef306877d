//! A new advisory or an edited policy changes verdicts, and no layer is read for it.

use serde_json::Value;
use testkit::{ImageBuilder, debian_layer, python_layer};

use crate::fabric::{Advisory, Fabric, Options};

/// Denies nothing of what the test has.
const LENIENT: &str = "name: default
rules: []
";

#[tokio::test(flavor = "multi_thread")]
async fn a_new_advisory_changes_the_verdict_and_sends_one_alert() {
    let mut sink = crate::trace::Collector::start().await;
    let config = format!(
        "alerting:
  sinks:
    test:
      type: webhook
      url: {}
",
        sink.url("/alerts")
    );
    let Some(fabric) = Fabric::start(Options {
        config,
        ..Options::default()
    })
    .await
    else {
        return;
    };
    fabric.import(&Advisory::flask()).await;
    let image = ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(
            python_layer(&[("requests", "2.19.1")]).build(),
            "RUN pip install",
        )
        .build();
    let digest = image.digest.to_string();
    let reference = fabric.push(image, "team/app", "1");
    let before = fabric.verdict(&reference).await;
    assert_ne!(before["decision"], "deny", "{before:#}");
    let gets = fabric.registry.blob_gets().len();

    fabric.import(&Advisory::requests()).await;
    fabric.decision(&reference, "deny").await;
    let which = fabric
        .get("/v1/vulnerabilities/CVE-2018-18074/images")
        .await
        .expect("an answer");
    assert_eq!(which["items"][0]["image"], digest, "{which:#}");
    let raised = |alerts: &[Value]| {
        alerts
            .iter()
            .filter(|a| a["data"]["state"] == "raised")
            .count()
    };
    sink.until(|alerts| raised(alerts) > 0).await;

    edit_policy(&fabric, &reference, &digest).await;
    sink.until(|alerts| {
        alerts
            .iter()
            .any(|alert| alert["data"]["state"] == "resolved")
    })
    .await;
    assert_eq!(raised(&sink.alerts()), 1, "{:#?}", sink.alerts());
    assert_eq!(
        fabric.registry.blob_gets().len(),
        gets,
        "no blob was fetched for all that"
    );
}

/// A policy edit: what is stored is judged again, without a new assessment.
async fn edit_policy(fabric: &Fabric, reference: &str, digest: &str) {
    let assessed = fabric.assessed_at(digest).await;
    let policy = fabric.dir().join("lenient.yaml");
    std::fs::write(&policy, LENIENT).expect("a policy file");
    let put = fabric.tidewaiter(&["policy", "put", &policy.display().to_string()]);
    assert!(
        put.status.success(),
        "{}",
        String::from_utf8_lossy(&put.stderr)
    );
    fabric
        .until("a verdict that is not deny", async || {
            (fabric.verdict(reference).await["decision"] != "deny").then_some(())
        })
        .await;
    assert_eq!(
        fabric.assessed_at(digest).await,
        assessed,
        "no new assessment"
    );
}
