//! What holds responses back, and that a replay says the same.

use bus::{Failure, PutError};

use super::*;
use crate::response::replay::replay;

#[tokio::test]
async fn of_ten_compromised_containers_the_one_healthy_instance_stays() {
    let world = World::new(&enforcing(""));
    let all: Vec<Container> = (0..11).map(|n| container(&format!("c{n}"))).collect();
    world.reported("n1", all);
    let incidents: Vec<Incident> = (0..10)
        .map(|n| incident(n, "n1", &format!("c{n}")))
        .collect();
    for one in &incidents {
        world.happens(one.clone()).await;
    }
    assert_eq!(world.ordered(&incidents).await, 10);
    // Now it is compromised too, and stays in service.
    let last = incident(10, "n1", "c10");
    world.happens(last.clone()).await;
    let record = world.record(&last.id).await;
    assert_eq!(record.responses[0].stage, Stage::Held);
    let guard = Guard::LastInstance {
        group: IMAGE.to_owned(),
        running: 0,
        needed: 1,
    };
    assert_eq!(record.responses[0].guards, [guard]);
    assert_eq!(world.desired("n1").await.responses.len(), 10);

    // Somebody may insist.
    let id = record.responses[0].id.clone();
    let approve = Order::Approve { response: id };
    world.order("o1", &last, approve.clone(), false).await;
    let orders = world.record(&last.id).await.orders;
    assert!(orders[0].detail.contains("`force` overrules"), "{orders:?}");
    world.order("o2", &last, approve, true).await;
    let record = world.record(&last.id).await;
    let quarantine = record
        .responses
        .iter()
        .find(|one| one.action.kind().takes_out())
        .unwrap();
    let approval = quarantine.approval.as_ref().unwrap();
    assert_eq!((&*approval.by, approval.forced), ("alice", true));
}

#[tokio::test]
async fn two_decisions_at_once_never_take_the_last_two_instances() {
    let world = World::new(&enforcing(""));
    world.reported("n1", vec![container("c1"), container("c2")]);
    let (one, two) = (incident(1, "n1", "c1"), incident(2, "n1", "c2"));
    let first = world.decide(one.clone()).await;
    let second = world.decide(two.clone()).await;
    world.store.apply(&first).await.unwrap();
    let lost = world.store.apply(&second).await.unwrap_err();
    assert!(matches!(lost, PutError::Conflict));
    // The bus lets it decide again.
    world.happens(two.clone()).await;
    assert_eq!(world.stages(&one).await, [Stage::Ordered]);
    assert_eq!(world.stages(&two).await, [Stage::Held]);
}

#[tokio::test]
async fn a_flood_of_detections_meets_the_limits() {
    let yaml = "name: shop\nmode: enforce\nevidence: false\n\
                limits: { fleet: { max: 4, per: 10m }, node: { max: 3, per: 10m } }\n\
                rules: [{ name: cut, when: {}, then: [pause] }]\n";
    let world = World::new(yaml);
    let mut incidents = Vec::new();
    for on in 0..3 {
        let name = format!("n{on}");
        let all = (0..50).map(|n| container(&format!("c{on}x{n}"))).collect();
        world.reported(&name, all);
        for number in 0..20 {
            incidents.push(incident(
                on * 100 + number,
                &name,
                &format!("c{on}x{number}"),
            ));
        }
    }
    for one in &incidents {
        world.happens(one.clone()).await;
    }
    assert_eq!(world.ordered(&incidents).await, 4);
    assert_eq!(world.desired("n0").await.responses.len(), 3);
    let held = world.record(&incidents[30].id).await;
    let is_fleet =
        |guard: &Guard| matches!(guard, Guard::RateLimit { scope, .. } if scope == "the fleet");
    assert!(held.responses[0].guards.iter().any(is_fleet), "{held:?}");
    // Later there is room again.
    world.clock.advance(SignedDuration::from_mins(11));
    for on in 0..3 {
        let all = (0..50).map(|n| container(&format!("c{on}x{n}"))).collect();
        world.reported(&format!("n{on}"), all);
    }
    let late = incident(999, "n2", "c2x40");
    world.happens(late.clone()).await;
    assert_eq!(world.stages(&late).await, [Stage::Ordered]);
}

#[tokio::test]
async fn system_namespaces_and_what_is_ours_are_left_alone() {
    let world = World::new(&enforcing(""));
    let system = Container {
        namespace: Some("kube-system".to_owned()),
        ..container("c1")
    };
    let ours = Container {
        image: "r.example/tidewaiter-agent:1".to_owned(),
        ..container("c2")
    };
    let marked = Container {
        labels: [("io.tidewaiter.protected".to_owned(), "true".to_owned())].into(),
        ..container("c3")
    };
    let all = [&system, &ours, &marked].map(Clone::clone);
    let twins = all.clone().map(|one| Container {
        id: format!("{}-twin", one.id),
        ..one
    });
    world.reported("n1", all.into_iter().chain(twins).collect());
    for number in 1..=3 {
        let one = incident(number, "n1", &format!("c{number}"));
        world.happens(one.clone()).await;
        let record = world.record(&one.id).await;
        let guards = &record.responses[0].guards;
        assert!(
            matches!(guards.as_slice(), [Guard::Protected { .. }]),
            "{guards:?}"
        );
    }
    let even = World::new(&enforcing(", even_protected: true"));
    even.reported(
        "n1",
        vec![
            system.clone(),
            Container {
                id: "c9".to_owned(),
                ..system
            },
        ],
    );
    let one = incident(1, "n1", "c1");
    even.happens(one.clone()).await;
    assert_eq!(even.stages(&one).await, [Stage::Ordered]);
}

