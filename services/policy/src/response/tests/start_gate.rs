//! Which containers may not start on which node.

use bus::PutError;
use model::{
    Counts, Decision, Judged, Reason, RecordKey, RefKind, RefRecord, SweptMark, Verdict, What,
    event::{ADVISORIES, REFS},
    runtime::ImageAtRest,
};

use super::*;
use crate::response::{
    judged::{Changed, Judgements},
    start_gate::{Gates, NotKnown},
};

const GATE: &str = "name: gate\nstart_gate: { mode: enforce, refuse: [deny, incomplete] }\n";
const STRICT: &str = "name: gate\nstart_gate: { mode: enforce, refuse: [deny], unknown: refuse }\n";

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

impl World {
    /// A node has images, each by its config's digest and by that of its index.
    fn holds(&self, on: &str, images: &[&str]) {
        let images = images.iter().map(|name| ImageAtRest {
            runtime: "podman".to_owned(),
            id: digest(&format!("{name} config")),
            names: Vec::new(),
            repo_digests: vec![format!(
                "r.example/app@{}",
                digest(&format!("{name} index"))
            )],
            bytes: 1,
            created_at: None,
        });
        let report = NodeReported {
            images: images.collect(),
            ..self.report(on, Vec::new())
        };
        let now = self.clock.now();
        self.responder.census.report(&tenant(), &report, now);
    }

    /// An image that both digests lead to is judged by a policy.
    async fn judged(&self, image: &str, policy: &str, decision: Decision) {
        for (kind, name) in [(RefKind::Config, "config"), (RefKind::Index, "index")] {
            let of = RefRecord {
                kind,
                images: vec![digest(image)],
            };
            let key = RefRecord::key(&tenant(), digest(&format!("{image} {name}")));
            self.store.put(REFS, &key, &of, None).await.unwrap();
        }
        let policy: Slug = policy.parse().unwrap();
        let now = self.clock.now();
        let judged = Judged {
            assessed: 0,
            scan: 1,
            verdict: Verdict {
                decision,
                reasons: vec![Reason {
                    rule: "malware".to_owned(),
                    decision,
                    message: format!("{image} has \"malware\""),
                    fingerprints: Vec::new(),
                    remediation: String::new(),
                }],
                policy: policy.clone(),
                policy_revision: 0,
                advisory_revision: 1,
                evaluated_at: now,
                valid_until: None,
            },
            previous: None,
            decided_at: None,
            counts: Counts::default(),
            waivers_end: None,
            os_ends: None,
            ages_at: None,
            data_age_s_max: Some(86_400),
            references: Vec::new(),
            repositories: Vec::new(),
            waived: std::collections::BTreeMap::new(),
            checks: Vec::new(),
        };
        let key = RecordKey::new(&tenant(), digest(image), What::Judged(policy));
        let before = self.store.record::<Judged>(&key).await.unwrap();
        let revision = before.map_or(0, |stored| stored.revision);
        let put: Result<u64, PutError> = self.store.put_record(&key, &judged, revision).await;
        put.unwrap();
        let mark = SweptMark {
            revision: 1,
            data_at: Some(now),
            ..SweptMark::default()
        };
        let name = format!("swept.{}", digest(image).partition());
        self.store
            .put(ADVISORIES, &name, &mark, None)
            .await
            .unwrap();
    }

    async fn gates(&self) -> Gates {
        let mut gates = Gates::default();
        gates
            .look(&self.responder, &mut Judgements::default())
            .await;
        gates
    }

    /// The images that a node's gate denies, and those that it allows.
    async fn gate(&self, on: &str) -> (Vec<Digest>, Vec<Digest>) {
        let gates = self.gates().await;
        let gate = gates.of(&tenant(), &node(on)).unwrap().unwrap();
        let denied = gate.denied.into_iter().map(|image| image.digest);
        (denied.collect(), gate.allowed)
    }
}

fn both(image: &str) -> Vec<Digest> {
    let mut both: Vec<_> = ["config", "index"]
        .map(|kind| digest(&format!("{image} {kind}")))
        .into();
    both.sort();
    both
}

#[tokio::test]
async fn an_image_is_denied_by_every_digest_that_its_node_knows_it_by() {
    let world = World::new(GATE);
    world.holds("n1", &["bad", "good", "new"]);
    world.holds("n2", &["good"]);
    world.judged("bad", "default", Decision::Deny).await;
    world.judged("good", "default", Decision::Allow).await;
    // Of two policies that judge it, the one that objects counts.
    world.judged("bad", "other", Decision::Allow).await;
    assert_eq!(world.gate("n1").await, (both("bad"), Vec::new()));
    assert_eq!(world.gate("n2").await, (Vec::new(), Vec::new()));
    let gates = world.gates().await;
    let gate = gates.of(&tenant(), &node("n1")).unwrap().unwrap();
    assert_eq!(gate.denied[0].reason, "bad has \"malware\"");
    // What it was allowed by does not hold any more.
    world.clock.advance(SignedDuration::from_hours(25));
    let (denied, _) = world.gate("n2").await;
    assert_eq!(denied, both("good"));
    assert_eq!(gates.of(&tenant(), &node("n3")), Err(NotKnown));
}

