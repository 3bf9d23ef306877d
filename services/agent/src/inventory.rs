//! What the node holds: containers and images of its engines, and what `/proc` knows better.
//!
//! Engines say what was asked for; `/proc` says what is: the cgroup, the capabilities, seccomp and
//! new privileges of the container's first process. Where both speak, `/proc` counts.

pub(crate) mod addresses;
mod labels;
mod report;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use chassis::Cx;
use jiff::{SignedDuration, Timestamp};
use model::runtime::{
    Container, ContainerState, HostFacts, HostRuntime, ImageAtRest, NODE_REGISTRY, NodeReported,
};
use oci::{Engine, Engines, Holdings};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout},
};

use crate::{
    blobs,
    cgroup::{Found, Layout},
    config::Config,
    files::text_of,
    node::{self, Node},
    procconn::process,
    sensor::Sensor,
};

/// How long changes gather before the node is looked at.
const GATHER: Duration = Duration::from_millis(300);
/// How long an engine whose events cannot be had is left alone.
const PAUSE: Duration = Duration::from_secs(5);
const PROC_BYTES_MAX: u64 = 64 << 10;

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The host.
    pub host: HostFacts,
    /// Containers, running or not.
    pub containers: Vec<Container>,
    /// Images on disk.
    pub images: Vec<ImageAtRest>,
    /// Containers and images that are not told.
    pub left_out: usize,
}

/// The machine that the containers are on.
struct Around<'a> {
    root: &'a Path,
    layout: &'a Layout,
    booted_at: Timestamp,
}

/// Asks every engine that is there.
pub async fn look_around(cx: &Cx, config: &Config, node: &Node) -> Held {
    let around = Around {
        root: &config.host.root,
        layout: &Layout::here(),
        booted_at: node::booted_at(&*cx.clock()),
    };
    let mut held = look(cx, &config.engines.engines(), &around).await;
    let host = blobs::host(&blobs::holdings(cx, config), &node.name).await;
    held.images.splice(0..0, host);
    held
}

async fn look(cx: &Cx, engines: &Engines, around: &Around<'_>) -> Held {
    let mut held = Held {
        host: node::facts(around.root, around.layout),
        containers: Vec::new(),
        images: Vec::new(),
        left_out: 0,
    };
    for (engine, socket) in present(engines) {
        let found = engines.inventory(cx, engine, &socket).await;
        let mut runtime = HostRuntime {
            name: engine.to_string(),
            version: String::new(),
            socket: socket.display().to_string(),
            error: None,
        };
        match found {
            Ok(found) => {
                runtime.version = found.version;
                held.containers.extend(found.containers);
                held.images.extend(found.images);
                held.left_out += found.left_out;
            }
            Err(error) => {
                tracing::debug!(%error, "`{engine}` cannot be asked: {error}");
                runtime.error = Some(error.to_string());
            }
        }
        held.host.runtimes.push(runtime);
    }
    for container in &mut held.containers {
        labels::strip(&mut container.labels);
        if container.state == ContainerState::Running && container.pid > 0 {
            correct(container, around);
        }
    }
    held.containers
        .sort_by(|a, b| (&a.runtime, &a.id).cmp(&(&b.runtime, &b.id)));
    // A name that only the fabric gives.
    let is_of_node = |name: &String| name.starts_with(NODE_REGISTRY);
    for image in &mut held.images {
        image.names.retain(|name| !is_of_node(name));
    }
    held.images
        .sort_by(|a, b| (&a.runtime, a.id).cmp(&(&b.runtime, b.id)));
    held.host.orchestrator = orchestrator(&held.containers);
    held
}

/// The sockets that are there, each once: one may be a link to another.
fn present(engines: &Engines) -> Vec<(Engine, PathBuf)> {
    let mut seen = BTreeSet::new();
    let sockets = engines.present();
    let real = |socket: &PathBuf| socket.canonicalize().unwrap_or_else(|_| socket.clone());
    sockets
        .filter(|(_, socket)| seen.insert(real(socket)))
        .cloned()
        .collect()
}

/// What `/proc` says of a container's first process.
fn correct(container: &mut Container, around: &Around<'_>) {
    container.cgroup = around.layout.path_of(container.pid);
    if container.started_at.is_none() {
        container.started_at = started_at(container.pid, around.booted_at);
    }
    if !container.security.host_network {
        container.addresses = addresses::of(container.pid);
    }
    let path = PathBuf::from(format!("/proc/{}/status", container.pid));
    let Ok(status) = text_of(&path, PROC_BYTES_MAX) else {
        return;
    };
    let field = |name: &str| {
        let mut lines = status.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::trim)
    };
    let capabilities = field("CapEff").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    if let Some(capabilities) = capabilities {
        container.security.capabilities = names(capabilities);
    }
    match field("Seccomp") {
        Some("0") => container.security.seccomp = Some("unconfined".to_owned()),
        Some("2") if container.security.seccomp.is_none() => {
            container.security.seccomp = Some("default".to_owned());
        }
        _ => {}
    }
    match field("NoNewPrivs") {
        Some("1") => container.security.new_privileges = false,
        Some("0") => container.security.new_privileges = true,
        _ => {}
    }
}

