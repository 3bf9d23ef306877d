use std::{collections::BTreeMap, fmt::Write as _};

use archive::Limits;
use model::{Digest, GapCode, ImageConfig, ImageReport, Platform};

use super::*;
use crate::{Analyzers, LayerBlob, Subject, coalesce, read_layer};

/// A directory with these files, scanned.
pub(crate) fn scan(files: &[(&str, &str)], analyzers: &Analyzers) -> ImageReport {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    let blob = builder.into_inner().unwrap();
    let expected = LayerBlob {
        digest: Digest::of(&blob),
        size: blob.len() as u64,
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
    };
    let limits = Limits::default();
    let read = read_layer(&blob[..], &expected, analyzers, &limits, None);
    assert!(read.complete);
    let digest = Digest::of(b"image");
    let subject = Subject {
        image: digest,
        reference: "dir:.".to_owned(),
        index_digest: None,
        manifest_digest: None,
        image_id: digest,
        platform: Platform::default(),
        layer_sizes: vec![expected.size],
    };
    let config = ImageConfig {
        diff_ids: vec![expected.digest],
        ..ImageConfig::default()
    };
    coalesce(&[read.report], &config, subject, &limits)
}

fn of_directory(files: &[(&str, &str)]) -> ImageReport {
    let analyzers = Analyzers::of_directory(&Config::default(), &Limits::default());
    scan(files, &analyzers)
}

/// Packages as `name version`, with `direct`, `dev` and what they need.
fn shown(report: &ImageReport) -> Vec<String> {
    let names: BTreeMap<_, _> = report
        .packages
        .iter()
        .map(|package| (&package.id, format!("{} {}", package.name, package.version)))
        .collect();
    let one = |package: &model::Package| {
        let needs: Vec<&str> = package
            .depends_on
            .iter()
            .map(|id| names[id].as_str())
            .collect();
        let direct = if package.direct == Some(true) {
            " direct"
        } else {
            ""
        };
        let dev = if package.dev == Some(true) {
            " dev"
        } else {
            ""
        };
        let needs = if needs.is_empty() {
            String::new()
        } else {
            format!(" -> {}", needs.join(", "))
        };
        format!("{}{direct}{dev}{needs}", names[&package.id])
    };
    report.packages.iter().map(one).collect()
}

const PACKAGE_LOCK: &str = r#"{"lockfileVersion": 3, "packages": {
    "": {"dependencies": {"a": "1"}, "devDependencies": {"b": "1"}},
    "node_modules/a": {"version": "1.0.0", "dependencies": {"c": "2"}},
    "node_modules/b": {"version": "1.0.0", "dev": true, "dependencies": {"c": "1"}},
    "node_modules/b/node_modules/c": {"version": "1.0.0", "dev": true},
    "node_modules/c": {"version": "2.0.0"}}}"#;

#[test]
fn packages_of_a_lock_file_need_the_very_versions_that_it_names() {
    let report = of_directory(&[("app/package-lock.json", PACKAGE_LOCK)]);
    let expected = [
        "a 1.0.0 direct -> c 2.0.0",
        "b 1.0.0 direct dev -> c 1.0.0",
        "c 1.0.0 dev",
        "c 2.0.0",
    ];
    assert_eq!(shown(&report), expected);
}

#[test]
fn two_projects_of_a_directory_do_not_need_each_others_packages() {
    let other = r#"{"lockfileVersion": 3, "packages": {"node_modules/a": {"version": "1.0.0"}}}"#;
    let files = [
        ("one/package-lock.json", PACKAGE_LOCK),
        ("two/package-lock.json", other),
    ];
    let report = of_directory(&files);
    let of_two = report
        .packages
        .iter()
        .filter(|package| package.path.starts_with("two/"));
    let of_two: Vec<_> = of_two.collect();
    assert_eq!(of_two.len(), 1);
    assert!(of_two[0].depends_on.is_empty());
    assert_eq!(of_two[0].direct, Some(false));
}

#[test]
fn an_image_is_not_asked_for_lock_files() {
    let analyzers = Analyzers::all(&Config::default(), &Limits::default());
    let report = scan(&[("app/package-lock.json", PACKAGE_LOCK)], &analyzers);
    assert!(report.packages.is_empty() && report.gaps.is_empty());
}

#[test]
fn what_others_wrote_is_not_looked_into() {
    for directory in OTHERS {
        let path = format!("app/{directory}/x/package-lock.json");
        assert!(
            of_directory(&[(path.as_str(), PACKAGE_LOCK)])
                .packages
                .is_empty(),
            "{path}"
        );
    }
}

