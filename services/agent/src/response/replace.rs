//! Replace: a fresh container of the same image with the same settings.
//!
//! Docker and podman make it by their API, in steps, each of which looks first whether it was done:
//! the old one gets another name, gives its networks and with them its ports back, and the new one is
//! made under the name that is free now. The new one carries the old one's id in a label, so it is
//! found again and never made twice. containerd makes one as [`Engines::remake`] says. In Kubernetes
//! the pod is taken from its owner, who makes another one ([`super::kubernetes`]).

use anyhow::{Context as _, bail, ensure};
use chassis::Cx;
use model::{
    Digest,
    runtime::{ActionKind, Refusal},
};
use oci::{Blueprint, Engine, EngineCall, EngineVerb, Engines};
use serde_json::{Map, Value, json};

use super::{
    container::{Found, digest},
    group::Group,
    kubernetes::{Cluster, Pod, PodName},
    proc,
};
use crate::inventory::addresses;

/// The label with the id of the container that was replaced.
const LABEL: &str = "io.tidewaiter.replaces";
/// What the old one's name ends with.
const SUFFIX: &str = ".q-";
/// Characters of an id that make a name of it.
const SHORT: usize = 12;
/// The version of podman's own API that is asked for.
const PODMAN_API: &str = "v4.0.0";
/// What looks after a container of podman's.
const MONITOR: &str = "conmon";
const OF_POD: &str = "io.kubernetes.pod.name";
const OF_SWARM: &str = "com.docker.swarm.service.id";

/// Who is asked to change something.
#[derive(Clone, Copy)]
pub(crate) struct Tools<'a> {
    pub(crate) cx: &'a Cx,
    pub(crate) engines: &'a Engines,
    pub(crate) cluster: Option<&'a Cluster>,
}

/// How a container is replaced.
pub(crate) enum Way {
    /// Docker or podman makes another one.
    Engine,
    /// containerd makes another one.
    Containerd(Box<Blueprint>),
    /// The owner of its pod makes another pod.
    Pod(Box<Pod>),
}

/// What took a container's place.
pub(crate) struct Replaced {
    /// The new container's id, or who makes a pod.
    pub(crate) after: String,
    /// In words, for people.
    pub(crate) detail: String,
}

/// How a container can be replaced here, or why it cannot. An error where that is not known now.
pub(crate) async fn way(
    tools: Tools<'_>,
    found: &Found,
    id: &str,
) -> anyhow::Result<Result<Way, Refusal>> {
    let action = ActionKind::Replace;
    let refused = |why: String| Ok(Err(Refusal::Unable { action, why }));
    if found.label(OF_POD).is_some() {
        let Some(name) = PodName::of(found, id) else {
            return refused("its labels do not name its pod".to_owned());
        };
        let Some(cluster) = tools.cluster else {
            return refused(
                "Kubernetes owns it, and the agent knows no API server of it \
                 (`response.kubernetes.host`)"
                    .to_owned(),
            );
        };
        let pod = cluster.pod(name).await?;
        return match pod.owner() {
            Ok(_) => Ok(Ok(Way::Pod(Box::new(pod)))),
            Err(why) => refused(why),
        };
    }
    if found.label(OF_SWARM).is_some() {
        return refused("Docker Swarm owns it and must replace it: remove it there".to_owned());
    }
    match &found.engine {
        Some((Engine::Docker | Engine::Podman, _)) if shares_ports(found) => {
            refused("it uses the host's network, whose ports a frozen container keeps".to_owned())
        }
        Some((Engine::Podman, _)) => match other_runtime(Api { tools, found }, id).await {
            Some(why) => refused(why),
            None => Ok(Ok(Way::Engine)),
        },
        Some((Engine::Docker, _)) => Ok(Ok(Way::Engine)),
        Some((Engine::Containerd, socket)) => {
            let blueprint = tools.engines.blueprint(tools.cx, socket, id).await?;
            let Some(blueprint) = blueprint else {
                return refused("containerd runs nothing of it".to_owned());
            };
            if let Some(why) = blueprint.hindrance() {
                return refused(why);
            }
            if !addresses::of(blueprint.pid()).is_empty() {
                return refused(
                    "whoever started it gave it a network, and containerd cannot do that again"
                        .to_owned(),
                );
            }
            Ok(Ok(Way::Containerd(Box::new(blueprint))))
        }
        Some((Engine::Cri, _)) | None => refused(
            "no engine that makes containers by its API knows it (Docker, podman, containerd)"
                .to_owned(),
        ),
    }
}

