//! One suite for both backends.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chassis::{FixedClock, SystemClock};
use jiff::Timestamp;
use model::{
    Digest, Known, PolicyRecord, RecordKey, Slug, What,
    event::{CONFIG, LAYER_OBJECTS, LEASES, REFS, REPORT_OBJECTS, images_bucket},
};

use super::{Collected, Store};
use crate::{Outcome, PutError, StoreError, testing::World};

macro_rules! store_test_suite {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::Store::memory()).await;
            })*
        }
        mod nats {
            $(#[tokio::test]
            async fn $case() {
                if let Some(world) = super::World::start().await {
                    super::$case(world.bus.store()).await;
                }
            })*
        }
    };
}

store_test_suite![
    compare_and_set_has_one_winner,
    a_deleted_key_is_absent_and_can_be_made_again,
    a_put_without_expectation_always_works,
    large_records_are_resolved,
    lists_are_sorted_and_know_no_deleted_keys,
    records_of_a_partition_are_listed_by_type,
    objects_are_named_by_content,
    large_objects_survive_in_chunks,
    an_object_that_nothing_names_is_collected_when_it_is_old,
    an_object_stored_again_while_it_is_collected_survives,
    named_objects_are_replaced_and_counted,
    limits_hold,
    keys_are_checked,
    an_outcome_is_applied_in_order,
];

fn image(text: &str) -> RecordKey {
    RecordKey::new(
        &Slug::default_tenant(),
        Digest::of(text.as_bytes()),
        What::Known,
    )
}

fn known(label_bytes: usize) -> Known {
    let label = ("label".to_owned(), "x".repeat(label_bytes));
    Known {
        labels: [label].into(),
        ..Known::default()
    }
}

fn policy(yaml: &str) -> PolicyRecord {
    PolicyRecord {
        yaml: yaml.to_owned(),
        changed_at: Timestamp::UNIX_EPOCH,
    }
}

async fn compare_and_set_has_one_winner(store: Store) {
    let key = image("a");
    assert!(store.record::<Known>(&key).await.unwrap().is_none());
    let first = store.put_record(&key, &known(1), 0).await.unwrap();
    let again = store.put_record(&key, &known(2), 0).await;
    assert!(matches!(again, Err(PutError::Conflict)), "{again:?}");
    let second = store.put_record(&key, &known(2), first).await.unwrap();
    assert!(second > first);
    let stale = store.put_record(&key, &known(3), first).await;
    assert!(matches!(stale, Err(PutError::Conflict)), "{stale:?}");
    let read = store.record::<Known>(&key).await.unwrap().unwrap();
    assert_eq!((read.revision, read.body), (second, known(2)));
}

async fn a_deleted_key_is_absent_and_can_be_made_again(store: Store) {
    store.delete(REFS, "never.there").await.unwrap();
    let first = store.put(REFS, "a.b", &1, Some(0)).await.unwrap();
    store.delete(REFS, "a.b").await.unwrap();
    assert!(store.get::<u32>(REFS, "a.b").await.unwrap().is_none());
    let stale = store.put(REFS, "a.b", &2, Some(first)).await;
    assert!(matches!(stale, Err(PutError::Conflict)), "{stale:?}");
    let made = store.put(REFS, "a.b", &3, Some(0)).await.unwrap();
    assert_eq!(
        store
            .get::<u32>(REFS, "a.b")
            .await
            .unwrap()
            .unwrap()
            .revision,
        made
    );
    assert!(matches!(
        store.put(REFS, "a.b", &4, Some(0)).await,
        Err(PutError::Conflict)
    ));
}

async fn a_put_without_expectation_always_works(store: Store) {
    for n in 0..3 {
        store.put(LEASES, "k", &n, None).await.unwrap();
    }
    assert_eq!(
        store.get::<u32>(LEASES, "k").await.unwrap().unwrap().body,
        2
    );
}

async fn large_records_are_resolved(store: Store) {
    let key = image("large");
    let first = store.put_record(&key, &known(100_000), 0).await.unwrap();
    let bucket = images_bucket(key.image.partition());
    let raw = store.raw(&bucket, &key.to_string()).await.unwrap().unwrap();
    assert!(raw.body.is_empty(), "{} bytes inline", raw.body.len());
    let (objects, digest) = super::pointer(&raw.headers).unwrap();
    assert_eq!(objects, REPORT_OBJECTS);
    assert_eq!(
        store.record::<Known>(&key).await.unwrap().unwrap().body,
        known(100_000)
    );
    // The same body again is another object: the first may be deleted without harm.
    let outcome = Outcome::none().put(&key, &known(100_000), first).unwrap();
    store.apply(&outcome).await.unwrap();
    store.delete_object(&objects, &digest).await.unwrap();
    assert_eq!(
        store.record::<Known>(&key).await.unwrap().unwrap().body,
        known(100_000)
    );
}

