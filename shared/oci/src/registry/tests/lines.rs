//! Bad lines, busy registries, and servers that lead elsewhere.

use axum::http::StatusCode;
use chassis::{CxLimits, FixedClock, SecretRef};
use futures::future::join_all;
use jiff::SignedDuration;

use super::{
    site::{Site, bytes, descriptor, part, status, whole},
    *,
};

async fn fetch(cx: &Cx, source: &Registry, blob: &Descriptor) -> Result<Vec<u8>, OciError> {
    read_verified(cx, source, "app", blob, 1 << 20).await
}

#[tokio::test]
async fn a_blob_that_is_cut_goes_on_where_it_was_cut() {
    let cx = Cx::for_tests();
    let content = bytes(20_000);
    let end = content.len();
    for cuts in [
        vec![0],
        vec![1],
        vec![end / 2],
        vec![end - 1],
        vec![1000, 40_000],
        vec![10, 10, 50_000],
    ] {
        let (blob, stops) = (content.clone(), cuts.clone());
        let site = Site::start(move |seen, number| {
            let cut = stops.get(number).copied().unwrap_or(usize::MAX);
            let answer = part(&blob, seen.from, cut.min(blob.len()));
            async move { answer }
        })
        .await;
        let source = registry(&cx, &site.host, None);
        let read = fetch(&cx, &source, &descriptor(&content)).await.unwrap();
        assert_eq!(read, content);
        let expected: Vec<_> = std::iter::once(0).chain(cuts).collect();
        assert_eq!(site.ranges(), expected);
    }
}

#[tokio::test]
async fn a_range_that_is_ignored_or_wrong_is_never_taken_for_the_right_one() {
    let cx = Cx::for_tests();
    let content = bytes(5000);
    for wrong in [false, true] {
        let blob = content.clone();
        let site = Site::start(move |seen, number| {
            let answer = match (number, seen.from) {
                (0, _) => part(&blob, None, 7000),
                (_, Some(_)) if wrong => part(&blob, Some(100), blob.len()),
                _ => whole(blob.clone()),
            };
            async move { answer }
        })
        .await;
        let source = registry(&cx, &site.host, None);
        let read = fetch(&cx, &source, &descriptor(&content)).await.unwrap();
        assert_eq!(read, content, "wrong range: {wrong}");
        assert_eq!(site.seen().len(), if wrong { 3 } else { 2 });
    }
}

#[tokio::test]
async fn a_line_that_is_always_cut_is_given_up_after_a_bounded_number_of_tries() {
    let cx = Cx::for_tests();
    let content = bytes(5000);
    let blob = content.clone();
    let site = Site::start(move |seen, _| {
        let next = seen.from.unwrap_or(0) + 1;
        let answer = part(&blob, seen.from, next);
        async move { answer }
    })
    .await;
    let source = registry(&cx, &site.host, None);
    let error = fetch(&cx, &source, &descriptor(&content))
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(site.ranges(), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn what_the_registry_asks_to_wait_is_waited_by_all_or_told_to_the_caller() {
    let content = bytes(10);
    let (cx, blob) = (Cx::for_tests(), content.clone());
    let site = Site::start(move |_, number| {
        let soon = (Cx::for_tests().now() + SignedDuration::from_secs(2))
            .strftime("%a, %d %b %Y %H:%M:%S GMT")
            .to_string();
        let answer = match number {
            0 => status(StatusCode::TOO_MANY_REQUESTS, &[("retry-after", "1")]),
            1 => status(StatusCode::SERVICE_UNAVAILABLE, &[("retry-after", &soon)]),
            2 | 3 => whole(blob.clone()),
            _ => status(StatusCode::TOO_MANY_REQUESTS, &[("retry-after", "600")]),
        };
        async move { answer }
    })
    .await;
    let source = registry(&cx, &site.host, None);
    let wanted = descriptor(&content);
    let start = std::time::Instant::now();
    fetch(&cx, &source, &wanted).await.unwrap();
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "1 s, then until a date"
    );
    fetch(&cx, &source, &wanted).await.unwrap();
    for _ in 0..3 {
        let error = fetch(&cx, &source, &wanted).await.unwrap_err();
        let asked = error.retry_after().unwrap().as_secs();
        assert!(
            error.is_transient() && (590..=600).contains(&asked),
            "{error}"
        );
    }
    assert_eq!(
        site.seen().len(),
        5,
        "who comes during the pause is not sent on"
    );
}

#[tokio::test]
async fn all_images_of_a_source_share_its_connections() {
    let cx = Cx::for_tests();
    let content = bytes(1000);
    let blob = content.clone();
    let site = Site::start(move |_, _| {
        let answer = whole(blob.clone());
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer
        }
    })
    .await;
    let pace = Pace {
        connections_max: 2,
        ..Pace::default()
    };
    let config = RegistryConfig {
        pace,
        ..quick(&site.host)
    };
    let source = Registry::new(&cx, config).unwrap();
    let blob = descriptor(&content);
    let reads = (0..4).flat_map(|_| {
        ["one", "two"].map(|image| read_verified(&cx, &source, image, &blob, 1 << 20))
    });
    for read in join_all(reads).await {
        read.unwrap();
    }
    assert_eq!((site.seen().len(), site.busy_max()), (8, 2));
}

