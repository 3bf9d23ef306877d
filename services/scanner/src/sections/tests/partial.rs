//! What was read in part is reported and kept nowhere.

use model::GapCode;

use super::{world::Worker, *};

/// Scans an image whose source misbehaves, and again when it does not. Gives the gaps of the first.
async fn check(way: Way, code: GapCode) {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let layer = python_layer(&[("flask", "2.0.0"), ("requests", "2.19.1")]).build();
    let (image, origin) = (image_of(&[&layer]), Origin::of(&[&layer]));
    let worker = fleet.worker().await;
    origin.set(way);
    let partial = soon(worker.scan(&image, &origin)).await.unwrap();
    let gaps = partial.report.gaps;
    assert!(gaps.iter().any(|gap| gap.code == code), "{way:?}: {gaps:?}");
    // So another push of it is scanned again.
    assert!(partial.unfinished, "{way:?}");
    nothing_is_kept(&fleet, worker, &layer).await;
}

/// Neither shared nor in memory nor on the disk; and a source that works gives all.
async fn nothing_is_kept(fleet: &Fleet, worker: Worker, layer: &testkit::Layer) {
    assert!(!is_shared(fleet, layer).await);
    let nothing = |stored: Stored| match stored {
        Stored::Part(known) => {
            known.entries.is_none() && known.sections.iter().all(Option::is_none)
        }
        Stored::Whole(..) => false,
    };
    assert!(nothing(worker.get(layer.digest).await), "in the memory");
    let worker = worker.restarted().await;
    assert!(nothing(worker.get(layer.digest).await), "on the disk");

    let (image, origin) = (image_of(&[layer]), Origin::of(&[layer]));
    let whole = soon(worker.scan(&image, &origin)).await.unwrap();
    assert_eq!((whole.layers_read, whole.report.packages.len()), (1, 2));
    assert_eq!(whole.report.gaps, []);
    assert!(!whole.unfinished);
    assert!(is_shared(fleet, layer).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_goes_away_in_the_middle_of_a_layer_is_asked_again_later() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let layer = python_layer(&[("flask", "2.0.0"), ("requests", "2.19.1")]).build();
    let (image, origin) = (image_of(&[&layer]), Origin::of(&[&layer]));
    let worker = fleet.worker().await;
    origin.set(Way::GoesAway);
    let error = soon(worker.scan(&image, &origin)).await.unwrap_err();
    let ScanError::Source { layer: of, error } = error else {
        panic!("{error}");
    };
    assert!(of == layer.digest && error.is_transient(), "{error}");
    assert_eq!(origin.opened(layer.digest), 1);
    nothing_is_kept(&fleet, worker, &layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_early_is_not_kept() {
    check(Way::CutsOff, GapCode::DigestMismatch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_is_not_kept() {
    check(Way::Breaks, GapCode::LayerUnavailable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_with_another_digest_are_not_kept() {
    check(Way::Lies, GapCode::DigestMismatch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_took_too_long_is_not_kept() {
    check(Way::Stalls, GapCode::LimitTime).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_of_the_content_are_kept_with_it() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    // Cut before it was packed: everybody who reads it finds the same.
    let layer = LayerBuilder::new().file("etc/hostname", "x").without_end();
    let mut tar = layer.tar();
    tar.truncate(tar.len() - 300);
    let diff_id = Digest::of(&tar);
    let layer = testkit::Layer {
        size: tar.len() as u64,
        digest: diff_id,
        diff_id,
        compression: testkit::Compression::Plain,
        media_type: None,
        blob: tar,
    };
    let (image, origin) = (image_of(&[&layer]), Origin::of(&[&layer]));
    let first = soon(fleet.worker().await.scan(&image, &origin))
        .await
        .unwrap();
    assert!(!first.report.gaps.is_empty());
    let second = soon(fleet.worker().await.scan(&image, &origin))
        .await
        .unwrap();
    assert_eq!((second.layers_read, second.report), (0, first.report));
}
