//! Deletion markers, as NATS's key-value design (ADR-8) has them.

use crate::envelope::Headers;

pub(crate) const OPERATION: &str = "KV-Operation";
pub(crate) const ROLLUP: &str = "Nats-Rollup";

/// Whether a message says that its key is deleted.
pub(crate) fn is_marker(headers: &Headers) -> bool {
    matches!(headers.get(OPERATION), Some("DEL" | "PURGE"))
}

/// The headers of a marker.
pub(crate) fn marker() -> Headers {
    Headers::default()
        .with(OPERATION, "PURGE")
        .with(ROLLUP, "sub")
}
