//! The root file system of the container image, and the program in it.

use std::{path::Path, process::Command};

use serde_json::Value;
use testkit::{ImageBuilder, debian_layer};

use crate::fabric::tidewaiter_binary;

const SCRIPT: &str = "deploy/image/root.sh";
/// The user of the image.
const USER: &str = "65532:65532";

/// Puts the root together; `None`, with a reason printed, where that is not possible.
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn root(dir: &Path) -> Option<std::path::PathBuf> {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    if id.stdout != b"0\n" {
        println!("skipped: only root can change the root directory");
        return None;
    }
    let root = dir.join("root");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let made = Command::new(repository.join(SCRIPT))
        .arg(tidewaiter_binary())
        .arg(repository.join("LICENSE"))
        .arg(&root)
        .output()
        .expect("the script runs");
    let error = String::from_utf8_lossy(&made.stderr);
    if error.contains("ca-certificates") {
        println!("skipped: {error}");
        return None;
    }
    assert!(made.status.success(), "{error}");
    Some(root)
}

/// A command inside, as the image's user.
fn inside(root: &Path) -> Command {
    let mut command = Command::new("chroot");
    command.arg(format!("--userspec={USER}")).arg(root);
    command.arg("/usr/bin/tidewaiter");
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("TMPDIR", "/var/lib/tidewaiter");
    command.env("TIDEWAITER_CACHE_DIR", "/var/lib/tidewaiter/cache");
    command
}

#[test]
fn the_program_works_in_the_image_alone_and_as_nobody() {
    let dir = testkit::temp_dir();
    let Some(root) = root(dir.path()) else {
        return;
    };
    let version = inside(&root).arg("--version").output().expect("it runs");
    let text = String::from_utf8_lossy(&version.stdout);
    assert!(text.starts_with("tidewaiter "), "{version:?}");

    // It reads an image, keeps what it found where it may write, and judges.
    let image = ImageBuilder::new().layer(debian_layer(), "base").build();
    testkit::Artifact::from(image).write_layout(&root.join("tmp/image"), "latest");
    let scanned = inside(&root)
        .args([
            "scan",
            "oci:/tmp/image",
            "--format",
            "json",
            "--allow-incomplete",
        ])
        .output()
        .expect("it runs");
    let error = String::from_utf8_lossy(&scanned.stderr);
    assert!(scanned.status.success(), "{error}");
    let report: Value = serde_json::from_slice(&scanned.stdout).expect("a report");
    let packages = report["packages"].as_array().expect("packages");
    assert!(!packages.is_empty(), "{report:#}");
    assert!(root.join("var/lib/tidewaiter/cache").is_dir());

    // TLS finds its authorities: an address without a server is refused, and not for want of them.
    let health = ["health", "--server", "https://127.0.0.1:1"];
    let asked = inside(&root).args(health).output().expect("it runs");
    let error = String::from_utf8_lossy(&asked.stderr);
    assert!(
        error.to_lowercase().contains("connection refused"),
        "{error}"
    );
}

#[test]
fn the_image_holds_no_other_program_and_two_of_them_are_the_same() {
    let dirs = [testkit::temp_dir(), testkit::temp_dir()];
    let listings = dirs.each_ref().map(|dir| {
        let root = root(dir.path())?;
        let mut found = Command::new("find");
        found.args([".", "-printf", "%p %M %U:%G %Ts %s\n"]);
        let listing = found.current_dir(root).output().expect("find runs");
        let text = String::from_utf8_lossy(&listing.stdout).into_owned();
        // Sizes of directories are the file system's.
        let lines = text.lines().map(|line| match line.split_once(" d") {
            Some((path, rest)) => {
                format!("{path} d{}", rest.rsplit_once(' ').unwrap_or_default().0)
            }
            None => line.to_owned(),
        });
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        Some(lines)
    });
    let [Some(one), Some(other)] = listings else {
        return;
    };
    assert_eq!(one, other);
    let programs: Vec<&String> = one.iter().filter(|line| line.contains("/bin/")).collect();
    assert_eq!(programs.len(), 1, "{programs:?}");
    let is_set = |line: &&String| {
        line.split(' ')
            .nth(1)
            .is_some_and(|mode| mode.contains(['s', 'S']))
    };
    assert_eq!(
        one.iter().find(is_set),
        None,
        "nothing runs as somebody else"
    );
}
