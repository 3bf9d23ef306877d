use std::io::Read as _;

use chassis::files::read_bounded;
use model::Digest;
use proptest::prelude::*;
use testkit::{Compression, ImageBuilder, LayerBuilder, debian_layer_of, temp_dir};

use super::*;
use crate::{Platforms, read_verified};

fn image() -> testkit::Image {
    let plain = |layer: LayerBuilder| layer.compression(Compression::Plain).build();
    let base = plain(debian_layer_of(&[]));
    ImageBuilder::new()
        .layer(base.clone(), "ADD")
        .layer(plain(LayerBuilder::new().file("a", "b")), "COPY a")
        .layer(base, "ADD again")
        .build()
}

#[tokio::test]
async fn an_archive_gives_the_same_image_each_time() {
    let (cx, dir) = (Cx::for_tests(), temp_dir());
    let path = dir.path().join("image.tar");
    image().write_docker_archive(&path, "example.org/app:v1");
    let mut digests = Vec::new();
    for name in [None, Some("example.org/app:v1".to_owned())] {
        let source = DockerArchive::open(&cx, &path).await.unwrap();
        let wanted = Wanted {
            tag: name,
            ..Wanted::default()
        };
        let resolved = source.resolve(&wanted).await.unwrap();
        let found = &resolved.images[0];
        assert_eq!(found.image_id, image().image_id);
        assert_eq!(found.config.diff_ids, image().diff_ids());
        assert!(!found.has_registry_manifest && found.index.is_none());
        // The archive's layers are not packed, so blob and layer are the same bytes.
        let layers: Vec<_> = found
            .manifest
            .layers
            .iter()
            .map(|layer| layer.digest)
            .collect();
        assert_eq!(layers, image().diff_ids());
        for layer in &found.manifest.layers {
            read_verified(&cx, &source, "", layer, 1 << 20)
                .await
                .unwrap();
        }
        digests.push(found.digest);
        let again = source
            .resolve(&Wanted::by_digest("", found.digest))
            .await
            .unwrap();
        assert_eq!(again.images[0].digest, found.digest);
    }
    assert_eq!(digests[0], digests[1]);
    // The digest is a promise: it names the image's records in a store.
    insta::assert_snapshot!(
        digests[0],
        @"sha256:224602488789d80356bc4b4f924ad50fcf434148afe6b613e2c02d414490a9bb"
    );
}

#[tokio::test]
async fn a_blob_can_be_opened_by_who_never_resolved() {
    let (cx, dir) = (Cx::for_tests(), temp_dir());
    let path = dir.path().join("image.tar");
    image().write_docker_archive(&path, "app:v1");
    let source = DockerArchive::open(&cx, &path).await.unwrap();
    let layer = &image().layers[1];
    let blob = Descriptor {
        digest: layer.digest,
        size: layer.size,
        media_type: String::new(),
    };
    let mut bytes = Vec::new();
    source
        .open_blob("", &blob)
        .await
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    assert_eq!(bytes, layer.blob);
    let unknown = Descriptor {
        digest: Digest::of(b"none"),
        ..blob
    };
    assert!(
        source
            .open_blob("", &unknown)
            .await
            .err()
            .unwrap()
            .is_not_found()
    );
}

#[tokio::test]
async fn a_compressed_archive_is_the_same_image() {
    let (cx, dir) = (Cx::for_tests(), temp_dir());
    let plain = dir.path().join("image.tar");
    image().write_docker_archive(&plain, "app:v1");
    let bytes = read_bounded(&plain, 1 << 20).unwrap();
    let mut digests = Vec::new();
    for (name, bytes) in [
        ("plain", bytes.clone()),
        ("gzip", packed(&bytes, Compression::Gzip)),
        ("zstd", packed(&bytes, Compression::Zstd)),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let source = DockerArchive::open(&cx, &path).await.unwrap();
        let resolved = source.resolve(&Wanted::default()).await.unwrap();
        digests.push(resolved.images[0].digest);
        let layer = &resolved.images[0].manifest.layers[1];
        let read = read_verified(&cx, &source, "", layer, 1 << 20).await;
        assert_eq!(read.unwrap().len() as u64, layer.size);
    }
    assert!(
        digests.windows(2).all(|two| two[0] == two[1]),
        "{digests:?}"
    );
}

#[tokio::test]
async fn an_image_for_another_platform_is_not_taken_for_it() {
    let (cx, dir) = (Cx::for_tests(), temp_dir());
    let path = dir.path().join("image.tar");
    image().write_docker_archive(&path, "app:v1");
    let source = DockerArchive::open(&cx, &path).await.unwrap();
    let wanted = |platform: &str| Wanted {
        platforms: Platforms::Only(platform.parse().unwrap()),
        ..Wanted::default()
    };
    assert!(source.resolve(&wanted("linux/amd64")).await.is_ok());
    let error = source.resolve(&wanted("linux/s390x")).await.unwrap_err();
    assert!(
        error.to_string().contains("only for: linux/amd64"),
        "{error}"
    );
}

