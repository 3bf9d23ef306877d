//! Pods, as the API server of a cluster knows them: labels written and taken away, nothing else.
//!
//! Whoever makes pods counts those that carry the labels it selects. A pod without labels is
//! nobody's: its owner makes another one, no service leads to it any more, and it stays on its node
//! with everything that is evidence. So that is how a container of a pod is replaced.
//!
//! A container says by its labels which pod it is of, and labels can say anything. So the pod is
//! asked whether it has this container before anything is changed. What is changed is changed from
//! the version that was looked at and no other.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context as _, bail, ensure};
use chassis::files::read_text_bounded;
use reqwest::{Certificate, Client, Method, StatusCode, Url, redirect};
use serde_json::{Map, Value, json};

use super::container::Found;
use crate::config::KubernetesConfig;

/// The label of a pod that something is done to.
pub(crate) const QUARANTINE: &str = "tidewaiter.io/quarantine";
/// The annotation with the labels that a pod had, as JSON.
const LABELS: &str = "tidewaiter.io/labels";
/// Who makes another pod where one is not its own any more. A `StatefulSet` does not: a pod's name
/// is what it is known by there, and the old one keeps that.
const OWNERS: &[&str] = &["ReplicaSet", "ReplicationController", "DaemonSet", "Job"];

const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 4 << 20;
const TOKEN_BYTES_MAX: u64 = 64 << 10;
const CA_BYTES_MAX: u64 = 1 << 20;
/// Characters of a refusal that are told.
const REFUSAL_MAX: usize = 300;
/// Characters of a name (RFC 1123).
const NAME_MAX: usize = 253;

/// The API server of the cluster that this node is of.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    root: Url,
    config: KubernetesConfig,
}

/// A pod, by what a container says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodName {
    namespace: String,
    name: String,
    container: String,
}

/// A pod that the API server says has the container.
#[derive(Debug)]
pub(crate) struct Pod {
    name: PodName,
    value: Value,
}

// === impl Cluster ===

impl Cluster {
    /// The one of the configuration; `None` where that names none.
    pub(crate) fn of(config: &KubernetesConfig) -> anyhow::Result<Option<Self>> {
        if config.host.is_empty() {
            return Ok(None);
        }
        let is_v6 = config.host.contains(':') && !config.host.starts_with('[');
        let host = if is_v6 {
            format!("[{}]", config.host)
        } else {
            config.host.clone()
        };
        let root = Url::parse(&format!("https://{host}:{}/", config.port));
        Ok(Some(Self {
            root: root.with_context(|| format!("`{}` is no host", config.host))?,
            config: config.clone(),
        }))
    }

    /// A container's pod; an error where it has no such container.
    pub(crate) async fn pod(&self, name: PodName) -> anyhow::Result<Pod> {
        let answer = self.ask(Method::GET, &name, None).await?;
        let value = answer.with_context(|| format!("there is no pod `{name}`"))?;
        let pod = Pod { name, value };
        ensure!(
            pod.has_container(),
            "pod `{}` does not have container `{}`",
            pod.name,
            pod.name.container
        );
        Ok(pod)
    }

    /// Takes all labels of a pod away, so that its owner makes another one; says which owner.
    pub(crate) async fn let_go(&self, pod: &Pod) -> anyhow::Result<String> {
        let owner = match pod.owner() {
            Ok(owner) => owner,
            Err(why) => bail!("{why}"),
        };
        if pod.is_let_go() {
            return Ok(owner);
        }
        let labels = pod.labels();
        let kept = serde_json::to_string(&labels)?;
        let mut changed: Map<String, Value> = labels.into_keys().map(gone).collect();
        changed.insert(QUARANTINE.to_owned(), json!("true"));
        self.change(pod, changed, json!({ LABELS: kept })).await?;
        Ok(owner)
    }

    /// Marks a pod, or does not any more. One that is nobody's stays marked.
    pub(crate) async fn mark(&self, pod: &Pod, is_marked: bool) -> anyhow::Result<()> {
        if pod.labels().contains_key(QUARANTINE) == is_marked || pod.is_let_go() {
            return Ok(());
        }
        let value = if is_marked {
            json!("true")
        } else {
            Value::Null
        };
        let changed = [(QUARANTINE.to_owned(), value)].into_iter().collect();
        self.change(pod, changed, json!({})).await
    }

    async fn change(
        &self,
        pod: &Pod,
        labels: Map<String, Value>,
        annotations: Value,
    ) -> anyhow::Result<()> {
        let metadata = &pod.value["metadata"];
        let patch = json!({ "metadata": {
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "labels": labels,
            "annotations": annotations,
        } });
        let answer = self.ask(Method::PATCH, &pod.name, Some(patch)).await?;
        answer.with_context(|| format!("there is no pod `{}` any more", pod.name))?;
        Ok(())
    }

