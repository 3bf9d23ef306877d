//! What is over is written down, told and taken out, whoever dies in between.

use std::{future::ready, sync::Mutex};

use bus::BusError;
use futures::{FutureExt as _, future::BoxFuture};

use super::*;
use crate::response::{
    judged::Judgements,
    keeper::{Looked, Tells, lapse_due, pass},
    replay::replay,
    start_gate::Gates,
    waiting::Waiting,
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
        let mut looked = Looked::default();
        pass(&world.responder, (gates, &mut looked), self).await;
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

    /// What behavior wrote of an incident.
    async fn is_now(&self, one: &Incident, state: IncidentState) {
        let one = Incident {
            state,
            ..one.clone()
        };
        let key = ResponseRecord::key(&tenant(), &one.id);
        let put = self.store.put(INCIDENTS, &key, &one, None).await;
        put.unwrap();
    }
}

#[tokio::test]
async fn what_lasts_is_renewed_while_its_incident_is_open_and_as_often_as_its_rule_says() {
    let world = World::new(&enforcing(", for: 1h, renew: 2"));
    let one = world.in_force().await;
    world.is_now(&one, IncidentState::Open).await;
    let heard = Heard::default();
    let ends = async || world.desired("n1").await.responses[0].expires_at;
    // Nothing is to be done long before its end.
    world.clock.set(start() + SignedDuration::from_mins(44));
    heard.pass(&world, true).await;
    assert_eq!(ends().await, start() + SignedDuration::from_hours(1));
    for hours in [1, 2] {
        world.clock.set(start() + SignedDuration::from_hours(hours));
        world.clock.advance(SignedDuration::from_mins(-10));
        heard.pass(&world, true).await;
        heard.pass(&world, true).await;
        let until = start() + SignedDuration::from_hours(hours + 1);
        assert_eq!(ends().await, until);
        assert_eq!(world.ledger().await.entries[0].out_until, Some(until));
    }
    let record = world.record(&one.id).await;
    let steps = record.responses[0].steps.iter();
    let steps: Vec<&str> = steps.map(|step| step.detail.as_str()).collect();
    assert_eq!(
        steps[1..],
        [
            "renewed until 2026-03-01T14:00:00Z, for its incident is open; 1 renewals are left",
            "renewed until 2026-03-01T15:00:00Z, for its incident is open; 0 renewals are left",
        ]
    );
    // Then it is over, and says that it should not be.
    world.clock.set(start() + SignedDuration::from_hours(3));
    heard.pass(&world, true).await;
    assert_eq!(world.stages(&one).await, [Stage::Expired]);
    let record = world.record(&one.id).await;
    let last = record.responses[0].steps.last().unwrap();
    assert!(last.detail.contains("incident is open"), "{last:?}");
    assert!(world.desired("n1").await.responses.is_empty());
    let told: Vec<Stage> = heard.told().iter().map(|(stage, _)| *stage).collect();
    assert_eq!(told, [Stage::Ordered, Stage::Ordered, Stage::Expired]);
}

#[tokio::test]
async fn what_nobody_needs_any_more_is_not_renewed() {
    let cases = [
        // Its incident is closed, or was forgotten.
        (", for: 1h", Some(IncidentState::Closed)),
        (", for: 1h", None),
        // It is only tried, or its rule says so.
        (", for: 1h, mode: dry_run", Some(IncidentState::Open)),
        (", for: 1h, renew: 0", Some(IncidentState::Open)),
    ];
    for (rule, state) in cases {
        let world = World::new(&enforcing(rule));
        let one = world.in_force().await;
        if let Some(state) = state {
            world.is_now(&one, state).await;
        }
        let heard = Heard::default();
        for minutes in [50, 10] {
            world.clock.advance(SignedDuration::from_mins(minutes));
            heard.pass(&world, true).await;
        }
        assert_eq!(world.stages(&one).await, [Stage::Expired], "{rule}");
        let record = world.record(&one.id).await;
        let last = record.responses[0].steps.last().unwrap();
        let warns = last.detail.contains("incident is open");
        assert_eq!(warns, rule.contains("renew: 0"), "{rule}");
    }
}

