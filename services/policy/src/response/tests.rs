//! Incidents, orders and answers in; records, desired state and news out. Records are in memory.

mod crashes;
mod guards;
mod keeper;
mod orders;
mod sources;
mod start_gate;

use std::sync::Arc;

use bus::{Delivery, Handler as _, Outcome, Store};
use chassis::{Clock as _, FixedClock};
use jiff::{SignedDuration, Timestamp};
use model::{
    Digest, Severity, SigningKey, Slug,
    event::{Event as _, INCIDENTS, NODES},
    runtime::{
        Action, ActionKind, Container, ContainerResponded, ContainerState, Desired, Expected,
        Guard, HostFacts, Incident, IncidentChanged, IncidentState, Mode, NodeReported, Order,
        Phase, RESPONSE_RECORDS, Refusal, ResponseId, ResponseLedger, ResponseOrdered,
        ResponseRecord, ResponseReported, Security, SensorMatrix, SignedDesired, Stage,
    },
};
use tokio::sync::watch;

use super::{
    census::Census,
    desired::Signer,
    document::ResponsePolicy,
    handler::{Incidents, Responder, Responses, Told},
    library::ResponseSet,
};

const IMAGE: &str = "r.example/shop/web:1";

struct World {
    store: Store,
    clock: Arc<FixedClock>,
    key: SigningKey,
    responder: Responder,
}

fn tenant() -> Slug {
    Slug::default_tenant()
}

fn node(name: &str) -> Slug {
    name.parse().unwrap()
}

fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn container(id: &str) -> Container {
    Container {
        id: id.to_owned(),
        name: format!("web-{id}"),
        runtime: "podman".to_owned(),
        image: IMAGE.to_owned(),
        image_id: None,
        repo_digests: Vec::new(),
        state: ContainerState::Running,
        created_at: None,
        started_at: Some(start()),
        pid: 1,
        cgroup: None,
        pod: None,
        namespace: None,
        owner: None,
        labels: std::collections::BTreeMap::new(),
        ports: Vec::new(),
        addresses: Vec::new(),
        mounts: Vec::new(),
        security: Security::default(),
    }
}

fn incident(number: u32, on: &str, container: &str) -> Incident {
    let at = start() + SignedDuration::from_secs(i64::from(number));
    Incident {
        id: format!("{number:032x}"),
        state: IncidentState::Open,
        severity: Severity::Critical,
        title: "a shell was spawned".to_owned(),
        node: node(on),
        container: container.to_owned(),
        container_name: format!("web-{container}"),
        image_name: IMAGE.to_owned(),
        image: None,
        namespace: None,
        pod: None,
        host: String::new(),
        rules: vec!["behavior/reverse-shell".to_owned()],
        detections: 1,
        left_out: 0,
        tactics: Vec::new(),
        timeline: None,
        surroundings: None,
        first_at: at,
        last_at: at,
    }
}

fn policies(yaml: &str) -> ResponseSet {
    ResponseSet::of([ResponsePolicy::parse(yaml).unwrap()])
}

/// Rules that quarantine, with limits that are not reached.
fn enforcing(more: &str) -> String {
    format!(
        "name: shop\nmode: enforce\nevidence: false\n\
         limits: {{ rule: {{ max: 100, per: 10m }}, image: {{ max: 100, per: 10m }}, \
         node: {{ max: 100, per: 10m }}, fleet: {{ max: 100, per: 10m }} }}\n\
         rules: [{{ name: cut, when: {{ severity: high }}, then: [quarantine]{more} }}]\n"
    )
}

impl World {
    fn new(yaml: &str) -> Self {
        let (store, clock) = (Store::memory(), Arc::new(FixedClock::new(start())));
        let (_, policies) = watch::channel(Arc::new(policies(yaml)));
        let key = SigningKey::generate().unwrap();
        let signs: SigningKey = key.secret().parse().unwrap();
        let responder = Responder {
            store: store.clone(),
            census: Census::default(),
            policies,
            signer: Arc::new(Signer(Some(signs))),
            clock: clock.clone(),
        };
        Self {
            store,
            clock,
            key,
            responder,
        }
    }

