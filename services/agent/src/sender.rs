//! Numbers messages and puts them into the spool, which publishes them in order.
//!
//! A message is on disk before the next one is taken. When the spool is full (NATS has been away for
//! long), what is lost is counted and told with the first batch that is accepted again.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bus::{Outbox, SpoolError};
use chassis::Cx;
use jiff::Timestamp;
use model::{
    Slug,
    runtime::{Activity, NodeReported, RuntimeBatch, RuntimeEvent},
};
use tokio::sync::mpsc;

use crate::{batch::Batch, metrics, node::Node, sequence::Sequence};

/// Batches that may wait for the disk.
pub(crate) const WAITING_MAX: usize = 64;

/// Puts messages into the spool.
pub(crate) struct Sender {
    outbox: Outbox,
    tenant: Slug,
    node: Node,
    booted_at: Timestamp,
    sequence: Sequence,
    /// What was lost since the spool is full, by class.
    lost: BTreeMap<String, u64>,
}

// === impl Sender ===

impl Sender {
    pub(crate) fn new(
        outbox: Outbox,
        tenant: &Slug,
        node: &Node,
        booted_at: Timestamp,
        sequence: Sequence,
    ) -> Self {
        Self {
            outbox,
            tenant: tenant.clone(),
            node: node.clone(),
            booted_at,
            sequence,
            lost: BTreeMap::new(),
        }
    }

    /// Takes batches and pictures of the node until both have ended.
    pub(crate) async fn run(
        mut self,
        cx: Cx,
        mut batches: mpsc::Receiver<Batch>,
        mut reports: mpsc::Receiver<NodeReported>,
    ) {
        let ended = loop {
            let sent = tokio::select! {
                Some(batch) = batches.recv() => self.batch(batch).await,
                Some(report) = reports.recv() => self.report(report).await,
                else => break Ok(()),
            };
            if sent.is_err() {
                break sent;
            }
        };
        let closed = self.sequence.close().context("keeping the sequence");
        if let Err(error) = ended.and(closed) {
            tracing::error!(%error, "nothing can be kept on disk, stopping: {error:#}");
            cx.stop();
        }
    }

    async fn batch(&mut self, mut batch: Batch) -> anyhow::Result<()> {
        for (class, count) in std::mem::take(&mut self.lost) {
            batch.push_drop(None, &class, count);
        }
        let message = self.message(batch)?;
        match self.outbox.enqueue(&self.tenant, &message).await {
            Ok(()) => metrics::message("batch"),
            Err(SpoolError::Full { .. }) => self.lose(&message),
            Err(error) => return Err(error).context("putting a batch into the spool"),
        }
        Ok(())
    }

    async fn report(&mut self, mut report: NodeReported) -> anyhow::Result<()> {
        report.sequence = self.sequence.next()?;
        match self.outbox.enqueue(&self.tenant, &report).await {
            // The next one tells everything again.
            Ok(()) | Err(SpoolError::Full { .. }) => metrics::message("report"),
            Err(error) => return Err(error).context("putting the inventory into the spool"),
        }
        Ok(())
    }

    fn message(&mut self, batch: Batch) -> anyhow::Result<RuntimeBatch> {
        let sequence = self.sequence.next().context("keeping the sequence")?;
        Ok(message(batch, &self.node, self.booted_at, sequence))
    }

    fn lose(&mut self, message: &RuntimeBatch) {
        for event in &message.events {
            *self.lost.entry(class(event).to_owned()).or_default() += 1;
        }
        for drop in &message.drops {
            *self.lost.entry(drop.class.clone()).or_default() += drop.count;
        }
    }
}

/// A batch as it travels.
pub(crate) fn message(
    batch: Batch,
    node: &Node,
    booted_at: Timestamp,
    sequence: u64,
) -> RuntimeBatch {
    RuntimeBatch {
        node: node.name.clone(),
        boot: node.boot.clone(),
        sequence,
        booted_at,
        containers: batch.containers,
        events: batch.events,
        drops: batch.drops,
    }
}

/// The class of an event, as drops name it.
const fn class(event: &RuntimeEvent) -> &'static str {
    match event.activity {
        Activity::Exec(_) => "exec",
        Activity::Fork { .. } | Activity::Exit { .. } => "process",
        Activity::Connect(_) | Activity::Bind(_) | Activity::Listen(_) => "network",
        Activity::Open(_) => "file",
        Activity::Syscall(_) => "syscall",
    }
}
