use super::*;
use crate::testing::example;
use model::{Severity, event::Event as _};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn windows(repeat: i64, remind: i64) -> Windows {
    Windows {
        repeat_after: SignedDuration::from_secs(repeat),
        remind_after: SignedDuration::from_secs(remind),
    }
}

/// An alert at a time; its event is named by it.
fn alert(state: AlertState, severity: Severity, second: i64) -> Alert {
    Alert {
        state,
        severity,
        event: format!("event {second}"),
        at: at(second),
        ..example()
    }
}

/// Does what a step says, and says what was told.
fn take(known: &mut Option<AlertRecord>, alert: Alert, windows: Windows) -> &'static str {
    let now = alert.at;
    match step(known.as_ref(), alert, windows, now) {
        Step::Nothing => "nothing",
        Step::TellAgain(_) => "again",
        Step::Keep(record) => {
            *known = Some(record);
            "kept"
        }
        Step::Change(record, _) => {
            *known = Some(record);
            "told"
        }
    }
}

#[test]
fn what_comes_back_in_the_window_waits_for_its_end_and_is_told_if_it_stands() {
    use AlertState::{Raised, Resolved};
    let (mut known, windows) = (None, windows(60, 0));
    assert_eq!(
        take(&mut known, alert(Raised, Severity::High, 0), windows),
        "told"
    );
    assert_eq!(
        take(&mut known, alert(Resolved, Severity::Unknown, 5), windows),
        "told"
    );
    assert_eq!(
        take(&mut known, alert(Raised, Severity::High, 8), windows),
        "kept"
    );
    let record = known.unwrap();
    assert!(due(&record, windows, at(59)).is_none());
    let told = due(&record, windows, at(60)).unwrap();
    assert_eq!((told.told, told.told_at), (Told::Now, Some(at(60))));
    assert_eq!(told.alert.unwrap().event, "event 8");
}

#[test]
fn what_is_worse_is_told_at_once() {
    use AlertState::{Raised, Resolved};
    let (mut known, windows) = (None, windows(60, 0));
    assert_eq!(
        take(&mut known, alert(Raised, Severity::High, 0), windows),
        "told"
    );
    assert_eq!(
        take(&mut known, alert(Resolved, Severity::Unknown, 5), windows),
        "told"
    );
    assert_eq!(
        take(&mut known, alert(Raised, Severity::High, 8), windows),
        "kept"
    );
    assert_eq!(
        take(&mut known, alert(Raised, Severity::Critical, 9), windows),
        "told"
    );
    // Now somebody was told, and is told that it is over.
    assert_eq!(
        take(&mut known, alert(Resolved, Severity::Unknown, 10), windows),
        "told"
    );
}

#[test]
fn without_a_window_everything_is_told() {
    use AlertState::{Raised, Resolved};
    let (mut known, windows) = (None, windows(0, 0));
    for second in 0..3 {
        let told = take(
            &mut known,
            alert(Raised, Severity::High, 2 * second),
            windows,
        );
        assert_eq!(told, "told");
        let told = take(
            &mut known,
            alert(Resolved, Severity::High, 2 * second + 1),
            windows,
        );
        assert_eq!(told, "told");
    }
}

#[test]
fn reminders_are_numbered_and_end_with_the_alert() {
    use AlertState::{Raised, Resolved};
    let (mut known, windows) = (None, windows(0, 3600));
    take(&mut known, alert(Raised, Severity::High, 0), windows);
    let record = known.clone().unwrap();
    assert!(due(&record, windows, at(3599)).is_none());
    let first = due(&record, windows, at(4000)).unwrap();
    let told = first.alert.clone().unwrap();
    assert_eq!((told.reminder, told.at), (1, at(3600)));
    let tenant = model::Slug::default_tenant();
    assert_ne!(told.message_id(&tenant), example().message_id(&tenant));
    // Who finds it half told tells it again as it is; it is not due once more.
    assert!(due(&first, windows, at(9000)).is_none());
    let record = AlertRecord {
        told: Told::Yes,
        ..first
    };
    assert!(due(&record, windows, at(7599)).is_none());
    assert_eq!(due(&record, windows, at(7600)).unwrap().reminders, 2);
    known = Some(record);
    take(&mut known, alert(Resolved, Severity::High, 8000), windows);
    assert!(due(&known.unwrap(), windows, at(99_000)).is_none());
}