async fn lists_are_sorted_and_know_no_deleted_keys(store: Store) {
    for name in ["policies.b", "policies.a", "policies.gone", "tokens.x"] {
        store
            .put(CONFIG, name, &policy(name), Some(0))
            .await
            .unwrap();
    }
    store.delete(CONFIG, "policies.gone").await.unwrap();
    let found = store
        .list::<PolicyRecord>(CONFIG, "policies.")
        .await
        .unwrap();
    let names: Vec<_> = found
        .iter()
        .map(|(key, stored)| (&**key, &*stored.body.yaml))
        .collect();
    assert_eq!(
        names,
        [("policies.a", "policies.a"), ("policies.b", "policies.b")]
    );
    assert_eq!(
        store.list::<PolicyRecord>(CONFIG, "").await.unwrap().len(),
        3
    );
    assert!(
        store
            .list::<PolicyRecord>(REFS, "")
            .await
            .unwrap()
            .is_empty()
    );
    // A prefix that names an image takes another way.
    let key = image("listed");
    let bucket = images_bucket(key.image.partition());
    store.put_record(&key, &known(5_000), 0).await.unwrap();
    let prefix = format!("{}.{}.", key.tenant, key.image.hex());
    let found = store.list::<Known>(&bucket, &prefix).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, key.to_string());
}