#[tokio::test]
async fn what_somebody_ordered_for_a_while_ends_then() {
    let world = World::new("name: none\n");
    let one = world.in_force().await;
    world.is_now(&one, IncidentState::Open).await;
    let act = Order::Act {
        action: Action::Pause,
        valid_for_s: 600,
        dry_run: false,
    };
    world.order("o1", &one, act, true).await;
    world.follows().await;
    world.clock.advance(SignedDuration::from_mins(10));
    Heard::default().pass(&world, true).await;
    let record = world.record(&one.id).await;
    let paused = record.responses.last().unwrap();
    let last = paused.steps.last().unwrap();
    assert_eq!(paused.stage, Stage::Expired);
    assert!(last.detail.contains("incident is open"), "{last:?}");
}

#[tokio::test]
async fn who_dies_while_renewing_leaves_no_container_counted_as_serving() {
    let world = World::new(&enforcing(", for: 1h"));
    let one = world.in_force().await;
    world.is_now(&one, IncidentState::Open).await;
    let (record, desired) = (world.record(&one.id).await, world.signed("n1").await);
    world.clock.advance(SignedDuration::from_mins(50));
    let heard = Heard::default();
    heard.pass(&world, true).await;
    let renewed = world.desired("n1").await.responses[0].expires_at;
    // Between the record and the document.
    let key = Desired::key(&tenant(), &node("n1"));
    let put = world.store.put(NODES, &key, &desired.unwrap(), None).await;
    put.unwrap();
    world.follows().await;
    heard.pass(&world, true).await;
    assert_eq!(world.desired("n1").await.responses[0].expires_at, renewed);
    // Between the ledger and the record.
    let key = ResponseRecord::key(&tenant(), &one.id);
    let put = world.store.put(RESPONSE_RECORDS, &key, &record, None).await;
    put.unwrap();
    assert_eq!(world.ledger().await.entries[0].out_until, Some(renewed));
    let desired = world.signed("n1").await.unwrap();
    let read = world.responder.signer.read(&desired).unwrap();
    assert_eq!(read.responses.len(), 1);
    world.clock.advance(SignedDuration::from_mins(59));
    heard.pass(&world, true).await;
    assert_eq!(world.desired("n1").await.responses[0].expires_at, renewed);
    assert_eq!(world.ledger().await.entries[0].out_until, Some(renewed));
}

/// What follows the bucket, as of now.
async fn waiting(world: &World) -> Waiting {
    let mut waiting = Waiting::default();
    let all = world
        .store
        .list::<ResponseRecord>(RESPONSE_RECORDS, "default.")
        .await;
    for (key, stored) in all.unwrap() {
        waiting.take(&key, Some(&stored.body));
    }
    waiting
}

impl Heard {
    async fn lapses(&self, world: &World, waiting: &mut Waiting, is_up: bool) {
        *self.is_deaf.lock().unwrap() = !is_up;
        lapse_due(&world.responder, waiting, self).await;
    }
}

#[tokio::test]
async fn what_nobody_decides_lapses_once_and_may_be_approved_nevertheless() {
    let world = World::new(&enforcing(", mode: propose").replace("evidence", "wait: 2h\nevidence"));
    let one = world.in_force().await;
    let (heard, mut waiting) = (Heard::default(), waiting(&world).await);
    world.clock.advance(SignedDuration::from_mins(119));
    heard.lapses(&world, &mut waiting, true).await;
    assert_eq!(world.stages(&one).await, [Stage::Proposed]);
    // Nobody hears of it, and who looks next tells it.
    world.clock.advance(SignedDuration::from_mins(1));
    heard.lapses(&world, &mut waiting, false).await;
    assert_eq!(world.stages(&one).await, [Stage::Lapsed]);
    world.clock.advance(SignedDuration::from_mins(1));
    let mut next = self::waiting(&world).await;
    for _ in 0..2 {
        heard.lapses(&world, &mut next, true).await;
        heard.lapses(&world, &mut waiting, true).await;
    }
    let stages: Vec<Stage> = heard.told().iter().map(|(stage, _)| *stage).collect();
    assert_eq!(stages, [Stage::Lapsed]);
    assert_eq!(waiting.due(Timestamp::MAX, 9), [""; 0]);
    // The incident does not bring it back when it grows, somebody does.
    world.happens(one.clone()).await;
    assert_eq!(world.stages(&one).await, [Stage::Lapsed]);
    let response = world.record(&one.id).await.responses[0].id.clone();
    let approve = Order::Approve { response };
    world.order("o1", &one, approve, true).await;
    assert_eq!(world.stages(&one).await[0], Stage::Ordered);
}

