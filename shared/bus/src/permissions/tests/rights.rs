//! What roles do seldom, they may do too: the end-to-end tests show the rest.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use model::{
    Slug,
    event::{
        ADVISORIES, ALERT_STATES, ALERTS, CONFIG, EVENTS, FEED_OBJECTS, ImagePushed, REFS,
        REPORT_OBJECTS, RESULTS,
    },
};
use tokio::time::Instant;

use super::fleet::Fleet;
use crate::{
    Bus, Consume, Delivery, Failure, Handler, Outcome, Retried,
    permissions::Role,
    store::claims::MESSAGE_BYTES_MAX,
    testing::{eventually, letters, pushed},
};

/// A handler that gives the first message up, and takes the second after another try.
#[derive(Default)]
struct Moody(AtomicU32);

impl Handler for Moody {
    type Input = ImagePushed;

    async fn handle(&self, _: Delivery<ImagePushed>) -> Result<Outcome, Failure> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Failure::reject(anyhow::anyhow!("no such layout"))),
            1 => Err(Failure::Retry(anyhow::anyhow!("not now"))),
            _ => Ok(Outcome::none()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_event_is_given_up_and_sent_back_by_the_operator() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let (gateway, router) = (
        fleet.role(Role::Gateway).await,
        fleet.role(Role::Router).await,
    );
    let operator = fleet.role(Role::Operator).await;
    let moody = Arc::new(Moody::default());
    let consume = Consume::new(&router, EVENTS, "router", 1);
    router.consume(&fleet.cx, consume, Arc::clone(&moody));
    let large = pushed(&"x".repeat(MESSAGE_BYTES_MAX + 1));
    let tenant = Slug::default_tenant();
    gateway.publish(&tenant, &large).await.unwrap();
    letters(&operator, 1).await;
    let page = operator.dead_letters(None, 1).await.unwrap();
    let retried = operator.retry_letter(page.letters[0].number).await;
    assert_eq!(retried.unwrap(), Some(Retried::Again));
    // The second try leaves a record of its attempts, and the third ends it.
    eventually("three tries", async || moody.0.load(Ordering::SeqCst) == 3).await;
    letters(&operator, 0).await;
    router.look().await;
    assert_eq!(router.queues().len(), 1);
    for bus in [gateway, router, operator] {
        assert_eq!(bus.0.wire.denied_so_far(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_replaces_an_object_deletes_it() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    for (role, bucket) in [
        (Role::Router, REPORT_OBJECTS),
        (Role::Scanner, REPORT_OBJECTS),
        (Role::Matcher, REPORT_OBJECTS),
        (Role::Policy, REPORT_OBJECTS),
        (Role::Matcher, FEED_OBJECTS),
    ] {
        let store = fleet.role(role).await.store();
        let bytes = Bytes::from(vec![7; 600_000]);
        let digest = store.put_object_bytes(bucket, bytes).await.unwrap();
        let found = store.object_bytes(bucket, &digest, 1_000_000).await;
        assert!(found.unwrap().is_some(), "{role}");
        store.delete_object(bucket, &digest).await.unwrap();
        let found = store.object_bytes(bucket, &digest, 1_000_000).await;
        assert!(found.unwrap().is_none(), "{role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_waits_and_lists_are_had_by_who_needs_them() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let cx = &fleet.cx;
    for (role, name) in [
        (Role::Router, "crawl.main"),
        (Role::Scanner, "layer.00ff.base"),
        (Role::Matcher, "feeds"),
        (Role::Matcher, "partition.matcher.0"),
        (Role::Matcher, "partition.matcher.member-3"),
        (Role::Policy, "partition.policy.f"),
        (Role::Alerting, "process.00ff"),
    ] {
        let bus = fleet.role(role).await;
        let lease = bus.lease(cx, name).await.unwrap();
        lease.unwrap().release().await;
        assert_eq!(bus.0.wire.denied_so_far(), 0, "{role} {name}");
    }
    let waits = async |bus: &Bus, bucket: &str| {
        let until = Instant::now() + Duration::from_millis(50);
        let never = async || Ok::<Option<u32>, crate::StoreError>(None);
        bus.wait(&[format!("{bucket}/default")], until, never).await
    };
    let inventory = fleet.role(Role::Inventory).await;
    let alerting = fleet.role(Role::Alerting).await;
    for bus in [&inventory, &alerting] {
        for bucket in [REFS, "tw_images_0", "tw_images_f"] {
            assert_eq!(waits(bus, bucket).await.unwrap(), None);
        }
    }
    let lists = async |bus: &Bus, bucket: &str, prefix: &str| {
        let found = bus.store().list::<serde_json::Value>(bucket, prefix).await;
        assert!(found.unwrap().len() < 2, "{bucket}");
        assert_eq!(bus.0.wire.denied_so_far(), 0, "{bucket}");
    };
    let (gateway, router) = (
        fleet.role(Role::Gateway).await,
        fleet.role(Role::Router).await,
    );
    lists(&gateway, CONFIG, "tokens.").await;
    lists(&router, REFS, "default.tag.00ff.").await;
    lists(&alerting, ALERT_STATES, "").await;
    lists(&fleet.role(Role::Provisioner).await, CONFIG, "tokens.").await;
    // Advisories that are handed in, and taken up.
    let put = inventory
        .store()
        .put(ADVISORIES, "inbox.00ff", &1, None)
        .await;
    let revision = put.unwrap();
    let matcher = fleet.role(Role::Matcher).await;
    lists(&matcher, ADVISORIES, "inbox.").await;
    let store = matcher.store();
    let gone = store.delete_at(ADVISORIES, "inbox.00ff", revision).await;
    gone.unwrap();
    assert_eq!(
        alerting.durables(ALERTS).await.unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(alerting.backlog(RESULTS, "alerting").await.unwrap(), 0);
    for bus in [inventory, alerting, matcher] {
        assert_eq!(bus.0.wire.denied_so_far(), 0);
    }
}
