use std::sync::atomic::{AtomicBool, Ordering};

use model::{CheckRecord, event::REFS};

use super::*;

async fn fleet() -> World {
    let mut world = World::new();
    world.known("a", "1", None, "linux/amd64").await;
    let scan = world
        .assessed("a", vec![vulnerability("CVE-2026-1", "critical")])
        .await;
    world.judged("a", "default", Decision::Deny, scan).await;
    world.swept("a", "2026-02-27T00:00:00Z").await;
    world.known("b", "2", Some("index"), "linux/amd64").await;
    world.known("c", "2", Some("index"), "linux/arm64").await;
    let scan = world
        .assessed("b", vec![vulnerability("CVE-2026-2", "low")])
        .await;
    world.judged("b", "default", Decision::Allow, scan).await;
    world.swept("b", "2026-02-27T00:00:00Z").await;
    world
}

async fn references(world: &World, query: &str) -> Vec<String> {
    let answer = world.ok(&format!("/v1/images?{query}")).await;
    let items = answer["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| {
            format!(
                "{} {}",
                item["reference"].as_str().unwrap(),
                item["platform"].as_str().unwrap()
            )
        })
        .collect()
}

#[tokio::test]
async fn the_list_has_a_row_per_name() {
    let world = fleet().await;
    let answer = world.ok("/v1/images?limit=1").await;
    insta::assert_json_snapshot!(answer);
}

#[tokio::test]
async fn filters_choose_rows() {
    let world = fleet().await;
    let check = async |query: &str, expected: &[&str]| {
        assert_eq!(references(&world, query).await, expected, "{query}");
    };
    let one = "r.example/team/app:1 linux/amd64";
    let (two, arm) = (
        "r.example/team/app:2 linux/amd64",
        "r.example/team/app:2 linux/arm64",
    );
    check("tag=1", &[one]).await;
    check("repository=am/ap&tag=1", &[one]).await;
    check("repository=team/*&tag=1", &[one]).await;
    check(
        "repository=team",
        &references(&world, "")
            .await
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    )
    .await;
    check("repository=*other*", &[]).await;
    check("decision=deny", &[one]).await;
    check("decision=allow", &[two]).await;
    check("cve=cve-2026-1", &[one]).await;
    check("cve=GHSA-CVE-2026-1", &[one]).await;
    check("cve=CVE-1", &[]).await;
    check("severity=high", &[one]).await;
    check("severity=5", &[one]).await;
    check("platform=linux/arm64", &[arm]).await;
    assert_eq!(references(&world, "package=openssl").await.len(), 2);
    check("package=nothing", &[]).await;
}

