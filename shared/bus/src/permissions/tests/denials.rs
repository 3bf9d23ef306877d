//! A real server with the printed accounts: what it denies, and how that is told.

use std::time::{Duration, Instant};

use bytes::Bytes;
use chassis::Cx;
use futures::StreamExt as _;
use model::{
    Digest, Known, RecordKey, Slug, What,
    event::{
        ADVISORIES, ALERTS, CONFIG, FEED_OBJECTS, LAYER_OBJECTS, NEWS, NODES, REFS, RESULTS,
        images_bucket,
    },
    runtime::{Desired, FORENSIC_BYTES_MAX, Mode, Phase, ResponseReported, forensic_objects},
};
use serde_json::{Value, json};

use super::fleet::Fleet;
use crate::{
    Begin, Bus, Config, ConsumerSpec, Headers, Heard, Selection, Start, UserKey,
    error::BusError,
    permissions::Role,
    testing::{Server, World, pushed, soon},
    wire::{Wire, WireError},
};

/// The subject that was denied, at once.
#[track_caller]
fn denied<T: std::fmt::Debug>(began: Instant, result: Result<T, impl ToString>) -> String {
    let text = result.unwrap_err().to_string();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "{text} after {took:?}");
    let (_, denied) = text
        .split_once("nats-server does not let ")
        .unwrap_or_else(|| panic!("{text}"));
    denied.to_owned()
}

