//! What the document says is what is answered.

use super::*;

const PATHS: [&str; 20] = [
    "/v1/images",
    "/v1/images/r.example/team/app:1",
    "/v1/vulnerabilities/CVE-2026-1/images",
    "/v1/verdicts?image=r.example/team/app:1",
    "/v1/scans/abc",
    "/v1/advisories",
    "/v1/health",
    REPORT,
    CONTAINERS,
    "/v1/nodes",
    "/v1/nodes/node-1",
    "/v1/containers",
    "/v1/containers/aa1",
    "/v1/vulnerabilities/CVE-2026-1/containers",
    "/v1/incidents",
    "/v1/incidents/i1",
    "/v1/connections",
    "/v1/responses",
    "/v1/responses/i1",
    "/v1/replacements",
];
/// The containers of image `a`.
const CONTAINERS: &str =
    "/v1/images/sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb/containers";
/// The report of image `a`.
const REPORT: &str =
    "/v1/images/sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb/report";

async fn world() -> World {
    let mut world = World::new();
    world.known("a", "1", None, "linux/amd64").await;
    let scan = world
        .assessed("a", vec![vulnerability("CVE-2026-1", "critical")])
        .await;
    world.judged("a", "default", Decision::Deny, scan).await;
    let container = |id: &str| runtime::container(id, "app", digest("a config"));
    world.reported("node-1", &[container("aa1"), container("ab1")], &[]);
    world.happened(runtime::incident("i1", "aa1", 1));
    responses::answered(&mut world).await;
    world
}

#[tokio::test]
async fn every_route_asks_for_a_token_that_may_read() {
    let world = world().await;
    for path in PATHS {
        for known in ["", "*"] {
            let lacking = world.ask(path, Some(&["scan"]), known).await;
            assert_eq!(lacking.status, StatusCode::FORBIDDEN, "{path}");
            let nobody = world.ask(path, None, known).await;
            assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{path}");
            assert_eq!(text(&nobody.headers, &header::ETAG), None, "{path}");
        }
    }
}

#[tokio::test]
async fn who_has_an_answer_is_sent_it_again_only_when_it_changed() {
    let mut world = world().await;
    let path = "/v1/images/r.example/team/app:1";
    let first = world.ask(path, Some(&["read"]), "").await;
    let tag = text(&first.headers, &header::ETAG).unwrap().to_owned();
    assert!(tag.starts_with("W/"), "{tag}: it is computed");
    assert_eq!(
        text(&first.headers, &header::CACHE_CONTROL),
        Some("private, no-cache")
    );
    let again = world.ask(path, Some(&["read"]), &tag).await;
    assert_eq!(
        (again.status, again.body),
        (StatusCode::NOT_MODIFIED, "".into())
    );
    world.judged("a", "strict", Decision::Allow, 1).await;
    let changed = world.ask(path, Some(&["read"]), &tag).await;
    assert_eq!(changed.status, StatusCode::OK);
    // The state of a moment is never the same.
    let health = world.ask("/v1/health", Some(&["read"]), "*").await;
    assert_eq!(
        (health.status, text(&health.headers, &header::ETAG)),
        (StatusCode::OK, None)
    );
}

#[tokio::test]
async fn every_answer_that_is_described_is_given() {
    let world = world().await;
    let report = |name: &str| format!("/v1/images/{}/report", digest(name));
    assert_eq!(report("a"), REPORT);
    for path in PATHS {
        for scopes in [None, Some(["scan"].as_slice()), Some(&["read"])] {
            world.ask(path, scopes, "").await;
        }
        world.ask(path, Some(&["read"]), "*").await;
    }
    for path in [
        "/v1/images?limit=0",
        "/v1/images/UPPER",
        "/v1/images/r.example/none:1",
        "/v1/images/sha256:ff/report",
        &report("none"),
        &report("none").replace("/report", "/containers"),
        "/v1/vulnerabilities/CVE-2026-1/images?cursor=zz",
        "/v1/vulnerabilities/CVE-2026-1/containers?cursor=zz",
        "/v1/images/sha256:ff/containers",
        "/v1/nodes?limit=0",
        "/v1/nodes/NODE",
        "/v1/nodes/none",
        "/v1/connections?node=A/B",
        "/v1/containers?state=flying",
        "/v1/containers/a",
        "/v1/containers/none",
        "/v1/connections?exposed=perhaps",
        "/v1/incidents?severity=none",
        "/v1/incidents/none",
        "/v1/verdicts",
        "/v1/verdicts?image=r.example/none:1",
        "/v1/scans/r1?wait=121",
        "/v1/scans/a.b",
        "/v1/events?kind=nothing.known",
        // There is no broker here.
        "/v1/events",
    ] {
        world.ask(path, Some(&["read"]), "").await;
    }
    responses::ask_everything(&world).await;
    // The objects of a scan that was replaced long ago are gone.
    let lost = key("a", What::Scanned);
    let stored = world
        .api
        .store
        .record::<Scanned>(&lost)
        .await
        .unwrap()
        .unwrap();
    world
        .api
        .store
        .delete_object(REPORT_OBJECTS, &stored.body.packages)
        .await
        .unwrap();
    assert_eq!(world.get(REPORT).await.0, StatusCode::CONFLICT);
    for scopes in [None, Some(["scan"].as_slice())] {
        world.ask("/v1/events", scopes, "").await;
    }
    // A stream needs a broker, so an end-to-end test reads one.
    assert_eq!(world.contract.unseen(), ["GET /v1/events 200"]);
}