#[test]
fn an_archive_that_unpacks_to_too_much_is_refused() {
    let dir = temp_dir();
    let path = dir.path().join("image.tar.gz");
    let bytes = image_bytes(dir.path());
    std::fs::write(&path, packed(&bytes, Compression::Gzip)).unwrap();
    let check = |bytes_max: u64| {
        let limits = Limits {
            unpacked_bytes_max: bytes_max,
            ..Limits::default()
        };
        Tarball::open(&Cx::for_tests(), &path, &limits).map(|_| ())
    };
    let whole = bytes.len() as u64;
    assert!(check(whole).is_ok());
    let error = check(whole - 1).unwrap_err().to_string();
    assert!(error.contains("more than"), "{error}");
}

fn packed(bytes: &[u8], compression: Compression) -> Vec<u8> {
    let raw = LayerBuilder::new().raw(bytes).without_end();
    raw.compression(compression).build().blob
}

fn image_bytes(dir: &Path) -> Vec<u8> {
    let path = dir.join("plain.tar");
    image().write_docker_archive(&path, "app:v1");
    read_bounded(&path, 1 << 20).unwrap()
}

async fn refused(archive: &LayerBuilder) -> String {
    refused_bytes(&archive.tar()).await
}

async fn refused_bytes(bytes: &[u8]) -> String {
    let dir = temp_dir();
    let path = dir.path().join("image.tar");
    std::fs::write(&path, bytes).unwrap();
    let cx = Cx::for_tests();
    DockerArchive::open(&cx, &path)
        .await
        .err()
        .unwrap()
        .to_string()
}

#[tokio::test]
async fn what_is_no_archive_of_an_image_says_so() {
    let text = refused(&LayerBuilder::new().file("a", "b")).await;
    assert!(text.contains("no `manifest.json`"), "{text}");
    let listed = r#"[{"Config": "c.json", "Layers": ["../../etc/passwd"]}]"#;
    let archive = LayerBuilder::new()
        .file("c.json", "{}")
        .file("manifest.json", listed);
    let text = refused(&archive).await;
    assert!(text.contains("which is not in it"), "{text}");
    let listed = r#"[{"Config": "c.json", "Layers": [], "layers": ["evil.tar"]}]"#;
    let archive = LayerBuilder::new()
        .file("c.json", "{}")
        .file("manifest.json", listed);
    let text = refused(&archive).await;
    assert!(text.contains("`layers` for `Layers`"), "{text}");
    let text = refused_bytes(b"BZh9not a bzip2 stream at all").await;
    assert!(
        text.contains("bzip2 compression is not supported"),
        "{text}"
    );
    let mut gzip = archive.build().blob;
    gzip.truncate(gzip.len() / 2);
    let text = refused_bytes(&gzip).await;
    assert!(text.contains("stream ends too early"), "{text}");
    let text = refused_bytes(&[7; 5000]).await;
    assert!(text.contains("no tar header at byte 0"), "{text}");
    let mut cut = LayerBuilder::new().file("a", vec![1; 5000]).tar();
    cut.truncate(2000);
    let text = refused_bytes(&cut).await;
    assert!(text.contains("ends after the archive"), "{text}");
}

#[tokio::test]
async fn links_in_circles_end() {
    let listed = r#"[{"Config": "a", "Layers": []}]"#;
    let archive = LayerBuilder::new()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("manifest.json", listed);
    let text = refused(&archive).await;
    assert!(text.contains("`a`, which is not in it"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damage_never_panics(at in 0_usize..4096, byte in any::<u8>(), cut in 0_usize..8192) {
        let listed = r#"[{"Config": "c.json", "Layers": ["l"]}]"#;
        let archive = LayerBuilder::new().file("c.json", "{}").hardlink("l", "c.json");
        let mut bytes = archive.file("manifest.json", listed).tar();
        if let Some(damaged) = bytes.get_mut(at) {
            *damaged = byte;
        }
        bytes.truncate(cut.max(1024));
        let dir = temp_dir();
        let path = dir.path().join("image.tar");
        std::fs::write(&path, &bytes).unwrap();
        let (cx, limits) = (Cx::for_tests(), Limits::default());
        let archive = Tarball::open(&cx, &path, &limits);
        if let Ok(archive) = archive.and_then(|tarball| Archive::new(tarball, limits)) {
            let _image = archive.image(&cx, &Wanted::default());
        }
    }
}
