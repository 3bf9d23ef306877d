//! The outbox: a spool of events that drains into the streams, for those who must answer while
//! NATS is down.
//!
//! An event is accepted when it is on disk. A task publishes in order, some ahead of the
//! acknowledgment of the first; after a failure it goes on from the first that is not stored, and
//! those behind it that are stored already have the same ids.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use chassis::Cx;
use futures::{StreamExt, stream};
use model::{Slug, event::Event};
use serde::{Deserialize, Serialize};
use tracing::Instrument;

use crate::{
    Bus, Spool, SpoolError,
    envelope::{Headers, decode, encode},
    handler::Emit,
    metrics::metrics,
    publish, random,
    spool::{Item, Reader},
    wire::WireError,
};

/// How many publishes are under way at once.
const WINDOW: usize = 64;
const WINDOW_BYTES: usize = 8 * 1024 * 1024;
const PAUSE: Duration = Duration::from_millis(500);
/// Notes: that nothing is accepted, and that nothing is published.
const NOT_ACCEPTED: &str = "spool";
const NOT_PUBLISHED: &str = "events in the spool";

/// Accepts events at once and publishes them in order as soon as it can; cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    spool: Spool,
    cx: Cx,
    is_refusing: Arc<AtomicBool>,
}

/// An event as it waits.
#[derive(Serialize, Deserialize)]
struct Queued {
    subject: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

// === impl Outbox ===

impl Outbox {
    /// Opens an outbox in a directory of its own and starts to drain it. It holds at most
    /// `bytes_max` bytes on disk.
    pub fn open(cx: &Cx, bus: &Bus, dir: &Path, bytes_max: u64) -> Result<Self, SpoolError> {
        let spool = Spool::open(dir, bytes_max)?;
        // A process has one; of a second, only the metrics tell.
        bus.0.spool.get_or_init(|| spool.clone());
        let (reader, of_task) = (spool.reader(), spool.clone());
        let (bus, cx_here) = (bus.clone(), cx.clone());
        cx.spawn("outbox", async move {
            drain(&cx_here, &bus, &of_task, reader).await;
        });
        Ok(Self {
            spool,
            cx: cx.clone(),
            is_refusing: Arc::default(),
        })
    }

    /// Accepts an event; returns when it is on disk. Works while NATS is down.
    pub async fn enqueue<E: Event>(&self, tenant: &Slug, event: &E) -> Result<(), SpoolError> {
        let emit = Emit::new(tenant, event).map_err(|error| SpoolError::Item(error.to_string()))?;
        let span = publish::span(&emit);
        let item = span.in_scope(|| {
            let headers = emit.headers(self.cx.now());
            encode(&Queued {
                subject: emit.subject.clone(),
                headers: headers
                    .iter()
                    .map(|(n, v)| (n.to_owned(), v.to_owned()))
                    .collect(),
                body: emit.body.clone(),
            })
        });
        let item = item.map_err(|error| SpoolError::Item(error.to_string()))?;
        let kept = self.spool.append(item).instrument(span).await;
        self.note(kept.as_ref().err());
        kept.map(|_| ())
    }

    /// Says that nothing is accepted, until something is.
    fn note(&self, refused: Option<&SpoolError>) {
        let why = match refused {
            Some(SpoolError::Item(_)) => return,
            Some(SpoolError::Full { .. }) => "full",
            Some(SpoolError::Io(_)) => "disk",
            None => {
                if self.is_refusing.swap(false, Ordering::Relaxed) {
                    self.cx.notes().set(NOT_ACCEPTED, None);
                }
                return;
            }
        };
        metrics().spool_refused(why);
        let text = refused.map(|error| format!("senders are told to come again: {error}"));
        if let Some(text) = &text
            && !self.is_refusing.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("no events are accepted; {text}");
        }
        self.cx.notes().set(NOT_ACCEPTED, text);
    }

    /// Events accepted and not yet published.
    pub fn pending(&self) -> u64 {
        self.spool.pending()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.spool.bytes()
    }
}

