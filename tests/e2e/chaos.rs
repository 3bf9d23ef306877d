//! Whatever dies: each image gets its one verdict, and each denial is told.
//!
//! Every role is a process of its own. In each round one of them, or the broker, gets `kill -9` and
//! is started again, while images are pushed, webhooks come two and three times and in any order,
//! and advisories are handed in. After each round everything must be as if nothing had happened.
//!
//! `TIDEWAITER_CHAOS_SEED` repeats a run as far as the order of things goes, and
//! `TIDEWAITER_CHAOS_ROUNDS` says how many rounds there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bus::Bus;
use chassis::Cx;
use model::{
    Assessed, Digest, Judged, RecordKey, Scanned, Slug, What,
    event::{DLQ, images_bucket},
};
use serde_json::{Value, json};
use testkit::{Image, ImageBuilder, LayerBuilder, debian_layer, python_layer};

use crate::{
    fabric::{Advisory, Fabric, Options, setting},
    trace::Collector,
};

const ROUNDS: u64 = 8;
const REPOSITORY: &str = "chaos/app";

/// The processes, in the order in which they start.
const PROCESSES: [&str; 9] = [
    "gateway",
    "router",
    "scanner",
    "matcher",
    "matcher",
    "policy",
    "policy",
    "alerting",
    "inventory",
];
const INVENTORY: usize = 8;
/// How long a process stays dead, at times: long enough for its leases to expire.
const LONG: Duration = Duration::from_millis(3_500);

/// How long a round may take to come into order without a word.
const SLOW: Duration = Duration::from_secs(10);

/// Random numbers that a seed repeats (splitmix64).
struct Dice(u64);

/// The installation, and what must be true of it.
struct Chaos {
    fabric: Fabric,
    collector: Collector,
    bus: Bus,
    dice: Dice,
    pushed: Vec<Pushed>,
    /// Rounds whose own package has an advisory now.
    advised: BTreeSet<u64>,
}

/// An image that was pushed.
struct Pushed {
    digest: Digest,
    tag: String,
    /// The round whose own package it holds.
    round: u64,
    /// Whether it holds a package that had an advisory from the start.
    is_bad: bool,
}

/// What a round does to whom.
struct Plan {
    /// An index of [`PROCESSES`]; one more is the broker.
    victim: usize,
    after: Duration,
    down: Duration,
    advises: Option<u64>,
}

// === impl Dice ===

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.roll(most))
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = self.roll(at as u64 + 1);
            items.swap(at, usize::try_from(other).expect("an index"));
        }
    }

    fn plan(&mut self, round: u64) -> Plan {
        let victims = PROCESSES.len() as u64 + 1;
        let victim = usize::try_from(self.roll(victims)).expect("an index");
        let down = if self.roll(3) == 0 {
            LONG
        } else {
            self.millis(1_000)
        };
        let advises = self.roll(round.max(1) * 2);
        Plan {
            victim,
            after: self.millis(600),
            down,
            advises: (advises < round).then_some(advises),
        }
    }
}

// === impl Plan ===

impl Plan {
    fn name(&self) -> String {
        PROCESSES
            .get(self.victim)
            .map_or("nats-server".to_owned(), |role| {
                format!("{role} ({})", self.victim)
            })
    }
}

// === impl Pushed ===

impl Pushed {
    fn key(&self, what: What) -> RecordKey {
        RecordKey::new(&Slug::default_tenant(), self.digest, what)
    }

    /// A webhook that tells of it, as CNCF Distribution writes it.
    fn hook(&self, id: &str) -> Value {
        json!({"events": [{
            "id": id,
            "action": "push",
            "target": {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": self.digest.to_string(),
                "repository": REPOSITORY,
                "tag": self.tag,
            },
        }]})
    }
}

// === impl Chaos ===

