//! The sensor: one thread that reads what the kernel tells and makes batches of it.
//!
//! It looks at the buffers at once where something urgent came (a file that is not of the image
//! runs, a rare call): what runs for a millisecond and is replaced is read only by who is there
//! within it. What is not urgent waits for a while, so that many events are one round, and so does
//! everything once a second had many rounds. When the batches are not taken, it waits, and the
//! kernel counts what does not fit its buffers.
//!
//! Where BPF does not load, or is not asked for, the thread listens to the process connector instead,
//! with fanotify beside it where that opens.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use chassis::Cx;
use model::runtime::SensorMatrix;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{
    batch::{Batch, Told},
    bpf::{self, Bpf, Loaded},
    cgroup::{Found, Layout},
    config::{Config, Tier},
    metrics,
    pipeline::Pipeline,
    procconn::{self, Connector},
    raw,
    response::means,
    watch::Watched,
};

/// How long it sleeps where nothing urgent comes.
const IDLE: Duration = Duration::from_millis(25);
/// How long events gather before the next round, when there were many rounds already.
const GATHER: Duration = Duration::from_millis(5);
/// Rounds of a second that follow each other at once.
const PROMPT_MAX: u32 = 200;
/// How often drops are looked at.
const DROPS_EVERY: Duration = Duration::from_secs(1);

/// The sensor as others see it.
pub(crate) struct Sensor {
    /// What is seen and what can be enforced.
    pub(crate) matrix: SensorMatrix,
    /// Containers that the inventory found.
    pub(crate) learn: Sender<Found>,
}

/// Starts the sensor's thread. Where nothing can be loaded, only the matrix says so.
pub(crate) async fn start(
    cx: &Cx,
    config: &Config,
    layout: &Layout,
    batches: mpsc::Sender<Batch>,
    changed: Arc<Notify>,
) -> anyhow::Result<Sensor> {
    let (learn, found) = channel();
    if !config.sensor.enabled {
        let why = "it is switched off (`sensor.enabled`)".to_owned();
        let opened = Err([("exec".to_owned(), why)].into());
        let matrix = found_out(cx, config, layout, opened).await?;
        return Ok(Sensor { matrix, learn });
    }
    let (reply, answer) = oneshot::channel();
    let pipeline = Pipeline::new(&config.sensor, &config.hash)?;
    let (of_work, of_thread, cx_here) = (config.clone(), layout.clone(), cx.clone());
    cx.spawn("sensor", {
        let cx = cx.clone();
        async move {
            let work = move || {
                let (kernel, opened) = match open(&of_work, &of_thread) {
                    Ok(opened) => opened,
                    Err(why) => {
                        drop(reply.send(Err(why)));
                        return;
                    }
                };
                drop(reply.send(Ok(opened)));
                let work = Work {
                    pipeline,
                    batches,
                    changed,
                    found,
                };
                let ended = match kernel {
                    Kernel::Bpf(bpf) => work.run(*bpf, &cx_here, &of_thread),
                    Kernel::Connector(connector) => {
                        work.listen(*connector, &cx_here, &of_thread);
                        Ok(())
                    }
                };
                if let Err(error) = ended {
                    tracing::error!(%error, "the sensor ended: {error:#}");
                    cx_here.stop();
                }
            };
            if let Err(error) = cx.blocking(work).await {
                tracing::error!(%error, "the sensor ended: {error}");
                cx.stop();
            }
        }
    });
    let loaded = answer.await.context("the sensor's thread ended")?;
    Ok(Sensor {
        matrix: found_out(cx, config, layout, loaded).await?,
        learn,
    })
}

/// The matrix, where what is tried may take a while.
async fn found_out(
    cx: &Cx,
    config: &Config,
    layout: &Layout,
    opened: Result<Opened, Missing>,
) -> anyhow::Result<SensorMatrix> {
    let (config, layout) = (config.clone(), layout.clone());
    let found = cx.blocking(move || matrix(&config, &layout, opened)).await;
    found.context("finding out what can be enforced")
}

/// What this node can see and enforce: loads the sensor and lets it go.
pub fn probe(config: &Config) -> SensorMatrix {
    let layout = Layout::here();
    let opened = open(config, &layout).map(|(_, opened)| opened);
    matrix(config, &layout, opened)
}

/// What tells of processes.
enum Kernel {
    Bpf(Box<Bpf>),
    Connector(Box<Connector>),
}

