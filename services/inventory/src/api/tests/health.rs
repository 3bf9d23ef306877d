//! How the whole installation does.

use std::time::Duration;

use model::{
    AdvisoryHead, Catalog, CrawlPass, CrawlRecord, ProcessRecord, SpoolState,
    event::{LEASES, REFS},
};

use super::*;

const ROLES: [&str; 7] = [
    "gateway",
    "router",
    "scanner",
    "matcher",
    "policy",
    "alerting",
    "inventory",
];

impl World {
    /// One process with all roles, advisory data of an hour ago, and empty queues.
    async fn healthy() -> Self {
        let world = Self::new();
        for partition in model::Partition::all() {
            let mark = SweptMark {
                revision: 7,
                data_at: Some(time("2026-03-01T11:00:00Z")),
                ..SweptMark::default()
            };
            let key = format!("swept.{partition}");
            world
                .api
                .store
                .put(ADVISORIES, &key, &mark, None)
                .await
                .unwrap();
        }
        let head = AdvisoryHead {
            revision: 7,
            manifest: digest("manifest"),
            published_at: time("2026-03-01T11:01:00Z"),
            past: Vec::new(),
        };
        world
            .api
            .store
            .put(ADVISORIES, "head", &head, None)
            .await
            .unwrap();
        world.process("all", &ROLES, |_| ()).await;
        world
    }

    async fn process(&self, id: &str, roles: &[&str], change: impl FnOnce(&mut ProcessRecord)) {
        let mut record = ProcessRecord {
            id: id.to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            version: "0.1.0".to_owned(),
            host: "node-1".to_owned(),
            started_at: time(NOW),
            seen_at: time(NOW),
            ..ProcessRecord::default()
        };
        change(&mut record);
        let key = ProcessRecord::key(id);
        self.api
            .store
            .put(LEASES, &key, &record, None)
            .await
            .unwrap();
    }

    async fn problems(&self) -> Vec<String> {
        let health = self.ok("/v1/health").await;
        let problems: Vec<String> = serde_json::from_value(health["problems"].clone()).unwrap();
        assert_eq!(health["status"] == "ok", problems.is_empty(), "{health:#}");
        problems
    }
}

fn queue(consumer: &str, age_seconds: u64) -> Queue {
    Queue {
        stream: "JOBS".to_owned(),
        consumer: consumer.to_owned(),
        pending: 3,
        in_flight: 1,
        oldest_age: Some(Duration::from_secs(age_seconds)),
    }
}