async fn drain(cx: &Cx, bus: &Bus, spool: &Spool, reader: Reader) {
    let mut durable = spool.durable();
    let mut reader = reader;
    while !cx.is_stopping() {
        durable.mark_unchanged();
        let read = cx.blocking(move || {
            let items = reader.read(WINDOW, WINDOW_BYTES);
            (reader, items)
        });
        let Ok((back, items)) = read.await else {
            return;
        };
        reader = back;
        let items = match items {
            Ok(items) => items,
            Err(error) => {
                tracing::error!(%error, "spool: cannot read: {error}");
                cx.sleep(PAUSE * 10).await;
                continue;
            }
        };
        if items.is_empty() {
            tokio::select! {
                () = cx.stopped() => return,
                changed = durable.changed() => if changed.is_err() { return },
            }
            continue;
        }
        publish_all(cx, bus, spool, &items).await;
    }
}

/// Publishes items in order until all are stored.
async fn publish_all(cx: &Cx, bus: &Bus, spool: &Spool, items: &[Item]) {
    let mut rest = items;
    while !rest.is_empty() && !cx.is_stopping() {
        // Those that wait for a connection by themselves would be woken in any order.
        if !bus.0.wire.up(PAUSE).await {
            continue;
        }
        let (done, waits) = publish_window(bus, spool, rest).await;
        let note = waits.map(|error| {
            let pending = spool.pending();
            format!("{pending} wait, and more are accepted meanwhile: {error}")
        });
        cx.notes().set(NOT_PUBLISHED, note);
        if let Some(last) = done.checked_sub(1).and_then(|last| rest.get(last)) {
            spool.commit(last.sequence).await;
        }
        rest = rest.get(done..).unwrap_or_default();
        if !rest.is_empty() {
            cx.sleep(random::jitter(PAUSE)).await;
        }
    }
}

/// How many items from the first on are stored or set aside, and why no more.
async fn publish_window(bus: &Bus, spool: &Spool, items: &[Item]) -> (usize, Option<WireError>) {
    let mut answers = stream::iter(items.to_vec())
        .map(|item| publish_item(bus, item))
        .buffered(WINDOW);
    let mut done = 0;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(()) => {}
            Err(error) if is_hopeless(&error) => {
                if let Some(item) = items.get(done) {
                    keep_refused(spool, item, &error);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the outbox waits: {error}");
                return (done, Some(error));
            }
        }
        done += 1;
    }
    (done, None)
}

async fn publish_item(bus: &Bus, item: Item) -> Result<(), WireError> {
    let Queued {
        subject,
        headers,
        body,
    } = decode(&item.body).map_err(|error| WireError::Refused {
        code: 0,
        text: error.to_string(),
    })?;
    let mut headers: Headers = headers.into_iter().collect();
    let checked = bus.check_in(&mut headers, body).await;
    let body = checked.map_err(|error| {
        if error.is_permanent() {
            WireError::Refused {
                code: 0,
                text: error.to_string(),
            }
        } else {
            WireError::Other(error.to_string())
        }
    })?;
    let stored = publish::send(bus, &subject, &headers, body).await;
    if matches!(stored, Err(WireError::Full(_))) {
        bus.0.fullness.note(&subject);
    }
    stored.map(|_| ())
}

const fn is_hopeless(error: &WireError) -> bool {
    matches!(error, WireError::Refused { .. }) && !error.is_transient()
}

/// An item that the server will never take must not stop those behind it, and must not vanish.
fn keep_refused(spool: &Spool, item: &Item, error: &WireError) {
    let path = spool.dir().join(format!("{:020}.refused", item.sequence));
    let kept = std::fs::write(&path, &item.body);
    let path = path.display();
    match kept {
        Ok(()) => tracing::error!(%error, "an event was refused and is kept in `{path}`: {error}"),
        Err(lost) => tracing::error!(%error, "an event was refused and lost: {error}; {lost}"),
    }
}
