//! Advisories that come and go in a feed, in OSV.dev's layout on this machine.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{Cursor, Write as _},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use model::Digest;
use serde_json::{Value, json};
use testkit::{ImageBuilder, debian_layer, python_layer};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    fabric::{Fabric, Options},
    trace::Collector,
};

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
    let image = ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(
            python_layer(&[("requests", "2.19.1")]).build(),
            "RUN pip install",
        )
        .build();
    let reference = fabric.push(image, "team/app", "1");
    // Nobody named the ecosystems: they are those of the image's packages.
    let before = fabric
        .until("a verdict with advisories", async || {
            let verdict = fabric.verdict(&reference).await;
            let decision = verdict["decision"].as_str()?.to_owned();
            (decision == "allow" || decision == "warn").then_some(decision)
        })
        .await;
    osv.asked();

    let mut requests = record("CVE-2018-18074", "PyPI", "requests");
    osv.publish("PyPI", &[(2, requests.clone()), (1, flask.clone())]);
    fabric.decision(&reference, "deny").await;
    let raised = |state: &'static str| {
        move |alerts: &[Value]| alerts.iter().any(|alert| alert["data"]["state"] == state)
    };
    sink.until(raised("raised")).await;
    let asked = osv.asked();
    assert!(
        asked.contains(&"/PyPI/CVE-2018-18074.json".to_owned())
            && !asked.contains(&"/PyPI/all.zip".to_owned()),
        "only what changed is fetched: {asked:?}"
    );

    requests["withdrawn"] = json!("2026-02-01T00:00:00Z");
    osv.publish("PyPI", &[(3, requests), (1, flask)]);
    fabric.decision(&reference, &before).await;
    sink.until(raised("resolved")).await;
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
