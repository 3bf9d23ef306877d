//! Docker's API, as podman speaks it too.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{
    Digest,
    runtime::{Container, ContainerState, ImageAtRest, MountPoint, PortMapping, Security},
};
use reqwest::{Client, Response, StatusCode};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::{
    ANSWER_BYTES_MAX, Asked, ENTRIES_MAX, EngineInventory, PARTS_MAX, build, patient, quick,
    spec::DEFAULT_CAPABILITIES, text, texts,
};
use crate::OciError;

pub(super) async fn inventory(asked: &Asked<'_>) -> Result<EngineInventory, OciError> {
    let client = build(quick(asked))?;
    let version: Version = get(asked, &client, "version").await?.unwrap_or_default();
    let listed: Vec<Listed> = get(asked, &client, "containers/json?all=true")
        .await?
        .unwrap_or_default();
    let images: Vec<Image> = get(asked, &client, "images/json")
        .await?
        .unwrap_or_default();
    let beyond = |count: usize| count.saturating_sub(ENTRIES_MAX);
    let left_out = beyond(listed.len()).saturating_add(beyond(images.len()));
    let digests: BTreeMap<&str, &Vec<String>> = images
        .iter()
        .map(|image| (image.id.as_str(), &image.repo_digests.0))
        .collect();
    let mut containers = Vec::new();
    for listed in listed.iter().take(ENTRIES_MAX) {
        containers.extend(inspect(asked, &client, listed).await?);
    }
    for container in &mut containers {
        let id = container.image_id.map(|id| id.to_string());
        let known = id.and_then(|id| digests.get(id.as_str()).copied());
        container.repo_digests = known.map(|known| texts(known)).unwrap_or_default();
    }
    let runtime = asked.engine.as_str();
    let images = images.into_iter().take(ENTRIES_MAX);
    Ok(EngineInventory {
        version: text(&version.version),
        containers,
        images: images.filter_map(|image| image.at_rest(runtime)).collect(),
        left_out,
    })
}

/// What happens, one JSON document a line.
pub(super) async fn events(asked: &Asked<'_>) -> Result<Response, OciError> {
    let client = build(patient(asked))?;
    let filters = r#"filters={"type":["container","image"]}"#;
    let sent = client
        .get(format!("http://localhost/events?{filters}"))
        .send()
        .await;
    let response = sent.map_err(|error| asked.unreachable(&error))?;
    if response.status().is_success() {
        return Ok(response);
    }
    Err(asked.away(format!("it answers {} for its events", response.status())))
}

/// A container in whole; `None` where it is gone by now.
async fn inspect(
    asked: &Asked<'_>,
    client: &Client,
    listed: &Listed,
) -> Result<Option<Container>, OciError> {
    // The id stands in a path: what is no id is not asked for.
    if listed.id.is_empty() || !listed.id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(None);
    }
    let path = format!("containers/{}/json", listed.id);
    let found: Option<Inspected> = get(asked, client, &path).await?;
    Ok(found.map(|found| found.container(asked.engine.as_str(), listed)))
}

/// An answer in JSON; `None` for what does not exist.
async fn get<T: DeserializeOwned>(
    asked: &Asked<'_>,
    client: &Client,
    path: &str,
) -> Result<Option<T>, OciError> {
    let sent = client.get(format!("http://localhost/{path}")).send().await;
    let mut response = sent.map_err(|error| asked.unreachable(&error))?;
    match response.status() {
        StatusCode::NOT_FOUND => return Ok(None),
        status if !status.is_success() => {
            return Err(asked.away(format!("it answers {status} for `{path}`")));
        }
        _ => {}
    }
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(part)) => bytes.extend_from_slice(&part),
            Ok(None) => break,
            Err(error) => return Err(asked.unreachable(&error)),
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            let limit = ANSWER_BYTES_MAX as u64;
            return Err(OciError::too_large(
                format!("the answer to `{path}`"),
                limit,
            ));
        }
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| OciError::malformed(format!("the answer to `{path}`"), error))
}

