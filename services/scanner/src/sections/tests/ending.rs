//! The end of a one-off scan: the disk's part is opened for writing while the image is put together.

use std::path::Path;

use cache::{CacheError, SectionCache};
use chassis::Cx;

use super::world::{Origin, PATIENCE, image_of, scan_with, soon};
use crate::sections::CacheSections;

const ROOM: u64 = 1 << 30;

fn is_held(dir: &Path) -> bool {
    match SectionCache::open(dir, ROOM) {
        Ok(_) => false,
        Err(CacheError::Busy { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_image_alone_holds_the_cache_once_it_is_read() {
    let (cx, dir) = (Cx::for_tests(), testkit::temp_dir());
    let layer = super::base();
    let (image, origin) = (image_of(&[&layer]), Origin::of(&[&layer]));

    let sections = CacheSections::open_shared(cx.clone(), dir.path(), ROOM);
    let scan = soon(scan_with(&cx, &image, &origin, &sections)).await;
    assert_eq!(scan.unwrap().layers_read, 1);
    assert!(cx.finish(PATIENCE).await);
    assert!(!is_held(dir.path()), "another image may take long");

    let sections = CacheSections::open_shared(cx.clone(), dir.path(), ROOM);
    sections.next_is_last();
    origin.hold(layer.digest);
    let scan = scan_with(&cx, &image, &origin, &sections);
    let (scan, ()) = soon(async {
        tokio::join!(scan, async {
            origin.until_opened(layer.digest).await;
            assert!(!is_held(dir.path()), "reading may take long");
            origin.release();
        })
    })
    .await;
    assert_eq!(scan.unwrap().layers_read, 1);
    assert!(cx.finish(PATIENCE).await);
    assert!(is_held(dir.path()));
    assert!(soon(sections.finish()).await.unwrap() > 0);
    assert!(!is_held(dir.path()));

    // All is known, so nothing will be written.
    let sections = CacheSections::open_shared(cx.clone(), dir.path(), ROOM);
    sections.next_is_last();
    let scan = soon(scan_with(&cx, &image, &origin, &sections)).await;
    assert_eq!(scan.unwrap().layers_read, 0);
    assert!(cx.finish(PATIENCE).await);
    assert!(!is_held(dir.path()));
    assert_eq!(soon(sections.finish()).await.unwrap(), 0);
}
