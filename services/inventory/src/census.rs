//! Counts nodes, containers and incidents now and then, for who watches the installation.

use std::{sync::Arc, time::Duration};

use cache::CacheError;
use chassis::Cx;
use jiff::{SignedDuration, Timestamp};
use tracing::warn;

use crate::{
    metrics::{self, Running},
    view::View,
};

/// Counting reads a row per node and one per incident.
const PAUSE: Duration = Duration::from_secs(30);
/// A node reports every minute; one of which nothing is heard for so long is silent.
const SILENT_AFTER: SignedDuration = SignedDuration::from_mins(3);

/// Counts until the process stops.
pub(crate) fn start(cx: &Cx, view: &Arc<View>) {
    let (task, view) = (cx.clone(), Arc::clone(view));
    cx.spawn("inventory.census", async move {
        loop {
            let (counted, now) = (Arc::clone(&view), task.now());
            let running = task.blocking(move || count(&counted, now)).await;
            match running.map_err(anyhow::Error::from).and_then(|at| Ok(at?)) {
                Ok(running) => metrics::running(&running),
                Err(error) => warn!("nodes and incidents are not counted: {error:#}"),
            }
            if !task.sleep(PAUSE).await {
                return;
            }
        }
    });
}

/// Whether nothing was heard of a node for too long.
pub(crate) fn is_silent(received_at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(received_at) > SILENT_AFTER
}

/// Containers of a silent node are not counted: nobody knows what became of them.
pub(crate) fn count(view: &View, now: Timestamp) -> Result<Running, CacheError> {
    let mut counts = Running {
        open_incidents: view.open_incidents()?,
        ..Running::default()
    };
    for (received_at, containers, running) in view.all_nodes()? {
        if is_silent(received_at, now) {
            counts.silent += 1;
            continue;
        }
        counts.reporting += 1;
        counts.containers_running += u64::from(running);
        counts.containers_other += u64::from(containers.saturating_sub(running));
    }
    Ok(counts)
}