impl Chaos {
    async fn start(cx: &Cx, seed: u64) -> Option<Self> {
        let collector = Collector::start().await;
        // As in production, only shorter.
        let config = format!(
            "bus:
  ack_wait_ms: 3000
  lease_ms: 3000
  retry_ms: 300
  grace_ms: 1000
alerting:
  decisions: [deny]
  sinks:
    receiver: {{type: webhook, url: '{}'}}
",
            collector.url("/alerts")
        );
        let options = Options {
            config,
            processes: PROCESSES.iter().map(|role| vec![*role]).collect(),
            api: INVENTORY,
            ..Options::default()
        };
        let mut fabric = Fabric::start(options).await?;
        // Who loses a neighbour says so. What must not happen is looked for after each round.
        fabric.expect_log(" WARN ");
        fabric.import(&Advisory::requests()).await;
        let config = bus::Config {
            url: fabric.nats_url(),
            ..bus::Config::default()
        };
        let bus = Bus::connect(cx, &config, "test").await;
        Some(Self {
            fabric,
            collector,
            bus: bus.expect("the test can connect"),
            dice: Dice(seed),
            pushed: Vec::new(),
            advised: BTreeSet::new(),
        })
    }

    async fn round(&mut self, round: u64) {
        let plan = self.dice.plan(round);
        let first = self.pushed.len();
        let images: Vec<Image> = (0..3 + self.dice.roll(3))
            .map(|number| self.make(round, number))
            .collect();
        say(&format!(
            "round {round}: kill -9 of {} after {:?} for {:?}, {} images, advisory for {:?}",
            plan.name(),
            plan.after,
            plan.down,
            images.len(),
            plan.advises
        ));
        let began = Instant::now();
        self.strike(&plan, &images, first).await;
        let struck = began.elapsed();
        self.settle(&plan).await;
        let took = began.elapsed();
        say(&format!(
            "  struck for {struck:.1?}, everything in order after {took:.1?}"
        ));
    }

    /// Makes an image of a round.
    fn make(&mut self, round: u64, number: u64) -> Image {
        let is_bad = self.dice.roll(2) == 0;
        let own = format!("chaos-round-{round}");
        let requests = if is_bad { "2.19.1" } else { "2.31.0" };
        let python = python_layer(&[("requests", requests), (&own, "1.0")]);
        let top = LayerBuilder::new().file("srv/number", format!("{round} {number}"));
        let image = ImageBuilder::new()
            .layer(debian_layer(), "base")
            .layer(python.build(), "RUN pip install")
            .layer(top.build(), "COPY number")
            .build();
        self.pushed.push(Pushed {
            digest: image.digest,
            tag: format!("r{round}-n{number}"),
            round,
            is_bad,
        });
        image
    }

    /// What is told beside what the registry tells: copies of one event, and events that tell of a
    /// push once more, at times of an old one, in any order.
    fn hooks(&mut self, from: usize, to: usize) -> Vec<Value> {
        let mut hooks = Vec::new();
        for at in 0..to {
            if at < from && self.dice.roll(8) > 0 {
                continue;
            }
            let (copies, number) = (1 + self.dice.roll(2), self.dice.roll(1 << 40));
            let pushed = &self.pushed[at];
            let id = format!("{}-{number}", pushed.tag);
            for _ in 0..copies {
                hooks.push(pushed.hook(&id));
            }
            hooks.push(pushed.hook(&format!("{id}-again")));
        }
        self.dice.shuffle(&mut hooks);
        hooks
    }

    /// Pushes, tells and advises, while the victim dies and comes back.
    async fn strike(&mut self, plan: &Plan, images: &[Image], first: usize) {
        let half = images.len().div_ceil(2);
        self.push(&images[..half], first);
        let hooks = self.hooks(first, first + half);
        tokio::join!(self.tell(&hooks), tokio::time::sleep(plan.after));
        let is_broker = plan.victim == PROCESSES.len();
        if is_broker {
            self.fabric.nats().kill();
        } else {
            self.fabric.kill(plan.victim);
        }
        let dead = Instant::now();
        self.push(&images[half..], first + half);
        let hooks = self.hooks(first, first + images.len());
        // A dead gateway takes nothing: what is to be told waits until it is back.
        let (while_dead, later) = if plan.victim == 0 {
            (&hooks[..0], &hooks[..])
        } else {
            hooks.split_at(hooks.len() / 2)
        };
        self.tell(while_dead).await;
        tokio::time::sleep(plan.down.saturating_sub(dead.elapsed())).await;
        if is_broker {
            self.fabric.nats().restart();
        } else {
            self.fabric.restart(plan.victim).await;
        }
        self.tell(later).await;
        if let Some(round) = plan.advises.filter(|round| self.advised.insert(*round)) {
            self.advise(round).await;
        }
    }

