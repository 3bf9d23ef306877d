//! Orders of people: about what nobody reports, what has no room, what a rule proposed; and what
//! nodes answer too often.

use super::*;

impl World {
    /// What became of an order about an incident.
    async fn ordered_so(&self, id: &str, one: &Incident, order: Order, force: bool) -> String {
        self.order(id, one, order, force).await;
        let record = self.record(&one.id).await;
        let step = record.orders.iter().find(|step| step.id == id).unwrap();
        format!("{}: {}", step.stage, step.detail)
    }
}

fn act(action: Action) -> Order {
    Order::Act {
        action,
        valid_for_s: 60,
        dry_run: false,
    }
}

#[tokio::test]
async fn what_no_node_reports_is_left_alone_unless_somebody_insists() {
    let world = World::new(super::super::BUILTIN_RESPONSES);
    let one = incident(1, "n1", "c1");
    let quarantine = || act(Action::Quarantine { allow: Vec::new() });
    // Whether it is protected, and what would be left of it, nobody can say.
    for (id, order) in [("o1", quarantine()), ("o2", act(Action::Block))] {
        let told = world.ordered_so(id, &one, order, false).await;
        assert!(told.starts_with("held: held: no node reports"), "{told}");
        assert!(told.ends_with("`force` overrules it"), "{told}");
    }
    // Evidence harms nobody, nor does a try.
    let told = world
        .ordered_so("o3", &one, act(Action::CollectEvidence), false)
        .await;
    assert_eq!(told, "ordered: ");
    let tried = Order::Act {
        action: Action::Kill,
        valid_for_s: 60,
        dry_run: true,
    };
    assert_eq!(
        world.ordered_so("o4", &one, tried, false).await,
        "ordered: "
    );
    let told = world.ordered_so("o5", &one, quarantine(), true).await;
    assert_eq!(told, "ordered: ");
    let record = world.record(&one.id).await;
    let last = record.responses.last().unwrap();
    assert_eq!(last.container_started_at, None);
    assert!(last.approval.as_ref().unwrap().forced);
    // Nor is a proposal approved whose container is gone.
    let world = World::new(&enforcing(", mode: propose"));
    world.reported("n1", vec![container("c1"), container("c2")]);
    world.happens(one.clone()).await;
    world.reported("n1", vec![container("c2")]);
    let response = world.record(&one.id).await.responses[0].id.clone();
    let approve = Order::Approve { response };
    let told = world.ordered_so("o1", &one, approve, false).await;
    assert!(told.starts_with("held: held: no node reports"), "{told}");
    assert_eq!(world.stages(&one).await, [Stage::Proposed]);
}

#[tokio::test]
async fn who_takes_back_by_the_container_what_an_incident_led_to_is_told_its_name() {
    let world = World::new(&enforcing(""));
    world.reported("n1", vec![container("c1"), container("c2")]);
    let one = incident(1, "n1", "c1");
    world.happens(one.clone()).await;
    let release = |container: &str| {
        let Told::Ordered(order) =
            world.ordered_by_alice("o1", &one, Order::Release { response: None }, false)
        else {
            panic!("it is an order");
        };
        Told::Ordered(Box::new(ResponseOrdered {
            incident: None,
            container: container.to_owned(),
            ..*order
        }))
    };
    for (container, end) in [("c1", &*one.id), ("c2", "is in force")] {
        world.told(release(container)).await;
        let record = world.record(&ResponseRecord::by_hand(container)).await;
        assert!(record.orders[0].detail.ends_with(end), "{record:?}");
    }
    assert_eq!(world.stages(&one).await, [Stage::Ordered]);
}

