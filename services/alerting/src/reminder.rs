//! What is told because of the time, and not because of news: reminders, and alerts that came back
//! and stayed.
//!
//! The state says that an alert is being told before it is told, and that it was told afterwards;
//! who dies in between leaves the first behind, and whoever finds it tells again under the same id.
//! Any number of processes may look at the same time: the ids make one alert of it.

use std::time::Duration;

use bus::{Bus, BusError, PutError, Store, Stored};
use chassis::Cx;
use jiff::Timestamp;
use model::{
    AlertRecord, AlertState, Slug, Told,
    event::{ALERT_STATES, Alert},
};

use crate::{
    metrics,
    state::{Windows, due},
};

const PERIOD_MIN: Duration = Duration::from_secs(1);
const PERIOD_MAX: Duration = Duration::from_mins(1);

/// Looks at all alerts again and again, until `cx` stops.
pub(crate) fn start(cx: &Cx, bus: &Bus, windows: Windows) {
    let (here, bus) = (cx.clone(), bus.clone());
    let period = period(windows);
    cx.spawn("reminders", async move {
        let store = bus.store();
        while here.sleep(period).await {
            let publisher = bus.clone();
            let tell = move |tenant: Slug, alert: Alert| {
                let bus = publisher.clone();
                async move { bus.publish(&tenant, &alert).await }
            };
            match tell_what_is_due(&store, windows, here.now(), tell).await {
                Ok(0) => {}
                Ok(told) => tracing::debug!(told, "told {told} alerts that stand"),
                Err(error) => tracing::info!("alerts that stand are told later: {error:#}"),
            }
        }
    });
}

/// Often enough that a window ends not much later than it should.
fn period(windows: Windows) -> Duration {
    let shortest = [windows.repeat_after, windows.remind_after]
        .into_iter()
        .filter(|window| !window.is_zero())
        .min()
        .map(|window| window.unsigned_abs() / 4);
    shortest.unwrap_or(PERIOD_MAX).clamp(PERIOD_MIN, PERIOD_MAX)
}

/// Tells what is due at `now`; how many alerts that was.
pub(crate) async fn tell_what_is_due<F>(
    store: &Store,
    windows: Windows,
    now: Timestamp,
    tell: impl Fn(Slug, Alert) -> F,
) -> anyhow::Result<usize>
where
    F: Future<Output = Result<(), BusError>>,
{
    let mut told = 0;
    for (key, stored) in store.list::<AlertRecord>(ALERT_STATES, "").await? {
        let Some(tenant) = key.split_once('.').and_then(|(name, _)| name.parse().ok()) else {
            continue;
        };
        let Some((revision, record)) = begin(store, &key, stored, (windows, now)).await? else {
            continue;
        };
        let Some(alert) = record.alert.as_deref() else {
            continue;
        };
        tell(tenant, alert.clone()).await?;
        metrics::alert_told_again(record.reminders > 0);
        told += 1;
        let record = AlertRecord {
            told: Told::Yes,
            ..record
        };
        put(store, &key, &record, revision).await?;
    }
    Ok(told)
}

/// Says that an alert is being told. `None`: it is not due, or somebody else changed it.
async fn begin(
    store: &Store,
    key: &str,
    stored: Stored<AlertRecord>,
    (windows, now): (Windows, Timestamp),
) -> anyhow::Result<Option<(u64, AlertRecord)>> {
    let Stored { revision, body } = stored;
    if body.told == Told::Now && body.state == AlertState::Raised {
        return Ok(Some((revision, body)));
    }
    let Some(record) = due(&body, windows, now) else {
        return Ok(None);
    };
    let revision = put(store, key, &record, revision).await?;
    Ok(revision.map(|revision| (revision, record)))
}

/// `None`: somebody else wrote first, and knows better.
async fn put(
    store: &Store,
    key: &str,
    record: &AlertRecord,
    expected: u64,
) -> anyhow::Result<Option<u64>> {
    match store.put(ALERT_STATES, key, record, Some(expected)).await {
        Ok(revision) => Ok(Some(revision)),
        Err(PutError::Conflict) => Ok(None),
        Err(PutError::Store(error)) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
