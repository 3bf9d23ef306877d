//! The crawler: with webhooks off everything is judged all the same.

use std::collections::BTreeSet;

use serde_json::Value;
use testkit::{
    Image, ImageBuilder, RegistryOptions, RegistryServer, debian_layer, index, python_layer,
};

use crate::fabric::{Advisory, Fabric, Options};

fn image(platform: &str, requests: &str) -> Image {
    ImageBuilder::for_platform(platform)
        .layer(debian_layer(), "base")
        .layer(python_layer(&[("requests", requests)]).build(), "RUN pip")
        .build()
}

/// The names that the inventory shows.
async fn names(fabric: &Fabric) -> BTreeSet<String> {
    let Some(page) = fabric.get("/v1/images").await else {
        return BTreeSet::new();
    };
    let items = page["items"].as_array().cloned().unwrap_or_default();
    let name = |item: &Value| item["reference"].as_str().map(str::to_owned);
    items.iter().filter_map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_webhooks_off_everything_is_judged() {
    let Some(registry) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    let bad = image("linux/amd64", "2.19.1");
    registry.push(&bad, "team/bad", "1");
    registry.push(image("linux/amd64", "2.31.0"), "team/good", "1");
    let platforms = ["linux/amd64", "linux/arm64"].map(|platform| image(platform, "2.30.0"));
    registry.push(index(platforms.into()), "team/both", "1");
    let config = format!(
        "    - name: quiet
      kind: distribution
      registry: {}
      plain_http: true
      allow_private: true
      crawl: {{start_after_s: 0, check_interval_s: 2, requests_per_second: 100}}
",
        registry.host()
    );
    let options = Options {
        config,
        ..Options::default()
    };
    let Some(fabric) = Fabric::start(options).await else {
        return;
    };
    fabric.import(&Advisory::requests()).await;
    let at = |name: &str| format!("{}/{name}", registry.host());
    fabric.decision(&at("team/bad:1"), "deny").await;
    fabric.decision(&at("team/good:1"), "allow").await;
    let both = fabric.decision(&at("team/both:1"), "allow").await;
    assert_eq!(both["images"].as_array().map(Vec::len), Some(2), "{both:#}");

    // A tag that moves, and one that goes.
    registry.push(image("linux/amd64", "2.19.0"), "team/good", "1");
    fabric.decision(&at("team/good:1"), "deny").await;
    registry.delete_manifest("team/bad", bad.digest);
    fabric
        .until("the name of what was deleted to go", async || {
            let names = names(&fabric).await;
            let is_gone = !names.iter().any(|name| name.contains("team/bad"));
            (is_gone && names.len() == 2).then_some(())
        })
        .await;
}