#[tokio::test]
async fn who_approves_a_proposal_approves_the_evidence_that_comes_before() {
    let yaml = "name: shop\nmode: propose\n\
                rules: [{ name: cut, when: {}, then: [quarantine] }]\n";
    let world = World::new(yaml);
    world.reported("n1", vec![container("c1"), container("c2")]);
    let one = incident(1, "n1", "c1");
    world.happens(one.clone()).await;
    assert_eq!(world.stages(&one).await, [Stage::Proposed; 2]);
    let record = world.record(&one.id).await;
    let quarantine = record
        .responses
        .iter()
        .find(|one| one.action.kind().takes_out());
    let response = quarantine.unwrap().id.clone();
    let approve = Order::Approve { response };
    world.order("o1", &one, approve, false).await;
    assert_eq!(world.stages(&one).await, [Stage::Ordered; 2]);
    let desired = world.desired("n1").await;
    assert_eq!(desired.responses[0].action, Action::CollectEvidence);
    assert_eq!(desired.responses[0].mode, Mode::Enforced);
}

/// So many containers of a node are answered, one a minute.
async fn answered(world: &World, count: u32) {
    for number in 0..count {
        all_run(world);
        let one = incident(number, "n1", &format!("c{number}"));
        world.happens(one).await;
        world.clock.advance(SignedDuration::from_mins(1));
    }
    all_run(world);
    let desired = world.desired("n1").await;
    assert_eq!(u32::try_from(desired.responses.len()).unwrap(), count);
}

fn all_run(world: &World) {
    let all = (0..300).map(|n| container(&format!("c{n}")));
    world.reported("n1", all.collect());
}

/// [`Desired::RESPONSES_MAX`].
const MAX: u32 = 256;

#[tokio::test]
async fn what_has_no_room_on_its_node_is_held_and_does_not_count() {
    let world = World::new(&enforcing(""));
    answered(&world, MAX).await;
    let one = incident(MAX, "n1", "c280");
    world.happens(one.clone()).await;
    let record = world.record(&one.id).await;
    let held = &record.responses[0];
    assert_eq!(
        (held.stage, &*held.guards),
        (Stage::Held, &[Guard::NodeFull][..])
    );
    // It waits for somebody, for a time.
    assert!(held.approval.is_none() && held.expires_at.is_some());
    let ledger = world.ledger().await;
    assert!(
        ledger
            .entries
            .iter()
            .all(|entry| entry.container != one.container)
    );
    let approve = || Order::Approve {
        response: held.id.clone(),
    };
    let told = world.ordered_so("o1", &one, approve(), false).await;
    assert!(
        told.starts_with("held: held: the node has as many"),
        "{told}"
    );
    // Somebody makes room, for the evidence too.
    for number in 0..2 {
        let first = incident(number, "n1", &format!("c{number}"));
        let release = Order::Release { response: None };
        world
            .order(&format!("r{number}"), &first, release, false)
            .await;
        let id = world.record(&first.id).await.responses[0].id.clone();
        world.reports(&first, &id, Phase::Lifted).await;
    }
    assert_eq!(usize::try_from(MAX).unwrap(), Desired::RESPONSES_MAX);
    let told = world.ordered_so("o2", &one, approve(), false).await;
    assert_eq!(told, "ordered: ");
    assert_eq!(world.stages(&one).await, [Stage::Ordered; 2]);
}

#[tokio::test]
async fn a_decision_that_was_written_and_found_no_room_is_held_when_it_is_made_again() {
    let world = World::new(&enforcing(""));
    answered(&world, MAX - 1).await;
    // Two decide for the last place; one writes its record and dies before the document.
    let (one, two) = (incident(MAX, "n1", "c280"), incident(MAX + 1, "n1", "c281"));
    let lost = world.decide(one.clone()).await;
    for (key, record) in lost.values::<ResponseRecord>(RESPONSE_RECORDS) {
        if !key.starts_with("LEDGER") {
            let put = world.store.put(RESPONSE_RECORDS, &key, &record, None);
            put.await.unwrap();
        }
    }
    world.happens(two.clone()).await;
    assert_eq!(world.stages(&two).await, [Stage::Ordered]);
    world.clock.advance(SignedDuration::from_secs(9));
    world.happens(one.clone()).await;
    assert_eq!(world.stages(&one).await, [Stage::Held]);
}

