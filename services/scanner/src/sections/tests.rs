mod broker;
mod ending;
mod partial;
mod world;

use bus::StoreError;
use model::{Gap, event::LAYER_OBJECTS};
use testkit::{LayerBuilder, debian_layer, python_layer};

use self::world::{Fleet, Origin, Way, image_of, soon, wanted};
use super::*;
use crate::scan::ScanError;

fn base() -> testkit::Layer {
    debian_layer()
}

/// Whether a layer's object is there, whole and unharmed.
async fn is_shared(fleet: &Fleet, layer: &testkit::Layer) -> bool {
    let (store, name) = (fleet.bus.store(), wanted().name(layer.digest));
    let named = store.named(LAYER_OBJECTS, &name, 1 << 30).await;
    named.unwrap().is_some()
}

fn hidden(gaps: &[Gap]) -> usize {
    gaps.iter().filter(|gap| gap.layer.is_some()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_read_once_however_many_images_and_workers_want_it_at_once() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let (one, two) = (fleet.worker().await, fleet.worker().await);
    let base = base();
    let origin = Origin::of(&[&base]);
    origin.hold(base.digest);
    let tops: Vec<_> = (0..8)
        .map(|n| python_layer(&[("flask", &format!("2.0.{n}"))]).build())
        .collect();
    let images: Vec<_> = tops.iter().map(|top| image_of(&[&base, top])).collect();
    for top in &tops {
        origin.add(top);
    }
    let scans = images.iter().enumerate().map(|(n, image)| {
        let worker = if n % 2 == 0 { &one } else { &two };
        worker.scan(image, &origin)
    });
    let scans = futures::future::join_all(scans);
    let (scans, ()) = soon(async {
        tokio::join!(scans, async {
            origin.until_opened(base.digest).await;
            origin.release();
        })
    })
    .await;
    for scan in scans {
        let report = scan.unwrap().report;
        assert_eq!(hidden(&report.gaps), 0, "{:?}", report.gaps);
        assert!(
            report
                .packages
                .iter()
                .any(|package| package.name == "flask")
        );
        assert!(report.packages.len() > 1);
    }
    assert_eq!(origin.opened(base.digest), 1);
    for top in &tops {
        assert_eq!(origin.opened(top.digest), 1);
    }
    // A third worker, later, reads nothing at all.
    let three = fleet.worker().await;
    for image in &images {
        let scan = soon(three.scan(image, &origin)).await.unwrap();
        assert_eq!(scan.layers_read, 0);
    }
    assert_eq!(origin.all_opened(), 1 + tops.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_layer_is_read_once_by_each_worker_and_costs_the_broker_nothing() {
    let Some(mut fleet) = Fleet::start().await else {
        return;
    };
    let base = base();
    fleet.shared_layer_bytes_min = base.size + 1;
    let (one, two) = (fleet.worker().await, fleet.worker().await);
    let (image, origin) = (image_of(&[&base]), Origin::of(&[&base]));
    origin.hold(base.digest);
    let scans = [&one, &one, &two, &two].map(|worker| worker.scan(&image, &origin));
    let (scans, ()) = soon(Box::pin(async {
        tokio::join!(futures::future::join_all(scans), async {
            origin.until_opened(base.digest).await;
            let lease = LeasedSections::lease_name(base.digest, &wanted());
            let store = fleet.bus.store();
            assert!(!store.exists(model::event::LEASES, &lease).await.unwrap());
            origin.release();
        })
    }))
    .await;
    let read: u32 = scans
        .into_iter()
        .map(|scan| scan.unwrap().layers_read)
        .sum();
    assert_eq!((read, origin.opened(base.digest)), (2, 2));
    assert!(!is_shared(&fleet, &base).await);
    fleet.shared_layer_bytes_min -= 1;
    let three = fleet.worker().await;
    soon(three.scan(&image, &origin)).await.unwrap();
    assert!(is_shared(&fleet, &base).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_layer_comes_from_makes_no_difference_to_the_report() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let (one, two) = (fleet.worker().await, fleet.worker().await);
    let layers = [base(), python_layer(&[("requests", "2.19.1")]).build()];
    let [below, above] = &layers;
    let (image, origin) = (image_of(&[below, above]), Origin::of(&[below, above]));
    let read = soon(one.scan(&image, &origin)).await.unwrap();
    assert_eq!(read.layers_read, 2);
    let shared = soon(two.scan(&image, &origin)).await.unwrap();
    let tier = async |worker: &world::Worker| match worker.get(below.digest).await {
        Stored::Whole(_, tier) => Some(tier),
        Stored::Part(_) => None,
    };
    assert_eq!(tier(&two).await, Some(Tier::Memory));
    let two = two.restarted().await;
    assert_eq!(tier(&two).await, Some(Tier::Disk));
    let disk = soon(two.scan(&image, &origin)).await.unwrap();
    for scan in [&shared, &disk] {
        assert_eq!(scan.layers_read, 0);
        assert_eq!(scan.report, read.report);
    }
    assert_eq!(tier(&fleet.worker().await).await, Some(Tier::Shared));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_holder_dies_the_layer_is_read_once_more_after_the_lease_has_expired() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let base = base();
    let (image, origin) = (image_of(&[&base]), Origin::of(&[&base]));
    let lease = fleet.die_holding(&wanted(), base.digest);
    assert!(
        fleet
            .bus
            .store()
            .exists(model::event::LEASES, &lease)
            .await
            .unwrap()
    );
    let (one, two) = (fleet.worker().await, fleet.worker().await);
    let (first, second) =
        soon(async { tokio::join!(one.scan(&image, &origin), two.scan(&image, &origin)) }).await;
    let read = first.unwrap().layers_read + second.unwrap().layers_read;
    assert_eq!((read, origin.opened(base.digest)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_a_miss_that_is_counted_and_healed() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let base = base();
    let other = python_layer(&[("flask", "2.0.0")]).build();
    let (image, origin) = (image_of(&[&base]), Origin::of(&[&base, &other]));
    let one = fleet.worker().await;
    let healthy = soon(one.scan(&image, &origin)).await.unwrap();
    soon(one.scan(&image_of(&[&other]), &origin)).await.unwrap();
    let store = fleet.bus.store();
    let (name, others) = (wanted().name(base.digest), wanted().name(other.digest));
    let of_other = store
        .named(LAYER_OBJECTS, &others, 1 << 30)
        .await
        .unwrap()
        .unwrap();
    let mut broken = store
        .named(LAYER_OBJECTS, &name, 1 << 30)
        .await
        .unwrap()
        .unwrap()
        .to_vec();
    broken.truncate(broken.len() / 2);
    for (reads, bytes) in [(2, b"junk".to_vec()), (3, broken), (4, of_other.to_vec())] {
        store
            .put_named(LAYER_OBJECTS, &name, bytes.into())
            .await
            .unwrap();
        let worker = fleet.worker().await;
        let scan = soon(worker.scan(&image, &origin)).await.unwrap();
        assert_eq!(scan.report, healthy.report);
        assert_eq!(origin.opened(base.digest), reads);
        assert!(worker.sections.corrupt() > 0);
        let healed = fleet.worker().await;
        assert_eq!(
            soon(healed.scan(&image, &origin))
                .await
                .unwrap()
                .layers_read,
            0
        );
        assert_eq!(healed.sections.corrupt(), 0);
    }
    // A chunk that is not what its header says, as the broker's disk may give it back.
    fleet.publish_raw(
        &format!("tw.obj.{LAYER_OBJECTS}.{}.0", name.hex()),
        b"rotten",
    );
    let worker = fleet.worker().await;
    let read = store.named(LAYER_OBJECTS, &name, 1 << 30).await;
    assert!(
        matches!(read, Err(StoreError::Malformed { .. })),
        "{read:?}"
    );
    assert_eq!(
        soon(worker.scan(&image, &origin)).await.unwrap().report,
        healthy.report
    );
    assert!(worker.sections.corrupt() > 0 && is_shared(&fleet, &base).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_evicted_is_read_again_and_shared_again() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let base = base();
    let (image, origin) = (image_of(&[&base]), Origin::of(&[&base]));
    soon(fleet.worker().await.scan(&image, &origin))
        .await
        .unwrap();
    let store = fleet.bus.store();
    let name = wanted().name(base.digest);
    store.delete_object(LAYER_OBJECTS, &name).await.unwrap();
    let scan = soon(fleet.worker().await.scan(&image, &origin))
        .await
        .unwrap();
    assert_eq!(scan.layers_read, 1);
    assert!(is_shared(&fleet, &base).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_refuses_fails_its_own_image_and_no_other() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    for way in [Way::Refuses, Way::DoesNotHaveIt, Way::IsAway] {
        let layer = LayerBuilder::new().file("etc/os-release", format!("ID=x\n# {way:?}"));
        let layer = layer.build();
        let image = image_of(&[&layer]);
        let (bad, good) = (Origin::of(&[&layer]), Origin::of(&[&layer]));
        bad.set(way);
        bad.hold(layer.digest);
        let (one, two) = (fleet.worker().await, fleet.worker().await);
        let same = fleet.worker().await;
        let refused = one.scan(&image, &bad);
        let others = async {
            bad.until_opened(layer.digest).await;
            let release = async {
                // The others wait for who holds the lease.
                two.until_waiting().await;
                bad.release();
            };
            tokio::join!(two.scan(&image, &good), same.scan(&image, &good), release)
        };
        let (refused, (first, second, ())) =
            soon(Box::pin(async { tokio::join!(refused, others) })).await;
        for scan in [first, second] {
            let report = scan.unwrap().report;
            assert_eq!(report.gaps, [], "{way:?}");
            assert_eq!(report.target.os.map(|os| os.id).as_deref(), Some("x"));
        }
        assert_eq!(
            (bad.opened(layer.digest), good.opened(layer.digest)),
            (1, 1),
            "{way:?}"
        );
        match way {
            Way::IsAway => assert!(matches!(refused, Err(ScanError::Source { .. }))),
            _ => assert_eq!(hidden(&refused.unwrap().report.gaps), 1),
        }
        // The one that refuses now gets it from the fleet.
        let again = soon(one.scan(&image, &bad)).await.unwrap();
        assert_eq!(again.report.gaps, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_another_worker_holds_no_permit() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let (base, other) = (base(), python_layer(&[("flask", "2.0.0")]).build());
    let origin = Origin::of(&[&base, &other]);
    let lease = LeasedSections::lease_name(base.digest, &wanted());
    let cx = Cx::for_tests();
    let held = fleet.bus.lease(&cx, &lease).await.unwrap().unwrap();
    // This worker reads one layer at a time.
    let worker = fleet.worker().await;
    let (waiting, beside) = (image_of(&[&base]), image_of(&[&other]));
    let release = async {
        let beside = worker.scan(&beside, &origin).await.unwrap();
        assert_eq!((beside.layers_read, origin.opened(base.digest)), (1, 0));
        held.release().await;
    };
    let (waited, ()) = soon(Box::pin(async {
        tokio::join!(worker.scan(&waiting, &origin), release)
    }))
    .await;
    assert_eq!(waited.unwrap().layers_read, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_set_of_analyzers_is_another_reading_and_another_lease() {
    let all = wanted();
    let mut ids = all.analyzers.clone();
    ids[0].version += 1;
    let newer = Wanted::new(all.domain.clone(), all.entries.clone(), ids);
    let fenced = Wanted::new(
        "other".parse().unwrap(),
        all.entries.clone(),
        all.analyzers.clone(),
    );
    let blob = Digest::of(b"layer");
    for other in [newer, fenced] {
        assert_ne!(other.name(blob), all.name(blob));
        let (a, b) = (
            LeasedSections::lease_name(blob, &other),
            LeasedSections::lease_name(blob, &all),
        );
        assert_ne!(a, b);
        assert!(a.starts_with(&format!("layer.{}.", blob.hex())));
    }
}

#[tokio::test]
async fn a_full_disk_makes_the_cache_a_pass_through_with_a_note() {
    let dir = testkit::temp_dir();
    // A file where the folder should be fails as a full disk does, for root as well.
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let cx = Cx::for_tests();
    let cache = SectionCache::open_or_without(&file.join("cache"), 1 << 20).unwrap();
    let sections = CacheSections::new(cx.clone(), Arc::new(cache), 0);
    let base = base();
    let (image, origin) = (image_of(&[&base]), Origin::of(&[&base]));
    for reads in 1..3 {
        let scan = world::scan_with(&cx, &image, &origin, &sections)
            .await
            .unwrap();
        assert_eq!((scan.layers_read, origin.opened(base.digest)), (1, reads));
        assert!(scan.report.packages.len() > 1);
    }
    let notes = cx.notes().all();
    assert!(
        notes["layer cache on disk"].starts_with("does without: "),
        "{notes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn full_places_say_so_and_go_on() {
    let Some(mut fleet) = Fleet::start_with(|config| config.layers_bytes_max = 100_000).await
    else {
        return;
    };
    fleet.cache_bytes_max = 100_000;
    let worker = fleet.worker().await;
    worker.sections.check().await;
    assert_eq!(worker.cx.notes().all().len(), 0);
    let mut layers = Vec::new();
    for n in 0..60 {
        let files = (0..40).map(|file| Digest::of(format!("{n} {file}").as_bytes()).hex());
        let layer = files.fold(LayerBuilder::new(), |layer, name| layer.file(&name, "x"));
        layers.push(layer.build());
    }
    for layer in &layers {
        let origin = Origin::of(&[layer]);
        assert_eq!(
            soon(worker.scan(&image_of(&[layer]), &origin))
                .await
                .unwrap()
                .layers_read,
            1
        );
        assert!(is_shared(&fleet, layer).await);
    }
    worker.sections.check().await;
    let notes = worker.cx.notes().all();
    for name in ["layer cache on disk", "layer cache of the fleet"] {
        let note = notes.get(name).map(String::as_str).unwrap_or_default();
        assert!(note.starts_with("full: "), "{name}: {notes:?}");
    }
    let fresh = fleet.worker().await;
    assert!(
        matches!(fresh.get(layers[0].digest).await, Stored::Part(_)),
        "the oldest is gone"
    );
    assert!(matches!(
        fresh.get(layers[59].digest).await,
        Stored::Whole(_, Tier::Shared)
    ));
}
