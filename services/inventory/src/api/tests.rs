//! Requests in, JSON out: files mirror the routes. Records are in memory, the view in a temporary
//! directory.

mod images;
mod scans;
mod verdicts;
mod vulnerabilities;

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use chassis::{CxLimits, FixedClock};
use model::{
    AdvisoryStamp, Assessed, Assessment, Counts, Decision, Digest, Findings, Judged, Known, Os,
    Package, Platform, Reason, RecordKey, RuntimeConfig, Scanned, ScannedFindings, ScannedPackages,
    SeenReference, SweptMark, Target, Verdict, Vulnerability, What,
    event::{ADVISORIES, REPORT_OBJECTS, images_bucket},
};
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use crate::view::{Fact, PackageRows, VulnerabilityRows, Write};

/// Noon of the day of all tests.
const NOW: &str = "2026-03-01T12:00:00Z";

struct World {
    api: Api,
    sequence: u64,
    _dir: tempfile::TempDir,
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
        let api = Api {
            cx,
            store: Store::memory(),
            view: Arc::new(View::open(&dir.path().join("inventory")).unwrap()),
            marks: Arc::default(),
            bus: None,
            rows_examined_max: 1000,
        };
        Self {
            api,
            sequence: 0,
            _dir: dir,
        }
    }

    fn view(&mut self, key: RecordKey, fact: Fact) {
        self.sequence += 1;
        let bucket = images_bucket(key.image.partition());
        let write = Write {
            bucket,
            sequence: self.sequence,
            fact: Some((key, fact)),
        };
        self.api.view.apply(&write).unwrap();
    }

    /// An image that a tag of `app` leads to.
    async fn known(&mut self, image: &str, tag: &str, index: Option<&str>, platform: &str) {
        let known = Known {
            references: vec![SeenReference {
                source: "main".parse().unwrap(),
                registry: "r.example".to_owned(),
                repository: "team/app".to_owned(),
                tag: Some(tag.to_owned()),
                since: time("2026-02-01T00:00:00Z"),
                gone_at: None,
            }],
            indexes: index.map(digest).into_iter().collect(),
            config: Some(digest(&format!("{image} config"))),
            platform: platform.parse().unwrap(),
            labels: [("team".to_owned(), "a".to_owned())].into(),
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
        let grant = Grant {
            name: "test".to_owned(),
            tenant: "default".to_owned(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        };
        let request = Request::get(path)
            .extension(grant)
            .body(Body::empty())
            .unwrap();
        let response = routes(self.api.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8_lossy(&body).into_owned();
        (
            status,
            serde_json::from_slice(&body).unwrap_or(Value::String(text)),
        )
    }

    async fn ok(&self, path: &str) -> Value {
        let (status, answer) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }
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
        data_age_s_max: Some(7 * 24 * 60 * 60),
        references: Vec::new(),
        repositories: Vec::new(),
        waived: std::collections::BTreeMap::new(),
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
async fn every_route_asks_for_a_token_that_may_read() {
    let world = World::new();
    for path in [
        "/v1/images",
        "/v1/images/r.example/app:1",
        "/v1/vulnerabilities/CVE-2026-1/images",
        "/v1/verdicts?image=r.example/app:1",
        "/v1/scans/abc",
        "/v1/advisories",
        "/v1/health",
    ] {
        assert_eq!(
            world.get_as(path, &["scan"]).await.0,
            StatusCode::FORBIDDEN,
            "{path}"
        );
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = routes(world.api.clone()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn health_tells_how_old_the_data_are() {
    let world = World::new();
    for partition in model::Partition::all() {
        let mark = SweptMark {
            revision: 7,
            data_at: Some(time("2026-03-01T11:00:00Z")),
        };
        let key = format!("swept.{partition}");
        world
            .api
            .store
            .put(ADVISORIES, &key, &mark, None)
            .await
            .unwrap();
    }
    let health = world.ok("/v1/health").await;
    assert_eq!(health["status"], "ok");
    assert_eq!(health["partitions"].as_array().unwrap().len(), 16);
    insta::assert_json_snapshot!(health["advisories"], @r#"
    {
      "age_seconds": 3600,
      "data_at": "2026-03-01T11:00:00Z",
      "published_at": null,
      "revision": 0,
      "swept": 7
    }
    "#);
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
