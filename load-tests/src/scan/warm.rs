//! The whole command again, for an image in a registry whose layers are known.

use std::{path::Path, process::Command};

use anyhow::Context as _;
use serde_json::Value;
use testkit::{Artifact, Document, RegistryOptions, RegistryServer, StoredBlob};

use super::{ANSWER_BYTES_MAX, Measured, image::Image, measured, subject::Count};
use crate::layout;

/// Pushes the image, scans it once so that its layers are known, and measures the scans after.
pub(super) fn measure(image: &Image, cache: &Path, rounds: usize) -> anyhow::Result<Vec<Measured>> {
    let layout = image
        .layout
        .as_ref()
        .context("a warm scan needs a layout")?;
    let registry = RegistryServer::start(RegistryOptions::default());
    let registry = registry.context("docker-registry is not installed")?;
    registry.push(artifact(layout)?, "measured", "1");
    let reference = format!("{}/measured:1", registry.host());
    crate::say(&format!("`{}` warm, {rounds} rounds", layout.display()));
    let work = testkit::temp_dir();
    let mut runs = Vec::new();
    let mut packages = None;
    for round in 0..=rounds {
        let answer = work.path().join("answer");
        let out = std::fs::File::create(&answer)?;
        let once = measured::once(&mut command(&reference, cache)?, Some(out))?;
        anyhow::ensure!(
            matches!(once.status.code(), Some(0 | 2 | 3)),
            "scanning `{reference}`: {}",
            once.status
        );
        packages = Count::List("/packages").of(&layout::read(&answer, ANSWER_BYTES_MAX)?);
        if round > 0 {
            runs.push(once);
        }
    }
    let measured = Measured {
        name: "tidewaiter scan, warm".to_owned(),
        packages,
        ..Measured::default()
    };
    Ok(vec![measured.with(&runs, image.uncompressed_bytes)])
}

fn command(reference: &str, cache: &Path) -> anyhow::Result<Command> {
    let this = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(this.with_file_name("tidewaiter"));
    command
        .args(["scan", reference, "--quiet", "--format", "json"])
        .arg("--cache-dir")
        .arg(cache);
    Ok(command)
}

/// Everything that belongs to a layout's first image.
fn artifact(layout: &Path) -> anyhow::Result<Artifact> {
    let index = layout::read_json(&layout.join("index.json"))?;
    let entry = &index["manifests"][0];
    let root = stored(layout, &entry["digest"])?;
    let manifest: Value = serde_json::from_slice(&root.bytes)?;
    let layers = manifest["layers"].as_array().context("no layers")?;
    let blobs = layers.iter().chain([&manifest["config"]]);
    let media_type = manifest["mediaType"]
        .as_str()
        .or(entry["mediaType"].as_str());
    Ok(Artifact {
        root: Document {
            digest: root.digest,
            media_type: media_type.context("no media type")?.to_owned(),
            bytes: root.bytes,
        },
        children: Vec::new(),
        blobs: blobs
            .map(|blob| stored(layout, &blob["digest"]))
            .collect::<anyhow::Result<_>>()?,
    })
}

fn stored(layout: &Path, digest: &Value) -> anyhow::Result<StoredBlob> {
    let file = layout::blob(layout, digest)?;
    let bytes = layout::read(&file, layout::LAYER_BYTES_MAX)?;
    let digest = digest.as_str().context("no digest")?.parse()?;
    Ok(StoredBlob { digest, bytes })
}
