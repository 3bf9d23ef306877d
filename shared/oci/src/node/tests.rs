#![expect(
    clippy::unnecessary_wraps,
    reason = "a line that answers has the form of one that fails"
)]

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, extract::Path as UrlPath, routing::get};
use chassis::{Cx, files::read_bounded};
use model::{Digest, runtime::OnNode};

use testkit::{Compression, ImageBuilder, LayerBuilder, TempDir, temp_dir};

use super::*;
use crate::{
    Engine, Engines, Image, Source as _, Wanted,
    engine::tests::{Served, containerd_of, contents},
    read_verified,
};

/// A line that ends at holdings of this process, and may be bad.
struct Line {
    node: Mutex<Arc<Holdings>>,
    asked: AtomicUsize,
    bad: fn(usize, NodeAnswer) -> Result<NodeAnswer, OciError>,
}

impl NodeLine for Line {
    fn ask<'a>(
        &'a self,
        _tenant: &'a Slug,
        _node: &'a Slug,
        question: &'a NodeQuestion,
    ) -> BoxFuture<'a, Result<NodeAnswer, OciError>> {
        Box::pin(async move {
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            let node = self.node.lock().unwrap().clone();
            (self.bad)(number, node.answer(question.clone()).await)
        })
    }
}

fn good(_: usize, answer: NodeAnswer) -> Result<NodeAnswer, OciError> {
    Ok(answer)
}

fn line(node: Holdings, bad: fn(usize, NodeAnswer) -> Result<NodeAnswer, OciError>) -> Arc<Line> {
    Arc::new(Line {
        node: Mutex::new(Arc::new(node)),
        asked: AtomicUsize::new(0),
        bad,
    })
}

fn source(line: &Arc<Line>, id: Digest) -> NodeSource {
    let node = "node-1".parse().unwrap();
    let line: Arc<dyn NodeLine> = line.clone();
    NodeSource::new(
        &Cx::for_tests(),
        line,
        &Slug::default_tenant(),
        OnNode { node, id },
    )
}

fn holdings(sockets: Vec<(Engine, std::path::PathBuf)>, root: &Path) -> Holdings {
    let engines = Engines {
        sockets,
        namespaces: vec!["default".to_owned(), "k8s.io".to_owned()],
    };
    let paths = ["etc/os-release", "/var/lib/dpkg/"].map(str::to_owned);
    let config = HoldingsConfig {
        image_bytes_max: 16 << 20,
        host: HostFiles {
            root: root.to_owned(),
            paths: paths.into(),
        },
    };
    Holdings::new(&Cx::for_tests(), engines, config)
}

/// An image with a layer of several parts.
fn local() -> testkit::Image {
    let mut bytes = vec![0_u8; 700_000];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(at * at % 251).unwrap();
    }
    let layer = LayerBuilder::new().file("app/data", bytes);
    let layer = layer.compression(Compression::Plain).build();
    ImageBuilder::new().layer(layer, "COPY data").build()
}

/// An engine as Docker and podman are, with that image under its id.
fn engine() -> Served {
    async fn export(UrlPath(name): UrlPath<String>) -> (axum::http::StatusCode, Vec<u8>) {
        if name != local().image_id.hex() {
            return (axum::http::StatusCode::NOT_FOUND, Vec::new());
        }
        let dir = temp_dir();
        let path = dir.path().join("image.tar");
        local().write_docker_archive(&path, "localhost/app:1");
        (
            axum::http::StatusCode::OK,
            read_bounded(&path, 4 << 20).unwrap(),
        )
    }
    Served::new(Router::new().route("/images/{name}/get", get(export)))
}

async fn resolved(source: &NodeSource) -> Result<Image, OciError> {
    let resolved = source.resolve(&Wanted::default()).await?;
    Ok(resolved.images.into_iter().next().unwrap())
}

#[tokio::test]
async fn an_image_that_only_an_engine_has_is_read_as_from_a_registry() {
    let (served, dir) = (engine(), temp_dir());
    let line = line(
        holdings(vec![(Engine::Podman, served.socket())], dir.path()),
        good,
    );
    let source = source(&line, local().image_id);
    let image = resolved(&source).await.unwrap();
    assert_eq!(
        (image.image_id, image.has_registry_manifest),
        (local().image_id, false)
    );
    assert!(!image.config.is_written);
    assert_eq!(image.config.diff_ids, local().diff_ids());
    let cx = Cx::for_tests();
    for layer in &image.manifest.layers {
        let bytes = read_verified(&cx, &source, "", layer, 4 << 20)
            .await
            .unwrap();
        assert!(bytes.len() > 2 * model::runtime::PART_BYTES_MAX as usize);
    }
    // By its manifest it is the same, and any other is not there.
    let again = source.resolve(&Wanted::by_digest("", image.digest)).await;
    assert_eq!(again.unwrap().images[0].digest, image.digest);
    let other = source
        .resolve(&Wanted::by_digest("", Digest::of(b"x")))
        .await;
    assert!(other.unwrap_err().is_not_found());
    let gone = crate::Descriptor {
        digest: Digest::of(b"none"),
        ..image.manifest.layers[0].clone()
    };
    assert!(
        source
            .open_blob("", &gone)
            .await
            .err()
            .unwrap()
            .is_not_found()
    );
}

