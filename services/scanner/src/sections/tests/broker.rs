//! What a broker that is away does to scans: nothing.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_scans_go_on_and_health_says_so() {
    let Some(mut fleet) = Fleet::start().await else {
        return;
    };
    let worker = fleet.worker().await;
    let layers: Vec<_> = (0..3)
        .map(|n| python_layer(&[("flask", &format!("1.0.{n}"))]).build())
        .collect();
    fleet.server.kill();
    for layer in &layers {
        let origin = Origin::of(&[layer]);
        let image = image_of(&[layer]);
        for layers_read in [1, 0] {
            let scan = soon(worker.scan(&image, &origin)).await.unwrap();
            assert_eq!(
                (scan.layers_read, scan.report.packages.len()),
                (layers_read, 1)
            );
            assert_eq!(scan.report.gaps, []);
        }
    }
    let notes = worker.cx.notes().all();
    assert!(
        notes["layer cache of the fleet"].starts_with("does without: "),
        "{notes:?}"
    );
    fleet.server.restart();
    let base = base();
    let origin = Origin::of(&[&base]);
    soon(async {
        loop {
            // Which images come is not up to the scanner; each asks for a layer again.
            worker.get(base.digest).await;
            if worker.cx.notes().all().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    soon(worker.scan(&image_of(&[&base]), &origin))
        .await
        .unwrap();
    assert!(is_shared(&fleet, &base).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_lost_while_the_layer_is_read_does_no_harm() {
    let Some(mut fleet) = Fleet::start().await else {
        return;
    };
    let (one, two) = (fleet.worker().await, fleet.worker().await);
    let base = base();
    let image = image_of(&[&base]);
    let (slow, fast) = (Origin::of(&[&base]), Origin::of(&[&base]));
    slow.hold(base.digest);
    let lease = LeasedSections::lease_name(base.digest, &wanted());
    let away = async {
        slow.until_opened(base.digest).await;
        fleet.server.kill();
        tokio::time::sleep(Duration::from_millis(world::LEASE_MS + 500)).await;
        fleet.server.restart();
        // The lease is gone, and another worker reads the layer as well.
        let scan = two.scan(&image, &fast).await.unwrap();
        assert_eq!(scan.layers_read, 1, "{lease}");
        slow.release();
        scan
    };
    let (first, second) = soon(Box::pin(async {
        tokio::join!(one.scan(&image, &slow), away)
    }))
    .await;
    assert_eq!(first.unwrap().report, second.report);
    // Whoever came while the connection was being made again may not have shared it. Who comes
    // next does.
    let third = soon(fleet.worker().await.scan(&image, &fast))
        .await
        .unwrap();
    assert_eq!(third.report, second.report);
    assert!(is_shared(&fleet, &base).await);
    let scan = soon(fleet.worker().await.scan(&image, &fast))
        .await
        .unwrap();
    assert_eq!(scan.layers_read, 0);
}
