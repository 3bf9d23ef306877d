//! Hands out what only this node has: images of its engines, and the host's own files.
//!
//! The fabric asks on this node's subject, one question after the other, and each answer has a bound
//! in bytes. Nothing is looked into here, and nothing is handed out beside images and the files that
//! this node's own configuration names.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus::Bus;
use chassis::Cx;
use model::{
    Slug,
    runtime::{
        HOST_REPOSITORY, HOST_RUNTIME, ImageAtRest, NODE_REGISTRY, NodeAnswer, NodeQuestion,
        node_repository,
    },
};
use oci::{Holdings, HoldingsConfig, HostFiles};
use tokio::time::Instant;

use crate::config::Config;

/// The tag of the host's own files, whatever they are now.
const HOST_TAG: &str = "current";

/// What this node hands out; the host's files are told of with the inventory whether or not anybody
/// may read them.
pub(crate) fn holdings(cx: &Cx, config: &Config) -> Arc<Holdings> {
    let limits = HoldingsConfig {
        image_bytes_max: config.blobs.image_bytes_max,
        host: HostFiles {
            root: config.host.root.clone(),
            paths: config.host.paths.clone(),
        },
    };
    Arc::new(Holdings::new(cx, config.engines.engines(), limits))
}

/// Answers what is asked on this node's subject until the process stops.
pub(crate) async fn answer(
    bus: Bus,
    subject: String,
    holdings: Arc<Holdings>,
    bytes_per_s_max: u64,
) {
    let pace = Arc::new(Pace::new(bytes_per_s_max));
    let answered = bus.answer(&subject, |question: NodeQuestion| {
        let (holdings, pace) = (Arc::clone(&holdings), Arc::clone(&pace));
        async move {
            tokio::time::sleep_until(pace.due()).await;
            let said = holdings.answer(question).await;
            if let NodeAnswer::Part { bytes, .. } = &said {
                pace.passed(bytes.len());
            }
            said
        }
    });
    if let Err(error) = answered.await {
        tracing::warn!(%error, "the fabric cannot read what this node holds: {error}");
    }
}

/// The host's own files, as one of the images that a node has.
pub(crate) async fn host(holdings: &Holdings, node: &Slug) -> Option<ImageAtRest> {
    let id = match holdings.host().await {
        Ok(id) => id?,
        Err(error) => {
            tracing::debug!(%error, "the host's files cannot be read: {error}");
            return None;
        }
    };
    let repository = node_repository(node, HOST_REPOSITORY);
    Some(ImageAtRest {
        runtime: HOST_RUNTIME.to_owned(),
        id,
        names: vec![format!("{NODE_REGISTRY}/{repository}:{HOST_TAG}")],
        repo_digests: Vec::new(),
        bytes: 0,
        created_at: None,
    })
}

/// Lets so many bytes pass in a second, on average over a few answers.
struct Pace {
    bytes_per_s_max: u64,
    due: Mutex<Instant>,
}

// === impl Pace ===

impl Pace {
    fn new(bytes_per_s_max: u64) -> Self {
        Self {
            bytes_per_s_max: bytes_per_s_max.max(1),
            due: Mutex::new(Instant::now()),
        }
    }

    /// When the next answer may go.
    fn due(&self) -> Instant {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passed(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let micros = bytes.saturating_mul(1_000_000) / self.bytes_per_s_max;
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = (*due).max(Instant::now()) + Duration::from_micros(micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_at_their_pace_and_silence_saves_nothing_up() {
        let pace = Pace::new(1_000);
        let began = Instant::now();
        assert!(pace.due() <= began);
        pace.passed(500);
        pace.passed(1_000);
        assert_eq!(pace.due() - began, Duration::from_millis(1_500));
        tokio::time::sleep(Duration::from_mins(1)).await;
        let later = Instant::now();
        pace.passed(250);
        assert_eq!(pace.due() - later, Duration::from_millis(250));
    }

    #[tokio::test]
    async fn the_host_is_told_of_under_a_name_that_is_this_nodes_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/os-release"), "ID=debian\n").unwrap();
        let mut config = Config::default();
        config.host.root = dir.path().to_owned();
        let node = "node-1".parse().unwrap();
        let cx = Cx::for_tests();
        let told = host(&holdings(&cx, &config), &node).await.unwrap();
        assert_eq!(told.names, ["node.invalid/node-1/host:current"]);
        config.host.paths.clear();
        assert_eq!(host(&holdings(&cx, &config), &node).await, None);
    }
}
