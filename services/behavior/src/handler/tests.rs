use std::collections::BTreeSet;

use bus::{Delivery, Failure, Handler as _};
use jiff::SignedDuration;
use model::{
    Severity, Slug,
    event::{EVIDENCE_OBJECTS, Event as _, NODES},
    runtime::{
        Activity, Detection, Incident, IncidentState, NetworkFlow, NodeConnections, NodeRecord,
        RuntimeBatch, RuntimeEvent, Surroundings, Transport,
    },
};

use super::Told;
use crate::{
    Config,
    engine::{Node, watch},
    nodes,
    testing::{Line, World, recorded, recorded_image, time},
};

fn world() -> World {
    World::new(Config::default())
}

fn batch(line: &mut Line) -> &mut RuntimeBatch {
    match line {
        Line::Batch(batch) => batch,
        Line::Report(_) => panic!("it is a report"),
    }
}

/// What does not depend on when something arrived.
fn essence(incidents: &[(Incident, Vec<Detection>)]) -> Vec<String> {
    let lines = incidents.iter().map(|(incident, timeline)| {
        let detections: Vec<String> = timeline
            .iter()
            .map(|one| format!("{} {} {}", one.id, one.rule, one.at))
            .collect();
        let Incident {
            id,
            severity,
            tactics,
            first_at,
            last_at,
            ..
        } = incident;
        format!("{id} {severity} {tactics:?} {first_at} {last_at} {detections:#?}")
    });
    lines.collect()
}

#[tokio::test]
async fn an_attack_is_one_incident_with_its_timeline() {
    let world = world();
    let heard = world.play(&recorded("attack.jsonl")).await;
    let rules = [
        "behavior/download-and-run",
        "behavior/metadata-service",
        "behavior/sensitive-file",
        "behavior/web-server-shell",
        "drift/added-executable",
        "drift/fileless-execution",
        "drift/modified-executable",
    ];
    assert_eq!(heard.rules(), rules);
    let incidents = world.incidents().await;
    let [(incident, timeline)] = incidents.as_slice() else {
        panic!("{incidents:?}");
    };
    assert_eq!(
        (incident.state, incident.severity),
        (IncidentState::Open, Severity::Critical)
    );
    assert_eq!(incident.rules, rules);
    assert_eq!(
        usize::try_from(incident.detections).unwrap(),
        timeline.len()
    );
    assert_eq!(incident.container_name, "web");
    assert_eq!(incident.image_name, "registry.example/shop/web:1");
    assert_eq!(
        incident.host,
        "node-1, Debian GNU/Linux 13 (trixie), 6.12.9"
    );
    assert_eq!(incident.image, recorded_image().image);
    insta::assert_snapshot!(incident.title, @"web ran tmp/x, which the image does not hold (and 7 more)");
    insta::assert_snapshot!(incident.tactics.join(" "), @"execution persistence defense-evasion credential-access command-and-control");
    // Each names its ancestors, and no secret.
    let dropped = timeline
        .iter()
        .find(|one| one.process.path == "tmp/x")
        .unwrap();
    let ancestors: Vec<_> = dropped
        .ancestors
        .iter()
        .map(|one| one.path.as_str())
        .collect();
    assert_eq!(ancestors, ["usr/bin/dash", "usr/sbin/nginx"]);
    assert_eq!(dropped.process.args, ["/tmp/x", "--token", "****"]);
    let text = serde_json::to_string(timeline).unwrap();
    assert!(
        !text.contains("abcdefgh12345") && !text.contains("hunter2x"),
        "{text}"
    );
    let digest = incident.surroundings.unwrap();
    let shown: Surroundings = world
        .store
        .object(EVIDENCE_OBJECTS, &digest)
        .await
        .unwrap()
        .unwrap();
    let text = serde_json::to_string(&shown).unwrap();
    assert!(
        !text.contains("abcdefgh12345") && !text.contains("hunter2x"),
        "{text}"
    );
    assert!(
        shown.processes.len() >= 7 && shown.flows.len() == 2,
        "{text}"
    );
    assert_eq!(shown.files, ["etc/shadow"]);
    // Three tactics met in the first second: that is no accident.
    let told = heard.changed.iter().map(|news| news.incident.severity);
    assert_eq!(told.collect::<Vec<_>>(), [Severity::Critical]);
}

