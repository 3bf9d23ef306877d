use std::sync::Arc;

use bus::{Delivery, Handler as _, Outcome, Store};
use chassis::{Cx, CxLimits, FixedClock};
use jiff::{SignedDuration, Timestamp};
use model::{
    Assessed, Counts, Decision, Digest, Judged, Known, Record, RecordKey, ScannedFindings,
    SeenReference, Slug, SweptMark, What,
    event::{ADVISORIES, Event as _, ImageJudged, REPORT_OBJECTS},
};
use tokio::sync::watch;

use super::{AssessedHandler, KnownHandler};
use crate::{
    PolicySet,
    calendar::Calendar,
    cases::Given,
    document::Policy,
    owner::rulings,
    rulings::{Judges, Objects},
};

const DENIED: &str = "vulnerabilities: [{ id: CVE-1, package: a, severity: high, fixed: '2' }]";
const CLEAN: &str = "{}";

/// A store, a clock, the policies and the handlers: what one partition's owner has.
struct World {
    store: Store,
    clock: Arc<FixedClock>,
    policies: watch::Sender<Arc<PolicySet>>,
    judges: Judges,
    calendar: Arc<Calendar>,
    key: RecordKey,
}

/// What a handler did; it is in the store already.
struct Done(Outcome);

impl World {
    fn new(policies: impl IntoIterator<Item = Policy>) -> Self {
        let clock = Arc::new(FixedClock::new(Given::default().at));
        let limits = CxLimits {
            compute_threads: 1,
            blocking_threads: 1,
        };
        let (sender, receiver) = watch::channel(Arc::new(PolicySet::new(policies)));
        let store = Store::memory();
        let cx = Cx::new(clock.clone(), limits);
        Self {
            judges: Judges {
                objects: Objects::new(&store),
                cx,
                store: store.clone(),
                policies: receiver,
            },
            store,
            clock,
            policies: sender,
            calendar: Arc::default(),
            key: RecordKey::new(
                &Slug::default_tenant(),
                Digest::of(b"image"),
                What::Assessed,
            ),
        }
    }

    fn put_policies(&self, policies: impl IntoIterator<Item = Policy>) {
        self.policies
            .send_replace(Arc::new(PolicySet::new(policies)));
    }

    /// Stores facts and names; the record that the matcher would write.
    async fn assessment(&self, given: &str) -> Assessed {
        let given: Given = serde_saphyr::from_str(given).unwrap();
        let (assessment, findings) = given.facts();
        let findings = ScannedFindings {
            image: self.key.image,
            target: given.target(),
            findings,
        };
        Assessed {
            scan: 1,
            advisory: assessment.advisories.revision,
            assessment: self
                .store
                .put_object(REPORT_OBJECTS, &assessment)
                .await
                .unwrap(),
            findings: self
                .store
                .put_object(REPORT_OBJECTS, &findings)
                .await
                .unwrap(),
            previous: None,
            counts: Counts::default(),
            assessed_at: given.at,
            contents: model::AssessedContents::default(),
        }
    }

    async fn put<R: Record>(&self, what: What, record: &R) -> u64 {
        let key = self.key.sibling(what);
        let known = self.store.record::<R>(&key).await.unwrap();
        let revision = known.map_or(0, |stored| stored.revision);
        self.store.put_record(&key, record, revision).await.unwrap()
    }

    /// The image is assessed: what the handler does about it, written as the bus would.
    async fn assessed(&self, given: &str) -> Done {
        let record = self.assessment(given).await;
        let revision = self.put(What::Assessed, &record).await;
        self.deliver(revision, record, 1).await
    }

    async fn deliver(&self, revision: u64, record: Assessed, attempt: u64) -> Done {
        let handler = AssessedHandler {
            judges: self.judges.clone(),
            calendar: Arc::clone(&self.calendar),
        };
        let delivery = Delivery::of_record(&self.key, revision, record);
        let outcome = handler
            .handle(Delivery {
                attempt,
                ..delivery
            })
            .await
            .unwrap();
        self.store.apply(&outcome).await.unwrap();
        Done(outcome)
    }

    async fn known(&self, repositories: &[&str]) -> Done {
        let record = known(repositories);
        let revision = self.put(What::Known, &record).await;
        self.deliver_known(revision, record).await
    }

    async fn deliver_known(&self, revision: u64, record: Known) -> Done {
        let handler = KnownHandler {
            judges: self.judges.clone(),
            calendar: Arc::clone(&self.calendar),
        };
        let key = self.key.sibling(What::Known);
        let outcome = handler
            .handle(Delivery::of_record(&key, revision, record))
            .await
            .unwrap();
        self.store.apply(&outcome).await.unwrap();
        Done(outcome)
    }

