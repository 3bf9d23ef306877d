//! Events as text. No value here has a line break: JSON escapes them, positions and kinds have none.

use axum::body::Bytes;
use bus::{Missed, Piece, Position, Tailed, Told, cloud_event_text};
use model::event::Kind;
use serde_json::{Value, json};

use super::pump::End;

/// An event that is longer as JSON goes without its data.
const EVENT_BYTES_MAX: usize = 1 << 20;
/// How long a client waits before it comes back, milliseconds.
const RETRY_MS: u32 = 2_000;

/// The first frame: from where on the client reads, before anything happened.
pub(super) fn opening(position: Position) -> Bytes {
    format!("retry: {RETRY_MS}\nid: {position}\n\n").into()
}

/// A sign of life. A client takes the `id` though there is no data (section 9.2.6).
pub(super) fn heartbeat(position: Position) -> Bytes {
    format!(": {position}\nid: {position}\n\n").into()
}

/// What a client is told; `None` where there is nothing to tell.
pub(super) fn told(told: &Told) -> Option<Bytes> {
    let position = told.position;
    match &told.piece {
        Piece::News { stream, message } => {
            let data = cloud_event_text(stream, message, EVENT_BYTES_MAX);
            Some(event(Some(position), kind(message), &data))
        }
        Piece::Missed { stream, missed } => {
            let Missed { from, to, next } = missed;
            let data = json!({ "stream": stream, "from": from, "to": to, "next": next });
            Some(named(Some(position), "gap", &data))
        }
        Piece::CaughtUp => Some(named(Some(position), "caught-up", &json!({}))),
        Piece::Passed => None,
    }
}

/// The last frame: why the stream ends here. `None`: nobody is there to read it.
pub(super) fn end(end: End) -> Option<Bytes> {
    let (reason, detail) = match end {
        End::Left => return None,
        End::Slow => (
            "slow",
            "nothing was taken for too long; come back with the last id, nothing is lost",
        ),
        End::Token => (
            "token",
            "the token ran out, was revoked, or may not read any more",
        ),
        End::Stopping => ("stopping", "this server stops; come back with the last id"),
    };
    let data = json!({ "reason": reason, "detail": detail });
    Some(named(None, "end", &data))
}

fn named(position: Option<Position>, name: &str, data: &Value) -> Bytes {
    event(position, name, &data.to_string())
}

fn event(position: Option<Position>, name: &str, data: &str) -> Bytes {
    let id = position.map_or_else(String::new, |position| format!("id: {position}\n"));
    format!("{id}event: {name}\ndata: {data}\n\n").into()
}

/// The name of a message's kind; what is told has one.
fn kind(message: &Tailed) -> &'static str {
    let kind = message.headers.attribute("ce-type");
    kind.and_then(|kind| Kind::find(&kind))
        .map_or("message", Kind::name)
}