#[tokio::test]
async fn what_comes_again_or_in_another_order_changes_nothing() {
    let lines = recorded("attack.jsonl");
    let first = world();
    first.play(&lines).await;
    let expected = essence(&first.incidents().await);
    let ids = |heard: &crate::testing::Heard| {
        let tenant = Slug::default_tenant();
        let ids = heard.detected.iter().map(|news| news.message_id(&tenant));
        ids.collect::<BTreeSet<_>>()
    };
    // Each message twice, and all of them by another process once more: told again, under the
    // same ids.
    let mut twice = world();
    let mut told = BTreeSet::new();
    for line in &lines {
        told.extend(ids(&twice.take(line, 1).await));
        twice.take(line, 2).await;
    }
    twice.die();
    let mut retold = BTreeSet::new();
    for line in &lines {
        retold.extend(ids(&twice.take(line, 2).await));
    }
    assert_eq!(told, retold);
    assert_eq!(essence(&twice.incidents().await), expected);
    // Once more without a reason to: silence.
    twice.die();
    let heard = twice.play(&lines).await;
    assert!(heard.detected.is_empty() && heard.changed.is_empty());
    // The batches in the other order: what needs no ancestor is the same.
    let backwards = world();
    backwards.take(&lines[0], 1).await;
    for line in lines[1..].iter().rev() {
        backwards.take(line, 1).await;
    }
    let (one, other) = (first.incidents().await, backwards.incidents().await);
    assert_eq!((one.len(), other.len()), (1, 1));
    assert_eq!(one[0].0.id, other[0].0.id);
    let drift = |timeline: &[Detection]| {
        let drift = timeline.iter().filter(|one| one.rule.starts_with("drift/"));
        drift
            .map(|one| (one.id.clone(), one.at))
            .collect::<Vec<_>>()
    };
    assert_eq!(drift(&one[0].1), drift(&other[0].1));
    assert_eq!(one[0].0.first_at, other[0].0.first_at);
}

#[tokio::test]
async fn a_file_waits_for_its_image_and_is_judged_with_its_own_time() {
    let lines = recorded("benign/entry_point_that_chowns.jsonl");
    let (waits, attack) = (world(), recorded("attack.jsonl"));
    waits.facts.set(None);
    assert!(waits.play(&lines).await.detected.is_empty());
    assert!(waits.tick().await.detected.is_empty());
    // It is as the image has it.
    waits.facts.set(Some(recorded_image()));
    assert!(waits.tick().await.detected.is_empty());
    let late = world();
    late.facts.set(None);
    let before = late.play(&attack).await;
    assert!(!before.rules().contains(&"drift/added-executable"));
    late.clock.advance(SignedDuration::from_secs(120));
    late.facts.set(Some(recorded_image()));
    let after = late.tick().await;
    assert_eq!(
        after.rules(),
        ["drift/added-executable", "drift/modified-executable"]
    );
    let dropped = after
        .detected
        .iter()
        .find(|news| news.detection.process.path == "tmp/x");
    assert_eq!(
        dropped.unwrap().detection.at,
        time("2026-01-02T03:07:48.000001Z")
    );
    assert_eq!(late.incidents().await.len(), 1);
    // What nobody can judge is told in the end.
    let never = world();
    never.facts.set(None);
    never.play(&lines).await;
    never.clock.advance(SignedDuration::from_secs(299));
    assert!(never.tick().await.detected.is_empty());
    never.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(never.tick().await.rules(), ["drift/unverified-executable"]);
    assert!(never.tick().await.detected.is_empty());
}

