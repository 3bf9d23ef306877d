//! What is made here is readable by somebody else's programs.

use std::{
    io::{Cursor, Read as _},
    process::Command,
    time::{Duration, Instant},
};

use model::Digest;

use crate::{
    Artifact, Compression, ImageBuilder, Layer, LayerBuilder, NatsServer, Notifications, Poison,
    RegistryOptions, RegistryServer, SeededLayer, StandInOptions, StandInRegistry, TarEntry,
    clean_image, debian_layer, index, process, temp_dir,
};

fn paths(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(Cursor::new(tar));
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect()
}

fn entries() -> LayerBuilder {
    LayerBuilder::new()
        .dir("etc")
        .file_mode("etc/run", 0o4755, "x".repeat(600))
        .symlink("etc/link", "run")
        .hardlink("etc/hard", "etc/run")
        .whiteout("etc/gone")
        .opaque("var")
        .file(&"long/".repeat(60), "")
}

#[test]
fn other_tar_readers_see_the_entries() {
    let long = "long/".repeat(60);
    assert_eq!(
        paths(&entries().tar()),
        [
            "etc/",
            "etc/run",
            "etc/link",
            "etc/hard",
            "etc/.wh.gone",
            "var/.wh..wh..opq",
            &long
        ]
    );
    let bytes = entries().tar();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let run = archive.entries().unwrap().nth(1).unwrap().unwrap();
    assert_eq!((run.header().mode().unwrap(), run.size()), (0o4755, 600));
}

#[test]
fn every_compression_holds_the_same_archive() {
    let tar = entries().tar();
    for compression in [
        Compression::Plain,
        Compression::Gzip,
        Compression::GzipMembers(700),
        Compression::Zstd,
    ] {
        let layer = entries().compression(compression).build();
        assert_eq!(layer.diff_id, Digest::of(&tar), "{compression:?}");
        assert_eq!(unpack(&layer), tar, "{compression:?}");
    }
}

#[expect(
    clippy::disallowed_types,
    reason = "a test that reads what it wrote itself"
)]
fn unpack(layer: &Layer) -> Vec<u8> {
    let mut bytes = Vec::new();
    match layer.compression {
        Compression::Plain => bytes.clone_from(&layer.blob),
        Compression::Zstd => bytes = zstd::stream::decode_all(layer.blob.as_slice()).unwrap(),
        _ => {
            let mut decoder = flate2::read::MultiGzDecoder::new(layer.blob.as_slice());
            decoder.read_to_end(&mut bytes).unwrap();
        }
    }
    bytes
}

#[test]
fn poison_images_say_what_is_wrong_with_them() {
    let clean = clean_image();
    for poison in Poison::ALL {
        if matches!(poison, Poison::Bomb | Poison::ZstdBomb | Poison::EntryFlood) {
            continue;
        }
        let image = poison.image_claiming(&clean);
        assert_eq!(image.layers.len(), 2, "{poison:?}");
        let layer = image.layers.last().unwrap();
        let lies = Digest::of(&layer.blob) != layer.digest;
        assert_eq!(
            lies,
            matches!(poison, Poison::ShortBlob | Poison::WrongDigest),
            "{poison:?}"
        );
        assert!(!poison.gaps().is_empty());
    }
}

#[test]
fn skopeo_reads_layouts_and_archives() {
    let Some(skopeo) = process::find_program("skopeo", "skopeo") else {
        return;
    };
    let dir = temp_dir();
    let plain = LayerBuilder::new()
        .compression(Compression::Plain)
        .file("a", "b")
        .build();
    let image = ImageBuilder::new()
        .layer(plain.clone(), "COPY a")
        .layer(plain, "COPY a")
        .build();
    Artifact::from(&image).write_layout(&dir.path().join("layout"), "v1");
    Artifact::from(clean_image()).write_layout(&dir.path().join("layout"), "v2");
    image.write_docker_archive(&dir.path().join("image.tar"), "example.org/app:v1");
    for (place, expected) in [
        ("oci:layout:v1", image.layers.len()),
        ("oci:layout:v2", 2),
        ("docker-archive:image.tar", image.layers.len()),
    ] {
        let mut command = Command::new(&skopeo);
        let output = command
            .args(["inspect", place])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            seen["Layers"].as_array().unwrap().len(),
            expected,
            "{place}"
        );
    }
}

#[test]
fn a_registry_takes_images_and_logs_who_fetches_what() {
    let Some(registry) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    let arm = ImageBuilder::for_platform("linux/arm/v7")
        .layer(debian_layer(), "ADD")
        .docker();
    let amd = ImageBuilder::new()
        .layer(debian_layer(), "ADD")
        .docker()
        .build();
    let both = index(vec![amd, arm.build()]);
    assert_eq!(registry.push(&both, "team/app", "1"), both.digest);
    let lying = Poison::WrongDigest.image();
    registry.push(&lying, "team/lying", "1");
    registry.clear_log();
    let layer = lying.layers[1].digest;
    let path = format!("/v2/team/lying/blobs/{layer}");
    let agent = [("User-Agent", "tests/1")];
    crate::http::send(&registry.host(), "GET", &path, &agent, b"").expect(200, "a planted blob");
    let gets = registry.blob_gets();
    assert_eq!(gets.len(), 1, "{}", registry.log());
    assert_eq!(
        (gets[0].repository.as_str(), gets[0].digest),
        ("team/lying", layer)
    );
    assert_eq!(gets[0].user_agent, "tests/1");
}