#[tokio::test]
async fn content_of_containerd_is_read_part_by_part_from_the_index_on() {
    let (contents, dir) = (contents(), temp_dir());
    let served = Served::new(containerd_of(contents.clone()));
    let line = line(
        holdings(vec![(Engine::Containerd, served.socket())], dir.path()),
        good,
    );
    let source = source(&line, contents.root);
    let image = resolved(&source).await.unwrap();
    assert!(image.has_registry_manifest && image.index.is_none());
    assert!(!image.config.is_written);
    let here = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    assert_eq!(image.platform.architecture, here);
    let layer = &image.manifest.layers[0];
    let bytes = read_verified(&Cx::for_tests(), &source, "", layer, 1 << 20).await;
    assert_eq!(bytes.unwrap().len() as u64, layer.size);
}

#[tokio::test]
async fn an_image_that_nobody_has_is_not_there_and_an_engine_that_is_away_may_come_back() {
    let (served, dir) = (engine(), temp_dir());
    let sockets = vec![(Engine::Docker, served.socket())];
    let there = line(holdings(sockets, dir.path()), good);
    let error = resolved(&source(&there, Digest::of(b"nobody's")))
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(
        error.to_string().contains("the engines of this node"),
        "{error}"
    );
    let socket = dir.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let away = line(holdings(vec![(Engine::Docker, socket)], dir.path()), good);
    let error = resolved(&source(&away, local().image_id))
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error}");
}

/// A host with packages, and with something that is nobody's business.
fn host() -> TempDir {
    let dir = temp_dir();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
    write("etc/shadow", "root:x");
    write("var/lib/dpkg/status", "Package: a\n");
    write("var/lib/dpkg/status.d/b", "Package: b\n");
    write("var/lib/other", "x");
    write("var/lib/dpkgx", "x");
    dir
}

#[tokio::test]
async fn a_host_is_an_image_of_the_named_files_alone_and_changes_with_them() {
    let dir = host();
    let before = holdings(Vec::new(), dir.path());
    let id = before.host().await.unwrap().unwrap();
    assert_eq!(before.host().await.unwrap(), Some(id));
    let line = line(before, good);
    let of_host = source(&line, id);
    let image = resolved(&of_host).await.unwrap();
    assert!(image.config.is_written);
    assert_eq!(image.image_id, id);
    let [layer] = image.manifest.layers.as_slice() else {
        panic!("one layer");
    };
    let bytes = read_verified(&Cx::for_tests(), &of_host, "", layer, 1 << 20)
        .await
        .unwrap();
    let mut names = Vec::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().display().to_string());
    }
    let expected = [
        "etc",
        "etc/os-release",
        "var",
        "var/lib",
        "var/lib/dpkg",
        "var/lib/dpkg/status",
        "var/lib/dpkg/status.d",
        "var/lib/dpkg/status.d/b",
    ];
    assert_eq!(names, expected);

    // What is nobody's business changes nothing; a package does.
    std::fs::write(dir.path().join("etc/shadow"), "root:y").unwrap();
    let node = line.node.lock().unwrap().clone();
    assert_eq!(node.host().await.unwrap(), Some(id));
    std::fs::write(dir.path().join("var/lib/dpkg/status"), "Package: c\n").unwrap();
    let changed = node.host().await.unwrap().unwrap();
    assert_ne!(changed, id);
    // Who reads goes on with what it was told of; a new question hears that it is gone.
    read_verified(&Cx::for_tests(), &of_host, "", layer, 1 << 20)
        .await
        .unwrap();
    *line.node.lock().unwrap() = Arc::new(holdings(Vec::new(), dir.path()));
    assert!(resolved(&of_host).await.unwrap_err().is_not_found());
    assert_eq!(
        resolved(&source(&line, changed)).await.unwrap().image_id,
        changed
    );
}

#[tokio::test]
async fn without_paths_the_host_is_not_told_of() {
    let config = HoldingsConfig {
        image_bytes_max: 0,
        host: HostFiles {
            root: "/".into(),
            paths: Vec::new(),
        },
    };
    let node = Holdings::new(&Cx::for_tests(), Engines::default(), config);
    assert_eq!(node.host().await.unwrap(), None);
}