#[tokio::test]
async fn a_token_is_fetched_once_for_all_and_renewed_before_it_ends() {
    let clock = Arc::new(FixedClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let limits = CxLimits {
        compute_threads: 2,
        blocking_threads: 16,
    };
    let cx = Cx::new(Arc::clone(&clock) as _, limits);
    let fake = Fake::start(&clean_image(), Fault::None).await;
    let source = registry(&cx, &fake.host, Some(password(PASSWORD)));
    let wanted = wanted("app", "1");
    let resolve = async || {
        let all = join_all((0..8).map(|_| source.resolve(&wanted))).await;
        assert!(all.iter().all(Result::is_ok));
    };
    resolve().await;
    assert_eq!(fake.tokens(), 1, "8 waited for one login");
    clock.advance(SignedDuration::from_secs(280));
    resolve().await;
    assert_eq!(fake.tokens(), 1, "it holds for 300 s");
    clock.advance(SignedDuration::from_secs(15));
    resolve().await;
    assert_eq!(fake.tokens(), 2, "its end is near");
    fake.stop().await;
}

#[tokio::test]
async fn a_password_that_was_exchanged_is_picked_up() {
    let site = Site::start(|seen, number| async move {
        // `u:one` first, `u:two` from the fourth request on.
        let good = if number < 3 {
            "Basic dTpvbmU="
        } else {
            "Basic dTp0d28="
        };
        if seen.authorization.as_deref() == Some(good) {
            whole(vec![1, 2, 3])
        } else {
            status(StatusCode::UNAUTHORIZED, &[("www-authenticate", "Basic")])
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "one\n").unwrap();
    let cx = Cx::for_tests();
    let login = Login::Password {
        username: "u".to_owned(),
        password: SecretRef::File(file.clone()),
    };
    let config = RegistryConfig {
        login,
        ..quick(&site.host)
    };
    let source = Registry::new(&cx, config).unwrap();
    let blob = descriptor(&[1, 2, 3]);
    fetch(&cx, &source, &blob).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    fetch(&cx, &source, &blob).await.unwrap();
    std::fs::write(&file, "two\n").unwrap();
    let error = fetch(&cx, &source, &blob).await.unwrap_err();
    assert!(error.is_auth(), "looked up a moment ago: {error}");
    // Another process, or this one ten seconds later.
    let login = Login::Password {
        username: "u".to_owned(),
        password: SecretRef::File(file),
    };
    let config = RegistryConfig {
        login,
        ..quick(&site.host)
    };
    let source = Registry::new(&cx, config).unwrap();
    fetch(&cx, &source, &blob).await.unwrap();
}

#[tokio::test]
async fn neither_redirects_nor_token_servers_lead_inside() {
    let cx = Cx::for_tests();
    for target in [
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
    ] {
        for realm in [false, true] {
            let site = Site::start(move |_, _| async move {
                if realm {
                    let challenge = format!("Bearer realm=\"{target}\"");
                    let challenge = [("www-authenticate", challenge.as_str())];
                    status(StatusCode::UNAUTHORIZED, &challenge)
                } else {
                    status(StatusCode::TEMPORARY_REDIRECT, &[("location", target)])
                }
            })
            .await;
            let source = registry(&cx, &site.host, Some(password(PASSWORD)));
            let blob = fetch(&cx, &source, &descriptor(b"x")).await.unwrap_err();
            let tag = source.resolve(&wanted("app", "1")).await.unwrap_err();
            for error in [blob, tag] {
                assert!(
                    matches!(error, OciError::PrivateAddress { .. }),
                    "{target}: {error}"
                );
                assert!(error.to_string().contains("`allow_private`"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_origin() {
    let cx = Cx::for_tests();
    let content = bytes(100);
    let blob = content.clone();
    let other = Site::start(move |_, _| {
        let answer = whole(blob.clone());
        async move { answer }
    })
    .await;
    let target = format!("http://{}/signed?x=1", other.host);
    let site = Site::start(move |seen, _| {
        let answer = if seen.authorization.is_some() {
            status(StatusCode::TEMPORARY_REDIRECT, &[("location", &target)])
        } else {
            status(StatusCode::UNAUTHORIZED, &[("www-authenticate", "Basic")])
        };
        async move { answer }
    })
    .await;
    let source = registry(&cx, &site.host, Some(password(PASSWORD)));
    fetch(&cx, &source, &descriptor(&content)).await.unwrap();
    let seen = other.seen();
    assert_eq!((seen.len(), seen[0].path.as_str()), (1, "/signed"));
    assert_eq!(seen[0].authorization, None);
    assert!(site.seen()[1].authorization.is_some());
}
