//! Distinct images over shared stacks, and the registry that holds them.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use model::Digest;
use serde::Serialize;
use testkit::{
    Image, ImageBuilder, Layer, LayerBuilder, RegistryOptions, RegistryServer, SeededLayer,
    StandInOptions, StandInRegistry,
};

/// How much garbage docker-registry may make before it is collected, percent of what it uses. It
/// takes 4 MiB for each blob that it serves, whatever the blob's size, so that with the default half
/// of its time goes into collecting.
const REGISTRY_GOGC: &str = "400";

/// Where all images of a run lie.
pub(crate) const REPOSITORY: &str = "load/churn";

/// Flags that say what images there are.
#[derive(Clone, Debug, Args)]
pub(crate) struct Images {
    /// How many stacks the images share
    #[arg(long, default_value_t = 50)]
    pub(crate) stacks: usize,
    /// Packages in each stack
    #[arg(long, default_value_t = 200)]
    pub(crate) packages: usize,
    /// Bytes beside the packages in each stack
    #[arg(long, default_value_t = 1 << 20)]
    pub(crate) stack_bytes: u64,
    /// The registry: docker-registry, or a stand-in within this program
    #[arg(long, value_enum, default_value = "real")]
    pub(crate) registry: RegistryKind,
}

/// Which registry to measure with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RegistryKind {
    /// Debian's docker-registry.
    Real,
    /// One within this program, which costs less.
    StandIn,
}

/// A registry with images.
pub(crate) enum Registry {
    Real(Box<RegistryServer>),
    StandIn(StandInRegistry),
}

/// An image that lies in the registry.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// Its tag; in the order of tags is the order of images.
    pub(crate) tag: String,
    /// Its digest.
    pub(crate) digest: Digest,
    /// Bytes of its manifest, config and layers.
    pub(crate) bytes: u64,
}

/// Stacks, and images over them.
pub(crate) struct Workload {
    /// Their layers, without bytes: the registry holds them.
    stacks: Vec<Layer>,
}

// === impl Registry ===

impl Registry {
    /// Starts one that is as fast as it can be.
    pub(crate) fn start(kind: RegistryKind) -> anyhow::Result<Self> {
        match kind {
            RegistryKind::Real => {
                let server = RegistryServer::start(RegistryOptions {
                    remembers_blobs: true,
                    environment: vec![("GOGC".to_owned(), REGISTRY_GOGC.to_owned())],
                    ..RegistryOptions::default()
                });
                let server = server.context("docker-registry is not installed")?;
                Ok(Self::Real(Box::new(server)))
            }
            RegistryKind::StandIn => Ok(Self::slow(Duration::ZERO, None)),
        }
    }

    /// Starts a stand-in that is slow.
    pub(crate) fn slow(delay: Duration, bytes_per_second: Option<u64>) -> Self {
        Self::StandIn(StandInRegistry::start(StandInOptions {
            delay,
            bytes_per_second,
        }))
    }

    /// Host and port.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Real(server) => server.host(),
            Self::StandIn(server) => server.host(),
        }
    }

    /// Puts an image in, without telling anybody. Layers without bytes must be there already.
    pub(crate) fn put(&self, image: &Image, tag: &str) -> Stored {
        let digest = match self {
            Self::Real(server) => server.plant(image, REPOSITORY, tag),
            Self::StandIn(server) => server.put(image, REPOSITORY, tag),
        };
        let layers: u64 = image.layers.iter().map(|layer| layer.size).sum();
        Stored {
            tag: tag.to_owned(),
            digest,
            bytes: layers + (image.manifest.len() + image.config.len()) as u64,
        }
    }

    /// Puts in an image of one layer of its own that is made whenever it is read, and gives that
    /// layer: stand-ins only.
    pub(crate) fn put_seeded(
        &self,
        layer: SeededLayer,
        tag: &str,
    ) -> anyhow::Result<(Stored, Digest)> {
        let Self::StandIn(server) = self else {
            anyhow::bail!("only a stand-in makes layers");
        };
        let (made, builder) = (layer.layer(), ImageBuilder::new());
        let digest = made.digest;
        server.seed(layer, digest);
        let image = builder.layer(made, "COPY data").build();
        Ok((self.put(&image, tag), digest))
    }

    /// Bytes of manifests and blobs that were fetched.
    pub(crate) fn bytes_read(&self) -> u64 {
        match self {
            Self::Real(server) => server.log().lines().filter_map(bytes_of).sum(),
            Self::StandIn(server) => server.bytes_sent(),
        }
    }

    /// How often what was asked for, as `GET blobs`: real registries only.
    pub(crate) fn requests(&self) -> BTreeMap<String, u64> {
        let mut requests = BTreeMap::new();
        if let Self::Real(server) = self {
            for kind in server.log().lines().filter_map(kind_of) {
                *requests.entry(kind).or_default() += 1;
            }
        }
        requests
    }

    /// Starts [`Self::bytes_read`] and [`Self::requests`] anew.
    pub(crate) fn forget(&self) {
        match self {
            Self::Real(server) => server.clear_log(),
            Self::StandIn(server) => server.clear_log(),
        }
    }

    /// Its process, where it has one of its own.
    pub(crate) fn id(&self) -> Option<u32> {
        match self {
            Self::Real(server) => server.id(),
            Self::StandIn(_) => None,
        }
    }
}

