//! containerd with a store of its own, and the part of it that kubelet speaks with: enough of that
//! interface to have pods.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use prost::Message;
use testkit::TempDir;

use crate::fabric::PATIENCE;

/// Namespaces of containerd: that of `ctr`, and that of pods.
pub(super) const PLAIN: &str = "default";
const OF_PODS: &str = "k8s.io";
/// How long its part for pods may take to be there.
const READY: Duration = Duration::from_secs(5);
/// `runtime.v1.NamespaceMode`: the host's.
const NODE: i32 = 2;

pub(super) struct Containerd {
    dir: TempDir,
    server: Child,
    http: reqwest::Client,
}

/// A pod of the host's network, which takes no plug-in to make.
pub(super) struct Pod {
    id: String,
    config: PodConfig,
}

// What is asked for (`k8s.io/cri-api`, `runtime.v1`).

#[derive(Clone, PartialEq, Message)]
struct RunPod {
    #[prost(message, optional, tag = "1")]
    config: Option<PodConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct PodConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodMetadata>,
    #[prost(string, tag = "3")]
    log_dir: String,
    #[prost(message, optional, tag = "8")]
    linux: Option<PodLinux>,
}

#[derive(Clone, PartialEq, Message)]
struct PodMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodLinux {
    #[prost(message, optional, tag = "2")]
    security: Option<PodSecurity>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSecurity {
    #[prost(message, optional, tag = "1")]
    namespaces: Option<Namespaces>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Namespaces {
    #[prost(int32, tag = "1")]
    network: i32,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    pod: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    pod_config: Option<PodConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Text>,
    #[prost(message, optional, tag = "2")]
    image: Option<Text>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(map = "string, string", tag = "10")]
    annotations: HashMap<String, String>,
    #[prost(string, tag = "11")]
    log: String,
}

#[derive(Clone, PartialEq, Message)]
struct Exec {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Pull {
    #[prost(message, optional, tag = "1")]
    image: Option<Text>,
}

/// A message that has, of what matters here, one text: a name, an id.
#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Nothing {}

// === impl Containerd ===

impl Containerd {
    /// One whose pods have a first container of this image.
    pub(super) async fn start(of_pods: &str) -> Self {
        let dir = testkit::temp_dir();
        let place = dir.path().display();
        let socket = socket(dir.path());
        // Nothing outside of its folder, and no score that takes a right to set.
        let config = format!(
            r#"version = 2
root = "{place}/root"
state = "{place}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[grpc]
  address = "{}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{of_pods}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "{place}/networks"
"#,
            socket.display()
        );
        let path = dir.path().join("containerd.toml");
        std::fs::write(&path, config).expect("a configuration file");
        let log = std::fs::File::create(dir.path().join("log")).expect("a log file");
        let server = Command::new("containerd")
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd starts");
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .http2_prior_knowledge()
            .timeout(PATIENCE)
            .build()
            .expect("a client");
        let containerd = Self { dir, server, http };
        let started = Instant::now();
        while !containerd.socket().exists() || !containerd.try_ctr(PLAIN, &["version"]) {
            assert!(started.elapsed() < PATIENCE, "containerd is not there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        containerd
    }

    pub(super) fn socket(&self) -> PathBuf {
        socket(self.dir.path())
    }

    /// Whether its part for pods is there and works.
    #[expect(clippy::print_stdout, reason = "a skipped test says so")]
    pub(super) async fn has_pods(&self) -> bool {
        let started = Instant::now();
        loop {
            let version = self.try_call::<Text>("RuntimeService/Version", &Nothing {});
            let Err(why) = version.await else { return true };
            // It answers a little later than containerd does.
            if started.elapsed() > READY {
                println!("skipped: containerd makes no pods here: {why}");
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A command that must succeed; returns what it prints.
    pub(super) fn ctr(&self, namespace: &str, arguments: &[&str]) -> String {
        let mut command = self.command(namespace, arguments);
        let output = command.output().expect("ctr runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctr {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn try_ctr(&self, namespace: &str, arguments: &[&str]) -> bool {
        let mut command = self.command(namespace, arguments);
        let output = command.output().expect("ctr runs");
        output.status.success()
    }

    fn command(&self, namespace: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket());
        command.args(["--namespace", namespace]).args(arguments);
        command
    }

    /// Pulls an image for pods; returns the id that it gets.
    pub(super) async fn pull(&self, image: &str) -> String {
        let pull = Pull {
            image: Some(Text::of(image)),
        };
        self.call::<Text>("ImageService/PullImage", &pull)
            .await
            .text
    }

    pub(super) async fn pod(&self, name: &str, namespace: &str) -> Pod {
        let config = PodConfig {
            metadata: Some(PodMetadata {
                name: name.to_owned(),
                uid: name.to_owned(),
                namespace: namespace.to_owned(),
            }),
            log_dir: self.dir.path().display().to_string(),
            linux: Some(PodLinux {
                security: Some(PodSecurity {
                    namespaces: Some(Namespaces { network: NODE }),
                }),
            }),
        };
        let run = RunPod {
            config: Some(config.clone()),
        };
        let id = self
            .call::<Text>("RuntimeService/RunPodSandbox", &run)
            .await;
        Pod {
            id: id.text,
            config,
        }
    }

    /// Makes a container in a pod; returns its id.
    pub(super) async fn create(
        &self,
        pod: &Pod,
        name: &str,
        image: &str,
        command: &[&str],
    ) -> String {
        // Kubelet's note, of a port that the host's own is.
        let ports = r#"[{"hostPort":8080,"containerPort":8080,"protocol":"TCP"}]"#;
        let ports = ("io.kubernetes.container.ports".to_owned(), ports.to_owned());
        let create = CreateContainer {
            pod: pod.id.clone(),
            config: Some(ContainerConfig {
                metadata: Some(Text::of(name)),
                image: Some(Text::of(image)),
                command: command.iter().map(|&word| word.to_owned()).collect(),
                annotations: [ports].into(),
                log: format!("{name}.log"),
            }),
            pod_config: Some(pod.config.clone()),
        };
        let created = self.call::<Text>("RuntimeService/CreateContainer", &create);
        created.await.text
    }

    /// Makes a container and starts it.
    pub(super) async fn run(&self, pod: &Pod, name: &str, image: &str, command: &[&str]) -> String {
        let id = self.create(pod, name, image, command).await;
        let start = Text::of(&id);
        self.call::<Nothing>("RuntimeService/StartContainer", &start)
            .await;
        id
    }

    /// Runs a line of a shell in a container of a pod, whatever becomes of it.
    pub(super) async fn exec(&self, container: &str, line: &str) {
        let exec = Exec {
            container: container.to_owned(),
            command: ["/bin/sh", "-c", line].map(str::to_owned).into(),
        };
        self.call::<Nothing>("RuntimeService/ExecSync", &exec).await;
    }

    async fn call<T: Message + Default>(&self, method: &str, request: &impl Message) -> T {
        let answer = self.try_call(method, request).await;
        answer.unwrap_or_else(|why| panic!("{method}: {why}"))
    }

    /// One message there, one back, each behind five bytes: not compressed, and so long.
    async fn try_call<T: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<T, String> {
        let message = request.encode_to_vec();
        let length = u32::try_from(message.len()).expect("it is small");
        let body = [&[0][..], &length.to_be_bytes(), &message].concat();
        let sent = self
            .http
            .post(format!("http://localhost/runtime.v1.{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body);
        let answer = sent.send().await.map_err(|error| error.to_string())?;
        let text = |name: &str| {
            let value = answer.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        if text("grpc-status").is_some_and(|status| status != "0") {
            return Err(text("grpc-message").unwrap_or_default());
        }
        let bytes = answer.bytes().await.map_err(|error| error.to_string())?;
        let message = bytes.get(5..).ok_or("it answers nothing")?;
        T::decode(message).map_err(|error| error.to_string())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let kinds: [(&str, &[&str]); 2] = [("tasks", &["rm", "--force"]), ("containers", &["rm"])];
        for namespace in [OF_PODS, PLAIN] {
            for (kind, remove) in kinds {
                let mut list = self.command(namespace, &[kind, "ls", "--quiet"]);
                let listed = list.output().map(|output| output.stdout);
                for id in String::from_utf8_lossy(&listed.unwrap_or_default()).lines() {
                    let arguments = [&[kind][..], remove, &[id][..]].concat();
                    self.try_ctr(namespace, &arguments);
                }
            }
        }
        drop(self.server.kill());
        drop(self.server.wait());
        // What was mounted for pods; where nothing is mounted any more, the folder can go.
        let place = format!("{}/", self.dir.path().display());
        let mounts = super::read(Path::new("/proc/self/mounts"));
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for mount in mounts.filter(|mount| mount.starts_with(&place)) {
            drop(Command::new("umount").args(["--lazy", mount]).status());
        }
    }
}

// === impl Text ===

impl Text {
    fn of(text: &str) -> Self {
        Self {
            text: text.to_owned(),
        }
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("containerd.sock")
}
