//! Renewals: what is done to a container is not over while its incident goes on.
//!
//! A rule says for how long something is in force, and how often it is renewed: a quarantine that
//! ends by itself lets whoever is in the container go on. So before it is over it is renewed for as
//! long again, as long as the incident is open and the rule allows; each renewal is a step of the
//! record. What is not renewed any more is over all the same, and that is told: a response without
//! an end would outlive everybody who remembers why. Upkeep and replay call the same functions.

use jiff::{SignedDuration, Timestamp};
use model::runtime::{IncidentState, Mode, ProposedResponse, Stage};

use super::decide::move_on;

/// How long before its end a response is renewed at the earliest: agents that are away for less see
/// nothing end.
pub(crate) const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(15);

/// When a response is to be renewed, if it may be.
pub(crate) fn due_at(response: &ProposedResponse) -> Option<Timestamp> {
    let may = response.renewals_left > 0 && is_in_force(response);
    let ends = response.expires_at.filter(|_| may)?;
    let ahead = (valid(response) / 4).min(AHEAD_MAX);
    ends.checked_sub(ahead).ok()
}

/// Renews a response; gives the name of the step.
pub(crate) fn renew(response: &mut ProposedResponse, now: Timestamp) -> String {
    // From its end and not from now, so that it does not matter when somebody looked.
    let ends = response.expires_at.unwrap_or(now);
    let ends = ends.checked_add(valid(response)).unwrap_or(Timestamp::MAX);
    response.renewals_left = response.renewals_left.saturating_sub(1);
    response.expires_at = Some(ends);
    let id = format!("renewed:{}:{}", response.id, ends.as_second());
    let left = response.renewals_left;
    let detail =
        format!("renewed until {ends}, for its incident is open; {left} renewals are left");
    move_on(response, response.stage, (&id, detail), now);
    id
}

/// A response is over; gives the name of the step.
pub(crate) fn end(
    response: &mut ProposedResponse,
    incident: Option<IncidentState>,
    now: Timestamp,
) -> String {
    let id = format!("expired:{}", response.id);
    if !response.stage.is_desired() {
        return id;
    }
    let is_open = incident == Some(IncidentState::Open);
    let detail = if is_open && is_in_force(response) {
        "its time is over, and its incident is open: nothing is done to the container any more"
    } else {
        "its time is over"
    };
    move_on(response, Stage::Expired, (&id, detail.to_owned()), now);
    id
}

/// Whether the container would go on as before if it ended.
fn is_in_force(response: &ProposedResponse) -> bool {
    response.mode == Mode::Enforced && response.stage.is_desired() && response.action.kind().lasts()
}

fn valid(response: &ProposedResponse) -> SignedDuration {
    SignedDuration::from_secs(response.valid_for_s.try_into().unwrap_or(i64::MAX))
}
