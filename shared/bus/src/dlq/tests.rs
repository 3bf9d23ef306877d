use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use model::{
    Digest, Known, RecordKey, Slug, What,
    event::{EVENTS, ImagePushed, images_bucket},
};

use super::*;
use crate::{
    Delivery, Failure, Handler, Input, Outcome, Stored,
    testing::{World, eventually, letters, pushed},
    topology::bucket_stream,
};

/// A handler that rejects everything until it is repaired.
struct Broken<I> {
    repaired: AtomicBool,
    handled: Mutex<Vec<Delivery<I>>>,
}

impl<I: Input + Sync + Clone> Broken<I> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            repaired: AtomicBool::new(false),
            handled: Mutex::default(),
        })
    }

    fn repair(&self) {
        self.repaired.store(true, Ordering::SeqCst);
    }

    fn handled(&self) -> Vec<Delivery<I>> {
        self.handled.lock().unwrap().clone()
    }
}

impl<I: Input + Sync + Clone> Handler for Broken<I> {
    type Input = I;

    async fn handle(&self, delivery: Delivery<I>) -> Result<Outcome, Failure> {
        if !self.repaired.load(Ordering::SeqCst) {
            return Err(Failure::reject(anyhow::anyhow!("no such layout")));
        }
        self.handled.lock().unwrap().push(delivery);
        Ok(Outcome::none())
    }
}

async fn publish(bus: &Bus, repository: &str) {
    let event = pushed(repository);
    bus.publish(&Slug::default_tenant(), &event).await.unwrap();
}

fn routing(bus: &Bus, durable: &str) -> Consume {
    Consume::new(bus, EVENTS, durable, 4)
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_newest_first_in_pages() {
    let Some(world) = World::start().await else {
        return;
    };
    let bus = &world.bus;
    bus.consume(
        &world.cx,
        routing(bus, "router"),
        Broken::<ImagePushed>::new(),
    );
    for n in 0..5 {
        publish(bus, &format!("app-{n}")).await;
    }
    letters(bus, 5).await;
    assert!(bus.drop_letter(4).await.unwrap());
    assert!(!bus.drop_letter(4).await.unwrap());
    let numbers = |page: &Letters| -> Vec<u64> {
        let letters = page.letters.iter();
        letters.map(|letter| letter.number).collect()
    };
    let first = bus.dead_letters(None, 2).await.unwrap();
    assert_eq!((numbers(&first), first.before), (vec![5, 3], Some(3)));
    let second = bus.dead_letters(first.before, 9).await.unwrap();
    assert_eq!((numbers(&second), second.before), (vec![2, 1], None));
    assert_eq!(bus.dead_letter(4).await.unwrap(), None);
    let one = bus.dead_letter(5).await.unwrap().unwrap();
    assert_eq!(one.letter.attempts.delivered, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_event_comes_again_to_the_consumer_that_gave_it_up_and_once() {
    let Some(world) = World::start().await else {
        return;
    };
    let bus = &world.bus;
    let (broken, healthy) = (Broken::<ImagePushed>::new(), Broken::<ImagePushed>::new());
    healthy.repair();
    bus.consume(&world.cx, routing(bus, "router"), Arc::clone(&broken));
    bus.consume(&world.cx, routing(bus, "second"), Arc::clone(&healthy));
    publish(bus, "app").await;
    letters(bus, 1).await;
    let letter = bus.dead_letter(1).await.unwrap().unwrap().letter;
    broken.repair();
    assert_eq!(bus.retry_letter(1).await.unwrap(), Some(Retried::Again));
    // The same letter once more, as from a second window.
    assert_eq!(bus.retry_letter(1).await.unwrap(), None);
    bus.publish_again(&letter).await.unwrap();
    eventually("it is handled", async || !broken.handled().is_empty()).await;
    publish(bus, "another").await;
    eventually("another too", async || broken.handled().len() == 2).await;
    let handled = broken.handled();
    assert_eq!(handled[0].body, pushed("app"));
    assert_eq!(handled[0].id, pushed_id("app"));
    assert!(handled[0].retried && !handled[1].retried);
    eventually("the healthy one has both", async || {
        healthy.handled().len() == 2
    })
    .await;
    let repositories: Vec<_> = healthy
        .handled()
        .into_iter()
        .map(|delivery| delivery.body.repository)
        .collect();
    assert_eq!(repositories, ["app", "another"]);
    letters(bus, 0).await;
}

fn pushed_id(repository: &str) -> String {
    use model::event::Event as _;
    pushed(repository).message_id(&Slug::default_tenant())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_record_comes_again_unchanged_unless_it_was_replaced() {
    let Some(world) = World::start().await else {
        return;
    };
    let bus = &world.bus;
    let tenant = Slug::default_tenant();
    let key = RecordKey::new(&tenant, Digest::of(b"image"), What::Known);
    let known = Known {
        // So large that its body is an object.
        labels: [("a".to_owned(), "x".repeat(9_000))].into(),
        ..Known::default()
    };
    let partition = key.image.partition();
    let stream = bucket_stream(&images_bucket(partition));
    let broken = Broken::<Known>::new();
    let consume = Consume::new(bus, &stream, &format!("policy_known_{partition}"), 4);
    bus.consume(&world.cx, consume, Arc::clone(&broken));
    let store = bus.store();
    let first = store.put_record(&key, &known, 0).await.unwrap();
    letters(bus, 1).await;
    broken.repair();
    assert_eq!(bus.retry_letter(1).await.unwrap(), Some(Retried::Again));
    eventually("it is handled", async || broken.handled().len() == 1).await;
    let again = &broken.handled()[0];
    assert!(again.sequence > first);
    assert_eq!((&again.body, again.key.as_ref()), (&known, Some(&key)));
    let stored = Stored {
        revision: again.sequence,
        body: known.clone(),
    };
    assert_eq!(store.record::<Known>(&key).await.unwrap(), Some(stored));

    broken.repaired.store(false, Ordering::SeqCst);
    let second = store.put_record(&key, &known, again.sequence).await;
    letters(bus, 1).await;
    broken.repair();
    let newer = Known::default();
    let third = store.put_record(&key, &newer, second.unwrap()).await;
    let number = bus.dead_letters(None, 1).await.unwrap().letters[0].number;
    assert_eq!(
        bus.retry_letter(number).await.unwrap(),
        Some(Retried::Superseded)
    );
    let stored = store.record::<Known>(&key).await.unwrap().unwrap();
    assert_eq!((stored.revision, stored.body), (third.unwrap(), newer));
}

#[test]
fn a_trace_is_kept_only_where_it_is_one() {
    let check = |text: &str| trace(&Headers::default().with("traceparent", text));
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(
        check(good).as_deref(),
        Some("0af7651916cd43dd8448eb211c80319c")
    );
    for bad in ["", "00", "00-short-b7ad6b7169203331-01"] {
        assert_eq!(check(bad), None, "{bad}");
    }
}
