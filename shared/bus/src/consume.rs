//! Serving a consumer: take messages, run the handler, write, publish, acknowledge.
//!
//! A message is asked for only when a permit is free for it. While it is handled the server gets
//! a sign of life every third of the time to acknowledge. A message that comes again while this
//! process holds it is dropped, and its newer handle is kept for the acknowledgment. When the process
//! stops, nothing more is taken, what runs has a grace to end, and the rest is given back.

mod held;
mod message;
mod process;
mod pull;
mod settle;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chassis::Cx;
use model::event::Priority;
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Bus, Handler, Slots,
    error::BusError,
    random,
    topology::{self, ConsumerSpec},
    wire::PAUSE,
};

pub(crate) use self::{
    held::{Held, Hold},
    message::Arrived,
    process::Server,
    pull::{Pull, Pulled},
};

/// How long a consumer that cannot be served is left alone.
const RETRY: Duration = Duration::from_secs(5);
/// After so long without a message the consumer is asked whether it has some.
const WATCHDOG: Duration = Duration::from_mins(1);
/// After so many refusals in a row the consumer is looked at again.
const NOT_READY_MAX: u32 = 5;
/// At most so many messages are asked for at once.
const BATCH_MAX: usize = 64;

/// Which consumer to serve, and how.
#[derive(Clone, Debug)]
pub struct Consume {
    /// The stream.
    pub stream: String,
    /// The consumer.
    pub durable: String,
    /// The filter it must have; empty for none.
    pub filter: String,
    /// How many messages are handled at once.
    pub concurrency: usize,
    /// How long the server waits for a sign of life before it delivers again.
    pub ack_wait: Duration,
}

/// What the loop does next.
enum Next {
    /// Bind to the consumer again.
    Rebind,
    Stop,
}

struct Taker<H> {
    cx: Cx,
    server: Arc<Server<H>>,
    permits: Arc<Semaphore>,
    concurrency: usize,
    /// Permits for messages that were asked for.
    asked: Vec<OwnedSemaphorePermit>,
    last_message: Instant,
    /// How often in a row the server was not ready.
    not_ready: u32,
}

// === impl Consume ===

impl Consume {
    /// Serves a consumer of the topology, with its filter and the configured time to acknowledge.
    pub fn new(bus: &Bus, stream: &str, durable: &str, concurrency: usize) -> Self {
        let listed = topology::consumers();
        let spec = listed
            .iter()
            .find(|spec| spec.stream == stream && spec.durable == durable);
        Self {
            stream: stream.to_owned(),
            durable: durable.to_owned(),
            filter: spec.map(|spec| spec.filter.clone()).unwrap_or_default(),
            concurrency,
            ack_wait: bus.config().ack_wait(),
        }
    }

    fn spec(&self) -> ConsumerSpec {
        let listed = topology::consumers();
        let same = |spec: &ConsumerSpec| spec.stream == self.stream && spec.durable == self.durable;
        let pending = listed
            .iter()
            .find(|spec| same(spec))
            .map(|spec| spec.max_ack_pending);
        let pending = pending.unwrap_or(topology::ACK_PENDING);
        ConsumerSpec::new(&self.stream, &self.durable, &self.filter, pending)
    }
}

impl Bus {
    /// Serves a consumer until `cx` stops; then what runs has [`crate::Config::grace_ms`] to end,
    /// and the rest is given back to the server.
    pub fn consume<H: Handler>(&self, cx: &Cx, consume: Consume, handler: Arc<H>) {
        self.serve(cx, consume, None, handler);
    }

    /// Serves a consumer whose messages take slots of a pool that it shares with others. A message
    /// that finds no slot free waits here and is kept alive meanwhile.
    pub fn consume_sharing<H: Handler>(
        &self,
        cx: &Cx,
        consume: Consume,
        (slots, class): (&Slots, Priority),
        handler: Arc<H>,
    ) {
        let concurrency = consume.concurrency.min(slots.limit(class));
        let consume = Consume {
            concurrency,
            ..consume
        };
        self.serve(cx, consume, Some((slots.clone(), class)), handler);
    }

