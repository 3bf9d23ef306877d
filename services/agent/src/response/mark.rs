//! The mark of a container in quarantine, where people and other programs look: a label of its pod, or
//! of containerd's record. Docker and podman change no label of a container that was made.

use oci::Engine;

use super::{
    container::Found,
    kubernetes::{PodName, QUARANTINE},
    replace::Tools,
};

/// The label of a container.
const LABEL: &str = "io.tidewaiter.quarantine";

/// Marks a container, or does not any more; says what came of it. An error where that is not known,
/// and to be tried again.
pub(crate) async fn set(
    tools: Tools<'_>,
    found: &Found,
    id: &str,
    is_marked: bool,
) -> anyhow::Result<String> {
    let done = if is_marked {
        "carries"
    } else {
        "no longer carries"
    };
    if let (Some(cluster), Some(name)) = (tools.cluster, PodName::of(found, id)) {
        let pod = cluster.pod(name).await?;
        cluster.mark(&pod, is_marked).await?;
        return Ok(format!(
            "pod `{}` {done} the label `{QUARANTINE}`",
            pod.name()
        ));
    }
    match &found.engine {
        Some((Engine::Containerd, socket)) => {
            let value = is_marked.then_some("true");
            let label = (LABEL, value);
            let known = tools.engines.label(tools.cx, socket, id, label).await?;
            anyhow::ensure!(known, "containerd does not know it any more");
            Ok(format!("it {done} the label `{LABEL}`"))
        }
        // There never was one.
        _ if !is_marked => Ok(String::new()),
        Some((engine, _)) => Ok(format!(
            "{engine} labels nothing that was made: only the incident's response says so"
        )),
        None => Ok("no engine knows it: only the incident's response says so".to_owned()),
    }
}
