//! From an incident to what its node did: proposed, approved, written once, carried out by an agent
//! (a stand-in that checks what a real one checks), seen by whoever asks. Policy dies in between.

use std::{collections::BTreeSet, path::Path, time::Duration};

use bus::{Bus, permissions::Holder};
use chassis::{Clock as _, Cx, SystemClock};
use model::{
    Slug, VerifyingKey,
    event::{INCIDENTS, NODES},
    runtime::{
        Desired, Expected, Incident, IncidentChanged, NodeRecord, Phase, Response,
        ResponseReported, SignedDesired,
    },
};
use serde_json::{Value, json};

use crate::fabric::{Fabric, Options, tidewaiter_binary};

const NODE: &str = "web1";
const INCIDENT: &str = "0123456789abcdef0123456789abcdef";
/// The process that runs policy.
const POLICY: usize = 1;
const RULES: &str = "
name: shop
mode: propose
rules:
  - name: contain
    when: { severity: high }
    then: [quarantine]
";

struct World {
    fabric: Fabric,
    /// Somebody who may do everything.
    bus: Bus,
    agent: Bus,
    key: VerifyingKey,
    cx: Cx,
    _dir: testkit::TempDir,
}

fn tenant() -> Slug {
    Slug::default_tenant()
}

fn node() -> Slug {
    NODE.parse().expect("a name")
}

// === impl World ===

impl World {
    async fn start() -> Option<Self> {
        let dir = testkit::temp_dir();
        let file = dir.path().join("response.key");
        let key = make_key(&file);
        let config = format!(
            "bus:\n  ack_wait_ms: 6000\n  lease_ms: 5000\npolicy:\n  signing_key_file: {}\n",
            file.display()
        );
        let others = vec![
            "gateway",
            "router",
            "scanner",
            "matcher",
            "alerting",
            "inventory",
        ];
        let options = Options {
            config,
            processes: vec![others, vec!["policy"]],
            agents: vec![NODE],
            ..Options::default()
        };
        let mut fabric = Fabric::start(options).await?;
        // Who is killed leaves what it held to others.
        fabric.expect_log(" WARN ");
        let cx = Cx::for_tests();
        let config = bus::Config {
            url: fabric.nats_url(),
            ..bus::Config::default()
        };
        let bus = Bus::connect(&cx, &config, "test").await;
        let (url, credentials) = fabric.agent_access(NODE);
        let config = bus::Config {
            url: Some(url),
            credentials_file: Some(credentials),
            ..bus::Config::default()
        };
        let holder = Holder::Agent {
            tenant: tenant(),
            node: node(),
        };
        let agent = Bus::connect_later_for(&cx, &config, holder).await;
        let agent = agent.expect("the agent's key is one");
        agent
            .connected(Duration::from_secs(20))
            .await
            .expect("the agent connects");
        Some(Self {
            fabric,
            bus: bus.expect("the test can connect"),
            agent,
            key,
            cx,
            _dir: dir,
        })
    }

    /// Two containers run on the node, and one of them has an incident.
    async fn happens(&self) {
        let now = SystemClock.now().to_string();
        let container = |id: &str| {
            json!({
                "id": id, "name": format!("web-{id}"), "runtime": "podman", "state": "running",
                "image": "r.example/web:1", "started_at": now,
            })
        };
        let record = serde_json::from_value::<NodeRecord>(json!({
            "report": {
                "node": NODE, "boot": "b1", "sequence": 1, "at": now, "agent": "0",
                "host": {}, "sensors": {},
                "containers": [container("c1"), container("c2")], "images": [],
            },
            "received_at": now,
        }))
        .expect("it is one");
        let key = format!("{}.{NODE}.reported", tenant());
        let store = self.bus.store();
        store
            .put(NODES, &key, &record, None)
            .await
            .expect("a report");
        let incident = serde_json::from_value::<Incident>(json!({
            "id": INCIDENT, "state": "open", "severity": "critical",
            "title": "web-c1 ran a shell", "node": NODE, "container": "c1",
            "container_name": "web-c1", "image_name": "r.example/web:1",
            "rules": ["behavior/reverse-shell"], "detections": 1,
            "first_at": now, "last_at": now,
        }))
        .expect("it is one");
        let key = format!("{}.{INCIDENT}", tenant());
        store
            .put(INCIDENTS, &key, &incident, None)
            .await
            .expect("an incident");
        let news = IncidentChanged {
            changed_at: incident.last_at,
            incident,
        };
        self.bus.publish(&tenant(), &news).await.expect("the news");
    }

    /// The response of this action, when it has come so far.
    async fn staged(&self, action: &str, stage: &str) -> Value {
        let path = format!("/v1/incidents/{INCIDENT}");
        let what = format!("`{action}` that is {stage}");
        self.fabric
            .until(&what, async || {
                let incident = self.fabric.get(&path).await?;
                let all = incident["response"]["responses"].as_array()?.clone();
                let named =
                    |one: &Value| one["action"] == action || one["action"].get(action).is_some();
                all.into_iter()
                    .find(|one| named(one) && one["stage"] == stage)
            })
            .await
    }

