//! A node: its host, its containers, the images on its disks, and what its agent can see.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Digest, schema::Time};

/// A container, as its runtime tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// The runtime's id: 64 hex digits, mostly.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Which runtime tells of it: `podman`, `docker`, `containerd`, `cri`.
    pub runtime: String,
    /// The image's name as it was asked for.
    #[serde(default)]
    pub image: String,
    /// The digest by which the runtime knows the image: of an index, a manifest or a config.
    #[serde(default)]
    pub image_id: Option<Digest>,
    /// The digests of manifests and indexes that the runtime knows for the image
    /// (`RepoDigests`), as `repository@digest`.
    #[serde(default)]
    pub repo_digests: Vec<String>,
    /// What it does.
    pub state: ContainerState,
    /// When it was made.
    #[serde(default)]
    #[schemars(with = "Option<Time>")]
    pub created_at: Option<Timestamp>,
    /// When it was last started.
    #[serde(default)]
    #[schemars(with = "Option<Time>")]
    pub started_at: Option<Timestamp>,
    /// The first process, as the host counts; 0 where it does not run.
    #[serde(default)]
    pub pid: u32,
    /// The path of its cgroup below the mount of cgroup v2.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// The pod it belongs to.
    #[serde(default)]
    pub pod: Option<String>,
    /// The orchestrator's namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// What owns it there: `ReplicaSet/web-5d8`, a compose project, a unit of systemd.
    #[serde(default)]
    pub owner: Option<String>,
    /// Labels, without those whose value looks like a secret.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Published ports.
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    /// The addresses of its network, where that is its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Mounts.
    #[serde(default)]
    pub mounts: Vec<MountPoint>,
    /// What it may do.
    #[serde(default)]
    pub security: Security,
}

/// What a container does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Made and not started.
    Created,
    /// It runs.
    Running,
    /// Frozen.
    Paused,
    /// It ended.
    Stopped,
    /// The runtime says something else.
    #[default]
    Unknown,
}

/// A port of the host that leads into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortMapping {
    /// The address on the host; empty for all of them.
    #[serde(default)]
    pub host_address: String,
    /// The port on the host.
    pub host_port: u16,
    /// The port in the container.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MountPoint {
    /// `bind`, `volume`, `tmpfs`, ….
    pub kind: String,
    /// Where on the host it is, or the volume's name.
    #[serde(default)]
    pub source: String,
    /// Where in the container.
    pub target: String,
    /// Whether it can be written.
    #[serde(default)]
    pub writable: bool,
}

/// What a container may do beyond what one should: the facts of CIS Docker section 5.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a setting of the runtime, and all of them are independent"
)]
pub struct Security {
    /// All capabilities and devices.
    pub privileged: bool,
    /// The user: `uid`, `uid:gid` or a name; empty is root.
    pub user: String,
    /// Effective capabilities, as `CAP_NET_ADMIN`; those that the runtime gives by default too.
    pub capabilities: Vec<String>,
    /// Shares the host's network.
    pub host_network: bool,
    /// Shares the host's processes.
    pub host_pid: bool,
    /// Shares the host's shared memory.
    pub host_ipc: bool,
    /// Shares the host's names.
    pub host_uts: bool,
    /// Runs in the host's user namespace.
    pub host_users: bool,
    /// The root file system cannot be written.
    pub read_only_root: bool,
    /// A process can gain privileges by setuid.
    pub new_privileges: bool,
    /// The seccomp profile: `default`, `unconfined`, a name; `None` where the runtime does not say.
    pub seccomp: Option<String>,
    /// The `AppArmor` profile.
    pub apparmor: Option<String>,
    /// The limit of memory, bytes; `None` for none.
    pub memory_bytes_max: Option<u64>,
    /// The limit of processes; `None` for none.
    pub pids_max: Option<u64>,
    /// The limit of processors, thousandths; `None` for none.
    pub cpu_millis_max: Option<u64>,
    /// Devices of the host.
    pub devices: Vec<String>,
    /// How it is restarted: `no`, `always`, `on-failure:5`.
    pub restart: Option<String>,
    /// Whether it has a health check.
    pub health_check: Option<bool>,
}

/// An image on a node's disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageAtRest {
    /// Which runtime holds it.
    pub runtime: String,
    /// The digest by which the runtime knows it.
    pub id: Digest,
    /// Names, as `registry/repository:tag`.
    #[serde(default)]
    pub names: Vec<String>,
    /// `repository@digest` of manifests and indexes.
    #[serde(default)]
    pub repo_digests: Vec<String>,
    /// Bytes on disk.
    #[serde(default)]
    pub bytes: u64,
    /// When it was built.
    #[serde(default)]
    #[schemars(with = "Option<Time>")]
    pub created_at: Option<Timestamp>,
}

/// The host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HostFacts {
    /// The host's name.
    pub name: String,
    /// `PRETTY_NAME` of os-release.
    pub os: String,
    /// `ID` and `VERSION_ID` of os-release.
    pub os_id: String,
    /// The kernel's release.
    pub kernel: String,
    /// `x86_64`, `aarch64`.
    pub machine: String,
    /// How many processors.
    pub processors: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Container runtimes that answer.
    pub runtimes: Vec<HostRuntime>,
    /// The orchestrator: `kubernetes`, `swarm`, `compose`, or none.
    pub orchestrator: Option<String>,
    /// The kernel's lockdown: `none`, `integrity`, `confidentiality`.
    pub lockdown: Option<String>,
    /// Security modules in force.
    pub security_modules: Vec<String>,
    /// `v1`, `v2` or `hybrid`.
    pub cgroups: String,
}

/// A container runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostRuntime {
    /// `podman`, `docker`, `containerd`, `cri`.
    pub name: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Its socket.
    #[serde(default)]
    pub socket: String,
    /// Why it could not be asked, where it could not.
    #[serde(default)]
    pub error: Option<String>,
}

/// What an agent can see and enforce on its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SensorMatrix {
    /// `bpf`, `process-connector` or `none`.
    pub tier: String,
    /// What is seen: `exec`, `exit`, `fork`, `connect`, `connect-unix`, `send`, `bind`, `listen`,
    /// `open`, `syscall`, `cgroup`; without BPF `exec-file`, by fanotify: the file of a program that
    /// ended before anybody could look at it.
    pub sees: Vec<String>,
    /// What can be enforced: `freeze`, `kill`, `deny-exec`, `start-gate`, `signal-exec`,
    /// `cut-network`. Each was tried; nothing where the agent believes no key.
    pub enforces: Vec<String>,
    /// What could not be loaded, and why: name to reason.
    pub missing: BTreeMap<String, String>,
}

/// The latest report of a node, with what the fabric adds. A value of
/// [`crate::event::NODES`], by tenant and node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// What it said.
    pub report: super::NodeReported,
    /// When that came.
    pub received_at: Timestamp,
}
