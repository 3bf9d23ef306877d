//! No secret gets out: an image full of them is scanned by hand and by a running installation, and then
//! everything that was kept, sent, logged or shown is looked through.

mod hunt;
mod image;

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use bus::{Bus, Start, Tailed};
use cache::Database;
use chassis::Cx;
use futures::StreamExt as _;
use serde_json::Value;

use self::{
    hunt::{Hunt, Planted},
    image::{MARKER, image},
};
use crate::{
    fabric::{Advisory, Fabric, Options, PATIENCE, tidewaiter_binary},
    trace::Collector,
};

/// Secrets that a report must name, each in a place of its own; a key has many lines and is one.
const SECRETS: usize = 12;
/// How many pairs of a database are read at once.
const PAGE: usize = 1000;

/// Everything that is to be looked through, by where it is from.
#[derive(Default)]
struct Pieces(BTreeMap<String, Vec<Vec<u8>>>);

// === impl Pieces ===

impl Pieces {
    fn add(&mut self, from: impl Into<String>, data: impl Into<Vec<u8>>) {
        self.0.entry(from.into()).or_default().push(data.into());
    }

    /// Where something of a hunt is, and what.
    fn found(&self, hunt: &Hunt) -> Vec<String> {
        let of_source = |(from, pieces): (&String, &Vec<Vec<u8>>)| {
            let mut found: Vec<_> = pieces.iter().flat_map(|piece| hunt.leaks(piece)).collect();
            found.sort_unstable();
            found.dedup();
            found
                .into_iter()
                .map(|what| format!("{from}: {what}"))
                .collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of_source).collect()
    }

    fn holds(&self, text: &[u8]) -> bool {
        let mut all = self.0.values().flatten();
        all.any(|piece| piece.windows(text.len()).any(|part| part == text))
    }

    fn count(&self) -> (usize, usize) {
        let all = self.0.values().flatten();
        (all.clone().count(), all.map(Vec::len).sum())
    }

    /// Every key and value of every database below a directory, and every file as it is.
    fn add_directory(&mut self, from: &str, directory: &Path) {
        for path in files(directory) {
            let mut bytes = Vec::new();
            // A broker that runs deletes some meanwhile.
            let Ok(file) = File::open(&path) else {
                continue;
            };
            file.take(1 << 30)
                .read_to_end(&mut bytes)
                .expect("it can be read");
            self.add(format!("files of {from}"), bytes);
            if path.file_name().is_none_or(|name| name != "CURRENT") {
                continue;
            }
            let dir = path.parent().expect("a file is in a directory");
            let database = Database::open_as_it_is(dir).expect("it can be opened");
            for family in database.families() {
                self.add_family(&format!("databases of {from}"), &database, family);
            }
        }
    }

    fn add_family(&mut self, from: &str, database: &Database, family: &str) {
        let mut last: Option<Vec<u8>> = None;
        loop {
            let page = database.scan_prefix(family, b"", last.as_deref(), PAGE);
            let page = page.expect("it can be read");
            let is_last = page.len() < PAGE;
            for (key, value) in page {
                last = Some([&key[..], &[0]].concat());
                self.add(from, key);
                self.add(from, value);
            }
            if is_last {
                return;
            }
        }
    }
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in directory.read_dir().into_iter().flatten() {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.is_file() {
            all.push(path);
        }
    }
    all
}

/// Everything that a stream holds. What an object is cut into is put together again.
async fn held(bus: &Bus, stream: &str) -> Vec<Vec<u8>> {
    let cx = Cx::system();
    let mut tail = bus
        .tail(&cx, stream, Start::Sequence(1), "")
        .await
        .expect("the stream is there");
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut before = String::new();
    while let Ok(Some(heard)) = tokio::time::timeout(PATIENCE, tail.next()).await {
        if heard == bus::Heard::CaughtUp {
            break;
        }
        let Some(message) = heard.message() else {
            continue;
        };
        let Tailed {
            subject,
            headers,
            body,
            ..
        } = message;
        let body = body.unwrap_or_default();
        if subject == before
            && subject.starts_with("$O.")
            && let Some(last) = pieces.last_mut()
        {
            last.extend_from_slice(&body);
            continue;
        }
        pieces.push(format!("{subject}\n{headers:?}").into_bytes());
        pieces.push(body.to_vec());
        before = subject;
    }
    cx.stop();
    pieces
}

/// What the command line prints of the image, in every way, and what it keeps.
fn by_hand(fabric: &Fabric, reference: &str, pieces: &mut Pieces) -> Value {
    let host = fabric.registry.host();
    let cache = fabric.dir().join("by-hand");
    let mut report = Value::Null;
    let ways: [&[&str]; 9] = [
        &[
            "--format",
            "table",
            "--licenses",
            "--show-suppressed",
            "--removed-packages",
        ],
        &["--format", "json"],
        &["--format", "sarif"],
        &["--format", "cyclonedx"],
        &["--format", "spdx-json"],
        &["--compliance", "docker-cis"],
        &["--compliance", "nist-800-190", "--format", "json"],
        // With what the first ones have kept.
        &["--format", "json", "--removed-packages"],
        &["--format", "json"],
    ];
    for way in ways {
        let mut command = fabric.command(&tidewaiter_binary());
        command.args(["--log", "trace", "scan", reference, "--plain-http", &host]);
        command.arg("--cache-dir").arg(&cache).args(way);
        let output = command.output().expect("tidewaiter runs");
        if way.contains(&"json")
            && let Ok(parsed) = serde_json::from_slice::<Value>(&output.stdout)
            && parsed["secrets"].is_array()
        {
            report = parsed;
        }
        pieces.add(format!("report {way:?}"), output.stdout);
        pieces.add("log of scan", output.stderr);
    }
    pieces.add_directory("scan", &cache);
    report
}

