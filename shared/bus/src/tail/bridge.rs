//! The JSON bridge: news once more, as JSON, in the stream `JSON` below `tw.json.`.
//!
//! Whoever reads that stream loses nothing; whoever only subscribes to its subjects gets what comes
//! while he listens. Each message says up to where the bridge had read, and it is stored only behind
//! the one before it, so a bridge goes on exactly where the last one ended, and two at a time do no
//! harm. The lease keeps them from working for nothing.

use std::time::Instant;

use bytes::Bytes;
use chassis::Cx;
use futures::StreamExt as _;
use model::event::{JSON, bridge_subject};
use serde_json::json;

use super::{Begin, Piece, Position, Selection, Tailed, cloud_event_text};
use crate::{
    Bus, Headers,
    error::BusError,
    metrics::metrics,
    random,
    reader::state,
    subject,
    wire::{PAUSE, WireError},
};

/// The lease of who carries.
const LEASE: &str = "json_bridge";
/// Up to where the bridge had read, behind this message.
const POSITION: &str = "tw-position";
/// JetStream stores a message only behind this sequence of the stream.
const EXPECTED: &str = "Nats-Expected-Last-Sequence";
/// Left for headers in what the server allows.
const HEADERS_BYTES: usize = 16 * 1024;

/// Where the bridge stands.
struct End {
    begin: Begin,
    last: u64,
}

impl Bus {
    /// Carries news to the stream `JSON` until `cx` stops; of several processes one does. The very
    /// first bridge begins with what comes from then on.
    pub fn bridge_json(&self, cx: &Cx) {
        let (bus, cx_here) = (self.clone(), cx.clone());
        cx.spawn("json_bridge", async move {
            while !cx_here.is_stopping() {
                match bus.lease_wait(&cx_here, LEASE).await {
                    Ok(Some(lease)) => {
                        tokio::select! {
                            () = lease.lost() => {}
                            carried = bus.carry(&cx_here) => if let Err(error) = carried {
                                tracing::debug!(%error, "the JSON bridge begins again: {error}");
                            },
                        }
                        lease.release().await;
                    }
                    Ok(None) => return,
                    Err(error) => tracing::debug!(%error, "the JSON bridge waits: {error}"),
                }
                cx_here.sleep(random::jitter(PAUSE)).await;
            }
        });
    }

    async fn carry(&self, cx: &Cx) -> Result<(), BusError> {
        let failed = |error: WireError| error.about(JSON);
        let End { begin, mut last } = self.end_of_bridge().await.map_err(failed)?;
        let mut news = self.news(cx, begin, Selection::default()).await?;
        while let Some(told) = news.next().await {
            match told.piece {
                Piece::News { stream, message } => {
                    let position = told.position;
                    last = self.bridge(stream, &message, position, last).await?;
                }
                Piece::Missed { stream, missed } => {
                    let from = missed.from;
                    tracing::warn!(
                        stream,
                        from,
                        "the JSON bridge was away for so long that `{stream}` does not hold \
                         message {from} and what follows any more"
                    );
                }
                Piece::CaughtUp | Piece::Passed => {}
            }
        }
        Ok(())
    }

    async fn end_of_bridge(&self) -> Result<End, WireError> {
        let wire = &self.0.wire;
        let state = state(wire, JSON).await?;
        let last = state.last;
        let begin = match (last, state.messages) {
            (0, _) => Begin::New,
            // All of them aged out: rather twice than never.
            (_, 0) => Begin::After(Position::default()),
            _ => {
                let found = wire.direct(JSON, &json!({ "seq": last })).await?;
                let found = found.ok_or_else(|| {
                    WireError::Other(format!("message {last} of `{JSON}` is not there yet"))
                })?;
                let position = found.headers.get(POSITION).unwrap_or_default();
                Begin::After(position.parse().unwrap_or_default())
            }
        };
        Ok(End { begin, last })
    }

    /// Stores one piece of news behind message `last` of the stream, and gives its sequence.
    async fn bridge(
        &self,
        stream: &str,
        message: &Tailed,
        position: Position,
        last: u64,
    ) -> Result<u64, BusError> {
        let wire = &self.0.wire;
        let bytes_max = wire
            .client
            .server_info()
            .max_payload
            .saturating_sub(HEADERS_BYTES);
        let body = Bytes::from(cloud_event_text(stream, message, bytes_max));
        let mut headers = Headers::default()
            .with(
                "Content-Type",
                "application/cloudevents+json; charset=utf-8",
            )
            .with(POSITION, position.to_string())
            .with(EXPECTED, last.to_string());
        for name in ["traceparent", "tracestate"] {
            if let Some(value) = message.headers.get(name) {
                headers.push(name, value);
            }
        }
        let to = bridge_subject(&message.subject);
        loop {
            let started = Instant::now();
            let stored = wire.store(&to, &headers, body.clone()).await;
            let error = stored.as_ref().err().map(WireError::kind);
            metrics().sent(subject::template(&to), started.elapsed(), error);
            match stored {
                Ok(stored) => return Ok(stored.sequence),
                Err(error) if error.is_transient() => {
                    tokio::time::sleep(random::jitter(PAUSE)).await;
                }
                // Also where an earlier try was stored and its answer lost: the stream says so.
                Err(error) => return Err(error.about(&to)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
