//! A container as a response finds it: its cgroup, and what its engine says of it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use chassis::Cx;
use jiff::{SignedDuration, Timestamp};
use model::{
    Digest,
    runtime::{ActionKind, Container, Refusal, Response},
};
use oci::{Engine, EngineCall, EngineVerb, Engines, OciError};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::group::Group;
use crate::cgroup::{self, Layout};

/// Engines write times with less or more digits.
const SAME_START: SignedDuration = SignedDuration::from_millis(1_000);
/// How long an engine may take to say what a container is: others wait to be paused.
const ASKED_MAX: Duration = Duration::from_secs(5);
/// Namespaces of what runs a cluster.
const SYSTEM_NAMESPACES: &[&str] = &["kube-system", "kube-public", "kube-node-lease"];

/// Who starts containers of pods again.
pub(crate) const KUBELET: &str = "kubelet";

/// A container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// The engine that knows it.
    pub(crate) engine: Option<(Engine, PathBuf)>,
    /// What that says of it, as Docker puts it.
    pub(crate) inspected: Value,
    /// Its cgroup, where it runs.
    pub(crate) group: Option<Group>,
    /// Whether it is gone for good: there are engines, and each says that it knows none such.
    pub(crate) is_gone: bool,
}

/// Looks for a container.
pub(crate) async fn find(cx: &Cx, engines: &Engines, layout: &Layout, id: &str) -> Found {
    let mut found = Found {
        group: Group::of(layout, id).filter(Group::is_populated),
        ..Found::default()
    };
    // The id stands in a path: what is no id is not asked for.
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return found;
    }
    let mut present = engines.present().peekable();
    found.is_gone = found.group.is_none() && present.peek().is_some();
    for (engine, socket) in present {
        let asked = timeout(ASKED_MAX, inspect(cx, engines, (*engine, socket), id));
        match asked.await {
            Ok(Ok(Some(inspected))) => {
                found.engine = Some((*engine, socket.clone()));
                found.inspected = inspected;
                found.is_gone = false;
                return found;
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                found.is_gone = false;
                tracing::debug!(%error, "`{engine}` cannot be asked: {error}");
            }
            Err(_) => {
                found.is_gone = false;
                tracing::debug!("`{engine}` does not answer");
            }
        }
    }
    found
}

async fn inspect(
    cx: &Cx,
    engines: &Engines,
    (engine, socket): (Engine, &Path),
    id: &str,
) -> Result<Option<Value>, OciError> {
    if matches!(engine, Engine::Docker | Engine::Podman) {
        let call = EngineCall {
            path: &["containers", id, "json"],
            query: &[],
            what: EngineVerb::Get,
        };
        return engines.call(cx, (engine, socket), call).await;
    }
    let container = engines.container(cx, (engine, socket), id).await?;
    Ok(container.as_ref().map(as_docker))
}

/// A container of another engine, with what is looked at here where Docker has it.
fn as_docker(container: &Container) -> Value {
    let security = &container.security;
    json!({
        "Id": container.id,
        "Name": container.name,
        "Image": container.image_id,
        "RepoDigests": container.repo_digests,
        "State": { "StartedAt": container.started_at, "Pid": container.pid },
        "Config": { "Image": container.image, "Labels": container.labels },
        "HostConfig": { "NetworkMode": security.host_network.then_some("host") },
        // All of it, for evidence.
        "Container": container,
    })
}

// === impl Found ===

impl Found {
    /// When it was started, as its engine says.
    pub(crate) fn started_at(&self) -> Option<Timestamp> {
        self.text("/State/StartedAt")?.parse().ok()
    }

    /// Its name, without the slash that Docker puts before it.
    pub(crate) fn name(&self) -> Option<&str> {
        Some(self.text("/Name")?.trim_start_matches('/')).filter(|name| !name.is_empty())
    }

    /// The digest that the engine knows its image by.
    pub(crate) fn image(&self) -> Option<Digest> {
        digest(self.text("/Image")?)
    }

