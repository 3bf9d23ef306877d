//! Rules for malware that change while everything runs.

use std::{fs, path::Path};

use testkit::{ImageBuilder, LayerBuilder, debian_layer};

use crate::fabric::{Advisory, Fabric, Options};

/// What only the rule of this test finds.
fn marker() -> String {
    ["tidewaiter", "planted", "marker"].join("-")
}

fn write(dir: &Path, text: &str) {
    fs::write(dir.join("mine.yar"), text).expect("a file of rules");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_rules_are_taken_up_and_broken_ones_are_told_of() {
    let rules = testkit::temp_dir();
    let config = format!(
        "scanner:
  malware:
    rules: {}
    look_interval_s: 1
",
        rules.path().display()
    );
    let options = Options {
        config,
        ..Options::default()
    };
    let Some(mut fabric) = Fabric::start(options).await else {
        return;
    };
    fabric.import(&Advisory::requests()).await;
    let script = format!("#!/bin/sh\n# {}\n", marker());
    let image = ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(
            LayerBuilder::new()
                .file_mode("app/run", 0o755, script)
                .build(),
            "COPY run /app/",
        )
        .build();
    let reference = fabric.push(image.clone(), "team/app", "1");
    fabric.decision(&reference, "allow").await;

    let found = format!(
        "rule found {{ strings: $a = \"{}\" condition: $a }}",
        marker()
    );
    write(rules.path(), &found);
    fabric
        .until("the new rules to be in force", async || {
            fabric.log(0).contains("take the place of").then_some(())
        })
        .await;
    // It is the same image, and others than these have scanned it.
    let again = fabric.push(image, "team/app", "2");
    let verdict = fabric.decision(&again, "deny").await;
    assert!(verdict.to_string().contains("found"), "{verdict:#}");

    fabric.expect_log("others are not taken up");
    write(rules.path(), "rule broken { condition: nothing }");
    let note = fabric
        .until("the rules that do not compile to be told of", async || {
            let (_, ready) = fabric.readyz(0).await?;
            let note = ready.to_string();
            note.contains("rules for malware").then_some(note)
        })
        .await;
    assert!(note.contains("rule set `mine`"), "{note}");
    fabric.decision(&reference, "deny").await;

    write(rules.path(), &found);
    fabric
        .until("the note to go", async || {
            let (_, ready) = fabric.readyz(0).await?;
            let is_gone = !ready.to_string().contains("rules for malware");
            is_gone.then_some(())
        })
        .await;
}
