//! Publishing events: acknowledged by the server, tried again under the same id.

use std::time::Duration;

use bytes::Bytes;
use model::{Slug, event::Event};
use tokio::time::{Instant, sleep};
use tracing::{Instrument, Span, field};

use crate::{
    Bus,
    envelope::Headers,
    error::{BusError, StoreError},
    handler::Emit,
    metrics::metrics,
    random, subject,
    wire::{PAUSE, Stored, WireError},
};

/// How long a publish is tried.
const PATIENCE: Duration = Duration::from_secs(20);

impl Bus {
    /// Publishes an event; returns when it is stored. Doing it again changes nothing: its id is
    /// computed from its content.
    pub async fn publish<E: Event>(&self, tenant: &Slug, event: &E) -> Result<(), BusError> {
        let emit = Emit::new(tenant, event).map_err(StoreError::from)?;
        publish(self, &emit).await
    }
}

/// Publishes in a span of its own, whose context travels with the message.
pub(crate) async fn publish(bus: &Bus, emit: &Emit) -> Result<(), BusError> {
    let span = span(emit);
    async {
        let stored = publish_here(bus, emit).await;
        if stored.is_err() {
            Span::current().record("otel.status_code", "ERROR");
        }
        stored
    }
    .instrument(span.clone())
    .await
}

/// The span of a message on its way to the server, or to the spool before it.
pub(crate) fn span(emit: &Emit) -> Span {
    let template = subject::template(&emit.subject);
    tracing::info_span!(
        "publish",
        otel.name = format!("publish {template}"),
        otel.kind = "producer",
        otel.status_code = field::Empty,
        messaging.system = "nats",
        messaging.operation.name = "publish",
        messaging.operation.type = "send",
        messaging.destination.name = emit.subject,
        messaging.destination.template = template,
        messaging.message.id = emit.id,
        messaging.message.body.size = emit.body.len(),
    )
}

/// Stores a message in the stream of its subject, one attempt, and counts it.
pub(crate) async fn send(
    bus: &Bus,
    subject: &str,
    headers: &Headers,
    body: Bytes,
) -> Result<Stored, WireError> {
    let started = Instant::now();
    let sent = bus.0.wire.store(subject, headers, body).await;
    let error = sent.as_ref().err().map(WireError::kind);
    metrics().sent(subject::template(subject), started.elapsed(), error);
    sent
}

async fn publish_here(bus: &Bus, emit: &Emit) -> Result<(), BusError> {
    let mut headers = emit.headers(bus.0.cx.now());
    let body = bus.check_in(&mut headers, emit.body.clone()).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match send(bus, &emit.subject, &headers, body.clone()).await {
            Ok(_) => return Ok(()),
            Err(WireError::Full(_)) => {
                bus.0.fullness.note(&emit.subject);
                return Err(BusError::Full(emit.subject.clone()));
            }
            Err(error) if error.is_transient() && Instant::now() < deadline => {
                sleep(random::jitter(PAUSE)).await;
            }
            Err(error) => return Err(error.about(&emit.subject)),
        }
    }
}