    /// What an owner's pass does about the image; gives the news.
    async fn pass(&self) -> Vec<ImageJudged> {
        let rulings = rulings(&self.judges, &self.key).await.unwrap();
        for ruling in &rulings {
            self.calendar.note(ruling, &self.judges.policies.borrow());
            if let Some(replaces) = ruling.replaces {
                self.store
                    .put_record(&ruling.key, &ruling.judged, replaces)
                    .await
                    .unwrap();
            }
        }
        rulings
            .into_iter()
            .filter_map(|ruling| ruling.news)
            .collect()
    }

    async fn verdict(&self, policy: &str) -> Judged {
        let key = self.key.sibling(What::Judged(policy.parse().unwrap()));
        self.store.record(&key).await.unwrap().unwrap().body
    }

    fn later(&self) {
        self.clock.advance(SignedDuration::from_hours(1));
    }
}

fn known(repositories: &[&str]) -> Known {
    let seen = |name: &&str| SeenReference {
        source: "main".parse().unwrap(),
        registry: "r.example".to_owned(),
        repository: (*name).to_owned(),
        tag: Some("1".to_owned()),
        since: Timestamp::UNIX_EPOCH,
        gone_at: None,
    };
    Known {
        references: repositories.iter().map(seen).collect(),
        ..Known::default()
    }
}

fn policy(yaml: &str, revision: u64) -> Policy {
    Policy::parse(yaml).unwrap().at_revision(revision)
}

fn web(then: &str, revision: u64) -> Policy {
    let rule = format!("{{ name: any, when: {{ vulnerability: {{}} }}, then: {then} }}");
    policy(
        &format!("name: web\nrepositories: ['r.example/web/*']\nrules: [{rule}]"),
        revision,
    )
}

fn told(Done(outcome): &Done) -> Vec<(String, Option<Decision>, Decision)> {
    let news = outcome.events::<ImageJudged>();
    news.into_iter()
        .map(|(_, news)| (news.policy.to_string(), news.previous, news.decision))
        .collect()
}

#[tokio::test]
async fn an_assessed_image_gets_a_verdict_and_it_is_told() {
    let world = World::new([]);
    world.known(&["app"]).await;
    let outcome = world.assessed(DENIED).await;
    assert_eq!(
        told(&outcome),
        [("default".to_owned(), None, Decision::Deny)]
    );
    let judged = world.verdict("default").await;
    assert_eq!(judged.references, ["r.example/app:1"]);
    assert_eq!((judged.counts.high, judged.previous), (1, None));
    assert_eq!(judged.data_age_s_max, Some(7 * 86_400));
    assert_eq!(judged.verdict.valid_until, None);
}

#[tokio::test]
async fn only_another_decision_is_told() {
    let world = World::new([]);
    world.assessed(CLEAN).await;
    world.later();
    let outcome = world
        .assessed("vulnerabilities: [{ id: A, package: a, severity: low }]")
        .await;
    assert_eq!(outcome.0.records::<Judged>().len(), 1);
    assert_eq!(told(&outcome), []);
    let outcome = world.assessed(DENIED).await;
    assert_eq!(
        told(&outcome),
        [("default".to_owned(), Some(Decision::Allow), Decision::Deny)]
    );
}

#[tokio::test]
async fn a_message_that_comes_again_tells_the_same_news_again() {
    let world = World::new([]);
    let record = world.assessment(DENIED).await;
    let revision = world.put(What::Assessed, &record).await;
    let first = world.deliver(revision, record.clone(), 1).await;
    world.later();
    let again = world.deliver(revision, record.clone(), 2).await;
    assert_eq!(
        again.0.events::<ImageJudged>(),
        first.0.events::<ImageJudged>()
    );
    assert_eq!(again.0.records::<Judged>(), []);
    // Long after, the first delivery of something else is no reason to tell it.
    assert_eq!(told(&world.deliver(revision, record, 1).await), []);
}

#[tokio::test]
async fn news_that_died_with_their_writer_are_told_by_the_next() {
    let world = World::new([]);
    world.assessed(DENIED).await;
    // The writer of the first verdict may have died; a newer assessment took its message's place.
    let outcome = world.assessed(DENIED).await;
    assert_eq!(
        told(&outcome),
        [("default".to_owned(), None, Decision::Deny)]
    );
    let revision = outcome.0.events::<ImageJudged>()[0].1.assessed;
    assert!(
        revision < world.verdict("default").await.assessed,
        "it has its own id"
    );
    // A new name changes the record and not what it tells.
    world.known(&["app"]).await;
    assert_eq!(
        world.verdict("default").await.references,
        ["r.example/app:1"]
    );
}

