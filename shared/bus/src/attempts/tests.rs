use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{
    Digest, Known, RecordKey, Slug, What,
    event::{ImageScan, JOBS, Priority},
};

use super::*;
use crate::{
    Config, Consume, Delivery, Failure, GivenUp, Handler, Outcome,
    testing::{World, eventually, letters, queue_is_empty},
};

const CONSUMER: &str = "image_norm";

/// What a job's handler does, by what it was told.
type Act = dyn Fn(&Delivery<ImageScan>) -> Does + Send + Sync;

enum Does {
    Ends,
    /// It never ends: the process is killed meanwhile.
    Hangs,
    Fails,
}

/// Jobs that were handled, in order, and those that were answered for.
#[derive(Clone)]
struct Jobs {
    act: Arc<Act>,
    begun: Arc<Mutex<Vec<(String, bool)>>>,
    answered: Arc<Mutex<Vec<GivenUp>>>,
}

impl Jobs {
    fn new(act: impl Fn(&Delivery<ImageScan>) -> Does + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            act: Arc::new(act),
            begun: Arc::default(),
            answered: Arc::default(),
        })
    }

    /// How often a job began, and how often alone.
    fn begun(&self, name: &str) -> (usize, usize) {
        let begun = self.begun.lock().unwrap();
        let of_job = begun.iter().filter(|(job, _)| job == name);
        let alone = of_job.clone().filter(|(_, alone)| *alone).count();
        (of_job.count(), alone)
    }

    /// One answer was given, for this reason, and stored.
    async fn answered_once(&self, name: &str, bus: &Bus, is_expected: impl Fn(&GivenUp) -> bool) {
        let answered = self.answered.lock().unwrap().clone();
        let [why] = answered.as_slice() else {
            panic!("one answer, not {answered:?}");
        };
        assert!(is_expected(why), "{why:?}");
        let answer = bus.store().record::<Known>(&key(name)).await.unwrap();
        assert!(answer.is_some());
    }

    async fn until_begun(&self, name: &str, times: usize) {
        eventually("the handler begins", async || self.begun(name).0 == times).await;
    }
}

impl Handler for Jobs {
    type Input = ImageScan;

    async fn handle(&self, delivery: Delivery<ImageScan>) -> Result<Outcome, Failure> {
        let name = delivery.body.cause.clone();
        self.begun.lock().unwrap().push((name, delivery.alone));
        match (self.act)(&delivery) {
            Does::Ends => Ok(Outcome::none()),
            Does::Hangs => std::future::pending().await,
            Does::Fails => Err(Failure::retry(anyhow::anyhow!("source is down"))),
        }
    }

    async fn given_up(
        &self,
        delivery: Delivery<ImageScan>,
        why: &GivenUp,
    ) -> Result<Outcome, Failure> {
        self.answered.lock().unwrap().push(why.clone());
        Ok(Outcome::none().put(&key(&delivery.body.cause), &Known::default(), 0)?)
    }
}

fn key(name: &str) -> RecordKey {
    let image = Digest::of(name.as_bytes());
    RecordKey::new(&Slug::default_tenant(), image, What::Known)
}

async fn publish(bus: &Bus, name: &str) {
    let job = ImageScan {
        image: Digest::of(name.as_bytes()),
        source: "main".parse().unwrap(),
        repository: "app".to_owned(),
        reference: format!("r.example/app:{name}"),
        index: None,
        cause: name.to_owned(),
        priority: Priority::Norm,
        force: false,
        manifest: None,
        on_node: None,
    };
    bus.publish(&Slug::default_tenant(), &job).await.unwrap();
}

fn jobs(bus: &Bus, concurrency: usize) -> Consume {
    Consume::new(bus, JOBS, CONSUMER, concurrency)
}

/// A world in which a death is noticed soon.
async fn world() -> Option<World> {
    World::with(|config| Config {
        ack_wait_ms: 900,
        lease_ms: 900,
        ..config
    })
    .await
}

