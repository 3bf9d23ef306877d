//! Another container of containerd's, made as one was: of the same layers, with the same settings.
//!
//! It is a record, a snapshot and a task, in this order. All three are named after the old
//! container's id, so whoever is stopped in between finds what was made and goes on from there, and
//! nothing is made twice. The record comes first: as long as it is there, containerd keeps the
//! snapshot that it names.
//!
//! The layers are those that the old container's own snapshot lies on, not those that a name leads to
//! now. What containerd's clients made around a container, it does not know: such containers are
//! theirs to make again ([`Blueprint::hindrance`]).

use std::{collections::HashMap, path::Path};

use chassis::Cx;
use model::Digest;
use prost::Message;
use reqwest::Client;
use serde_json::Value;

use super::{
    Asked, build, grpc,
    inventory::{
        asked,
        containerd::{
            messages::{GetContainerResponse, Listed, Task},
            record, task,
        },
        quick,
    },
};
use crate::{Engine, Engines, OciError};

const CREATE_CONTAINER: &str = "containerd.services.containers.v1.Containers/Create";
const UPDATE_CONTAINER: &str = "containerd.services.containers.v1.Containers/Update";
const STAT_SNAPSHOT: &str = "containerd.services.snapshots.v1.Snapshots/Stat";
const PREPARE_SNAPSHOT: &str = "containerd.services.snapshots.v1.Snapshots/Prepare";
const MOUNTS: &str = "containerd.services.snapshots.v1.Snapshots/Mounts";
const CREATE_TASK: &str = "containerd.services.tasks.v1.Tasks/Create";
const START_TASK: &str = "containerd.services.tasks.v1.Tasks/Start";
const DELETE_TASK: &str = "containerd.services.tasks.v1.Tasks/Delete";

/// Labels of clients that make more of a container than containerd does, or another one themselves.
const CLIENTS: &[(&str, &str)] = &[
    ("io.cri-containerd.kind", "kubelet"),
    ("io.kubernetes.pod.name", "kubelet"),
    ("nerdctl/namespace", "nerdctl"),
];
/// Labels by which containerd starts a container again that ended.
const RESTART: &str = "containerd.io/restart.";

/// Where a spec says which cgroup is the container's.
const GROUP: &str = "/linux/cgroupsPath";

/// containerd.v1.types.Status
const CREATED: i32 = 1;
const RUNNING: i32 = 2;
const STOPPED: i32 = 3;

#[derive(Clone, PartialEq, Message)]
struct CreateContainerRequest {
    #[prost(message, optional, tag = "1")]
    container: Option<Listed>,
}

