//! Real images, compared with what the package managers' own tools list. They are found in
//! `$TIDEWAITER_TEST_DATA/images`; without it the test says so and passes.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use archive::Limits;
use model::{Digest, Hides, ImageConfig, ImageReport};
use serde_json::Value;

use crate::{Analyzers, Config, LayerBlob, Subject, coalesce, read_layer};

const IMAGES: &[&str] = &[
    "alpine-3.15",
    "alpine-python-app",
    "alpine-node-app",
    "distroless-nats",
    "rpm-centos7-bdb",
    "rpm-mariner2-bdb",
    "rpm-mariner2-sqlite",
    "rpm-sle15-ndb",
    "scratch-go",
    "scratch-rust",
];

/// These have the names of their packages' files, and nothing in them: of one so many are changed
/// that not all are listed.
const EMPTIED: &[&str] = &["rpm-mariner2-sqlite", "rpm-sle15-ndb"];

/// What is truly there and no tool's list has: the name of a program that was built without modules
/// (`path` of `go version -m`).
const BEYOND: &[(&str, [&str; 3])] = &[(
    "distroless-nats",
    ["golang", "github.com/nats-io/nats-server", "(devel)"],
)];

fn json(path: &Path) -> Value {
    let mut bytes = Vec::new();
    File::open(path)
        .unwrap()
        .take(16 << 20)
        .read_to_end(&mut bytes)
        .unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn blob(layout: &Path, descriptor: &Value) -> (PathBuf, Digest) {
    let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
    (layout.join("blobs/sha256").join(digest.hex()), digest)
}

fn scan(layout: &Path) -> ImageReport {
    let limits = Limits::default();
    let analyzers = Analyzers::all(&Config::default(), &limits);
    let index = json(&layout.join("index.json"));
    let (manifest, image) = blob(layout, &index["manifests"][0]);
    let manifest = json(&manifest);
    let (config, image_id) = blob(layout, &manifest["config"]);
    let config = json(&config);
    let mut layers = Vec::new();
    let mut layer_sizes = Vec::new();
    for descriptor in manifest["layers"].as_array().unwrap() {
        let (path, digest) = blob(layout, descriptor);
        let expected = LayerBlob {
            digest,
            size: descriptor["size"].as_u64().unwrap(),
            media_type: descriptor["mediaType"].as_str().unwrap().to_owned(),
        };
        let read = read_layer(
            File::open(path).unwrap(),
            &expected,
            &analyzers,
            &limits,
            None,
        );
        assert!(read.complete, "{:?}", read.report.transient_gaps);
        layers.push(read.report);
        layer_sizes.push(expected.size);
    }
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    let config = ImageConfig {
        diff_ids: diff_ids
            .iter()
            .map(|id| id.as_str().unwrap().parse().unwrap())
            .collect(),
        ..ImageConfig::default()
    };
    let subject = Subject {
        image,
        reference: layout.display().to_string(),
        index_digest: None,
        manifest_digest: Some(image),
        image_id,
        platform: config.platform.clone(),
        layer_sizes,
    };
    coalesce(&layers, &config, subject, &limits)
}

#[test]
fn real_images_have_exactly_the_packages_that_their_tools_list() {
    let Some(data) = std::env::var_os("TIDEWAITER_TEST_DATA") else {
        println!("skipped: TIDEWAITER_TEST_DATA does not name a directory of real images");
        return;
    };
    let images = Path::new(&data).join("images");
    for name in IMAGES {
        let layout = images.join(name);
        if !layout.is_dir() {
            println!("skipped: there is no {}", layout.display());
            continue;
        }
        let report = scan(&layout);
        let truth = json(&images.join(format!("{name}.truth.json")));
        let beyond = BEYOND.iter().filter(|(image, _)| image == name);
        let beyond = beyond.map(|(_, package)| package.map(str::to_owned));
        let read = ["apk", "deb", "rpm", "pypi", "npm", "golang", "cargo"];
        let expected: BTreeSet<_> = truth
            .as_array()
            .unwrap()
            .iter()
            .map(|package| {
                ["ecosystem", "name", "version"]
                    .map(|key| package[key].as_str().unwrap().to_owned())
            })
            .filter(|[ecosystem, ..]| read.contains(&ecosystem.as_str()))
            .chain(beyond)
            .collect();
        let found: BTreeSet<_> = report
            .packages
            .iter()
            .map(|package| {
                [
                    package.kind.to_string(),
                    package.name.clone(),
                    package.version.clone(),
                ]
            })
            .collect();
        let missing: Vec<_> = expected.difference(&found).collect();
        let extra: Vec<_> = found.difference(&expected).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{name}: {missing:?} {extra:?}"
        );
        let is_emptied = EMPTIED.contains(name);
        let tampered = &report.findings.tampered;
        assert_eq!(tampered.is_empty(), !is_emptied, "{name}: {tampered:?}");
        let hiding = report.gaps.iter().filter(|gap| gap.hides != Hides::Nothing);
        assert_eq!(hiding.count(), 0, "{name}: {:?}", report.gaps);
        let os = report
            .target
            .os
            .map(|os| format!("{} {}", os.id, os.version_id));
        println!(
            "{name}: {} packages on {}",
            found.len(),
            os.as_deref().unwrap_or("nothing")
        );
    }
}
