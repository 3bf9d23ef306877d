//! Packages that layers had and later ones removed.

use super::*;

/// `NAME VERSION since LAYER until LAYER`, one line per package.
fn removed(layers: &[LayerReport]) -> Vec<String> {
    let number = |digest| {
        let mut layers = layers.iter();
        layers.position(|layer| layer.blob == digest).unwrap()
    };
    let report = image(layers);
    let line = |found: &model::RemovedPackage| {
        let (since, until) = (number(found.layer), number(found.removed_by));
        format!(
            "{} {} since {since} until {until}",
            found.name, found.version
        )
    };
    report.findings.removed.iter().map(line).collect()
}

#[test]
fn packages_that_records_no_longer_list_are_removed() {
    let layers = [
        layer("0", STATUS, debs(&[("a", "1"), ("b", "1"), ("c", "1")])),
        layer("1", STATUS, debs(&[("a", "1"), ("b", "2")])),
        layer("2", &["f etc/motd"], section()),
        layer("3", STATUS, debs(&[("b", "2"), ("c", "1")])),
    ];
    assert_eq!(
        removed(&layers),
        ["a 1 since 0 until 3", "b 1 since 0 until 1"]
    );
    assert_eq!(removed(&layers[..1]), [""; 0]);
}

#[test]
fn packages_are_removed_with_their_records() {
    let base = layer("0", STATUS, debs(&[("a", "1")]));
    let gone = layer("1", &["w var/lib/dpkg"], section());
    assert_eq!(removed(&[base, gone]), ["a 1 since 0 until 1"]);
}

#[test]
fn a_file_that_proves_a_package_takes_it_along() {
    let path = "app/node_modules/a/package.json";
    let file = format!("f {path}");
    let npm = |name: &str, version: &str| {
        let found = vec![package(PackageType::Npm, "a", version, path)];
        layer(name, &[&file], with(found))
    };
    let gone = layer("1", &["w app"], section());
    assert_eq!(removed(&[npm("0", "1"), gone]), ["a 1 since 0 until 1"]);
    assert_eq!(
        removed(&[npm("0", "1"), npm("1", "2")]),
        ["a 1 since 0 until 1"]
    );
    assert_eq!(removed(&[npm("0", "1"), npm("1", "1")]), [""; 0]);
}

#[test]
fn what_was_never_installed_was_not_removed() {
    let found = vec![package(
        PackageType::Apk,
        "a",
        "1",
        "srv/lib/apk/db/installed",
    )];
    let chroot = layer("0", &["f srv/lib/apk/db/installed"], with(found));
    let gone = layer("1", &["w srv"], section());
    assert_eq!(removed(&[chroot, gone]), [""; 0]);
    let twice = layer(
        "0",
        &["f a.jar", "f a.jar"],
        with(vec![package(PackageType::Maven, "a:a", "1", "a.jar")]),
    );
    assert_eq!(removed(&[twice]), [""; 0]);
}

#[test]
fn removed_packages_are_bounded() {
    let many = |count: usize| {
        let names: Vec<_> = (0..count).map(|at| format!("p{at:05}")).collect();
        let versions: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
        let layers = [
            layer("0", STATUS, debs(&versions)),
            layer("1", &["w var"], section()),
        ];
        let report = image(&layers);
        (report.findings.removed.len(), report.gaps.len())
    };
    assert_eq!(many(10_000), (10_000, 0));
    assert_eq!(many(10_001), (10_000, 1));
}
