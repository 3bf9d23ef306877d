//! A registry that answers slowly costs its own images time, and nobody else's.

use std::time::Duration;

use model::Digest;
use serde_json::{Value, json};
use testkit::{
    ImageBuilder, LayerBuilder, SeededLayer, StandInOptions, StandInRegistry, debian_layer,
};

use crate::fabric::{Fabric, HOOK_TOKEN, Options};

/// More images than one process works on at once.
const IMAGES: u64 = 12;
/// A layer that takes minutes at [`SPEED`].
const LAYER_BYTES: u64 = 2 << 20;
const SPEED: u64 = 8 << 10;

fn hook(digest: Digest, tag: &str) -> Value {
    json!({"events": [{
        "id": tag,
        "action": "push",
        "target": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest.to_string(),
            "repository": "team/slow",
            "tag": tag,
        },
    }]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_registry_holds_up_no_images_of_others() {
    let registry = StandInRegistry::start(StandInOptions {
        delay: Duration::ZERO,
        bytes_per_second: Some(SPEED),
    });
    let config = format!(
        "    - name: slow
      kind: distribution
      registry: {}
      tenant: other
      plain_http: true
      allow_private: true
      hook_token_sha256: {}
      crawl: {{enabled: false}}
  events_at_once: 4
scanner:
  images_at_once: 4
  layers_at_once: 2
",
        registry.host(),
        Digest::of(HOOK_TOKEN.as_bytes()).hex()
    );
    let options = Options {
        config,
        ..Options::default()
    };
    let Some(mut fabric) = Fabric::start(options).await else {
        return;
    };
    // Who stops in the middle of a layer says so.
    fabric.expect_log("stopping");
    let mut slow = Vec::new();
    for number in 0..IMAGES {
        let seeded = SeededLayer {
            seed: number,
            bytes: LAYER_BYTES,
        };
        let (layer, tag) = (seeded.layer(), number.to_string());
        registry.seed(seeded, layer.digest);
        let image = ImageBuilder::new().layer(layer, "base").build();
        registry.put(&image, "team/slow", &tag);
        slow.push((image.digest, tag));
    }
    for (digest, tag) in &slow {
        fabric.hook("slow", &hook(*digest, tag)).await;
    }
    let (before, after) = ("one", "two");
    let push = |name: &str| {
        let image = ImageBuilder::new()
            .layer(debian_layer(), "base")
            .layer(LayerBuilder::new().file("srv/name", name).build(), "COPY");
        fabric.push(image.build(), "team/app", name)
    };
    fabric
        .until("layers being read slowly", async || {
            (!registry.blob_gets().is_empty()).then_some(())
        })
        .await;
    for name in [before, after] {
        let reference = push(name);
        fabric.verdict(&reference).await;
    }
    // None of them was done meanwhile: they were at work all the time.
    let log = fabric.log(0);
    assert_eq!(log.matches("layers read").count(), 2, "{log}");
}
