//! Responses: who must decide is told and reminded, what does not work, and what was done.

use std::{future::ready, sync::Mutex};

use bus::BusError;
use model::{
    event::INCIDENTS,
    runtime::{
        Action, ActionKind, ContainerResponded, Guard, Mode, ProposedResponse, RESPONSE_RECORDS,
        ResponseId, ResponseRecord, Stage, Step,
    },
};

use super::*;
use crate::reminder::tell_what_is_due;

const INCIDENT: &str = "fedcba9876543210fedcba9876543210";

/// The answer to an incident, as policy keeps it, and the news of its last step.
struct Answer {
    world: World,
    record: ResponseRecord,
    second: i64,
}

impl Answer {
    /// Something that a rule asks for.
    fn new(alert_on: &[AlertOn], actions: &[Action]) -> Self {
        let node = "node-1".parse().unwrap();
        let responses = actions.iter().map(proposed).collect();
        Self {
            world: World::new(alert_on),
            record: ResponseRecord {
                incident: INCIDENT.to_owned(),
                node,
                container: "c0ffee".to_owned(),
                container_name: "web\napprove: \u{1b}[1m".to_owned(),
                image_name: "r.example/app:1".to_owned(),
                image: Some(image()),
                responses,
                orders: Vec::new(),
                updated_at: time(0),
            },
            second: 0,
        }
    }

    async fn of_incident(self, severity: Severity) -> Self {
        let incident = incident(severity, IncidentState::Open, 0).incident;
        let key = format!("{}.{INCIDENT}", Slug::default_tenant());
        let store = &self.world.store;
        store.put(INCIDENTS, &key, &incident, None).await.unwrap();
        self
    }

    /// A step of a response, as policy writes and tells it; a claim is written down and does not
    /// count.
    async fn step(&mut self, at: usize, stage: Stage, counts: bool) -> ContainerResponded {
        self.second += 1;
        let at_time = time(self.second);
        let response = &mut self.record.responses[at];
        if counts {
            response.stage = stage;
        }
        response.steps.push(Step {
            id: format!("step-{}", self.second),
            stage,
            at: at_time,
            by: "alice".to_owned(),
            detail: "seen".to_owned(),
        });
        let news = ContainerResponded {
            response: response.id.clone(),
            incident: INCIDENT.to_owned(),
            node: self.record.node.clone(),
            container: self.record.container.clone(),
            container_name: self.record.container_name.clone(),
            image: self.record.image,
            action: Some(response.action.kind()),
            mode: response.mode,
            stage,
            by: "alice".to_owned(),
            detail: "seen".to_owned(),
            evidence: None,
            at: at_time,
        };
        let key = ResponseRecord::key(&Slug::default_tenant(), INCIDENT);
        let store = &self.world.store;
        store
            .put(RESPONSE_RECORDS, &key, &self.record, None)
            .await
            .unwrap();
        news
    }

    async fn tells(&self, news: ContainerResponded) -> Vec<Alert> {
        let wrap = |news| News::Response(Box::new(news));
        self.world.take(news, wrap).await
    }

    /// A step, and what is told of it.
    async fn goes(&mut self, at: usize, stage: Stage) -> Vec<(AlertState, String)> {
        let news = self.step(at, stage, true).await;
        let alerts = self.tells(news).await.into_iter();
        alerts.map(|alert| (alert.state, alert.title)).collect()
    }

    /// What is told because time went by.
    async fn reminds(&self, hours: i64) -> usize {
        self.world.clock.advance(SignedDuration::from_hours(hours));
        let windows = crate::state::Windows {
            repeat_after: SignedDuration::from_secs(60),
            remind_after: SignedDuration::from_hours(1),
        };
        let told = Mutex::new(0);
        let tell = |_, _| {
            *told.lock().unwrap() += 1;
            ready(Ok::<(), BusError>(()))
        };
        let now = chassis::Clock::now(&*self.world.clock);
        tell_what_is_due(&self.world.store, windows, now, tell)
            .await
            .unwrap();
        told.into_inner().unwrap()
    }
}

