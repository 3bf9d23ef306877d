//! What is over is written down, told and taken out, whoever dies in between.

use std::{future::ready, sync::Mutex};

use bus::BusError;
use futures::{FutureExt as _, future::BoxFuture};

use super::*;
use crate::response::{
    keeper::{Tells, pass},
    start_gate::Gates,
};

/// What upkeep tells, and whether anybody hears it.
#[derive(Default)]
struct Heard {
    told: Mutex<Vec<(Stage, String)>>,
    is_deaf: Mutex<bool>,
}

impl Tells for Heard {
    fn tell<'a>(
        &'a self,
        tenant: &'a Slug,
        news: ContainerResponded,
    ) -> BoxFuture<'a, Result<(), BusError>> {
        if *self.is_deaf.lock().unwrap() {
            return ready(Err(BusError::Server("gone".to_owned()))).boxed();
        }
        let told = (news.stage, news.message_id(tenant));
        self.told.lock().unwrap().push(told);
        ready(Ok(())).boxed()
    }
}

impl Heard {
    async fn pass(&self, world: &World, is_up: bool) {
        self.pass_with(world, &Gates::default(), is_up).await;
    }

    async fn pass_with(&self, world: &World, gates: &Gates, is_up: bool) {
        *self.is_deaf.lock().unwrap() = !is_up;
        pass(&world.responder, gates, self).await;
        world.follows().await;
    }

    fn told(&self) -> Vec<(Stage, String)> {
        self.told.lock().unwrap().clone()
    }
}

impl World {
    /// The census has what every node shall do.
    async fn follows(&self) {
        let all = self.store.list::<SignedDesired>(NODES, "default.").await;
        for (key, stored) in all.unwrap() {
            let on = node(key.split('.').nth(1).unwrap());
            let desired = Some((stored.revision, stored.body));
            self.responder.census.shall(&tenant(), &on, desired);
        }
    }

    async fn in_force(&self) -> Incident {
        self.reported("n1", vec![container("c1"), container("c2")]);
        let one = incident(1, "n1", "c1");
        self.happens(one.clone()).await;
        self.follows().await;
        one
    }
}

#[tokio::test]
async fn what_is_over_is_told_once_and_taken_out() {
    let world = World::new(&enforcing(", for: 1h"));
    let one = world.in_force().await;
    let heard = Heard::default();
    heard.pass(&world, true).await;
    assert_eq!(world.desired("n1").await.generation, 1);
    world.clock.advance(SignedDuration::from_hours(1));
    heard.pass(&world, true).await;
    assert_eq!(world.stages(&one).await, [Stage::Expired]);
    let desired = world.desired("n1").await;
    assert_eq!((desired.generation, desired.responses.len()), (2, 0));
    heard.pass(&world, true).await;
    let stages: Vec<Stage> = heard.told().iter().map(|(stage, _)| *stage).collect();
    assert_eq!(stages, [Stage::Expired]);
}

#[tokio::test]
async fn who_dies_before_it_is_told_leaves_it_to_the_next() {
    let world = World::new(&enforcing(", for: 1h"));
    let one = world.in_force().await;
    world.clock.advance(SignedDuration::from_hours(1));
    let heard = Heard::default();
    heard.pass(&world, false).await;
    // It is written down, and stands in the document still.
    assert_eq!(world.stages(&one).await, [Stage::Expired]);
    assert_eq!(world.desired("n1").await.responses.len(), 1);
    world.clock.advance(SignedDuration::from_secs(20));
    heard.pass(&world, true).await;
    assert_eq!(heard.told().len(), 1);
    let record = world.record(&one.id).await;
    let at = record.responses[0].steps.last().unwrap().at;
    assert_eq!(at, start() + SignedDuration::from_hours(1));
    assert_eq!(world.desired("n1").await.responses.len(), 0);
}

#[tokio::test]
async fn a_copy_of_what_is_told_has_the_same_id() {
    let world = World::new(&enforcing(", for: 1h"));
    world.in_force().await;
    let before = world.signed("n1").await.unwrap();
    world.clock.advance(SignedDuration::from_hours(1));
    let heard = Heard::default();
    heard.pass(&world, true).await;
    // The next one has not heard yet that the document was written.
    world
        .responder
        .census
        .shall(&tenant(), &node("n1"), Some((1, before)));
    world.clock.advance(SignedDuration::from_secs(5));
    heard.pass(&world, true).await;
    let told = heard.told();
    assert_eq!((told.len(), &told[0]), (2, &told[1]));
}

#[tokio::test]
async fn what_somebody_took_back_meanwhile_is_not_over() {
    let world = World::new(&enforcing(", for: 1h"));
    let one = world.in_force().await;
    world
        .order("o1", &one, Order::Release { response: None }, false)
        .await;
    world.clock.advance(SignedDuration::from_mins(61));
    let heard = Heard::default();
    heard.pass(&world, true).await;
    assert_eq!(world.stages(&one).await, [Stage::Released]);
    assert_eq!(heard.told(), []);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_keeps_no_other_node_waiting() {
    let world = World::new(&enforcing(", for: 1h"));
    world.reported("n1", vec![container("c1"), container("c2")]);
    world.reported("n2", vec![container("c3"), container("c4")]);
    let (one, two) = (incident(1, "n1", "c1"), incident(2, "n2", "c3"));
    world.happens(one.clone()).await;
    world.happens(two.clone()).await;
    world.follows().await;
    let key = ResponseRecord::key(&tenant(), &one.id);
    world
        .store
        .put(RESPONSE_RECORDS, &key, &7, None)
        .await
        .unwrap();
    world.clock.advance(SignedDuration::from_hours(1));
    let heard = Heard::default();
    heard.pass(&world, true).await;
    assert_eq!(world.stages(&two).await, [Stage::Expired]);
    assert_eq!(heard.told().len(), 1);
}

#[tokio::test]
async fn a_document_is_written_anew_long_before_nobody_takes_it() {
    let world = World::new(&enforcing(", for: 20d"));
    world.in_force().await;
    let heard = Heard::default();
    for (days, generation) in [(3, 1), (1, 2), (1, 2)] {
        world.clock.advance(SignedDuration::from_hours(24 * days));
        heard.pass(&world, true).await;
        assert_eq!(world.desired("n1").await.generation, generation, "{days}");
    }
}

#[tokio::test]
async fn a_gate_stays_while_nobody_knows_what_it_should_be() {
    let world = World::new("name: gate\nstart_gate: { mode: enforce, unknown: refuse }\n");
    world.reported("n1", vec![container("c1")]);
    let mut gates = Gates::default();
    gates.look(&world.responder).await;
    let heard = Heard::default();
    heard.pass_with(&world, &gates, true).await;
    let gate = world.desired("n1").await.start_gate.unwrap();
    assert!(gate.refuses_unknown);
    // Who keeps responses next has not heard of the node yet.
    let mut next = World::new("name: gate\nstart_gate: { mode: enforce, unknown: refuse }\n");
    next.store = world.store.clone();
    next.responder.store = world.store.clone();
    next.responder.signer = Arc::clone(&world.responder.signer);
    next.follows().await;
    let mut gates = Gates::default();
    gates.look(&next.responder).await;
    heard.pass_with(&next, &gates, true).await;
    assert_eq!(world.desired("n1").await.start_gate, Some(gate));
    // Nobody asks for it any more.
    next.responder.policies = watch::channel(Arc::new(policies("name: none\n"))).1;
    let mut gates = Gates::default();
    gates.look(&next.responder).await;
    heard.pass_with(&next, &gates, true).await;
    assert_eq!(world.desired("n1").await.start_gate, None);
}