#[test]
fn a_registry_with_a_password_lets_only_its_user_in_and_tells_of_pushes() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let notifications = Notifications {
        url,
        authorization: Some("Bearer abc".to_owned()),
    };
    let options = RegistryOptions {
        password: true,
        notifications: Some(notifications),
        ..RegistryOptions::default()
    };
    let Some(mut registry) = RegistryServer::start(options) else {
        return;
    };
    let refused = crate::http::send(&registry.host(), "GET", "/v2/", &[], b"");
    assert_eq!(refused.status, 401);
    registry.push(clean_image(), "app", "1");
    let (mut connection, _) = listener.accept().unwrap();
    let mut head = [0; 4096];
    let count = connection.read(&mut head).unwrap();
    let head = String::from_utf8_lossy(&head[..count]).to_lowercase();
    assert!(
        head.starts_with("post /hook") && head.contains("authorization: bearer abc"),
        "{head}"
    );
    registry.restart();
    registry.delete_manifest("app", clean_image().digest);
}

#[test]
fn a_nats_server_comes_back_on_its_port_and_leaves_nothing() {
    let Some(mut server) = NatsServer::start() else {
        return;
    };
    let (url, first) = (server.url(), server.id());
    server.restart();
    assert_eq!(server.url(), url);
    assert_ne!(server.id(), first);
    assert!(server.log().contains("JetStream"), "{}", server.log());
    let id = server.id().unwrap();
    drop(server);
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
}

#[test]
fn an_entry_may_carry_anything() {
    let entry = TarEntry {
        pax: vec![(
            "SCHILY.xattr.security.capability".to_owned(),
            vec![1, 0, 0, 2],
        )],
        ..TarEntry::file("ping", "")
    };
    let tar = LayerBuilder::new().entry(entry).tar();
    let mut archive = tar::Archive::new(tar.as_slice());
    let mut ping = archive.entries().unwrap().next().unwrap().unwrap();
    let records = ping.pax_extensions().unwrap().unwrap();
    let keys: Vec<_> = records
        .map(|record| record.unwrap().value_bytes().to_vec())
        .collect();
    assert_eq!(keys, [vec![1, 0, 0, 2]]);
}

#[test]
fn a_planted_image_is_served_as_if_it_had_been_pushed() {
    let Some(registry) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    let image = clean_image();
    registry.plant(&image, "team/app", "1");
    let accept = [("Accept", image.media_type())];
    let get = |path: String| crate::http::send(&registry.host(), "GET", &path, &accept, b"");
    let by_tag = get("/v2/team/app/manifests/1".to_owned());
    assert_eq!((by_tag.status, &by_tag.body), (200, &image.manifest));
    let by_digest = get(format!("/v2/team/app/manifests/{}", image.digest));
    assert_eq!(by_digest.body, image.manifest);
    for layer in &image.layers {
        let blob = get(format!("/v2/team/app/blobs/{}", layer.digest));
        assert_eq!((blob.status, &blob.body), (200, &layer.blob));
    }
}

#[test]
fn a_stand_in_answers_late_and_slowly_and_notes_what_was_fetched() {
    let options = StandInOptions {
        delay: Duration::from_millis(50),
        bytes_per_second: Some(1 << 20),
    };
    let registry = StandInRegistry::start(options);
    let seeded = SeededLayer {
        seed: 7,
        bytes: 200_000,
    };
    let layer = seeded.layer();
    let image = ImageBuilder::new().layer(layer.clone(), "data").build();
    registry.put(&image, "app", "1");
    registry.seed(seeded, layer.digest);
    let get = |path: &str, headers: &[(&str, &str)]| {
        crate::http::send(&registry.host(), "GET", path, headers, b"")
    };
    let manifest = get("/v2/app/manifests/1", &[]);
    assert_eq!(manifest.body, image.manifest);
    assert_eq!(get("/v2/app/manifests/2", &[]).status, 404);

    let (path, began) = (format!("/v2/app/blobs/{}", layer.digest), Instant::now());
    let whole = get(&path, &[]);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(200), "{took:?}");
    assert_eq!(Digest::of(&whole.body), layer.digest);
    let mut archive = tar::Archive::new(whole.body.as_slice());
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.size(), 200_000);
    for (range, from, to) in [
        ("bytes=100-600", 100, 601),
        ("bytes=150000-", 150_000, whole.body.len()),
    ] {
        let part = get(&path, &[("Range", range)]);
        assert_eq!(
            (part.status, part.body.as_slice()),
            (206, &whole.body[from..to])
        );
    }
    let gets = registry.blob_gets();
    assert!(
        gets.len() == 3 && gets.iter().all(|get| get.digest == layer.digest),
        "{gets:?}"
    );
    assert!(registry.bytes_sent() > layer.size);
    let (first, last) = registry.busy(&[layer.digest].into()).unwrap();
    assert!(first >= began && last - first > Duration::from_millis(150));
}