#[tokio::test]
async fn an_older_assessment_never_replaces_a_verdict() {
    let world = World::new([]);
    let old = world.assessment(DENIED).await;
    let revision = world.put(What::Assessed, &old).await;
    world.assessed(CLEAN).await;
    let outcome = world.deliver(revision, old, 1).await;
    assert!(outcome.0.is_empty());
    assert_eq!(
        world.verdict("default").await.verdict.decision,
        Decision::Allow
    );
}

#[tokio::test]
async fn who_has_older_policies_waits_for_the_newer_ones() {
    let world = World::new([web("deny", 7)]);
    world.known(&["web/app"]).await;
    world.assessed(DENIED).await;
    world.put_policies([web("allow", 3)]);
    let record = world.assessment(CLEAN).await;
    let handler = AssessedHandler {
        judges: world.judges.clone(),
        calendar: Arc::default(),
    };
    let failure = handler
        .handle(Delivery::of_record(&world.key, 99, record))
        .await
        .unwrap_err();
    assert!(matches!(failure, bus::Failure::Retry(_)), "{failure:?}");
}

#[tokio::test]
async fn every_policy_that_a_name_selects_gives_a_verdict() {
    let world = World::new([web("warn", 2)]);
    world.assessed(DENIED).await;
    let outcome = world.known(&["app", "web/app"]).await;
    assert_eq!(
        told(&outcome).last().unwrap(),
        &("web".to_owned(), None, Decision::Warn)
    );
    assert_eq!(
        world.verdict("default").await.verdict.decision,
        Decision::Deny
    );
}

#[tokio::test]
async fn a_policy_that_no_name_selects_any_more_has_no_objection() {
    let world = World::new([web("deny", 2)]);
    world.known(&["web/app"]).await;
    world.assessed(DENIED).await;
    world.later();
    let outcome = world.known(&["app"]).await;
    let gone = ("web".to_owned(), Some(Decision::Deny), Decision::Allow);
    assert!(told(&outcome).contains(&gone), "{:?}", told(&outcome));
    assert_eq!(
        world.verdict("web").await.verdict.reasons[0].rule,
        "not-selected"
    );
    world.later();
    assert_eq!(told(&world.known(&["app"]).await), []);
    // And it has a say again when a name comes back.
    let outcome = world.known(&["web/app"]).await;
    assert!(told(&outcome).contains(&("web".to_owned(), Some(Decision::Allow), Decision::Deny)));
}

#[tokio::test]
async fn names_in_a_late_message_do_not_undo_what_newer_names_asked_for() {
    let world = World::new([web("deny", 2)]);
    let late = known(&["app"]);
    let revision = world.put(What::Known, &late).await;
    world.assessed(DENIED).await;
    world.known(&["app", "web/app"]).await;
    let outcome = world.deliver_known(revision, late).await;
    assert_eq!(outcome.0.records::<Judged>(), []);
    assert_eq!(world.verdict("web").await.verdict.decision, Decision::Deny);
}

#[tokio::test]
async fn a_decision_that_comes_back_is_news_of_its_own() {
    let world = World::new([web("deny", 2)]);
    world.known(&["web/app"]).await;
    let first = world.assessed(DENIED).await;
    world.later();
    world.known(&["app"]).await;
    world.later();
    let again = world.known(&["web/app"]).await;
    let ids = |Done(outcome): &Done| -> Vec<String> {
        let news = outcome.events::<ImageJudged>().into_iter();
        let of_web = news.filter(|(_, news)| news.policy.as_str() == "web");
        of_web
            .map(|(tenant, news)| news.message_id(&tenant))
            .collect()
    };
    assert_eq!((ids(&first).len(), ids(&again).len()), (1, 1));
    assert_ne!(ids(&first), ids(&again));
}

#[tokio::test]
async fn a_policy_edit_judges_what_is_stored() {
    let world = World::new([web("deny", 2)]);
    world.known(&["web/app"]).await;
    world.assessed(DENIED).await;
    world.later();
    assert_eq!(world.pass().await, []);
    world.put_policies([web("warn", 3)]);
    let [news] = world.pass().await.try_into().unwrap();
    assert_eq!(
        (news.previous, news.decision),
        (Some(Decision::Deny), Decision::Warn)
    );
    assert_eq!(news.policy_revision, 3);
    // Deleted: its verdict is forgotten, and `default` takes the image.
    world.put_policies([]);
    let key = world.key.sibling(What::Judged("web".parse().unwrap()));
    let [ruling] = rulings(&world.judges, &key)
        .await
        .unwrap()
        .try_into()
        .unwrap();
    assert_eq!(ruling.judged.verdict.decision, Decision::Allow);
    assert_eq!(world.pass().await[0].policy.as_str(), "default");
}