#[tokio::test]
async fn what_was_proposed_before_it_had_a_time_lapses_too() {
    let world = World::new(&enforcing(", mode: propose"));
    let one = world.in_force().await;
    let mut record = world.record(&one.id).await;
    record.responses[0].expires_at = None;
    let key = ResponseRecord::key(&tenant(), &one.id);
    let put = world.store.put(RESPONSE_RECORDS, &key, &record, None).await;
    put.unwrap();
    let (heard, mut waiting) = (Heard::default(), waiting(&world).await);
    for (hours, stage) in [(71, Stage::Proposed), (1, Stage::Lapsed)] {
        world.clock.advance(SignedDuration::from_hours(hours));
        heard.lapses(&world, &mut waiting, true).await;
        assert_eq!(world.stages(&one).await, [stage]);
    }
}

#[tokio::test]
async fn who_decides_in_time_ends_the_wait() {
    let world = World::new(&enforcing(", mode: propose"));
    let one = world.in_force().await;
    // What is known of the record is older than the decision.
    let (heard, mut waiting) = (Heard::default(), waiting(&world).await);
    let response = world.record(&one.id).await.responses[0].id.clone();
    world
        .order("o1", &one, Order::Deny { response }, false)
        .await;
    world.clock.advance(SignedDuration::from_hours(72));
    heard.lapses(&world, &mut waiting, true).await;
    assert_eq!(world.stages(&one).await, [Stage::Denied]);
    assert_eq!(heard.told(), []);
    assert_eq!(waiting.due(Timestamp::MAX, 9), [""; 0]);
}

#[tokio::test]
async fn nobody_is_asked_about_a_container_that_is_gone() {
    let world = World::new(&enforcing(", mode: propose"));
    let one = world.in_force().await;
    let closed = Incident {
        state: IncidentState::Closed,
        ..one.clone()
    };
    // It is only quiet.
    let told = world.happens(closed.clone()).await;
    assert_eq!(
        (world.stages(&one).await, news(&told)),
        (vec![Stage::Proposed], vec![])
    );
    world.clock.advance(SignedDuration::from_mins(1));
    world.reported("n1", vec![container("c2")]);
    let told = world.happens(closed.clone()).await;
    assert_eq!(world.stages(&one).await, [Stage::Lapsed]);
    assert_eq!(news(&told).len(), 1);
    let again = world.happens(closed).await;
    assert_eq!(news(&again), news(&told));
}

#[tokio::test]
async fn a_replay_renews_what_enforcing_renewed() {
    let at = |minutes| start() + SignedDuration::from_mins(minutes);
    for (renew, state, stage) in [
        (1, IncidentState::Open, Stage::Held),
        (0, IncidentState::Open, Stage::Ordered),
        (1, IncidentState::Closed, Stage::Ordered),
    ] {
        let world = World::new(&enforcing(&format!(", for: 1h, renew: {renew}")));
        let one = world.in_force().await;
        world.is_now(&one, state).await;
        let heard = Heard::default();
        for minutes in [50, 61, 90] {
            world.clock.set(at(minutes));
            heard.pass(&world, true).await;
        }
        // One of two was out of service for an hour: whether the other may be too is the question.
        world.reported("n1", vec![container("c1"), container("c2")]);
        let mut two = incident(2, "n1", "c2");
        two.first_at = at(90);
        world.happens(two.clone()).await;
        assert_eq!(world.stages(&two).await, [stage], "{renew} {state}");
        let policies = Arc::clone(&world.responder.policies.borrow());
        let one = Incident { state, ..one };
        let given = vec![(two, Vec::new()), (one, Vec::new())];
        let replayed = replay((&tenant(), &policies), given, &world.responder.census);
        let stages = replayed.iter().map(|one| one.responses[0].stage);
        assert_eq!(stages.collect::<Vec<_>>(), [Stage::Ordered, stage]);
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
    gates
        .look(&world.responder, &mut Judgements::default())
        .await;
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
    gates
        .look(&next.responder, &mut Judgements::default())
        .await;
    heard.pass_with(&next, &gates, true).await;
    assert_eq!(world.desired("n1").await.start_gate, Some(gate));
    // Nobody asks for it any more.
    next.responder.policies = watch::channel(Arc::new(policies("name: none\n"))).1;
    let mut gates = Gates::default();
    gates
        .look(&next.responder, &mut Judgements::default())
        .await;
    heard.pass_with(&next, &gates, true).await;
    assert_eq!(world.desired("n1").await.start_gate, None);
}