    fn reported(&self, name: &str, containers: Vec<Container>) {
        let report = self.report(name, containers);
        self.responder
            .census
            .report(&tenant(), &report, self.clock.now());
    }

    fn report(&self, name: &str, containers: Vec<Container>) -> NodeReported {
        NodeReported {
            node: node(name),
            boot: String::new(),
            sequence: 1,
            at: self.clock.now(),
            agent: String::new(),
            host: HostFacts::default(),
            sensors: SensorMatrix::default(),
            containers,
            images: Vec::new(),
            left_out: 0,
        }
    }

    async fn ledger(&self) -> ResponseLedger {
        let key = ResponseLedger::key(&tenant());
        let stored = self.store.get(RESPONSE_RECORDS, &key).await.unwrap();
        stored.unwrap().body
    }

    fn delivery(incident: Incident) -> Delivery<IncidentChanged> {
        let changed_at = incident.last_at;
        let news = IncidentChanged {
            incident,
            changed_at,
        };
        Delivery::of_event(&tenant(), news)
    }

    async fn decide(&self, incident: Incident) -> Outcome {
        let handler = Incidents(self.responder.clone());
        handler.handle(Self::delivery(incident)).await.unwrap()
    }

    async fn happens(&self, incident: Incident) -> Arc<Outcome> {
        let outcome = self.decide(incident).await;
        self.store.apply(&outcome).await.unwrap();
        Arc::new(outcome)
    }

    async fn told(&self, told: Told) -> Arc<Outcome> {
        let outcome = self.hears(told).await;
        self.store.apply(&outcome).await.unwrap();
        Arc::new(outcome)
    }

    /// What a message comes to, before anything is written.
    async fn hears(&self, told: Told) -> Outcome {
        let delivery = match &told {
            Told::Ordered(order) => Delivery::of_event(&tenant(), (**order).clone()).map(|_| ()),
            Told::Reported(report) => Delivery::of_event(&tenant(), (**report).clone()).map(|_| ()),
        };
        let handler = Responses(self.responder.clone());
        handler.handle(delivery.map(|()| told)).await.unwrap()
    }

    async fn order(
        &self,
        id: &str,
        incident: &Incident,
        order: Order,
        force: bool,
    ) -> Arc<Outcome> {
        let told = self.ordered_by_alice(id, incident, order, force);
        self.told(told).await
    }

    fn ordered_by_alice(&self, id: &str, incident: &Incident, order: Order, force: bool) -> Told {
        Told::Ordered(Box::new(ResponseOrdered {
            id: id.to_owned(),
            incident: Some(incident.id.clone()),
            node: incident.node.clone(),
            container: incident.container.clone(),
            order,
            force,
            by: "alice".to_owned(),
            reason: "seen".to_owned(),
            at: self.clock.now(),
        }))
    }

    async fn reports(&self, incident: &Incident, id: &ResponseId, phase: Phase) -> Arc<Outcome> {
        let report = ResponseReported {
            phase,
            before: Some("connected".to_owned()),
            after: Some("cut\u{7} off".to_owned()),
            ..report(incident, id)
        };
        self.told(Told::Reported(Box::new(report))).await
    }

    async fn record(&self, incident: &str) -> ResponseRecord {
        let key = ResponseRecord::key(&tenant(), incident);
        let stored = self.store.get(RESPONSE_RECORDS, &key).await.unwrap();
        stored.unwrap().body
    }

    async fn stages(&self, incident: &Incident) -> Vec<Stage> {
        let record = self.record(&incident.id).await;
        record.responses.iter().map(|one| one.stage).collect()
    }

    async fn signed(&self, on: &str) -> Option<SignedDesired> {
        let key = Desired::key(&tenant(), &node(on));
        let stored = self.store.get(NODES, &key).await.unwrap();
        stored.map(|stored| stored.body)
    }

    /// What a node shall do, as its agent reads it.
    async fn desired(&self, on: &str) -> Desired {
        let signed = self.signed(on).await.unwrap();
        let expected = Expected {
            tenant: &tenant(),
            node: &node(on),
            seen: None,
            keys: &[self.key.verifying()],
            now: self.clock.now(),
        };
        signed.open(&expected).unwrap()
    }

