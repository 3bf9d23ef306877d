use std::{collections::BTreeMap, sync::Arc};

use bus::Consume;
use jiff::Timestamp;
use model::{
    Counts, Decision, Digest, Judged, Reason, RecordKey, ScanRequestRecord, Verdict, What,
    event::{EVENTS, Priority},
};

use super::*;
use crate::testing::{Receiver, World, assert_signed, eventually};

fn request(callback: Option<String>, at: Timestamp) -> ScanRequested {
    ScanRequested {
        id: "request-1".to_owned(),
        reference: "r.example/app:1".parse().unwrap(),
        source: "main".parse().unwrap(),
        system: "ci".parse().unwrap(),
        priority: Priority::High,
        force: false,
        requested_at: at,
        callback,
        content: None,
    }
}

fn image() -> Digest {
    Digest::of(b"image")
}

fn judged(now: Timestamp, scan: u64) -> Judged {
    let verdict = Verdict {
        decision: Decision::Deny,
        reasons: vec![Reason {
            rule: "severity".to_owned(),
            decision: Decision::Deny,
            fingerprints: Vec::new(),
            message: "1 vulnerability: CVE-1 (critical) in a 1".to_owned(),
            remediation: "update a to 2".to_owned(),
        }],
        policy: "default".parse().unwrap(),
        policy_revision: 0,
        advisory_revision: 1,
        evaluated_at: now,
        valid_until: None,
    };
    Judged {
        assessed: 9,
        scan,
        verdict,
        previous: None,
        decided_at: None,
        os_ends: None,
        ages_at: None,
        counts: Counts::default(),
        waivers_end: None,
        data_age_s_max: None,
        references: Vec::new(),
        repositories: Vec::new(),
        waived: BTreeMap::new(),
        checks: Vec::new(),
    }
}

struct Caller {
    world: World,
    receiver: Receiver,
    url: String,
    config: Config,
    _secret: tempfile::NamedTempFile,
}