fn proposed(action: &Action) -> ProposedResponse {
    let kind = action.kind();
    ProposedResponse {
        id: ResponseId::of(INCIDENT, kind, ("c0ffee", None), 0),
        rule: Some("shop/cut".to_owned()),
        action: action.clone(),
        mode: Mode::Enforced,
        container_started_at: None,
        stage: Stage::Proposed,
        reason: "a shell\nwas spawned".to_owned(),
        guards: Vec::new(),
        approval: None,
        proposed_at: time(0),
        valid_for_s: 86_400,
        renewals_left: 0,
        expires_at: None,
        evidence: Vec::new(),
        before: None,
        after: None,
        round: 0,
        steps: Vec::new(),
    }
}

fn quarantine() -> Action {
    Action::Quarantine { allow: Vec::new() }
}

const ALL: [AlertOn; 1] = [AlertOn::Response];
const RAISED: AlertState = AlertState::Raised;
const RESOLVED: AlertState = AlertState::Resolved;

#[tokio::test]
async fn a_proposal_says_who_decides_and_how_and_is_reminded_until_somebody_did() {
    let mut answer = Answer::new(&ALL, &[quarantine()])
        .of_incident(Severity::Critical)
        .await;
    answer.record.responses[0].expires_at = Some(time(86_400));
    let news = answer.step(0, Stage::Proposed, true).await;
    let [raised] = answer.tells(news).await.try_into().unwrap();
    assert_eq!(
        (raised.state, raised.severity),
        (RAISED, Severity::Critical)
    );
    insta::assert_snapshot!(format!("{}\n{}", raised.title, raised.text), @r"
    quarantine of web approve:  [1m on node node-1 waits for approval
    because: a shell was spawned
    rule: shop/cut
    proposed by alice
    seen
    node node-1, namespace shop, container c0ffee
    tidewaiter response show fedcba9876543210fedcba9876543210
    it would last 24h; whoever has a token of scope `respond` or `admin` decides until 1970-01-02T00:00:00Z:
    tidewaiter response approve fedcba9876543210fedcba9876543210 3db03677e03f6ed2cb12e3c0eec5f663 --reason TEXT
    tidewaiter response deny fedcba9876543210fedcba9876543210 3db03677e03f6ed2cb12e3c0eec5f663 --reason TEXT
    ");
    assert_eq!(answer.reminds(1).await, 1);
    assert_eq!(answer.reminds(1).await, 1);
    let told = answer.goes(0, Stage::Denied).await;
    let title = "quarantine of web approve:  [1m on node node-1 waits for approval".to_owned();
    assert_eq!(told, [(RESOLVED, title)]);
    assert_eq!(answer.reminds(9).await, 0);
}

#[tokio::test]
async fn nobody_is_reminded_of_what_lapsed() {
    let mut answer = Answer::new(&ALL, &[quarantine()]);
    answer.goes(0, Stage::Held).await;
    assert_eq!(answer.reminds(1).await, 1);
    let told = answer.goes(0, Stage::Lapsed).await;
    assert_eq!((told.len(), told[0].0), (1, RESOLVED));
    assert_eq!(answer.reminds(99).await, 0);
}

#[tokio::test]
async fn what_a_guard_holds_is_approved_by_force_unless_nobody_would_believe_it() {
    for (guard, way_out) in [
        (Guard::Unknown, "--reason TEXT --force\n"),
        (Guard::NoKey, "set `policy.signing_key_file` first"),
    ] {
        let mut answer = Answer::new(&ALL, &[quarantine()]);
        answer.record.responses[0].guards = vec![guard];
        let news = answer.step(0, Stage::Held, true).await;
        let [raised] = answer.tells(news).await.try_into().unwrap();
        assert!(raised.title.ends_with("is held back"), "{}", raised.title);
        assert!(raised.text.contains(way_out), "{}", raised.text);
    }
}

#[tokio::test]
async fn what_was_done_is_told_once_and_again_when_it_is_over() {
    let mut answer = Answer::new(&ALL, &[quarantine()]);
    let name = "web approve:  [1m on node node-1";
    assert_eq!(answer.goes(0, Stage::Proposed).await.len(), 1);
    let waits = format!("quarantine of {name} waits for approval");
    assert_eq!(answer.goes(0, Stage::Ordered).await, [(RESOLVED, waits)]);
    assert_eq!(answer.goes(0, Stage::Started).await, []);
    let deed = format!("{name} is in quarantine");
    let told = answer.goes(0, Stage::Done).await;
    assert_eq!(told, [(RAISED, deed.clone())]);
    assert_eq!(answer.reminds(9).await, 0);
    // It is so until the node says that it is no more.
    assert_eq!(answer.goes(0, Stage::Released).await, []);
    assert_eq!(answer.goes(0, Stage::Lifted).await, [(RESOLVED, deed)]);
}

#[tokio::test]
async fn what_ends_before_its_incident_is_told_until_it_is_ordered_anew_or_the_incident_ends() {
    let begin = async || {
        let mut answer = Answer::new(&ALL, &[quarantine()])
            .of_incident(Severity::Critical)
            .await;
        answer.goes(0, Stage::Done).await;
        answer
    };
    let lapse = "quarantine of web approve:  [1m on node node-1 is over, its incident is not";
    let mut answer = begin().await;
    let news = answer.step(0, Stage::Expired, true).await;
    let [raised] = answer.tells(news).await.try_into().unwrap();
    assert_eq!((raised.state, &*raised.title), (RAISED, lapse));
    insta::assert_snapshot!(raised.text, @r"
    because: a shell was spawned
    rule: shop/cut
    expired by alice
    seen
    node node-1, namespace shop, container c0ffee
    tidewaiter response show fedcba9876543210fedcba9876543210
    to order it anew:
    tidewaiter response act quarantine --incident fedcba9876543210fedcba9876543210 --reason TEXT
    ");
    // The node lifts it, and nobody is reminded.
    let lifted = answer.goes(0, Stage::Lifted).await;
    assert_eq!(
        (lifted.len(), lifted[0].0),
        (1, RESOLVED),
        "it is not in quarantine any more"
    );
    assert_eq!(answer.reminds(9).await, 0);
    // The incident ends.
    let mut closed = incident(Severity::Critical, IncidentState::Closed, 0);
    closed.changed_at = time(100);
    let ended = answer
        .world
        .take(closed, |news| News::Incident(Box::new(news)));
    let ended: Vec<_> = ended.await.into_iter().map(|one| one.state).collect();
    assert_eq!(ended, [RESOLVED]);

    // It is ordered anew.
    let mut answer = begin().await;
    answer.goes(0, Stage::Lifted).await;
    let mut again = proposed(&quarantine());
    again.id = ResponseId("again".to_owned());
    answer.record.responses.push(again);
    let told = answer.goes(1, Stage::Ordered).await;
    assert!(
        told.iter()
            .any(|(state, title)| (*state, title.contains("is over")) == (RESOLVED, true)),
        "{told:?}"
    );
    // What was taken back, or is of an incident that is closed, did not lapse.
    let mut answer = begin().await;
    answer.goes(0, Stage::Released).await;
    let lifted = answer.goes(0, Stage::Lifted).await;
    assert_eq!((lifted.len(), lifted[0].0), (1, RESOLVED));
    let mut answer = Answer::new(&ALL, &[quarantine()]);
    answer.goes(0, Stage::Done).await;
    assert_eq!(answer.goes(0, Stage::Expired).await, []);
}

#[tokio::test]
async fn what_does_not_work_is_told_until_it_does_or_nobody_wants_it() {
    for (end, told) in [(Stage::Done, 2), (Stage::Expired, 1), (Stage::Released, 1)] {
        let mut answer = Answer::new(&ALL, &[quarantine()]);
        answer.goes(0, Stage::Ordered).await;
        answer.goes(0, Stage::Started).await;
        let failed = answer.goes(0, Stage::Failed).await;
        assert!(failed[0].1.ends_with("failed"), "{failed:?}");
        // The agent tries again, and again.
        for _ in 0..3 {
            assert_eq!(answer.goes(0, Stage::Started).await, []);
            assert_eq!(answer.goes(0, Stage::Failed).await, []);
        }
        assert_eq!(answer.reminds(1).await, 1);
        let ended = answer.goes(0, end).await;
        assert_eq!((ended.len(), ended[0].0), (told, RESOLVED), "{end}");
        assert_eq!(answer.reminds(9).await, 0);
    }
}

#[tokio::test]
async fn what_a_node_refuses_is_told_once() {
    let mut answer = Answer::new(&ALL, &[quarantine()]);
    let refused = answer.goes(0, Stage::Refused).await;
    assert!(
        refused[0].1.ends_with("is refused by the node"),
        "{refused:?}"
    );
    assert_eq!(answer.reminds(9).await, 0);
}

#[tokio::test]
async fn the_record_decides_whatever_order_news_come_in_and_whatever_an_agent_claims() {
    let mut answer = Answer::new(&ALL, &[quarantine()]);
    let proposed = answer.step(0, Stage::Proposed, true).await;
    let denied = answer.step(0, Stage::Denied, true).await;
    assert_eq!(answer.tells(denied).await, []);
    assert_eq!(answer.tells(proposed).await, []);
    let claimed = answer.step(0, Stage::Done, false).await;
    assert_eq!(answer.tells(claimed).await, []);
}

#[tokio::test]
async fn evidence_is_asked_for_with_what_it_is_collected_for() {
    let mut answer = Answer::new(&ALL, &[Action::CollectEvidence, quarantine()]);
    assert_eq!(answer.goes(0, Stage::Proposed).await, []);
    assert_eq!(answer.goes(1, Stage::Proposed).await.len(), 1);
    // It is done to nobody.
    assert_eq!(answer.goes(0, Stage::Done).await, []);
    let mut alone = Answer::new(&ALL, &[Action::CollectEvidence]);
    assert_eq!(alone.goes(0, Stage::Proposed).await.len(), 1);
}

#[tokio::test]
async fn what_is_only_observed_or_tried_is_no_alert() {
    let mut answer = Answer::new(&ALL, &[quarantine()]);
    answer.record.responses[0].mode = Mode::DryRun;
    for stage in [
        Stage::Observed,
        Stage::Ordered,
        Stage::WouldHave,
        Stage::Refused,
        Stage::Failed,
        Stage::Done,
    ] {
        assert_eq!(answer.goes(0, stage).await, [], "{stage}");
    }
}

#[tokio::test]
async fn who_asks_for_no_alerts_of_responses_gets_the_end_of_those_that_stand() {
    let mut answer = Answer::new(&ALL, &[quarantine()]);
    answer.goes(0, Stage::Proposed).await;
    answer.world.handler.config = Arc::new(Config {
        alert_on: vec![AlertOn::Verdict],
        ..Config::default()
    });
    let ended = answer.goes(0, Stage::Denied).await;
    assert_eq!((ended.len(), ended[0].0), (1, RESOLVED));
    let mut other = Answer::new(&[AlertOn::Incident], &[quarantine()]);
    assert_eq!(other.goes(0, Stage::Proposed).await, []);
}

#[tokio::test]
async fn a_start_that_was_not_let_and_a_refused_document_are_told_once_a_day() {
    let world = World::new(&ALL);
    let told = async |action: Option<ActionKind>, stage, mode, at: i64| {
        let news = ContainerResponded {
            response: ResponseId(format!("{at:032x}")),
            incident: String::new(),
            node: "node-1".parse().unwrap(),
            container: "c0ffee".to_owned(),
            container_name: String::new(),
            image: Some(image()),
            action,
            mode,
            stage,
            by: "node node-1".to_owned(),
            detail: "start of container `c0ffee`: deny".to_owned(),
            evidence: None,
            at: time(at),
        };
        let wrap = |news| News::Response(Box::new(news));
        let alerts = world.take(news, wrap).await;
        alerts.into_iter().map(|alert| alert.title).next()
    };
    let gate = Some(ActionKind::StartGate);
    let first = told(gate, Stage::Done, Mode::Enforced, 1).await;
    assert_eq!(first.unwrap(), "node node-1 did not let a container start");
    assert_eq!(told(gate, Stage::Done, Mode::Enforced, 2).await, None);
    let later = told(gate, Stage::Done, Mode::Enforced, 86_401).await;
    assert!(later.is_some());
    let tried = told(gate, Stage::WouldHave, Mode::DryRun, 3).await;
    assert_eq!(tried, None);
    let refused = told(None, Stage::Refused, Mode::Enforced, 4).await;
    assert_eq!(refused.unwrap(), "node node-1 refuses what it shall do");
}
