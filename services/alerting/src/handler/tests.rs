mod responses;

use std::{collections::BTreeMap, sync::Arc};

use bus::{Delivery, Handler as _, Outcome, Store};
use chassis::FixedClock;
use jiff::{SignedDuration, Timestamp};
use model::{
    AlertRecord, AlertState, Confidence, Counts, Decision, Digest, Fingerprint, FixState, Judged,
    Match, PackageId, PackageType, RecordKey, Severity, Slug, Verdict, Vulnerability, What,
    event::{ALERT_STATES, Alert, Change, Event, ImageJudged, VulnerabilityChanged},
    runtime::{Incident, IncidentChanged, IncidentState},
};

use super::{News, NewsHandler};
use crate::config::{AlertOn, Config};

struct World {
    store: Store,
    clock: Arc<FixedClock>,
    handler: NewsHandler,
}

impl World {
    fn new(alert_on: &[AlertOn]) -> Self {
        let (store, clock) = (Store::memory(), Arc::new(FixedClock::default()));
        let config = Config {
            alert_on: alert_on.to_vec(),
            ..Config::default()
        };
        let handler = NewsHandler {
            store: store.clone(),
            clock: clock.clone(),
            config: Arc::new(config),
        };
        Self {
            store,
            clock,
            handler,
        }
    }

    /// Handles news as the bus would; gives the alerts.
    async fn take<E: Event>(&self, news: E, wrap: impl FnOnce(E) -> News) -> Vec<Alert> {
        let delivery = Delivery::of_event(&Slug::default_tenant(), news).map(wrap);
        let outcome = self.handler.handle(delivery).await.unwrap();
        self.store.apply(&outcome).await.unwrap();
        alerts(&outcome)
    }

    async fn judged(&self, news: ImageJudged) -> Vec<Alert> {
        self.take(news, News::Judged).await
    }

    async fn vulnerability(&self, change: Change, severity: Severity, at: i64) -> Vec<Alert> {
        let news = vulnerability(change, severity, at);
        self.take(news, |news| News::Vulnerability(Box::new(news)))
            .await
    }

    async fn incident(&self, severity: Severity, state: IncidentState, at: i64) -> Vec<Alert> {
        let news = incident(severity, state, at);
        self.take(news, |news| News::Incident(Box::new(news))).await
    }

    /// The verdict that policy holds now.
    async fn record(&self, decision: Decision, at: i64) {
        let policy: Slug = "default".parse().unwrap();
        let verdict = Verdict {
            decision,
            reasons: Vec::new(),
            policy: policy.clone(),
            policy_revision: 0,
            advisory_revision: 1,
            evaluated_at: time(at),
            valid_until: None,
        };
        let judged = Judged {
            assessed: 9,
            scan: 1,
            verdict,
            previous: None,
            decided_at: None,
            counts: Counts::default(),
            waivers_end: None,
            os_ends: None,
            ages_at: None,
            data_age_s_max: None,
            references: Vec::new(),
            repositories: Vec::new(),
            waived: BTreeMap::new(),
            checks: Vec::new(),
        };
        let key = RecordKey::new(&Slug::default_tenant(), image(), What::Judged(policy));
        self.store.put_record(&key, &judged, 0).await.unwrap();
    }
}

fn alerts(outcome: &Outcome) -> Vec<Alert> {
    outcome
        .events::<Alert>()
        .into_iter()
        .map(|(_, alert)| alert)
        .collect()
}

fn image() -> Digest {
    Digest::of(b"image")
}

