//! Subscribers: nothing is lost and nothing comes twice, wherever they are cut off.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    time::Instant,
};

use bus::{Bus, Start};
use chassis::Cx;
use futures::StreamExt as _;
use model::event::JSON;
use serde_json::Value;
use testkit::{ImageBuilder, debian_layer, python_layer};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::fabric::{Advisory, Fabric, Options, PATIENCE, tidewaiter_binary};

/// A client of `GET /v1/events`.
struct Subscriber {
    answer: reqwest::Response,
    text: String,
    /// The last id that came.
    id: String,
}

/// An event of a stream.
struct Event {
    name: String,
    data: Value,
}

impl Subscriber {
    async fn connect(fabric: &Fabric, query: &str, last: Option<&str>) -> Self {
        let answer = fabric.open(&format!("/v1/events{query}"), last).await;
        assert_eq!(answer.status(), 200);
        let mut subscriber = Self {
            answer,
            text: String::new(),
            id: String::new(),
        };
        // The first frame says from where on it is heard.
        subscriber.frame().await;
        assert!(!subscriber.id.is_empty());
        subscriber
    }

    /// The next event that is one.
    async fn next(&mut self) -> Event {
        loop {
            let frame = self.frame().await;
            let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name));
            if let (Some(name), Some(data)) = (field("event: "), field("data: ")) {
                let data = serde_json::from_str(data).expect("data are JSON");
                return Event {
                    name: name.to_owned(),
                    data,
                };
            }
        }
    }

    async fn frame(&mut self) -> String {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(id) = frame.lines().find_map(|line| line.strip_prefix("id: ")) {
                    id.clone_into(&mut self.id);
                }
                return frame;
            }
            let chunk = timeout(PATIENCE, self.answer.chunk()).await;
            let chunk = chunk.expect("in time").expect("the stream goes on");
            let chunk = chunk.expect("the stream does not end");
            self.text += std::str::from_utf8(&chunk).expect("events are text");
        }
    }

    /// All events up to the verdict on a reference.
    async fn until_judged(&mut self, reference: &str, got: &mut Told) {
        loop {
            let event = self.next().await;
            if event.data["specversion"].is_null() {
                continue;
            }
            note(&event.data, got);
            if event.name == "image.judged" && names(&event.data["data"], reference) {
                return;
            }
        }
    }
}

fn names(judged: &Value, reference: &str) -> bool {
    let references = judged["references"].as_array();
    references.is_some_and(|all| all.iter().any(|one| one == reference))
}

fn image(version: &str) -> ImageBuilder {
    ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(python_layer(&[("requests", version)]).build(), "RUN pip")
}

/// What was told, by stream: the ids in order. Across streams what is new comes as it arrives.
type Told = BTreeMap<String, Vec<String>>;

fn note(event: &Value, told: &mut Told) {
    let text = |field: &str| event[field].as_str().expect("it is text").to_owned();
    told.entry(text("stream")).or_default().push(text("id"));
}

fn note_line(line: &str, told: &mut Told) {
    note(&serde_json::from_str(line).expect("a line is JSON"), told);
}

/// Each stream was told from its beginning, without a hole and without a copy.
fn assert_begins(all: &Told, got: &Told) {
    assert!(got.len() > 1, "{got:#?}");
    for (stream, ids) in got {
        assert_eq!(
            all[stream][..ids.len().min(all[stream].len())],
            **ids,
            "{stream}"
        );
    }
}

