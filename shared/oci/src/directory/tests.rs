use std::{
    io::Read as _,
    os::unix::fs::{PermissionsExt, symlink},
};

use archive::{Limits as ArchiveLimits, Walk, Walked};
use model::{EntryKind, GapCode};
use testkit::temp_dir;

use super::*;

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// A small root file system; its files are written in another order each time.
fn fill(root: &Path, turned: bool) {
    let mut files = vec![
        ("etc/os-release", "ID=debian"),
        ("usr/bin/tool", "#!/bin/sh"),
        ("a/long/path/z", "z"),
    ];
    if turned {
        files.reverse();
    }
    for (path, content) in files {
        write(root, path, content);
    }
    let name = "n".repeat(150);
    write(root, &format!("long/{name}"), "long");
    std::fs::set_permissions(root.join("usr/bin/tool"), PermissionsExt::from_mode(0o4755)).unwrap();
    symlink("../../etc/os-release", root.join("usr/bin/link")).unwrap();
    std::fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/twin")).unwrap();
}

async fn resolved(source: &Directory) -> Image {
    let resolved = source.resolve(&Wanted::default()).await.unwrap();
    resolved.images.into_iter().next().unwrap()
}

async fn bytes_of(source: &Directory) -> Vec<u8> {
    let image = resolved(source).await;
    let mut bytes = Vec::new();
    let mut reader = source
        .open_blob("", &image.manifest.layers[0])
        .await
        .unwrap();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}

/// What our own walk sees: `kind path -> link`.
fn listed(bytes: &[u8]) -> Vec<String> {
    let limits = ArchiveLimits::default();
    let mut walk = Walk::new(bytes, &limits);
    let mut lines = Vec::new();
    while let Some(walked) = walk.next_entry().unwrap() {
        let Walked::Entry(entry) = walked else {
            panic!("{walked:?}")
        };
        let kind = match entry.kind {
            EntryKind::Directory => "dir",
            EntryKind::File => "file",
            EntryKind::Symlink => "symlink",
            EntryKind::Hardlink => "hardlink",
            other => panic!("{other:?}"),
        };
        let link = entry.link.map(|link| format!(" -> {link}"));
        let path = entry.path.replace(&"n".repeat(150), "nnn");
        lines.push(format!(
            "{kind} {path} {:o} {}{}",
            entry.mode,
            entry.size,
            link.unwrap_or_default()
        ));
    }
    lines
}