/// What a server answers about the image.
async fn answers(fabric: &Fabric, digest: &str, reference: &str, pieces: &mut Pieces) -> Value {
    let report = fabric.report(digest).await;
    for path in [
        "/v1/health".to_owned(),
        "/v1/images".to_owned(),
        format!("/v1/images/{digest}"),
        format!("/v1/images/{digest}/report"),
        format!("/v1/verdicts?image={reference}"),
        format!("/v1/verdicts?image={digest}"),
        "/v1/vulnerabilities/CVE-2018-18074/images".to_owned(),
    ] {
        let answer = fabric.until(&path, async || fabric.get(&path).await).await;
        pieces.add("answers", answer.to_string());
    }
    pieces.add("metrics", fabric.metrics().await.expect("metrics"));
    let tail = ["events", "tail", "--from", "start", "--once", "--json"];
    let tail = fabric.tidewaiter(&tail);
    assert_eq!(tail.status.code(), Some(0), "{tail:?}");
    pieces.add("events", tail.stdout);
    report
}

fn assert_names_all(report: &Value) {
    let found = report["secrets"].as_array().expect("a list");
    let shown: Vec<_> = found
        .iter()
        .map(|one| format!("{} {}", one["rule"], one["path"]))
        .collect();
    assert!(found.len() >= SECRETS, "{shown:#?}");
}

/// Everything but the scanner in one process, the scanner in another, and all that they tell is heard.
async fn start(collector: &Collector) -> Option<Fabric> {
    let others = [
        "gateway",
        "router",
        "matcher",
        "policy",
        "alerting",
        "inventory",
    ];
    let config = format!(
        "alerting:
  json_bridge: true
  sinks:
    test:
      type: webhook
      url: {}
telemetry:
  log: trace
  otlp_endpoint: {}
",
        collector.url("/alerts"),
        collector.url("")
    );
    let mut fabric = Fabric::start(Options {
        config,
        processes: vec![others.to_vec(), vec!["scanner"]],
        api: 0,
        agents: Vec::new(),
    })
    .await?;
    // The scanner is killed.
    fabric.expect_log(" WARN ");
    Some(fabric)
}

/// Something that is in the image's names must be everywhere, or nothing was looked at.
fn assert_looked(pieces: &Pieces) {
    let marker = Planted {
        name: MARKER.to_owned(),
        value: MARKER.to_owned(),
    };
    let seen = pieces.found(&Hunt::new(&[marker])).join("\n");
    for source in [
        "answers",
        "report [\"--format\", \"json\"]",
        "report [\"--format\", \"table\"",
        "databases of scan",
        "databases of serve",
        "stream OBJ_tw_reports",
    ] {
        assert!(seen.contains(source), "{source}: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_secret_is_anywhere() {
    let mut collector = Collector::start().await;
    let Some(mut fabric) = start(&collector).await else {
        return;
    };
    fabric.import(&Advisory::requests()).await;
    let (image, planted) = image();
    let digest = image.digest.to_string();
    let mut pieces = Pieces::default();

    // Jobs are gone when they are done, and nobody else may take them: they are looked at where the
    // broker writes them, while there is no scanner.
    fabric.kill(1);
    let reference = fabric.push(image, "team/app", "1");
    let store = fabric.nats().store_dir();
    let job = fabric
        .until("the image's job", async || {
            let mut job = Pieces::default();
            job.add_directory("the broker", &store);
            job.holds(b"tw.job.image").then_some(job)
        })
        .await;
    for (from, data) in job.0 {
        pieces.0.entry(from).or_default().extend(data);
    }
    fabric.restart(1).await;
    fabric.decision(&reference, "deny").await;
    collector.until(|alerts| !alerts.is_empty()).await;

    assert_names_all(&answers(&fabric, &digest, &reference, &mut pieces).await);
    assert_names_all(&by_hand(&fabric, &reference, &mut pieces));
    let cx = Cx::system();
    let settings = bus::Config {
        url: fabric.nats_url(),
        ..bus::Config::default()
    };
    let bus = Bus::connect(&cx, &settings, "test").await;
    let bus = bus.expect("it answers");
    for stream in fabric.broker().await.expect("a list of streams") {
        let name = stream["name"].as_str().expect("a name");
        if name == model::event::JOBS {
            continue;
        }
        for piece in held(&bus, name).await {
            pieces.add(format!("stream {name}"), piece);
        }
    }
    for index in [0, 1] {
        pieces.add("log of serve", fabric.log(index));
        let dir = fabric.data_dir(index).to_owned();
        fabric.kill(index);
        pieces.add_directory("serve", &dir);
    }
    for body in collector.bodies() {
        pieces.add("traces, metrics and alerts", body);
    }
    let (count, bytes) = pieces.count();
    println!(
        "{count} pieces of {} sources, {bytes} bytes",
        pieces.0.len()
    );
    assert_looked(&pieces);
    let leaks = pieces.found(&Hunt::new(&planted));
    assert!(leaks.is_empty(), "{leaks:#?}");
}