/// Every event that is held behind a place, as `events tail` shows them.
fn held(fabric: &Fabric, from: &str) -> Told {
    let tail = ["events", "tail", "--from", from, "--once", "--json"];
    let tail = fabric.tidewaiter(&tail);
    let error = String::from_utf8_lossy(&tail.stderr);
    assert_eq!(tail.status.code(), Some(0), "{error}");
    let mut told = Told::new();
    for line in String::from_utf8_lossy(&tail.stdout).lines() {
        note_line(line, &mut told);
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_is_cut_off_loses_nothing_and_gets_nothing_twice() {
    let Some(fabric) = Fabric::start(Options::default()).await else {
        return;
    };
    fabric.import(&Advisory::requests()).await;
    let mut subscriber = Subscriber::connect(&fabric, "", None).await;
    let begin = subscriber.id.clone();
    let mut verdicts = Subscriber::connect(&fabric, "?kind=image.judged", None).await;

    let first = fabric.push(image("2.19.1").build(), "team/app", "1");
    let mut got = Told::new();
    subscriber.until_judged(&first, &mut got).await;
    let only = verdicts.next().await;
    assert_eq!(only.name, "caught-up");
    let only = verdicts.next().await;
    assert_eq!(only.name, "image.judged");
    assert_eq!(only.data["type"], "io.tidewaiter.image.judged.v1");
    assert_eq!(only.data["tenant"], "default");
    assert_eq!(only.data["data"]["decision"], "deny", "{:#}", only.data);

    // What happens while nobody listens comes when he does.
    let last = subscriber.id.clone();
    drop(subscriber);
    let second = fabric.push(image("2.19.0").build(), "team/app", "2");
    fabric.decision(&second, "deny").await;
    let mut back = Subscriber::connect(&fabric, "", Some(&last)).await;
    assert_eq!(back.id, last, "it goes on where it was");
    back.until_judged(&second, &mut got).await;
    // Alerts may have come since the last verdict; before it nothing is missing or double.
    assert_begins(&held(&fabric, &begin), &got);

    let refused = fabric.open("/v1/events?kind=image.scan", None).await;
    assert_eq!(refused.status(), 400);
    let foreign = fabric.open("/v1/events?tenant=other", None).await;
    assert_eq!(foreign.status(), 403);
}

/// `tidewaiter events tail` as a process.
struct Tail {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Tail {
    fn start(fabric: &Fabric, arguments: &[&str]) -> Self {
        let mut tail = Self::spawn(fabric, arguments);
        tail.lines = lines(tail.child.stdout.take().expect("it is piped"));
        tail
    }

    /// One whose output nobody reads.
    fn start_unread(fabric: &Fabric, arguments: &[&str]) -> Self {
        let mut tail = Self::spawn(fabric, arguments);
        drop(tail.child.stdout.take());
        tail
    }

    fn spawn(fabric: &Fabric, arguments: &[&str]) -> Self {
        let child = fabric
            .command(&tidewaiter_binary())
            .args(["events", "tail"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("tidewaiter starts");
        let (_, lines) = mpsc::unbounded_channel();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.recv()).await;
        line.expect("in time").expect("the tail goes on")
    }

    /// The lines up to the verdict on a reference.
    async fn until_judged(&mut self, reference: &str) -> Vec<String> {
        let mut got = Vec::new();
        loop {
            got.push(self.line().await);
            let is_it = |line: &String| line.contains("image.judged") && line.contains(reference);
            if got.last().is_some_and(is_it) {
                return got;
            }
        }
    }

    async fn code(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be asked") {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "it does not end");
            sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lines(out: ChildStdout) -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn interrupt(child: &Child) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status();
    assert!(sent.expect("kill runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_outlives_its_server_and_ends_as_it_is_told() {
    let options = Options {
        processes: vec![Vec::new()],
        config: "alerting:\n  json_bridge: true\n".to_owned(),
        ..Options::default()
    };
    let Some(mut fabric) = Fabric::start(options).await else {
        return;
    };
    fabric.import(&Advisory::requests()).await;
    let nats = fabric.nats_url().expect("processes of their own");
    let mut tail = Tail::start(&fabric, &["--from", "start", "--json"]);
    let mut direct = Tail::start(&fabric, &["--from", "start", "--nats-url", &nats]);
    let mut few = Tail::start(
        &fabric,
        &["--kind", "image.judged", "--from", "start", "--limit", "1"],
    );

    let first = fabric.push(image("2.19.1").build(), "team/app", "1");
    let mut got = tail.until_judged(&first).await;
    let line = few.line().await;
    assert!(
        line.contains("image.judged") && line.contains(&first),
        "{line}"
    );
    assert_eq!(few.code().await, Some(0), "one was asked for");
    let shown = direct.until_judged(&first).await;
    assert!(
        shown.iter().any(|line| line.contains("main/team/app:1")),
        "{shown:?}"
    );

    fabric.kill(0);
    fabric.restart(0).await;
    let second = fabric.push(image("2.19.0").build(), "team/app", "2");
    fabric.decision(&second, "deny").await;
    got.extend(tail.until_judged(&second).await);
    let mut told = Told::new();
    for line in &got {
        note_line(line, &mut told);
    }
    let all = held(&fabric, "start");
    assert_begins(&all, &told);
    // The bridge stored each of them once, also over its death.
    assert_begins(&bridged(&nats, &all).await, &all);

    interrupt(&tail.child);
    assert_eq!(tail.code().await, Some(130));
    // Nobody reads any more, and nothing happens: it ends all the same.
    let mut deaf = Tail::start_unread(&fabric, &["--nats-url", &nats]);
    assert_eq!(deaf.code().await, Some(0));
}

/// What the JSON bridge stored, when it has all of this.
async fn bridged(nats: &str, all: &Told) -> Told {
    let cx = Cx::for_tests();
    let config = bus::Config {
        url: Some(nats.to_owned()),
        ..bus::Config::default()
    };
    let bus = Bus::connect(&cx, &config, "subscriber").await;
    let bus = bus.expect("NATS is there");
    let start = Start::Sequence(1);
    let tail = bus.tail(&cx, JSON, start, "tw.json.>").await;
    let mut tail = tail.expect("the stream is there");
    let mut told = Told::new();
    let lacks = |told: &Told| {
        all.iter()
            .any(|(stream, ids)| told.get(stream).is_none_or(|got| got.len() < ids.len()))
    };
    while lacks(&told) {
        let heard = timeout(PATIENCE, tail.next()).await.expect("in time");
        if let Some(message) = heard.expect("it goes on").message() {
            let body = message.body.expect("a body");
            let event = serde_json::from_slice(&body).expect("JSON");
            note(&event, &mut told);
        }
    }
    cx.stop();
    told
}
