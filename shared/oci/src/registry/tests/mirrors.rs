//! Mirrors that work, are down, lie and lag behind.

use axum::http::StatusCode;
use testkit::Image;

use super::{
    site::{Site, bytes, descriptor, status, whole},
    *,
};

/// A registry with one image under `PREFIX/app`.
async fn holder(prefix: &'static str) -> Site {
    Site::start(move |seen, _| async move {
        let image: Image = clean_image();
        let Some(rest) = seen.path.strip_prefix(&format!("/v2/{prefix}app/")) else {
            return status(StatusCode::NOT_FOUND, &[]);
        };
        let name = rest.rsplit('/').next().unwrap_or_default();
        let layer = image
            .layers
            .iter()
            .find(|layer| layer.digest.to_string() == name);
        match (rest.starts_with("manifests/"), layer) {
            (true, _) => {
                let digest = image.digest.to_string();
                let mut answer = status(StatusCode::OK, &[("docker-content-digest", &digest)]);
                *answer.body_mut() = image.manifest.clone().into();
                answer
            }
            (false, Some(layer)) => whole(layer.blob.clone()),
            (false, None) => whole(image.config.clone()),
        }
    })
    .await
}

fn mirrored(cx: &Cx, origin: &str, mirrors: Vec<Mirror>) -> Registry {
    let config = RegistryConfig {
        mirrors,
        login: Login::Given(password(PASSWORD)),
        ..quick(origin)
    };
    Registry::new(cx, config).unwrap()
}

fn mirror(host: &str, prefix: &str, tags: bool) -> Mirror {
    Mirror {
        registry: quick(host),
        prefix: prefix.to_owned(),
        tags,
    }
}

async fn pull(cx: &Cx, source: &Registry) {
    let image = source.resolve(&wanted("app", "1")).await.unwrap();
    let found = image.images.first().unwrap();
    for layer in &found.manifest.layers {
        read_verified(cx, source, "app", layer, 1 << 20)
            .await
            .unwrap();
    }
    assert_eq!(found.digest, clean_image().digest);
}

#[tokio::test]
async fn a_mirror_is_asked_first_for_digests_and_the_registry_for_tags() {
    let cx = Cx::for_tests();
    let (origin, copy) = (holder("").await, holder("proxy/").await);
    let source = mirrored(&cx, &origin.host, vec![mirror(&copy.host, "proxy", false)]);
    pull(&cx, &source).await;
    let asked = origin.seen();
    assert_eq!(asked.len(), 1, "one HEAD for the tag: {asked:?}");
    assert_eq!(asked[0].path, "/v2/app/manifests/1");
    assert!(copy.seen().len() > 2);
    assert!(copy.seen().iter().all(|seen| seen.authorization.is_none()));

    let source = mirrored(&cx, &origin.host, vec![mirror(&copy.host, "proxy", true)]);
    let resolved = source.resolve(&wanted("app", "1")).await.unwrap();
    let name = format!("{}/app:1", origin.host);
    assert_eq!(
        resolved.images[0].reference, name,
        "the name is the registry's"
    );
    assert_eq!(origin.seen().len(), 1, "this mirror is asked for tags, too");
}

#[tokio::test]
async fn a_mirror_that_is_down_or_has_nothing_is_passed_over() {
    let cx = Cx::for_tests();
    let (origin, empty) = (holder("").await, holder("elsewhere/").await);
    let down = format!("127.0.0.1:{}", testkit::free_port());
    let mirrors = vec![mirror(&down, "", true), mirror(&empty.host, "", true)];
    let source = mirrored(&cx, &origin.host, mirrors);
    pull(&cx, &source).await;
    assert!(source.inner.endpoint(0).pacer.paused().is_some());
    assert!(
        source.inner.endpoint(1).pacer.paused().is_none(),
        "to have nothing is no failure"
    );
}

#[tokio::test]
async fn a_mirror_that_lies_is_found_out_and_not_asked_again() {
    let cx = Cx::for_tests();
    let content = bytes(100);
    let blob = content.clone();
    let origin = Site::start(move |_, _| {
        let answer = whole(blob.clone());
        async move { answer }
    })
    .await;
    let mut lie = content.clone();
    lie[50] ^= 1;
    for (given, is_seen_at_once) in [(lie, false), (bytes(99), true)] {
        let liar = Site::start(move |_, _| {
            let answer = whole(given.clone());
            async move { answer }
        })
        .await;
        let source = mirrored(&cx, &origin.host, vec![mirror(&liar.host, "", false)]);
        let wanted = descriptor(&content);
        if !is_seen_at_once {
            let error = read_verified(&cx, &source, "app", &wanted, 1 << 20).await;
            let error = error.unwrap_err();
            assert!(
                error.is_transient() && error.to_string().contains(&liar.host),
                "{error}"
            );
        }
        let read = read_verified(&cx, &source, "app", &wanted, 1 << 20)
            .await
            .unwrap();
        assert_eq!(read, content);
        assert_eq!(liar.seen().len(), 1);
        assert!(source.inner.endpoint(0).pacer.paused().unwrap() > Duration::from_secs(500));
    }
}

#[tokio::test]
async fn a_manifest_of_a_mirror_that_differs_is_fetched_from_the_registry() {
    let cx = Cx::for_tests();
    let origin = holder("").await;
    let liar = Site::start(|_, _| async { whole("{}") }).await;
    let source = mirrored(&cx, &origin.host, vec![mirror(&liar.host, "", false)]);
    pull(&cx, &source).await;
    assert_eq!(liar.seen().len(), 1);
}
