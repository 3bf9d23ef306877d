//! What a revision touches.

use model::Slug;

use super::touched;
use crate::handler::tests::Bench;

#[tokio::test]
async fn a_revision_touches_images_that_hold_what_changed() {
    let bench = Bench::new();
    let (advisories, index) = (
        bench.assessor.advisories.clone(),
        bench.assessor.index.clone(),
    );
    let partition = bench.key.image.partition();
    let find = |from: Option<u64>| {
        let from = from.map(|from| advisories.at_revision(from).unwrap().unwrap());
        touched(
            &advisories,
            &index,
            partition,
            from.as_ref(),
            &advisories.manifest(),
        )
        .unwrap()
        .len()
    };
    bench.advise(&[
        ("CVE-2024-1", "PyPI", "x", "2.0"),
        ("CVE-2024-2", "PyPI", "other", "2.0"),
    ]);
    let (scan, scanned) = bench.scan(&[("x", "1.0")]).await;
    let cause = crate::handler::Cause::Scan;
    let outcome = bench
        .assessor
        .assess(&bench.key, scan, &scanned, cause)
        .await
        .unwrap();
    assert_eq!(outcome.records::<model::Assessed>().len(), 1);
    // An image of another tenant in the same partition, without the package.
    let other = model::RecordKey {
        tenant: "other".parse::<Slug>().unwrap(),
        ..bench.key.clone()
    };
    index.put(&other, crate::index::Indexed::default()).unwrap();
    assert_eq!(find(Some(1)), 0, "nothing changed");
    assert_eq!(find(Some(0)), 1, "the ecosystem is covered now");
    assert_eq!(
        find(None),
        1,
        "only the one that was never assessed at this revision"
    );
    bench.advise(&[
        ("CVE-2024-1", "PyPI", "x", "2.0"),
        ("CVE-2024-2", "PyPI", "other", "3.0"),
    ]);
    assert_eq!(find(Some(1)), 0, "nobody holds the package");
    bench.advise(&[
        ("CVE-2024-1", "PyPI", "x", "3.0"),
        ("CVE-2024-2", "PyPI", "other", "3.0"),
    ]);
    assert_eq!(find(Some(1)), 1, "two revisions later, one holds a package");
    assert_eq!(find(None), 2, "without the old revision, all");
    index.remove(&bench.key).unwrap();
    assert_eq!(find(Some(1)), 0, "it is forgotten");
}

#[tokio::test]
async fn a_package_that_left_an_image_leaves_the_index() {
    let bench = Bench::new();
    for packages in [&[("x", "1.0"), ("y", "1.0")][..], &[("y", "1.0")][..]] {
        let (scan, scanned) = bench.scan(packages).await;
        let cause = crate::handler::Cause::Scan;
        let outcome = bench
            .assessor
            .assess(&bench.key, scan, &scanned, cause)
            .await
            .unwrap();
        assert_eq!(outcome.records::<model::Assessed>().len(), 1);
    }
    let index = &bench.assessor.index;
    let holding = |name: &str| {
        let lookup = vulndb::Lookup {
            ecosystem: "PyPI".to_owned(),
            name: name.to_owned(),
        };
        index
            .holding(bench.key.image.partition(), &lookup)
            .unwrap()
            .len()
    };
    assert_eq!((holding("x"), holding("y")), (0, 1));
    // An older scan that comes late changes nothing.
    index
        .put(&bench.key, crate::index::Indexed::default())
        .unwrap();
    assert_eq!(holding("y"), 1);
}
