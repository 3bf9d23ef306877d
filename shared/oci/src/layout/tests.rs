use std::io::Read as _;

use chassis::files::read_bounded;
use testkit::{Artifact, ImageBuilder, Poison, clean_image, debian_layer, index, temp_dir};

use super::*;
use crate::{Location, Opening, open, read_verified};

fn tagged(tag: &str) -> Wanted {
    Wanted {
        tag: Some(tag.to_owned()),
        ..Wanted::default()
    }
}

#[tokio::test]
async fn a_layout_leads_to_its_images_and_their_layers() {
    let (cx, dir) = (Cx::for_tests(), temp_dir());
    let arm = ImageBuilder::for_platform("linux/arm64")
        .layer(debian_layer(), "ADD")
        .build();
    let both = index(vec![clean_image(), arm]);
    Artifact::from(&both).write_layout(dir.path(), "both");
    Artifact::from(clean_image()).write_layout(dir.path(), "one");
    let location = Location::parse(&format!("oci:{}:both", dir.path().display())).unwrap();
    let opened = open(&cx, &location, &Opening::default()).await.unwrap();
    let source = opened.source;
    let resolved = source.resolve(&opened.wanted).await.unwrap();
    assert_eq!(
        (resolved.index, resolved.images.len()),
        (Some(both.digest), 2)
    );
    let image = &resolved.images[0];
    assert_eq!(image.digest, clean_image().digest);
    assert_eq!(
        image.reference,
        format!("oci:{}:both", dir.path().display())
    );
    assert_eq!(image.config.diff_ids, clean_image().diff_ids());
    for layer in &image.manifest.layers {
        let bytes = read_verified(&cx, &*source, "", layer, 1 << 20)
            .await
            .unwrap();
        assert_eq!(bytes.len() as u64, layer.size);
    }
    let by_digest = Wanted::by_digest("", clean_image().digest);
    assert_eq!(source.resolve(&by_digest).await.unwrap().index, None);
    let error = source
        .resolve(&Wanted::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("which has: both, one"), "{error}");
    assert!(
        source
            .resolve(&tagged("none"))
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn a_lying_layout_is_found_out_or_read_as_it_is() {
    let (cx, dir) = (Cx::for_tests(), temp_dir());
    let image = Poison::WrongDigest.image();
    Artifact::from(&image).write_layout(dir.path(), "1");
    let source = OciLayout::open(&cx, dir.path()).await.unwrap();
    let resolved = source.resolve(&Wanted::default()).await.unwrap();
    let layer = &resolved.images[0].manifest.layers[1];
    let error = read_verified(&cx, &source, "", layer, 1 << 20)
        .await
        .unwrap_err();
    assert!(matches!(error, OciError::DigestMismatch { .. }), "{error}");
    // A longer blob shows by one byte more than announced, and no more.
    let short = Descriptor {
        size: 10,
        ..layer.clone()
    };
    let mut reader = source.open_blob("", &short).await.unwrap();
    let mut bytes = Vec::new();
    assert_eq!(reader.read_to_end(&mut bytes).unwrap(), 11);
    // A manifest with other bytes than its digest says.
    let path = dir.path().join("blobs/sha256").join(image.digest.hex());
    std::fs::write(path, clean_image().manifest).unwrap();
    let error = source.resolve(&Wanted::default()).await.unwrap_err();
    assert!(matches!(error, OciError::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_regular_file_is_never_opened() {
    let (cx, dir) = (Cx::for_tests(), temp_dir());
    let image = clean_image();
    Artifact::from(&image).write_layout(dir.path(), "1");
    let path = dir
        .path()
        .join("blobs/sha256")
        .join(image.layers[0].digest.hex());
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    let source = OciLayout::open(&cx, dir.path()).await.unwrap();
    let layer = Descriptor {
        digest: image.layers[0].digest,
        size: 5,
        media_type: String::new(),
    };
    let error = source.open_blob("", &layer).await.err().unwrap();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    assert!(
        OciLayout::open(&cx, &dir.path().join("none"))
            .await
            .unwrap_err()
            .is_not_found()
    );
}

/// A tar file of a layout, as builders write it.
fn archive_of(dir: &Path) -> testkit::LayerBuilder {
    let mut archive = testkit::LayerBuilder::new();
    for name in ["oci-layout", "index.json"] {
        archive = archive.file(name, read_bounded(&dir.join(name), 1 << 20).unwrap());
    }
    for blob in std::fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        archive = archive.file(
            &format!("blobs/sha256/{name}"),
            read_bounded(&path, 1 << 20).unwrap(),
        );
    }
    archive
}

#[tokio::test]
async fn a_layout_in_a_tar_file_is_the_same_image() {
    let (cx, dir) = (Cx::for_tests(), temp_dir());
    let layout = dir.path().join("layout");
    std::fs::create_dir(&layout).unwrap();
    let both = index(vec![
        clean_image(),
        ImageBuilder::for_platform("linux/arm64")
            .layer(debian_layer(), "ADD")
            .build(),
    ]);
    Artifact::from(&both).write_layout(&layout, "both");
    let archive = archive_of(&layout);
    for (name, bytes) in [("a.tar", archive.tar()), ("a.tar.gz", archive.build().blob)] {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        for scheme in ["", "oci-archive:"] {
            let location = Location::parse(&format!("{scheme}{}", path.display())).unwrap();
            let opened = open(&cx, &location, &Opening::default()).await.unwrap();
            let resolved = opened.source.resolve(&opened.wanted).await.unwrap();
            assert_eq!(
                (resolved.index, resolved.images.len()),
                (Some(both.digest), 2)
            );
            let image = &resolved.images[0];
            assert!(image.has_registry_manifest);
            assert_eq!(image.digest, clean_image().digest);
            let layer = &image.manifest.layers[0];
            let read = read_verified(&cx, &*opened.source, "", layer, 1 << 20).await;
            assert_eq!(read.unwrap().len() as u64, layer.size);
        }
    }
    let path = dir.path().join("a.tar");
    let wanted = tagged("none");
    let source = OciLayout::open_archive(&cx, &path).await.unwrap();
    let error = source.resolve(&wanted).await.unwrap_err().to_string();
    assert!(error.contains("a.tar`, which has: both"), "{error}");
}

#[tokio::test]
async fn a_tar_file_without_an_image_says_what_it_lacks() {
    let (cx, dir) = (Cx::for_tests(), temp_dir());
    let path = dir.path().join("a.tar");
    std::fs::write(
        &path,
        testkit::LayerBuilder::new().file("etc/passwd", "x").tar(),
    )
    .unwrap();
    let location = Location::parse(&path.display().to_string()).unwrap();
    let error = open(&cx, &location, &Opening::default())
        .await
        .err()
        .unwrap();
    let error = error.to_string();
    assert!(
        error.contains("neither `manifest.json` nor `oci-layout`"),
        "{error}"
    );
    let archive = OciLayout::open_archive(&cx, &path).await.unwrap_err();
    assert!(archive.is_not_found());
}