    /// Asks about a pod; `None` where there is none.
    async fn ask(
        &self,
        method: Method,
        pod: &PodName,
        patch: Option<Value>,
    ) -> anyhow::Result<Option<Value>> {
        // Both files are written anew while the agent runs.
        let token = read(&self.config.token_file, TOKEN_BYTES_MAX)?;
        let authority = read(&self.config.ca_file, CA_BYTES_MAX)?;
        let client = Client::builder()
            .tls_certs_only(Certificate::from_pem_bundle(authority.as_bytes())?)
            .no_proxy()
            .https_only(true)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("tidewaiter-agent/", env!("CARGO_PKG_VERSION")))
            .timeout(PATIENCE)
            .build()
            .context("making a client of the API server")?;
        let mut url = self.root.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            let (namespace, name) = (&*pod.namespace, &*pod.name);
            path.clear()
                .extend(["api", "v1", "namespaces", namespace, "pods", name]);
        }
        let is_change = method == Method::PATCH;
        let mut request = client.request(method, url).bearer_auth(token.trim());
        if let Some(patch) = patch {
            request = request
                .header("content-type", "application/merge-patch+json")
                .body(patch.to_string());
        }
        let mut response = request.send().await.context("asking the API server")?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(part) = response.chunk().await.context("the API server's answer")? {
            bytes.extend_from_slice(&part);
            ensure!(
                bytes.len() <= ANSWER_BYTES_MAX,
                "the API server's answer has more than {ANSWER_BYTES_MAX} bytes"
            );
        }
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let what = if is_change { "change" } else { "read" };
        match status {
            StatusCode::OK => Ok(Some(answer)),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::FORBIDDEN => bail!(
                "the agent may not {what} pod `{pod}`: {} (deploy/kubernetes/agent-replace.yaml \
                 gives it that right)",
                said(&answer)
            ),
            status => bail!(
                "the API server answers {status} to who would {what} pod `{pod}`: {}",
                said(&answer)
            ),
        }
    }
}

fn read(file: &Path, bytes_max: u64) -> anyhow::Result<String> {
    read_text_bounded(file, bytes_max).with_context(|| format!("reading `{}`", file.display()))
}

fn said(answer: &Value) -> String {
    let text = answer["message"].as_str().unwrap_or("no reason given");
    let shown = text.chars().take(REFUSAL_MAX);
    shown
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// A label that is taken away.
fn gone(name: String) -> (String, Value) {
    (name, Value::Null)
}

// === impl PodName ===

impl PodName {
    /// As a container's labels name it; `None` for one of no pod.
    pub(crate) fn of(found: &Found, container: &str) -> Option<Self> {
        let name = |label: &str| found.label(label).filter(|name| is_name(name));
        Some(Self {
            namespace: name("io.kubernetes.pod.namespace")?.to_owned(),
            name: name("io.kubernetes.pod.name")?.to_owned(),
            container: container.to_owned(),
        })
    }
}

impl std::fmt::Display for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether something can be a name in a cluster, and so a part of a path.
fn is_name(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= NAME_MAX
        && name.chars().all(is_inner)
        && name.starts_with(is_end)
        && name.ends_with(is_end)
}

// === impl Pod ===

impl Pod {
    pub(crate) const fn name(&self) -> &PodName {
        &self.name
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.value["metadata"]["labels"].as_object();
        labels
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect()
    }

    /// Whether its labels were taken away. The note alone may be one that its owner gives all pods.
    fn is_let_go(&self) -> bool {
        let is_noted = self.value["metadata"]["annotations"][LABELS].is_string();
        is_noted && self.labels().keys().all(|name| name == QUARANTINE)
    }

    /// Whether kubelet says that the container is one of its own.
    fn has_container(&self) -> bool {
        let status = &self.value["status"];
        let lists = [
            "containerStatuses",
            "initContainerStatuses",
            "ephemeralContainerStatuses",
        ];
        let all = lists.iter().filter_map(|list| status[list].as_array());
        all.flatten().any(|one| {
            let id = one["containerID"].as_str().unwrap_or_default();
            id.split_once("://").map(|(_, id)| id) == Some(&*self.name.container)
        })
    }

    fn containers(&self) -> impl Iterator<Item = &Value> {
        self.value["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
    }

    /// Who makes another one when it is let go; otherwise why nobody does.
    pub(crate) fn owner(&self) -> Result<String, String> {
        let owners = self.value["metadata"]["ownerReferences"].as_array();
        let mut owners = owners.into_iter().flatten();
        let Some(owner) = owners.find(|owner| owner["controller"] == true) else {
            // Its owner has let go of it already.
            return if self.is_let_go() {
                Ok("its owner".to_owned())
            } else {
                Err("nobody owns its pod, so nobody would make another one".to_owned())
            };
        };
        let text = |name: &str| owner[name].as_str().unwrap_or_default();
        let (kind, name) = (text("kind"), text("name"));
        if !OWNERS.contains(&kind) {
            return Err(format!(
                "its pod is of {kind} `{name}`, which makes no other one"
            ));
        }
        // The new one has to be on this node, too.
        if kind == "DaemonSet" && self.keeps_ports() {
            return Err("its pod keeps ports of the node, which the next one needs".to_owned());
        }
        Ok(format!("{kind} `{name}`"))
    }

    fn keeps_ports(&self) -> bool {
        let of_host = |container: &Value| {
            let ports = container["ports"].as_array();
            let mut ports = ports.into_iter().flatten();
            ports.any(|port| port["hostPort"].as_u64().is_some_and(|port| port > 0))
        };
        self.value["spec"]["hostNetwork"] == true || self.containers().any(of_host)
    }

    /// What else becomes of a pod that is let go, for people.
    pub(crate) fn remarks(&self) -> String {
        let mut remarks = String::new();
        let others = self.containers().count().saturating_sub(1);
        if others > 0 {
            let more = format!(
                "; {others} other containers of the pod run on, without its network policies"
            );
            remarks.push_str(&more);
        }
        if self
            .containers()
            .any(|one| one["livenessProbe"].is_object())
        {
            remarks.push_str("; a liveness probe has kubelet start what stands still again");
        }
        remarks
    }
}

#[cfg(test)]
mod tests;
