//! Configuration of the agent.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use chassis::telemetry;
use model::{
    Slug, VerifyingKey,
    runtime::{ActionKind, FORENSIC_BYTES_MAX, PART_BYTES_MAX},
};
use oci::{Engine, Engines};
use serde::{Deserialize, Serialize};

use crate::watch::{self, Watched};

/// Where package managers of operating systems keep what is installed, and what says which system
/// it is.
const HOST_PATHS: [&str; 14] = [
    "etc/alpine-release",
    "etc/arch-release",
    "etc/debian_version",
    "etc/os-release",
    "etc/redhat-release",
    "etc/system-release",
    "lib/apk/db/installed",
    "usr/lib/apk/db/installed",
    "usr/lib/os-release",
    "usr/lib/sysimage/rpm",
    "usr/share/rpm",
    "var/lib/dpkg/status",
    "var/lib/dpkg/status.d",
    "var/lib/rpm",
];

/// Less evidence than that says nothing.
const EVIDENCE_BYTES_MIN: u64 = 64 << 10;

/// Everything that can be set. Each key is `TIDEWAITER_AGENT_<KEY>` in the environment, too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The node's name, with `-` for what names of nodes do not have. Absent: the host's name.
    pub node: Option<String>,
    /// Whose node it is.
    pub tenant: Slug,
    /// Where the spool and the sequence are kept.
    pub data_dir: PathBuf,
    /// The connection to NATS. `credentials_file` is what `tidewaiter nats accounts` makes for this
    /// node.
    pub bus: bus::Config,
    /// Bytes of events that may wait on disk while NATS is away.
    pub spool_bytes_max: u64,
    /// Container engines.
    pub engines: EnginesConfig,
    /// The longest time between two pictures of the node, seconds.
    pub inventory_interval_s: u64,
    /// What is watched.
    pub sensor: SensorConfig,
    /// Digests of files that ran.
    pub hash: HashConfig,
    /// Images and the host's files, which the fabric reads from here.
    pub blobs: BlobsConfig,
    /// The host.
    pub host: HostConfig,
    /// What is done to containers.
    pub response: ResponseConfig,
    /// Logs, metrics and traces.
    pub telemetry: telemetry::Config,
}

/// What is done to containers when the fabric says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResponseConfig {
    /// Keys whose word counts, as `tidewaiter` prints them. None: nothing is ever done.
    pub keys: Vec<VerifyingKey>,
    /// What may be done; anything else is refused.
    pub actions: Vec<ActionKind>,
    /// The longest time between two looks at what shall be done, seconds; a change wakes the agent.
    pub reread_s: u64,
    /// Where bpffs is, or is mounted: what is in force outlives the agent there.
    pub bpffs: PathBuf,
    /// The most that evidence of one container takes, bytes.
    pub evidence_bytes_max: u64,
    /// Programs that start containers: the start gate begins with them.
    pub runtimes: Vec<PathBuf>,
    /// How long a container stands still before its first program while its image is looked up,
    /// milliseconds; then it runs.
    pub start_hold_ms: u64,
    /// Bytes of evidence that this node stores in an hour; what is beyond waits on disk until then.
    pub evidence_bytes_per_hour_max: u64,
    /// The API server of the cluster that this node is of.
    pub kubernetes: KubernetesConfig,
}

/// Where pods are labeled: one of them is replaced by taking its labels away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesConfig {
    /// The API server's host. Empty: no pod is labeled, and none replaced.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The token that the agent shows; read anew each time.
    pub token_file: PathBuf,
    /// The certificate of the API server's authority; no other is trusted.
    pub ca_file: PathBuf,
}

/// Where container engines listen. A socket that is not there is not asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnginesConfig {
    /// Sockets of Docker.
    pub docker: Vec<PathBuf>,
    /// Sockets of podman.
    pub podman: Vec<PathBuf>,
    /// Sockets of containerd.
    pub containerd: Vec<PathBuf>,
    /// Sockets of other runtimes of Kubernetes. What they have is told; images that they alone have
    /// cannot be read through them.
    pub cri: Vec<PathBuf>,
    /// Namespaces of containerd.
    pub namespaces: Vec<String>,
}