#[derive(Clone, PartialEq, Message)]
struct UpdateContainerRequest {
    #[prost(message, optional, tag = "1")]
    container: Option<Listed>,
    #[prost(message, optional, tag = "2")]
    mask: Option<FieldMask>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldMask {
    #[prost(string, repeated, tag = "1")]
    paths: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct SnapshotRequest {
    #[prost(string, tag = "1")]
    snapshotter: String,
    #[prost(string, tag = "2")]
    key: String,
    /// Where one is made.
    #[prost(string, tag = "3")]
    parent: String,
}

#[derive(Clone, PartialEq, Message)]
struct StatSnapshotResponse {
    #[prost(message, optional, tag = "1")]
    info: Option<SnapshotInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct SnapshotInfo {
    #[prost(string, tag = "2")]
    parent: String,
}

#[derive(Clone, PartialEq, Message)]
struct MountsResponse {
    #[prost(message, repeated, tag = "1")]
    mounts: Vec<Mount>,
}

#[derive(Clone, PartialEq, Message)]
struct Mount {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    source: String,
    #[prost(string, tag = "3")]
    target: String,
    #[prost(string, repeated, tag = "4")]
    options: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateTaskRequest {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(message, repeated, tag = "3")]
    root: Vec<Mount>,
    #[prost(string, tag = "5")]
    stdout: String,
    #[prost(string, tag = "6")]
    stderr: String,
}

/// A task that is started, or deleted.
#[derive(Clone, PartialEq, Message)]
struct TaskRequest {
    #[prost(string, tag = "1")]
    container: String,
}

/// How a container of containerd's was made.
#[derive(Clone, Debug)]
pub struct Blueprint {
    namespace: String,
    record: Listed,
    spec: Value,
    task: Task,
    /// The snapshot of the image's last layer.
    parent: String,
}

// === impl Blueprint ===

impl Blueprint {
    /// The process that it began with, as the host counts; 0 where it does not run.
    pub const fn pid(&self) -> u32 {
        self.task.pid
    }

    /// Why another one like it cannot be made, if it cannot.
    pub fn hindrance(&self) -> Option<String> {
        let client = CLIENTS
            .iter()
            .find(|(label, _)| self.record.labels.contains_key(*label));
        if let Some((_, client)) = client {
            return Some(format!("{client} made more of it than containerd knows"));
        }
        if self.record.snapshot.is_empty() || !is_chain(&self.parent) {
            return Some("its root does not lie on the layers of an image".to_owned());
        }
        if self.task.terminal {
            return Some("it is on a terminal of whoever started it".to_owned());
        }
        let network = self.namespace_of("network");
        if network.is_none_or(|network| network.get("path").is_some()) {
            return Some(
                "it shares a network with others, whose ports a frozen container keeps".to_owned(),
            );
        }
        let group = self.group();
        if !group.is_empty() && !group.contains(&self.record.id) {
            return Some("its cgroup is not named after it, so it would be shared".to_owned());
        }
        None
    }

    fn namespace_of(&self, kind: &str) -> Option<&Value> {
        let own = self.spec.pointer("/linux/namespaces");
        let mut own = own.and_then(Value::as_array).into_iter().flatten();
        own.find(|one| one.get("type").and_then(Value::as_str) == Some(kind))
    }

    fn group(&self) -> &str {
        let group = self.spec.pointer(GROUP).and_then(Value::as_str);
        group.unwrap_or_default()
    }

    /// The id of the one that is made like it.
    fn fresh_id(&self) -> String {
        Digest::of(format!("replaces\n{}", self.record.id).as_bytes()).hex()
    }

    /// The record of that.
    fn fresh(&self, label: &str) -> Listed {
        let (old, id) = (&self.record.id, self.fresh_id());
        let mut spec = self.spec.clone();
        let group = self.group().replace(old.as_str(), &id);
        if let Some(place) = spec.pointer_mut(GROUP) {
            *place = Value::from(group);
        }
        if let Some(place) = spec.get_mut("hostname") {
            // Clients make that from the old one's id.
            let hostname = place.as_str().unwrap_or_default();
            let own = id.get(..hostname.len()).filter(|own| !own.is_empty());
            if let Some(own) = own.filter(|_| old.starts_with(hostname)) {
                *place = Value::from(own);
            }
        }
        let mut record = self.record.clone();
        record.snapshot.clone_from(&id);
        record.id = id;
        record.labels.insert(label.to_owned(), old.clone());
        record.created_at = None;
        if let Some(written) = &mut record.spec {
            written.value = spec.to_string().into_bytes();
        }
        record
    }
}

/// Whether a snapshot's name is what containerd calls the layers of an image.
fn is_chain(name: &str) -> bool {
    let chain: Result<Digest, _> = name.parse();
    chain.is_ok()
}

// === impl Engines ===

impl Engines {
    /// How a container of containerd's was made; `None` where it knows none, or nothing of it runs.
    pub async fn blueprint(
        &self,
        cx: &Cx,
        socket: &Path,
        id: &str,
    ) -> Result<Option<Blueprint>, OciError> {
        let asked = asked(cx, Engine::Containerd, socket);
        let client = build(quick(&asked).http2_prior_knowledge())?;
        for namespace in &self.namespaces {
            let Some(record) = record(&asked, &client, namespace, id).await? else {
                continue;
            };
            let Some(task) = task(&asked, &client, namespace, id).await? else {
                return Ok(None);
            };
            let spec = record.spec.as_ref();
            let spec = spec.and_then(|spec| serde_json::from_slice(&spec.value).ok());
            let request = snapshot(&record.snapshotter, &record.snapshot);
            let is_snapshot = !record.snapshot.is_empty();
            let stat: Option<StatSnapshotResponse> = if is_snapshot {
                grpc::one(&asked, &client, namespace, STAT_SNAPSHOT, &request).await?
            } else {
                None
            };
            let info = stat.and_then(|stat| stat.info);
            return Ok(Some(Blueprint {
                namespace: namespace.clone(),
                spec: spec.unwrap_or_default(),
                parent: info.map(|info| info.parent).unwrap_or_default(),
                record,
                task,
            }));
        }
        Ok(None)
    }

    /// Makes another one and starts it, or finds that this was done; returns its id. It carries the
    /// old one's id in a label.
    pub async fn remake(
        &self,
        cx: &Cx,
        socket: &Path,
        old: &Blueprint,
        label: &str,
    ) -> Result<String, OciError> {
        let asked = asked(cx, Engine::Containerd, socket);
        let client = build(quick(&asked).http2_prior_knowledge())?;
        let fresh = old.fresh(label);
        let making = Making {
            asked: &asked,
            client: &client,
            old,
            fresh: &fresh,
        };
        making.record(label).await?;
        making.leave_alone().await?;
        let root = making.snapshot().await?;
        making.run(root).await?;
        Ok(fresh.id)
    }

    /// Writes a label of a container of containerd's, or takes it away; false where it knows none.
    pub async fn label(
        &self,
        cx: &Cx,
        socket: &Path,
        id: &str,
        (name, value): (&str, Option<&str>),
    ) -> Result<bool, OciError> {
        let asked = asked(cx, Engine::Containerd, socket);
        let client = build(quick(&asked).http2_prior_knowledge())?;
        for namespace in &self.namespaces {
            // An empty value takes it away.
            let changed = [(name, value.unwrap_or_default())];
            if relabel(&asked, &client, (namespace, id), &changed).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A container that is being made.
struct Making<'a> {
    asked: &'a Asked<'a>,
    client: &'a Client,
    old: &'a Blueprint,
    fresh: &'a Listed,
}

// === impl Making ===

impl Making<'_> {
    async fn ask<T: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<Option<T>, OciError> {
        let namespace = &self.old.namespace;
        grpc::one(self.asked, self.client, namespace, method, request).await
    }

    /// What is there already, or has to be.
    async fn must<T: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<T, OciError> {
        let answer = self.ask(method, request).await?;
        answer.ok_or_else(|| {
            let id = &self.fresh.id;
            self.asked
                .away(format!("`{method}` says that there is no `{id}`"))
        })
    }

    async fn record(&self, label: &str) -> Result<(), OciError> {
        let Listed { id, .. } = self.fresh;
        let found = record(self.asked, self.client, &self.old.namespace, id).await?;
        if let Some(found) = found {
            let of = found.labels.get(label);
            if of == Some(&self.old.record.id) {
                return Ok(());
            }
            return Err(self
                .asked
                .away(format!("another container is called `{id}`")));
        }
        let request = CreateContainerRequest {
            container: Some(self.fresh.clone()),
        };
        let _: GetContainerResponse = self.must(CREATE_CONTAINER, &request).await?;
        Ok(())
    }

    async fn snapshot(&self) -> Result<Vec<Mount>, OciError> {
        let mut request = snapshot(&self.fresh.snapshotter, &self.fresh.snapshot);
        let found: Option<StatSnapshotResponse> = self.ask(STAT_SNAPSHOT, &request).await?;
        let made: MountsResponse = match found.and_then(|found| found.info) {
            Some(info) if info.parent == self.old.parent => self.must(MOUNTS, &request).await?,
            Some(_) => {
                let key = &request.key;
                let detail = format!("snapshot `{key}` is not of the same layers");
                return Err(self.asked.away(detail));
            }
            None => {
                request.parent.clone_from(&self.old.parent);
                self.must(PREPARE_SNAPSHOT, &request).await?
            }
        };
        Ok(made.mounts)
    }

    /// Starts it, whatever became of it before.
    async fn run(&self, root: Vec<Mount>) -> Result<(), OciError> {
        let id = &self.fresh.id;
        let of_it = TaskRequest {
            container: id.clone(),
        };
        let mut status = self.status().await?;
        if status == Some(STOPPED) {
            let _: grpc::Empty = self.must(DELETE_TASK, &of_it).await?;
            status = None;
        }
        if status.is_none() {
            // A log goes on; a pipe was read by whoever started the old one, and nobody else.
            let log = |place: &String| place.contains("://").then(|| place.clone());
            let request = CreateTaskRequest {
                container: id.clone(),
                root,
                stdout: log(&self.old.task.stdout).unwrap_or_default(),
                stderr: log(&self.old.task.stderr).unwrap_or_default(),
            };
            let _: grpc::Empty = self.must(CREATE_TASK, &request).await?;
            status = Some(CREATED);
        }
        if status == Some(CREATED) {
            let _: grpc::Empty = self.must(START_TASK, &of_it).await?;
        }
        match self.status().await? {
            Some(RUNNING) => Ok(()),
            status => Err(self.asked.away(format!(
                "`{id}` was started and does not run (status {})",
                status.unwrap_or_default()
            ))),
        }
    }

    async fn status(&self) -> Result<Option<i32>, OciError> {
        let namespace = &self.old.namespace;
        let task = task(self.asked, self.client, namespace, &self.fresh.id).await?;
        Ok(task.map(|task| task.status))
    }

    /// containerd does not start the old one again when that stands still or ends. The new record
    /// has what it was told of that.
    async fn leave_alone(&self) -> Result<(), OciError> {
        let labels = self.old.record.labels.keys();
        let restart = labels.filter(|name| name.starts_with(RESTART));
        let changed: Vec<(&str, &str)> = restart.map(|name| (name.as_str(), "")).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let place = (self.old.namespace.as_str(), self.old.record.id.as_str());
        relabel(self.asked, self.client, place, &changed).await?;
        Ok(())
    }
}

fn snapshot(snapshotter: &str, key: &str) -> SnapshotRequest {
    SnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: key.to_owned(),
        parent: String::new(),
    }
}

/// Writes labels of a container, and leaves its others; false where there is no such container.
async fn relabel(
    asked: &Asked<'_>,
    client: &Client,
    (namespace, id): (&str, &str),
    changed: &[(&str, &str)],
) -> Result<bool, OciError> {
    let pairs = changed.iter();
    let labels: HashMap<String, String> = pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let request = UpdateContainerRequest {
        mask: Some(FieldMask {
            paths: labels.keys().map(|name| format!("labels.{name}")).collect(),
        }),
        container: Some(Listed {
            id: id.to_owned(),
            labels,
            ..Listed::default()
        }),
    };
    let answer: Option<GetContainerResponse> =
        grpc::one(asked, client, namespace, UPDATE_CONTAINER, &request).await?;
    Ok(answer.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::inventory::containerd::messages::{Any, Runtime},
        *,
    };

    const OLD: &str = "9927f49113033b6a04e376219116410e7ab272b8717ce2a43979d4c52e220d87";

    fn blueprint() -> Blueprint {
        let spec = json!({
            "hostname": &OLD[..12],
            "process": { "env": ["A=b"] },
            "linux": {
                "cgroupsPath": format!("/shop/{OLD}"),
                "namespaces": [{ "type": "pid" }, { "type": "network" }],
            },
        });
        let labels = [
            ("team", "shop"),
            ("containerd.io/restart.status", "running"),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Blueprint {
            namespace: "default".to_owned(),
            record: Listed {
                id: OLD.to_owned(),
                labels: labels.into(),
                image: "example.org/app:1".to_owned(),
                runtime: Some(Runtime {
                    name: "io.containerd.runc.v2".to_owned(),
                    options: None,
                }),
                spec: Some(Any {
                    type_url: "spec".to_owned(),
                    value: spec.to_string().into_bytes(),
                }),
                snapshotter: "native".to_owned(),
                snapshot: OLD.to_owned(),
                ..Listed::default()
            },
            spec,
            task: Task {
                pid: 7,
                status: RUNNING,
                ..Task::default()
            },
            parent: Digest::of(b"layers").to_string(),
        }
    }

    #[test]
    fn the_new_one_is_called_otherwise_and_made_alike() {
        let old = blueprint();
        let fresh = old.fresh("replaces");
        let id = old.fresh_id();
        assert_ne!(id, OLD);
        assert_eq!((fresh.id.as_str(), fresh.snapshot.as_str()), (&*id, &*id));
        assert_eq!(fresh.labels["replaces"], OLD);
        assert_eq!(fresh.labels["team"], "shop");
        assert_eq!(fresh.runtime, old.record.runtime);
        let written = fresh.spec.unwrap();
        assert_eq!(written.type_url, "spec");
        let spec: Value = serde_json::from_slice(&written.value).unwrap();
        let expected = json!({
            "hostname": &id[..12],
            "process": { "env": ["A=b"] },
            "linux": {
                "cgroupsPath": format!("/shop/{id}"),
                "namespaces": [{ "type": "pid" }, { "type": "network" }],
            },
        });
        assert_eq!(spec, expected);
    }

    #[test]
    fn what_containerd_did_not_make_alone_it_cannot_make_again() {
        assert_eq!(blueprint().hindrance(), None);
        let check = |change: &dyn Fn(&mut Blueprint), expected: &str| {
            let mut changed = blueprint();
            change(&mut changed);
            let why = changed.hindrance().unwrap_or_default();
            assert!(why.contains(expected), "{why}");
        };
        let label = |name: &str| {
            let name = name.to_owned();
            move |made: &mut Blueprint| {
                made.record.labels.insert(name.clone(), String::new());
            }
        };
        check(&label("nerdctl/namespace"), "nerdctl");
        check(&label("io.cri-containerd.kind"), "kubelet");
        check(&|made| made.record.snapshot.clear(), "layers of an image");
        check(&|made| "base".clone_into(&mut made.parent), "layers of an");
        check(&|made| made.task.terminal = true, "terminal");
        let network = |value: Value| {
            move |made: &mut Blueprint| made.spec["linux"]["namespaces"] = value.clone()
        };
        check(&network(json!([{ "type": "pid" }])), "ports");
        let joined = json!([{ "type": "network", "path": "/run/netns/a" }]);
        check(&network(joined), "ports");
        let elsewhere = |made: &mut Blueprint| made.spec["linux"]["cgroupsPath"] = json!("/x");
        check(&elsewhere, "cgroup");
    }
}