    /// Pushes images; the registry tells the gateway of each.
    fn push(&self, images: &[Image], first: usize) {
        for (image, pushed) in images.iter().zip(&self.pushed[first..]) {
            self.fabric.push(image, REPOSITORY, &pushed.tag);
        }
    }

    async fn tell(&self, hooks: &[Value]) {
        for hook in hooks {
            self.fabric.hook("main", hook).await;
        }
    }

    async fn advise(&self, round: u64) {
        let advisory = Advisory::python(
            &format!("chaos-round-{round}"),
            &format!("CVE-2026-{}", 1000 + round),
        );
        let dir = self.fabric.dir().join(format!("chaos-{round}"));
        advisory.write(&dir);
        let dir = dir.display().to_string();
        let wanted = self.fabric.revision().await + 1;
        self.fabric
            .until("an advisory that is taken in", async || {
                let output = self
                    .fabric
                    .tidewaiter(&["db", "import", &dir, "--feed", "test"]);
                output.status.success().then_some(())
            })
            .await;
        self.fabric
            .until(
                &format!("revision {wanted} in every partition"),
                async || (self.fabric.revision().await >= wanted).then_some(()),
            )
            .await;
    }

    fn is_denied(&self, pushed: &Pushed) -> bool {
        pushed.is_bad || self.advised.contains(&pushed.round)
    }

    /// Waits until everything is as if nothing had happened.
    async fn settle(&self, plan: &Plan) {
        let what = format!("order after the death of {}", plan.name());
        let (started, told) = (Instant::now(), Mutex::new(String::new()));
        self.fabric
            .until(&what, async || {
                let wrong = self.wrong().await;
                let is_right = wrong.is_empty();
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                // What takes longer than a round should is told as it changes.
                if !is_right && *told != wrong && started.elapsed() > SLOW {
                    say(&format!("  after {:.1?}: {wrong}", started.elapsed()));
                    *told = wrong;
                }
                is_right.then_some(())
            })
            .await;
    }

    /// What is not yet as it shall be; nothing where all is.
    async fn wrong(&self) -> String {
        let mut wrong = String::new();
        for pushed in &self.pushed {
            if let Err(why) = self.judged(pushed).await {
                wrong.extend([format!("{}: {why}; ", pushed.tag)]);
            }
        }
        wrong += &self.untold();
        match self.fabric.broker().await {
            Some(streams) => wrong += &busy(&streams),
            None => wrong += "the broker does not say what it holds",
        }
        wrong
    }

    /// Whether an image has exactly one verdict, the one that the revisions in force give.
    async fn judged(&self, pushed: &Pushed) -> Result<(), String> {
        let store = self.bus.store();
        let failed = |error: bus::StoreError| error.to_string();
        let bucket = images_bucket(pushed.digest.partition());
        let prefix = pushed.key(What::Judged(Slug::default_tenant())).to_string();
        let prefix = prefix.trim_end_matches("default");
        let scanned = store.record::<Scanned>(&pushed.key(What::Scanned)).await;
        let scanned = scanned.map_err(failed)?.ok_or("not scanned")?;
        let assessed = store.record::<Assessed>(&pushed.key(What::Assessed)).await;
        let assessed = assessed.map_err(failed)?.ok_or("not assessed")?;
        let verdicts = store
            .list::<Judged>(&bucket, prefix)
            .await
            .map_err(failed)?;
        let [(_, verdict)] = verdicts.as_slice() else {
            return Err(format!("{} verdicts", verdicts.len()));
        };
        let judged = &verdict.body;
        if assessed.body.scan != scanned.revision {
            return Err("the assessment is of an older scan".to_owned());
        }
        if judged.assessed != assessed.revision {
            return Err("the verdict is on an older assessment".to_owned());
        }
        let decision = judged.verdict.decision.to_string();
        let expected = if self.is_denied(pushed) {
            "deny"
        } else {
            "allow"
        };
        if decision != expected {
            return Err(format!("{decision} and not {expected}"));
        }
        let path = format!("/v1/images/{}", pushed.digest);
        let answer = self.fabric.get(&path).await.ok_or("the API says nothing")?;
        let policies = answer["images"][0]["policies"]
            .as_array()
            .map_or(0, Vec::len);
        if answer["decision"] != expected || policies != 1 {
            let decision = &answer["decision"];
            return Err(format!("the API says {decision} of {policies} policies"));
        }
        Ok(())
    }