#[tokio::test]
async fn an_incident_ends_after_the_window_and_the_next_one_has_another_number() {
    let world = world();
    let mut lines = recorded("sensitive_file/fires.jsonl");
    world.play(&lines).await;
    let [(first, _)] = world.incidents().await.try_into().unwrap();
    world.clock.set(first.last_at);
    world.clock.advance(SignedDuration::from_secs(900));
    assert!(world.tick().await.changed.is_empty());
    world.clock.advance(SignedDuration::from_secs(1));
    let closed = world.tick().await.changed;
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].incident.state, IncidentState::Closed);
    assert!(world.tick().await.changed.is_empty());
    // The same an hour later is another incident, and told anew.
    let later = |lines: &mut [Line], seconds: u64| {
        for event in &mut batch(&mut lines[1]).events {
            event.at_ns += seconds * 1_000_000_000;
        }
        batch(&mut lines[1]).sequence += 1;
    };
    later(&mut lines, 3600);
    let heard = world.take(&lines[1], 1).await;
    assert_eq!((heard.detected.len(), heard.changed.len()), (1, 1));
    let incidents = world.incidents().await;
    assert_eq!(incidents.len(), 2);
    // What repeats within the window is told to nobody, and keeps its incident open.
    for _ in 0..3 {
        later(&mut lines, 600);
        let heard = world.take(&lines[1], 1).await;
        assert!(heard.detected.is_empty() && heard.changed.is_empty());
    }
    let incidents = world.incidents().await;
    assert_eq!(incidents.len(), 2);
    let last = incidents.iter().map(|(one, _)| one.last_at).max().unwrap();
    let second = heard.changed[0].incident.last_at;
    assert_eq!(last.duration_since(second), SignedDuration::from_secs(1800));
}

#[tokio::test]
async fn a_flood_of_detections_is_bounded() {
    let world = world();
    let mut lines = recorded("sensitive_file/fires.jsonl");
    let template = batch(&mut lines[1]).events.last().unwrap().clone();
    let opened = |number: u64| RuntimeEvent {
        at_ns: template.at_ns + number,
        activity: Activity::Open(model::runtime::FileOpen {
            path: format!("home/{number}/.ssh/id_rsa"),
            write: false,
        }),
        ..template.clone()
    };
    let told = batch(&mut lines[1]).events.len();
    batch(&mut lines[1]).events.extend((0..1_000).map(opened));
    // What is worse comes at the end.
    let mut injects = template.clone();
    injects.at_ns = template.at_ns + 2_000;
    injects.activity = Activity::Open(model::runtime::FileOpen {
        path: "proc/1/mem".to_owned(),
        write: true,
    });
    batch(&mut lines[1]).events.push(injects);
    world.play(&lines).await;
    let [(incident, timeline)] = world.incidents().await.try_into().unwrap();
    assert_eq!((incident.detections, timeline.len()), (257, 257), "{told}");
    assert_eq!(incident.severity, Severity::Critical);
    assert!(
        incident
            .rules
            .iter()
            .any(|rule| rule == "behavior/memory-injection")
    );
    let all = usize::try_from(incident.left_out).unwrap() + timeline.len();
    assert!(
        (1_001..=1_003).contains(&all),
        "nothing is lost count of: {all}"
    );
    // Read again, nothing is counted twice.
    world.take(&lines[1], 2).await;
    let [(again, _)] = world.incidents().await.try_into().unwrap();
    assert_eq!(again.left_out, incident.left_out);
}

#[tokio::test]
async fn an_exception_ends_an_alarm() {
    let exception = serde_json::from_str(
        r#"{"rule": "behavior/*", "image": "registry.example/shop/*", "reason": "it is a test"}"#,
    );
    let world = World::new(Config {
        exceptions: vec![exception.unwrap()],
        ..Config::default()
    });
    let heard = world.play(&recorded("attack.jsonl")).await;
    assert!(heard.rules().iter().all(|rule| rule.starts_with("drift/")));
    assert!(!heard.detected.is_empty());
}

