//! Objects with common content, over the store in memory.

use model::event::REPORT_OBJECTS;
use serde::Deserialize;

use super::*;

#[derive(Serialize)]
struct Own {
    image: u32,
}

#[derive(Serialize)]
struct Rest {
    packages: Vec<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Whole {
    image: u32,
    packages: Vec<String>,
}

fn rest(name: &str) -> Rest {
    Rest {
        packages: vec![name.to_owned()],
    }
}

async fn put(store: &Store, image: u32, name: &str) -> (Digest, Digest) {
    let common = store.common(&rest(name)).unwrap();
    let tenant = Slug::default_tenant();
    let own = Own { image };
    let object = store.put_object_with(&tenant, REPORT_OBJECTS, &own, &common);
    (object.await.unwrap(), common.content())
}

#[tokio::test]
async fn each_image_has_an_object_of_its_own_and_one_is_read_for_all() {
    let store = Store::memory();
    let (one, content) = put(&store, 1, "a").await;
    let (two, same) = put(&store, 2, "a").await;
    assert!(one != two && content == same);
    let read: Option<Whole> = store.object(REPORT_OBJECTS, &two).await.unwrap();
    assert_eq!(read.unwrap().image, 2);

    let contents = Contents::<Whole>::new(store.clone(), REPORT_OBJECTS, 1_000);
    let first = contents.get(&one, Some(&content)).await.unwrap().unwrap();
    store.delete_object(REPORT_OBJECTS, &two).await.unwrap();
    let second = contents.get(&two, Some(&content)).await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    // Without the content's name it is the object that counts.
    assert!(contents.get(&two, None).await.unwrap().is_none());
    assert_eq!(contents.get(&one, None).await.unwrap().unwrap().image, 1);
}

#[tokio::test]
async fn an_object_with_other_content_than_its_record_says_is_an_error() {
    let store = Store::memory();
    let (one, _) = put(&store, 1, "a").await;
    let (_, other) = put(&store, 2, "b").await;
    let contents = Contents::<Whole>::new(store.clone(), REPORT_OBJECTS, 1_000);
    let read = contents.get(&one, Some(&other)).await;
    assert!(
        matches!(read, Err(StoreError::Malformed { .. })),
        "{read:?}"
    );
    let plain = store.put_object(REPORT_OBJECTS, &"x").await.unwrap();
    assert!(contents.get(&plain, Some(&other)).await.is_err());
}