/// What engines leave out or write as `null`.
#[derive(Debug, Default)]
struct Given<T>(T);

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given: Option<T> = Option::deserialize(deserializer)?;
        Ok(Self(given.unwrap_or_default()))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Version {
    version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Listed {
    id: String,
    image: String,
    labels: Given<BTreeMap<String, String>>,
    ports: Given<Vec<ListedPort>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ListedPort {
    #[serde(rename = "IP")]
    ip: String,
    private_port: u16,
    public_port: u16,
    #[serde(rename = "Type")]
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Image {
    id: String,
    repo_tags: Given<Vec<String>>,
    repo_digests: Given<Vec<String>>,
    created: Given<i64>,
    size: Given<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    created: Given<String>,
    image: String,
    state: Given<State>,
    config: Given<Settings>,
    host_config: Given<HostSettings>,
    mounts: Given<Vec<Mount>>,
    app_armor_profile: Given<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct State {
    status: Given<String>,
    pid: Given<i64>,
    started_at: Given<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Settings {
    image: Given<String>,
    user: Given<String>,
    healthcheck: Option<HealthCheck>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct HealthCheck {
    test: Given<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct HostSettings {
    privileged: Given<bool>,
    network_mode: Given<String>,
    pid_mode: Given<String>,
    ipc_mode: Given<String>,
    #[serde(rename = "UTSMode")]
    uts_mode: Given<String>,
    userns_mode: Given<String>,
    readonly_rootfs: Given<bool>,
    security_opt: Given<Vec<String>>,
    cap_add: Given<Vec<String>>,
    cap_drop: Given<Vec<String>>,
    memory: Given<i64>,
    pids_limit: Given<i64>,
    nano_cpus: Given<i64>,
    cpu_quota: Given<i64>,
    cpu_period: Given<i64>,
    devices: Given<Vec<Device>>,
    restart_policy: Given<Restart>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Device {
    path_on_host: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Restart {
    name: Given<String>,
    maximum_retry_count: Given<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Mount {
    #[serde(rename = "Type")]
    kind: Given<String>,
    name: Given<String>,
    source: Given<String>,
    destination: String,
    #[serde(rename = "RW")]
    writable: bool,
}

// === impl Image ===

impl Image {
    fn at_rest(self, runtime: &str) -> Option<ImageAtRest> {
        let named = self
            .repo_tags
            .0
            .iter()
            .filter(|name| *name != "<none>:<none>");
        let digests = self.repo_digests.0.iter();
        Some(ImageAtRest {
            runtime: runtime.to_owned(),
            id: digest(&self.id)?,
            names: named.take(PARTS_MAX).map(|name| text(name)).collect(),
            repo_digests: digests
                .filter(|name| !name.starts_with("<none>"))
                .take(PARTS_MAX)
                .map(|name| text(name))
                .collect(),
            bytes: u64::try_from(self.size.0).unwrap_or(0),
            created_at: Timestamp::from_second(self.created.0).ok(),
        })
    }
}

// === impl Inspected ===

impl Inspected {
    fn container(self, runtime: &str, listed: &Listed) -> Container {
        let security = self.security();
        let labels = &listed.labels.0;
        let image = if self.config.0.image.0.is_empty() {
            &listed.image
        } else {
            &self.config.0.image.0
        };
        let ports = listed.ports.0.iter().filter(|port| port.public_port > 0);
        Container {
            id: text(&self.id),
            name: text(self.name.trim_start_matches('/')),
            runtime: runtime.to_owned(),
            image: text(image),
            image_id: digest(&self.image),
            repo_digests: Vec::new(),
            state: match self.state.0.status.0.as_str() {
                "created" | "configured" | "initialized" => ContainerState::Created,
                "running" | "restarting" => ContainerState::Running,
                "paused" => ContainerState::Paused,
                "exited" | "dead" | "stopped" | "removing" => ContainerState::Stopped,
                _ => ContainerState::Unknown,
            },
            created_at: time(&self.created.0),
            started_at: time(&self.state.0.started_at.0),
            pid: u32::try_from(self.state.0.pid.0).unwrap_or(0),
            cgroup: None,
            pod: first_label(labels, &["io.kubernetes.pod.name"]),
            namespace: first_label(labels, &["io.kubernetes.pod.namespace"]),
            owner: first_label(
                labels,
                &[
                    "com.docker.compose.project",
                    "io.podman.compose.project",
                    "com.docker.swarm.service.name",
                    "PODMAN_SYSTEMD_UNIT",
                ],
            ),
            labels: labels
                .iter()
                .take(PARTS_MAX)
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
            ports: ports
                .take(PARTS_MAX)
                .map(|port| PortMapping {
                    host_address: match port.ip.as_str() {
                        "0.0.0.0" | "::" => String::new(),
                        address => text(address),
                    },
                    host_port: port.public_port,
                    container_port: port.private_port,
                    protocol: text(&port.kind),
                })
                .collect(),
            addresses: Vec::new(),
            mounts: self.mounts.0.iter().take(PARTS_MAX).map(mount).collect(),
            security,
        }
    }

    fn security(&self) -> Security {
        let host = &self.host_config.0;
        let options = || host.security_opt.0.iter().map(String::as_str);
        let option = |name: &str| {
            let of_name = |option: &str| {
                let value = option.strip_prefix(name)?;
                value.strip_prefix(['=', ':']).map(text)
            };
            options().find_map(of_name)
        };
        let no_new = options().any(|option| {
            option == "no-new-privileges"
                || option.ends_with("privileges=true")
                || option.ends_with("privileges:true")
        });
        let cpu_millis = match (host.nano_cpus.0, host.cpu_quota.0, host.cpu_period.0) {
            (nano, _, _) if nano > 0 => u64::try_from(nano / 1_000_000).ok(),
            (_, quota, period) if quota > 0 => {
                let period = if period > 0 { period } else { 100_000 };
                let millis = quota.saturating_mul(1_000).checked_div(period);
                millis.and_then(|millis| u64::try_from(millis).ok())
            }
            _ => None,
        };
        Security {
            privileged: host.privileged.0,
            user: text(&self.config.0.user.0),
            capabilities: capabilities(&host.cap_add.0, &host.cap_drop.0, host.privileged.0),
            host_network: host.network_mode.0 == "host",
            host_pid: host.pid_mode.0 == "host",
            host_ipc: host.ipc_mode.0 == "host",
            host_uts: host.uts_mode.0 == "host",
            host_users: host.userns_mode.0 == "host" || host.userns_mode.0.is_empty(),
            read_only_root: host.readonly_rootfs.0,
            new_privileges: !no_new,
            seccomp: option("seccomp").map(|given| {
                // Docker puts the whole profile here.
                if given.trim_start().starts_with('{') {
                    "custom".to_owned()
                } else {
                    given
                }
            }),
            apparmor: option("apparmor")
                .or_else(|| Some(text(&self.app_armor_profile.0)).filter(|name| !name.is_empty())),
            memory_bytes_max: positive(host.memory.0),
            pids_max: positive(host.pids_limit.0),
            cpu_millis_max: cpu_millis,
            devices: host
                .devices
                .0
                .iter()
                .take(PARTS_MAX)
                .map(|device| text(&device.path_on_host))
                .collect(),
            restart: Some(restart(&host.restart_policy.0)),
            health_check: Some(self.has_health_check()),
        }
    }

    fn has_health_check(&self) -> bool {
        let check = self.config.0.healthcheck.as_ref();
        let test = check
            .map(|check| check.test.0.as_slice())
            .unwrap_or_default();
        test.first().is_some_and(|first| first != "NONE")
    }
}

fn mount(mount: &Mount) -> MountPoint {
    let is_volume = mount.kind.0 == "volume" && !mount.name.0.is_empty();
    MountPoint {
        kind: text(&mount.kind.0),
        source: text(if is_volume {
            &mount.name.0
        } else {
            &mount.source.0
        }),
        target: text(&mount.destination),
        writable: mount.writable,
    }
}

fn restart(policy: &Restart) -> String {
    match (policy.name.0.as_str(), policy.maximum_retry_count.0) {
        ("", _) => "no".to_owned(),
        (name, 0) => text(name),
        (name, retries) => format!("{}:{retries}", text(name)),
    }
}

/// What the settings give: the engine's default, plus what is added, minus what is dropped.
fn capabilities(add: &[String], drop: &[String], privileged: bool) -> Vec<String> {
    let full = |name: &String| {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        format!("CAP_{}", text(name))
    };
    if privileged || add.iter().any(|name| name.eq_ignore_ascii_case("all")) {
        return vec!["ALL".to_owned()];
    }
    let none = drop.iter().any(|name| name.eq_ignore_ascii_case("all"));
    let dropped: Vec<String> = drop.iter().map(full).collect();
    let defaults = DEFAULT_CAPABILITIES.iter().filter(|_| !none);
    let mut held: Vec<String> = defaults
        .map(|name| format!("CAP_{name}"))
        .filter(|name| !dropped.contains(name))
        .chain(add.iter().take(PARTS_MAX).map(full))
        .collect();
    held.sort();
    held.dedup();
    held
}

fn positive(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|number| *number > 0)
}

/// A digest, as `sha256:…` or its digits alone.
pub(super) fn digest(given: &str) -> Option<Digest> {
    given.parse().ok().or_else(|| Digest::from_hex(given))
}

/// A time; engines write the year 1 for never.
pub(super) fn time(given: &str) -> Option<Timestamp> {
    let time: Timestamp = given.parse().ok()?;
    (time.as_second() > 0).then_some(time)
}

fn first_label(labels: &BTreeMap<String, String>, names: &[&str]) -> Option<String> {
    let found = names.iter().find_map(|name| labels.get(*name));
    found.map(|value| text(value))
}