    fn serve<H: Handler>(
        &self,
        cx: &Cx,
        consume: Consume,
        share: Option<(Slots, Priority)>,
        handler: Arc<H>,
    ) {
        let concurrency = consume.concurrency.max(1);
        self.observe(cx, &consume);
        let server = Server::new(self.clone(), cx.clone(), consume, share, handler);
        let server = Arc::new(server);
        let taker = Taker {
            cx: cx.clone(),
            server: Arc::clone(&server),
            permits: Arc::new(Semaphore::new(concurrency)),
            concurrency,
            asked: Vec::new(),
            last_message: Instant::now(),
            not_ready: 0,
        };
        let done = CancellationToken::new();
        cx.spawn("in-progress", keep_alive(server, done.clone()));
        cx.spawn("consume", async move {
            taker.run().await;
            done.cancel();
        });
    }
}

// === impl Taker ===

impl<H: Handler> Taker<H> {
    async fn run(mut self) {
        while !self.cx.is_stopping() {
            let next = match self.bind().await {
                Ok(mut pull) => {
                    let next = self.take(&mut pull).await;
                    if matches!(next, Next::Stop) {
                        self.give_back(pull).await;
                    }
                    next
                }
                Err(error) => {
                    let Consume {
                        stream, durable, ..
                    } = &self.server.consume;
                    match error {
                        // An operator must act: nothing heals this.
                        BusError::Conflict { .. } | BusError::Denied(_) => {
                            tracing::error!(%error, "cannot serve `{stream}/{durable}`: {error}");
                        }
                        BusError::Missing { .. } => {
                            tracing::warn!(%error, "cannot serve `{stream}/{durable}`: {error}");
                        }
                        _ => tracing::info!(%error, "cannot serve `{stream}/{durable}`: {error}"),
                    }
                    self.cx.sleep(random::jitter(RETRY)).await;
                    Next::Rebind
                }
            };
            self.asked.clear();
            if matches!(next, Next::Stop) {
                break;
            }
        }
        // Handlers end on their own: each looks at the signal and at its grace.
        let all = u32::try_from(self.concurrency).unwrap_or(u32::MAX);
        drop(self.permits.acquire_many(all).await);
        if let Err(error) = self.server.bus.0.wire.flush().await {
            tracing::debug!(%error, "the last acknowledgments may be lost; they are repeated");
        }
    }

    /// Looks at the consumer before taking from it: a missing one is made, one that differs is an
    /// error, since a server may ignore a filter and then deliver everything.
    async fn bind(&mut self) -> Result<Pull, BusError> {
        let consume = &self.server.consume;
        self.server.bus.ensure_consumer(&consume.spec()).await?;
        let pull = Pull::open(&self.server.bus.0.wire, &consume.stream, &consume.durable).await;
        (self.last_message, self.not_ready) = (Instant::now(), 0);
        pull.map_err(|error| error.about(&consume.durable))
    }

    async fn take(&mut self, pull: &mut Pull) -> Next {
        let mut link = self.server.bus.0.wire.link();
        link.mark_unchanged();
        loop {
            if let Err(next) = self.ask(pull).await {
                return next;
            }
            let pulled = tokio::select! {
                () = self.cx.stopped() => return Next::Stop,
                pulled = pull.next() => pulled,
                permit = Arc::clone(&self.permits).acquire_owned(), if self.may_ask_more(pull) => {
                    self.asked.extend(permit.ok());
                    continue;
                }
                changed = link.changed() => {
                    if changed.is_err() { return Next::Stop }
                    self.forget(pull);
                    continue;
                }
            };
            match pulled {
                Pulled::Message(message) => {
                    (self.last_message, self.not_ready) = (Instant::now(), 0);
                    self.start(Arrived::new(*message)).await;
                }
                Pulled::Ended(lost) => {
                    self.release(lost);
                    if self.last_message.elapsed() > WATCHDOG && self.is_stuck().await {
                        return Next::Rebind;
                    }
                }
                Pulled::NotReady(lost) => {
                    self.release(lost);
                    self.cx.sleep(random::jitter(PAUSE)).await;
                    self.not_ready += 1;
                    if self.not_ready >= NOT_READY_MAX {
                        // Perhaps the consumer is gone.
                        return Next::Rebind;
                    }
                }
                Pulled::Silent if self.server.bus.is_connected() => self.forget(pull),
                Pulled::Gone => {
                    self.cx.sleep(random::jitter(PAUSE)).await;
                    return Next::Rebind;
                }
                Pulled::Silent => {}
                Pulled::Alive(_) => self.not_ready = 0,
            }
        }
    }