/// podman's service makes containers by its own runtime, whatever the old one runs by: another one
/// may not run here, or not keep it apart as much.
async fn other_runtime(api: Api<'_>, id: &str) -> Option<String> {
    // Only podman's own API tells, not Docker's.
    let ask = async |path: &[&str], pointer: &str| {
        let path = [&[PODMAN_API, "libpod"], path].concat();
        let told = api.get(&path).await.ok()?;
        told.pointer(pointer)?.as_str().map(str::to_owned)
    };
    let own = ask(&["containers", id, "json"], "/OCIRuntime").await?;
    let others = ask(&["info"], "/host/ociRuntime/name").await?;
    (own != others).then(|| {
        format!(
            "it runs by `{own}`, and podman's service makes containers by `{others}`: start the \
             service with `--runtime {own}`"
        )
    })
}

fn shares_ports(found: &Found) -> bool {
    found.text("/HostConfig/NetworkMode") == Some("host")
}

/// Has the fresh one made. The old one stands still and is cut off by now.
pub(crate) async fn replace(tools: Tools<'_>, found: &Found, way: Way) -> anyhow::Result<Replaced> {
    let fresh = match way {
        Way::Engine => by_engine(tools, found).await?,
        Way::Containerd(blueprint) => {
            let (_, socket) = found.engine.as_ref().context("its engine is gone")?;
            let made = tools.engines.remake(tools.cx, socket, &blueprint, LABEL);
            made.await?
        }
        Way::Pod(pod) => {
            let cluster = tools.cluster.context("no API server is known")?;
            let owner = cluster.let_go(&pod).await?;
            return Ok(Replaced {
                after: format!("another pod of {owner}"),
                detail: format!(
                    "{owner} makes another pod; `{}` has no labels any more, and its container \
                     stands still and is cut off{}",
                    pod.name(),
                    pod.remarks()
                ),
            });
        }
    };
    Ok(Replaced {
        detail: format!("`{fresh}` took its place; it stands still and is cut off"),
        after: fresh,
    })
}

/// Ends the old one where its engine hears of it: what was ended by hand is not started again,
/// whatever was said of restarts when it was made.
pub(crate) async fn end(tools: Tools<'_>, found: &Found) {
    let Some((Engine::Docker | Engine::Podman, _)) = &found.engine else {
        // containerd was told when the new one was made.
        return;
    };
    let Some(id) = found.text("/Id") else { return };
    let api = Api { tools, found };
    let query = [("signal", "KILL")];
    if let Err(error) = api.post(&["containers", id, "kill"], &query, None).await {
        tracing::debug!(%error, "`{id}` is not ended by its engine: {error:#}");
    }
}