    /// How many containers are ordered out of service.
    async fn ordered(&self, incidents: &[Incident]) -> usize {
        let mut count = 0;
        for incident in incidents {
            count += usize::from(self.stages(incident).await == [Stage::Ordered]);
        }
        count
    }
}

/// A node answers that a response is done.
fn report(one: &Incident, id: &ResponseId) -> ResponseReported {
    ResponseReported {
        node: one.node.clone(),
        response: Some(id.clone()),
        incident: one.id.clone(),
        container: one.container.clone(),
        action: Some(ActionKind::Quarantine),
        mode: Mode::Enforced,
        phase: Phase::Done,
        refusal: None,
        generation: 1,
        attempt: 0,
        evidence: None,
        before: None,
        after: None,
        detail: None,
        image: None,
        denied: Vec::new(),
        at: one.last_at,
    }
}

fn news(outcome: &Outcome) -> Vec<(Stage, String)> {
    let events = outcome.events::<ContainerResponded>();
    let told = events
        .into_iter()
        .map(|(tenant, news)| (news.stage, news.message_id(&tenant)));
    told.collect()
}

#[tokio::test]
async fn by_default_nothing_is_done_and_what_would_be_is_written_down() {
    let world = World::new(super::BUILTIN_RESPONSES);
    world.reported("n1", vec![container("c1"), container("c2")]);
    let one = incident(1, "n1", "c1");
    let outcome = world.happens(one.clone()).await;
    assert_eq!(world.stages(&one).await, [Stage::Observed; 2]);
    assert!(world.signed("n1").await.is_none());
    assert!(
        news(&outcome)
            .iter()
            .all(|(stage, _)| *stage == Stage::Observed)
    );
}

#[tokio::test]
async fn what_is_enforced_is_ordered_once_whatever_comes_twice() {
    let world = World::new(&enforcing(""));
    world.reported("n1", vec![container("c1"), container("c2")]);
    let one = incident(1, "n1", "c1");
    let first = world.happens(one.clone()).await;
    let desired = world.desired("n1").await;
    assert_eq!((desired.generation, desired.responses.len()), (1, 1));
    let response = &desired.responses[0];
    assert_eq!(response.approved_by, "shop/cut");
    assert_eq!(response.container_started_at, Some(start()));
    let stored = world.record(&one.id).await;
    world.clock.advance(SignedDuration::from_secs(5));

    // Again, and again after a crash between the record and the node.
    let again = world.happens(one.clone()).await;
    assert_eq!(world.record(&one.id).await, stored);
    assert_eq!(world.desired("n1").await, desired);
    assert_eq!(news(&again), news(&first));
    let key = Desired::key(&tenant(), &node("n1"));
    world.store.delete(NODES, &key).await.unwrap();
    let mended = world.happens(one.clone()).await;
    assert_eq!(world.desired("n1").await.responses, desired.responses);
    assert_eq!(news(&mended), news(&first));
    assert_eq!(world.record(&one.id).await, stored);
}