/// What is watched, and how much of it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SensorConfig {
    /// Whether anything is watched; without it only the inventory is told.
    pub enabled: bool,
    /// By what it is watched. Absent: by the first that works here.
    pub tier: Option<Tier>,
    /// Globs of files whose opening is told, within the container and without a leading slash. The
    /// last part must be a plain name, or `*` behind a plain folder: the kernel looks at that first.
    /// A connection to a socket of the file system counts as opening it to write.
    pub watched_files: Vec<String>,
    /// The same for files of which it is told only where they are opened to be written.
    pub written_files: Vec<String>,
    /// How long a connection that was told is not told again, seconds.
    pub quiet_s: u64,
    /// Events of one class (process, network, file, syscall) that are told of one container in a
    /// second; programs that start are always told.
    pub events_per_s_max: u32,
}

/// What tells of processes, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Programs in the kernel.
    Bpf,
    /// The kernel's process connector, fanotify and `/proc`: programs that start, and nothing else.
    ProcessConnector,
}

/// Digests of files that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HashConfig {
    /// The largest file that is hashed, bytes.
    pub file_bytes_max: u64,
    /// Bytes hashed in a second, on average.
    pub bytes_per_s_max: u64,
}

/// What only this node has, for the fabric to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlobsConfig {
    /// Whether anything is handed out.
    pub enabled: bool,
    /// Bytes of an image that lies in `$TMPDIR`, without a name, while it is read; at most four do.
    pub image_bytes_max: u64,
    /// Bytes handed out in a second, on average.
    pub bytes_per_s_max: u64,
}

/// The host whose agent this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// Where its file system is: for an agent in a container, where that is mounted.
    pub root: PathBuf,
    /// Files and directories of it that are told as an image of one layer: what its packages are
    /// known by. No others are ever read for the fabric. None: the host's packages are not told of.
    pub paths: Vec<String>,
}

// === impl Config ===

impl Config {
    /// Finds what serde cannot: globs that are none, bounds of zero.
    pub fn check(&self) -> anyhow::Result<()> {
        Watched::new(&self.sensor).context("`sensor`")?;
        ensure!(self.inventory_interval_s > 0, "`inventory_interval_s` is 0");
        ensure!(
            self.sensor.events_per_s_max > 0,
            "`sensor.events_per_s_max` is 0: set `sensor.enabled` to false to see nothing"
        );
        let evidence = self.response.evidence_bytes_max;
        ensure!(
            (EVIDENCE_BYTES_MIN..=FORENSIC_BYTES_MAX).contains(&evidence),
            "`response.evidence_bytes_max` is not between {EVIDENCE_BYTES_MIN} and \
             {FORENSIC_BYTES_MAX}"
        );
        ensure!(
            self.response.evidence_bytes_per_hour_max >= evidence,
            "`response.evidence_bytes_per_hour_max` is less than the {evidence} bytes of one piece"
        );
        ensure!(self.response.reread_s > 0, "`response.reread_s` is 0");
        ensure!(
            self.blobs.bytes_per_s_max >= u64::from(PART_BYTES_MAX),
            "`blobs.bytes_per_s_max` is less than the {PART_BYTES_MAX} bytes of one answer"
        );
        ensure!(
            self.spool_bytes_max >= 4 << 20,
            "`spool_bytes_max` is less than 4 MiB, too little for one picture of a node"
        );
        Ok(())
    }