    /// What the node shall do, as its agent reads it.
    async fn desired(&self) -> Option<Desired> {
        let key = Desired::key(&tenant(), &node());
        let read = self.agent.store().get::<SignedDesired>(NODES, &key).await;
        let stored = read.expect("an agent may read what it shall do")?;
        let expected = Expected {
            tenant: &tenant(),
            node: &node(),
            seen: None,
            keys: &[self.key],
            now: SystemClock.now(),
        };
        Some(
            stored
                .body
                .open(&expected)
                .expect("it is signed for this node"),
        )
    }

    async fn answers(&self, response: &Response, phase: Phase, generation: u64) {
        let report = ResponseReported {
            node: node(),
            response: Some(response.id.clone()),
            incident: response.incident.clone(),
            container: response.container.clone(),
            action: Some(response.action.kind()),
            mode: response.mode,
            phase,
            refusal: None,
            generation,
            attempt: 0,
            evidence: None,
            before: Some("connected".to_owned()),
            after: Some("cut off".to_owned()),
            detail: None,
            image: None,
            denied: Vec::new(),
            at: SystemClock.now(),
        };
        let sent = self.agent.publish(&tenant(), &report).await;
        sent.expect("an agent may answer");
    }

    fn run(&self, arguments: &[&str]) -> String {
        said(arguments, &self.fabric.tidewaiter(arguments))
    }
}

/// What a command that succeeded said.
fn said(arguments: &[&str], output: &std::process::Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    out
}

/// A key, as an operator makes it.
fn make_key(file: &Path) -> VerifyingKey {
    let mut command = std::process::Command::new(tidewaiter_binary());
    let output = command
        .args(["response", "key"])
        .arg(file)
        .output()
        .expect("tidewaiter runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    printed
        .trim()
        .parse()
        .expect("the half that others may know")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_is_answered_once_though_policy_dies_in_between() {
    let Some(mut world) = World::start().await else {
        return;
    };
    let file = world.fabric.dir().join("response.yaml");
    std::fs::write(&file, RULES).expect("a file");
    let path = file.display().to_string();
    let put = ["response", "policy", "put", &path];
    said(&put, &world.fabric.tidewaiter_at(POLICY, &put));
    world.happens().await;
    let proposed = world.staged("quarantine", "proposed").await;
    assert!(world.desired().await.is_none(), "nobody approved it");
    let replay = ["policy", "replay", &path];
    let replayed = said(&replay, &world.fabric.tidewaiter_at(POLICY, &replay));
    assert!(
        replayed.contains("proposed") && replayed.contains("shop/contain"),
        "{replayed}"
    );

    let desired = world.approved_while_policy_is_dead(&proposed).await;
    world.done_once(&desired).await;

    let shown = world.run(&["response", "show", INCIDENT]);
    assert!(shown.contains("quarantine (enforced): done"), "{shown}");
    world.run(&[
        "response",
        "release",
        "--incident",
        INCIDENT,
        "--reason",
        "clean",
    ]);
    let released = world.desired().await.expect("it is written");
    assert!(
        released.active(SystemClock.now()).next().is_none(),
        "{released:?}"
    );
    // The last instance that serves stays, unless somebody insists.
    let held =
        world
            .fabric
            .tidewaiter(&["response", "act", "kill", "--container", "c2", "--dry-run"]);
    assert!(held.status.success(), "a dry run takes nothing");
    world.cx.stop();
}

impl World {
    /// What the node shall do once somebody approved it.
    async fn approved_while_policy_is_dead(&mut self, proposed: &Value) -> Desired {
        // Who approves need not wait for policy.
        self.fabric.kill(POLICY);
        let id = proposed["id"].as_str().expect("an id").to_owned();
        self.run(&[
            "response",
            "approve",
            INCIDENT,
            &id,
            "--reason",
            "real",
            "--no-wait",
        ]);
        self.fabric.restart(POLICY).await;
        let ordered = self.staged("quarantine", "ordered").await;
        assert_eq!(ordered["approval"]["reason"], "real");
        let desired = self.desired().await.expect("it is approved");
        assert_eq!(
            (desired.generation, desired.responses.len()),
            (1, 2),
            "{desired:?}"
        );
        desired
    }

    /// It is done, and said more than once.
    async fn done_once(&mut self, desired: &Desired) {
        // It dies again, and what it finds when it is back changes nothing.
        self.fabric.kill(POLICY);
        for response in &desired.responses {
            for phase in [Phase::Started, Phase::Done, Phase::Started] {
                self.answers(response, phase, desired.generation).await;
            }
        }
        self.fabric.restart(POLICY).await;
        let done = self.staged("quarantine", "done").await;
        assert_eq!(
            (&done["before"], &done["after"]),
            (&json!("connected"), &json!("cut off"))
        );
        self.staged("collect_evidence", "done").await;
        let stages: Vec<&str> = done["steps"]
            .as_array()
            .expect("steps")
            .iter()
            .filter_map(|step| step["stage"].as_str())
            .collect();
        // They may come in any order, and each is noted once.
        assert_eq!(stages[..2], ["proposed", "ordered"]);
        let later = BTreeSet::from_iter(&stages[2..]);
        assert_eq!(
            (later, stages.len()),
            (["started", "done"].iter().collect(), 4)
        );
        assert_eq!(self.desired().await.expect("it lasts").generation, 1);
    }
}