#[tokio::test]
async fn who_was_cut_off_goes_on_where_it_was() {
    fn every_third(number: usize, answer: NodeAnswer) -> Result<NodeAnswer, OciError> {
        if !number.is_multiple_of(3) {
            return Ok(answer);
        }
        Err(OciError::Unavailable {
            host: "node".to_owned(),
            detail: "a test".to_owned(),
            retry_after: None,
        })
    }
    let (served, dir) = (engine(), temp_dir());
    let make = || holdings(vec![(Engine::Docker, served.socket())], dir.path());
    let line = line(make(), every_third);
    let source = source(&line, local().image_id);
    let image = resolved(&source).await.unwrap();
    // Its agent starts again and knows nothing any more.
    *line.node.lock().unwrap() = Arc::new(make());
    let layer = &image.manifest.layers[0];
    read_verified(&Cx::for_tests(), &source, "", layer, 4 << 20)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_node_that_lies_is_not_believed() {
    fn other_bytes(_: usize, answer: NodeAnswer) -> Result<NodeAnswer, OciError> {
        Ok(match answer {
            NodeAnswer::Part { mut bytes, size } => {
                if let Some(first) = bytes.first_mut() {
                    *first ^= 1;
                }
                NodeAnswer::Part { bytes, size }
            }
            other => other,
        })
    }
    fn too_much(_: usize, answer: NodeAnswer) -> Result<NodeAnswer, OciError> {
        Ok(match answer {
            NodeAnswer::Part { size, .. } => NodeAnswer::Part {
                bytes: vec![0; model::runtime::PART_BYTES_MAX as usize + 1],
                size,
            },
            other => other,
        })
    }
    fn other_manifest(_: usize, answer: NodeAnswer) -> Result<NodeAnswer, OciError> {
        Ok(match answer {
            NodeAnswer::Found { written, .. } => NodeAnswer::Found {
                manifest: Digest::of(b"another"),
                written,
            },
            other => other,
        })
    }
    fn nonsense(_: usize, _: NodeAnswer) -> Result<NodeAnswer, OciError> {
        Ok(NodeAnswer::Part {
            bytes: Vec::new(),
            size: None,
        })
    }
    let (served, dir) = (engine(), temp_dir());
    for (bad, expected) in [
        (other_bytes as fn(_, _) -> _, "has digest"),
        (too_much, "is larger than"),
        (other_manifest, "does not exist"),
        (nonsense, "answers another question"),
    ] {
        let holdings = holdings(vec![(Engine::Docker, served.socket())], dir.path());
        let error = resolved(&source(&line(holdings, bad), local().image_id)).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn an_image_is_not_that_of_another_id() {
    // The node answers for one image with the documents of another, each true by itself.
    struct Swapped(Arc<Line>, Digest);
    impl NodeLine for Swapped {
        fn ask<'a>(
            &'a self,
            tenant: &'a Slug,
            node: &'a Slug,
            question: &'a NodeQuestion,
        ) -> BoxFuture<'a, Result<NodeAnswer, OciError>> {
            Box::pin(async move {
                let question = match question.clone() {
                    NodeQuestion::Find { .. } => NodeQuestion::Find { image: self.1 },
                    NodeQuestion::Read {
                        blob,
                        offset,
                        bytes_max,
                        ..
                    } => NodeQuestion::Read {
                        image: self.1,
                        blob,
                        offset,
                        bytes_max,
                    },
                };
                self.0.ask(tenant, node, &question).await
            })
        }
    }
    let (served, dir) = (engine(), temp_dir());
    let holdings = holdings(vec![(Engine::Docker, served.socket())], dir.path());
    let line: Arc<dyn NodeLine> = Arc::new(Swapped(line(holdings, good), local().image_id));
    let at = OnNode {
        node: "node-1".parse().unwrap(),
        id: Digest::of(b"the image that is asked for"),
    };
    let source = NodeSource::new(&Cx::for_tests(), line, &Slug::default_tenant(), at);
    let error = resolved(&source).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test]
async fn more_images_than_there_is_room_for_wait() {
    let dir = host();
    let node = Arc::new(holdings(Vec::new(), dir.path()));
    let ask = async |n: usize| {
        let image = Digest::of(&n.to_be_bytes());
        node.answer(NodeQuestion::Find { image }).await
    };
    for number in 0..4 {
        ask(number).await;
    }
    // Nobody has them, and for a moment that is remembered in all the room there is.
    loop {
        match ask(0).await {
            NodeAnswer::Preparing => tokio::task::yield_now().await,
            NodeAnswer::Missing { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ask(4).await, NodeAnswer::Preparing);
}