    /// Where it is kept what was taken and done.
    pub(crate) fn response_dir(&self) -> PathBuf {
        self.data_dir.join("response")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: None,
            tenant: Slug::default_tenant(),
            data_dir: PathBuf::from("/var/lib/tidewaiter-agent"),
            bus: bus::Config {
                url: Some("nats://127.0.0.1:4222".to_owned()),
                ..bus::Config::default()
            },
            spool_bytes_max: 256 << 20,
            engines: EnginesConfig::default(),
            inventory_interval_s: 60,
            sensor: SensorConfig::default(),
            hash: HashConfig::default(),
            blobs: BlobsConfig::default(),
            host: HostConfig::default(),
            response: ResponseConfig::default(),
            telemetry: telemetry::Config::default(),
        }
    }
}

impl Default for ResponseConfig {
    fn default() -> Self {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        let mut actions = ActionKind::ALL.to_vec();
        actions.push(ActionKind::StartGate);
        Self {
            keys: Vec::new(),
            actions,
            reread_s: 30,
            bpffs: PathBuf::from("/sys/fs/bpf"),
            evidence_bytes_max: 32 << 20,
            runtimes: paths(&[
                "/usr/bin/runc",
                "/usr/sbin/runc",
                "/usr/local/bin/runc",
                "/usr/local/sbin/runc",
                "/usr/bin/crun",
                "/usr/local/bin/crun",
                "/usr/bin/youki",
            ]),
            start_hold_ms: 2_000,
            evidence_bytes_per_hour_max: 256 << 20,
            kubernetes: KubernetesConfig::default(),
        }
    }
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        let dir = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount");
        Self {
            host: String::new(),
            port: 443,
            token_file: dir.join("token"),
            ca_file: dir.join("ca.crt"),
        }
    }
}

impl Default for EnginesConfig {
    fn default() -> Self {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        Self {
            docker: paths(&["/run/docker.sock"]),
            podman: paths(&["/run/podman/podman.sock"]),
            containerd: paths(&[
                "/run/containerd/containerd.sock",
                "/run/k3s/containerd/containerd.sock",
            ]),
            cri: paths(&["/run/crio/crio.sock"]),
            namespaces: ["default", "k8s.io"].map(str::to_owned).into(),
        }
    }
}

impl EnginesConfig {
    /// As `oci` wants them.
    pub(crate) fn engines(&self) -> Engines {
        let each = [
            (Engine::Docker, &self.docker),
            (Engine::Podman, &self.podman),
            (Engine::Containerd, &self.containerd),
            (Engine::Cri, &self.cri),
        ];
        let sockets = each.into_iter().flat_map(|(engine, sockets)| {
            sockets.iter().map(move |socket| (engine, socket.clone()))
        });
        Engines {
            sockets: sockets.collect(),
            namespaces: self.namespaces.clone(),
        }
    }
}

impl Default for SensorConfig {
    fn default() -> Self {
        let globs = |globs: &[&str]| globs.iter().map(|&glob| glob.to_owned()).collect();
        Self {
            enabled: true,
            tier: None,
            watched_files: globs(watch::OPENED),
            written_files: globs(watch::WRITTEN),
            quiet_s: 60,
            events_per_s_max: 2_000,
        }
    }
}

impl Default for BlobsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            image_bytes_max: 16 << 30,
            bytes_per_s_max: 32 << 20,
        }
    }
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
            paths: HOST_PATHS.map(str::to_owned).into(),
        }
    }
}

impl Default for HashConfig {
    fn default() -> Self {
        Self {
            file_bytes_max: 128 << 20,
            bytes_per_s_max: 32 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_the_recipe_for_clusters_are_settings() {
        let recipe = include_str!("../../../deploy/kubernetes/agent.yaml");
        let (_, settings) = recipe.split_once("  agent.yaml: |\n").unwrap();
        let lines = settings.lines().take_while(|line| line.starts_with("    "));
        let lines: Vec<&str> = lines.map(|line| line.split_at(4).1).collect();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.yaml");
        std::fs::write(&file, lines.join("\n")).unwrap();
        let config: Config = chassis::config::load(Some(&file), "NO_SUCH_PREFIX").unwrap();
        config.check().unwrap();
        assert_eq!(config.host.root, PathBuf::from("/host"));
        assert!(config.engines.engines().sockets.len() > 4);
    }
}
