//! Recorded messages through the handler, without NATS and without scanners.

use std::{
    path::Path,
    sync::{Arc, Mutex as StdMutex, PoisonError},
};

use bus::{Delivery, Handler as _, Input as _, Outcome, Store, encode};
use bytes::Bytes;
use chassis::FixedClock;
use futures::future::BoxFuture;
use jiff::Timestamp;
use model::{
    Digest, EntryKind, Slug,
    event::{EVIDENCE_OBJECTS, Event, INCIDENTS},
    runtime::{
        ContainerDetected, Detection, Incident, IncidentChanged, LayerFile, LayerFiles,
        NodeReported, RuntimeBatch, Shard,
    },
};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::{
    Config,
    facts::{Facts, ImageFiles, StoredFacts},
    handler::{RuntimeHandler, Told},
    shard::Watch,
};

/// A line of a recorded trace.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    Report(Box<NodeReported>),
    Batch(RuntimeBatch),
}

/// One image, known or not.
#[derive(Default)]
pub(crate) struct OneImage(StdMutex<Option<Arc<ImageFiles>>>);

/// A shard without a broker.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) facts: Arc<OneImage>,
    pub(crate) handler: RuntimeHandler<OneImage>,
    pub(crate) config: Arc<Config>,
}

/// What was told.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) detected: Vec<ContainerDetected>,
    pub(crate) changed: Vec<IncidentChanged>,
}

// === impl OneImage ===

impl OneImage {
    pub(crate) fn set(&self, files: Option<ImageFiles>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = files.map(Arc::new);
    }
}

impl Facts for OneImage {
    fn image<'a>(
        &'a self,
        _tenant: &'a Slug,
        _id: &'a Digest,
        _machine: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<Option<Arc<ImageFiles>>>> {
        let known = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Box::pin(std::future::ready(Ok(known)))
    }
}

/// The image of the recorded traces: a digest of one hex digit, repeated.
pub(crate) fn recorded_image() -> ImageFiles {
    let files = [
        ("usr/local/bin/docker-entrypoint.sh", 0x11),
        ("usr/local/bin/redis-server", 0x22),
    ];
    let entries = files.map(|(path, byte)| LayerFile {
        path: path.to_owned(),
        digest: Some(Digest::from_bytes([byte; 32])),
        kind: EntryKind::File,
        link: None,
    });
    let layer = LayerFiles {
        entries: entries.into(),
        partial: false,
    };
    ImageFiles::of(Digest::of(b"image"), &[Some(Arc::new(layer))])
}

/// A recorded trace, from `testdata`.
pub(crate) fn recorded(file: &str) -> Vec<Line> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(file);
    let text = chassis::files::read_text_bounded(&path, 1 << 20)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let line = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{file}: {error}: {line}"))
    };
    text.lines().map(line).collect()
}

// === impl World ===

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let store = Store::memory();
        let clock = Arc::new(FixedClock::new("2026-01-02T03:10:00Z".parse().unwrap()));
        let facts = Arc::new(OneImage::default());
        facts.set(Some(recorded_image()));
        let config = Arc::new(config);
        let handler = Self::shard(&store, &clock, &facts, &config);
        Self {
            store,
            clock,
            facts,
            handler,
            config,
        }
    }

    fn shard(
        store: &Store,
        clock: &Arc<FixedClock>,
        facts: &Arc<OneImage>,
        config: &Arc<Config>,
    ) -> RuntimeHandler<OneImage> {
        let watch = Watch {
            number: Shard::of(&"node-1".parse().unwrap()),
            store: store.clone(),
            clock: clock.clone(),
            config: Arc::clone(config),
            facts: Arc::clone(facts),
            scans: Arc::new(StoredFacts::new(store.clone(), 1 << 20)),
            state: Mutex::default(),
        };
        RuntimeHandler {
            watch: Arc::new(watch),
        }
    }

    /// The process died: all that was remembered is gone, and all that was stored is there.
    pub(crate) fn die(&mut self) {
        self.handler = Self::shard(&self.store, &self.clock, &self.facts, &self.config);
    }

    /// Takes a line as the bus would; gives what is told.
    pub(crate) async fn take(&self, line: &Line, attempt: u64) -> Heard {
        let outcome = match line {
            Line::Report(report) => self.deliver(&**report, attempt).await,
            Line::Batch(batch) => self.deliver(batch, attempt).await,
        };
        self.store.apply(&outcome).await.unwrap();
        Heard::of(&outcome)
    }

    /// Takes all lines of a trace, each once.
    pub(crate) async fn play(&self, lines: &[Line]) -> Heard {
        let mut all = Heard::default();
        for line in lines {
            let heard = self.take(line, 1).await;
            all.detected.extend(heard.detected);
            all.changed.extend(heard.changed);
        }
        all
    }

    async fn deliver<E: Event>(&self, event: &E, attempt: u64) -> Outcome {
        let tenant = Slug::default_tenant();
        let bytes: Bytes = encode(event).unwrap();
        let told = Told::decode(E::TYPE, &bytes).unwrap().unwrap();
        let delivery = Delivery {
            id: event.message_id(&tenant),
            subject: event.subject(&tenant),
            tenant,
            body: told,
            sequence: 1,
            key: None,
            attempt,
            alone: false,
            retried: false,
        };
        self.handler.handle(delivery).await.unwrap()
    }

    /// What is looked after now and then; gives what is told.
    pub(crate) async fn tick(&self) -> Heard {
        let effects = self.handler.watch.tick().await.unwrap();
        self.handler.watch.note(&effects.changes).await;
        let mut outcome = effects.outcome;
        for change in effects.changes {
            outcome = change.into_outcome(outcome).unwrap();
        }
        self.store.apply(&outcome).await.unwrap();
        Heard::of(&outcome)
    }

    /// Every incident with its timeline, by id.
    pub(crate) async fn incidents(&self) -> Vec<(Incident, Vec<Detection>)> {
        let stored = self.store.list::<Incident>(INCIDENTS, "").await.unwrap();
        let mut found = Vec::new();
        for (_, incident) in stored {
            let digest = incident.body.timeline.unwrap();
            let timeline = self.store.object(EVIDENCE_OBJECTS, &digest).await.unwrap();
            found.push((incident.body, timeline.unwrap()));
        }
        found
    }
}

impl Heard {
    fn of(outcome: &Outcome) -> Self {
        let detected = outcome.events::<ContainerDetected>().into_iter();
        let changed = outcome.events::<IncidentChanged>().into_iter();
        Self {
            detected: detected.map(|(_, news)| news).collect(),
            changed: changed.map(|(_, news)| news).collect(),
        }
    }

    /// The rules that fired, each once, in order.
    pub(crate) fn rules(&self) -> Vec<&str> {
        let rules = self
            .detected
            .iter()
            .map(|news| news.detection.rule.as_str());
        let mut rules: Vec<_> = rules.collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }
}

/// A time of the traces.
pub(crate) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}