#[tokio::test]
async fn the_newest_picture_of_a_node_is_kept() {
    let world = world();
    let lines = recorded("attack.jsonl");
    let Line::Report(report) = &lines[0] else {
        panic!("a trace begins with a report");
    };
    let mut older = report.clone();
    older.sequence = 0;
    world.take(&lines[0], 1).await;
    world.take(&Line::Report(older), 1).await;
    let key = "default.node-1.reported";
    let kept = world
        .store
        .get::<NodeRecord>(NODES, key)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept.body.report, **report);
}

#[tokio::test]
async fn a_node_speaks_for_itself_alone() {
    let world = world();
    let mut lines = recorded("attack.jsonl");
    let batch = batch(&mut lines[1]).clone();
    let tenant = Slug::default_tenant();
    let mut delivery =
        Delivery::of_event(&tenant, batch).map(|batch| Told::Batch(bus::encode(&batch).unwrap()));
    delivery.subject = delivery.subject.replace("node-1", "node-2");
    let refused = world.handler.handle(delivery).await;
    assert!(matches!(refused, Err(Failure::Reject(_))), "{refused:?}");
}

#[tokio::test]
async fn bytes_that_are_no_batch_are_refused() {
    let world = world();
    let mut lines = recorded("attack.jsonl");
    let batch = batch(&mut lines[1]).clone();
    for length in [0, 1, 100] {
        let delivery = Delivery::of_event(&Slug::default_tenant(), batch.clone());
        let delivery = delivery.map(|batch| {
            let bytes = bus::encode(&batch).unwrap();
            Told::Batch(bytes.slice(..length))
        });
        let refused = world.handler.handle(delivery).await;
        assert!(
            matches!(refused, Err(Failure::Reject(_))),
            "{length}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn whom_containers_speak_with_is_written_and_goes_on_with_another_owner() {
    let mut world = world();
    let seen = async |world: &World| {
        let key = "default.node-1.connections";
        let kept = world.store.get::<NodeConnections>(NODES, key).await;
        let kept = kept.unwrap().map(|kept| kept.body.containers);
        let own = kept.unwrap_or_default().into_values();
        let flows = own.flat_map(|own| own.flows);
        let mut addresses: Vec<String> = flows.map(|flow| flow.address.to_string()).collect();
        addresses.sort();
        addresses
    };
    let mut lines = recorded("attack.jsonl");
    world.play(&lines).await;
    assert_eq!(seen(&world).await, [""; 0], "it is written now and then");
    world.tick().await;
    assert_eq!(seen(&world).await, ["169.254.169.254", "203.0.113.7"]);
    // The next owner has read nothing of it, and speaks of what it sees itself.
    world.die();
    for line in &mut lines {
        let Line::Batch(batch) = line else { continue };
        for event in &mut batch.events {
            if let Activity::Connect(flow) = &mut event.activity {
                flow.address = "192.0.2.9".parse().unwrap();
            }
        }
    }
    world.play(&lines).await;
    world.tick().await;
    let all = ["169.254.169.254", "192.0.2.9", "203.0.113.7"];
    let now = seen(&world).await;
    assert!(
        all.iter().all(|one| now.iter().any(|seen| seen == one)),
        "{now:?}"
    );
}

#[test]
fn no_more_connections_of_a_node_are_written_than_fit() {
    let mut node = Node::default();
    let now = time("2026-01-02T03:10:00Z");
    for number in 0..=125_u16 {
        let watched = watch(&mut node.containers, &number.to_string()).unwrap();
        for port in 0..64 {
            watched.note_flow(&NetworkFlow {
                transport: Transport::Tcp,
                address: "192.0.2.1".parse().unwrap(),
                port,
            });
        }
    }
    let record = nodes::connections(&mut node, now).unwrap();
    assert_eq!(record.containers.len(), 125, "125 of 64 are 8,000");
    assert!(bus::encode(&record).unwrap().len() < 1 << 20);
    assert_eq!(nodes::connections(&mut node, now), None, "nothing is new");
}