    /// Asks for as many messages as there are permits that nothing was asked for yet; waits for
    /// the first permit if nothing stands.
    async fn ask(&mut self, pull: &mut Pull) -> Result<(), Next> {
        let stands = pull.outstanding();
        if stands == 0 && self.asked.is_empty() {
            let permit = tokio::select! {
                () = self.cx.stopped() => return Err(Next::Stop),
                permit = Arc::clone(&self.permits).acquire_owned() => permit,
            };
            self.asked.extend(permit.ok());
        }
        while self.asked.len() < stands + BATCH_MAX {
            match Arc::clone(&self.permits).try_acquire_owned() {
                Ok(permit) => self.asked.push(permit),
                Err(_) => break,
            }
        }
        let more = self.asked.len().saturating_sub(stands);
        if more > 0 && self.server.bus.is_connected() && pull.ask(more).await.is_err() {
            self.cx.sleep(random::jitter(PAUSE)).await;
        }
        Ok(())
    }

    /// Whether permits that come free shall be waited for beside messages.
    fn may_ask_more(&self, pull: &Pull) -> bool {
        let stands = pull.outstanding();
        stands > 0 && self.asked.len() <= stands && stands < self.concurrency.div_ceil(2)
    }

    async fn start(&mut self, arrived: Option<Arrived>) {
        let Some(arrived) = arrived else { return };
        let Some(hold) = self.server.hold(&arrived) else {
            // The permit that was meant for it is free for another.
            self.release(1);
            return;
        };
        let permit = match self.asked.pop() {
            Some(permit) => permit,
            // It was asked for before a reconnect. It is held, so signs of life go out meanwhile.
            None => match Arc::clone(&self.permits).acquire_owned().await {
                Ok(permit) => permit,
                Err(_) => return,
            },
        };
        let server = Arc::clone(&self.server);
        self.cx.spawn("handle", async move {
            server.process(arrived, hold).await;
            drop(permit);
        });
    }

    /// Messages that were asked for and still came go back at once, instead of after their time to
    /// acknowledge.
    async fn give_back(&self, pull: Pull) {
        if !self.server.bus.is_connected() {
            return;
        }
        for message in pull.drain().await {
            if let Some(arrived) = Arrived::new(message)
                && let Some(hold) = self.server.hold(&arrived)
            {
                self.server.give_back(&hold).await;
            }
        }
    }

    fn release(&mut self, count: usize) {
        self.asked.truncate(self.asked.len().saturating_sub(count));
    }

    /// What stood is lost, as after a reconnect: ask again.
    fn forget(&mut self, pull: &mut Pull) {
        pull.forget();
        self.asked.clear();
    }

    /// Whether the consumer has messages that do not come.
    async fn is_stuck(&mut self) -> bool {
        self.last_message = Instant::now();
        let Consume {
            stream, durable, ..
        } = &self.server.consume;
        let asked = format!("CONSUMER.INFO.{stream}.{durable}");
        let Ok(info) = self.server.bus.0.wire.api(&asked, &Value::Null).await else {
            return true;
        };
        let number = |field: &str| info.get(field).and_then(Value::as_u64).unwrap_or(0);
        let limit = u64::from(self.server.consume.spec().max_ack_pending);
        let stuck = number("num_pending") > 0 && number("num_ack_pending") < limit;
        if stuck {
            tracing::info!("`{stream}/{durable}` has messages that do not come, binding again");
        }
        stuck
    }
}

/// Sends signs of life for everything that is held, and says what it is after a new connection.
async fn keep_alive<H: Handler>(server: Arc<Server<H>>, done: CancellationToken) {
    let every = server.consume.ack_wait / 3;
    let wire = &server.bus.0.wire;
    let mut link = wire.link();
    let mut number = link.borrow_and_update().number;
    loop {
        tokio::select! {
            () = done.cancelled() => return,
            () = sleep(every) => {}
            changed = link.changed() => {
                let now = link.borrow_and_update().clone();
                match changed {
                    Err(_) => return,
                    Ok(()) if now.up && now.number != number => {
                        number = now.number;
                        server.announce().await;
                    }
                    Ok(()) => continue,
                }
            }
        }
        for handle in server.held.handles() {
            wire.send(handle, Bytes::from_static(b"+WPI")).await;
        }
    }
}