#[tokio::test]
async fn a_directory_is_one_layer_wherever_it_lies() {
    let (one, other) = (temp_dir(), temp_dir());
    fill(one.path(), false);
    fill(other.path(), true);
    let cx = Cx::for_tests();
    let first = Directory::new(&cx, one.path(), None);
    let image = resolved(&first).await;
    assert_eq!(
        image,
        Image {
            reference: image.reference.clone(),
            ..resolved(&Directory::new(&cx, other.path(), None)).await
        }
    );
    assert!(!image.has_registry_manifest && image.gaps.is_empty());
    let bytes = bytes_of(&first).await;
    let layer = &image.manifest.layers[0];
    assert_eq!(
        (Digest::of(&bytes), bytes.len() as u64),
        (layer.digest, layer.size)
    );
    assert_eq!(image.config.diff_ids, [layer.digest]);
    assert!(image.config.is_written);
    let files: Vec<_> = listed(&bytes)
        .into_iter()
        .filter(|line| !line.starts_with("dir"))
        .collect();
    insta::assert_debug_snapshot!(files, @r#"
    [
        "file a/long/path/z 644 1",
        "file etc/os-release 644 9",
        "file long/nnn 644 4",
        "symlink usr/bin/link 777 0 -> ../../etc/os-release",
        "file usr/bin/tool 4755 9",
        "hardlink usr/bin/twin 4755 0 -> usr/bin/tool",
    ]
    "#);
}

#[test]
fn what_is_packed_never_changes() {
    let dir = temp_dir();
    fill(dir.path(), false);
    let mut tree = Tree::read(&Cx::for_tests(), dir.path(), &Limits::default(), None).unwrap();
    // Owner and modes are those of whoever runs the test.
    for node in &mut tree.nodes {
        (node.mode, node.user, node.group) = (0o755, 1000, 1000);
    }
    let mut bytes = Vec::new();
    let mut stream = TarStream::new(Arc::new(tree));
    stream.read_to_end(&mut bytes).unwrap();
    // The digest is a promise: it names the image's records in a store.
    insta::assert_snapshot!(Digest::of(&bytes), @"sha256:9fdc62fb5de3f25f406c51b70bd45a5bd20f2e901290a5142e1253c91af56d82");
}

#[tokio::test]
async fn what_is_left_out_is_not_read() {
    let dir = temp_dir();
    fill(dir.path(), false);
    let skip: Skip = Arc::new(|path, is_dir| (is_dir && path == "usr") || path == "etc/os-release");
    let source = Directory::new(&Cx::for_tests(), dir.path(), Some(skip));
    let lines = listed(&bytes_of(&source).await);
    assert!(
        lines
            .iter()
            .all(|line| !line.contains("usr") && !line.contains("os-release")),
        "{lines:?}"
    );
    assert!(lines.iter().any(|line| line.contains("a/long/path/z")));
}

#[tokio::test]
async fn a_file_that_changes_leaves_the_layout_as_it_was() {
    let dir = temp_dir();
    fill(dir.path(), false);
    let source = Directory::new(&Cx::for_tests(), dir.path(), None);
    let before = bytes_of(&source).await;
    for (path, content) in [("etc/os-release", "ID"), ("a/long/path/z", "zzzzzzzz")] {
        std::fs::write(dir.path().join(path), content).unwrap();
    }
    // Another file at its place, and even a link out of the directory, is not the file.
    std::fs::remove_file(dir.path().join("usr/bin/tool")).unwrap();
    symlink("/etc/passwd", dir.path().join("usr/bin/tool")).unwrap();
    let after = bytes_of(&source).await;
    assert_eq!(listed(&before), listed(&after));
    assert_ne!(Digest::of(&before), Digest::of(&after));
    let text = String::from_utf8_lossy(&after);
    assert!(!text.contains("root:") && !text.contains("zz") && !text.contains("ID=debian"));
}

#[tokio::test]
async fn what_cannot_be_read_is_a_gap() {
    let dir = temp_dir();
    fill(dir.path(), false);
    let limits = Limits {
        directory_file_bytes_max: 4,
        directory_gaps_max: 1,
        ..Limits::default()
    };
    let tree = Tree::read(&Cx::for_tests(), dir.path(), &limits, None).unwrap();
    // `ID=debian` and `#!/bin/sh` are too large, and only the first is named.
    let gaps: Vec<_> = tree
        .gaps
        .iter()
        .map(|gap| (gap.code, gap.path.as_deref()))
        .collect();
    assert_eq!(
        gaps,
        [
            (GapCode::LimitFile, Some("etc/os-release")),
            (GapCode::LayerUnavailable, None)
        ]
    );
    let mut bytes = Vec::new();
    TarStream::new(Arc::new(tree))
        .read_to_end(&mut bytes)
        .unwrap();
    assert!(
        listed(&bytes)
            .iter()
            .any(|line| line.contains("etc/os-release 644 0"))
    );
}

#[test]
fn a_directory_with_too_much_in_it_is_refused() {
    let dir = temp_dir();
    fill(dir.path(), false);
    let cx = Cx::for_tests();
    let whole = Tree::read(&cx, dir.path(), &Limits::default(), None).unwrap();
    let entries = whole.nodes.len();
    let check = |entries_max: usize, bytes_max: usize| {
        let limits = Limits {
            directory_entries_max: entries_max,
            directory_name_bytes_max: bytes_max,
            ..Limits::default()
        };
        Tree::read(&cx, dir.path(), &limits, None).map(|_| ())
    };
    assert!(check(entries, 100_000).is_ok());
    let error = check(entries - 1, 100_000).unwrap_err().to_string();
    assert!(error.contains("files; name a part of it"), "{error}");
    let error = check(entries, 100).unwrap_err().to_string();
    assert!(error.contains("100 bytes of names"), "{error}");
    let missing = Tree::read(&cx, &dir.path().join("none"), &Limits::default(), None);
    assert!(missing.unwrap_err().is_not_found());
}
