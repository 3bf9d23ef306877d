//! What went wrong, with what, and what to do next.

use model::Digest;
use serde_json::json;
use testkit::{
    Artifact, Document, ImageBuilder, PASSWORD, RegistryOptions, RegistryServer, StoredBlob,
    USERNAME, debian_layer, index,
};

use crate::world::{World, shown, vulnerable};

fn check(world: &World, arguments: &[&str], code: i32, expected: &[&str]) {
    let ended = world.run(arguments);
    let text = &ended.stderr;
    assert_eq!(ended.code, Some(code), "{arguments:?}\n{text}");
    for part in expected {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn login(world: &World, host: &str, password: &str) {
    // `user:password` in base64 is what `docker login` writes.
    let auth = base64(format!("{USERNAME}:{password}").as_bytes());
    let config = format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#);
    world.write(".docker/config.json", config);
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let number = part.iter().chain(&[0, 0]).take(3);
        let number = number.fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        for at in 0..4 {
            let letter = char::from(LETTERS[number >> (18 - 6 * at) & 63]);
            text.push(if at <= part.len() { letter } else { '=' });
        }
    }
    text
}

#[test]
fn a_registry_that_wants_a_login_says_how_to_log_in() {
    let options = RegistryOptions {
        password: true,
        ..RegistryOptions::default()
    };
    let Some(registry) = RegistryServer::start(options) else {
        return;
    };
    registry.push(vulnerable(), "team/app", "1");
    let (host, world) = (registry.host(), World::new());
    let target = format!("{host}/team/app:1");
    let advice = format!("log in with `docker login {host}`");
    check(
        &world,
        &["scan", &target],
        4,
        &["refuses access to `team/app`", &advice],
    );
    login(&world, &host, "wrong");
    let expected = [
        "refuses access to `team/app`",
        "check that these credentials are valid",
    ];
    check(&world, &["scan", &target], 4, &expected);
    login(&world, &host, PASSWORD);
    let ended = world.run(&["scan", &target]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
}

#[test]
fn what_a_registry_does_not_have_is_named() {
    let Some(registry) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    let arm = ImageBuilder::for_platform("linux/arm64").layer(debian_layer(), "ADD");
    registry.push(index(vec![vulnerable(), arm.build()]), "app", "1");
    registry.push(vulnerable(), "single", "1");
    let (host, world) = (registry.host(), World::new());
    let target = |name: &str| format!("{host}/{name}");
    let gone = format!("error: scanning `{host}/app:2`: `{host}/app:2` does not exist in `{host}`");
    let hint =
        format!("hint: `skopeo list-tags docker://{host}/app` lists the tags that there are");
    let expected = [
        gone.as_str(),
        "check the name, the tag and the digest",
        hint.as_str(),
    ];
    check(&world, &["scan", &target("app:2")], 4, &expected);
    check(
        &world,
        &["scan", &target("none:1")],
        4,
        &["does not exist", "check the name"],
    );
    let expected = [
        "has no image for `linux/s390x`, only for: linux/amd64, linux/arm64",
        "hint: choose one of these with --platform, or all of them with --platform all",
    ];
    check(
        &world,
        &["scan", &target("app:1"), "--platform", "linux/s390x"],
        4,
        &expected,
    );
    let expected = ["has no image for `linux/arm64`, only for: linux/amd64"];
    check(
        &world,
        &["scan", &target("single:1"), "--platform", "linux/arm64"],
        4,
        &expected,
    );
}

#[test]
fn a_registry_that_does_not_answer_says_what_to_look_at() {
    let world = World::new();
    let expected = [
        "error: scanning `127.0.0.1:1/app:1`: `127.0.0.1:1` is not available",
        "hint: `tidewaiter doctor 127.0.0.1:1` looks at what can be reached",
    ];
    check(&world, &["scan", "127.0.0.1:1/app:1"], 4, &expected);
}

/// What `helm push` leaves in a registry.
fn chart() -> Artifact {
    let blob = |bytes: &[u8]| StoredBlob {
        digest: Digest::of(bytes),
        bytes: bytes.to_vec(),
    };
    let (config, chart) = (blob(b"{}"), blob(b"a chart"));
    let descriptor = |media_type: &str, blob: &StoredBlob| json!({"mediaType": media_type, "digest": blob.digest, "size": blob.bytes.len()});
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor("application/vnd.cncf.helm.config.v1+json", &config),
        "layers": [descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip", &chart)],
    });
    let bytes = manifest.to_string().into_bytes();
    Artifact {
        root: Document {
            digest: Digest::of(&bytes),
            media_type: media_type.to_owned(),
            bytes,
        },
        children: Vec::new(),
        blobs: vec![config, chart],
    }
}

#[test]
fn an_artifact_in_a_registry_is_no_image() {
    let Some(registry) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    registry.push(chart(), "chart", "1");
    let target = format!("{}/chart:1", registry.host());
    let expected = [
        "it is an artifact with config `application/vnd.cncf.helm.config.v1+json`, not a container image",
        "hint: is it a container image?",
    ];
    check(&World::new(), &["scan", &target], 4, &expected);
}

#[test]
fn what_is_no_image_says_so() {
    let world = World::new();
    let file = world.write(
        "notes.tar",
        "just some text, and no archive at all".repeat(40),
    );
    let expected = ["no tar header at byte 0", "hint: is it a container image?"];
    check(&world, &["scan", &shown(&file)], 4, &expected);
    let expected = [
        "is a file of no known kind",
        "docker-archive:, oci-archive: or sbom:",
    ];
    let file = world.write("notes.txt", "text");
    check(&world, &["scan", &shown(&file)], 1, &expected);
    check(
        &world,
        &["scan", "purl:./bom.json"],
        1,
        &["`purl:` is no kind of target here"],
    );
    let expected = [
        "`docker` is not available: there is no socket at",
        "hint: registry:NAME",
    ];
    let docker = World::new().with("DOCKER_HOST", "unix:///none");
    check(&docker, &["scan", "docker:app:1"], 4, &expected);
    let remote = World::new().with("DOCKER_HOST", "tcp://192.0.2.1:2375");
    let expected = [
        "only sockets of this machine are asked",
        "hint: registry:NAME",
    ];
    check(&remote, &["scan", "docker:app:1"], 4, &expected);
    check(&world, &["scan", "./gone"], 1, &["`./gone` does not exist"]);
    let expected = [
        "is not an image reference",
        "`tidewaiter scan --help` lists",
    ];
    check(&world, &["scan", "UPPER"], 1, &expected);
    let layout = world.path("broken");
    Artifact::from(vulnerable()).write_layout(&layout, "1");
    std::fs::write(layout.join("index.json"), "{").expect("it is there");
    let broken = format!("oci:{}", layout.display());
    check(
        &world,
        &["scan", &broken],
        4,
        &["is malformed", "hint: is it a container image?"],
    );
}

#[test]
fn advisories_that_are_missing_come_with_the_command_that_gets_them() {
    let world = World::new();
    let target = world.layout();
    let ended = world.run(&["scan", &target]);
    let expected = "so vulnerabilities were not looked for; `tidewaiter db update` gets them";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    // What is known is shown all the same, and nothing reads as if all were well.
    let table = &ended.stdout;
    assert!(
        table.contains("requests") && table.contains("2.19.1"),
        "{table}"
    );
    assert!(
        table.contains("vulnerabilities were not looked for"),
        "{table}"
    );
    for lie in [
        "0 vulnerabilities",
        "no known vulnerabilities",
        "no vulnerabilities",
    ] {
        assert!(!table.contains(lie), "{table}");
    }
}

#[test]
fn a_directory_without_advisories_withdraws_nothing() {
    let world = World::new();
    world.advisories();
    world.write("empty/readme.txt", "nothing here");
    check(
        &world,
        &["db", "import", "empty", "--replace"],
        1,
        &["`empty` has no OSV records"],
    );
    let status = world.stdout(&["db", "status"]);
    assert!(status.contains("2 records"), "{status}");
}

#[test]
fn advisories_that_somebody_writes_say_so() {
    let world = World::new();
    world.advisories();
    let dir = world.path(".cache/tidewaiter/advisories");
    // Whoever writes holds the lock; a second process could not have it.
    let _writer = matcher::Advisories::open(&dir).expect("nobody else writes");
    let records = shown(&world.path("advisories-in"));
    let expected = [
        "is in use by another process",
        "hint: another `tidewaiter db` writes them: try again when it has ended",
    ];
    check(&world, &["db", "import", &records], 1, &expected);
    // Who only reads is not in the way, and nobody is in its.
    let target = world.layout();
    let ended = world.run(&["scan", &target]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
}

#[test]
fn a_flag_of_another_scanner_gets_a_hint() {
    let world = World::new();
    let expected = ["--ignorefile", "hint: instead of `--ignorefile`: waivers"];
    check(
        &world,
        &["scan", "--ignorefile", "x", "debian"],
        1,
        &expected,
    );
    check(
        &world,
        &["image", "debian:12"],
        1,
        &["hint: instead of `image`: tidewaiter scan IMAGE"],
    );
    check(
        &world,
        &["debian:12"],
        1,
        &["hint: to scan it: tidewaiter scan debian:12"],
    );
}