    /// Which denials did not reach the receiver.
    fn untold(&self) -> String {
        let told = self.told();
        let denied = self.pushed.iter().filter(|pushed| self.is_denied(pushed));
        let mut untold = String::new();
        for pushed in denied.filter(|pushed| !told.contains_key(&pushed.digest.to_string())) {
            untold.extend(["the denial of ", &pushed.tag, " was not told; "]);
        }
        untold
    }

    /// How often each denial was told, by image and the event's id.
    fn told(&self) -> BTreeMap<String, BTreeMap<String, usize>> {
        let mut told: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for alert in self.collector.alerts() {
            if alert["data"]["state"] == "raised" {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let of_image = told.entry(text(&alert["data"]["image"])).or_default();
                *of_image.entry(text(&alert["id"])).or_default() += 1;
            }
        }
        told
    }

    /// At the end: each denial under one id only, nothing else told, and how many copies there were.
    fn count_copies(&self) {
        let told = self.told();
        let denied: BTreeSet<String> = self
            .pushed
            .iter()
            .filter(|pushed| self.is_denied(pushed))
            .map(|pushed| pushed.digest.to_string())
            .collect();
        let copies: usize = told.values().flat_map(BTreeMap::values).sum();
        say(&format!(
            "{} images pushed, {} denied; their denials reached the receiver {copies} times",
            self.pushed.len(),
            denied.len()
        ));
        assert_eq!(told.keys().cloned().collect::<BTreeSet<_>>(), denied);
        let twice: Vec<_> = told.iter().filter(|(_, ids)| ids.len() > 1).collect();
        assert!(twice.is_empty(), "told as different events: {twice:#?}");
    }
}

/// What the broker still has to hand out, and dead letters.
fn busy(streams: &[Value]) -> String {
    let mut busy = String::new();
    for stream in streams {
        let name = stream["name"].as_str().unwrap_or_default();
        let letters = stream["state"]["messages"].as_u64().unwrap_or_default();
        if name == DLQ && letters > 0 {
            busy.extend([format!("{letters} dead letters; ")]);
        }
        for consumer in stream["consumer_detail"].as_array().into_iter().flatten() {
            let number = |field: &str| consumer[field].as_u64().unwrap_or_default();
            let (pending, out) = (number("num_pending"), number("num_ack_pending"));
            if consumer["config"]["durable_name"].is_string() && pending + out > 0 {
                let durable = &consumer["name"];
                busy.extend([format!("{name}/{durable}: {pending} wait, {out} out; ")]);
            }
        }
    }
    busy
}

#[expect(clippy::print_stdout, reason = "a long test tells how far it is")]
fn say(what: &str) {
    println!("{what}");
}

fn number(name: &str) -> Option<u64> {
    setting(name).map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies_each_image_gets_its_one_verdict_and_each_denial_is_told() {
    let fresh = || RandomState::new().hash_one(std::process::id()) % 1_000_000_000;
    let seed = number("TIDEWAITER_CHAOS_SEED").unwrap_or_else(fresh);
    let rounds = number("TIDEWAITER_CHAOS_ROUNDS").unwrap_or(ROUNDS);
    say(&format!(
        "TIDEWAITER_CHAOS_SEED={seed} TIDEWAITER_CHAOS_ROUNDS={rounds}"
    ));
    let cx = Cx::for_tests();
    let Some(mut chaos) = Chaos::start(&cx, seed).await else {
        return;
    };
    for round in 0..rounds {
        chaos.round(round).await;
    }
    chaos.count_copies();
    cx.stop();
}
