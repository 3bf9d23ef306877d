//! Images that lie, break or are too much: always a verdict that names the gap, and the workers go on.

use model::GapCode;
use serde_json::Value;
use testkit::{ImageBuilder, Poison, clean_image, debian_layer, python_layer};

use crate::fabric::{Advisory, Fabric, Options};

/// Bytes of memory that the process may need for all of them, the broker not counted.
const MEMORY_MAX: u64 = 1 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn every_poison_image_gets_a_verdict_that_names_the_gap() {
    let Some(mut fabric) = Fabric::start(Options::default()).await else {
        return;
    };
    fabric.expect_log("cannot be read");
    fabric.expect_log("is not to be had");
    fabric.import(&Advisory::flask()).await;
    // It is claimed and never pushed: some poison stands under the digests of its layers.
    let clean = clean_image();
    // Others work before, so that the poison meets workers that know something.
    let before = ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(
            python_layer(&[("requests", "2.31.0")]).build(),
            "RUN pip install",
        )
        .build();
    let before = fabric.push(before, "clean/before", "1");
    assert_eq!(fabric.verdict(&before).await["decision"], "allow");

    // What the registry holds under wrong digests comes first: later images hold the same layers,
    // and a layer that is known is not read again.
    let planted = |poison: &Poison| matches!(poison, Poison::ShortBlob | Poison::WrongDigest);
    let (first, last): (Vec<_>, Vec<_>) = Poison::ALL.into_iter().partition(planted);
    for some in [first, last] {
        let mut references = Vec::new();
        for poison in some {
            let repository = format!("poison/{}", poison.name());
            references.push((poison, fabric.push(poison.image(), &repository, "plain")));
            // To claim the clean image's diffIDs is the truth where only they are the poison.
            if poison != Poison::WrongDiffId {
                let claiming = poison.image_claiming(&clean);
                references.push((poison, fabric.push(claiming, &repository, "claiming")));
            }
        }
        for (poison, reference) in &references {
            names_its_gap(&fabric, *poison, reference).await;
        }
    }
    // The workers go on, and what was judged before stays as it was.
    assert_eq!(fabric.verdict(&before).await["decision"], "allow");
    let healthy = ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(
            python_layer(&[("requests", "2.32.0")]).build(),
            "RUN pip install",
        )
        .build();
    let healthy = fabric.push(healthy, "poison/none", "1");
    assert_eq!(fabric.verdict(&healthy).await["decision"], "allow");
    let peak = fabric.peak_memory(0);
    println!("peak memory of tidewaiter: {} MiB", peak >> 20);
    assert!(peak < MEMORY_MAX, "{peak} bytes");
}

/// The verdict is `incomplete`, and the report says why.
#[expect(clippy::print_stdout, reason = "a test says what it saw")]
async fn names_its_gap(fabric: &Fabric, poison: Poison, reference: &str) {
    let verdict = fabric.verdict(reference).await;
    let decision = verdict["decision"].as_str().unwrap_or_default();
    let digest = verdict["images"][0]["image"].as_str().unwrap_or_default();
    let codes = gap_codes(&fabric.report(digest).await);
    println!("{reference:<48} {decision:<11} {}", codes.join(", "));
    let expected: Vec<String> = poison.gaps().iter().map(|code| name_of(*code)).collect();
    let named = expected.iter().any(|code| codes.contains(code));
    assert!(
        named,
        "{reference} names {codes:?}, not one of {expected:?}"
    );
    assert_eq!(decision, "incomplete", "{reference}: {verdict:#}");
}

fn gap_codes(report: &Value) -> Vec<String> {
    let gaps = report["gaps"].as_array().into_iter().flatten();
    let mut codes: Vec<String> = gaps
        .filter_map(|gap| gap["code"].as_str().map(str::to_owned))
        .collect();
    codes.sort();
    codes.dedup();
    codes
}

fn name_of(code: GapCode) -> String {
    let name = serde_json::to_value(code).expect("a code has a name");
    name.as_str().unwrap_or_default().to_owned()
}