    /// A label.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.inspected
            .pointer("/Config/Labels")?
            .get(name)?
            .as_str()
    }

    /// Who starts it again when it ends, as far as its engine tells.
    pub(crate) fn restarts(&self) -> Option<&'static str> {
        if self.label("io.kubernetes.pod.name").is_some() {
            return Some(KUBELET);
        }
        let (engine, _) = self.engine.as_ref()?;
        let policy = self.text("/HostConfig/RestartPolicy/Name");
        let is_told = matches!(policy, Some("always" | "unless-stopped" | "on-failure"));
        let is_watched = self.label("containerd.io/restart.status") == Some("running");
        (is_told || is_watched).then(|| engine.as_str())
    }

    pub(crate) fn text(&self, pointer: &str) -> Option<&str> {
        self.inspected.pointer(pointer)?.as_str()
    }

    /// Why a response is not for this container, if it is not. One that it is too late for is
    /// `NoContainer`.
    pub(crate) fn refuses(&self, response: &Response) -> Option<Refusal> {
        let own = Layout::here().path_of(std::process::id());
        let is_named = own.as_deref().and_then(cgroup::container_in) == Some(&response.container);
        // In a namespace of cgroups of its own, the agent's path does not name its container.
        let is_inside = self.group.as_ref().is_some_and(Group::is_own);
        if is_named || is_inside {
            let why = "the agent runs in it".to_owned();
            return Some(Refusal::Protected { why });
        }
        let namespace = self.label("io.kubernetes.pod.namespace");
        if namespace.is_some_and(|namespace| SYSTEM_NAMESPACES.contains(&namespace)) {
            let why = "it is part of the cluster itself".to_owned();
            return Some(Refusal::Protected { why });
        }
        // What ended is killed; of a stopped one evidence is left.
        let is_needed = !matches!(
            response.action.kind(),
            ActionKind::Kill | ActionKind::Observe | ActionKind::CollectEvidence
        );
        if self.group.is_none() && (is_needed || self.engine.is_none()) {
            let is_dead = response.action.kind() == ActionKind::Kill;
            return (!is_dead).then_some(Refusal::NoContainer);
        }
        let (wanted, is) = (response.container_started_at?, self.started_at()?);
        let apart = is.duration_since(wanted).abs();
        (apart > SAME_START).then_some(Refusal::Restarted { started_at: is })
    }
}

/// A digest as engines write them, with or without its algorithm.
pub(crate) fn digest(text: &str) -> Option<Digest> {
    Digest::from_hex(text.strip_prefix("sha256:").unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use model::runtime::{Action, Mode, ResponseId};
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn response(action: Action, started_at: Option<Timestamp>) -> Response {
        Response {
            id: ResponseId("1".to_owned()),
            incident: "i".to_owned(),
            action,
            container: "c".to_owned(),
            container_name: String::new(),
            container_started_at: started_at,
            mode: Mode::Enforced,
            issued_at: at(0),
            expires_at: at(10),
            approved_by: "a".to_owned(),
            reason: String::new(),
            released: None,
        }
    }

    fn found(labels: &Value) -> Found {
        Found {
            engine: Some((Engine::Podman, PathBuf::new())),
            inspected: json!({
                "State": { "StartedAt": at(100).to_string() },
                "Config": { "Labels": labels },
                "Name": "/web",
                "Image": format!("sha256:{}", Digest::of(b"x").hex()),
            }),
            group: Some(Group::for_tests("c")),
            is_gone: false,
        }
    }

    #[test]
    fn a_container_that_was_started_again_is_another_one() {
        let found = found(&json!({}));
        let refuses = |started| found.refuses(&response(Action::Pause, started));
        assert_eq!(refuses(None), None);
        assert_eq!(refuses(Some(at(100))), None);
        let restarted = Refusal::Restarted {
            started_at: at(100),
        };
        assert_eq!(refuses(Some(at(50))), Some(restarted));
        assert_eq!(found.name(), Some("web"));
        assert_eq!(found.image(), Some(Digest::of(b"x")));
    }

    #[test]
    fn what_ended_cannot_be_paused_and_is_killed() {
        let gone = Found::default();
        let refused = gone.refuses(&response(Action::Pause, None));
        assert_eq!(refused, Some(Refusal::NoContainer));
        assert_eq!(gone.refuses(&response(Action::Kill, None)), None);
    }

    #[test]
    fn what_runs_the_cluster_is_left_alone() {
        let found = found(&json!({ "io.kubernetes.pod.namespace": "kube-system" }));
        let refused = found.refuses(&response(Action::Kill, None));
        assert!(matches!(refused, Some(Refusal::Protected { .. })));
    }
}