#[tokio::test]
async fn an_owner_that_has_too_many_replaced_gets_quarantine() {
    let yaml = "name: shop\nmode: enforce\nevidence: false\n\
                limits: { replacements_per_hour: 3 }\n\
                rules: [{ name: anew, when: {}, then: [replace] }]\n";
    let world = World::new(yaml);
    for number in 0..4 {
        let id = format!("c{number}");
        let others = (0..3).map(|n| container(&format!("other{n}")));
        world.reported("n1", others.chain([container(&id)]).collect());
        let one = incident(number, "n1", &id);
        world.happens(one.clone()).await;
        let record = world.record(&one.id).await;
        let kind = record.responses[0].action.kind();
        let expected = if number < 3 {
            ActionKind::Replace
        } else {
            ActionKind::Quarantine
        };
        assert_eq!(
            (kind, record.responses[0].stage),
            (expected, Stage::Ordered),
            "{number}"
        );
        world.clock.advance(SignedDuration::from_mins(1));
    }
}

#[tokio::test]
async fn what_bears_the_same_name_cools_down() {
    let world = World::new(&enforcing(", cool_down: 5m"));
    let named = |id: &str| Container {
        name: "web".to_owned(),
        ..container(id)
    };
    let mut seen = Vec::new();
    for (number, id, minutes) in [(1, "c1", 1), (2, "c2", 10), (3, "c3", 0)] {
        world.reported("n1", vec![named(id), container("other")]);
        let one = incident(number, "n1", id);
        world.happens(one.clone()).await;
        seen.extend(world.stages(&one).await);
        world.clock.advance(SignedDuration::from_mins(minutes));
    }
    assert_eq!(seen, [Stage::Ordered, Stage::Held, Stage::Ordered]);
}

#[tokio::test]
async fn a_replay_says_what_enforcing_decided() {
    let yaml = "name: shop\nmode: enforce\n\
                limits: { fleet: { max: 6, per: 10m }, node: { max: 3, per: 10m } }\n\
                rules:\n  - { name: cut, when: { severity: high }, then: [quarantine] }\n  \
                - { name: anew, when: { rules: ['behavior/*'] }, then: [replace], mode: propose }\n";
    let world = World::new(yaml);
    let mut incidents = Vec::new();
    for on in 0..3 {
        let name = format!("n{on}");
        world.reported(
            &name,
            (0..6).map(|n| container(&format!("c{on}x{n}"))).collect(),
        );
        for number in 0..5 {
            incidents.push(incident(
                on * 10 + number,
                &name,
                &format!("c{on}x{number}"),
            ));
        }
    }
    let mut enforced = Vec::new();
    for one in &incidents {
        world.clock.set(one.first_at);
        world.happens(one.clone()).await;
        let record = world.record(&one.id).await;
        let decided = record.responses.into_iter().map(|one| {
            let guards: Vec<String> = one.guards.iter().map(Guard::to_string).collect();
            (one.rule.unwrap(), one.action.kind(), one.stage, guards)
        });
        enforced.push((one.id.clone(), decided.collect::<Vec<_>>()));
    }
    let policies = Arc::clone(&world.responder.policies.borrow());
    let given = incidents
        .into_iter()
        .rev()
        .map(|one| (one, Vec::new()))
        .collect();
    let replayed = replay((&tenant(), &policies), given, &world.responder.census);
    let replayed: Vec<_> = replayed
        .into_iter()
        .map(|one| {
            let decided = one.responses.into_iter();
            let decided = decided.map(|one| (one.rule, one.action, one.stage, one.guards));
            (one.incident, decided.collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(replayed, enforced);
    let stages: Vec<Stage> = replayed
        .iter()
        .flat_map(|(_, all)| all.iter().map(|one| one.2))
        .collect();
    for stage in [Stage::Ordered, Stage::Held, Stage::Proposed] {
        assert!(stages.contains(&stage), "{stage}");
    }
}

#[tokio::test]
async fn a_container_that_no_node_reports_is_waited_for_and_then_not_taken_out() {
    let world = World::new(&enforcing(""));
    let one = incident(1, "n1", "c1");
    let handler = Incidents(world.responder.clone());
    let waiting = handler.handle(World::delivery(one.clone())).await;
    assert!(matches!(waiting, Err(Failure::Later(_))), "{waiting:?}");
    let last = Delivery {
        attempt: 4,
        ..World::delivery(one.clone())
    };
    let outcome = handler.handle(last).await.unwrap();
    world.store.apply(&outcome).await.unwrap();
    let record = world.record(&one.id).await;
    assert!(
        record.responses[0].guards.contains(&Guard::Unknown),
        "{record:?}"
    );
}