async fn records_of_a_partition_are_listed_by_type(store: Store) {
    let keys: Vec<_> = (0..40).map(|n| image(&n.to_string())).collect();
    let partition = keys[0].image.partition();
    let mut wanted = Vec::new();
    for (size, key) in keys.iter().enumerate() {
        store.put_record(key, &known(size * 200), 0).await.unwrap();
        if key.image.partition() == partition {
            wanted.push((key.clone(), known(size * 200)));
        }
    }
    wanted.sort_by_key(|(key, _)| key.to_string());
    let found = store.records::<Known>(partition, |_| true).await.unwrap();
    let found: Vec<_> = found
        .into_iter()
        .map(|(key, stored)| (key, stored.body))
        .collect();
    assert_eq!(found, wanted);
    assert!(
        store
            .records::<model::Judged>(partition, |_| true)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn objects_are_named_by_content(store: Store) {
    let value = vec!["some".to_owned(), "packages".to_owned()];
    let digest = store.put_object(REPORT_OBJECTS, &value).await.unwrap();
    assert_eq!(
        store.put_object(REPORT_OBJECTS, &value).await.unwrap(),
        digest
    );
    let read: Option<Vec<String>> = store.object(REPORT_OBJECTS, &digest).await.unwrap();
    assert_eq!(read, Some(value));
    store.delete_object(REPORT_OBJECTS, &digest).await.unwrap();
    let read: Option<Vec<String>> = store.object(REPORT_OBJECTS, &digest).await.unwrap();
    assert_eq!(read, None);
    store.delete_object(REPORT_OBJECTS, &digest).await.unwrap();
}

async fn large_objects_survive_in_chunks(store: Store) {
    for size in [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000] {
        let bytes: Bytes = (0..size).map(|n: u32| (n % 251) as u8).collect();
        let digest = store
            .put_object_bytes(REPORT_OBJECTS, bytes.clone())
            .await
            .unwrap();
        let read = store
            .object_bytes(REPORT_OBJECTS, &digest, 4_000_000)
            .await
            .unwrap();
        assert!(read.as_ref() == Some(&bytes), "{size}");
        store.delete_object(REPORT_OBJECTS, &digest).await.unwrap();
        assert!(
            store
                .object_bytes(REPORT_OBJECTS, &digest, 4_000_000)
                .await
                .unwrap()
                .is_none()
        );
    }
}

/// Of one chunk, and of several.
const SIZES: [usize; 2] = [1_000, 600_000];
const HOUR: Duration = Duration::from_hours(1);

/// The same store, as it is seen so much later.
fn later(store: &Store, by: Duration) -> Store {
    let now = store.now().checked_add(by).unwrap();
    Store {
        clock: Arc::new(FixedClock::new(now)),
        ..store.clone()
    }
}

async fn is_there(store: &Store, digest: &Digest) -> bool {
    let read = store.object_bytes(REPORT_OBJECTS, digest, 1_000_000).await;
    read.unwrap().is_some()
}

async fn an_object_that_nothing_names_is_collected_when_it_is_old(store: Store) {
    for size in SIZES {
        let put = store.put_object_bytes(REPORT_OBJECTS, vec![1; size].into());
        let digest = put.await.unwrap();
        let collect = async |minutes, is_named| {
            let store = later(&store, Duration::from_mins(minutes));
            let collected = store.collect(REPORT_OBJECTS, &digest, HOUR, async || Ok(is_named));
            collected.await.unwrap()
        };
        assert_eq!(collect(59, false).await, Collected::Young);
        assert_eq!(collect(61, true).await, Collected::Named);
        assert!(is_there(&store, &digest).await);
        assert_eq!(collect(61, false).await, Collected::Gone);
        assert!(!is_there(&store, &digest).await);
    }
}

async fn an_object_stored_again_while_it_is_collected_survives(store: Store) {
    for size in SIZES {
        let bytes = Bytes::from(vec![2; size]);
        let put = store.put_object_bytes(REPORT_OBJECTS, bytes.clone());
        let digest = put.await.unwrap();
        let store = later(&store, 2 * HOUR);
        // The records are read, none names the object, and now a writer comes who will name it.
        let again = async || {
            store.put_object_bytes(REPORT_OBJECTS, bytes).await?;
            Ok(false)
        };
        let collected = store.collect(REPORT_OBJECTS, &digest, HOUR, again);
        assert_eq!(collected.await.unwrap(), Collected::Gone);
        assert!(is_there(&store, &digest).await, "{size}");
        // Nor is it taken before its writer has had the time to name it.
        let now = Store {
            clock: Arc::new(SystemClock),
            ..store.clone()
        };
        let collected = now.collect(REPORT_OBJECTS, &digest, HOUR, async || Ok(false));
        assert_eq!(collected.await.unwrap(), Collected::Young);
    }
}

async fn named_objects_are_replaced_and_counted(store: Store) {
    let name = Digest::of(b"a layer and a set of analyzers");
    assert_eq!(store.usage(LAYER_OBJECTS).await.unwrap().messages, 0);
    assert!(
        store
            .named(LAYER_OBJECTS, &name, 10)
            .await
            .unwrap()
            .is_none()
    );
    for size in [600_000, 0, 256 * 1024 + 1, 100] {
        let bytes: Bytes = (0..size).map(|n: u32| (n % 241) as u8).collect();
        store
            .put_named(LAYER_OBJECTS, &name, bytes.clone())
            .await
            .unwrap();
        let read = store.named(LAYER_OBJECTS, &name, 600_000).await.unwrap();
        assert!(read.as_ref() == Some(&bytes), "{size}");
    }
    let large = store.named(LAYER_OBJECTS, &name, 99).await;
    assert!(
        matches!(large, Err(StoreError::TooLarge { size: 100, .. })),
        "{large:?}"
    );
    let usage = store.usage(LAYER_OBJECTS).await.unwrap();
    assert!(usage.messages > 0 && usage.bytes >= 100, "{usage:?}");
    store.put(LEASES, "layer.a", &1, None).await.unwrap();
    assert!(store.exists(LEASES, "layer.a").await.unwrap());
    store.delete(LEASES, "layer.a").await.unwrap();
    assert!(!store.exists(LEASES, "layer.a").await.unwrap());
}

async fn limits_hold(store: Store) {
    let digest = store
        .put_object_bytes(REPORT_OBJECTS, vec![1; 1000].into())
        .await
        .unwrap();
    let read = store.object_bytes(REPORT_OBJECTS, &digest, 999).await;
    assert!(
        matches!(read, Err(StoreError::TooLarge { size: 1000, .. })),
        "{read:?}"
    );
    let large = store
        .put(CONFIG, "large", &"x".repeat(1_000_000), None)
        .await;
    assert!(
        matches!(large, Err(PutError::Store(StoreError::TooLarge { .. }))),
        "{large:?}"
    );
}

async fn keys_are_checked(store: Store) {
    for key in ["", "a b", "a.>", "*"] {
        let put = store.put(CONFIG, key, &1, None).await;
        assert!(
            matches!(put, Err(PutError::Store(StoreError::Key(_)))),
            "{key}"
        );
        assert!(
            matches!(store.get::<u32>(CONFIG, key).await, Err(StoreError::Key(_))),
            "{key}"
        );
    }
}

async fn an_outcome_is_applied_in_order(store: Store) {
    let (one, two) = (image("one"), image("two"));
    let outcome = Outcome::none().put(&one, &known(1), 0).unwrap();
    let outcome = outcome.put(&two, &known(2), 7).unwrap();
    assert_eq!(outcome.records::<Known>().len(), 2);
    assert!(matches!(
        store.apply(&outcome).await,
        Err(PutError::Conflict)
    ));
    // What stands before the conflict is written; the handler runs again and sees it.
    assert!(store.record::<Known>(&one).await.unwrap().is_some());
    assert!(store.record::<Known>(&two).await.unwrap().is_none());
}