#[tokio::test]
async fn a_waiver_that_ends_is_judged_again_at_its_time() {
    let yaml = "
        name: default
        rules: [{ name: any, when: { vulnerability: {} }, then: deny }]
        waivers: [{ cve: CVE-1, reason: later, author: ada, expires: 2026-01-01 }]
        ";
    let world = World::new([policy(yaml, 1)]);
    world.assessed(DENIED).await;
    let judged = world.verdict("default").await;
    assert_eq!(
        (judged.verdict.decision, judged.counts.total()),
        (Decision::Allow, 0)
    );
    let end = judged.waivers_end.unwrap();
    assert_eq!(
        world
            .calendar
            .take_ended(end - SignedDuration::from_secs(1))
            .len(),
        0
    );
    let ended = world.calendar.take_ended(end);
    assert_eq!((ended.len(), ended.first()), (1, Some(&world.key)));
    world.clock.set(end);
    let [news] = world.pass().await.try_into().unwrap();
    assert_eq!(news.decision, Decision::Deny);
    let rules: Vec<_> = world
        .verdict("default")
        .await
        .verdict
        .reasons
        .into_iter()
        .map(|one| one.rule)
        .collect();
    assert_eq!(rules, ["any", "expired-waiver"]);
}

#[tokio::test]
async fn an_operating_system_that_loses_its_support_is_judged_again_at_its_time() {
    let world = World::new([]);
    world.assessed("support_ends: 2026-01-03T00:00:00Z").await;
    let judged = world.verdict("default").await;
    assert_eq!(judged.verdict.decision, Decision::Allow);
    let end = judged.os_ends.unwrap();
    assert_eq!(end.to_string(), "2026-01-03T00:00:00Z");
    let ended = world.calendar.take_ended(end);
    assert_eq!(ended.first(), Some(&world.key));
    // Nobody assessed it again.
    world.clock.set(end);
    let [news] = world.pass().await.try_into().unwrap();
    assert_eq!(news.decision, Decision::Incomplete);
    let judged = world.verdict("default").await;
    assert_eq!(judged.os_ends, None, "it has ended");
    assert_eq!(judged.checks[0].id, "end-of-life-os");
    assert!(
        judged
            .verdict
            .reasons
            .iter()
            .any(|reason| reason.rule == "end-of-life-os"),
        "{:?}",
        judged.verdict.reasons
    );
}

#[tokio::test]
async fn an_image_that_gets_old_is_judged_again_at_its_time() {
    let yaml = "
        name: default
        rules: [{ name: old, when: { image: { older_than: 30d } }, then: deny }]
        ";
    let world = World::new([Policy::parse(yaml).unwrap()]);
    world.assessed("created: 2025-12-15T00:00:00Z").await;
    let judged = world.verdict("default").await;
    assert_eq!(judged.verdict.decision, Decision::Allow);
    let end = judged.ages_at.unwrap();
    let ended = world.calendar.take_ended(end);
    assert_eq!(ended.first(), Some(&world.key));
    world.clock.set(end);
    let rulings = world.pass().await;
    assert_eq!(rulings[0].decision, Decision::Deny);
    assert_eq!(world.verdict("default").await.ages_at, None);
}

#[tokio::test]
async fn newer_data_free_a_verdict_that_waited_for_them() {
    let world = World::new([]);
    world.assessed("advisory_age: 8d").await;
    assert_eq!(
        world.verdict("default").await.verdict.decision,
        Decision::Incomplete
    );
    assert_eq!(world.calendar.take_waiting().len(), 1);
    world.later();
    assert_eq!(world.pass().await, []);
    let mark = SweptMark {
        revision: 5,
        data_at: Some(world.judges.cx.now()),
        ..SweptMark::default()
    };
    let name = format!("swept.{}", world.key.image.partition());
    world
        .store
        .put(ADVISORIES, &name, &mark, None)
        .await
        .unwrap();
    let [news] = world.pass().await.try_into().unwrap();
    assert_eq!(news.decision, Decision::Allow);
    assert_eq!(world.verdict("default").await.verdict.advisory_revision, 5);
}

#[tokio::test]
async fn facts_that_are_not_there_are_waited_for() {
    let world = World::new([]);
    let mut record = world.assessment(CLEAN).await;
    record.assessment = Digest::of(b"gone");
    let handler = AssessedHandler {
        judges: world.judges.clone(),
        calendar: Arc::default(),
    };
    let failure = handler
        .handle(Delivery::of_record(&world.key, 1, record))
        .await
        .unwrap_err();
    assert!(matches!(failure, bus::Failure::Retry(_)), "{failure:?}");
}