#[tokio::test]
async fn a_node_that_answers_without_end_leaves_room_for_orders() {
    let world = World::new(&enforcing(""));
    world.reported("n1", vec![container("c1"), container("c2")]);
    let one = incident(1, "n1", "c1");
    world.happens(one.clone()).await;
    for kind in [Action::Pause, Action::Block, Action::Kill] {
        world
            .order(&format!("{kind:?}"), &one, act(kind), true)
            .await;
    }
    let ids: Vec<ResponseId> = world
        .record(&one.id)
        .await
        .responses
        .into_iter()
        .map(|one| one.id)
        .collect();
    for attempt in 0..80 {
        for id in &ids {
            let report = ResponseReported {
                detail: Some("\u{1f40c}".repeat(9_000)),
                before: Some("\u{1f40c}".repeat(9_000)),
                phase: Phase::Failed,
                attempt,
                ..report(&one, id)
            };
            world.told(Told::Reported(Box::new(report))).await;
        }
    }
    let record = world.record(&one.id).await;
    let bytes = serde_json::to_vec(&record).unwrap().len();
    assert!(bytes < 512 * 1024, "{bytes}");
    let release = Order::Release { response: None };
    let told = world.ordered_so("o9", &one, release, false).await;
    assert_eq!(told, "released: ");
}

#[tokio::test]
async fn a_node_cannot_say_that_it_saw_the_last_generation() {
    let world = World::new(&enforcing(""));
    world.reported("n1", vec![container("c1"), container("c2")]);
    let one = incident(1, "n1", "c1");
    world.happens(one.clone()).await;
    for (seen, generation) in [(u64::MAX, 1), (1 << 41, 1), (1 << 40, (1 << 40) + 1)] {
        let report = ResponseReported {
            response: None,
            action: None,
            phase: Phase::Refused,
            refusal: Some(Refusal::Replayed {
                generation: 1,
                seen,
            }),
            ..report(&one, &ResponseId(String::new()))
        };
        world.told(Told::Reported(Box::new(report))).await;
        assert_eq!(world.desired("n1").await.generation, generation);
    }
}

#[tokio::test]
async fn the_ledger_has_room_whatever_containers_are_called() {
    let world = World::new(&enforcing(""));
    let long = |id: &str, n: usize| Container {
        name: format!("{n}{}", "\u{1f40c}".repeat(50_000)),
        image: format!("r.example/{}:{n}", "x".repeat(50_000)),
        ..container(id)
    };
    world.reported("n1", vec![long("c1", 1), long("c2", 1), long("c3", 2)]);
    for (number, id) in [(1, "c1"), (2, "c3")] {
        world.happens(incident(number, "n1", id)).await;
    }
    let ledger = world.ledger().await;
    // What differs at the end only is no instance of the same.
    assert_eq!(ledger.entries.len(), 1, "{ledger:?}");
    assert!(serde_json::to_vec(&ledger).unwrap().len() < 2_000);
}

#[test]
fn of_a_full_ledger_what_is_out_of_service_stays() {
    let at = |second: i64| start() + SignedDuration::from_secs(second);
    let entry = |n: usize, is_out: bool| model::runtime::LedgerEntry {
        response: ResponseId(format!("{n:032x}")),
        rule: "shop/cut".to_owned(),
        action: ActionKind::Quarantine,
        node: node("n1"),
        container: format!("c{n}"),
        name: String::new(),
        image: None,
        group: "x".repeat(200),
        at: at(0),
        out_until: is_out.then(|| at(9_999)),
    };
    let max = ResponseLedger::ENTRIES_MAX;
    let mut ledger = ResponseLedger {
        entries: (0..max + 10).map(|n| entry(n, n < 100)).collect(),
    };
    let record = ResponseRecord {
        incident: "i".to_owned(),
        node: node("n1"),
        container: String::new(),
        container_name: String::new(),
        image_name: String::new(),
        image: None,
        responses: Vec::new(),
        orders: Vec::new(),
        updated_at: at(0),
    };
    ledger = super::super::orders::accounted(ledger, &record, at(1));
    let out = ledger.entries.iter().filter(|one| one.out_until.is_some());
    assert_eq!(out.count(), 100);
    assert!(ledger.entries.len() <= max && ledger.entries.len() > 900);
    assert!(serde_json::to_vec(&ledger).unwrap().len() < 768 * 1024);
}