#[tokio::test]
async fn parameters_that_mean_nothing_are_refused() {
    let world = fleet().await;
    for query in [
        "severity=x",
        "platform=x",
        "repository=[",
        "limit=0",
        "limit=1000",
        "cursor=zz",
        "x=1",
    ] {
        let (status, answer) = world.get(&format!("/v1/images?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {answer}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_and_end() {
    let world = fleet().await;
    let mut found = Vec::new();
    let mut path = "/v1/images?limit=1".to_owned();
    loop {
        let page = world.ok(&path).await;
        for item in page["items"].as_array().unwrap() {
            found.push(item["image"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/images?limit=1&cursor={next}");
        assert!(found.len() < 10, "it never ends");
    }
    let all = world.ok("/v1/images").await;
    let all: Vec<_> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["image"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((found.len(), found), (3, all));
}

#[tokio::test]
async fn an_image_is_found_by_name_and_by_each_of_its_digests() {
    let world = fleet().await;
    let answer = world.ok("/v1/images/r.example/team/app:1").await;
    insta::assert_json_snapshot!(answer);
    for (query, kind, images) in [
        (digest("a").to_string(), "image", 1),
        (digest("index").to_string(), "index", 2),
        (digest("b config").to_string(), "config", 1),
        ("r.example/team/app:2".to_owned(), "reference", 2),
        (format!("r.example/team/app@{}", digest("b")), "image", 1),
    ] {
        let answer = world.ok(&format!("/v1/images/{query}")).await;
        assert_eq!(answer["kind"], kind, "{query}");
        assert_eq!(
            answer["images"].as_array().unwrap().len(),
            images,
            "{query}"
        );
    }
    let answer = world.ok("/v1/images/r.example/team/app:2").await;
    assert_eq!(answer["index_digest"], digest("index").to_string());
    // One of its platforms has no verdict yet.
    assert_eq!(answer["decision"], Value::Null);
}

#[tokio::test]
async fn an_unknown_image_says_what_to_do() {
    let world = fleet().await;
    for path in ["r.example/none:1".to_owned(), digest("none").to_string()] {
        let (status, answer) = world.get(&format!("/v1/images/{path}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(
            answer["hint"].as_str().unwrap().contains("POST /v1/scans"),
            "{answer}"
        );
    }
    assert_eq!(
        world.get("/v1/images/UPPER").await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_report_has_everything_and_names_the_verdict() {
    let world = fleet().await;
    let mut report = world
        .ok(&format!("/v1/images/{}/report", digest("a")))
        .await;
    let vulnerabilities = report["vulnerabilities"].take();
    let packages = report["packages"].take();
    assert_eq!(vulnerabilities[0]["id"], "CVE-2026-1");
    assert_eq!(packages[0]["name"], "openssl");
    insta::assert_json_snapshot!(report);
}

#[tokio::test]
async fn a_report_that_is_not_there_yet_says_how_far_the_image_got() {
    let mut world = fleet().await;
    let path = format!("/v1/images/{}/report", digest("c"));
    let (status, answer) = world.get(&path).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        answer["detail"]
            .as_str()
            .unwrap()
            .contains("not scanned yet"),
        "{answer}"
    );
    world.assessed("c", Vec::new()).await;
    let (_, answer) = world.get(&path).await;
    assert!(
        answer["detail"]
            .as_str()
            .unwrap()
            .contains("not judged yet"),
        "{answer}"
    );
    world.judged("c", "default", Decision::Warn, 1).await;
    let path = format!("/v1/images/{}/report", digest("index"));
    let reports = world.ok(&path).await;
    assert_eq!(reports["schema"], "tidewaiter.reports/1");
    assert_eq!(
        (
            reports["reports"].as_array().unwrap().len(),
            &reports["verdict"]["decision"]
        ),
        (2, &"warn".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_all_the_time_is_listed_once_whatever_is_written_meanwhile() {
    let mut world = World::new();
    for number in 0..30 {
        world
            .known(
                &format!("stays-{number}"),
                &format!("m{number:02}"),
                None,
                "linux/amd64",
            )
            .await;
    }
    let (view, stop) = (
        Arc::clone(&world.api.view),
        Arc::new(AtomicBool::new(false)),
    );
    let (stopped, mut sequence) = (Arc::clone(&stop), 1_000_u64);
    // Names come and go before, between and behind those that stay.
    let writer = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            for (number, tag) in ["a", "m07x", "m15x", "z"].iter().enumerate() {
                for is_there in [true, false] {
                    sequence += 1;
                    let image = digest(&format!("goes-{number}"));
                    let key = RecordKey::new(&tenant(), image, What::Known);
                    let known = Known {
                        references: vec![SeenReference {
                            source: "main".parse().unwrap(),
                            registry: "r.example".to_owned(),
                            repository: "team/app".to_owned(),
                            tag: Some((*tag).to_owned()),
                            since: time(NOW),
                            gone_at: (!is_there).then(|| time(NOW)),
                        }],
                        ..Known::default()
                    };
                    let bucket = images_bucket(key.image.partition());
                    let told = Some(Told::Image(key, Box::new(Fact::Known(known))));
                    view.apply(&Write {
                        bucket,
                        sequence,
                        told,
                    })
                    .unwrap();
                }
            }
        }
        sequence
    });
    for _ in 0..20 {
        let (mut path, mut seen) = ("/v1/images?limit=3".to_owned(), Vec::new());
        loop {
            let page = world.ok(&path).await;
            for item in page["items"].as_array().unwrap() {
                seen.push(item["tag"].as_str().unwrap().to_owned());
            }
            let Some(next) = page["next"].as_str() else {
                break;
            };
            path = format!("/v1/images?limit=3&cursor={next}");
        }
        assert!(seen.is_sorted(), "{seen:?}");
        seen.retain(|tag| tag.len() == 3);
        let expected: Vec<_> = (0..30).map(|number| format!("m{number:02}")).collect();
        assert_eq!(seen, expected);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.join().unwrap() > 1_000);
}

#[tokio::test]
async fn an_image_was_checked_when_a_repository_that_leads_to_it_was_looked_at() {
    let mut world = fleet().await;
    let checked = async |world: &World| {
        let answer = world.ok("/v1/images?tag=1").await;
        let detail = world.ok("/v1/images/r.example/team/app:1").await;
        assert_eq!(
            answer["items"][0]["checked_at"],
            detail["images"][0]["checked_at"]
        );
        answer["items"][0]["checked_at"].clone()
    };
    assert_eq!(checked(&world).await, Value::Null);
    let look = async |world: &World, source: &str, repository: &str, at: &str| {
        let source = source.parse().unwrap();
        let record = CheckRecord {
            checked_at: time(at),
            repository: format!("r.example/{repository}"),
            tags: 1,
            errors: 0,
            source,
        };
        let key = CheckRecord::key(&tenant(), &record.source, repository);
        world
            .api
            .store
            .put(REFS, &key, &record, None)
            .await
            .unwrap();
    };
    look(&world, "main", "team/app", "2026-03-01T06:00:00Z").await;
    look(&world, "main", "team/other", "2026-03-01T07:00:00Z").await;
    look(&world, "mirror", "team/app", "2026-03-01T08:00:00Z").await;
    assert_eq!(checked(&world).await, "2026-03-01T06:00:00Z");
    // A second name of it, in a repository that was looked at later.
    let key = key("a", What::Known);
    let mut known = world
        .api
        .view
        .image(&tenant(), key.image)
        .unwrap()
        .unwrap()
        .known
        .unwrap();
    let other = SeenReference {
        repository: "team/other".to_owned(),
        ..known.references[0].clone()
    };
    known.references.push(other);
    world.view(key.clone(), Fact::Known(known.clone()));
    assert_eq!(checked(&world).await, "2026-03-01T07:00:00Z");
    // That name leads elsewhere now, so the look at its repository says nothing of this image.
    known.references[1].gone_at = Some(time(NOW));
    world.view(key, Fact::Known(known));
    assert_eq!(checked(&world).await, "2026-03-01T06:00:00Z");
}
