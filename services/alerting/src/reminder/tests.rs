use std::{future::ready, sync::Mutex};

use jiff::SignedDuration;

use super::*;
use crate::testing::example;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const WINDOWS: Windows = Windows {
    repeat_after: SignedDuration::from_secs(60),
    remind_after: SignedDuration::from_hours(1),
};

async fn stands(store: &Store, told: Told) {
    let record = AlertRecord {
        state: AlertState::Raised,
        event: "judged:1".to_owned(),
        since: at(0),
        severity: example().severity,
        told_at: Some(at(0)),
        told,
        reminders: 0,
        once: false,
        alert: Some(Box::new(example())),
    };
    let key = format!("default.{}", example().fingerprint);
    store.put(ALERT_STATES, &key, &record, None).await.unwrap();
}

#[tokio::test]
async fn a_crash_while_telling_tells_again_under_the_same_id() {
    let (store, told) = (Store::memory(), Mutex::new(Vec::new()));
    stands(&store, Told::Yes).await;
    let away = |_, alert: Alert| {
        told.lock().unwrap().push(alert);
        ready(Err(BusError::Server("gone".to_owned())))
    };
    let result = tell_what_is_due(&store, WINDOWS, at(3600), away).await;
    assert!(result.is_err());
    let tell = |_, alert: Alert| {
        told.lock().unwrap().push(alert);
        ready(Ok(()))
    };
    let count = tell_what_is_due(&store, WINDOWS, at(3700), tell).await;
    assert_eq!(count.unwrap(), 1);
    // Then there is peace for an hour.
    let count = tell_what_is_due(&store, WINDOWS, at(3800), tell).await;
    assert_eq!(count.unwrap(), 0);
    let told = told.lock().unwrap();
    let [one, two] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!((one, one.reminder), (two, 1));
}

#[tokio::test]
async fn what_came_back_and_stayed_is_told_when_the_window_ends() {
    let (store, told) = (Store::memory(), Mutex::new(Vec::new()));
    stands(&store, Told::No).await;
    let tell = |_, alert: Alert| {
        told.lock().unwrap().push(alert.reminder);
        ready(Ok(()))
    };
    for second in [59, 60, 61] {
        tell_what_is_due(&store, WINDOWS, at(second), tell)
            .await
            .unwrap();
    }
    assert_eq!(*told.lock().unwrap(), [0]);
}

#[test]
fn looks_follow_the_shortest_window() {
    assert_eq!(period(WINDOWS), Duration::from_secs(15));
    assert_eq!(period(Windows::default()), PERIOD_MAX);
}
