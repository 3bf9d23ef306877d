//! Advisories that come and go in a feed, in OSV.dev's layout on this machine.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{Cursor, Write as _},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use model::Digest;
use serde_json::{Value, json};
use testkit::{Image, ImageBuilder, debian_layer, python_layer};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    fabric::{Advisory, Fabric, Options, tidewaiter_binary},
    trace::Collector,
};

/// What comes and goes.
const CVE: &str = "CVE-2018-18074";
/// Denies what is critical and minds nothing else.
const POLICY: &str = "name: default
rules:
  - name: critical
    when: { vulnerability: { severity: critical } }
    then: deny
";
/// From the feed's change to the alert: the feed is asked every second.
const ALERT: Duration = Duration::from_secs(30);

/// A server of exports.
#[derive(Clone, Default)]
struct Osv(Arc<Mutex<Files>>);

#[derive(Default)]
struct Files {
    files: BTreeMap<String, Vec<u8>>,
    asked: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_advisory_comes_by_what_changed_in_a_feed_and_is_taken_back() {
    let (osv, mut sink) = (Osv::default(), Collector::start().await);
    let base = record("CVE-2000-0001", "Debian:12", "no-such-package");
    osv.publish("Debian", &[(1, base)]);
    let flask = record("CVE-2023-30861", "PyPI", "flask");
    osv.publish("PyPI", &[(1, flask.clone())]);
    let config = format!(
        "matcher:
  update: {{url: \"{}\", kev_url: null, epss_url: null, interval_s: 1}}
alerting:
  sinks:
    test: {{type: webhook, url: \"{}\"}}
",
        osv.start().await,
        sink.url("/alerts")
    );
    let options = Options {
        config,
        ..Options::default()
    };
    let Some(fabric) = Fabric::start(options).await else {
        return;
    };
    put_policy(&fabric);
    let reference = fabric.push(image(), "team/app", "1");
    // Nobody named the ecosystems: they are those of the image's packages.
    fabric.decision(&reference, "allow").await;
    shown(&fabric, "allow", 0).await;
    osv.asked();

    let mut requests = record(CVE, "PyPI", "requests");
    let published = Instant::now();
    osv.publish("PyPI", &[(2, requests.clone()), (1, flask.clone())]);
    sink.until(|alerts| told(alerts, &["raised"])).await;
    let took = published.elapsed();
    println!("alert {:.2} s after the feed changed", took.as_secs_f64());
    assert!(took < ALERT, "the alert came after {took:?}");
    fabric.decision(&reference, "deny").await;
    shown(&fabric, "deny", 1).await;
    let asked = osv.asked();
    assert!(
        asked.contains(&format!("/PyPI/{CVE}.json"))
            && !asked.contains(&"/PyPI/all.zip".to_owned()),
        "only what changed is fetched: {asked:?}"
    );

    requests["withdrawn"] = json!("2026-02-01T00:00:00Z");
    osv.publish("PyPI", &[(3, requests), (1, flask)]);
    fabric.decision(&reference, "allow").await;
    sink.until(|alerts| told(alerts, &["raised", "resolved"]))
        .await;
    shown(&fabric, "allow", 0).await;
}

/// Whether an alert told that the image is denied, and the others in order what is asked for. What
/// was told before, while there were no advisories, is of no interest.
fn told(alerts: &[Value], states: &[&str]) -> bool {
    let is_denial = |alert: &Value| {
        let title = alert["data"]["title"].as_str().unwrap_or_default();
        title.contains(": deny by policy")
    };
    let of_verdict = alerts.iter().skip_while(|alert| !is_denial(alert));
    let mut found = of_verdict.map(|alert| alert["data"]["state"].as_str());
    states
        .iter()
        .all(|state| found.any(|one| one == Some(*state)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_without_advisories_has_those_of_a_server_after_one_download() {
    let Some(fabric) = Fabric::start(Options::default()).await else {
        return;
    };
    fabric.import(&Advisory::requests()).await;
    let home = testkit::temp_dir();
    let (layout, token) = (home.path().join("image"), home.path().join("token"));
    testkit::Artifact::from(image()).write_layout(&layout, "latest");
    std::fs::write(&token, fabric.token()).expect("a token file");
    let run = |arguments: &[&str]| alone(home.path(), arguments);
    let target = format!("oci:{}", layout.display());
    let (code, said) = run(&["scan", &target]);
    assert_eq!(code, Some(3), "incomplete without advisories: {said}");

    let server = format!("http://{}/v1/advisories", fabric.address());
    let token = token.display().to_string();
    let update = ["db", "update", "--from", &server, "--token-file", &token];
    let (code, said) = run(&update);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["scan", &target]);
    assert!(code == Some(2) && said.contains(CVE), "{code:?} {said}");
    // What is here already is not fetched again.
    let (code, said) = run(&update);
    assert!(
        code == Some(0) && said.contains(": 0 shards fetched"),
        "{said}"
    );
    let stranger = home.path().join("none");
    std::fs::write(&stranger, "no-such-token").expect("a token file");
    let stranger = stranger.display().to_string();
    let (code, said) = run(&["db", "update", "--from", &server, "--token-file", &stranger]);
    assert!(code != Some(0), "{said}");
}

/// A command of somebody who knows no server; its exit code and all that it said.
fn alone(home: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(tidewaiter_binary());
    command
        .env("XDG_CACHE_HOME", home)
        .env("DOCKER_CONFIG", home);
    let output = command.args(arguments).output().expect("tidewaiter runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.code(), said)
}

/// Debian with one old Python package.
fn image() -> Image {
    let python = python_layer(&[("requests", "2.19.1")]).build();
    ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(python, "RUN pip install")
        .build()
}

fn put_policy(fabric: &Fabric) {
    let file = fabric.dir().join("policy.yaml");
    std::fs::write(&file, POLICY).expect("a policy file");
    let put = fabric.tidewaiter(&["policy", "put", &file.display().to_string()]);
    assert!(put.status.success(), "{put:?}");
}

/// Waits until the REST interface and `tidewaiter images` show the image with a decision and so many
/// critical vulnerabilities, and the vulnerability with the image or without.
async fn shown(fabric: &Fabric, decision: &str, critical: u64) {
    let rest = async || {
        let images = fabric.get("/v1/images?repository=team/app").await?;
        let row = &images["items"][0];
        let having = format!("/v1/vulnerabilities/{CVE}/images");
        let having = fabric.get(&having).await;
        let having = having.map_or(0, |found| found["items"].as_array().map_or(0, Vec::len));
        let is_shown = row["decision"] == decision
            && row["counts"]["critical"].as_u64().unwrap_or_default() == critical
            && having as u64 == critical;
        is_shown.then_some(())
    };
    fabric.until(&format!("row with {decision}"), rest).await;
    let listed = fabric.tidewaiter(&["images"]);
    let table = String::from_utf8_lossy(&listed.stdout).into_owned();
    let begin = format!("{decision:<11} {critical:>4} ");
    let is_row = |line: &str| line.starts_with(&begin) && line.contains("team/app:1");
    assert!(table.lines().any(is_row), "{table}");
}

fn record(id: &str, ecosystem: &str, package: &str) -> Value {
    json!({
        "id": id,
        "affected": [{
            "package": {"ecosystem": ecosystem, "name": package},
            "ranges": [{
                "type": "ECOSYSTEM",
                "events": [{"introduced": "0"}, {"fixed": "99"}],
            }],
        }],
        "database_specific": {"severity": "CRITICAL"},
    })
}

// === impl Osv ===

impl Osv {
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(answer).with_state(self.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "the server of a test ends with the test's runtime"
        )]
        tokio::spawn(async move {
            axum::serve(listener, router)
                .await
                .expect("the exports are served");
        });
        format!("http://{address}")
    }

    /// Publishes an ecosystem: its records, each with the second of its last change.
    fn publish(&self, ecosystem: &str, records: &[(u32, Value)]) {
        let mut list = String::new();
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let mut files = BTreeMap::new();
        for (second, record) in records {
            let id = record["id"].as_str().expect("it has one");
            writeln!(list, "2026-01-01T00:00:{second:02}Z,{id}").expect("memory");
            let text = record.to_string().into_bytes();
            zip.start_file(format!("{id}.json"), SimpleFileOptions::default())
                .expect("memory");
            zip.write_all(&text).expect("memory");
            files.insert(format!("/{ecosystem}/{id}.json"), text);
        }
        let zip = zip.finish().expect("memory").into_inner();
        files.insert(format!("/{ecosystem}/all.zip"), zip);
        files.insert(format!("/{ecosystem}/modified_id.csv"), list.into_bytes());
        let mut site = self.0.lock().expect("no test has panicked");
        site.files.extend(files);
    }

    /// What was asked for since the last time.
    fn asked(&self) -> Vec<String> {
        let mut site = self.0.lock().expect("no test has panicked");
        std::mem::take(&mut site.asked)
    }
}

async fn answer(State(osv): State<Osv>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let mut site = osv.0.lock().expect("no test has panicked");
    site.asked.push(path.clone());
    let Some(bytes) = site.files.get(&path).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let tag = format!("\"{}\"", Digest::of(&bytes).hex());
    let known = request.headers().get(header::IF_NONE_MATCH);
    if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([(header::ETAG, tag)], bytes).into_response()
}
