//! A real containerd, as a node of Kubernetes has it: containers of pods in the namespace `k8s.io`, and
//! an image that only it has, read part by part. Needs root, containerd, runc and podman, which makes
//! the image; without them it says so and passes.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "all of this file is one test, which says why it is skipped"
)]

#[path = "engines/containerd.rs"]
mod engine;
#[path = "engines/ground.rs"]
mod ground;

use std::{path::Path, sync::Arc};

use agent::{Config, node::Node};
use chassis::Cx;
use futures::future::BoxFuture;
use model::{
    Digest, Slug,
    runtime::{ContainerState, HOST_RUNTIME, NodeAnswer, NodeQuestion, OnNode},
};
use oci::{
    Engine, Engines, Holdings, HoldingsConfig, HostFiles, NodeLine, NodeSource, OciError,
    Source as _, Wanted, read_verified,
};

use crate::engine::Containerd;

const ID: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

/// A line that ends in this process.
struct Here(Arc<Holdings>);

impl NodeLine for Here {
    fn ask<'a>(
        &'a self,
        _tenant: &'a Slug,
        _node: &'a Slug,
        question: &'a NodeQuestion,
    ) -> BoxFuture<'a, Result<NodeAnswer, OciError>> {
        Box::pin(async move { Ok(self.0.answer(question.clone()).await) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_pods_are_told_and_an_image_that_only_containerd_has_is_read() {
    let Some(containerd) = Containerd::start("k8s.io", &["/bin/sleep"]) else {
        return;
    };
    let labels = [
        "--label",
        "io.kubernetes.pod.name=web-0",
        "--label",
        "io.kubernetes.pod.namespace=shop",
        "--label",
        "io.kubernetes.container.name=web",
    ];
    containerd.container(ID, &labels, &["/bin/sleep", "100"]);
    let mut config = Config::default();
    config.engines.docker.clear();
    config.engines.podman.clear();
    config.engines.cri.clear();
    config.engines.containerd = vec![containerd.socket()];
    let (cx, node) = (Cx::for_tests(), Node::here(&config).unwrap());
    let held = agent::look_around(&cx, &config, &node).await;
    let [container] = held.containers.as_slice() else {
        panic!("one container, not {:?}", held.containers);
    };
    assert_eq!(
        (container.id.as_str(), container.name.as_str()),
        (ID, "web")
    );
    assert_eq!(container.pod.as_deref(), Some("web-0"));
    assert_eq!(container.namespace.as_deref(), Some("shop"));
    assert_eq!(container.state, ContainerState::Running);
    assert!(container.pid > 0 && container.cgroup.as_ref().unwrap().contains(ID));
    let images: Vec<_> = held
        .images
        .iter()
        .filter(|image| image.runtime != HOST_RUNTIME)
        .collect();
    assert_eq!(images.len(), 1);
    assert_eq!(container.image_id, Some(images[0].id));

    let source = source(&cx, &containerd, &node, images[0].id);
    let resolved = source.resolve(&Wanted::default()).await.unwrap();
    let image = &resolved.images[0];
    assert_eq!(image.digest, images[0].id);
    for layer in &image.manifest.layers {
        let read = read_verified(&cx, &source, "", layer, 64 << 20)
            .await
            .unwrap();
        assert_eq!(read.len() as u64, layer.size);
    }
    assert!(!image.manifest.layers.is_empty());
}

/// The image as the fabric reads it.
fn source(cx: &Cx, containerd: &Containerd, node: &Node, id: Digest) -> NodeSource {
    let limits = HoldingsConfig {
        image_bytes_max: 0,
        host: HostFiles {
            root: Path::new("/").to_owned(),
            paths: Vec::new(),
        },
    };
    let engines = Engines {
        sockets: vec![(Engine::Containerd, containerd.socket())],
        namespaces: vec!["default".to_owned(), "k8s.io".to_owned()],
    };
    let line = Here(Arc::new(Holdings::new(cx, engines, limits)));
    let at = OnNode {
        node: node.name.clone(),
        id,
    };
    NodeSource::new(cx, Arc::new(line), &Slug::default_tenant(), at)
}
