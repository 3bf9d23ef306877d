//! Work that one process of a fleet does once a day.

use std::time::Duration;

use chassis::Cx;
use futures::future::BoxFuture;

use crate::{Bus, error::StoreError, random};

/// From the lease to the first pass, and from a pass that failed to the next.
const SOON: Duration = Duration::from_mins(10);
/// From a pass to the next.
const DAILY: Duration = Duration::from_hours(24);
/// How often the lease is asked for after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Makes passes where no other process holds the lease, until `cx` stops.
pub(crate) fn run(
    bus: &Bus,
    cx: &Cx,
    lease: &'static str,
    pass: impl Fn(Bus) -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync + 'static,
) {
    let (bus, here) = (bus.clone(), cx.clone());
    cx.spawn(lease, async move {
        while !here.is_stopping() {
            match bus.lease_wait(&here, lease).await {
                Ok(Some(held)) => {
                    tokio::select! {
                        () = held.lost() => {}
                        () = daily(&bus, &here, lease, &pass) => {}
                    }
                    held.release().await;
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "waiting for the lease `{lease}`: {error}");
                }
            }
            here.sleep(random::jitter(RETRY)).await;
        }
    });
}

async fn daily(
    bus: &Bus,
    cx: &Cx,
    lease: &str,
    pass: &(impl Fn(Bus) -> BoxFuture<'static, Result<(), StoreError>> + Sync),
) {
    let mut pause = SOON;
    while cx.sleep(random::jitter(pause)).await {
        pause = match pass(bus.clone()).await {
            Ok(()) => DAILY,
            Err(error) => {
                tracing::warn!(%error, "`{lease}` ended early: {error}");
                SOON
            }
        };
    }
}
