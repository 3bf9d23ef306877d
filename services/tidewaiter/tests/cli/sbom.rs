use std::path::Path;

use serde_json::Value;

use crate::world::{World, packages, shown};

/// A target's report, and those of the bills of materials that are written of it.
fn through_sboms(world: &World, target: &str) -> [Value; 3] {
    let (cdx, spdx) = (world.path("bom.cdx.json"), world.path("bom.spdx.json"));
    let outputs = [
        format!("cyclonedx={}", shown(&cdx)),
        format!("spdx-json={}", shown(&spdx)),
    ];
    let [first, second] = &outputs;
    let direct = world.report(&[target, "-o", "json", "-o", first, "-o", second]);
    let of_sbom = |file: &Path| world.report(&[&format!("sbom:{}", shown(file))]);
    [direct, of_sbom(&cdx), of_sbom(&spdx)]
}

#[test]
fn an_image_and_its_bills_of_materials_have_the_same_report() {
    let world = World::new();
    world.advisories();
    let [direct, cdx, spdx] = through_sboms(&world, &world.layout());
    assert!(
        packages(&direct).contains(&"requests".to_owned()),
        "{direct}"
    );
    for through in [cdx, spdx] {
        for part in ["packages", "vulnerabilities"] {
            assert_eq!(through[part], direct[part]);
        }
        assert_eq!(through["verdict"]["decision"], "deny");
        assert_eq!(through["target"]["os"], direct["target"]["os"]);
        assert_eq!(through["target"]["layers"], direct["target"]["layers"]);
    }
}

/// Found in `$TIDEWAITER_TEST_DATA/images`; without it the test says so and passes.
#[test]
fn real_images_and_their_bills_of_materials_have_the_same_packages() {
    let Some(data) = std::env::var_os("TIDEWAITER_TEST_DATA") else {
        println!("skipped: TIDEWAITER_TEST_DATA does not name a directory of real images");
        return;
    };
    let images = Path::new(&data).join("images");
    let world = World::new();
    for entry in images
        .read_dir()
        .expect("the images can be listed")
        .flatten()
    {
        let layout = entry.path();
        if !layout.join("oci-layout").is_file() {
            continue;
        }
        let [direct, cdx, spdx] = through_sboms(&world, &format!("oci:{}", shown(&layout)));
        for through in [cdx, spdx] {
            assert_eq!(
                through["packages"],
                direct["packages"],
                "{}",
                layout.display()
            );
            assert_eq!(
                through["target"]["os"],
                direct["target"]["os"],
                "{}",
                layout.display()
            );
        }
        println!("{}: {} packages", layout.display(), packages(&direct).len());
    }
}

#[test]
fn a_document_is_told_by_its_content() {
    let world = World::new();
    let text = r#"{"bomFormat": "CycloneDX", "components": [{"type": "library", "name": "a", "version": "1", "purl": "pkg:npm/a@1"}]}"#;
    let file = world.write("anything.txt", text);
    assert_eq!(packages(&world.report(&[&shown(&file)])), ["a"]);
    let other = world.write("package.json", r#"{"name": "app"}"#);
    let ended = world.run(&["scan", &shown(&other)]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("neither CycloneDX nor SPDX"),
        "{}",
        ended.stderr
    );
}

#[test]
fn lock_files_are_read_in_a_directory_and_not_in_a_root_file_system() {
    let world = World::new();
    let lock = r#"{"lockfileVersion": 3, "packages": {"node_modules/a": {"version": "1.0.0"}}}"#;
    world.write("app/package-lock.json", lock);
    let dir = shown(&world.path("app"));
    assert_eq!(packages(&world.report(&[&dir])), ["a"]);
    let root = world.report(&[&format!("rootfs:{dir}")]);
    assert_eq!(packages(&root), Vec::<String>::new());
}
