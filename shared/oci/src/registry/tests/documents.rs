//! Documents that are kept.

use std::{collections::HashMap, sync::Mutex};

use super::*;

/// A store in memory, by everything that names a document.
#[derive(Debug, Default)]
struct Kept(Mutex<HashMap<(String, String, bool, Digest), Document>>);

fn key(name: &DocumentName<'_>) -> (String, String, bool, Digest) {
    let (host, repository) = (name.host.to_owned(), name.repository.to_owned());
    (host, repository, name.is_manifest, name.digest)
}

impl DocumentStore for Kept {
    fn get<'a>(&'a self, name: &'a DocumentName<'a>) -> BoxFuture<'a, Option<Document>> {
        let found = self.0.lock().unwrap().get(&key(name)).cloned();
        Box::pin(async { found })
    }

    fn put<'a>(&'a self, name: &'a DocumentName<'a>, document: Document) -> BoxFuture<'a, ()> {
        self.0.lock().unwrap().insert(key(name), document);
        Box::pin(async {})
    }
}

/// A registry with a store, as a process that starts anew has it.
fn with(cx: &Cx, host: &str, documents: &Arc<Kept>) -> Registry {
    let documents: Arc<dyn DocumentStore> = Arc::<Kept>::clone(documents);
    let config = RegistryConfig {
        documents: Some(documents),
        ..quick(host)
    };
    Registry::new(cx, config).unwrap()
}

/// The requests that were made, as `METHOD PATH`.
fn requests(server: &RegistryServer) -> Vec<String> {
    let log = server.log();
    let request = |line: &str| {
        let (_, rest) = line.split_once(" \"")?;
        let (request, _) = rest.split_once(" HTTP/1.1\"")?;
        Some(request.to_owned())
    };
    log.lines()
        .filter_map(request)
        .filter(|request| !request.ends_with("/v2/"))
        .collect()
}

#[tokio::test]
async fn a_known_image_costs_the_resolving_of_its_tag() {
    let Some(server) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    let both = index(vec![
        clean_image(),
        ImageBuilder::for_platform("linux/arm64")
            .layer(debian_layer(), "ADD")
            .build(),
    ]);
    server.push(&both, "team/app", "1");
    let (cx, kept) = (Cx::for_tests(), Arc::new(Kept::default()));
    let first = with(&cx, &server.host(), &kept)
        .resolve(&wanted("team/app", "1"))
        .await
        .unwrap();
    assert_eq!(
        kept.0.lock().unwrap().len(),
        5,
        "an index, two manifests, two configs"
    );

    server.clear_log();
    let again = with(&cx, &server.host(), &kept)
        .resolve(&wanted("team/app", "1"))
        .await
        .unwrap();
    assert_eq!(again.images, first.images);
    assert_eq!(requests(&server), ["HEAD /v2/team/app/manifests/1"]);

    // The tag leads elsewhere now, and that is seen.
    server.push(clean_image(), "team/app", "1");
    server.clear_log();
    let moved = with(&cx, &server.host(), &kept)
        .resolve(&wanted("team/app", "1"))
        .await
        .unwrap();
    assert_eq!(
        (moved.index, moved.images[0].digest),
        (None, clean_image().digest)
    );
    assert_eq!(requests(&server), ["HEAD /v2/team/app/manifests/1"]);
}

#[tokio::test]
async fn what_one_repository_gave_is_not_given_for_another() {
    let Some(server) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    server.push(clean_image(), "secret", "1");
    let (cx, kept) = (Cx::for_tests(), Arc::new(Kept::default()));
    let registry = with(&cx, &server.host(), &kept);
    let digest = clean_image().digest;
    registry
        .resolve(&Wanted::by_digest("secret", digest))
        .await
        .unwrap();
    let error = registry
        .resolve(&Wanted::by_digest("other", digest))
        .await
        .unwrap_err();
    assert!(matches!(error, OciError::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn a_document_that_was_damaged_is_fetched_again() {
    let Some(server) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    server.push(clean_image(), "app", "1");
    let (cx, kept) = (Cx::for_tests(), Arc::new(Kept::default()));
    let registry = with(&cx, &server.host(), &kept);
    let wanted = wanted("app", "1");
    let first = registry.resolve(&wanted).await.unwrap();
    for document in kept.0.lock().unwrap().values_mut() {
        document.text.push(' ');
    }
    assert_eq!(
        registry.resolve(&wanted).await.unwrap().images,
        first.images
    );
    let (text, digest) = {
        let kept = kept.0.lock().unwrap();
        let (key, document) = kept.iter().find(|(key, _)| key.2).unwrap();
        (document.text.clone(), key.3)
    };
    assert_eq!(Digest::of(text.as_bytes()), digest, "it was put in order");
}

#[tokio::test]
async fn a_missing_tag_is_said_as_without_a_store() {
    let Some(server) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    server.push(clean_image(), "app", "1");
    let cx = Cx::for_tests();
    let registry = with(&cx, &server.host(), &Arc::default());
    let error = registry.resolve(&wanted("app", "2")).await.unwrap_err();
    let plain = super::registry(&cx, &server.host(), None);
    let expected = plain.resolve(&wanted("app", "2")).await.unwrap_err();
    assert_eq!(error.to_string(), expected.to_string());
    let host = server.host();
    let check = |error: &OciError, name: &str| {
        let error = error.to_string();
        let expected = format!("`{host}/app{name}` does not exist in `{host}` (404 Not Found");
        assert!(error.starts_with(&expected), "{error}");
    };
    check(&error, ":2");
    let untagged = Wanted {
        tag: None,
        ..wanted("app", "2")
    };
    check(&registry.resolve(&untagged).await.unwrap_err(), ":latest");
    let digest = Digest::of(b"nothing");
    let by_digest = Wanted::by_digest("app", digest);
    let error = registry.resolve(&by_digest).await.unwrap_err();
    check(&error, &format!("@{digest}"));
}

#[tokio::test]
async fn a_new_image_costs_a_request_for_each_of_its_documents() {
    let Some(server) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    server.push(clean_image(), "app", "1");
    server.clear_log();
    let (cx, kept) = (Cx::for_tests(), Arc::new(Kept::default()));
    let registry = with(&cx, &server.host(), &kept);
    let (resolved, manifests) = registry.resolve_keeping(&wanted("app", "1")).await.unwrap();
    let image = &resolved.images[0];
    let config = format!("GET /v2/app/blobs/{}", image.image_id);
    assert_eq!(
        requests(&server),
        ["GET /v2/app/manifests/1", config.as_str()]
    );
    assert!(manifests.get(&image.digest).is_some());

    // Who works on it in the same process asks for nothing, with the manifest in hand or not.
    server.clear_log();
    let by_digest = Wanted::by_digest("app", image.digest);
    for manifests in [manifests, crate::Kept::default()] {
        let again = registry.resolve_from(&by_digest, &manifests).await.unwrap();
        assert_eq!(again.images[0].digest, image.digest);
    }
    assert_eq!(requests(&server), Vec::<String>::new());
}
