use super::*;

async fn fleet() -> World {
    let mut world = World::new();
    for image in ["a", "b", "c"] {
        world.known(image, image, None, "linux/amd64").await;
        let found = vec![
            vulnerability("CVE-2026-1", "high"),
            vulnerability("CVE-2026-2", "low"),
        ];
        world.assessed(image, found).await;
    }
    world
}

#[tokio::test]
async fn images_are_listed_with_package_and_fix() {
    let world = fleet().await;
    let mut answer = world
        .ok("/v1/vulnerabilities/CVE-2026-1/images?limit=1")
        .await;
    assert!(answer["next"].take().is_string(), "two more follow");
    insta::assert_json_snapshot!(answer);
}

#[tokio::test]
async fn an_alias_finds_the_same_and_pages_follow_each_other() {
    let world = fleet().await;
    for id in ["cve-2026-1", "GHSA-CVE-2026-1"] {
        let mut path = format!("/v1/vulnerabilities/{id}/images?limit=2");
        let mut found = Vec::new();
        loop {
            let page = world.ok(&path).await;
            for item in page["items"].as_array().unwrap() {
                found.push(item["image"].as_str().unwrap().to_owned());
            }
            let Some(next) = page["next"].as_str() else {
                break;
            };
            path = format!("/v1/vulnerabilities/{id}/images?limit=2&cursor={next}");
            assert!(found.len() < 10, "it never ends");
        }
        let mut expected = ["a", "b", "c"].map(|image| digest(image).to_string());
        expected.sort();
        assert_eq!(found, expected, "{id}");
    }
    let none = world.ok("/v1/vulnerabilities/CVE-1/images").await;
    assert_eq!(none["items"].as_array().unwrap().len(), 0);
}
