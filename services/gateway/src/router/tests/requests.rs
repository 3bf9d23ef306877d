//! Requests for scans, and what becomes of them.

use super::*;

#[tokio::test]
async fn a_request_is_answered_with_its_images_and_what_to_wait_for() {
    let world = World::new();
    world.answer("1", Ok(index("i", &["a", "b"])));
    let revision = world.scanned(digest("b"), vec![analyzer("dpkg")]).await;
    let outcome = world.route(requested("r.example/app:1", false)).await;
    assert_eq!(jobs(&outcome), [digest("a")]);
    let record = world.scan_request().await;
    assert_eq!(
        (record.index, record.images),
        (Some(digest("i")), vec![digest("a"), digest("b")])
    );
    assert_eq!(record.waits_for, BTreeMap::from([(digest("a"), 0)]));
    let outcome = world.route(requested("r.example/app:1", true)).await;
    assert_eq!(jobs(&outcome), [digest("a"), digest("b")]);
    let waits_for = world.scan_request().await.waits_for;
    assert_eq!(
        waits_for,
        BTreeMap::from([(digest("a"), 0), (digest("b"), revision)])
    );
}

#[tokio::test]
async fn a_request_that_comes_again_waits_for_the_scan_it_led_to() {
    let world = World::new();
    world.answer("1", Ok(one("a")));
    let old = world.scanned(digest("a"), vec![analyzer("dpkg")]).await;
    world.route(requested("r.example/app:1", true)).await;
    // Its scan ends, and then the request comes again.
    let key = RecordKey::new(&tenant(), digest("a"), What::Scanned);
    let stored = world.store.record::<Scanned>(&key).await.unwrap().unwrap();
    world
        .store
        .put_record(&key, &stored.body, old)
        .await
        .unwrap();
    world.route(requested("r.example/app:1", true)).await;
    let waits_for = world.scan_request().await.waits_for;
    assert_eq!(waits_for, BTreeMap::from([(digest("a"), old)]));
}

#[tokio::test]
async fn a_request_under_the_key_of_another_does_not_replace_its_answer() {
    let world = World::new();
    world.answer("1", Ok(one("a")));
    world.answer("2", Ok(one("b")));
    world.route(requested("r.example/app:1", false)).await;
    let before = world.scan_request().await;
    assert!(
        world
            .route(requested("r.example/app:2", false))
            .await
            .is_empty()
    );
    assert_eq!(world.scan_request().await, before);
}

#[tokio::test]
async fn a_request_that_leads_nowhere_says_why() {
    let world = World::new();
    world.route(requested("r.example/app:none", false)).await;
    let error = world.scan_request().await.error.unwrap();
    assert!(error.contains("`none` does not exist"), "{error}");
    let world = World::new();
    world.answer("secret", Err(unauthorized()));
    world.route(requested("r.example/app:secret", false)).await;
    let error = world.scan_request().await.error.unwrap();
    assert!(error.contains("docker login"), "{error}");
}

#[tokio::test]
async fn a_request_by_digest_does_not_move_a_tag() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Ok(one("a")));
    world.answer(&digest("b").to_string(), Ok(one("b")));
    world.push("1", "a", 10).await;
    world
        .route(requested(
            &format!("r.example/app:1@{}", digest("b")),
            false,
        ))
        .await;
    assert_eq!(world.tag("1").await.digest, Some(digest("a")));
    assert_eq!(world.names(digest("b")).await, ["r.example/app"]);
}