/// What it is called, and what it sees.
type Opened = (&'static str, Loaded);

/// Why nothing tells, by what is missed.
type Missing = BTreeMap<String, String>;

/// The best that works here, or the one that is asked for.
fn open(config: &Config, layout: &Layout) -> Result<(Kernel, Opened), Missing> {
    let wanted = config.sensor.tier;
    let mut missing = Missing::new();
    if wanted != Some(Tier::ProcessConnector) {
        let watched = Watched::new(&config.sensor);
        match watched.and_then(|watched| Bpf::load(layout, &config.sensor, &watched)) {
            Ok((bpf, loaded)) => return Ok((Kernel::Bpf(Box::new(bpf)), ("bpf", loaded))),
            Err(error) => missing.insert("bpf".to_owned(), format!("{error:#}")),
        };
    }
    if wanted != Some(Tier::Bpf) {
        match Connector::open(layout) {
            Ok(mut connector) => {
                for sees in bpf::sees().filter(|sees| !procconn::SEES.contains(sees)) {
                    let why = "the process connector does not tell of it";
                    missing.insert(sees.to_owned(), why.to_owned());
                }
                let mut sees = procconn::SEES.to_vec();
                match connector.see_files() {
                    Ok(()) => sees.push(procconn::SEES_FILES),
                    Err(error) => {
                        missing.insert(procconn::SEES_FILES.to_owned(), format!("{error:#}"));
                    }
                }
                let loaded = Loaded {
                    sees: sees.into_iter().map(str::to_owned).collect(),
                    missing,
                };
                let opened = ("process-connector", loaded);
                return Ok((Kernel::Connector(Box::new(connector)), opened));
            }
            Err(error) => missing.insert("process-connector".to_owned(), format!("{error:#}")),
        };
    }
    let all: Vec<String> = missing
        .iter()
        .map(|(tier, why)| format!("{tier}: {why}"))
        .collect();
    missing.insert("exec".to_owned(), all.join("; "));
    Err(missing)
}

fn matrix(config: &Config, layout: &Layout, opened: Result<Opened, Missing>) -> SensorMatrix {
    let mut matrix = SensorMatrix {
        tier: "none".to_owned(),
        ..SensorMatrix::default()
    };
    match opened {
        Ok((tier, loaded)) => {
            tier.clone_into(&mut matrix.tier);
            matrix.sees = loaded.sees;
            matrix.missing = loaded.missing;
        }
        Err(missing) => matrix.missing = missing,
    }
    let means = means::find(&config.response, layout);
    matrix.enforces = means.enforces;
    matrix.missing.extend(means.missing);
    matrix
}

/// What the thread works with.
struct Work {
    pipeline: Pipeline,
    batches: mpsc::Sender<Batch>,
    changed: Arc<Notify>,
    found: Receiver<Found>,
}

/// What the buffers' callback works with.
struct Hands {
    pipeline: Pipeline,
    batch: Batch,
    unread: u64,
}

// === impl Work ===

impl Work {
    /// Listens to the process connector.
    fn listen(self, mut connector: Connector, cx: &Cx, layout: &Layout) {
        let mut hands = Hands {
            pipeline: self.pipeline,
            batch: Batch::default(),
            unread: 0,
        };
        for found in layout.scan() {
            connector.learn(&found);
            hands.pipeline.learn(&found);
        }
        while !cx.is_stopping() {
            let round = connector.round();
            while let Ok(found) = self.found.try_recv() {
                connector.learn(&found);
                hands.pipeline.learn(&found);
            }
            for (raw, opened) in round.events {
                if let Some(told) = hands.pipeline.take_opened(raw, opened) {
                    hands.batch.push(told);
                }
                if hands.batch.is_full() {
                    send(&self.batches, hands.batch.take());
                }
            }
            hands.count_drops(round.drops);
            if hands.batch.is_due() {
                send(&self.batches, hands.batch.take());
            }
            if hands.pipeline.take_changed() {
                self.changed.notify_one();
            }
        }
        if !hands.batch.is_empty() {
            send(&self.batches, hands.batch.take());
        }
    }

    fn run(self, mut bpf: Bpf, cx: &Cx, layout: &Layout) -> anyhow::Result<()> {
        let Self {
            pipeline,
            batches,
            changed,
            found,
        } = self;
        let hands = Rc::new(RefCell::new(Hands {
            pipeline,
            batch: Batch::default(),
            unread: 0,
        }));
        for found in layout.scan() {
            bpf.learn(&found)?;
            hands.borrow_mut().pipeline.learn(&found);
        }
        let take = |bytes: &[u8]| {
            let mut hands = hands.borrow_mut();
            hands.take(bytes);
            if hands.batch.is_full() {
                send(&batches, hands.batch.take());
            }
        };
        let buffers = bpf.buffers(&take)?;
        let (mut drops_at, mut prompt) = (Instant::now(), PROMPT_MAX);
        while !cx.is_stopping() {
            // A signal to this process is no error. What came without a wake-up is not among what is
            // waited for, so it is looked for.
            drop(buffers.poll(IDLE));
            drop(buffers.consume());
            while let Ok(found) = found.try_recv() {
                bpf.learn(&found)?;
                hands.borrow_mut().pipeline.learn(&found);
            }
            let mut hands = hands.borrow_mut();
            if drops_at.elapsed() >= DROPS_EVERY {
                (drops_at, prompt) = (Instant::now(), PROMPT_MAX);
                hands.count_drops(bpf.drops());
            }
            if hands.batch.is_due() {
                send(&batches, hands.batch.take());
            }
            if hands.pipeline.take_changed() {
                changed.notify_one();
            }
            drop(hands);
            match prompt.checked_sub(1) {
                Some(rest) => prompt = rest,
                None => thread::sleep(GATHER),
            }
        }
        drop(buffers.consume());
        let mut hands = hands.borrow_mut();
        hands.count_drops(bpf.drops());
        if !hands.batch.is_empty() {
            send(&batches, hands.batch.take());
        }
        Ok(())
    }
}

/// Hands a batch on, waiting where it is not taken: the kernel's buffers hold what comes meanwhile.
fn send(batches: &mpsc::Sender<Batch>, batch: Batch) {
    metrics::events(batch.events.len());
    // Nobody takes them any more when the process ends.
    drop(batches.blocking_send(batch));
}

// === impl Hands ===

impl Hands {
    fn take(&mut self, bytes: &[u8]) {
        let told: Option<Told> = if let Some(raw) = raw::decode(bytes) {
            self.pipeline.take(raw)
        } else {
            self.unread += 1;
            None
        };
        if let Some(told) = told {
            self.batch.push(told);
        }
    }

    fn count_drops(&mut self, drops: Vec<(u64, &'static str, u64)>) {
        let unread = std::mem::take(&mut self.unread);
        let unread = (unread > 0).then_some((0, "unknown", unread));
        for (cgroup, class, count) in drops.into_iter().chain(unread) {
            metrics::drops(class, count);
            let container = self.pipeline.container(cgroup);
            self.batch.push_drop(container, class, count);
        }
    }
}
