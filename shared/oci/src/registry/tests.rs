//! Against Debian's `docker-registry`, and against servers that misbehave on purpose.

mod answers;
mod documents;
mod fake;
mod lines;
mod mirrors;
mod site;
mod tls;

use std::{io::Read as _, time::Duration};

use chassis::Cx;
use model::GapCode;
use testkit::{
    ImageBuilder, PASSWORD, Poison, RegistryOptions, RegistryServer, StoredBlob, USERNAME,
    clean_image, debian_layer, index,
};

use self::fake::{Fake, Fault};
use super::{
    guard::{Guard, Reach},
    http::{Ask, Http},
    *,
};
use crate::{Platforms, read_verified};

fn registry(cx: &Cx, host: &str, credentials: Option<Credentials>) -> Registry {
    let login = credentials.map_or(Login::Anonymous, Login::Given);
    Registry::new(
        cx,
        RegistryConfig {
            login,
            ..quick(host)
        },
    )
    .unwrap()
}

/// A registry that is tried again soon and not for long.
fn quick(host: &str) -> RegistryConfig {
    RegistryConfig {
        host: host.to_owned(),
        limits: Limits {
            retry_wait: Duration::from_millis(20),
            retry_time_max: Duration::from_secs(5),
            ..Limits::default()
        },
        ..RegistryConfig::default()
    }
}

fn password(password: &str) -> Credentials {
    let password = Secret::from(password.to_owned());
    Credentials::Basic {
        username: USERNAME.to_owned(),
        password,
    }
}

fn wanted(repository: &str, tag: &str) -> Wanted {
    let (repository, tag) = (repository.to_owned(), Some(tag.to_owned()));
    Wanted {
        repository,
        tag,
        ..Wanted::default()
    }
}

