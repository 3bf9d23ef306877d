//! A pushed image gets a verdict, and no layer is fetched twice.

use std::collections::BTreeMap;

use model::Digest;
use testkit::{BlobGet, ImageBuilder, LayerBuilder, debian_layer, index, npm_layer, python_layer};

use crate::fabric::{Advisory, Fabric, Options};

/// How often each blob was fetched, configs left out.
fn layer_gets(gets: &[BlobGet], layers: &[Digest]) -> BTreeMap<Digest, usize> {
    let mut counts = BTreeMap::new();
    for get in gets.iter().filter(|get| layers.contains(&get.digest)) {
        *counts.entry(get.digest).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_image_gets_a_verdict_and_no_layer_is_fetched_twice() {
    let Some(fabric) = Fabric::start(Options::default()).await else {
        return;
    };
    fabric.import(&Advisory::requests()).await;
    let (base, python) = (
        debian_layer(),
        python_layer(&[("requests", "2.19.1")]).build(),
    );
    let app = LayerBuilder::new()
        .file("srv/app.py", "print('hello')\n")
        .build();
    let layers: Vec<Digest> = [&base, &python, &app].map(|layer| layer.digest).to_vec();
    let image = || {
        ImageBuilder::new()
            .layer(base.clone(), "base")
            .layer(python.clone(), "RUN pip install")
    };

    let first = fabric.push(image().build(), "team/app", "1");
    let verdict = fabric.decision(&first, "deny").await;
    assert_eq!(
        verdict["verdict"]["reasons"][0]["decision"], "deny",
        "{verdict:#}"
    );

    // The same image under another tag: no blob is fetched, not even its config.
    let gets = fabric.registry.blob_gets().len();
    let second = fabric.push(image().build(), "team/app", "2");
    fabric.decision(&second, "deny").await;
    assert_eq!(fabric.registry.blob_gets().len(), gets);
    // Another image on the same base: one new layer.
    let third = fabric.push(
        image().layer(app.clone(), "COPY app.py").build(),
        "team/other",
        "1",
    );
    fabric.decision(&third, "deny").await;

    let counts = layer_gets(&fabric.registry.blob_gets(), &layers);
    assert_eq!(
        counts,
        layers.iter().map(|layer| (*layer, 1)).collect(),
        "each layer once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_as_bad_as_its_worst_platform() {
    let Some(fabric) = Fabric::start(Options::default()).await else {
        return;
    };
    fabric.import(&Advisory::lodash()).await;
    let platform = |platform: &str, version: &str| {
        ImageBuilder::for_platform(platform)
            .layer(debian_layer(), "base")
            .layer(npm_layer(&[("lodash", version)]).build(), "RUN npm install")
            .build()
    };
    let both = index(vec![
        platform("linux/amd64", "4.17.21"),
        platform("linux/arm64", "4.17.4"),
    ]);
    let reference = fabric.push(both, "team/multi", "1");
    let verdict = fabric.decision(&reference, "deny").await;
    let images = verdict["images"]
        .as_array()
        .expect("one verdict per platform");
    let mut decisions: Vec<_> = images
        .iter()
        .map(|one| {
            (
                one["platform"].as_str(),
                one["verdict"]["decision"].as_str(),
            )
        })
        .collect();
    decisions.sort();
    assert_eq!(
        decisions[1],
        (Some("linux/arm64"), Some("deny")),
        "{verdict:#}"
    );
    assert_ne!(decisions[0].1, Some("deny"), "{verdict:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ci_submits_waits_and_gets_the_report() {
    let Some(fabric) = Fabric::start(Options::default()).await else {
        return;
    };
    fabric.import(&Advisory::requests()).await;
    let image = ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(
            python_layer(&[("requests", "2.19.1")]).build(),
            "RUN pip install",
        )
        .build();
    let reference = fabric.push(image, "ci/app", "1");

    let checked = fabric.tidewaiter(&["check", &reference, "--scan", "--wait", "60s"]);
    let output = String::from_utf8_lossy(&checked.stdout);
    assert_eq!(
        checked.status.code(),
        Some(2),
        "{output}{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    assert!(output.contains("CVE-2018-18074"), "{output}");

    let unknown = fabric.tidewaiter(&["check", &format!("{}/no/such:1", fabric.registry.host())]);
    assert_eq!(
        unknown.status.code(),
        Some(6),
        "{}",
        String::from_utf8_lossy(&unknown.stderr)
    );

    let listed = fabric.tidewaiter(&["images", "--cve", "CVE-2018-18074"]);
    let output = String::from_utf8_lossy(&listed.stdout);
    assert!(output.contains("ci/app:1"), "{output}");
}
