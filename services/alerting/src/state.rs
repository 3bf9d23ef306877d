//! What becomes of an alert's state. Pure.
//!
//! An alert is told when it is raised, when it gets worse and when it is resolved. One that comes
//! back soon after it was told is a flapping check: its state is kept, nobody is told, and at the
//! end of the window it is told if it still stands. So a cause that comes and goes by the second
//! makes one alert per window, and none that lasts is kept from anybody.

use jiff::{SignedDuration, Timestamp};
use model::{AlertRecord, AlertState, Told, event::Alert};

/// How often an alert is told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Windows {
    /// What comes back within this time waits for its end; zero for none.
    pub(crate) repeat_after: SignedDuration,
    /// What stands is told again after this time; zero for never.
    pub(crate) remind_after: SignedDuration,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Step {
    Nothing,
    /// The same event again: whoever wrote the state may have died before he told.
    TellAgain(Alert),
    /// The state is kept, and nobody is told.
    Keep(AlertRecord),
    /// The state is kept, and told.
    Change(AlertRecord, Alert),
}

/// What news make of a state.
pub(crate) fn step(
    known: Option<&AlertRecord>,
    mut alert: Alert,
    windows: Windows,
    now: Timestamp,
) -> Step {
    let Some(known) = known else {
        return match alert.state {
            AlertState::Raised => raise(alert, now),
            AlertState::Resolved => Step::Nothing,
        };
    };
    if alert.state == AlertState::Resolved {
        // Who was told how bad it was is told that it is over: filters look at this.
        alert.severity = known.severity;
    }
    if known.event == alert.event && known.state == alert.state {
        return match known.told {
            Told::No => Step::Nothing,
            Told::Yes | Told::Now => Step::TellAgain(alert),
        };
    }
    match (known.state, alert.state) {
        (AlertState::Raised, AlertState::Raised) if alert.severity > known.severity => {
            raise(alert, now)
        }
        (AlertState::Raised, AlertState::Resolved) => resolve(known, alert),
        (AlertState::Resolved, AlertState::Raised) => {
            let waits = windows.is_repeated(known, now) && alert.severity <= known.severity;
            if waits {
                keep_quiet(known, alert)
            } else {
                raise(alert, now)
            }
        }
        (AlertState::Raised, AlertState::Raised) | (AlertState::Resolved, AlertState::Resolved) => {
            Step::Nothing
        }
    }
}

/// The state with which an alert is told once more because of the time: it stands and nobody was
/// told yet, or so long ago that a reminder is due.
pub(crate) fn due(record: &AlertRecord, windows: Windows, now: Timestamp) -> Option<AlertRecord> {
    let alert = record.alert.as_deref()?;
    if record.state != AlertState::Raised {
        return None;
    }
    let told_at = record.told_at.unwrap_or(record.since);
    match record.told {
        Told::Now => None,
        Told::No if windows.is_repeated(record, now) => None,
        Told::No => Some(AlertRecord {
            told: Told::Now,
            told_at: Some(now),
            reminders: 0,
            severity: alert.severity,
            ..record.clone()
        }),
        Told::Yes => {
            let at = told_at.checked_add(windows.remind_after).ok()?;
            if record.once || windows.remind_after.is_zero() || now < at {
                return None;
            }
            let reminders = record.reminders.saturating_add(1);
            let alert = Alert {
                reminder: reminders,
                at,
                ..alert.clone()
            };
            Some(AlertRecord {
                told: Told::Now,
                told_at: Some(now),
                reminders,
                alert: Some(Box::new(alert)),
                ..record.clone()
            })
        }
    }
}

fn raise(alert: Alert, now: Timestamp) -> Step {
    let record = AlertRecord {
        state: AlertState::Raised,
        event: alert.event.clone(),
        since: alert.at,
        severity: alert.severity,
        told_at: Some(now),
        told: Told::Yes,
        reminders: 0,
        once: false,
        alert: Some(Box::new(alert.clone())),
    };
    Step::Change(record, alert)
}

/// What nobody was told of is over without a word.
fn resolve(known: &AlertRecord, alert: Alert) -> Step {
    let record = AlertRecord {
        state: AlertState::Resolved,
        event: alert.event.clone(),
        since: alert.at,
        alert: None,
        told: if known.told == Told::No {
            Told::No
        } else {
            Told::Yes
        },
        ..known.clone()
    };
    match known.told {
        Told::No => Step::Keep(record),
        Told::Yes | Told::Now => Step::Change(record, alert),
    }
}

fn keep_quiet(known: &AlertRecord, alert: Alert) -> Step {
    Step::Keep(AlertRecord {
        state: AlertState::Raised,
        event: alert.event.clone(),
        since: alert.at,
        told: Told::No,
        alert: Some(Box::new(alert)),
        ..known.clone()
    })
}

// === impl Windows ===

impl Windows {
    /// Whether nothing is ever told because of the time.
    pub(crate) fn is_off(self) -> bool {
        self.repeat_after.is_zero() && self.remind_after.is_zero()
    }

    /// Whether the alert was told so lately that it is not told again.
    fn is_repeated(self, record: &AlertRecord, now: Timestamp) -> bool {
        let end = record
            .told_at
            .and_then(|at| at.checked_add(self.repeat_after).ok());
        end.is_some_and(|end| now < end)
    }
}

#[cfg(test)]
mod tests;