async fn by_engine(tools: Tools<'_>, found: &Found) -> anyhow::Result<String> {
    let api = Api { tools, found };
    let old = found.text("/Id").context("its engine tells no id")?;
    let image = found
        .image()
        .context("its engine tells no digest of its image")?;
    if let Some(id) = api.successor(old).await? {
        api.start(&id, image).await?;
        return Ok(id);
    }
    let name = found.name().context("it has no name")?.to_owned();
    let body = settings(&found.inspected, old)?;
    let short = old.get(..SHORT).unwrap_or(old);
    // Perhaps it was renamed before, and no further.
    let name = match name.split_once(SUFFIX) {
        Some((before, rest)) if rest == short => before.to_owned(),
        _ => {
            let kept = format!("{name}{SUFFIX}{short}");
            api.post(&["containers", old, "rename"], &[("name", &kept)], None)
                .await
                .context("giving the old one another name")?;
            name
        }
    };
    api.free_networks(old).await?;
    free_ports(found);
    let made = api
        .post(&["containers", "create"], &[("name", &name)], Some(body))
        .await
        .context("making the new one")?;
    let id = made.get("Id").and_then(Value::as_str);
    let id = id
        .context("the engine tells no id of the new one")?
        .to_owned();
    api.start(&id, image).await?;
    Ok(id)
}

/// The engine of a container.
struct Api<'a> {
    tools: Tools<'a>,
    found: &'a Found,
}

// === impl Api ===

impl Api<'_> {
    async fn get(&self, path: &[&str]) -> anyhow::Result<Value> {
        self.ask(path, &[], EngineVerb::Get).await
    }

    async fn post(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        self.ask(path, query, EngineVerb::Post(body)).await
    }

    async fn ask(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        what: EngineVerb,
    ) -> anyhow::Result<Value> {
        let (engine, socket) = self.found.engine.as_ref().context("it has no engine")?;
        let call = EngineCall { path, query, what };
        let answer = self
            .tools
            .engines
            .call(self.tools.cx, (*engine, socket), call)
            .await?;
        answer.with_context(|| format!("`{engine}` knows no `{}`", path.join("/")))
    }

    /// The container that took a container's place already.
    async fn successor(&self, old: &str) -> anyhow::Result<Option<String>> {
        let filters = json!({ "label": [format!("{LABEL}={old}")] }).to_string();
        let query = [("all", "true"), ("filters", filters.as_str())];
        let listed = self
            .ask(&["containers", "json"], &query, EngineVerb::Get)
            .await?;
        let first = listed.get(0).and_then(|one| one.get("Id"));
        Ok(first.and_then(Value::as_str).map(str::to_owned))
    }

    /// Starts one that is of the image, and no other.
    async fn start(&self, id: &str, image: Digest) -> anyhow::Result<()> {
        let fresh = self.get(&["containers", id, "json"]).await?;
        let of = fresh.get("Image").and_then(Value::as_str).and_then(digest);
        ensure!(
            of == Some(image),
            "the engine made the new one of another image"
        );
        let path = ["containers", id, "start"];
        let started = self.post(&path, &[], None).await;
        started.context("starting the new one").map(|_| ())
    }

    /// Ports are free when the old one is on no network any more; one that keeps them is killed.
    async fn free_networks(&self, old: &str) -> anyhow::Result<()> {
        let networks = self
            .found
            .inspected
            .pointer("/NetworkSettings/Networks")
            .and_then(Value::as_object);
        let names = networks.into_iter().flat_map(Map::keys);
        for name in names.filter(|name| !matches!(name.as_str(), "none" | "host")) {
            let body = json!({ "Container": old, "Force": true });
            let left = self
                .post(&["networks", name, "disconnect"], &[], Some(body))
                .await;
            if let Err(error) = left {
                // It was taken off before, or the address is not the engine's to take.
                tracing::debug!(%error, "`{old}` stays on `{name}`: {error:#}");
            }
        }
        Ok(())
    }
}

/// podman's monitor of the old one holds the host's ports for as long as it lives. What it looks
/// after stands still and is not to go on, so it is ended.
fn free_ports(found: &Found) {
    let ports = found.inspected.pointer("/HostConfig/PortBindings");
    let has_ports = ports
        .and_then(Value::as_object)
        .is_some_and(|ports| !ports.is_empty());
    let pids = found.group.as_ref().map(Group::pids).unwrap_or_default();
    for pid in pids.into_iter().filter(|_| has_ports) {
        let Some(parent) = proc::parent(pid).filter(|parent| proc::is_called(*parent, MONITOR))
        else {
            continue;
        };
        proc::kill(parent);
    }
}