fn time(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

/// News of a verdict; each at its own time, on its own assessment.
fn judged(decision: Decision, at: u64) -> ImageJudged {
    ImageJudged {
        image: image(),
        policy: "default".parse().unwrap(),
        decision,
        previous: None,
        reasons: vec!["1 vulnerability: CVE-1 (critical) in a 1".to_owned()],
        counts: Counts {
            critical: 1,
            ..Counts::default()
        },
        references: vec!["r.example/app:1".to_owned()],
        assessed: at,
        policy_revision: 0,
        judged_at: time(i64::try_from(at).unwrap()),
    }
}

fn vulnerability(change: Change, severity: Severity, at: i64) -> VulnerabilityChanged {
    VulnerabilityChanged {
        image: image(),
        change,
        advisory: u64::try_from(at).unwrap(),
        changed_at: time(at),
        vulnerability: Vulnerability {
            id: "CVE-1".to_owned(),
            aliases: Vec::new(),
            package_id: PackageId("a".to_owned()),
            package: "a".to_owned(),
            kind: PackageType::Deb,
            installed_version: "1".to_owned(),
            fixed_versions: vec!["2".to_owned()],
            fix_state: FixState::Fixed,
            severity,
            severity_level: severity.level(),
            cvss: Vec::new(),
            epss: None,
            kev: false,
            title: "a is too trusting".to_owned(),
            url: "https://osv.example/CVE-1".to_owned(),
            source: "OSV".to_owned(),
            published: None,
            modified: None,
            path: "a".to_owned(),
            layer: image(),
            matched: Match {
                method: "package".to_owned(),
                confidence: Confidence::High,
                evidence: Vec::new(),
            },
            vex: None,
            waived: None,
            fingerprint: Fingerprint::of(&["CVE-1", "a"]),
        },
    }
}

fn incident(severity: Severity, state: IncidentState, at: i64) -> IncidentChanged {
    IncidentChanged {
        incident: Incident {
            id: "fedcba9876543210fedcba9876543210".to_owned(),
            state,
            severity,
            title: "web ran tmp/x, which the image does not hold".to_owned(),
            node: "node-1".parse().unwrap(),
            container: "c0ffee".to_owned(),
            container_name: "web".to_owned(),
            image_name: "r.example/app:1".to_owned(),
            image: Some(image()),
            namespace: Some("shop".to_owned()),
            pod: None,
            host: String::new(),
            rules: vec!["drift/added-executable".to_owned()],
            detections: 1,
            tactics: vec!["command-and-control".to_owned()],
            timeline: None,
            surroundings: None,
            left_out: 0,
            first_at: time(at),
            last_at: time(at),
        },
        changed_at: time(at),
    }
}

#[tokio::test]
async fn an_incident_is_one_alert_that_grows_and_ends() {
    let world = World::new(&[AlertOn::Incident]);
    let (open, closed) = (IncidentState::Open, IncidentState::Closed);
    assert_eq!(world.incident(Severity::Low, open, 1).await, []);
    let [raised] = world
        .incident(Severity::High, open, 2)
        .await
        .try_into()
        .unwrap();
    assert_eq!(raised.fingerprint.0, "fedcba9876543210fedcba9876543210");
    insta::assert_snapshot!(raised.text, @r"
    node node-1, namespace shop, container c0ffee
    rules: drift/added-executable
    tactics: command-and-control
    incident: fedcba9876543210fedcba9876543210
    ");
    assert_eq!(raised.references, ["r.example/app:1"]);
    let [worse] = world
        .incident(Severity::Critical, open, 3)
        .await
        .try_into()
        .unwrap();
    assert_eq!(
        (worse.severity, &worse.fingerprint),
        (Severity::Critical, &raised.fingerprint)
    );
    let [over] = world
        .incident(Severity::Critical, closed, 4)
        .await
        .try_into()
        .unwrap();
    assert_eq!(over.state, AlertState::Resolved);
    // Who asked for no alerts of incidents gets none.
    let other = World::new(&[AlertOn::Verdict]);
    assert_eq!(other.incident(Severity::Critical, open, 1).await, []);
    assert_eq!(other.incident(Severity::Critical, closed, 2).await, []);
}

#[tokio::test]
async fn a_refusal_raises_one_alert_and_the_next_permission_resolves_it() {
    let world = World::new(&[AlertOn::Verdict]);
    let [raised] = world
        .judged(judged(Decision::Deny, 1))
        .await
        .try_into()
        .unwrap();
    insta::assert_json_snapshot!(raised, @r#"
    {
      "fingerprint": "c721f88f911e2a04c81e83839199ce19",
      "state": "raised",
      "severity": "critical",
      "title": "r.example/app:1: deny by policy default",
      "text": "1 vulnerability: CVE-1 (critical) in a 1",
      "image": "sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d",
      "references": [
        "r.example/app:1"
      ],
      "event": "judged:default:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d:default:1:0:deny:1000000",
      "at": "1970-01-01T00:00:01Z",
      "policy": "default"
    }
    "#);
    assert_eq!(world.judged(judged(Decision::Deny, 2)).await, []);
    let [resolved] = world
        .judged(judged(Decision::Warn, 3))
        .await
        .try_into()
        .unwrap();
    assert_eq!(resolved.state, AlertState::Resolved);
    assert_eq!(
        (resolved.fingerprint, resolved.severity),
        (raised.fingerprint, Severity::Critical)
    );
    assert_eq!(world.judged(judged(Decision::Allow, 4)).await, []);
    world.clock.advance(SignedDuration::from_secs(60));
    let [again] = world
        .judged(judged(Decision::Deny, 5))
        .await
        .try_into()
        .unwrap();
    assert_eq!(again.state, AlertState::Raised);
}

#[tokio::test]
async fn an_image_that_was_never_refused_is_no_news() {
    let world = World::new(&[AlertOn::Verdict]);
    assert_eq!(world.judged(judged(Decision::Allow, 1)).await, []);
    assert!(
        world
            .store
            .list::<AlertRecord>(ALERT_STATES, "")
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn the_same_event_again_tells_the_same_alert_again() {
    let world = World::new(&[AlertOn::Verdict]);
    let first = world.judged(judged(Decision::Deny, 1)).await;
    let again = world.judged(judged(Decision::Deny, 1)).await;
    assert_eq!(first, again);
    let tenant = Slug::default_tenant();
    assert_eq!(first[0].message_id(&tenant), again[0].message_id(&tenant));
}

#[tokio::test]
async fn what_gets_worse_is_told_once_more() {
    let world = World::new(&[AlertOn::Verdict]);
    assert_eq!(
        world.judged(judged(Decision::Incomplete, 1)).await[0].severity,
        Severity::Medium
    );
    assert_eq!(
        world.judged(judged(Decision::Deny, 2)).await[0].severity,
        Severity::Critical
    );
    assert_eq!(world.judged(judged(Decision::Incomplete, 3)).await, []);
}

#[tokio::test]
async fn news_that_come_late_do_not_raise_what_is_settled() {
    let world = World::new(&[AlertOn::Verdict]);
    world.record(Decision::Allow, 5).await;
    assert_eq!(world.judged(judged(Decision::Deny, 1)).await, []);
    // But a record that is older than the news is a stale read.
    assert_eq!(world.judged(judged(Decision::Deny, 6)).await.len(), 1);
}

#[tokio::test]
async fn a_new_advisory_gives_one_alert() {
    for alert_on in [
        [AlertOn::Verdict].as_slice(),
        &[AlertOn::Verdict, AlertOn::Vulnerability],
    ] {
        let world = World::new(alert_on);
        world.judged(judged(Decision::Allow, 1)).await;
        // The matcher tells before policy has judged, or after.
        let before = world
            .vulnerability(Change::Appeared, Severity::Critical, 2)
            .await;
        let verdict = world.judged(judged(Decision::Deny, 3)).await;
        let after = world
            .vulnerability(Change::Appeared, Severity::Critical, 2)
            .await;
        assert_eq!(
            (before.len(), verdict.len(), after.len()),
            (0, 1, 0),
            "{alert_on:?}"
        );
    }
}

#[tokio::test]
async fn a_vulnerability_in_an_image_that_is_refused_already_alerts_where_asked_for() {
    let world = World::new(&[AlertOn::Verdict, AlertOn::Vulnerability]);
    world.record(Decision::Deny, 1).await;
    assert_eq!(
        world
            .vulnerability(Change::Appeared, Severity::High, 2)
            .await,
        [],
        "its verdict is told, and says so"
    );
    world.judged(judged(Decision::Deny, 1)).await;
    assert_eq!(
        world
            .vulnerability(Change::Appeared, Severity::Medium, 2)
            .await,
        []
    );
    let [raised] = world
        .vulnerability(Change::Appeared, Severity::High, 2)
        .await
        .try_into()
        .unwrap();
    insta::assert_snapshot!(format!("{}\n{}", raised.title, raised.text), @"
    CVE-1 (high) in a of image 6105d6cc76af
    a is too trusting
    a 1: fixed in 2
    https://osv.example/CVE-1
    ");
    let [resolved] = world
        .vulnerability(Change::Resolved, Severity::High, 3)
        .await
        .try_into()
        .unwrap();
    assert_eq!(
        (resolved.state, resolved.fingerprint),
        (AlertState::Resolved, raised.fingerprint)
    );
}

#[tokio::test]
async fn vulnerabilities_alone_may_alert() {
    let world = World::new(&[AlertOn::Vulnerability]);
    assert_eq!(world.judged(judged(Decision::Deny, 1)).await, []);
    assert_eq!(
        world
            .vulnerability(Change::Appeared, Severity::High, 2)
            .await
            .len(),
        1
    );
}

#[tokio::test]
async fn a_cause_that_comes_and_goes_is_told_once_per_window() {
    let world = World::new(&[AlertOn::Verdict]);
    assert_eq!(world.judged(judged(Decision::Deny, 1)).await.len(), 1);
    assert_eq!(world.judged(judged(Decision::Allow, 2)).await.len(), 1);
    world.clock.advance(SignedDuration::from_secs(5));
    for at in [3, 5, 7] {
        assert_eq!(world.judged(judged(Decision::Deny, at)).await, []);
        // The same event again tells nobody either.
        assert_eq!(world.judged(judged(Decision::Deny, at)).await, []);
        assert_eq!(world.judged(judged(Decision::Allow, at + 1)).await, []);
    }
    world.clock.advance(SignedDuration::from_secs(55));
    assert_eq!(world.judged(judged(Decision::Deny, 9)).await.len(), 1);
}

#[tokio::test]
async fn only_news_that_come_once_more_are_judged_by_their_time() {
    let world = World::new(&[AlertOn::Vulnerability]);
    let appeared = vulnerability(Change::Appeared, Severity::High, 10);
    let take = async |news: VulnerabilityChanged, attempt: u64| {
        let delivery = Delivery::of_event(&Slug::default_tenant(), news);
        let delivery = delivery.map(|news| News::Vulnerability(Box::new(news)));
        let again = Delivery {
            attempt,
            ..delivery
        };
        let outcome = world.handler.handle(again).await.unwrap();
        world.store.apply(&outcome).await.unwrap();
        alerts(&outcome).len()
    };
    assert_eq!(take(appeared.clone(), 1).await, 1);
    // Another machine's clock is behind: the end is told all the same.
    let resolved = vulnerability(Change::Resolved, Severity::High, 8);
    assert_eq!(take(resolved, 1).await, 1);
    world.clock.advance(SignedDuration::from_secs(120));
    assert_eq!(
        take(vulnerability(Change::Appeared, Severity::High, 20), 1).await,
        1
    );
    assert_eq!(
        take(vulnerability(Change::Resolved, Severity::High, 21), 1).await,
        1
    );
    world.clock.advance(SignedDuration::from_secs(120));
    // Its acknowledgment was lost; what followed is known.
    assert_eq!(take(appeared, 2).await, 0);
}
