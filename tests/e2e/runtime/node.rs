//! A node as a source: what only it has is read through its agent, and judged like any image.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use super::{NODE, Yard};

/// A file of the layer that is built on the node.
const OWN: &str = "opt/own.sh";

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_only_a_node_has_gets_a_verdict_and_its_container_drifts() {
    let Some(yard) = Yard::start(1).await else {
        return;
    };
    let built = build(&yard);
    let id = yard
        .engine
        .container("local", &[], &built, &["/bin/sleep", "1000"]);
    let path = format!("/v1/containers/{id}");
    let container = yard
        .fabric
        .until("a verdict on an image that only a node has", async || {
            let found = yard.fabric.get(&path).await?;
            let is_judged = found["image_digest"].is_string() && found["decision"].is_string();
            is_judged.then_some(found)
        })
        .await;
    // It is known inside out, and still from nowhere.
    assert_eq!(
        container["unauthorized"]["reason"], "no_source",
        "{container:#}"
    );
    let digest = container["image_digest"].as_str().expect("a digest");
    let report = yard.fabric.report(digest).await;
    let reference = report["target"]["reference"].as_str().expect("a name");
    assert_eq!(reference, format!("node.invalid/{NODE}/{built}"));
    let gaps = report["gaps"].as_array().expect("gaps");
    let is_whole = gaps.iter().all(|gap| gap["hides"] == "nothing");
    assert!(is_whole, "{gaps:#?}");
    let layers = report["target"]["layers"].as_array().expect("layers");
    for layer in layers {
        // The engine hands layers out as they are laid down.
        assert_eq!(layer["digest"], layer["diff_id"], "{layer:#}");
    }
    let id_of_engine = yard
        .engine
        .run(&["images", "--no-trunc", "--quiet", &built]);
    assert_eq!(report["target"]["image_id"], id_of_engine.as_str());
    yard.engine.exec("local", &format!("/{OWN}"));
    yard.engine.exec(
        "local",
        "cp /bin/ls /tmp/dropped; printf x >>/tmp/dropped; /tmp/dropped /",
    );
    yard.until_detected(&id, "drift/added-executable", "tmp/dropped")
        .await;
    let detected = yard.detected(&id).await;
    assert_eq!(detected.len(), 1, "{detected:#?}");
}

/// An image with a layer that nobody else has.
fn build(yard: &Yard) -> String {
    let dir = testkit::temp_dir();
    let write = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).expect("a file of a test");
    };
    write("own.sh", "#!/bin/sh\n:\n");
    let recipe = format!("FROM {}\nCOPY --chmod=0755 own.sh /{OWN}\n", yard.image);
    write("Containerfile", &recipe);
    let built = "localhost/built-here:1";
    let context = dir.path().display().to_string();
    yard.engine
        .run(&["build", "--quiet", "--pull=never", "--tag", built, &context]);
    built.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_reported_with_the_packages_that_its_package_manager_lists() {
    let Some(yard) = Yard::start(1).await else {
        return;
    };
    let Some(installed) = installed() else {
        return;
    };
    let path = format!("/v1/nodes/{NODE}");
    let host = yard
        .fabric
        .until("a verdict on the host", async || {
            let node = yard.fabric.get(&path).await?;
            let host = node["host_image"].clone();
            host["decision"].is_string().then_some(host)
        })
        .await;
    let digest = host["image_digest"].as_str().expect("a digest");
    let report = yard.fabric.report(digest).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = report["packages"].as_array().expect("packages");
    let told: BTreeSet<_> = packages
        .iter()
        .map(|one| {
            (
                text(&one["name"]),
                text(&one["version"]),
                text(&one["arch"]),
            )
        })
        .collect();
    let missing: Vec<_> = installed.difference(&told).collect();
    let more: Vec<_> = told.difference(&installed).collect();
    assert!(
        missing.is_empty() && more.is_empty(),
        "{missing:?} {more:?}"
    );
    println!("{} packages, as dpkg-query lists them", told.len());
    assert_eq!(report["target"]["os"]["id"], "debian", "{report:#}");
    let name = format!("node.invalid/{NODE}/host:current");
    assert_eq!(report["target"]["reference"], name.as_str());
    let shown = yard.fabric.tidewaiter(&["nodes", NODE]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&name), "{shown}");
}

/// Name, version and architecture of what is installed; `None`, with a reason printed, on a host
/// with another package manager.
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn installed() -> Option<BTreeSet<(String, String, String)>> {
    let format = "${db:Status-Status}\\t${Package}\\t${Version}\\t${Architecture}\\n";
    let listed = Command::new("dpkg-query")
        .args(["-W", "-f", format])
        .output();
    let Ok(listed) = listed else {
        println!("skipped: dpkg-query is not here to compare with");
        return None;
    };
    let listed = String::from_utf8(listed.stdout).expect("text");
    let lines = listed
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    let installed = lines.filter_map(|fields| match fields.as_slice() {
        ["installed", name, version, arch] => Some((
            (*name).to_owned(),
            (*version).to_owned(),
            (*arch).to_owned(),
        )),
        _ => None,
    });
    Some(installed.collect())
}
