//! A broker that is not there yet, and one that lost everything.

use serde_json::json;
use testkit::{Image, ImageBuilder, debian_layer, python_layer};

use crate::fabric::{Advisory, Fabric, Options};

fn image(own: &str) -> Image {
    ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(
            python_layer(&[("requests", "2.19.1"), (own, "1.0")]).build(),
            "RUN pip install",
        )
        .build()
}

fn processes() -> Vec<Vec<&'static str>> {
    let others = vec![
        "router",
        "scanner",
        "matcher",
        "policy",
        "alerting",
        "inventory",
    ];
    vec![vec!["gateway"], others]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_without_a_broker_accepts_and_the_others_wait() {
    let options = Options {
        processes: processes(),
        api: 1,
        ..Options::default()
    };
    let Some(mut fabric) = Fabric::start(options).await else {
        return;
    };
    fabric.expect_log(" WARN ");
    fabric.import(&Advisory::requests()).await;
    fabric.nats().kill();
    for index in [0, 1] {
        fabric.kill(index);
        fabric.launch(index);
    }
    let pushed = image("early");
    let digest = pushed.digest.to_string();
    fabric.registry.push(pushed, "team/app", "1");
    let hook = json!({"events": [{
        "id": "early",
        "action": "push",
        "target": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "repository": "team/app",
            "tag": "1",
        },
    }]});
    fabric.hook("main", &hook).await;
    // Who needs the broker waits, is alive, and says so.
    // The gateway alone is ready: it must go on getting requests.
    for (index, wanted, note, says) in [
        (0, 200, "nats", "wait in the spool"),
        (1, 503, "roles", "router, scanner, matcher"),
    ] {
        let (status, body) = fabric
            .until("an answer of /readyz", async || fabric.readyz(index).await)
            .await;
        assert_eq!(status, wanted, "{body:#}");
        let said = body["notes"][note].as_str().unwrap_or_default();
        assert!(said.contains(says), "{body:#}");
    }
    fabric.nats().restart();
    for index in [0, 1] {
        fabric.ready(index).await;
        fabric
            .until("nothing to be said", async || {
                let (_status, body) = fabric.readyz(index).await?;
                (body["notes"] == json!({})).then_some(())
            })
            .await;
    }
    fabric.decision(&digest, "deny").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_lost_everything_leaves_nothing_in_the_views() {
    let options = Options {
        processes: processes(),
        api: 1,
        ..Options::default()
    };
    let Some(mut fabric) = Fabric::start(options).await else {
        return;
    };
    fabric.expect_log(" WARN ");
    fabric.import(&Advisory::requests()).await;
    let old = image("old");
    let (old_digest, old_tag) = (old.digest.to_string(), fabric.push(old, "team/old", "1"));
    fabric.decision(&old_tag, "deny").await;
    for index in [0, 1] {
        fabric.kill(index);
    }
    fabric.nats().lose();
    fabric.provision();
    for index in [0, 1] {
        fabric.restart(index).await;
    }
    fabric
        .until("an inventory that shows nothing", async || {
            let page = fabric.get("/v1/images").await?;
            page["items"].as_array()?.is_empty().then_some(())
        })
        .await;
    // What comes now is judged as ever, with the advisories handed in anew.
    fabric.import(&Advisory::requests()).await;
    let new = fabric.push(image("new"), "team/new", "1");
    fabric.decision(&new, "deny").await;
    assert_eq!(fabric.get(&format!("/v1/images/{old_digest}")).await, None);
    let affected = "/v1/vulnerabilities/CVE-2018-18074/images";
    let affected = fabric.get(affected).await.expect("a list");
    let images = affected["items"].as_array().map(Vec::len);
    assert_eq!(images, Some(1), "{affected:#}");
}
