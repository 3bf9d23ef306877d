//! Waiting for a key to change.
//!
//! Order matters, it was measured: the subscription first, then the map of who waits, then the
//! look into the store, then the sleep; and a look again after a second and every five seconds,
//! for in a cluster a read may be stale and a wake-up may be lost. There is one subscription per
//! bucket that anybody ever waited for, made and flushed before the first look.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_nats::Subscriber;
use chassis::Cx;
use futures::StreamExt;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use crate::{Bus, error::StoreError, subject, wire::Wire};

/// The second look.
const FIRST_TICK: Duration = Duration::from_secs(1);
/// All later ones.
const TICK: Duration = Duration::from_secs(5);
/// After a wake-up without a result: the message may have overtaken its own storage.
const OVERTAKEN: Duration = Duration::from_millis(20);

/// Who waits for what, in this process.
pub(crate) struct Wakes {
    wire: Wire,
    cx: Cx,
    waiting: Arc<Mutex<Waiting>>,
    subscribed: tokio::sync::Mutex<HashSet<String>>,
}

/// By `<bucket>/<key prefix>`.
type Waiting = HashMap<String, Vec<Weak<Notify>>>;

/// A place in the map; dropping it leaves.
#[derive(Debug)]
pub(crate) struct Watch {
    notify: Arc<Notify>,
    prefixes: Vec<String>,
    waiting: Arc<Mutex<Waiting>>,
    looks: u32,
}

impl Bus {
    /// Waits until `check` finds something, and asks it whenever a key under one of the prefixes
    /// changes. A prefix is `<bucket>/<first tokens of keys>`, as `tw_refs/default.scan`. `None`:
    /// `until` came first.
    pub async fn wait<T>(
        &self,
        key_prefixes: &[String],
        until: Instant,
        check: impl AsyncFn() -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut watch = self.0.wakes.watch(key_prefixes).await;
        loop {
            let found = match check().await {
                Ok(Some(found)) => return Ok(Some(found)),
                // NATS is away for a moment: who waits, waits.
                Err(error @ StoreError::Unavailable { .. }) => Err(error),
                Err(error) => return Err(error),
                Ok(None) => Ok(None),
            };
            if Instant::now() >= until {
                return found;
            }
            watch.changed(until).await;
        }
    }
}

// === impl Wakes ===

impl Wakes {
    pub(crate) fn new(cx: &Cx, wire: Wire) -> Self {
        Self {
            wire,
            cx: cx.clone(),
            waiting: Arc::default(),
            subscribed: tokio::sync::Mutex::default(),
        }
    }

    /// Enters the map. From here on no change is missed, as far as one server can promise it.
    pub(crate) async fn watch(&self, prefixes: &[String]) -> Watch {
        let prefixes: Vec<String> = prefixes
            .iter()
            .map(|prefix| prefix.trim_end_matches('.').to_owned())
            .collect();
        for prefix in &prefixes {
            self.subscribe(prefix.split_once('/').map_or(prefix, |(bucket, _)| bucket))
                .await;
        }
        let notify = Arc::new(Notify::new());
        let mut waiting = lock(&self.waiting);
        for prefix in &prefixes {
            waiting
                .entry(prefix.clone())
                .or_default()
                .push(Arc::downgrade(&notify));
        }
        Watch {
            notify,
            prefixes,
            waiting: Arc::clone(&self.waiting),
            looks: 0,
        }
    }

    async fn subscribe(&self, bucket: &str) {
        let mut subscribed = self.subscribed.lock().await;
        if subscribed.contains(bucket) {
            return;
        }
        let subscription = self
            .wire
            .client
            .subscribe(subject::of_key(bucket, ">"))
            .await;
        // Without a connection the subscription is made with the next one; ticks cover the time.
        match subscription {
            Ok(messages) if self.wire.flush().await.is_ok() => {
                subscribed.insert(bucket.to_owned());
                let waiting = Arc::clone(&self.waiting);
                self.cx
                    .spawn("wake", wake(self.cx.clone(), messages, waiting));
            }
            _ => tracing::debug!("no wake-ups for `{bucket}` yet"),
        }
    }
}