// === impl Workload ===

impl Workload {
    /// Makes the stacks and puts them into the registry.
    pub(crate) fn make(images: &Images, registry: &Registry) -> Self {
        let stacks = (0..images.stacks.max(1)).map(|number| {
            let layer = stack(number, images);
            let image = ImageBuilder::new().layer(layer.clone(), "base").build();
            registry.put(&image, &format!("stack-{number}"));
            Layer {
                blob: Vec::new(),
                ..layer
            }
        });
        Self {
            stacks: stacks.collect(),
        }
    }

    /// Puts an image into the registry: a stack, and a layer of about 1 KB of its own.
    pub(crate) fn put(&self, registry: &Registry, name: &str, number: usize) -> Stored {
        let mut text = String::with_capacity(1200);
        for line in 0..24 {
            let sum = Digest::of(text.as_bytes()).short();
            text.extend([format!("{name} {number} {line} {sum}\n")]);
        }
        let own = LayerBuilder::new().file("srv/app.txt", text).build();
        let stack = self.stacks[number % self.stacks.len()].clone();
        let image = ImageBuilder::new()
            .layer(stack, "base")
            .layer(own, "COPY app.txt")
            .build();
        registry.put(&image, &format!("{name}-{number:07}"))
    }
}

/// Debian 12 with so many packages.
fn stack(number: usize, images: &Images) -> Layer {
    let os_release = "NAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"12\"\n\
        PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\n";
    let mut status = String::new();
    for package in 0..images.packages {
        status.extend([format!(
            "Package: load-{package}\nStatus: install ok installed\nPriority: optional\n\
             Section: libs\nMaintainer: Nobody <nobody@example.org>\nArchitecture: amd64\n\
             Source: load-source-{}\nVersion: 1.{number}.{package}-1\nDescription: a package\n\n",
            package / 2
        )]);
    }
    let filler = SeededLayer {
        seed: number as u64,
        bytes: images.stack_bytes,
    };
    let mut bytes = Vec::new();
    filler
        .write_range(0, images.stack_bytes, &mut bytes)
        .expect("writing to memory");
    LayerBuilder::new()
        .file("usr/lib/os-release", os_release)
        .file("var/lib/dpkg/status", status)
        .file("usr/share/filler", bytes)
        .build()
}

/// Writes advisories for every tenth package of the stacks, and one for the rest of Debian 12.
pub(crate) fn write_advisories(dir: &Path, packages: usize) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    for package in (0..packages.max(1)).step_by(10) {
        let id = format!("DEBIAN-CVE-2026-{package}");
        let record = serde_json::json!({
            "schema_version": "1.6.0",
            "id": id,
            "modified": "2026-01-01T00:00:00Z",
            "affected": [{
                "package": {"ecosystem": "Debian:12", "name": format!("load-source-{package}")},
                "ranges": [{
                    "type": "ECOSYSTEM",
                    "events": [{"introduced": "0"}, {"fixed": "2"}],
                }],
            }],
            "database_specific": {"severity": "MEDIUM"},
        });
        std::fs::write(dir.join(format!("{id}.json")), record.to_string())?;
    }
    Ok(())
}

/// The bytes that a line of docker-registry's access log tells of, for what was read.
fn bytes_of(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("\"GET ")?;
    let (_, rest) = rest.split_once("\" ")?;
    let mut words = rest.split(' ');
    words.next().filter(|status| status.starts_with('2'))?;
    words.next()?.parse().ok()
}

/// Method and kind of a request in docker-registry's access log.
fn kind_of(line: &str) -> Option<String> {
    let request = line.split('"').nth(1)?;
    let (method, path) = request.split_once(' ')?;
    let path = path.strip_prefix("/v2/")?.split(' ').next()?;
    let kind = path.rsplit('/').nth(1).unwrap_or("/v2/");
    Some(format!("{method} {kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_access_log_tells_how_much_was_read() {
        let line = r#"127.0.0.1 - - [25/Nov/2026:04:00:00 +0000] "GET /v2/a/blobs/sha256:00 HTTP/1.1" 200 1234 "" "tidewaiter""#;
        assert_eq!(bytes_of(line), Some(1234));
        assert_eq!(kind_of(line).as_deref(), Some("GET blobs"));
        assert_eq!(bytes_of(&line.replace("GET", "HEAD")), None);
        assert_eq!(bytes_of(&line.replace(" 200 ", " 404 ")), None);
    }

    #[test]
    fn images_are_distinct_and_share_their_stack() {
        let images = Images {
            stacks: 2,
            packages: 10,
            stack_bytes: 1000,
            registry: RegistryKind::StandIn,
        };
        let registry = Registry::start(images.registry).unwrap();
        let workload = Workload::make(&images, &registry);
        let [one, two, three] = [0, 1, 2].map(|number| workload.put(&registry, "n", number));
        assert!(one.digest != two.digest && one.digest != three.digest);
        assert_eq!(one.tag, "n-0000000");
        assert!(one.bytes > 1000, "{}", one.bytes);
    }
}
