use std::{path::Path, sync::Arc};

use model::{EntryKind, LayerEntry};
use proptest::prelude::*;

use super::*;
use crate::file::{Content, Held};

const GOOD: &[&str] = &[
    "var/lib/rpm/Packages",
    "var/lib/rpm/Packages.db",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "usr/share/rpm/rpmdb.sqlite",
];

fn testdata(path: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/rpm/good");
    std::fs::File::open(root.join(path))
        .and_then(|mut file| {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut bytes).map(|_| bytes)
        })
        .unwrap()
}

fn file(path: &str, bytes: Vec<u8>) -> File {
    let entry = LayerEntry {
        path: path.to_owned(),
        kind: EntryKind::File,
        size: bytes.len() as u64,
        mode: 0o644,
        uid: 0,
        gid: 0,
        link: None,
        capabilities: None,
        digest: None,
    };
    File::new(Arc::new(entry), Content::Held(Arc::new(Held(bytes))))
}

fn analyze(files: &[File]) -> (Found, Option<Malformed>) {
    let analyzer = Rpm::boxed(&Config::default(), &Limits::default());
    let mut found = Found::new(16 << 20);
    let error = analyzer.analyze(files, &mut found).err();
    (found, error)
}

fn names(found: &Found) -> Vec<String> {
    let packages = found.packages.iter();
    let names = packages.map(|package| format!("{}@{}", package.name, package.version));
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn every_kind_of_database_says_the_same() {
    let log = "usr/share/rpm/rpmdb.sqlite-wal";
    for path in GOOD {
        let mut files = vec![file(path, testdata(path))];
        if path.starts_with("usr/share") {
            files.push(file(log, testdata(log)));
        }
        let (found, error) = analyze(&files);
        assert!(
            error.is_none() && found.gaps.is_empty(),
            "{path}: {error:?} {:?}",
            found.gaps
        );
        assert_eq!(
            names(&found),
            ["harbor-pilot@2:1.4.2-3.tw9", "libtide@2:0.9-3.tw9"],
            "{path}"
        );
        let pilot = found
            .packages
            .iter()
            .find(|package| package.name == "harbor-pilot");
        assert_eq!(pilot.unwrap().depends_on, ["libtide"], "{path}");
        assert_eq!(found.owned.len(), 4, "{path}");
    }
}

#[test]
fn what_stands_in_the_log_alone_is_seen_with_it_alone() {
    let (database, log) = (
        "usr/share/rpm/rpmdb.sqlite",
        "usr/share/rpm/rpmdb.sqlite-wal",
    );
    let (found, _) = analyze(&[file(database, testdata(database))]);
    assert_eq!(names(&found), ["libtide@2:0.9-3.tw9"]);
    // The end of the last transaction is missing: it never happened.
    let mut cut = testdata(log);
    cut.truncate(cut.len() - 1);
    let (found, error) = analyze(&[file(database, testdata(database)), file(log, cut)]);
    assert!(error.is_none());
    assert_eq!(names(&found), ["libtide@2:0.9-3.tw9"]);
    let (found, _) = analyze(&[file(log, testdata(log))]);
    assert_eq!(found.gaps.len(), 1);
}

#[test]
fn a_header_is_limited_in_bytes_and_all_of_them_together() {
    let mut source = Source::new(&file("Packages", vec![0; 100]));
    assert_eq!(source.take_room(60).unwrap(), 60);
    assert!(matches!(source.take_room(41), Err(Malformed::Format(_))));
    assert_eq!(source.take_room(40).unwrap(), 40);
    let over = source::HEADER_BYTES_MAX + 1;
    assert!(matches!(
        source.take_room(over),
        Err(Malformed::TooLarge(..))
    ));
}

#[test]
fn names_are_limited() {
    let mut packages = Packages::default();
    assert!(packages.fits(NAMES_MAX) && !packages.is_over);
    assert!(!packages.fits(1) && packages.is_over);
}

#[test]
fn a_source_has_the_epoch_of_what_has_its_version() {
    let built = |name: &str, version: &str, source_version: &str| FoundPackage {
        source_name: Some("perl".to_owned()),
        source_version: Some(source_version.to_owned()),
        ..FoundPackage::new(PackageType::Rpm, name, version, "db")
    };
    let mut packages = [
        built("perl-Errno", "1.28-420.el8", "5.26.3-420.el8"),
        built("perl-libs", "4:5.26.3-420.el8", "4:5.26.3-420.el8"),
        built("perl-IO", "2:1.38-420.el8", "2:5.26.3-420.el8"),
        // Of another build, of which nothing else is there.
        built("perl-Math", "0.26-419.el8", "5.26.3-419.el8"),
    ];
    settle_epochs(&mut packages);
    let sources = packages.map(|package| package.source_version.unwrap());
    let settled = "4:5.26.3-420.el8";
    assert_eq!(sources, [settled, settled, settled, "5.26.3-419.el8"]);
}

#[test]
fn source_packages_are_read_from_the_file_name() {
    let check = |file, expected| assert_eq!(source_package(file), expected, "{file}");
    check(
        "bash-5.2.15-3.fc38.src.rpm",
        Some(("bash", "5.2.15-3.fc38")),
    );
    check(
        "java-1.8.0-openjdk-1.8.0.1-2.nosrc.rpm",
        Some(("java-1.8.0-openjdk", "1.8.0.1-2")),
    );
    check("(none)", None);
    check("a.src.rpm", None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is changed in a database: an answer, soon, and no panic.
    #[test]
    fn changed_databases_are_read_or_refused(
        which in 0..GOOD.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        end in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let path = GOOD[which];
        let mut bytes = testdata(path);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if is_cut {
            bytes.truncate(end.index(bytes.len()));
        }
        analyze(&[file(path, bytes)]);
    }
}
