//! Processes that die, and databases that are gone.

use std::sync::{Arc, Mutex, PoisonError};

use bus::{Bus, Consume, Delivery, Failure, Handler, Outcome};
use chassis::Cx;
use model::{
    Digest,
    event::{ImageJudged, LEASES, RESULTS},
};
use serde_json::Value;
use testkit::{Compression, ImageBuilder, LayerBuilder, debian_layer, python_layer};

use crate::fabric::{Advisory, Fabric, Options};

/// Keeps the news it gets.
#[derive(Default)]
struct News(Mutex<Vec<ImageJudged>>);

// === impl News ===

impl News {
    fn of(&self, image: Digest) -> Vec<ImageJudged> {
        let news = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        news.iter()
            .filter(|news| news.image == image)
            .cloned()
            .collect()
    }
}

impl Handler for News {
    type Input = ImageJudged;

    async fn handle(&self, delivery: Delivery<ImageJudged>) -> Result<Outcome, Failure> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(delivery.body);
        Ok(Outcome::none())
    }
}

/// A layer that takes seconds to read: text that packs well enough to be quick to push.
fn slow_layer() -> testkit::Layer {
    let mut layer = LayerBuilder::new().compression(Compression::Gzip);
    for file in 0..400_u32 {
        let line = |n: u32| format!("{:08x} {:08x}\n", n.wrapping_mul(2_654_435_761), n ^ file);
        let text: String = (0..100_000).map(|n| line(n + file * 7)).collect();
        layer = layer.file_mode(&format!("opt/data/{file}.sh"), 0o755, text);
    }
    layer.build()
}

/// A scanner in a process of its own; a death is noticed sooner than in production.
fn apart() -> Options {
    let others = vec![
        "gateway",
        "router",
        "matcher",
        "policy",
        "alerting",
        "inventory",
    ];
    Options {
        config: "bus:\n  ack_wait_ms: 6000\n  lease_ms: 5000\n".to_owned(),
        processes: vec![others, vec!["scanner"]],
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_of_a_layer_costs_no_verdict_and_makes_no_second_one() {
    let Some(mut fabric) = Fabric::start(apart()).await else {
        return;
    };
    fabric.import(&Advisory::requests()).await;
    let image = ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(slow_layer(), "RUN make data")
        .build();
    let digest = image.digest;

    let cx = Cx::for_tests();
    let url = fabric.nats_url();
    let bus = Bus::connect(
        &cx,
        &bus::Config {
            url,
            ..bus::Config::default()
        },
        "test",
    )
    .await;
    let bus = bus.expect("the test can connect");
    let reference = fabric.push(image, "crash/app", "1");
    let lease = fabric
        .until("a lease of a layer", async || {
            let leases = bus.store().list::<Value>(LEASES, "layer.").await.ok()?;
            leases.into_iter().next().map(|(key, _)| key)
        })
        .await;
    fabric.kill(1);
    println!("killed the scanner while it held {lease}");
    // The broker dies with it, and what it stored must be enough.
    fabric.expect_log(" WARN ");
    fabric.nats().kill();
    fabric.nats().restart();
    fabric.restart(1).await;
    fabric.verdict(&reference).await;

    let news = Arc::new(News::default());
    let consume = Consume {
        stream: RESULTS.to_owned(),
        durable: "e2e_crash".to_owned(),
        filter: "tw.res.*.image.judged".to_owned(),
        concurrency: 1,
        ack_wait: bus.config().ack_wait(),
    };
    bus.consume(&cx, consume, Arc::clone(&news));
    fabric
        .until("news of the verdict", async || {
            news.of(digest).first().cloned()
        })
        .await;
    // Nothing shows that no second one comes but to let everything that waits come to its end.
    fabric.idle().await;
    let news = news.of(digest);
    let of_image = news.len();
    assert_eq!(of_image, 1, "{news:#?}");
    cx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_local_database_can_be_deleted() {
    let roles = vec![
        "gateway",
        "router",
        "scanner",
        "matcher",
        "policy",
        "alerting",
        "inventory",
    ];
    let options = Options {
        processes: vec![roles],
        ..Options::default()
    };
    let Some(mut fabric) = Fabric::start(options).await else {
        return;
    };
    fabric.import(&Advisory::flask()).await;
    let image = ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(
            python_layer(&[("requests", "2.19.1"), ("flask", "2.0.0")]).build(),
            "RUN pip",
        )
        .build();
    let reference = fabric.push(image, "team/app", "1");
    fabric.decision(&reference, "deny").await;
    let listed = fabric.get("/v1/images").await;
    let affected = fabric
        .get("/v1/vulnerabilities/CVE-2023-30861/images")
        .await;
    let gets = fabric.registry.blob_gets().len();

    fabric.kill(0);
    for database in ["scanner", "matcher", "inventory"] {
        let dir = fabric.data_dir(0).join(database);
        std::fs::remove_dir_all(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    }
    fabric.restart(0).await;
    fabric
        .until("the inventory of before", async || {
            let same = fabric.get("/v1/images").await == listed
                && fabric
                    .get("/v1/vulnerabilities/CVE-2023-30861/images")
                    .await
                    == affected;
            same.then_some(())
        })
        .await;
    // The reverse index answers: an advisory finds the image, and no layer is read for it.
    fabric.import(&Advisory::requests()).await;
    fabric
        .until("the image under its new vulnerability", async || {
            let found = fabric
                .get("/v1/vulnerabilities/CVE-2018-18074/images")
                .await?;
            (found["items"].as_array()?.len() == 1).then_some(())
        })
        .await;
    assert_eq!(
        fabric.registry.blob_gets().len(),
        gets,
        "no blob was fetched"
    );
}
