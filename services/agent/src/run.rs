//! Wires the parts together.

use std::{io::ErrorKind, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{Bus, Outbox, SpoolError, permissions::Holder};
use chassis::Cx;
use model::runtime::node_subject;
use tokio::sync::{Notify, mpsc};

use crate::{
    batch::{Batch, Told},
    blobs,
    cgroup::Layout,
    config::Config,
    inventory::Inventory,
    node::{self, Node},
    response,
    sender::{Sender, WAITING_MAX},
    sensor,
    sequence::Sequence,
};

/// How long an agent that was here before may take to let go of the spool, and how often that is
/// looked at. One that was killed holds it until the kernel has taken its sensor apart.
const LOCKED_MAX: Duration = Duration::from_secs(20);
const LOCKED_PAUSE: Duration = Duration::from_millis(100);

/// Starts everything; it works until `cx` stops.
pub async fn run(cx: &Cx, config: &Config) -> anyhow::Result<()> {
    config.check()?;
    let node = Node::here(config)?;
    let holder = Holder::Agent {
        tenant: config.tenant.clone(),
        node: node.name.clone(),
    };
    let bus = Bus::connect_later_for(cx, &config.bus, holder).await;
    let bus = bus.context("connecting to NATS")?;
    let dir = &config.data_dir;
    // The spool's lock guards the sequence, too: it is read when nobody else counts.
    let outbox = spool(cx, &bus, &dir.join("spool"), config.spool_bytes_max).await?;
    let sequence = Sequence::open(dir, &node.boot, cx.now());
    let sequence = sequence.with_context(|| format!("opening `{}`", dir.display()))?;
    let booted_at = node::booted_at(&*cx.clock());
    let (batches, batches_in) = mpsc::channel(WAITING_MAX);
    let (reports, reports_in) = mpsc::channel(1);
    let layout = Layout::here();
    response::start(cx, config, &node.name, &layout, (&bus, &outbox))?;
    let sender = Sender::new(outbox, &config.tenant, &node, booted_at, sequence);
    cx.spawn("sender", sender.run(cx.clone(), batches_in, reports_in));
    let changed = Arc::new(Notify::new());
    let sensor = sensor::start(cx, config, &layout, batches, Arc::clone(&changed)).await?;
    let matrix = &sensor.matrix;
    tracing::info!(
        "node `{}` of `{}`: tier `{}`, sees {:?}, enforces {:?}, missing {:?}",
        node.name,
        config.tenant,
        matrix.tier,
        matrix.sees,
        matrix.enforces,
        matrix.missing
    );
    let holdings = blobs::holdings(cx, config);
    if config.blobs.enabled {
        let subject = node_subject(&config.tenant, &node.name);
        let rate = config.blobs.bytes_per_s_max;
        let answers = blobs::answer(bus, subject, Arc::clone(&holdings), rate);
        cx.spawn("blobs", answers);
    }
    let inventory = Inventory {
        host_root: config.host.root.clone(),
        holdings,
        node,
        engines: config.engines.engines(),
        layout,
        booted_at,
        sensor,
        interval: Duration::from_secs(config.inventory_interval_s),
        changed,
        reports,
    };
    cx.spawn("inventory", inventory.run(cx.clone()));
    Ok(())
}

/// Opens the spool, waiting for a while for an agent that is about to let go of it.
async fn spool(cx: &Cx, bus: &Bus, dir: &Path, bytes_max: u64) -> anyhow::Result<Outbox> {
    let mut tries = LOCKED_MAX.as_millis() / LOCKED_PAUSE.as_millis();
    loop {
        match Outbox::open(cx, bus, dir, bytes_max) {
            Err(SpoolError::Io(error)) if error.kind() == ErrorKind::WouldBlock && tries > 0 => {
                tries -= 1;
                anyhow::ensure!(cx.sleep(LOCKED_PAUSE).await, "told to stop");
            }
            opened => return opened.context("opening the spool; is another agent running?"),
        }
    }
}

/// Hands over what containers do as it happens, until `cx` stops or nobody takes it.
pub async fn watch(
    cx: &Cx,
    config: &Config,
    mut out: impl FnMut(Told) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    config.check()?;
    let (batches, mut batches_in) = mpsc::channel(WAITING_MAX);
    let changed = Arc::new(Notify::new());
    let layout = Layout::here();
    let sensor = sensor::start(cx, config, &layout, batches, changed).await?;
    anyhow::ensure!(
        sensor.matrix.tier != "none",
        "nothing can be watched: {:?}",
        sensor.matrix.missing
    );
    while let Some(batch) = batches_in.recv().await {
        for told in told(batch) {
            out(told)?;
        }
    }
    Ok(())
}

fn told(batch: Batch) -> impl Iterator<Item = Told> {
    let Batch {
        containers,
        events,
        drops,
        ..
    } = batch;
    for drop in drops {
        tracing::warn!(
            "{} events of class `{}` were counted and not told",
            drop.count,
            drop.class
        );
    }
    events.into_iter().filter_map(move |event| {
        Some(Told {
            container: containers.get(usize::from(event.container))?.clone(),
            at_ns: event.at_ns,
            process: event.process,
            activity: event.activity,
        })
    })
}