/// What the new container is made from: what the old one was made from.
fn settings(old: &Value, id: &str) -> anyhow::Result<Value> {
    let Some(Value::Object(config)) = old.get("Config") else {
        bail!("its engine does not tell how it was made");
    };
    let mut made = config.clone();
    let image = old.get("Image").cloned().context("it has no image")?;
    made.insert("Image".to_owned(), image);
    // The engine made that from the old one's id.
    let hostname = made.get("Hostname").and_then(Value::as_str);
    if hostname.is_some_and(|name| !name.is_empty() && id.starts_with(name)) {
        made.remove("Hostname");
    }
    let labels = made
        .entry("Labels")
        .or_insert_with(|| Value::Object(Map::new()));
    if !labels.is_object() {
        *labels = Value::Object(Map::new());
    }
    if let Some(labels) = labels.as_object_mut() {
        labels.insert(LABEL.to_owned(), Value::from(id));
    }
    let mut host = old.get("HostConfig").cloned().unwrap_or_default();
    mend(&mut host);
    add_volumes(old, &mut host);
    made.insert("HostConfig".to_owned(), host);
    let networks = old.pointer("/NetworkSettings/Networks");
    let networks = networks.and_then(Value::as_object);
    let endpoints: Map<String, Value> = networks
        .into_iter()
        .flatten()
        .filter(|(name, _)| !matches!(name.as_str(), "none" | "host"))
        .map(|(name, endpoint)| {
            // Addresses are given out anew; names that others know it by stay.
            let aliases = endpoint.get("Aliases").and_then(Value::as_array);
            let aliases = aliases.into_iter().flatten();
            let aliases: Vec<&Value> = aliases
                .filter(|alias| alias.as_str().is_some_and(|alias| !id.starts_with(alias)))
                .collect();
            (name.clone(), json!({ "Aliases": aliases }))
        })
        .collect();
    if !endpoints.is_empty() {
        let endpoints = json!({ "EndpointsConfig": endpoints });
        made.insert("NetworkingConfig".to_owned(), endpoints);
    }
    Ok(Value::Object(made))
}

/// What podman tells in another way than it takes it.
fn mend(host: &mut Value) {
    let Some(host) = host.as_object_mut() else {
        return;
    };
    // `RLIMIT_NOFILE` is told, `nofile` is taken.
    for limit in host
        .get_mut("Ulimits")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let name = limit.get("Name").and_then(Value::as_str);
        let short = name.and_then(|name| name.strip_prefix("RLIMIT_"));
        if let Some(short) = short.map(str::to_lowercase) {
            limit["Name"] = Value::from(short);
        }
    }
    // Where the engine put it, which is a place of its own again.
    for own in ["ContainerIDFile", "CgroupParent", "Cgroup"] {
        host.remove(own);
    }
}