async fn attempts(bus: &Bus, sequence: u64) -> Attempts {
    let ledger = Ledger::new(bus, JOBS, CONSUMER, sequence);
    ledger.read().await.unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn three_deaths_the_last_one_alone_make_a_dead_letter_that_was_answered_for() {
    let Some(world) = world().await else {
        return;
    };
    let bus = &world.bus;
    let handler = Jobs::new(|_| Does::Hangs);
    publish(bus, "poison").await;
    let mortals = [
        world.mortal().await,
        world.mortal().await,
        world.mortal().await,
    ];
    for (deaths, mortal) in (0..).zip(mortals) {
        mortal.serve(jobs(bus, 4), Arc::clone(&handler));
        handler.until_begun("poison", deaths + 1).await;
        let found = attempts(bus, 1).await;
        assert_eq!(found.crashes as usize, deaths);
        assert_eq!(found.open.is_some_and(|open| open.alone), deaths == 2);
        mortal.kill();
    }
    assert_eq!(handler.begun("poison"), (3, 1));
    bus.consume(&world.cx, jobs(bus, 4), Arc::clone(&handler));
    let letters = letters(bus, 1).await;
    insta::assert_snapshot!(letters[0].cause, @"it killed its process 3 times, the last time alone");
    let counts = letters[0].attempts;
    assert_eq!((counts.crashes, counts.transient), (3, 0));
    queue_is_empty(bus).await;
    assert_eq!(handler.begun("poison"), (3, 1));
    let is_expected = |why: &GivenUp| matches!(why, GivenUp::Broken(_));
    handler.answered_once("poison", bus, is_expected).await;
    eventually("the record goes", async || {
        attempts(bus, 1).await == Attempts::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_job_that_ran_beside_a_poisonous_one_survives() {
    let Some(world) = world().await else {
        return;
    };
    let bus = &world.bus;
    // The healthy one needs some time, so it dies with its process, unless it is alone.
    let handler = Jobs::new(|delivery| match &*delivery.body.cause {
        "healthy" if delivery.alone => Does::Ends,
        _ => Does::Hangs,
    });
    for name in ["poison", "healthy"] {
        publish(bus, name).await;
    }
    let mortals = [
        world.mortal().await,
        world.mortal().await,
        world.mortal().await,
    ];
    for (deaths, mortal) in (0..).zip(mortals) {
        mortal.serve(jobs(bus, 4), Arc::clone(&handler));
        handler.until_begun("poison", deaths + 1).await;
        if deaths < 2 {
            handler.until_begun("healthy", deaths + 1).await;
        }
        mortal.kill();
    }
    bus.consume(&world.cx, jobs(bus, 4), Arc::clone(&handler));
    queue_is_empty(bus).await;
    assert_eq!(handler.begun("poison"), (3, 1));
    assert_eq!(handler.begun("healthy"), (3, 1));
    let letters = letters(bus, 1).await;
    assert_eq!(letters[0].sequence, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn four_transient_failures_count_no_crash() {
    let Some(world) = world().await else {
        return;
    };
    let bus = &world.bus;
    let handler = Jobs::new(|delivery| match delivery.attempt {
        ..=4 => Does::Fails,
        _ => Does::Hangs,
    });
    publish(bus, "unlucky").await;
    bus.consume(&world.cx, jobs(bus, 4), Arc::clone(&handler));
    handler.until_begun("unlucky", 5).await;
    let found = attempts(bus, 1).await;
    assert_eq!((found.crashes, found.transient), (0, 4));
    assert!(!found.condemned && found.since.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_too_long_is_a_dead_letter_with_its_cause() {
    let Some(world) = World::with(|config| Config {
        retry_for_s: 1,
        ..config
    })
    .await
    else {
        return;
    };
    let bus = &world.bus;
    let handler = Jobs::new(|_| Does::Fails);
    publish(bus, "unlucky").await;
    bus.consume(&world.cx, jobs(bus, 4), Arc::clone(&handler));
    let letters = letters(bus, 1).await;
    let cause = &letters[0].cause;
    assert!(cause.ends_with("s: source is down"), "{cause}");
    assert!(letters[0].attempts.transient > 2, "{cause}");
    assert_eq!(letters[0].attempts.crashes, 0);
    queue_is_empty(bus).await;
    // Whoever waits for it was told, before it became a dead letter.
    handler
        .answered_once("unlucky", bus, |why| *why == GivenUp::Away(cause.clone()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_its_handler_is_answered_for_too() {
    let Some(world) = world().await else {
        return;
    };
    let bus = &world.bus;
    let handler = Jobs::new(|_| panic!("a bug"));
    publish(bus, "broken").await;
    bus.consume(&world.cx, jobs(bus, 4), Arc::clone(&handler));
    let letters = letters(bus, 1).await;
    assert!(letters[0].cause.contains("a bug"), "{}", letters[0].cause);
    handler
        .answered_once("broken", bus, |why| matches!(why, GivenUp::Broken(_)))
        .await;
}

/// A consumer that never gives up.
struct Patient(Arc<Jobs>);

impl Handler for Patient {
    type Input = ImageScan;

    const GIVES_UP: bool = false;

    async fn handle(&self, delivery: Delivery<ImageScan>) -> Result<Outcome, Failure> {
        self.0.handle(delivery).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_never_gives_up_tries_until_it_works() {
    let Some(world) = World::with(|config| Config {
        retry_for_s: 0,
        ..config
    })
    .await
    else {
        return;
    };
    let bus = &world.bus;
    let handler = Jobs::new(|delivery| match delivery.attempt {
        ..=5 => Does::Fails,
        _ => Does::Ends,
    });
    publish(bus, "patient").await;
    let patient = Arc::new(Patient(Arc::clone(&handler)));
    bus.consume(&world.cx, jobs(bus, 4), patient);
    handler.until_begun("patient", 6).await;
    queue_is_empty(bus).await;
    let letters = bus.dead_letters(None, 10).await.unwrap();
    assert!(letters.letters.is_empty(), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deaths_are_counted_over_crashes_of_the_server() {
    let Some(mut world) = world().await else {
        return;
    };
    let bus = world.bus.clone();
    let handler = Jobs::new(|_| Does::Hangs);
    publish(&bus, "poison").await;
    for deaths in 0..2 {
        let mortal = world.mortal().await;
        mortal.serve(jobs(&bus, 4), Arc::clone(&handler));
        handler.until_begun("poison", deaths + 1).await;
        // The server stores what it has delivered a tenth of a second later; a delivery that it
        // forgets is the first once more.
        sleep(Duration::from_millis(500)).await;
        mortal.kill();
        world.server.down();
        world.server.up().await;
    }
    bus.consume(&world.cx, jobs(&bus, 4), Arc::clone(&handler));
    handler.until_begun("poison", 3).await;
    let found = attempts(&bus, 1).await;
    assert_eq!(found.crashes, 2);
    assert!(found.open.is_some_and(|open| open.alone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_outage_does_not_make_a_live_holder_look_dead() {
    let Some(mut world) = world().await else {
        return;
    };
    let bus = world.bus.clone();
    let holder = world.mortal().await;
    let hanging = Jobs::new(|_| Does::Hangs);
    publish(&bus, "long").await;
    holder.serve(jobs(&bus, 1), Arc::clone(&hanging));
    hanging.until_begun("long", 1).await;
    world.server.down();
    // Longer than the time to acknowledge, and than any lease lives.
    sleep(bus.config().ack_wait() * 2).await;
    world.server.up().await;
    let taker = Jobs::new(|_| Does::Hangs);
    bus.consume(&world.cx, jobs(&bus, 1), Arc::clone(&taker));
    // As after an outage in which the server's timers ran.
    let handles = holder.bus.0.held(JOBS, CONSUMER).handles();
    let [handle] = handles.as_slice() else {
        panic!("one job is held, not {handles:?}");
    };
    bus.0.wire.send(handle.clone(), "-NAK".into()).await;
    taker.until_begun("long", 1).await;
    assert_eq!(attempts(&bus, 1).await.crashes, 0);
    holder.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopping_process_gives_back_counts_no_crash() {
    let Some(world) = world().await else {
        return;
    };
    let bus = &world.bus;
    let (other_cx, other) = world.other().await;
    let hanging = Jobs::new(|_| Does::Hangs);
    for name in ["one", "two"] {
        publish(bus, name).await;
    }
    other.consume(&other_cx, jobs(&other, 4), Arc::clone(&hanging));
    for name in ["one", "two"] {
        hanging.until_begun(name, 1).await;
    }
    other_cx.stop();
    assert!(other_cx.finish(Duration::from_secs(5)).await);
    let again = Jobs::new(|_| Does::Hangs);
    bus.consume(&world.cx, jobs(bus, 4), Arc::clone(&again));
    for (sequence, name) in [(1, "one"), (2, "two")] {
        again.until_begun(name, 1).await;
        assert_eq!(attempts(bus, sequence).await.crashes, 0);
    }
}
