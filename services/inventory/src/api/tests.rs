//! Requests in, JSON out: files mirror the routes. Records are in memory, the view in a temporary
//! directory.

mod contract;
mod health;
mod images;
mod responses;
mod runtime;
mod scans;
mod verdicts;
mod vulnerabilities;

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, HeaderName, Request, StatusCode, header},
};
use bus::Queue;
use chassis::{
    CxLimits, FixedClock,
    http::{
        Limits,
        openapi::{Info, document},
    },
};
use futures::future::BoxFuture;
use model::{
    AdvisoryStamp, Assessed, Assessment, Counts, Decision, Digest, Findings, Judged, Known, Os,
    Package, Platform, Reason, RecordKey, RuntimeConfig, Scanned, ScannedConfig, ScannedFindings,
    ScannedPackages, SeenReference, SweptMark, Target, Verdict, Vulnerability, What,
    event::{ADVISORIES, REPORT_OBJECTS, images_bucket},
    runtime::ResponseOrdered,
};
use serde_json::Value;
use testkit::{Answered, Contract};
use tower::ServiceExt as _;

use super::*;
use crate::view::{Fact, PackageRows, Told, VulnerabilityRows, Write};

/// Noon of the day of all tests.
const NOW: &str = "2026-03-01T12:00:00Z";

struct World {
    api: Api,
    /// Every answer is held against it.
    contract: Contract,
    sequence: u64,
    orders: Orders,
    _dir: tempfile::TempDir,
}

/// What health asks the broker for; `None`: it is away.
#[derive(Clone, Default)]
struct FakeBroker {
    queues: Option<Vec<Queue>>,
    dead_letters: u64,
    last_sequence: u64,
    orders: Orders,
}

/// What was ordered.
type Orders = Arc<std::sync::Mutex<Vec<ResponseOrdered>>>;

impl Broker for FakeBroker {
    fn last_sequence<'a>(&'a self, _bucket: &'a str) -> BoxFuture<'a, anyhow::Result<u64>> {
        Box::pin(async move { Ok(self.last_sequence) })
    }

    fn queues(&self) -> BoxFuture<'_, anyhow::Result<Vec<Queue>>> {
        let queues = self.queues.clone();
        Box::pin(async move { queues.context("the broker is away") })
    }

    fn order<'a>(
        &'a self,
        _tenant: &'a Slug,
        order: &'a ResponseOrdered,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        let orders = Arc::clone(&self.orders);
        Box::pin(async move {
            orders.lock().unwrap().push(order.clone());
            Ok(())
        })
    }

    fn dead_letters(&self) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async move { Ok(self.dead_letters) })
    }
}

/// An answer as it came.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