#[tokio::test]
async fn a_proposal_waits_for_somebody_and_ends_as_the_agent_says() {
    let world = World::new(&enforcing(", mode: propose"));
    world.reported("n1", vec![container("c1"), container("c2")]);
    let one = incident(1, "n1", "c1");
    world.happens(one.clone()).await;
    assert_eq!(world.stages(&one).await, [Stage::Proposed]);
    assert!(world.signed("n1").await.is_none());
    let id = world.record(&one.id).await.responses[0].id.clone();
    let approve = Order::Approve {
        response: id.clone(),
    };
    world.order("o1", &one, approve.clone(), false).await;
    world.order("o1", &one, approve.clone(), false).await;
    let desired = world.desired("n1").await;
    // Evidence is collected before.
    let kinds: Vec<ActionKind> = desired
        .responses
        .iter()
        .map(|one| one.action.kind())
        .collect();
    assert_eq!(kinds.len(), 2, "{kinds:?}");
    assert_eq!(desired.generation, 1);

    world.reports(&one, &id, Phase::Started).await;
    world.reports(&one, &id, Phase::Done).await;
    // A late copy changes nothing.
    world.reports(&one, &id, Phase::Started).await;
    let record = world.record(&one.id).await;
    let done = record.response(&id).unwrap();
    assert_eq!(
        (done.stage, done.after.as_deref()),
        (Stage::Done, Some("cut off"))
    );
    assert_eq!(world.desired("n1").await.generation, 1);

    let release = Order::Release {
        response: Some(id.clone()),
    };
    world.order("o2", &one, release, false).await;
    let desired = world.desired("n1").await;
    let released = desired.responses.iter().find(|one| one.id == id).unwrap();
    assert_eq!(released.released.as_ref().unwrap().by, "alice");
    world.reports(&one, &id, Phase::Lifted).await;
    assert!(
        !world
            .desired("n1")
            .await
            .responses
            .iter()
            .any(|one| one.id == id)
    );
    let stage = world.record(&one.id).await.response(&id).unwrap().stage;
    assert_eq!(stage, Stage::Lifted);

    // It is ordered once more: another response.
    let act = Order::Act {
        action: Action::Quarantine { allow: Vec::new() },
        valid_for_s: 60,
        dry_run: false,
    };
    world.order("o3", &one, act, false).await;
    let record = world.record(&one.id).await;
    let again = record.responses.last().unwrap();
    assert!(again.id != id && again.stage == Stage::Ordered && again.round == 1);
}

#[tokio::test]
async fn who_denies_a_proposal_ends_it() {
    let world = World::new(&enforcing(", mode: propose"));
    world.reported("n1", vec![container("c1"), container("c2")]);
    let one = incident(1, "n1", "c1");
    world.happens(one.clone()).await;
    let id = world.record(&one.id).await.responses[0].id.clone();
    world
        .order(
            "o1",
            &one,
            Order::Deny {
                response: id.clone(),
            },
            false,
        )
        .await;
    world
        .order("o2", &one, Order::Approve { response: id }, true)
        .await;
    let record = world.record(&one.id).await;
    assert_eq!(record.responses[0].stage, Stage::Denied);
    assert!(
        record.orders[1].detail.contains("denied already"),
        "{record:?}"
    );
    // Nor does the incident bring it back when it grows.
    let grown = Incident {
        detections: 9,
        ..one.clone()
    };
    world.happens(grown).await;
    assert_eq!(world.stages(&one).await, [Stage::Denied]);
    assert!(world.signed("n1").await.is_none());
}

#[tokio::test]
async fn without_a_key_nothing_is_ordered() {
    let mut world = World::new(&enforcing(""));
    world.responder.signer = Arc::new(Signer(None));
    world.reported("n1", vec![container("c1"), container("c2")]);
    let one = incident(1, "n1", "c1");
    world.happens(one.clone()).await;
    let record = world.record(&one.id).await;
    assert_eq!(record.responses[0].guards, [Guard::NoKey]);
    assert_eq!(record.responses[0].stage, Stage::Held);
    assert!(world.signed("n1").await.is_none());
}

#[tokio::test]
async fn what_another_key_signed_is_written_anew_from_what_was_decided() {
    let world = World::new(&enforcing(""));
    world.reported(
        "n1",
        vec![container("c1"), container("c2"), container("c3")],
    );
    let one = incident(1, "n1", "c1");
    world.happens(one.clone()).await;
    let mut forged = world.desired("n1").await;
    forged.generation = 40;
    forged.responses[0].container = "c2".to_owned();
    let theirs = SigningKey::generate().unwrap();
    let signed = SignedDesired::sign(&forged, &theirs).unwrap();
    let key = Desired::key(&tenant(), &node("n1"));
    world.store.put(NODES, &key, &signed, None).await.unwrap();
    let two = incident(2, "n1", "c3");
    world.happens(two).await;
    let desired = world.desired("n1").await;
    let containers: Vec<&str> = desired
        .responses
        .iter()
        .map(|one| &*one.container)
        .collect();
    assert_eq!((desired.generation, containers), (41, vec!["c1", "c3"]));
}

