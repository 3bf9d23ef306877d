//! Sending webhooks: at a rate, or as fast as they are taken.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};

use crate::{
    fleet::{Answered, Fleet},
    workload::{REPOSITORY, Stored},
};

/// Requests that are out at the same time.
const AT_ONCE: usize = 256;
/// The same, where they are sent without a rate.
const AT_ONCE_UNBOUNDED: usize = 32;

/// Sends a webhook for each image, in order. With a rate each is sent at its time, whatever became
/// of those before it; `round` makes them events of their own when they are sent again.
pub(crate) async fn send(
    fleet: &Fleet,
    images: &[Stored],
    per_second: Option<f64>,
    round: u64,
) -> Vec<Answered> {
    let began = Instant::now();
    let at_once = per_second.map_or(AT_ONCE_UNBOUNDED, |_| AT_ONCE);
    stream::iter(images.iter().enumerate())
        .map(|(number, image)| async move {
            if let Some(rate) = per_second {
                let due = began + due(number, rate);
                tokio::time::sleep_until(due.into()).await;
            }
            let id = format!("{}-{round}", image.tag);
            let digest = image.digest.to_string();
            fleet.hook(REPOSITORY, &image.tag, &digest, &id).await
        })
        .buffered(at_once)
        .collect()
        .await
}

#[expect(clippy::cast_precision_loss, reason = "a number of requests")]
fn due(number: usize, per_second: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / per_second.max(0.001))
}
