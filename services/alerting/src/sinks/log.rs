//! The sink `log`: a line in the process's own log.

use model::AlertState;
use serde::{Deserialize, Serialize};

use crate::sinks::{Item, Outgoing};

/// It needs no configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// An alert is no fault of ours, however bad it is: the line is for information.
pub(crate) fn write(outgoing: &Outgoing) {
    let Some(Item { id, alert }) = outgoing.single() else {
        return write_group(outgoing);
    };
    let state = match alert.state {
        AlertState::Raised => "raised",
        AlertState::Resolved => "resolved",
    };
    tracing::info!(
        event.id = %id,
        tenant.name = %outgoing.tenant,
        alert.fingerprint = %alert.fingerprint,
        alert.severity = %alert.severity,
        alert.state = state,
        alert.reminder = alert.reminder,
        alert.text = alert.text,
        image.digest = alert.image.map(|image| image.to_string()),
        "alert {state}: {}",
        alert.title,
    );
}

fn write_group(outgoing: &Outgoing) {
    let (listed, more) = outgoing.listed();
    let titles: Vec<String> = listed.iter().map(Item::title).collect();
    let more = match more {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    tracing::info!(
        event.id = %outgoing.id,
        tenant.name = %outgoing.tenant,
        alert.severity = %outgoing.severity(),
        alert.count = outgoing.total(),
        "{}: {}{more}",
        outgoing.title(),
        titles.join("; "),
    );
}
