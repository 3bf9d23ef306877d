mod choosing;
mod hostile;
mod removed;
mod tampered;
mod unpacking;

use std::sync::Arc;

use model::{
    AnalyzerId, Digest, Entries, FoundFinding, FoundMalware, FoundOs, FoundPackage, FoundSecret,
    Gap, GapCode, Hides, HistoryStep, LayerEntry, LayerReport, Misconfiguration, Owned,
    PackageType, Section, Severity,
};

use super::*;

/// An entry as one line: `d PATH`, `f PATH`, `l PATH -> TO`, `h PATH -> TO`, `w PATH`, `o PATH`.
fn entry(text: &str) -> LayerEntry {
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (path, link) = rest
        .split_once(" -> ")
        .map_or((rest, None), |(p, l)| (p, Some(l)));
    let kind = match kind {
        "d" => EntryKind::Directory,
        "f" => EntryKind::File,
        "l" => EntryKind::Symlink,
        "h" => EntryKind::Hardlink,
        "w" => EntryKind::Whiteout,
        _ => EntryKind::Opaque,
    };
    LayerEntry {
        path: path.to_owned(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 1,
        link: link.map(ToOwned::to_owned),
        capabilities: None,
        digest: None,
    }
}

fn section() -> Section {
    Section {
        analyzer: AnalyzerId {
            name: "test".to_owned(),
            version: 1,
            config: Digest::of(b""),
        },
        os: Vec::new(),
        packages: Vec::new(),
        owned: Vec::new(),
        sums: Vec::new(),
        diversions: Vec::new(),
        licenses: Vec::new(),
        findings: Vec::new(),
        gaps: Vec::new(),
    }
}

fn layer(name: &str, lines: &[&str], section: Section) -> LayerReport {
    LayerReport {
        blob: Digest::of(name.as_bytes()),
        entries: Arc::new(Entries {
            diff_id: Some(Digest::of(name.as_bytes())),
            entries: lines.iter().map(|line| entry(line)).collect(),
            ..Entries::default()
        }),
        sections: vec![Arc::new(section)],
        transient_gaps: Vec::new(),
    }
}

fn package(kind: PackageType, name: &str, version: &str, path: &str) -> FoundPackage {
    FoundPackage {
        arch: kind.is_os().then(|| "amd64".to_owned()),
        ..FoundPackage::new(kind, name, version, path)
    }
}

fn with(packages: Vec<FoundPackage>) -> Section {
    Section {
        packages,
        ..section()
    }
}

fn debs(versions: &[(&str, &str)]) -> Section {
    let of = |(name, version): &(&str, &str)| {
        package(PackageType::Deb, name, version, "var/lib/dpkg/status")
    };
    with(versions.iter().map(of).collect())
}

fn image(layers: &[LayerReport]) -> ImageReport {
    let config = ImageConfig {
        diff_ids: layers
            .iter()
            .filter_map(|layer| layer.entries.diff_id)
            .collect(),
        ..ImageConfig::default()
    };
    let report = coalesce(layers, &config, subject(), &Limits::default());
    let kept = layers.iter().cloned().map(PreparedLayer::new);
    let kept: Vec<_> = kept.map(|layer| kept_again(&layer)).collect();
    let kept: Vec<_> = kept.iter().collect();
    let again = coalesce_prepared(&kept, &config, subject(), &Limits::default());
    assert_eq!(again, report, "of layers that were kept");
    report
}

/// The layer as a cache gives it back.
fn kept_again(layer: &PreparedLayer) -> PreparedLayer {
    let bytes = rmp_serde::to_vec_named(&layer.entries).unwrap();
    let entries = rmp_serde::from_slice(&bytes).unwrap();
    let sections = layer.sections.iter().map(|section| {
        let bytes = rmp_serde::to_vec_named(&**section).unwrap();
        Arc::new(rmp_serde::from_slice(&bytes).unwrap())
    });
    PreparedLayer {
        transient_gaps: layer.transient_gaps.clone(),
        ..PreparedLayer::of_kept(layer.blob, entries, sections.collect())
    }
}

fn subject() -> Subject {
    Subject {
        image: Digest::of(b"image"),
        reference: "test".to_owned(),
        index_digest: None,
        manifest_digest: None,
        image_id: Digest::of(b"config"),
        platform: "linux/arm64".parse().unwrap(),
        layer_sizes: Vec::new(),
    }
}

/// `NAME VERSION at PATH since LAYER`, one line per package.
fn packages(layers: &[LayerReport]) -> Vec<String> {
    let number = |digest| {
        layers
            .iter()
            .position(|layer| layer.blob == digest)
            .unwrap()
    };
    let report = image(layers);
    let line = |package: &model::Package| {
        let (name, version, path) = (&package.name, &package.version, &package.path);
        format!("{name} {version} at {path} since {}", number(package.layer))
    };
    report.packages.iter().map(line).collect()
}

const STATUS: &[&str] = &["f var/lib/dpkg/status"];

#[test]
fn a_package_belongs_to_the_layer_from_which_on_it_is_listed() {
    let layers = [
        layer(
            "0",
            STATUS,
            debs(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")]),
        ),
        layer("1", STATUS, debs(&[("a", "1"), ("b", "2"), ("d", "1")])),
        layer("2", &["f etc/motd"], section()),
        layer("3", STATUS, debs(&[("a", "1"), ("b", "2"), ("c", "1")])),
    ];
    insta::assert_snapshot!(packages(&layers).join("\n"), @r"
    a 1 at var/lib/dpkg/status since 0
    b 2 at var/lib/dpkg/status since 1
    c 1 at var/lib/dpkg/status since 3
    ");
}

#[test]
fn deleted_records_prove_nothing() {
    let base = || layer("0", STATUS, debs(&[("a", "1")]));
    let gone = |line: &str| packages(&[base(), layer("1", &[line], section())]);
    assert_eq!(gone("w var/lib/dpkg/status"), [""; 0]);
    assert_eq!(gone("w var"), [""; 0]);
    assert_eq!(gone("o var/lib"), [""; 0]);
    assert_eq!(gone("o "), [""; 0]);
    assert_eq!(gone("f var/lib/dpkg"), [""; 0]);
    assert_eq!(gone("l var -> elsewhere"), [""; 0]);
    assert_eq!(gone("o etc").len(), 1);
    let back = [
        base(),
        layer("1", &["w var"], section()),
        layer("2", STATUS, debs(&[("a", "1")])),
    ];
    assert_eq!(packages(&back), ["a 1 at var/lib/dpkg/status since 2"]);
}

#[test]
fn records_count_where_the_package_manager_finds_them() {
    let apk = |path: &str| with(vec![package(PackageType::Apk, "musl", "1.2", path)]);
    let merged = [
        layer("0", &["d usr/lib", "l lib -> usr/lib"], section()),
        layer(
            "1",
            &["f usr/lib/apk/db/installed"],
            apk("usr/lib/apk/db/installed"),
        ),
        layer(
            "2",
            &["f lib/apk/db/installed"],
            apk("lib/apk/db/installed"),
        ),
    ];
    assert_eq!(
        packages(&merged),
        ["musl 1.2 at usr/lib/apk/db/installed since 1"]
    );
    let chroot = [layer(
        "0",
        &["f srv/lib/apk/db/installed"],
        apk("srv/lib/apk/db/installed"),
    )];
    assert_eq!(packages(&chroot), [""; 0]);
    let linked = [
        chroot[0].clone(),
        layer("1", &["l lib/apk -> ../srv/lib/apk"], section()),
    ];
    assert_eq!(
        packages(&linked),
        ["musl 1.2 at srv/lib/apk/db/installed since 1"]
    );
}

#[test]
fn status_d_counts_file_by_file() {
    let path = "var/lib/dpkg/status.d/tzdata";
    let found = with(vec![package(PackageType::Deb, "tzdata", "1", path)]);
    let layers = [layer("0", &["f var/lib/dpkg/status.d/tzdata"], found)];
    assert_eq!(
        packages(&layers),
        ["tzdata 1 at var/lib/dpkg/status.d/tzdata since 0"]
    );
}

#[test]
fn records_that_nobody_read_are_a_gap() {
    let check = |lines: &[&str], expected: &[&str]| {
        let report = image(&[layer("0", lines, section())]);
        let paths: Vec<_> = report
            .gaps
            .iter()
            .filter_map(|gap| gap.path.as_deref())
            .collect();
        assert_eq!(paths, expected, "{lines:?}");
        assert!(report.gaps.iter().all(|gap| gap.hides == Hides::Packages));
    };
    check(&["f var/lib/dpkg/status"], &[]);
    check(
        &["f x", "h var/lib/dpkg/status -> x"],
        &["var/lib/dpkg/status"],
    );
    check(
        &["f x", "l var/lib/dpkg/status -> /x"],
        &["var/lib/dpkg/status"],
    );
    check(
        &["h var/lib/dpkg/status -> nothing"],
        &["var/lib/dpkg/status"],
    );
    check(
        &["f x", "l var/lib/dpkg/status.d/a -> /x"],
        &["var/lib/dpkg/status.d/a"],
    );
    check(&["f var/lib/rpm/rpmdb.sqlite"], &[]);
    check(
        &["f x", "h var/lib/rpm/rpmdb.sqlite -> x"],
        &["var/lib/rpm/rpmdb.sqlite"],
    );
}

#[test]
fn a_hard_link_keeps_a_file_visible() {
    let found = with(vec![package(
        PackageType::Pypi,
        "x",
        "1",
        "a/x-1.dist-info/METADATA",
    )]);
    let layers = [
        layer("0", &["f a/x-1.dist-info/METADATA"], found),
        layer(
            "1",
            &["h b/METADATA -> a/x-1.dist-info/METADATA"],
            section(),
        ),
        layer("2", &["w a"], section()),
    ];
    assert_eq!(packages(&layers), ["x 1 at b/METADATA since 0"]);
}

#[test]
fn the_operating_system_is_the_one_that_a_container_finds() {
    let os = |paths: &[(&str, &str)]| Section {
        os: paths
            .iter()
            .map(|(path, version)| FoundOs {
                path: (*path).to_owned(),
                id: "debian".to_owned(),
                version_id: (*version).to_owned(),
                codename: None,
                pretty_name: None,
                id_like: Vec::new(),
            })
            .collect(),
        ..section()
    };
    let check = |lines: &[&str], found: &[(&str, &str)], expected: Option<&str>| {
        let report = image(&[layer("0", lines, os(found))]);
        assert_eq!(
            report.target.os.map(|os| os.version_id).as_deref(),
            expected
        );
    };
    let real = ("usr/lib/os-release", "12");
    check(
        &[
            "l etc/os-release -> ../usr/lib/os-release",
            "f usr/lib/os-release",
        ],
        &[real],
        Some("12"),
    );
    check(&["f usr/lib/os-release"], &[real], Some("12"));
    check(
        &["f etc/os-release", "f usr/lib/os-release"],
        &[real, ("etc/os-release", "13")],
        Some("13"),
    );
    check(
        &["f etc/debian_version"],
        &[("etc/debian_version", "11")],
        Some("11"),
    );
    check(&["d etc"], &[], None);
}

#[test]
fn names_of_packages_say_what_they_are() {
    let os = Section {
        os: vec![FoundOs {
            path: "etc/os-release".to_owned(),
            id: "debian".to_owned(),
            version_id: "12".to_owned(),
            codename: None,
            pretty_name: None,
            id_like: Vec::new(),
        }],
        packages: vec![
            package(
                PackageType::Deb,
                "libstdc++6",
                "1:12.2.0-14~x",
                "var/lib/dpkg/status",
            ),
            package(
                PackageType::Pypi,
                "Zope.Interface",
                "5",
                "p/z.dist-info/METADATA",
            ),
            package(
                PackageType::Npm,
                "@hapi/hoek",
                "8.2.0",
                "n/node_modules/@hapi/hoek/package.json",
            ),
        ],
        ..section()
    };
    let lines = [
        "f etc/os-release",
        "f var/lib/dpkg/status",
        "f p/z.dist-info/METADATA",
        "f n/node_modules/@hapi/hoek/package.json",
    ];
    let report = image(&[layer("0", &lines, os)]);
    let names: Vec<_> = report
        .packages
        .iter()
        .map(|p| format!("{} {}", p.id, p.purl))
        .collect();
    insta::assert_snapshot!(names.join("\n"), @r"
    deb:libstdc++6@1:12.2.0-14~x/amd64 pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14~x?arch=amd64&distro=debian-12
    pypi:Zope.Interface@5#p/z.dist-info/METADATA pkg:pypi/zope-interface@5
    npm:@hapi/hoek@8.2.0#n/node_modules/@hapi/hoek/package.json pkg:npm/%40hapi/hoek@8.2.0
    ");
    assert_eq!(report.packages[0].distro.as_deref(), Some("debian-12"));
}

#[test]
fn relations_are_resolved_where_the_other_package_is() {
    let needs = |mut package: FoundPackage, names: &[&str]| {
        package.depends_on = names.iter().map(|name| (*name).to_owned()).collect();
        package
    };
    let requests = "usr/lib/python3/dist-packages/requests-2.dist-info/METADATA";
    let found = Section {
        packages: vec![
            needs(
                package(PackageType::Deb, "python3-requests", "2", STATUS_PATH),
                &["libc6", "gone"],
            ),
            package(PackageType::Deb, "libc6", "2.36", STATUS_PATH),
            package(PackageType::Pypi, "requests", "2", requests),
            needs(
                package(PackageType::Npm, "a", "1", "n/node_modules/a/package.json"),
                &["b", "c"],
            ),
            package(PackageType::Npm, "b", "1", "n/node_modules/b/package.json"),
            package(
                PackageType::Npm,
                "b",
                "2",
                "n/node_modules/a/node_modules/b/package.json",
            ),
            package(PackageType::Npm, "c", "1", "n/node_modules/c/package.json"),
        ],
        owned: vec![Owned {
            package: "python3-requests".to_owned(),
            arch: None,
            path: format!("lib{}", &requests["usr/lib".len()..]),
            digest: None,
        }],
        ..section()
    };
    let mut lines = vec!["l lib -> usr/lib".to_owned(), format!("f {STATUS_PATH}")];
    let evidence = found
        .packages
        .iter()
        .map(|package| format!("f {}", package.path));
    lines.extend(evidence.skip(2));
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let report = image(&[layer("0", &lines, found)]);
    let text = report.packages.iter().map(|package| {
        let needed: Vec<_> = package.depends_on.iter().map(|id| id.0.as_str()).collect();
        let owner = package
            .owned_by
            .as_ref()
            .map(|id| format!(" in {id}"))
            .unwrap_or_default();
        format!("{} [{}]{owner}", package.id, needed.join(", "))
    });
    insta::assert_snapshot!(text.collect::<Vec<_>>().join("\n"), @r"
    deb:libc6@2.36/amd64 []
    deb:python3-requests@2/amd64 [deb:libc6@2.36/amd64]
    pypi:requests@2#usr/lib/python3/dist-packages/requests-2.dist-info/METADATA [] in deb:python3-requests@2/amd64
    npm:a@1#n/node_modules/a/package.json [npm:b@2#n/node_modules/a/node_modules/b/package.json, npm:c@1#n/node_modules/c/package.json]
    npm:b@1#n/node_modules/b/package.json []
    npm:b@2#n/node_modules/a/node_modules/b/package.json []
    npm:c@1#n/node_modules/c/package.json []
    ");
}

const STATUS_PATH: &str = "var/lib/dpkg/status";

fn findings() -> Section {
    Section {
        findings: vec![
            FoundFinding::Secret(FoundSecret {
                rule: "key".to_owned(),
                title: "a key".to_owned(),
                severity: Severity::High,
                path: "root/key".to_owned(),
                line: 1,
                column: 1,
                end_line: 1,
                masked: "k…".to_owned(),
                advice: "rotate it".to_owned(),
                expires_at: None,
                fingerprint: "f".to_owned(),
                file_digests: Vec::new(),
            }),
            FoundFinding::Malware(FoundMalware {
                rule: "miner".to_owned(),
                ruleset: "r".to_owned(),
                severity: Severity::Critical,
                path: "tmp/x!/in/it".to_owned(),
                digest: Digest::of(b"x"),
            }),
            FoundFinding::Misconfiguration(Misconfiguration {
                id: "setuid-file".to_owned(),
                title: String::new(),
                severity: Severity::Negligible,
                clauses: Vec::new(),
                evidence: String::new(),
                path: Some("bin/su".to_owned()),
                line: None,
                remediation: String::new(),
                waived: None,
                fingerprint: model::Fingerprint("s".to_owned()),
            }),
            FoundFinding::Unknown,
        ],
        ..section()
    }
}

#[test]
fn findings_of_deleted_files_stay_and_are_marked() {
    let limits = Limits::default();
    let base = layer("0", &["f root/key", "f tmp/x", "f bin/su"], findings());
    let config = ImageConfig {
        diff_ids: vec![Digest::of(b"0"), Digest::of(b"1")],
        history: vec![
            HistoryStep {
                created_by: "COPY . /".to_owned(),
                empty_layer: false,
            },
            HistoryStep {
                created_by: "ENV x".to_owned(),
                empty_layer: true,
            },
            HistoryStep {
                created_by: "RUN rm".to_owned(),
                empty_layer: false,
            },
        ],
        ..ImageConfig::default()
    };
    let before = coalesce(std::slice::from_ref(&base), &config, subject(), &limits).findings;
    assert!(!before.secrets[0].deleted_later && !before.malware[0].deleted_later);
    assert_eq!(
        before.secrets[0].instruction, None,
        "the history is of two layers"
    );
    assert_eq!(before.misconfigurations.len(), 1);
    let gone = layer("1", &["w root/key", "w tmp", "f bin/su"], section());
    let after = coalesce(&[base, gone], &config, subject(), &limits);
    assert!(after.findings.secrets[0].deleted_later);
    assert!(after.findings.malware[0].deleted_later, "with its archive");
    assert_eq!(
        after.findings.secrets[0].instruction.as_deref(),
        Some("COPY . /")
    );
    assert_eq!(
        (
            after.findings.malware.len(),
            after.findings.misconfigurations.len()
        ),
        (1, 0)
    );
    assert_eq!(after.target.layers[1].created_by.as_deref(), Some("RUN rm"));
    assert!(after.gaps.is_empty());
}

#[test]
fn claims_are_compared_with_what_was_read() {
    let layers = [layer("0", &[], section()), layer("1", &[], section())];
    let config = ImageConfig {
        diff_ids: vec![Digest::of(b"clean")],
        ..ImageConfig::default()
    };
    let subject = Subject {
        layer_sizes: vec![0, 5],
        ..subject()
    };
    let gaps = coalesce(&layers, &config, subject, &Limits::default()).gaps;
    let codes: Vec<_> = gaps.iter().map(|gap| (gap.code, gap.hides)).collect();
    let expected = [
        (GapCode::SizeMismatch, Hides::Entries),
        (GapCode::DiffidMismatch, Hides::Entries),
        (GapCode::LayerCountMismatch, Hides::Entries),
    ];
    assert_eq!(codes, expected);
}

#[test]
fn a_malformed_file_that_is_deleted_hides_nothing() {
    let gap = Gap::new(GapCode::Malformed, Hides::Packages, "broken").at("n/package.json");
    let found = Section {
        gaps: vec![gap],
        ..section()
    };
    let base = layer("0", &["f n/package.json"], found);
    assert_eq!(image(std::slice::from_ref(&base)).gaps.len(), 1);
    assert_eq!(
        image(&[base, layer("1", &["w n"], section())]).gaps.len(),
        0
    );
}

#[test]
fn an_image_without_layers_is_empty() {
    let report = image(&[]);
    assert!(report.packages.is_empty() && report.gaps.is_empty());
}

#[test]
fn a_layer_has_the_purls_of_each_image_that_it_is_in() {
    let shared = PreparedLayer::new(layer(
        "shared",
        &["f var/lib/dpkg/status"],
        debs(&[("openssl", "3.0.11")]),
    ));
    let purls = ["debian", "ubuntu", "debian"].map(|id| {
        let os = FoundOs {
            path: "etc/os-release".to_owned(),
            id: id.to_owned(),
            version_id: "12".to_owned(),
            codename: None,
            pretty_name: None,
            id_like: Vec::new(),
        };
        let section = Section {
            os: vec![os],
            ..section()
        };
        let top = PreparedLayer::new(layer(id, &["f etc/os-release"], section));
        let layers = [&shared, &top];
        let config = ImageConfig::default();
        let report = coalesce_prepared(&layers, &config, subject(), &Limits::default());
        let purls = report.packages.iter().map(|package| package.purl.0.clone());
        purls.collect::<Vec<_>>().join(" ")
    });
    insta::assert_snapshot!(purls.join("\n"), @"
    pkg:deb/debian/openssl@3.0.11?arch=amd64&distro=debian-12
    pkg:deb/ubuntu/openssl@3.0.11?arch=amd64&distro=ubuntu-12
    pkg:deb/debian/openssl@3.0.11?arch=amd64&distro=debian-12
    ");
}
