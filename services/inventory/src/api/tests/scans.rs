use model::{ScanRequestRecord, event::REFS};

use super::*;

async fn requested(world: &World, record: &ScanRequestRecord) {
    let key = ScanRequestRecord::key(&tenant(), "r1");
    world.api.store.put(REFS, &key, record, None).await.unwrap();
}

fn record(images: &[&str]) -> ScanRequestRecord {
    ScanRequestRecord {
        reference: "r.example/team/app:1".to_owned(),
        images: images.iter().map(|image| digest(image)).collect(),
        index: None,
        error: None,
        resolved_at: time(NOW),
        waits_for: std::collections::BTreeMap::new(),
        content: None,
    }
}

#[tokio::test]
async fn a_request_goes_from_pending_to_done() {
    let mut world = World::new();
    let answer = world.ok("/v1/scans/r1").await;
    assert_eq!(
        (&answer["state"], &answer["images"]),
        (&"pending".into(), &serde_json::json!([]))
    );
    world.known("a", "1", None, "linux/amd64").await;
    requested(&world, &record(&["a"])).await;
    assert_eq!(world.ok("/v1/scans/r1").await["state"], "resolved");
    let scan = world.assessed("a", Vec::new()).await;
    world.judged("a", "default", Decision::Deny, scan).await;
    let answer = world.ok("/v1/scans/r1?wait=1").await;
    insta::assert_json_snapshot!(answer);
}

#[tokio::test]
async fn a_verdict_on_an_older_scan_is_not_waited_for() {
    let mut world = World::new();
    world.known("a", "1", None, "linux/amd64").await;
    let scan = world.assessed("a", Vec::new()).await;
    world.judged("a", "default", Decision::Allow, scan).await;
    world.judged("a", "strict", Decision::Allow, scan + 1).await;
    let mut record = record(&["a"]);
    record.waits_for = [(digest("a"), scan)].into();
    requested(&world, &record).await;
    assert_eq!(world.ok("/v1/scans/r1").await["state"], "resolved");
    record.waits_for = [(digest("a"), scan - 1)].into();
    requested(&world, &record).await;
    assert_eq!(world.ok("/v1/scans/r1").await["state"], "done");
}

#[tokio::test]
async fn a_request_that_leads_nowhere_has_failed() {
    let world = World::new();
    let error = Some("`none` does not exist".to_owned());
    requested(
        &world,
        &ScanRequestRecord {
            error,
            ..record(&[])
        },
    )
    .await;
    let answer = world.ok("/v1/scans/r1").await;
    assert_eq!(
        (&answer["state"], &answer["error"]),
        (&"failed".into(), &"`none` does not exist".into())
    );
    assert_eq!(answer["decision"], Value::Null);
}

#[tokio::test]
async fn ids_and_waits_are_bounded() {
    let world = World::new();
    assert_eq!(
        world.get("/v1/scans/r1?wait=121").await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(world.get("/v1/scans/a.b").await.0, StatusCode::NOT_FOUND);
}