impl fmt::Debug for Wakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakes").finish_non_exhaustive()
    }
}

// === impl Watch ===

impl Watch {
    /// Waits for a change, for the next tick, or for `until`.
    pub(crate) async fn changed(&mut self, until: Instant) {
        self.looks += 1;
        let tick = if self.looks == 1 { FIRST_TICK } else { TICK };
        let next = until.min(Instant::now() + tick);
        if timeout_at(next, self.notify.notified()).await.is_ok() {
            sleep(OVERTAKEN.min(until.saturating_duration_since(Instant::now()))).await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiting = lock(&self.waiting);
        for prefix in &self.prefixes {
            if let Some(all) = waiting.get_mut(prefix) {
                all.retain(|one| one.as_ptr() != Arc::as_ptr(&self.notify));
                if all.is_empty() {
                    waiting.remove(prefix);
                }
            }
        }
    }
}

async fn wake(cx: Cx, mut subscriber: Subscriber, waiting: Arc<Mutex<Waiting>>) {
    loop {
        let message = tokio::select! {
            () = cx.stopped() => return,
            message = subscriber.next() => message,
        };
        let Some(message) = message else { return };
        if let Some((bucket, key)) = subject::key_of(&message.subject) {
            notify(&lock(&waiting), bucket, key);
        }
    }
}

/// Wakes all who wait for the key or for a prefix of whole tokens of it.
fn notify(waiting: &Waiting, bucket: &str, key: &str) {
    if waiting.is_empty() {
        return;
    }
    let mut name = format!("{bucket}/{key}");
    loop {
        for one in waiting
            .get(&name)
            .into_iter()
            .flatten()
            .filter_map(Weak::upgrade)
        {
            one.notify_one();
        }
        match name.rfind(['.', '/']) {
            Some(end) => name.truncate(end),
            None => return,
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> std::sync::MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use model::event::REFS;

    use super::*;
    use crate::testing::{PATIENCE, World};

    #[test]
    fn a_change_wakes_who_waits_for_the_key_or_a_prefix_of_it() {
        let check = |prefix: &str| {
            let notify_of = Arc::new(Notify::new());
            let waiting = HashMap::from([(prefix.to_owned(), vec![Arc::downgrade(&notify_of)])]);
            notify(&waiting, "b", "one.two.three");
            futures::FutureExt::now_or_never(notify_of.notified()).is_some()
        };
        for prefix in ["b", "b/one", "b/one.two", "b/one.two.three"] {
            assert!(check(prefix), "{prefix}");
        }
        for prefix in ["c", "b/on", "b/one.t", "b/one.two.three.four", "b/two"] {
            assert!(!check(prefix), "{prefix}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_write_elsewhere_wakes_at_once() {
        let Some(world) = World::start().await else {
            return;
        };
        let (_cx, other) = world.other().await;
        let store = world.bus.store();
        for n in 0..50 {
            let key = format!("default.scan.{n}");
            let prefixes = [format!("{REFS}/{key}")];
            let until = Instant::now() + PATIENCE;
            let check = async || {
                let found = store.get::<u32>(REFS, &key).await?;
                Ok(found.map(|found| found.body))
            };
            let writer = other.store();
            let (found, written) = tokio::join!(world.bus.wait(&prefixes, until, check), async {
                sleep(Duration::from_millis(n % 10)).await;
                writer.put(REFS, &key, &7, Some(0)).await.unwrap();
                Instant::now()
            });
            assert_eq!(found.unwrap(), Some(7));
            assert!(
                written.elapsed() < Duration::from_millis(900),
                "{:?}",
                written.elapsed()
            );
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn waiting_ends_in_time() {
        let Some(world) = World::start().await else {
            return;
        };
        let until = Instant::now() + Duration::from_millis(300);
        let never = async || Ok::<Option<u32>, StoreError>(None);
        let found = world
            .bus
            .wait(&[format!("{REFS}/a")], until, never)
            .await
            .unwrap();
        assert_eq!(found, None);
        assert!(
            until.elapsed() < Duration::from_millis(500),
            "{:?}",
            until.elapsed()
        );
    }
}