#[tokio::test]
async fn a_refused_document_is_told_and_one_that_fell_behind_is_mended() {
    let world = World::new(&enforcing(""));
    world.reported("n1", vec![container("c1"), container("c2")]);
    world.happens(incident(1, "n1", "c1")).await;
    let report = |refusal, generation| {
        let report = ResponseReported {
            response: None,
            action: None,
            phase: Phase::Refused,
            refusal: Some(refusal),
            generation,
            ..report(&incident(1, "n1", "c1"), &ResponseId(String::new()))
        };
        Told::Reported(Box::new(report))
    };
    let why = "its signature is wrong".to_owned();
    let outcome = world.told(report(Refusal::Forged { why }, 9)).await;
    assert_eq!(outcome.events::<ContainerResponded>().len(), 1);
    assert_eq!(world.desired("n1").await.generation, 1);
    let record = world.record("node-n1").await;
    assert!(record.orders[0].detail.contains("forged"), "{record:?}");
    let replayed = Refusal::Replayed {
        generation: 1,
        seen: 57,
    };
    world.told(report(replayed, 1)).await;
    assert_eq!(world.desired("n1").await.generation, 58);
}

#[tokio::test]
async fn a_node_answers_for_its_own_responses_alone() {
    let world = World::new(&enforcing(""));
    world.reported("n1", vec![container("c1"), container("c2")]);
    let one = incident(1, "n1", "c1");
    world.happens(one.clone()).await;
    let before = world.record(&one.id).await;
    let id = before.responses[0].id.clone();
    let elsewhere = Incident {
        node: node("n2"),
        ..one.clone()
    };
    world.reports(&elsewhere, &id, Phase::Done).await;
    assert_eq!(world.record(&one.id).await, before);
    // Nor may it name another one in its message.
    let delivery = Delivery::of_event(
        &tenant(),
        IncidentChanged {
            incident: one.clone(),
            changed_at: start(),
        },
    );
    let report = report(&one, &id);
    let mut delivery = delivery.map(|_| Told::Reported(Box::new(report)));
    delivery.subject = "tw.evt.default.response.reported.n2".to_owned();
    let handler = Responses(world.responder.clone());
    assert!(handler.handle(delivery).await.unwrap().is_empty());
}

#[tokio::test]
async fn something_is_done_by_hand_to_a_container_without_an_incident() {
    let world = World::new(super::BUILTIN_RESPONSES);
    world.reported("n1", vec![container("c1")]);
    let order = |id: &str, force| ResponseOrdered {
        id: id.to_owned(),
        incident: None,
        node: node("n1"),
        container: "c1".to_owned(),
        order: Order::Act {
            action: Action::Pause,
            valid_for_s: 60,
            dry_run: false,
        },
        force,
        by: "alice".to_owned(),
        reason: String::new(),
        at: start(),
    };
    world
        .told(Told::Ordered(Box::new(order("o1", false))))
        .await;
    let name = ResponseRecord::by_hand("c1");
    let record = world.record(&name).await;
    assert!(record.responses.is_empty() && record.orders[0].stage == Stage::Held);
    world.told(Told::Ordered(Box::new(order("o2", true)))).await;
    let kinds: Vec<ActionKind> = world
        .desired("n1")
        .await
        .responses
        .iter()
        .map(|one| one.action.kind())
        .collect();
    assert_eq!(kinds, [ActionKind::CollectEvidence, ActionKind::Pause]);
    assert_eq!(world.ledger().await.entries.len(), 1);
    // The same incident later: the record of the incident, where there is one, names it.
    let one = incident(1, "n1", "c1");
    let key = format!("{}.{}", tenant(), one.id);
    world.store.put(INCIDENTS, &key, &one, None).await.unwrap();
    world
        .order("o3", &one, Order::Release { response: None }, false)
        .await;
    let record = world.record(&one.id).await;
    assert_eq!(
        (record.orders[0].stage, record.image),
        (Stage::Held, None::<Digest>)
    );
}
