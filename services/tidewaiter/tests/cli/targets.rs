use chassis::files::read_bounded;
use serde_json::Value;
use testkit::{
    Compression, ImageBuilder, LayerBuilder, RegistryOptions, RegistryServer, debian_layer, index,
};

use crate::world::{World, packages, shown, vulnerable};

#[test]
fn every_kind_of_target_has_the_same_packages() {
    let world = World::new();
    let layout = world.report(&[&world.layout()]);
    let expected = packages(&layout);
    assert!(expected.contains(&"requests".to_owned()), "{expected:?}");
    let archive = world.path("image.tar");
    vulnerable().write_docker_archive(&archive, "example.org/app:1");
    let bytes = read_bounded(&archive, 1 << 24).expect("it was written");
    let packed = LayerBuilder::new().raw(&bytes).without_end();
    let packed = packed.compression(Compression::Gzip).build().blob;
    let packed = world.write("image.tgz", packed);
    for target in [
        shown(&archive),
        shown(&packed),
        format!("docker-archive:{}:example.org/app:1", shown(&archive)),
        shown(&world.path("image")),
    ] {
        let report = world.report(&[&target]);
        assert_eq!(packages(&report), expected, "{target}");
    }
    let report = world.report(&[&shown(&archive)]);
    assert_eq!(report["target"].get("manifest_digest"), None);
    assert!(layout["target"].get("manifest_digest").is_some());
}

#[test]
fn a_directory_is_scanned_as_one_layer() {
    let world = World::new();
    world.write("root/etc/os-release", "ID=alpine\nVERSION_ID=3.19.1\n");
    let metadata = "Metadata-Version: 2.1\nName: requests\nVersion: 2.19.1\n";
    let dist = "usr/lib/python3/site-packages/requests-2.19.1.dist-info/METADATA";
    world.write(&format!("root/{dist}"), metadata);
    world.write(
        "root/app/node_modules/x/package.json",
        r#"{"name": "x", "version": "1.0.0"}"#,
    );
    let root = shown(&world.path("root"));
    let report = world.report(&[&format!("rootfs:{root}")]);
    assert_eq!(packages(&report), ["requests", "x"]);
    assert_eq!(report["target"]["os"]["id"], "alpine");
    let gaps = report["gaps"].to_string();
    assert!(
        !gaps.contains("digest-mismatch") && !gaps.contains("diffid"),
        "{gaps}"
    );
    // The same content gives the same image, and is not read again.
    let again = world.run(&["scan", &format!("rootfs:{root}")]);
    assert!(
        again.stderr.contains("1 of 1 layers were known"),
        "{}",
        again.stderr
    );
    let skipped = world.report(&[&root, "--skip-dirs", "**/node_modules"]);
    assert_eq!(packages(&skipped), ["requests"]);
    let skipped = world.report(&[&root, "--skip-files", &format!("/{dist}")]);
    assert_eq!(packages(&skipped), ["x"]);
    // A name without a dot that is a directory: what was chosen is said.
    world.write("sub/app/readme", "");
    let ended = world.run(&["scan", "sub/app"]);
    let expected =
        "`sub/app` is a directory here, which is scanned (registry:sub/app is the image)";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
}

#[test]
fn parts_of_an_image_are_left_out_as_of_a_directory() {
    let world = World::new();
    let target = world.layout();
    let whole = packages(&world.report(&[&target]));
    let part = packages(&world.report(&[&target, "--skip-dirs", "usr/local/lib/python3.11"]));
    assert!(
        whole.contains(&"requests".to_owned()) && !part.contains(&"requests".to_owned()),
        "{whole:?} {part:?}"
    );
    assert!(!part.is_empty(), "Debian's packages are elsewhere");
}

#[test]
fn the_platform_is_chosen_or_said() {
    let Some(registry) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    let platform = |name: &str| {
        let layer = debian_layer();
        ImageBuilder::for_platform(name).layer(layer, "ADD").build()
    };
    let both = index(vec![platform("linux/amd64"), platform("linux/arm64")]);
    registry.push(&both, "app", "1");
    let (world, target) = (World::new(), format!("{}/app:1", registry.host()));
    let ended = world.run(&["scan", &target, "--no-progress"]);
    assert!(
        ended.stderr.contains("is an index; linux/"),
        "{}",
        ended.stderr
    );
    let arm = world.report(&[&target, "--platform", "linux/arm64"]);
    assert_eq!(arm["target"]["platform"], "linux/arm64");
    let all = world.report(&[&target, "--platform", "all"]);
    assert_eq!(all["schema"], "tidewaiter.reports/1");
    let platforms = all["reports"].as_array().expect("there are several").iter();
    let platforms: Vec<&Value> = platforms.map(|one| &one["target"]["platform"]).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
}