/// Volumes without a name in the settings are those of the old one: the data stays with the service.
fn add_volumes(old: &Value, host: &mut Value) {
    let Some(host) = host.as_object_mut() else {
        return;
    };
    let binds = host.get("Binds").and_then(Value::as_array).cloned();
    let mut binds = binds.unwrap_or_default();
    let mounts = host.get("Mounts").and_then(Value::as_array).cloned();
    let mounts = mounts.unwrap_or_default();
    let is_there = |binds: &[Value], target: &str| {
        let in_binds = binds.iter().filter_map(Value::as_str).any(|bind| {
            let mut parts = bind.split(':');
            parts.nth(1) == Some(target)
        });
        in_binds
            || mounts
                .iter()
                .any(|mount| mount.get("Target").and_then(Value::as_str) == Some(target))
    };
    for mount in old
        .get("Mounts")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let text = |name: &str| mount.get(name).and_then(Value::as_str).unwrap_or_default();
        let source = match text("Type") {
            "volume" => text("Name"),
            "bind" => text("Source"),
            _ => continue,
        };
        let target = text("Destination");
        if source.is_empty() || target.is_empty() || is_there(&binds, target) {
            continue;
        }
        let is_writable = mount.get("RW").and_then(Value::as_bool) != Some(false);
        let mode = if is_writable { "rw" } else { "ro" };
        binds.push(Value::from(format!("{source}:{target}:{mode}")));
    }
    if !binds.is_empty() {
        host.insert("Binds".to_owned(), Value::from(binds));
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use oci::Engine;

    use super::*;

    fn inspected() -> Value {
        json!({
            "Id": "0123456789abcdef",
            "Name": "/web",
            "Image": "sha256:aa",
            "Config": {
                "Hostname": "0123456789ab",
                "Env": ["A=b"],
                "Cmd": ["serve"],
                "Labels": { "team": "shop" },
                "Image": "registry/web:1",
                "ExposedPorts": { "80/tcp": {} },
            },
            "HostConfig": {
                "NetworkMode": "bridge",
                "PortBindings": { "80/tcp": [{ "HostIp": "", "HostPort": "8080" }] },
                "Binds": ["/srv:/srv:ro"],
                "Ulimits": [{ "Name": "RLIMIT_NOFILE", "Soft": 1, "Hard": 2 }],
                "CgroupParent": "x",
            },
            "Mounts": [
                { "Type": "volume", "Name": "v1", "Destination": "/data", "RW": true },
                { "Type": "bind", "Source": "/srv", "Destination": "/srv", "RW": false },
            ],
            "NetworkSettings": { "Networks": {
                "front": { "Aliases": ["web", "0123456789ab"], "IPAddress": "10.0.0.2" },
            } },
        })
    }

    #[test]
    fn the_new_one_is_made_as_the_old_one_was_and_of_its_very_image() {
        let made = settings(&inspected(), "0123456789abcdef").unwrap();
        let expected = json!({
            "Env": ["A=b"],
            "Cmd": ["serve"],
            "Labels": { "team": "shop", "io.tidewaiter.replaces": "0123456789abcdef" },
            "Image": "sha256:aa",
            "ExposedPorts": { "80/tcp": {} },
            "HostConfig": {
                "NetworkMode": "bridge",
                "PortBindings": { "80/tcp": [{ "HostIp": "", "HostPort": "8080" }] },
                "Binds": ["/srv:/srv:ro", "v1:/data:rw"],
                "Ulimits": [{ "Name": "nofile", "Soft": 1, "Hard": 2 }],
            },
            "NetworkingConfig": { "EndpointsConfig": { "front": { "Aliases": ["web"] } } },
        });
        assert_eq!(made, expected);
    }

    async fn way_of(found: &Found) -> Result<Way, Refusal> {
        let (cx, engines) = (Cx::for_tests(), Engines::default());
        let tools = Tools {
            cx: &cx,
            engines: &engines,
            cluster: None,
        };
        way(tools, found, "0123456789abcdef").await.unwrap()
    }

    #[tokio::test]
    async fn what_somebody_else_owns_is_theirs_to_replace() {
        let mut found = Found {
            engine: Some((Engine::Docker, PathBuf::new())),
            inspected: inspected(),
            ..Found::default()
        };
        assert!(matches!(way_of(&found).await, Ok(Way::Engine)));
        for label in [OF_POD, OF_SWARM] {
            found.inspected["Config"]["Labels"] = json!({ label: "web-1" });
            assert!(matches!(way_of(&found).await, Err(Refusal::Unable { .. })));
        }
        found.inspected = inspected();
        found.inspected["HostConfig"]["NetworkMode"] = Value::from("host");
        assert!(way_of(&found).await.is_err());
        found.inspected = inspected();
        for engine in [None, Some((Engine::Cri, PathBuf::new()))] {
            found.engine = engine;
            assert!(way_of(&found).await.is_err());
        }
    }
}
