//! Rules that ask where an image comes from.

use model::{Known, RecordKey, SeenReference, What};

use super::*;

fn asking(sources: &str) -> String {
    format!(
        "name: shop\nmode: enforce\nevidence: false\n\
         rules: [{{ name: cut, when: {{ sources: [{sources}] }}, then: [pause] }}]\n"
    )
}

/// An incident in a container of an image that was seen in these sources.
async fn happens(yaml: &str, sources: &[&str], is_known: bool) -> Vec<Stage> {
    let world = World::new(yaml);
    world.reported("n1", vec![container("c1"), container("c2")]);
    let image = Digest::of(b"image");
    let seen = |source: &&str| SeenReference {
        source: source.parse().unwrap(),
        registry: "r.example".to_owned(),
        repository: "shop/web".to_owned(),
        tag: None,
        since: start(),
        gone_at: None,
    };
    let known = Known {
        references: sources.iter().map(seen).collect(),
        ..Known::default()
    };
    let key = RecordKey::new(&tenant(), image, What::Known);
    if is_known {
        world.store.put_record(&key, &known, 0).await.unwrap();
    }
    let one = Incident {
        image: Some(image),
        ..incident(1, "n1", "c1")
    };
    world.happens(one.clone()).await;
    let key = ResponseRecord::key(&tenant(), &one.id);
    let stored = world
        .store
        .get::<ResponseRecord>(RESPONSE_RECORDS, &key)
        .await;
    let responses = stored.unwrap().map(|stored| stored.body.responses);
    responses
        .into_iter()
        .flatten()
        .map(|one| one.stage)
        .collect()
}

#[tokio::test]
async fn a_rule_takes_images_of_its_sources_and_no_others() {
    let ordered = [Stage::Ordered];
    assert_eq!(happens(&asking("main"), &["main"], true).await, ordered);
    assert_eq!(
        happens(&asking("a, main"), &["b", "main"], true).await,
        ordered
    );
    assert_eq!(happens(&asking("main"), &["mainland", "b"], true).await, []);
    assert_eq!(happens(&asking("main"), &[], true).await, []);
    assert_eq!(happens(&asking("main"), &["main"], false).await, []);
}

#[tokio::test]
async fn an_image_that_nobody_names_has_no_source() {
    let world = World::new(&asking("main"));
    world.reported("n1", vec![container("c1"), container("c2")]);
    let one = incident(1, "n1", "c1");
    let outcome = world.happens(one).await;
    assert!(outcome.is_empty());
}