#[tokio::test]
async fn health_tells_how_old_the_data_are_and_who_lives() {
    let world = World::healthy().await;
    let health = world.ok("/v1/health").await;
    assert_eq!(
        (&health["status"], &health["problems"]),
        (&"ok".into(), &serde_json::json!([]))
    );
    assert_eq!(health["partitions"].as_array().unwrap().len(), 16);
    assert_eq!(
        (&health["roles"]["scanner"], &health["dead_letters"]),
        (&1.into(), &0.into())
    );
    assert_eq!(health["processes"][0]["host"], "node-1");
    insta::assert_json_snapshot!(health["advisories"], @r#"
    {
      "revision": 7,
      "swept": 7,
      "published_at": "2026-03-01T11:01:00Z",
      "data_at": "2026-03-01T11:00:00Z",
      "age_seconds": 3600
    }
    "#);
}

#[tokio::test]
async fn every_kind_of_back_pressure_is_a_problem_in_words() {
    let mut world = World::healthy().await;
    assert_eq!(world.problems().await, [""; 0]);
    world
        .process("hurt", &["gateway"], |process| {
            process.full = vec!["tw.job.image.norm.{tenant}".to_owned()];
            process.notes = [("layer cache".to_owned(), "full: 9 of 9 bytes".to_owned())].into();
            process.unready = vec!["nats".to_owned()];
            process.spool = Some(SpoolState {
                events: 5,
                bytes: 80,
                bytes_max: 100,
            });
        })
        .await;
    world.api.broker = Arc::new(FakeBroker {
        queues: Some(vec![
            queue("image_high", 901),
            queue("image_norm", 900),
            queue("image_low", 901),
        ]),
        dead_letters: 2,
        last_sequence: 0,
        ..FakeBroker::default()
    });
    let crawl = CrawlRecord {
        source: "main".parse().unwrap(),
        catalog: Catalog::Listed,
        pass: CrawlPass::default(),
        last_pass: None,
        cursor: None,
        last_error: Some("the registry answered 503".to_owned()),
    };
    let key = CrawlRecord::key(&tenant(), &crawl.source);
    world.api.store.put(REFS, &key, &crawl, None).await.unwrap();
    insta::assert_json_snapshot!(world.problems().await, @r#"
    [
      "gateway on `node-1`: `nats` is not ready",
      "gateway on `node-1`: the stream of `tw.job.image.norm.{tenant}` is full, and what is for it waits",
      "gateway on `node-1`: the spool holds 5 events in 80 of 100 bytes; when it is full, senders are refused",
      "gateway on `node-1`: layer cache: full: 9 of 9 bytes",
      "`JOBS/image_high`: the oldest of 4 messages is there for 15 min",
      "there are 2 dead letters: `tidewaiter dlq list`",
      "source `main`: the registry answered 503"
    ]
    "#);
    let health = world.ok("/v1/health").await;
    assert_eq!(
        (&health["status"], &health["roles"]["gateway"]),
        (&"degraded".into(), &2.into())
    );
    assert_eq!(health["sources"][0]["source"], "main");
}

#[tokio::test]
async fn a_spool_with_room_and_work_that_is_young_are_no_problem() {
    let mut world = World::healthy().await;
    let spool = SpoolState {
        events: 5,
        bytes: 79,
        bytes_max: 100,
    };
    world
        .process("busy", &["gateway"], |process| process.spool = Some(spool))
        .await;
    world.api.broker = Arc::new(FakeBroker {
        queues: Some(vec![queue("image_high", 900), queue("image_low", 86_400)]),
        ..FakeBroker::default()
    });
    assert_eq!(world.problems().await, [""; 0]);
}

#[tokio::test]
async fn a_role_that_nobody_runs_and_data_that_are_missing_or_old_are_problems() {
    let world = World::new();
    let problems = world.problems().await;
    assert_eq!(problems.len(), 8, "{problems:#?}");
    assert_eq!(problems[0], "no process runs the role `alerting`");
    assert!(
        problems[7].starts_with("there is no advisory data"),
        "{problems:#?}"
    );
    let world = World::healthy().await;
    world.swept("a", "2026-02-26T11:59:59Z").await;
    assert_eq!(
        world.problems().await,
        ["the oldest advisory data are 3 days old: `tidewaiter db update`"]
    );
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_a_problem_and_no_error() {
    let mut world = World::healthy().await;
    let seen = queue("slack", 5).state();
    world
        .process("sinks", &["alerting"], |process| {
            process.queues = vec![seen];
        })
        .await;
    world.api.broker = Arc::new(FakeBroker::default());
    let health = world.ok("/v1/health").await;
    assert_eq!(
        health["problems"],
        serde_json::json!(["queues cannot be asked for: the broker is away"])
    );
    // What a process saw of the queues that it serves is there all the same.
    assert_eq!(health["queues"][0]["consumer"], "slack");
}

#[tokio::test]
async fn a_view_that_is_behind_says_so() {
    let mut world = World::healthy().await;
    world.api.broker = Arc::new(FakeBroker {
        queues: Some(Vec::new()),
        last_sequence: 4,
        ..FakeBroker::default()
    });
    let health = world.ok("/v1/health").await;
    assert_eq!(
        (&health["status"], &health["partitions"][0]["lag"]),
        (&"catching_up".into(), &4.into())
    );
}
