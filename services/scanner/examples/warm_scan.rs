//! Says how long the scan of an image takes whose layers are all known:
//! `warm_scan [ENTRIES] [PACKAGES] [IMAGES]`.
#![expect(
    clippy::print_stdout,
    reason = "it is a program for a person at a terminal"
)]

use std::{
    collections::HashMap,
    io::Cursor,
    sync::Arc,
    time::{Duration, Instant},
};

use cache::SectionCache;
use chassis::Cx;
use futures::future::BoxFuture;
use model::{Digest, ImageConfig, Platform, Slug};
use oci::{BlobReader, Descriptor, Image, Manifest, OciError, Resolved, Source};
use scanner::{CacheSections, Reader, Sections, Settings, scan};
use testkit::{Layer, LayerBuilder, python_layer};

/// Layers from memory.
struct Blobs(HashMap<Digest, Vec<u8>>);

impl Source for Blobs {
    fn resolve<'a>(&'a self, _: &'a oci::Wanted) -> BoxFuture<'a, Result<Resolved, OciError>> {
        Box::pin(async { Err(OciError::Internal("images are made here".to_owned())) })
    }

    fn open_blob<'a>(
        &'a self,
        _repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobReader, OciError>> {
        Box::pin(async move {
            let bytes = self.0.get(&blob.digest).cloned().unwrap_or_default();
            Ok(Box::new(Cursor::new(bytes)) as BlobReader)
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let number = |at: usize, otherwise: usize| {
        let argument = std::env::args().nth(at);
        argument
            .and_then(|text| text.parse().ok())
            .unwrap_or(otherwise)
    };
    let (entries, packages, images) = (number(1, 30_000), number(2, 200), number(3, 200));
    let layers = [
        base(entries * 7 / 10, packages * 7 / 10),
        python(packages * 3 / 10),
        files("opt/data", entries / 5),
        files("srv/app", entries / 10),
    ];
    let cx = Cx::system();
    let reader = Reader::new(settings());
    let blobs = layers
        .iter()
        .map(|layer| (layer.digest, layer.blob.clone()));
    let source: Arc<dyn Source> = Arc::new(Blobs(blobs.collect()));
    let image = image(&layers);
    println!(
        "{entries} entries, {packages} packages, {} layers",
        layers.len()
    );
    for (name, memory) in [("from disk", 0), ("from memory", 256 << 20)] {
        let dir = testkit::temp_dir();
        let cache = Arc::new(SectionCache::open(dir.path(), 1 << 30)?);
        let sections = CacheSections::new(cx.clone(), cache, memory);
        let cold = timed(&cx, &reader, &image, &source, &sections).await?;
        let mut all = Vec::with_capacity(images);
        for _ in 0..images {
            all.push(timed(&cx, &reader, &image, &source, &sections).await?);
        }
        all.sort();
        let median = all.get(all.len() / 2).copied().unwrap_or_default();
        let best = all.first().copied().unwrap_or_default();
        println!(
            "{name}: cold {} us, warm median {} us, best {} us",
            cold.as_micros(),
            median.as_micros(),
            best.as_micros()
        );
    }
    Ok(())
}

async fn timed(
    cx: &Cx,
    reader: &Reader,
    image: &Image,
    source: &Arc<dyn Source>,
    sections: &dyn Sections,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let done = scan(cx, reader, image, source, sections).await?;
    let took = start.elapsed();
    anyhow::ensure!(!done.report.packages.is_empty(), "no packages were found");
    Ok(took)
}

/// A Debian with its records, and files spread over its directories as packages spread them.
fn base(entries: usize, packages: usize) -> Layer {
    let mut layer = LayerBuilder::new()
        .dir("usr")
        .dir("usr/bin")
        .symlink("bin", "usr/bin")
        .symlink("lib", "usr/lib")
        .file("usr/lib/os-release", "ID=debian\nVERSION_ID=\"12\"\n")
        .symlink("etc/os-release", "../usr/lib/os-release");
    let mut status = String::new();
    let each = entries / packages.max(1);
    for package in 0..packages {
        let name = format!("libpackage{package}");
        status.extend([format!(
            "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\n\
             Source: source{package}\nVersion: 1.2.{package}-3+deb12u1\n\
             Depends: libpackage{}, libpackage{}\n\n",
            package / 2,
            package / 3
        )]);
        let mut list = String::from("/.\n");
        let doc = format!("usr/share/doc/{name}");
        layer = layer.dir(&doc);
        for file in 0..each {
            let path = match file % 4 {
                0 => format!("{doc}/part-{file}.txt"),
                1 => format!("usr/lib/x86_64-linux-gnu/{name}.so.{file}"),
                2 => format!(
                    "usr/share/locale/l{}/LC_MESSAGES/{name}-{file}.mo",
                    file % 90
                ),
                _ => format!("usr/bin/{name}-{file}"),
            };
            list.extend([format!("/{path}\n")]);
            layer = layer.file(&path, "x");
        }
        layer = layer.file(&format!("var/lib/dpkg/info/{name}:amd64.list"), list);
    }
    layer.file("var/lib/dpkg/status", status).build()
}

fn python(packages: usize) -> Layer {
    let names: Vec<String> = (0..packages).map(|n| format!("module{n}")).collect();
    let modules: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "1.0")).collect();
    python_layer(&modules).build()
}

fn files(directory: &str, count: usize) -> Layer {
    let paths = (0..count).map(|n| format!("{directory}/part-{}/file-{n}.bin", n / 40));
    paths
        .fold(LayerBuilder::new(), |layer, path| layer.file(&path, "x"))
        .build()
}

fn settings() -> Settings {
    Settings {
        domain: Slug::default_tenant(),
        analyzers: analyzers::Config::default(),
        malware: None,
        lock_files: false,
        limits: archive::Limits::default(),
        layers_at_once: 2,
        layers_max: 100,
    }
}

fn image(layers: &[Layer]) -> Image {
    let digest = Digest::of(b"image");
    let descriptor = |layer: &Layer| Descriptor {
        digest: layer.digest,
        size: layer.size,
        media_type: layer.media_type(false),
    };
    Image {
        digest,
        reference: "registry.test/app:1".to_owned(),
        repository: "app".to_owned(),
        platform: Platform::default(),
        manifest: Manifest {
            config: Descriptor {
                digest,
                size: 1,
                media_type: String::new(),
            },
            layers: layers.iter().map(descriptor).collect(),
        },
        config: ImageConfig {
            diff_ids: layers.iter().map(|layer| layer.diff_id).collect(),
            ..ImageConfig::default()
        },
        image_id: digest,
        has_registry_manifest: true,
        index: None,
        gaps: Vec::new(),
    }
}