async fn read(cx: &Cx, reader: BlobReader) -> std::io::Result<Vec<u8>> {
    let mut reader = reader;
    cx.blocking(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn images_of_a_real_registry_are_resolved_and_read() {
    let Some(server) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    let arm = ImageBuilder::for_platform("linux/arm64")
        .layer(debian_layer(), "ADD")
        .docker();
    let docker = ImageBuilder::new()
        .layer(debian_layer(), "ADD")
        .docker()
        .build();
    let both = index(vec![docker, arm.build()]);
    server.push(&both, "team/app", "1");
    server.push(clean_image(), "team/app", "oci");
    let cx = Cx::for_tests();
    let source = registry(&cx, &server.host(), None);

    let resolved = source.resolve(&wanted("team/app", "1")).await.unwrap();
    assert_eq!(
        (resolved.index, resolved.images.len()),
        (Some(both.digest), 2)
    );
    assert_eq!(resolved.images[1].platform.to_string(), "linux/arm64");
    assert_eq!(
        resolved.images[1].reference,
        format!("{}/team/app:1", server.host())
    );

    server.clear_log();
    let skip_configs = true;
    let light = Wanted {
        skip_configs,
        ..Wanted::by_digest("team/app", clean_image().digest)
    };
    let image = source.resolve(&light).await.unwrap().images.remove(0);
    assert_eq!(server.blob_gets(), []);
    for layer in &image.manifest.layers {
        read_verified(&cx, &source, "team/app", layer, 1 << 20)
            .await
            .unwrap();
    }
    let gets = server.blob_gets();
    assert_eq!(gets.len(), 2, "{}", server.log());
    assert!(
        gets.iter().all(|get| get.user_agent == USER_AGENT),
        "{gets:?}"
    );

    let digest = source.peek("team/app", "oci").await.unwrap();
    assert_eq!(digest, Some(clean_image().digest));
    assert_eq!(source.peek("team/app", "none").await.unwrap(), None);
    assert!(
        source
            .resolve(&wanted("team/app", "none"))
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(cx.finish(Duration::from_secs(5)).await, "no task is left");
}

#[tokio::test]
async fn blobs_come_by_way_of_the_library_where_every_address_is_allowed() {
    let options = RegistryOptions {
        password: true,
        ..RegistryOptions::default()
    };
    let Some(server) = RegistryServer::start(options) else {
        return;
    };
    server.push(clean_image(), "app", "1");
    let cx = Cx::for_tests();
    let config = RegistryConfig {
        allow_private: true,
        login: Login::Given(password(PASSWORD)),
        ..quick(&server.host())
    };
    let source = Registry::new(&cx, config).unwrap();
    let image = source.resolve(&wanted("app", "1")).await.unwrap();
    for layer in &image.images[0].manifest.layers {
        read_verified(&cx, &source, "app", layer, 1 << 20)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_password_is_asked_for_once_and_its_lack_is_explained() {
    let options = RegistryOptions {
        password: true,
        ..RegistryOptions::default()
    };
    let Some(server) = RegistryServer::start(options) else {
        return;
    };
    server.push(clean_image(), "app", "1");
    let cx = Cx::for_tests();
    let source = registry(&cx, &server.host(), Some(password(PASSWORD)));
    let image = source
        .resolve(&wanted("app", "1"))
        .await
        .unwrap()
        .images
        .remove(0);
    let layer = &image.manifest.layers[0];
    read_verified(&cx, &source, "app", layer, 1 << 20)
        .await
        .unwrap();
    // A source that has not resolved anything yet.
    let fresh = registry(&cx, &server.host(), Some(password(PASSWORD)));
    read_verified(&cx, &fresh, "app", layer, 1 << 20)
        .await
        .unwrap();

    let error = registry(&cx, &server.host(), None);
    let error = error.resolve(&wanted("app", "1")).await.unwrap_err();
    assert!(
        error.is_auth() && error.to_string().contains("`docker login 127.0.0.1:"),
        "{error}"
    );
    let error = registry(&cx, &server.host(), Some(password("wrong")));
    let error = error.resolve(&wanted("app", "1")).await.unwrap_err();
    assert!(
        error.is_auth() && error.to_string().contains("these credentials"),
        "{error}"
    );
    assert!(!error.to_string().contains("wrong"), "{error}");
    let error = registry(&cx, &server.host(), None)
        .open_blob("app", layer)
        .await
        .err()
        .unwrap();
    assert!(error.is_auth(), "{error}");
}

#[tokio::test]
async fn lost_and_lying_blobs_of_a_real_registry() {
    let Some(server) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    let image = Poison::ShortBlob.image();
    server.push(&image, "app", "1");
    let cx = Cx::for_tests();
    let source = registry(&cx, &server.host(), None);
    let resolved = source.resolve(&wanted("app", "1")).await.unwrap();
    let layers = &resolved.images[0].manifest.layers;
    let reader = source.open_blob("app", &layers[1]).await.unwrap();
    let bytes = read(&cx, reader).await.unwrap();
    assert_eq!(
        bytes, image.layers[1].blob,
        "a short blob ends as if it were whole"
    );
    let announced = Descriptor {
        size: 7,
        ..layers[0].clone()
    };
    let reader = source.open_blob("app", &announced).await.unwrap();
    assert_eq!(
        read(&cx, reader).await.unwrap().len(),
        8,
        "a long blob shows"
    );

    server.lose_blob(layers[0].digest);
    let lost = Descriptor {
        digest: Digest::of(b"never there"),
        ..layers[0].clone()
    };
    let error = source.open_blob("app", &lost).await.err().unwrap();
    assert!(error.is_not_found(), "{error}");
    let media_type = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".to_owned();
    let foreign = Descriptor { media_type, ..lost };
    let error = source.open_blob("app", &foreign).await.err().unwrap();
    assert!(matches!(error, OciError::Unsupported { .. }), "{error}");

    server.push(Poison::BrokenConfig.image(), "app", "2");
    let resolved = source.resolve(&wanted("app", "2")).await.unwrap();
    assert_eq!(resolved.images[0].gaps[0].code, GapCode::BadConfig);
    let config = Descriptor {
        digest: Digest::of(b"x"),
        size: 3,
        media_type: String::new(),
    };
    server.plant_blob(
        "app",
        &StoredBlob {
            digest: config.digest,
            bytes: b"abc".to_vec(),
        },
    );
    let error = read_verified(&cx, &source, "app", &config, 100)
        .await
        .unwrap_err();
    assert!(matches!(error, OciError::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn tokens_are_fetched_once_and_again_when_they_end() {
    let fake = Fake::start(&clean_image(), Fault::None).await;
    let cx = Cx::for_tests();
    let source = registry(&cx, &fake.host, Some(password(PASSWORD)));
    let image = source
        .resolve(&wanted("app", "1"))
        .await
        .unwrap()
        .images
        .remove(0);
    for layer in &image.manifest.layers {
        read_verified(&cx, &source, "app", layer, 1 << 20)
            .await
            .unwrap();
    }
    assert_eq!(fake.tokens(), 1);
    assert_eq!(fake.scopes(), ["repository:app:pull"]);
    fake.revoke();
    read_verified(&cx, &source, "app", &image.manifest.layers[0], 1 << 20)
        .await
        .unwrap();
    source.resolve(&wanted("app", "1")).await.unwrap();
    assert_eq!(fake.tokens(), 2);
    let token = Secret::from("refresh".to_owned());
    let source = registry(&cx, &fake.host, Some(Credentials::IdentityToken(token)));
    source.resolve(&wanted("app", "1")).await.unwrap();
    let error = registry(&cx, &fake.host, Some(password("wrong")));
    let error = error.resolve(&wanted("app", "1")).await.unwrap_err();
    assert!(error.is_auth(), "{error}");
    fake.stop().await;
}

#[tokio::test]
async fn a_broken_blob_is_taken_up_where_it_broke() {
    for fault in [Fault::BreaksBlobs, Fault::BreaksBlobsIgnoresRanges] {
        let fake = Fake::start(&clean_image(), fault).await;
        let cx = Cx::for_tests();
        let source = registry(&cx, &fake.host, Some(password(PASSWORD)));
        let image = source
            .resolve(&wanted("app", "1"))
            .await
            .unwrap()
            .images
            .remove(0);
        let layer = &image.manifest.layers[0];
        read_verified(&cx, &source, "app", layer, 1 << 20)
            .await
            .unwrap();
        assert!(fake.blob_gets() > 1);
        fake.stop().await;
    }
}

#[tokio::test]
async fn a_registry_that_never_lets_a_blob_pass_ends_in_a_transient_error() {
    let fake = Fake::start(&clean_image(), Fault::NoBlobs).await;
    let cx = Cx::for_tests();
    let source = registry(&cx, &fake.host, Some(password(PASSWORD)));
    let image = source.resolve(&wanted("app", "1")).await;
    let error = image.unwrap_err();
    assert!(error.is_transient(), "{error}");
    fake.stop().await;
}

#[tokio::test]
async fn hostile_answers_have_names() {
    let cx = Cx::for_tests();
    for (fault, expected) in [
        (Fault::EndlessManifest, "is larger than 4194304 bytes"),
        (Fault::EndlessToken, "is larger than 65536 bytes"),
        (Fault::RedirectsForever, "there are too many"),
        (Fault::WrongDigest, "where `sha256:"),
        (Fault::TooManyRequests, "it asks to wait 7 s"),
        (Fault::Unwell, "502 Bad Gateway"),
        (Fault::HtmlManifest, "is malformed"),
        (Fault::SecretsElsewhere, "refuses access to `app`"),
    ] {
        let fake = Fake::start(&clean_image(), fault).await;
        let source = registry(&cx, &fake.host, Some(password(PASSWORD)));
        let error = source.resolve(&wanted("app", "1")).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{fault:?}: {error}");
        let transient = matches!(fault, Fault::TooManyRequests | Fault::Unwell);
        assert_eq!(error.is_transient(), transient, "{fault:?}: {error}");
        if fault == Fault::TooManyRequests {
            assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        }
        fake.stop().await;
    }
}

#[tokio::test]
async fn private_addresses_are_not_contacted_unless_the_source_may() {
    let cx = Cx::for_tests();
    // 192.0.2.0/24 is documentation: nothing answers there, and it is not public.
    let host = "192.0.2.1:5000".to_owned();
    let config = RegistryConfig {
        host,
        plain_http: true,
        ..RegistryConfig::default()
    };
    let source = Registry::new(&cx, config).unwrap();
    let error = source.resolve(&wanted("app", "1")).await.unwrap_err();
    assert!(matches!(error, OciError::PrivateAddress { .. }), "{error}");
    let blob = Descriptor {
        digest: Digest::of(b""),
        size: 1,
        media_type: String::new(),
    };
    let error = source.open_blob("app", &blob).await.err().unwrap();
    assert!(matches!(error, OciError::PrivateAddress { .. }), "{error}");

    // A name that leads to a private address, and a redirect that does.
    let guard = Guard {
        reach: Reach::Public,
    };
    let http = Http::new(
        &quick("localhost:1"),
        "http://localhost:1/".parse().unwrap(),
        guard,
    )
    .unwrap();
    let ask = Ask::new(Method::GET, "http://localhost:1/".parse().unwrap());
    let error = http.send(&ask).await.err().unwrap();
    assert!(matches!(error, OciError::PrivateAddress { .. }), "{error}");
}

#[tokio::test]
async fn names_cannot_lead_out_of_their_place() {
    let cx = Cx::for_tests();
    let source = registry(&cx, "127.0.0.1:1", None);
    for (repository, tag) in [
        ("../../etc", "1"),
        ("a//b", "1"),
        ("a", "../blobs"),
        ("a?x=1", "1"),
        ("a", "1#x"),
        ("", "1"),
        ("a b", "1"),
    ] {
        let error = source.resolve(&wanted(repository, tag)).await.unwrap_err();
        assert!(
            matches!(error, OciError::Malformed { .. }),
            "{repository}:{tag}: {error}"
        );
    }
    for host in ["user@host", "host/path", "host?x", ""] {
        let config = RegistryConfig {
            host: host.to_owned(),
            ..RegistryConfig::default()
        };
        assert!(Registry::new(&cx, config).is_err(), "{host}");
    }
    let error = source.resolve(&wanted("a", "1")).await.unwrap_err();
    assert!(error.is_transient(), "nobody listens: {error}");
}

#[tokio::test]
async fn a_real_layout_of_many_platforms_is_resolved() {
    let Some(data) = chassis::config::env_var("TIDEWAITER_TEST_DATA") else {
        eprintln!("skipped: TIDEWAITER_TEST_DATA is not set");
        return;
    };
    let cx = Cx::for_tests();
    let dir = std::path::Path::new(&data).join("images/alpine-3.19-multiarch");
    let source = crate::OciLayout::open(&cx, &dir).await.unwrap();
    let resolved = source.resolve(&Wanted::default()).await.unwrap();
    assert!(resolved.images.len() > 2 && resolved.unreadable.is_empty());
    for image in &resolved.images {
        assert_eq!(image.gaps, [], "{}", image.platform);
        assert_eq!(image.config.diff_ids.len(), image.manifest.layers.len());
    }
    let arm = Platforms::Only("linux/arm64".parse().unwrap());
    let one = Wanted {
        platforms: arm,
        ..Wanted::default()
    };
    assert_eq!(source.resolve(&one).await.unwrap().images.len(), 1);
}
