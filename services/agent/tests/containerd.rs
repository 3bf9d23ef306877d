//! A real containerd, as a node of Kubernetes has it: containers of pods in the namespace `k8s.io`, and
//! an image that only it has, read part by part. Needs root, containerd, runc and podman, which makes
//! the image; without them it says so and passes.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "all of this file is one test, which says why it is skipped"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

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

const DEADLINE: Duration = Duration::from_secs(20);
const IMAGE: &str = "localhost/pod-test:1";
const ID: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

/// containerd with everything of its own, whose containers end with it.
struct Containerd {
    dir: tempfile::TempDir,
    server: Child,
}

impl Containerd {
    /// `None`, and why on standard output, where there is none to test with.
    fn start() -> Option<Self> {
        let is_root = fs::metadata("/proc/self")
            .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        if !is_root {
            println!("skipped: containers are started as root only");
            return None;
        }
        for program in ["containerd", "ctr", "runc", "podman"] {
            let found = Command::new(program).arg("--version").output();
            if !found.is_ok_and(|output| output.status.success()) {
                println!("skipped: there is no {program}");
                return None;
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\n  address = \"{0}/containerd.sock\"\n",
            dir.path().display()
        );
        let file = dir.path().join("config.toml");
        fs::write(&file, config).unwrap();
        let server = Command::new("containerd")
            .arg("--config")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let containerd = Self { dir, server };
        let started = Instant::now();
        while containerd.try_run(&["version"]).is_err() {
            assert!(started.elapsed() < DEADLINE, "containerd is not there");
            std::thread::sleep(Duration::from_millis(50));
        }
        containerd.import();
        Some(containerd)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("containerd.sock")
    }

    /// Makes an image of a program of this machine.
    fn import(&self) {
        let root = self.dir.path().join("image");
        let listed = Command::new("ldd").arg("/bin/sleep").output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let words = listed
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        for path in words.chain(["/bin/sleep"]) {
            let to = root.join(path.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(path, to).unwrap();
        }
        fs::create_dir_all(root.join("proc")).unwrap();
        let (tar, archive) = (self.path("root.tar"), self.path("image.tar"));
        run(Command::new("tar")
            .arg("-C")
            .arg(&root)
            .args(["-cf", &tar, "."]));
        let podman = |arguments: &[&str]| {
            let mut command = Command::new("podman");
            command.arg("--root").arg(self.dir.path().join("store"));
            command.arg("--runroot").arg(self.dir.path().join("run"));
            run(command.args(arguments));
        };
        podman(&["import", "--quiet", &tar, IMAGE]);
        podman(&[
            "save",
            "--quiet",
            "--format",
            "oci-archive",
            "-o",
            &archive,
            IMAGE,
        ]);
        podman(&["system", "reset", "--force"]);
        self.run(&["images", "import", &archive]);
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments)
            .unwrap_or_else(|error| panic!("ctr {arguments:?}: {error}"))
    }

    fn try_run(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket());
        command.args(["--namespace", "k8s.io"]).args(arguments);
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        drop(self.try_run(&["tasks", "kill", "--signal", "9", ID]));
        let gone = || self.try_run(&["tasks", "rm", ID]).is_ok();
        let started = Instant::now();
        while !gone() && started.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(self.try_run(&["containers", "rm", ID]));
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}

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
    let Some(containerd) = Containerd::start() else {
        return;
    };
    containerd.run(&[
        "run",
        "--detach",
        "--snapshotter",
        "native",
        "--label",
        "io.kubernetes.pod.name=web-0",
        "--label",
        "io.kubernetes.pod.namespace=shop",
        "--label",
        "io.kubernetes.container.name=web",
        IMAGE,
        ID,
        "/bin/sleep",
        "100",
    ]);
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