#[tokio::test]
async fn what_is_known_of_an_image_is_kept_until_it_changes() {
    let world = World::new(GATE);
    world.holds("n1", &["app"]);
    world.judged("app", "default", Decision::Allow).await;
    let mut judged = Judgements::default();
    judged.follows();
    let mut gates = Gates::default();
    let mut denies = async |judged: &mut Judgements| {
        world.clock.advance(SignedDuration::from_secs(31));
        gates.look(&world.responder, judged).await;
        let gate = gates.of(&tenant(), &node("n1")).unwrap().unwrap();
        gate.denied.len() == 2
    };
    assert!(!denies(&mut judged).await);
    // Nobody tells of the change: nothing is read.
    world.judged("app", "default", Decision::Deny).await;
    assert!(!denies(&mut judged).await);
    let image = Changed::Image(tenant(), digest("app"));
    judged.hear(image.clone(), world.clock.now());
    assert!(denies(&mut judged).await);
    // What is read right after a change may be older than the change, and is not kept.
    judged.hear(image, world.clock.now());
    assert!(denies(&mut judged).await);
    world.judged("app", "default", Decision::Allow).await;
    assert!(!denies(&mut judged).await);
    // So it is with what a digest leads to, and with advisory data.
    for change in [
        Changed::Name(tenant(), digest("app config")),
        Changed::Partition(digest("app").partition()),
    ] {
        world.clock.advance(SignedDuration::from_mins(2));
        assert!(!denies(&mut judged).await);
        world.judged("app", "default", Decision::Deny).await;
        assert!(!denies(&mut judged).await);
        judged.hear(change, world.clock.now());
        assert!(denies(&mut judged).await);
        world.judged("app", "default", Decision::Allow).await;
        judged.hear(Changed::Image(tenant(), digest("app")), world.clock.now());
        assert!(!denies(&mut judged).await);
    }
    // Whatever nobody told of is read again now and then.
    world.clock.advance(SignedDuration::from_mins(2));
    assert!(!denies(&mut judged).await);
    world.judged("app", "default", Decision::Deny).await;
    assert!(!denies(&mut judged).await);
    world.clock.advance(SignedDuration::from_mins(15));
    assert!(denies(&mut judged).await);
}

#[tokio::test]
async fn where_nobody_judged_an_image_policy_says_whether_it_may_start() {
    let world = World::new(STRICT);
    world.holds("n1", &["bad", "good", "new"]);
    world.holds("n2", &[]);
    world.judged("bad", "default", Decision::Deny).await;
    world.judged("good", "default", Decision::Allow).await;
    assert_eq!(world.gate("n1").await, (both("bad"), both("good")));
    // A node that tells of no image has a gate too.
    let gates = world.gates().await;
    let gate = gates.of(&tenant(), &node("n2")).unwrap().unwrap();
    assert!(gate.refuses_unknown && gate.mode == Mode::Enforced);
}

#[tokio::test]
async fn of_several_policies_with_a_gate_the_stricter_counts() {
    let mut world = World::new(GATE);
    let parse = |yaml: &str| ResponsePolicy::parse(yaml).unwrap();
    let tries = parse("name: a\nstart_gate: { mode: dry_run, refuse: [warn], unknown: refuse }\n");
    let set = ResponseSet::of([tries, parse(GATE)]);
    world.responder.policies = watch::channel(Arc::new(set)).1;
    world.holds("n1", &["odd"]);
    world.judged("odd", "default", Decision::Warn).await;
    let gates = world.gates().await;
    let gate = gates.of(&tenant(), &node("n1")).unwrap().unwrap();
    assert!(gate.refuses_unknown && gate.mode == Mode::Enforced);
    assert_eq!(gate.denied.len(), 2);
    let world = World::new("name: none\n");
    world.holds("n1", &["odd"]);
    assert_eq!(world.gates().await.of(&tenant(), &node("n1")), Ok(None));
}

#[tokio::test]
async fn a_gate_has_room_in_its_document_whatever_its_node_holds() {
    for yaml in [GATE, STRICT] {
        let world = World::new(yaml);
        let names: Vec<String> = (0..2_500).map(|n| format!("i{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        world.holds("n1", &names);
        let (bad, good) = names.split_at(1_200);
        for name in bad {
            world.judged(name, "default", Decision::Deny).await;
        }
        for name in good {
            world.judged(name, "default", Decision::Allow).await;
        }
        let gates = world.gates().await;
        let gate = gates.of(&tenant(), &node("n1")).unwrap().unwrap();
        let json = serde_json::to_string(&gate).unwrap();
        assert!(json.len() < 256 * 1024, "{}", json.len());
        if yaml == STRICT {
            // What may start comes first: what is not named is refused in any case.
            assert_eq!(gate.allowed.len(), 2 * good.len());
        } else {
            assert!(gate.denied.len() > 1_500, "{}", gate.denied.len());
        }
    }
}