async fn publish(wire: &Wire, subject: &str) -> Result<u64, WireError> {
    let body = Bytes::from_static(b"batch");
    let stored = wire.store(subject, &Headers::default(), body).await;
    stored.map(|stored| stored.sequence)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_writes_what_is_its_own_and_the_rest_is_denied_at_once_by_name() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let began = Instant::now();
    let scanner = fleet.role(Role::Scanner).await.store();
    let put = scanner.put(ADVISORIES, "head", &1, None).await;
    insta::assert_snapshot!(denied(began, put), @"`scanner` publish on `$KV.tw_advisories.head`");
    let put = scanner.put(CONFIG, "tokens.00ff", &1, None).await;
    insta::assert_snapshot!(denied(began, put), @"`scanner` publish on `$KV.tw_config.tokens.00ff`");
    let put = scanner.put_object(FEED_OBJECTS, &1).await;
    denied(Instant::now(), put);

    let tenant = Slug::default_tenant();
    let image = Digest::of(b"image");
    let bucket = images_bucket(image.partition());
    let key = RecordKey::new(&tenant, image, What::Known);
    for role in Role::ALL {
        let (store, began) = (fleet.role(role).await.store(), Instant::now());
        let put = store.put_record(&key, &Known::default(), 0).await;
        if role == Role::Router {
            put.unwrap();
        } else if role == Role::Operator {
            // It sends dead letters back, and this one was replaced.
            assert!(put.is_err());
        } else {
            let subject = format!("`{role}` publish on `$KV.{bucket}.{key}`");
            assert_eq!(denied(began, put), subject);
        }
    }
    let bus = fleet.role(Role::Inventory).await;
    let began = Instant::now();
    let sent = bus.publish(&tenant, &pushed("app")).await;
    insta::assert_snapshot!(denied(began, sent), @"`inventory` publish on `tw.evt.default.registry.pushed.main`");
    let deleted = bus.store().delete(REFS, "default.scan.a").await;
    denied(Instant::now(), deleted);
    let gateway = fleet.role(Role::Gateway).await;
    gateway.publish(&tenant, &pushed("app")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_scanners_write_what_they_share_of_layers() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let name = Digest::of(b"section");
    for role in Role::ALL {
        let (store, began) = (fleet.role(role).await.store(), Instant::now());
        let bytes = Bytes::from_static(b"section");
        let put = store.put_named(LAYER_OBJECTS, &name, bytes).await;
        if role == Role::Scanner {
            put.unwrap();
            let found = store.named(LAYER_OBJECTS, &name, 100).await.unwrap();
            assert!(found.is_some());
        } else {
            let subject = format!("tw.obj.tw_layers.{}.0", name.hex());
            assert_eq!(
                denied(began, put),
                format!("`{role}` publish on `{subject}`")
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_speaks_for_its_own_node_and_hears_its_own_commands() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let watcher = fleet.watcher().await;
    let wire = &watcher.0.wire;
    let agent = fleet.agent("default", "a").await;
    let stored = publish(&agent, "tw.evt.default.runtime.07.a").await;
    assert_eq!(stored.unwrap(), 1);
    for other in [
        "tw.evt.default.runtime.07.b",
        "tw.evt.acme.runtime.07.a",
        "tw.evt.default.registry.pushed.main",
        "tw.res.default.image.judged",
        "$KV.tw_refs.default.a",
        "$JS.API.STREAM.INFO.RESULTS",
        "tw.cmd.default.b",
        "tw.evt.default.response.reported.b",
        "tw.evt.default.response.ordered.a",
        "$KV.tw_nodes.default.a.desired",
        "$JS.API.DIRECT.GET.KV_tw_nodes.$KV.tw_nodes.default.b.desired",
        "$JS.API.DIRECT.GET.KV_tw_nodes.$KV.tw_nodes.default.a.reported",
        "$JS.API.DIRECT.GET.KV_tw_nodes",
        "tw.obj.tw_forensics.default.b.00ff.0",
        "$JS.API.DIRECT.GET.OBJ_tw_forensics.tw.obj.tw_forensics.default.b.00ff.0",
    ] {
        let began = Instant::now();
        let sent = publish(&agent, other).await;
        assert_eq!(denied(began, sent), format!("`agent` publish on `{other}`"));
    }
    let mut subjects = vec![
        "$KV.tw_images_0.>".to_owned(),
        "tw.>".to_owned(),
        "tw.cmd.default.b".to_owned(),
        ">".to_owned(),
    ];
    subjects.push(format!("{}.>", fleet.inbox_of(Role::Scanner)));
    for subject in subjects {
        let _subscription = agent.client.subscribe(subject.clone()).await.unwrap();
        assert!(agent.denied(&subject).await, "{subject}");
    }
    // A node of the same name is another tenant's.
    let theirs = fleet.agent("acme", "a").await;
    let mut commands = theirs.client.subscribe("tw.cmd.acme.a").await.unwrap();
    theirs.flush().await.unwrap();
    // Of two connections the server may take the later words first: what is sent before the
    // subscription is with it is heard by nobody.
    let heard = async {
        loop {
            for tenant in ["default", "acme"] {
                let body = Bytes::copy_from_slice(tenant.as_bytes());
                wire.send(format!("tw.cmd.{tenant}.a").into(), body).await;
            }
            let wait = Duration::from_millis(500);
            if let Ok(command) = tokio::time::timeout(wait, commands.next()).await {
                break command;
            }
        }
    };
    let command = soon(heard).await.unwrap();
    assert_eq!(command.payload, "acme");
    let info = wire.api("STREAM.INFO.RUNTIME", &Value::Null).await.unwrap();
    assert_eq!(info.pointer("/state/messages"), Some(&json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_answers_for_its_own_node_alone() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let scanner = fleet.role(Role::Scanner).await;
    let (a, b) = (
        fleet.agent("default", "a").await,
        fleet.agent("default", "b").await,
    );
    let mut questions = a.client.subscribe("tw.req.default.blob.a").await.unwrap();
    for other in ["tw.req.default.blob.b", "tw.req.acme.blob.a", "tw.req.>"] {
        let _subscription = a.client.subscribe(other).await.unwrap();
        assert!(a.denied(other).await, "{other}");
    }
    a.flush().await.unwrap();
    let asks = async {
        loop {
            match scanner.ask::<u32>("tw.req.default.blob.a", &7_u32).await {
                Err(crate::AskError::Silence(_)) => {}
                answer => return answer,
            }
        }
    };
    let answers = async {
        let question = soon(questions.next()).await.unwrap();
        assert_eq!(crate::decode::<u32>(&question.payload).unwrap(), 7);
        let reply = question.reply.unwrap();
        // Neither may another answer, nor does anybody answer twice.
        let answer = |n: u32| crate::encode(&n).unwrap();
        b.send(reply.clone(), answer(1)).await;
        assert!(b.denied(reply.as_str()).await);
        a.send(reply.clone(), answer(8)).await;
        (reply, answer(9))
    };
    let (asked, (reply, again)) = tokio::join!(soon(asks), answers);
    assert_eq!(asked.unwrap(), 8);
    a.send(reply.clone(), again).await;
    assert!(a.denied(reply.as_str()).await);
    // Nodes ask nobody.
    let began = Instant::now();
    let sent = publish(&b, "tw.req.default.blob.a").await;
    assert_eq!(
        denied(began, sent),
        "`agent` publish on `tw.req.default.blob.a`"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_reads_its_desired_state_answers_it_and_keeps_evidence_under_its_name() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let (tenant, node): (Slug, Slug) = (Slug::default_tenant(), "a".parse().unwrap());
    let policy = fleet.role(Role::Policy).await;
    let agent = fleet.agent_bus("default", "a").await;
    let key = Desired::key(&tenant, &node);
    let read = async || {
        let read = agent.store().get::<String>(NODES, &key).await;
        read.unwrap().map(|stored| stored.body)
    };
    assert_eq!(read().await, None);
    let mut woken = agent.woken(&tenant, &node).await.unwrap();
    let put = policy.store().put(NODES, &key, &"shall", Some(0)).await;
    put.unwrap();
    let heard = async {
        loop {
            policy.wake(&tenant, &node).await;
            let wait = Duration::from_millis(500);
            if let Ok(heard) = tokio::time::timeout(wait, woken.next()).await {
                break heard;
            }
        }
    };
    assert_eq!(soon(heard).await, Some(()));
    assert_eq!(read().await.as_deref(), Some("shall"));

    let reported = ResponseReported {
        node: node.clone(),
        response: None,
        incident: String::new(),
        container: String::new(),
        action: None,
        mode: Mode::Enforced,
        phase: Phase::Refused,
        refusal: None,
        generation: 1,
        attempt: 0,
        evidence: None,
        before: None,
        after: None,
        detail: None,
        image: None,
        denied: Vec::new(),
        at: jiff::Timestamp::UNIX_EPOCH,
    };
    agent.publish(&tenant, &reported).await.unwrap();
    // One chunk, and several.
    for size in [1_000, 700_000] {
        let bucket = forensic_objects(&tenant, &node);
        let bytes = Bytes::from(vec![7; size]);
        let store = agent.store();
        let stored = store.put_object_bytes(&bucket, bytes.clone()).await;
        let digest = stored.unwrap();
        let again = store.put_object_bytes(&bucket, bytes.clone()).await;
        assert_eq!(again.unwrap(), digest);
        let inventory = fleet.role(Role::Inventory).await.store();
        let found = inventory.object_bytes(&bucket, &digest, FORENSIC_BYTES_MAX);
        assert_eq!(found.await.unwrap(), Some(bytes.clone()));
        let theirs = forensic_objects(&tenant, &"b".parse().unwrap());
        let began = Instant::now();
        let refused = store.put_object_bytes(&theirs, bytes).await;
        denied(began, refused);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_looks_into_the_answers_of_another() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let router = fleet.role(Role::Router).await;
    let other = format!("{}.>", fleet.inbox_of(Role::Policy));
    for subject in [&*other, "_INBOX_*.>", "$KV.tw_config.>", "tw.evt.>"] {
        let wire = &router.0.wire;
        let _subscription = wire.client.subscribe(subject.to_owned()).await.unwrap();
        assert!(wire.denied(subject).await, "{subject}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_reads_the_news_and_nothing_else() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let bus = fleet.role(Role::Subscriber).await;
    let start = Start::Sequence(1);
    let mut news = bus.tail(&fleet.cx, RESULTS, start, "").await.unwrap();
    let (watcher, subject) = (fleet.watcher().await, "tw.res.default.image.judged");
    publish(&watcher.0.wire, subject).await.unwrap();
    let first = loop {
        match soon(news.next()).await {
            Some(Heard::CaughtUp | Heard::UpTo(_)) => {}
            other => break other,
        }
    };
    assert!(
        matches!(&first, Some(Heard::Message(message)) if message.subject == subject),
        "{first:?}"
    );
    let began = Instant::now();
    let jobs = bus.tail(&fleet.cx, "JOBS", start, "").await;
    insta::assert_snapshot!(denied(began, jobs.map(drop)), @"`subscriber` publish on `$JS.API.CONSUMER.CREATE.JOBS`");
    let sent = bus.publish(&Slug::default_tenant(), &pushed("app")).await;
    denied(Instant::now(), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_makes_nothing_that_the_provisioner_makes_and_says_what_is_missing() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let router = fleet.role(Role::Router).await;
    assert!(router.provisioned(&fleet.cx).await.unwrap());
    let watcher = fleet.watcher().await;
    let delete = "CONSUMER.DELETE.EVENTS.router";
    watcher.0.wire.api(delete, &Value::Null).await.unwrap();
    let spec = ConsumerSpec::new("EVENTS", "router", "", 512);
    let missing = router.ensure_consumer(&spec).await.unwrap_err();
    insta::assert_snapshot!(missing, @"`EVENTS/router` does not exist; `tidewaiter nats provision` makes it");
    // Not even by asking: the server says so too.
    let began = Instant::now();
    let create = "CONSUMER.DURABLE.CREATE.EVENTS.router";
    let asked = router.0.wire.api(create, &Value::Null).await;
    denied(began, asked);
    // It goes on when the provisioner was there.
    let waits = tokio::join!(soon(router.provisioned(&fleet.cx)), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let provisioner = fleet.role(Role::Provisioner).await;
        provisioner.provision().await.unwrap();
    });
    assert!(waits.0.unwrap());
    // Sinks follow from configuration.
    let alerting = fleet.role(Role::Alerting).await;
    let sink = ConsumerSpec::new("ALERTS", "sink_log", "", 100);
    alerting.ensure_consumer(&sink).await.unwrap();
    assert_eq!(alerting.durables("ALERTS").await.unwrap(), ["sink_log"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_fleet_makes_nothing_on_a_server_without_permissions_either() {
    let Some(server) = Server::start().await else {
        return;
    };
    let cx = Cx::for_tests();
    let config = server.config();
    let bus = Bus::connect_as(&cx, &config, [Role::Router]).await.unwrap();
    let child = cx.child();
    let (waited, ()) = tokio::join!(soon(bus.provisioned(&child)), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        child.stop();
    });
    assert!(!waited.unwrap());
    let world = World::start().await.unwrap();
    assert!(world.bus.provisioned(&world.cx).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_server_does_not_know_is_told_as_such() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let file = fleet.keys.path().join("unknown");
    UserKey::open(&file).unwrap();
    let config = Config {
        credentials_file: Some(file),
        connect_timeout_s: 2,
        ..fleet.server.config()
    };
    let refused = Bus::connect_as(&fleet.cx, &config, [Role::Router]).await;
    let BusError::Unreachable { cause, .. } = refused.unwrap_err() else {
        panic!("another error");
    };
    insta::assert_snapshot!(cause, @"it does not know this key, user or password");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_deletes_the_consumers_of_sinks_or_of_other_roles() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let alerting = fleet.role(Role::Alerting).await;
    let sink = ConsumerSpec::new("ALERTS", "sink_log", "", 100);
    alerting.ensure_consumer(&sink).await.unwrap();
    for role in Role::ALL {
        let bus = fleet.role(role).await;
        for consumer in ["ALERTS.sink_log", "EVENTS.router", "RESULTS.alerting"] {
            let began = Instant::now();
            let delete = format!("CONSUMER.DELETE.{consumer}");
            denied(began, bus.0.wire.api(&delete, &Value::Null).await);
        }
    }
    assert_eq!(alerting.durables("ALERTS").await.unwrap(), ["sink_log"]);
    // Who reads alerts has a consumer of his own, and leaves it to end by itself.
    let inventory = fleet.role(Role::Inventory).await;
    let denials = inventory.0.wire.denied_so_far();
    let reading = fleet.cx.child();
    let mut alerts = inventory
        .tail(&reading, ALERTS, Start::New, "")
        .await
        .unwrap();
    assert!(matches!(
        soon(alerts.next()).await,
        Some(Heard::CaughtUp | Heard::UpTo(_))
    ));
    reading.stop();
    while soon(alerts.next()).await.is_some() {}
    inventory.0.wire.flush().await.unwrap();
    assert_eq!(inventory.0.wire.denied_so_far(), denials);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_is_told_that_alerts_are_not_for_him() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let bus = fleet.role(Role::Subscriber).await;
    let began = Instant::now();
    let all = bus.news(&fleet.cx, Begin::New, Selection::default()).await;
    insta::assert_snapshot!(denied(began, all.map(drop)), @"`subscriber` publish on `$JS.API.STREAM.INFO.ALERTS`");
    let others = NEWS.iter().filter(|kind| kind.stream != ALERTS);
    let selection = Selection {
        kinds: others.collect(),
        ..Selection::default()
    };
    bus.news(&fleet.cx, Begin::New, selection).await.unwrap();
}
