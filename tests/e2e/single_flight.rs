//! Two scanner processes, and a layer that both need at the same moment.
//!
//! `TIDEWAITER_SINGLE_FLIGHT_ROUNDS` says how often.

use std::{collections::BTreeMap, time::Duration};

use model::Digest;
use serde_json::{Value, json};
use testkit::{
    Image, ImageBuilder, Layer, LayerBuilder, SeededLayer, StandInOptions, StandInRegistry,
};

use crate::fabric::{Fabric, HOOK_TOKEN, Options, setting};

const ROUNDS: usize = 3;
const MIB: u64 = 1 << 20;
/// Where the scanners stand among the processes.
const SCANNERS: [usize; 2] = [1, 2];

/// A fabric with two scanners, whose source is a slow registry.
struct Slow {
    fabric: Fabric,
    registry: StandInRegistry,
}

// === impl Slow ===

impl Slow {
    async fn start() -> Option<Self> {
        let registry = StandInRegistry::start(StandInOptions {
            delay: Duration::ZERO,
            bytes_per_second: Some(2 * MIB),
        });
        let config = format!(
            "    - name: slow
      kind: distribution
      registry: {}
      plain_http: true
      allow_private: true
      hook_token_sha256: {}
bus:
  ack_wait_ms: 3000
  lease_ms: 3000
  retry_ms: 300
",
            registry.host(),
            Digest::of(HOOK_TOKEN.as_bytes()).hex()
        );
        let others = vec![
            "gateway",
            "router",
            "matcher",
            "policy",
            "alerting",
            "inventory",
        ];
        let options = Options {
            config,
            processes: vec![others, vec!["scanner"], vec!["scanner"]],
            ..Options::default()
        };
        let fabric = Fabric::start(options).await?;
        Some(Self { fabric, registry })
    }

    /// A base that nobody has seen.
    fn base(&self, seed: u64, bytes: u64) -> Layer {
        let seeded = SeededLayer { seed, bytes };
        let layer = seeded.layer();
        self.registry.seed(seeded, layer.digest);
        layer
    }

    /// Puts an image of this base and a layer of its own into the registry.
    fn put(&self, base: &Layer, name: &str) -> (Image, Value) {
        let own = LayerBuilder::new().file("srv/name", name).build();
        let image = ImageBuilder::new()
            .layer(base.clone(), "base")
            .layer(own, "COPY name")
            .build();
        self.registry.put(&image, "team/app", name);
        let hook = json!({"events": [{
            "id": name,
            "action": "push",
            "target": {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": image.digest.to_string(),
                "repository": "team/app",
                "tag": name,
            },
        }]});
        (image, hook)
    }

    /// How often each layer of these images was fetched.
    fn fetched(&self, images: &[&Image]) -> BTreeMap<Digest, usize> {
        let layers = images.iter().flat_map(|image| &image.layers);
        self.counted(layers.map(|layer| layer.digest))
    }

    /// How often each of these blobs was fetched.
    fn counted(&self, blobs: impl Iterator<Item = Digest>) -> BTreeMap<Digest, usize> {
        let mut counts: BTreeMap<Digest, usize> = blobs.map(|digest| (digest, 0)).collect();
        for get in self.registry.blob_gets() {
            if let Some(count) = counts.get_mut(&get.digest) {
                *count += 1;
            }
        }
        counts
    }

    async fn verdicts(&self, images: &[&Image]) {
        for image in images {
            self.fabric.verdict(&image.digest.to_string()).await;
        }
    }

    /// How many images a scanner has finished.
    fn finished(&self, scanner: usize) -> usize {
        self.fabric.log(scanner).matches("layers read").count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_fetch_a_layer_that_both_need_once() {
    let Some(slow) = Slow::start().await else {
        return;
    };
    let rounds = setting("TIDEWAITER_SINGLE_FLIGHT_ROUNDS");
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let mut by_both = 0;
    for round in 0..rounds {
        let base = slow.base(round as u64, 2 * MIB);
        let (one, one_hook) = slow.put(&base, &format!("one-{round}"));
        let (two, two_hook) = slow.put(&base, &format!("two-{round}"));
        let before = SCANNERS.map(|scanner| slow.finished(scanner));
        tokio::join!(
            slow.fabric.hook("slow", &one_hook),
            slow.fabric.hook("slow", &two_hook)
        );
        slow.verdicts(&[&one, &two]).await;
        let fetched = slow.fetched(&[&one, &two]);
        assert!(
            fetched.values().all(|count| *count == 1),
            "round {round}: {fetched:#?}"
        );
        // The router and the scanner are processes of their own, and share what they read.
        let configs = slow.counted([&one, &two].into_iter().map(|image| image.image_id));
        assert!(
            configs.values().all(|count| *count == 1),
            "round {round}: configs {configs:#?}"
        );
        let after = SCANNERS.map(|scanner| slow.finished(scanner));
        by_both += usize::from(
            before
                .iter()
                .zip(&after)
                .all(|(before, after)| after > before),
        );
    }
    println!("{rounds} rounds, {by_both} of them with an image for each process");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_whose_reader_dies_is_fetched_once_more() {
    let Some(mut slow) = Slow::start().await else {
        return;
    };
    // Scanners that are alone find a job each: the first one surely reads the base.
    slow.fabric.kill(SCANNERS[1]);
    let base = slow.base(1, 12 * MIB);
    let (one, one_hook) = slow.put(&base, "one");
    let (two, two_hook) = slow.put(&base, "two");
    slow.fabric.hook("slow", &one_hook).await;
    slow.fabric
        .until("the base being fetched", async || {
            (slow.fetched(&[&one])[&base.digest] == 1).then_some(())
        })
        .await;
    slow.fabric.restart(SCANNERS[1]).await;
    slow.fabric.hook("slow", &two_hook).await;
    slow.fabric.kill(SCANNERS[0]);
    slow.verdicts(&[&one, &two]).await;
    let fetched = slow.fetched(&[&one, &two]);
    assert_eq!(fetched.get(&base.digest), Some(&2), "{fetched:#?}");
    let others = fetched.iter().filter(|(digest, _)| **digest != base.digest);
    assert!(
        others.into_iter().all(|(_, count)| *count <= 2),
        "{fetched:#?}"
    );
    assert_eq!(fetched.len(), 3);
}
