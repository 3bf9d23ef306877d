//! Messages that are too large for a message.

use bus::Bus;
use chassis::Cx;
use model::{
    Slug,
    event::{ImageScan, Priority},
};
use testkit::{ImageBuilder, debian_layer, python_layer};

use crate::fabric::{Advisory, Fabric, Options};

/// More than a message of a stream may have, and more than is sent in one.
const LARGE: usize = 300_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_too_large_for_a_message_is_done_after_a_crash_of_the_broker() {
    let others = vec![
        "gateway",
        "router",
        "matcher",
        "policy",
        "alerting",
        "inventory",
    ];
    let options = Options {
        processes: vec![others, vec!["scanner"]],
        ..Options::default()
    };
    let Some(mut fabric) = Fabric::start(options).await else {
        return;
    };
    // The processes say that the broker is away.
    fabric.expect_log(" WARN ");
    fabric.import(&Advisory::requests()).await;
    let image = ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(python_layer(&[("requests", "2.19.1")]).build(), "RUN pip")
        .build();
    let digest = image.digest;
    fabric.kill(1);
    // Beside the webhook's job, which waits as well, comes one that no message could hold.
    fabric.push(image, "team/app", "1");
    let cx = Cx::for_tests();
    let config = bus::Config {
        url: fabric.nats_url(),
        ..bus::Config::default()
    };
    let bus = Bus::connect(&cx, &config, "test").await;
    let bus = bus.expect("the test can connect");
    let job = ImageScan {
        image: digest,
        source: "main".parse().expect("a name"),
        repository: "team/app".to_owned(),
        reference: "x".repeat(LARGE),
        index: None,
        cause: "large".to_owned(),
        priority: Priority::High,
        force: true,
        manifest: None,
        on_node: None,
    };
    let tenant = Slug::default_tenant();
    bus.publish(&tenant, &job).await.expect("it is stored");
    fabric.nats().kill();
    fabric.nats().restart();
    fabric.restart(1).await;
    fabric.decision(&digest.to_string(), "deny").await;
    let report = fabric
        .until("the report of the large job", async || {
            let report = fabric.get(&format!("/v1/images/{digest}/report")).await?;
            let reference = report["target"]["reference"].as_str()?;
            (reference.len() == LARGE).then_some(report)
        })
        .await;
    assert_eq!(report["vulnerabilities"][0]["id"], "CVE-2018-18074");
    cx.stop();
}
