use super::*;

async fn world() -> World {
    let mut world = World::new();
    world.known("a", "1", None, "linux/amd64").await;
    let scan = world.assessed("a", Vec::new()).await;
    world.judged("a", "default", Decision::Allow, scan).await;
    world
}

#[tokio::test]
async fn a_verdict_says_until_when_it_holds() {
    let world = world().await;
    world.swept("a", "2026-02-27T00:00:00Z").await;
    let answer = world.ok("/v1/verdicts?image=r.example/team/app:1").await;
    insta::assert_json_snapshot!(answer);
}

#[tokio::test]
async fn a_verdict_that_has_run_out_is_incomplete_everywhere() {
    let world = world().await;
    world.swept("a", "2026-02-01T00:00:00Z").await;
    let answer = world.ok("/v1/verdicts?image=r.example/team/app:1").await;
    assert_eq!(answer["decision"], "incomplete");
    assert_eq!(answer["verdict"]["reasons"][1]["rule"], "verdict-expired");
    let answer = world.ok("/v1/images").await;
    assert_eq!(answer["items"][0]["decision"], "incomplete");
    let answer = world.ok("/v1/images?decision=allow").await;
    assert_eq!(answer["items"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn newer_data_do_not_extend_a_verdict_under_an_older_assessment() {
    let mut world = world().await;
    let key = key("a", What::Assessed);
    let known = world.api.store.record::<Assessed>(&key).await.unwrap();
    let known = known.unwrap();
    let again = world
        .api
        .store
        .put_record(&key, &known.body, known.revision);
    again.await.unwrap();
    world.view(key, Fact::Assessed(known.body, None));
    world.swept("a", "2026-02-28T12:00:00Z").await;
    // The verdict's own time and a week, not the mark's.
    let until = "2026-03-07T00:00:00Z";
    let answer = world.ok("/v1/verdicts?image=r.example/team/app:1").await;
    assert_eq!(answer["verdict"]["valid_until"], until);
    let answer = world.ok("/v1/images").await;
    assert_eq!(answer["items"][0]["policies"][0]["valid_until"], until);
}

#[tokio::test]
async fn the_worst_policy_decides_unless_one_is_named() {
    let mut world = world().await;
    world.judged("a", "strict", Decision::Deny, 1).await;
    let answer = world.ok("/v1/verdicts?image=r.example/team/app:1").await;
    assert_eq!(
        (&answer["decision"], &answer["verdict"]["policy"]),
        (&"deny".into(), &"strict".into())
    );
    let answer = world
        .ok("/v1/verdicts?image=r.example/team/app:1&policy=default")
        .await;
    assert_eq!(answer["decision"], "allow");
    let (status, answer) = world
        .get("/v1/verdicts?image=r.example/team/app:1&policy=x")
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(answer["hint"], "it is judged by: `default`, `strict`");
}

#[tokio::test]
async fn a_policy_without_a_say_is_no_answer() {
    let mut world = World::new();
    world.known("a", "1", None, "linux/amd64").await;
    let mut retired = judged("old", Decision::Allow, 1);
    retired.verdict.reasons[0].rule = "not-selected".to_owned();
    let key = key("a", What::Judged("old".parse().unwrap()));
    world.api.store.put_record(&key, &retired, 0).await.unwrap();
    world.view(key, Fact::Judged(Box::new(retired)));
    let answer = world.ok("/v1/verdicts?image=r.example/team/app:1").await;
    assert_eq!(answer["decision"], Value::Null);
    assert_eq!(world.ok("/v1/images").await["items"][0]["state"], "known");
}

#[tokio::test]
async fn an_index_is_as_bad_as_its_worst_platform_and_waits_for_all() {
    let mut world = World::new();
    world.known("a", "1", Some("index"), "linux/amd64").await;
    world.known("b", "1", Some("index"), "linux/arm64").await;
    world.judged("a", "default", Decision::Allow, 1).await;
    let path = format!("/v1/verdicts?image={}", digest("index"));
    assert_eq!(world.ok(&path).await["decision"], Value::Null);
    world.judged("b", "default", Decision::Warn, 1).await;
    assert_eq!(world.ok(&path).await["decision"], "warn");
}

#[tokio::test]
async fn a_name_gets_the_verdict_of_the_policy_that_it_selects() {
    let mut world = world().await;
    let policies = [
        ("mild", Decision::Warn, "r.example/team/app"),
        ("strict", Decision::Deny, "r.example/x"),
    ];
    for (policy, decision, repository) in policies {
        let mut judged = judged(policy, decision, 1);
        judged.repositories = vec![repository.to_owned()];
        let key = key("a", What::Judged(policy.parse().unwrap()));
        world.api.store.put_record(&key, &judged, 0).await.unwrap();
        world.view(key, Fact::Judged(Box::new(judged)));
    }
    let by_name = world.ok("/v1/verdicts?image=r.example/team/app:1").await;
    assert_eq!(by_name["decision"], "warn");
    let by_digest = world
        .ok(&format!("/v1/verdicts?image={}", digest("a")))
        .await;
    assert_eq!(by_digest["decision"], "deny");
    assert_eq!(world.ok("/v1/images").await["items"][0]["decision"], "warn");
}