impl Caller {
    async fn start() -> Option<Self> {
        let world = World::start().await?;
        let receiver = Receiver::default();
        let url = receiver.start(&world.cx).await;
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "s3cret").unwrap();
        let mut config = Config {
            callback_hosts: vec![url.clone()],
            ..Config::default()
        };
        config.callbacks.signing_secrets = vec![SecretRef::File(secret.path().to_owned())];
        config.check().unwrap();
        Some(Self {
            world,
            receiver,
            url,
            config,
            _secret: secret,
        })
    }

    fn handler(&self) -> CallbackHandler {
        CallbackHandler::new(&self.world.cx, &self.world.bus, &self.config).unwrap()
    }

    async fn resolve(&self, waits_for: u64) {
        let record = ScanRequestRecord {
            reference: "r.example/app:1".to_owned(),
            images: vec![image()],
            index: None,
            error: None,
            resolved_at: Timestamp::UNIX_EPOCH,
            waits_for: BTreeMap::from([(image(), waits_for)]),
            content: None,
        };
        let key = ScanRequestRecord::key(&Slug::default_tenant(), "request-1");
        let store = self.world.bus.store();
        store.put(REFS, &key, &record, None).await.unwrap();
    }

    async fn judge(&self, scan: u64, expected: u64) -> u64 {
        let what = What::Judged("default".parse().unwrap());
        let key = RecordKey::new(&Slug::default_tenant(), image(), what);
        let judged = judged(self.world.cx.now(), scan);
        let store = self.world.bus.store();
        store.put_record(&key, &judged, expected).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_posted_when_the_scan_that_was_asked_for_is_judged() {
    let Some(caller) = Caller::start().await else {
        return;
    };
    let World { cx, bus, .. } = &caller.world;
    let consume = Consume::new(bus, EVENTS, "callbacks", 4);
    assert_eq!(consume.filter, "tw.evt.*.ci.>");
    bus.consume(cx, consume, Arc::new(caller.handler()));
    let asked = request(Some(format!("{}/200", caller.url)), cx.now());
    let tenant = Slug::default_tenant();
    bus.publish(&tenant, &asked).await.unwrap();
    // An old verdict is no answer to a request that waits for a new scan.
    let revision = caller.judge(3, 0).await;
    caller.resolve(3).await;
    caller.judge(4, revision).await;
    eventually("the answer", async || !caller.receiver.seen().is_empty()).await;
    eventually("it is acknowledged", async || {
        bus.backlog(EVENTS, "callbacks").await.unwrap() == 0
    })
    .await;
    let seen = caller.receiver.seen();
    assert_eq!(seen.len(), 1);
    let (headers, body) = &seen[0];
    assert_signed(headers, body, "s3cret");
    let mut event: serde_json::Value = serde_json::from_str(body).unwrap();
    event["time"] = "…".into();
    insta::assert_json_snapshot!(event, @r#"
    {
      "specversion": "1.0",
      "id": "ci:default:request-1:answer",
      "source": "/alerting",
      "type": "io.tidewaiter.scan.answered.v1",
      "subject": "request-1",
      "time": "…",
      "tenant": "default",
      "datacontenttype": "application/json",
      "data": {
        "request": "request-1",
        "reference": "r.example/app:1",
        "state": "done",
        "error": null,
        "decision": "deny",
        "policy": "default",
        "valid_until": null,
        "reasons": [
          {
            "rule": "severity",
            "decision": "deny",
            "message": "1 vulnerability: CVE-1 (critical) in a 1",
            "remediation": "update a to 2"
          }
        ],
        "index_digest": null,
        "images": [
          {
            "image": "sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d",
            "decision": "deny",
            "report": "/v1/images/sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d/report"
          }
        ],
        "status": "/v1/scans/request-1"
      }
    }
    "#);
    cx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_answer_after_a_day_is_told_so() {
    let Some(caller) = Caller::start().await else {
        return;
    };
    let World { cx, .. } = &caller.world;
    let yesterday = cx.now() - SignedDuration::from_hours(25);
    let asked = request(Some(format!("{}/200", caller.url)), yesterday);
    let delivery = Delivery::of_event(&Slug::default_tenant(), asked);
    let done = caller.handler().handle(delivery).await.unwrap();
    assert!(done.is_empty());
    let event = caller.receiver.events().pop().unwrap();
    assert_eq!(event["data"]["state"], "pending");
    assert_eq!(event["data"]["decision"], serde_json::Value::Null);
    cx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_called_who_is_not_listed() {
    let Some(caller) = Caller::start().await else {
        return;
    };
    let World { cx, .. } = &caller.world;
    let tenant = Slug::default_tenant();
    let handle = async |callback: Option<String>| {
        let delivery = Delivery::of_event(&tenant, request(callback, cx.now()));
        caller.handler().handle(delivery).await
    };
    assert!(handle(None).await.unwrap().is_empty());
    for url in ["http://127.0.0.1:1/", "http://169.254.169.254/latest"] {
        let refused = handle(Some(url.to_owned())).await;
        let Err(Failure::Reject(error)) = refused else {
            panic!("{url}: {refused:?}");
        };
        let error = format!("{error:#}");
        assert!(
            error.contains("is not among the configured hosts"),
            "{error}"
        );
    }
    // A redirect leads past the list, so it is not followed.
    caller.resolve(0).await;
    caller.judge(1, 0).await;
    let refused = handle(Some(format!("{}/302", caller.url))).await;
    let Err(Failure::Reject(error)) = refused else {
        panic!("{refused:?}");
    };
    assert!(format!("{error:#}").contains("redirects are not followed"));
    cx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_find_no_place_to_wait_come_again() {
    let Some(mut caller) = Caller::start().await else {
        return;
    };
    caller.config.callbacks.waiting_max = 1;
    let handler = Arc::new(caller.handler());
    let World { cx, .. } = &caller.world;
    let asked = request(Some(format!("{}/200", caller.url)), cx.now());
    let tenant = Slug::default_tenant();
    let handle = || handler.handle(Delivery::of_event(&tenant, asked.clone()));
    let (first, second) = (handle(), handle());
    tokio::pin!(first, second);
    let ended = tokio::select! {
        ended = &mut first => ended,
        ended = &mut second => ended,
    };
    let Err(Failure::Retry(error)) = ended else {
        panic!("{ended:?}");
    };
    assert!(
        error.to_string().contains("all places to wait are taken"),
        "{error}"
    );
    cx.stop();
}
