//! The sink `log`: a line in the process's own log.

use model::AlertState;
use serde::{Deserialize, Serialize};

use crate::sinks::Outgoing;

/// It needs no configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// An alert is no fault of ours, however bad it is: the line is for information.
pub(crate) fn write(outgoing: &Outgoing<'_>) {
    let Outgoing { id, tenant, alert } = outgoing;
    let state = match alert.state {
        AlertState::Raised => "raised",
        AlertState::Resolved => "resolved",
    };
    tracing::info!(
        event.id = %id,
        tenant.name = %tenant,
        alert.fingerprint = %alert.fingerprint,
        alert.severity = %alert.severity,
        alert.state = state,
        alert.text = alert.text,
        image.digest = alert.image.map(|image| image.to_string()),
        "alert {state}: {}",
        alert.title,
    );
}