fn tenant() -> Slug {
    Slug::default_tenant()
}

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn key(image: &str, what: What) -> RecordKey {
    RecordKey::new(&tenant(), digest(image), what)
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(FixedClock::new(time(NOW)));
        let cx = Cx::new(
            clock,
            CxLimits {
                compute_threads: 1,
                blocking_threads: 2,
            },
        );
        let orders = Orders::default();
        let api = Api {
            cx,
            store: Store::memory(),
            view: Arc::new(View::open(&dir.path().join("inventory")).unwrap()),
            marks: Arc::default(),
            broker: Arc::new(FakeBroker {
                queues: Some(Vec::new()),
                orders: Arc::clone(&orders),
                ..FakeBroker::default()
            }),
            bus: None,
            rows_examined_max: 1000,
            events: events::Streams::new(&crate::EventsConfig::default()),
        };
        let info = Info {
            title: "inventory",
            version: "1",
            description: "what is where",
        };
        Self {
            api,
            contract: Contract::new(document(info, &operations())),
            sequence: 0,
            orders,
            _dir: dir,
        }
    }

    fn view(&mut self, key: RecordKey, fact: Fact) {
        self.sequence += 1;
        let bucket = images_bucket(key.image.partition());
        let write = Write {
            bucket,
            sequence: self.sequence,
            told: Some(Told::Image(key, Box::new(fact))),
        };
        self.api.view.apply(&write).unwrap();
    }

    /// An image that a tag of `app` leads to.
    async fn known(&mut self, image: &str, tag: &str, index: Option<&str>, platform: &str) {
        self.tagged(image, &[tag], index, platform).await;
    }

    async fn tagged(&mut self, image: &str, tags: &[&str], index: Option<&str>, platform: &str) {
        let seen = |tag: &&str| SeenReference {
            source: "main".parse().unwrap(),
            registry: "r.example".to_owned(),
            repository: "team/app".to_owned(),
            tag: Some((*tag).to_owned()),
            since: time("2026-02-01T00:00:00Z"),
            gone_at: None,
        };
        let known = Known {
            references: tags.iter().map(seen).collect(),
            indexes: index.map(digest).into_iter().collect(),
            config: Some(digest(&format!("{image} config"))),
            platform: platform.parse().unwrap(),
            ..Known::default()
        };
        self.api
            .store
            .put_record(&key(image, What::Known), &known, 0)
            .await
            .unwrap();
        self.view(key(image, What::Known), Fact::Known(known));
    }

    /// An image that only a node has.
    async fn known_on_node(&mut self, image: &str, node: &str, name: &str) {
        let known = Known {
            references: vec![SeenReference {
                source: Slug::node_source(),
                registry: model::runtime::NODE_REGISTRY.to_owned(),
                repository: format!("{node}/{name}"),
                tag: Some("1".to_owned()),
                since: time("2026-02-01T00:00:00Z"),
                gone_at: None,
            }],
            config: Some(digest(&format!("{image} config"))),
            platform: "linux/amd64".parse().unwrap(),
            ..Known::default()
        };
        self.api
            .store
            .put_record(&key(image, What::Known), &known, 0)
            .await
            .unwrap();
        self.view(key(image, What::Known), Fact::Known(known));
    }

    /// Its scan and assessment, with vulnerabilities of these severities.
    async fn assessed(&mut self, image: &str, found: Vec<Vulnerability>) -> u64 {
        let (packages, findings) = scan_objects(image);
        let store = self.api.store.clone();
        let scanned = Scanned {
            analyzers: Vec::new(),
            packages: store.put_object(REPORT_OBJECTS, &packages).await.unwrap(),
            findings: store.put_object(REPORT_OBJECTS, &findings).await.unwrap(),
            package_count: 1,
            gap_count: 0,
            scanned_at: time("2026-02-01T00:01:00Z"),
            duration_ms: 10,
            layers_read: 1,
            unfinished: false,
            cause: String::new(),
            contents: model::ScannedContents::default(),
            files: Vec::new(),
            config: ScannedConfig {
                labels: [("team".to_owned(), "a".to_owned())].into(),
                ..ScannedConfig::default()
            },
        };
        let scan = store
            .put_record(&key(image, What::Scanned), &scanned, 0)
            .await
            .unwrap();
        let fact = Fact::Scanned(
            scanned.clone(),
            Some(Arc::new(PackageRows::new(&packages.packages).unwrap())),
        );
        self.view(key(image, What::Scanned), fact);
        let assessment = Assessment {
            image: digest(image),
            scan,
            advisories: AdvisoryStamp {
                revision: 7,
                feeds: Vec::new(),
            },
            os: None,
            os_ends: None,
            vulnerabilities: found,
            gaps: Vec::new(),
        };
        let assessed = Assessed {
            scan,
            advisory: 7,
            assessment: store.put_object(REPORT_OBJECTS, &assessment).await.unwrap(),
            findings: scanned.findings,
            previous: None,
            counts: Counts::of(&assessment.vulnerabilities),
            assessed_at: time("2026-02-01T00:02:00Z"),
            contents: model::AssessedContents::default(),
        };
        store
            .put_record(&key(image, What::Assessed), &assessed, 0)
            .await
            .unwrap();
        self.view(
            key(image, What::Assessed),
            Fact::Assessed(
                assessed,
                Some(Arc::new(
                    VulnerabilityRows::new(&assessment.vulnerabilities).unwrap(),
                )),
            ),
        );
        scan
    }

    async fn judged(&mut self, image: &str, policy: &str, decision: Decision, scan: u64) {
        let assessed = self
            .api
            .store
            .record::<Assessed>(&key(image, What::Assessed))
            .await
            .unwrap();
        let judged = Judged {
            assessed: assessed.map_or(1, |stored| stored.revision),
            ..judged(policy, decision, scan)
        };
        let key = key(image, What::Judged(policy.parse().unwrap()));
        self.api.store.put_record(&key, &judged, 0).await.unwrap();
        self.view(key, Fact::Judged(Box::new(judged)));
    }

    /// The partition of an image holds for data that were fetched then.
    async fn swept(&self, image: &str, data_at: &str) {
        let mark = SweptMark {
            revision: 7,
            data_at: Some(time(data_at)),
            ..SweptMark::default()
        };
        let key = format!("swept.{}", digest(image).partition());
        self.api
            .store
            .put(ADVISORIES, &key, &mark, None)
            .await
            .unwrap();
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.get_as(path, &["read"]).await
    }

    async fn get_as(&self, path: &str, scopes: &[&str]) -> (StatusCode, Value) {
        let reply = self.ask(path, Some(scopes), "").await;
        (reply.status, reply.body)
    }

    /// Asks as a token with scopes, or as nobody; `known` is an `ETag`.
    async fn ask(&self, path: &str, scopes: Option<&[&str]>, known: &str) -> Reply {
        let mut request = Request::get(path).header(header::IF_NONE_MATCH, known);
        if let Some(scopes) = scopes {
            request = request.extension(Grant {
                name: "test".to_owned(),
                tenant: "default".to_owned(),
                scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            });
        }
        let request = request.body(Body::empty()).unwrap();
        let routes = chassis::http::wrap(routes(self.api.clone()), &Limits::default());
        let (head, body) = routes.oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        self.contract.check(&Answered {
            method: "GET",
            path: path.split('?').next().unwrap(),
            status: head.status.as_u16(),
            media: text(&head.headers, &header::CONTENT_TYPE),
            body: &body,
        });
        let plain = || Value::String(String::from_utf8_lossy(&body).into_owned());
        Reply {
            status: head.status,
            body: serde_json::from_slice(&body).unwrap_or_else(|_| plain()),
            headers: head.headers,
        }
    }

    /// Posts JSON as a token with scopes, or as nobody.
    async fn post(&self, path: &str, scopes: Option<&[&str]>, body: &str) -> (StatusCode, Value) {
        let media = match body {
            "plain" => "text/plain",
            _ => "application/json",
        };
        let mut request = Request::post(path).header(header::CONTENT_TYPE, media);
        if let Some(scopes) = scopes {
            request = request.extension(Grant {
                name: "alice".to_owned(),
                tenant: "default".to_owned(),
                scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            });
        }
        let request = request.header("idempotency-key", "k1");
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let routes = chassis::http::wrap(routes(self.api.clone()), &Limits::default());
        let (head, body) = routes.oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        self.contract.check(&Answered {
            method: "POST",
            path: path.split('?').next().unwrap(),
            status: head.status.as_u16(),
            media: text(&head.headers, &header::CONTENT_TYPE),
            body: &body,
        });
        let plain = || Value::String(String::from_utf8_lossy(&body).into_owned());
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| plain());
        (head.status, body)
    }

    async fn ok(&self, path: &str) -> Value {
        let (status, answer) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

fn judged(policy: &str, decision: Decision, scan: u64) -> Judged {
    let reason = Reason {
        rule: "fixable".to_owned(),
        decision,
        fingerprints: Vec::new(),
        message: "one vulnerability has a fix".to_owned(),
        remediation: "update".to_owned(),
    };
    Judged {
        assessed: 1,
        scan,
        verdict: Verdict {
            decision,
            reasons: vec![reason],
            policy: policy.parse().unwrap(),
            policy_revision: 3,
            advisory_revision: 7,
            evaluated_at: time("2026-02-28T00:00:00Z"),
            valid_until: None,
        },
        previous: None,
        decided_at: None,
        counts: Counts::default(),
        waivers_end: None,
        os_ends: None,
        ages_at: None,
        data_age_s_max: Some(7 * 24 * 60 * 60),
        references: Vec::new(),
        repositories: Vec::new(),
        waived: std::collections::BTreeMap::new(),
        checks: Vec::new(),
    }
}

fn scan_objects(image: &str) -> (ScannedPackages, ScannedFindings) {
    let package: Package = serde_json::from_value(serde_json::json!({
        "id": "openssl", "type": "deb", "name": "openssl", "version": "3.0.1",
        "purl": "pkg:deb/debian/openssl@3.0.1", "path": "var/lib/dpkg/status",
        "layer": digest("layer"), "confidence": "high",
    }))
    .unwrap();
    let os = Os {
        id: "debian".to_owned(),
        version_id: "12".to_owned(),
        eol: None,
        pretty_name: None,
        codename: None,
    };
    let target = Target {
        reference: "r.example/team/app:1".to_owned(),
        index_digest: None,
        manifest_digest: Some(digest(image)),
        image_id: digest(&format!("{image} config")),
        platform: Platform::default(),
        created: None,
        os: Some(os.clone()),
        layers: Vec::new(),
        config: RuntimeConfig::default(),
    };
    let packages = ScannedPackages {
        image: digest(image),
        os: Some(os),
        packages: vec![package],
        gaps: Vec::new(),
    };
    (
        packages,
        ScannedFindings {
            image: digest(image),
            target,
            findings: Findings::default(),
        },
    )
}

fn vulnerability(id: &str, severity: &str) -> Vulnerability {
    serde_json::from_value(serde_json::json!({
        "id": id, "aliases": [format!("GHSA-{id}")], "package_id": "openssl",
        "package": "openssl", "type": "deb", "installed_version": "3.0.1",
        "fixed_versions": ["3.0.2"], "fix_state": "fixed", "severity": severity,
        "severity_level": 0, "title": "", "url": "", "source": "Debian",
        "path": "var/lib/dpkg/status", "layer": digest("layer"),
        "match": {"method": "package", "confidence": "high", "evidence": []},
        "fingerprint": id,
    }))
    .unwrap()
}

#[tokio::test]
async fn advisories_are_those_of_the_head() {
    let world = World::new();
    assert_eq!(world.ok("/v1/advisories").await["revision"], 0);
    let manifest = model::AdvisoryManifest {
        revision: 9,
        feeds: vec![model::Feed {
            name: "Debian".to_owned(),
            fetched_at: time(NOW),
            coverage: vec!["Debian:12".to_owned()],
            advisories: 5,
            partial: false,
        }],
        shards: std::collections::BTreeMap::new(),
        ..model::AdvisoryManifest::default()
    };
    let store = &world.api.store;
    let object = store
        .put_object(model::event::FEED_OBJECTS, &manifest)
        .await
        .unwrap();
    let head = model::AdvisoryHead {
        revision: 9,
        manifest: object,
        published_at: time(NOW),
        past: Vec::new(),
    };
    store.put(ADVISORIES, "head", &head, None).await.unwrap();
    let answer = world.ok("/v1/advisories").await;
    assert_eq!(
        (&answer["revision"], &answer["feeds"][0]["name"]),
        (&9.into(), &"Debian".into())
    );
}