#[test]
fn what_is_left_open_makes_one_gap_that_names_a_few() {
    let names: Vec<String> = (0..20).map(|number| format!("name-{number}>=1")).collect();
    let names = names.join("\n");
    let report = of_directory(&[("requirements.txt", &names)]);
    assert_eq!(report.gaps.len(), 1);
    let gap = &report.gaps[0];
    assert_eq!(
        (gap.code, gap.hides),
        (GapCode::UnresolvedDependency, Hides::Packages)
    );
    let expected = "it does not say which version will be there of `name-0`, `name-1`, `name-2`, `name-3`, `name-4` and 15 more";
    assert_eq!(gap.detail, expected);
}

#[test]
fn a_package_that_is_named_twice_is_for_development_only_if_both_are() {
    let check = |one: Option<bool>, other: Option<bool>, expected: Option<bool>| {
        let mut lock = Lock::new(PackageType::Npm, "x");
        for dev in [one, other] {
            lock.add(FoundPackage {
                dev,
                ..lock.package("a", "1")
            });
        }
        let mut found = Found::new(1 << 20);
        lock.finish(&mut found);
        assert_eq!(found.packages.len(), 1);
        assert_eq!(found.packages[0].dev, expected, "{one:?} {other:?}");
    };
    check(Some(true), Some(true), Some(true));
    check(Some(true), Some(false), Some(false));
    check(Some(true), None, None);
}

#[test]
fn digests_are_written_in_hex() {
    assert_eq!(integrity("sha1-AAEC/w=="), Some("sha1:000102ff".to_owned()));
    assert_eq!(integrity("sha512-AA sha1-AA"), Some("sha512:00".to_owned()));
    for text in ["", "sha1", "md9-AA", "sha1-A*"] {
        assert_eq!(integrity(text), None, "{text}");
    }
    assert!(base64(&"A".repeat(128)).is_some() && base64(&"A".repeat(129)).is_none());
}

#[test]
fn a_file_that_is_too_large_is_a_gap() {
    let fill = |bytes: usize| {
        let end = r#"{"lockfileVersion": 3, "packages": {"node_modules/a": {"version": "1.0.0"}}}"#;
        format!("{}{end}", " ".repeat(bytes - end.len()))
    };
    let max = usize::try_from(BYTES_MAX).unwrap();
    let report = of_directory(&[("package-lock.json", &fill(max))]);
    assert_eq!((report.packages.len(), report.gaps.len()), (1, 0));
    let report = of_directory(&[("package-lock.json", &fill(max + 1))]);
    assert_eq!(report.packages.len(), 0);
    assert_eq!(report.gaps[0].code, GapCode::LimitFile);
}

#[test]
fn yaml_has_a_bound_on_depth_and_aliases() {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert!(yaml::<serde_json::Value>(&nested(60)).is_ok());
    assert!(yaml::<serde_json::Value>(&nested(70)).is_err());
    let mut bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
    for level in 1..10 {
        let above = level - 1;
        let list = vec![format!("*a{above}"); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{list}]").unwrap();
    }
    assert!(yaml::<serde_json::Value>(&bomb).is_err());
}

#[test]
fn deep_folders_are_gone_through_once_and_given_up() {
    let deep = "node_modules/a/".repeat(200);
    let text = format!(
        r#"{{"lockfileVersion": 3, "packages": {{
            "node_modules/z": {{"version": "1.0.0"}},
            "{deep}node_modules/b": {{"version": "1.0.0", "dependencies": {{"z": "1"}}}}}}}}"#
    );
    let report = of_directory(&[("package-lock.json", &text)]);
    assert_eq!(shown(&report), ["b 1.0.0", "z 1.0.0"]);
}

#[test]
fn a_version_that_looks_like_a_number_keeps_its_digits() {
    let text = "lockfileVersion: 5.4\ndependencies:\n  a: 1.10\npackages:\n  /a/1.10:\n    resolution: {integrity: sha1-AA==}\n    dev: false\n";
    assert_eq!(
        shown(&of_directory(&[("pnpm-lock.yaml", text)])),
        ["a 1.10 direct"]
    );
}

#[test]
fn looking_for_needs_ends_where_its_room_does() {
    let room = Room::default();
    let mut lock = Lock::new(PackageType::Npm, "x");
    let all = usize::try_from(LOOKED_AT_BYTES_MAX).unwrap();
    assert!(room.take(all - 1));
    room.note(&mut lock);
    assert!(!lock.is_cut);
    assert!(!room.take(2));
    room.note(&mut lock);
    assert!(lock.is_cut);
    let mut found = Found::new(1 << 20);
    lock.finish(&mut found);
    assert_eq!(
        (found.gaps[0].code, found.gaps[0].hides),
        (GapCode::LimitResults, Hides::Nothing)
    );
}