/// When a process was started, for runtimes that do not say it of their containers.
fn started_at(pid: u32, booted_at: Timestamp) -> Option<Timestamp> {
    let since = i64::try_from(process::key(pid)?.started_ns).ok()?;
    let started = booted_at.checked_add(SignedDuration::from_nanos(since));
    started.ok()
}

/// linux/capability.h, in order.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn names(bits: u64) -> Vec<String> {
    let held = CAPABILITIES.iter().enumerate();
    let held = held.filter(|(bit, _)| bits >> bit & 1 == 1);
    held.map(|(_, name)| format!("CAP_{name}")).collect()
}

fn orchestrator(containers: &[Container]) -> Option<String> {
    let has = |label: &str| {
        let mut labels = containers
            .iter()
            .flat_map(|container| container.labels.keys());
        labels.any(|name| name.starts_with(label))
    };
    let found = [
        ("kubernetes", "io.kubernetes."),
        ("swarm", "com.docker.swarm."),
        ("compose", "com.docker.compose."),
        ("compose", "io.podman.compose."),
    ];
    let found = found.into_iter().find(|(_, label)| has(label));
    let is_kubelet = Path::new("/var/lib/kubelet/config.yaml").exists();
    let found = found.map(|(name, _)| name);
    found
        .or(is_kubelet.then_some("kubernetes"))
        .map(str::to_owned)
}

/// What the node's picture is made with.
pub(crate) struct Inventory {
    pub(crate) host_root: PathBuf,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) node: Node,
    pub(crate) engines: Engines,
    pub(crate) layout: Layout,
    /// Told once: read again it would be a little later or earlier, and so would all that is counted
    /// from it.
    pub(crate) booted_at: Timestamp,
    pub(crate) sensor: Sensor,
    pub(crate) interval: Duration,
    pub(crate) changed: Arc<Notify>,
    pub(crate) reports: mpsc::Sender<NodeReported>,
}

// === impl Inventory ===

impl Inventory {
    /// Tells what the node holds: at once, soon after a change, and when the time is up.
    pub(crate) async fn run(self, cx: Cx) {
        let mut watched = BTreeSet::new();
        let mut last: Option<(Held, Instant)> = None;
        while !cx.is_stopping() {
            for (engine, socket) in present(&self.engines) {
                if watched.insert(socket.clone()) {
                    self.follow(&cx, engine, socket);
                }
            }
            let around = Around {
                root: &self.host_root,
                layout: &self.layout,
                booted_at: self.booted_at,
            };
            let mut held = look(&cx, &self.engines, &around).await;
            self.teach(&held);
            // First: of images that are too many the last are left out.
            let host = blobs::host(&self.holdings, &self.node.name).await;
            held.images.splice(0..0, host);
            let is_old = last
                .as_ref()
                .is_none_or(|(before, at)| *before != held || at.elapsed() >= self.interval);
            if is_old {
                let report = report::of(&self.node, &self.sensor.matrix, held.clone(), cx.now());
                if self.reports.send(report).await.is_err() {
                    return;
                }
                last = Some((held, Instant::now()));
            }
            tokio::select! {
                () = cx.stopped() => return,
                _ = timeout(self.interval, self.changed.notified()) => {}
            }
            cx.sleep(GATHER).await;
        }
    }

    /// Wakes the inventory when an engine says that something happened.
    fn follow(&self, cx: &Cx, engine: Engine, socket: PathBuf) {
        let (engines, changed, cx_here) =
            (self.engines.clone(), Arc::clone(&self.changed), cx.clone());
        cx.spawn("events of an engine", async move {
            while !cx_here.is_stopping() {
                let followed = async {
                    let mut events = engines.changes(&cx_here, engine, &socket).await?;
                    loop {
                        events.next().await?;
                        changed.notify_one();
                    }
                };
                let ended: Result<(), oci::OciError> = tokio::select! {
                    () = cx_here.stopped() => return,
                    ended = followed => ended,
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "events of `{engine}` ended: {error}");
                }
                cx_here.sleep(PAUSE).await;
            }
        });
    }

    /// Makes the sensor know containers whose cgroups do not name them.
    fn teach(&self, held: &Held) {
        let running = held.containers.iter();
        for container in running.filter(|container| container.pid > 0) {
            let Some(path) = &container.cgroup else {
                continue;
            };
            let found: Option<Found> = self.layout.found(path, &container.id);
            // The root is everybody's: a container there cannot be told from the host.
            let found = found.filter(|_| !path.trim_matches('/').is_empty());
            if let Some(found) = found {
                // The sensor is switched off, or ends.
                drop(self.sensor.learn.send(found));
            }
        }
    }
}
