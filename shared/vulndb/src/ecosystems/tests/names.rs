//! Which ecosystems and names a package is looked up by.

use model::{Digest, Os, Package, PackageId, PackageType, Purl};

use super::of_type;
use crate::ecosystems::{family_of, has_releases};

fn package(kind: PackageType, name: &str, version: &str) -> Package {
    Package {
        id: PackageId(format!("{kind}:{name}@{version}")),
        kind,
        name: name.to_owned(),
        version: version.to_owned(),
        purl: Purl(format!("pkg:{kind}/{name}@{version}")),
        path: String::new(),
        within: None,
        layer: Digest::of(b"layer"),
        arch: None,
        distro: None,
        source_name: None,
        source_version: None,
        vendor: None,
        modularity: None,
        licenses: Vec::new(),
        depends_on: Vec::new(),
        digests: Vec::new(),
        owned_by: None,
        direct: None,
        dev: None,
        confidence: model::Confidence::High,
    }
}

fn os(id: &str, version_id: &str, pretty_name: &str) -> Os {
    Os {
        id: id.to_owned(),
        version_id: version_id.to_owned(),
        eol: None,
        pretty_name: Some(pretty_name.to_owned()),
        codename: None,
    }
}

/// `ecosystem name version method`, a line each.
fn asked(package: &Package, os: Option<&Os>) -> Vec<String> {
    let family = family_of(package).expect("it is of a family");
    let queries = family.queries(package, os);
    let line = |query: crate::Query| {
        let crate::Lookup { ecosystem, name } = query.lookup;
        format!("{ecosystem} {name} {} {}", query.version, query.method)
    };
    queries.into_iter().map(line).collect()
}

fn releases(id: &str, version_id: &str, pretty_name: &str) -> Vec<String> {
    let os = os(id, version_id, pretty_name);
    assert!(has_releases(&os), "{pretty_name}");
    of_type("rpm").releases(&os)
}

#[test]
fn names_are_spelled_as_the_ecosystem_does() {
    let check = |purl_type: &str, name: &str, expected: &str| {
        assert_eq!(of_type(purl_type).normalize(name), expected);
    };
    check("pypi", "Friendly-._.Bard", "friendly-bard");
    check("npm", "@Scope/Name", "@Scope/Name");
    check("nuget", "Newtonsoft.Json", "newtonsoft.json");
    check("composer", "Symfony/Http-Kernel", "symfony/http-kernel");
    check(
        "golang",
        "github.com/BurntSushi/toml",
        "github.com/BurntSushi/toml",
    );
    check("maven", "org.Acme:Core", "org.Acme:Core");
    for name in [
        "https://github.com/Apple/swift-nio.git",
        "git@github.com:apple/swift-nio.git",
        "github.com/apple/swift-nio/",
    ] {
        check("swift", name, "github.com/apple/swift-nio");
    }
    check("github", "Actions/Checkout", "actions/checkout");
}

#[test]
fn a_package_without_a_kind_of_its_own_is_known_by_its_purl() {
    let swift = Package {
        purl: Purl("pkg:swift/github.com/Apple/swift-nio@2.40.0".to_owned()),
        ..package(PackageType::Generic, "swift-nio", "2.40.0")
    };
    assert_eq!(
        asked(&swift, None),
        ["SwiftURL github.com/apple/swift-nio 2.40.0 package"]
    );
    let action = Package {
        purl: Purl("pkg:github/tj-actions/changed-files@v45".to_owned()),
        ..package(PackageType::Generic, "changed-files", "v45")
    };
    assert_eq!(
        asked(&action, None),
        ["GitHub Actions tj-actions/changed-files v45 package"]
    );
    let bitnami = Package {
        purl: Purl("pkg:bitnami/mysql@8.0.32-4?arch=amd64".to_owned()),
        ..package(PackageType::Generic, "mysql", "8.0.32-4")
    };
    assert_eq!(asked(&bitnami, None), ["Bitnami mysql 8.0.32 package"]);
    let other = package(PackageType::Generic, "thing", "1");
    assert!(
        family_of(&other).is_none() && family_of(&package(PackageType::Conda, "x", "1")).is_none()
    );
}

#[test]
fn versions_lose_what_advisories_do_not_have() {
    let gem = |version: &str| asked(&package(PackageType::Gem, "nokogiri", version), None);
    assert_eq!(
        gem("1.15.4-x86_64-linux"),
        ["RubyGems nokogiri 1.15.4 package"]
    );
    assert_eq!(gem("1.15.4-java"), ["RubyGems nokogiri 1.15.4 package"]);
    assert_eq!(gem("1.15.4-rc1"), ["RubyGems nokogiri 1.15.4-rc1 package"]);
    let drupal = package(PackageType::Composer, "drupal/Token", "1.0.0");
    assert_eq!(
        asked(&drupal, None),
        [
            "Packagist drupal/token 1.0.0 package",
            "Packagist:https://packages.drupal.org/8 drupal/token 1.0.0 package",
        ]
    );
}

#[test]
fn rpm_distributions_have_the_releases_that_osv_names() {
    assert_eq!(
        releases("almalinux", "9.4", "AlmaLinux 9.4 (Seafoam Ocelot)"),
        ["AlmaLinux:9"]
    );
    assert_eq!(
        releases("rocky", "8.9", "Rocky Linux 8.9"),
        ["Rocky Linux:8"]
    );
    assert_eq!(
        releases("rhel", "9.3", "Red Hat Enterprise Linux 9.3 (Plow)"),
        ["::baseos", "::appstream", "::crb", ""].map(|s| format!("Red Hat:enterprise_linux:9{s}"))
    );
    let ten = releases("rhel", "10.1", "Red Hat Enterprise Linux 10.1");
    assert!(
        ten.contains(&"Red Hat:enterprise_linux:10.2".to_owned()),
        "{ten:?}"
    );
    assert!(releases("centos", "7", "CentOS Linux 7 (Core)")[0].ends_with("7::server"));
    assert_eq!(
        of_type("rpm").releases(&os("centos", "9", "CentOS Stream 9")),
        [""; 0]
    );
    let sles = releases("sles", "15.5", "SUSE Linux Enterprise Server 15 SP5");
    assert_eq!(sles[0], "SUSE:Linux Enterprise Server 15 SP5");
    assert!(sles.contains(&"SUSE:Linux Enterprise Module for Basesystem 15 SP5".to_owned()));
    assert_eq!(
        releases("opensuse-leap", "15.5", "openSUSE Leap 15.5"),
        ["openSUSE:Leap 15.5"]
    );
    assert_eq!(
        releases("opensuse-tumbleweed", "20260101", "openSUSE Tumbleweed"),
        ["openSUSE:Tumbleweed"]
    );
    assert_eq!(
        releases("openEuler", "24.03", "openEuler 24.03 (LTS-SP1)"),
        ["openEuler:24.03-LTS-SP1"]
    );
    assert_eq!(
        releases("photon", "5.0", "VMware Photon OS/Linux"),
        ["Photon OS:5.0"]
    );
    assert_eq!(
        releases("mariner", "2.0", "CBL-Mariner/Linux"),
        ["Azure Linux:2"]
    );
    assert_eq!(
        releases("azurelinux", "3.0", "Microsoft Azure Linux 3.0"),
        ["Azure Linux:3"]
    );
    assert_eq!(releases("mageia", "9", "Mageia 9"), ["Mageia:9"]);
    assert_eq!(
        releases("amzn", "2018.03", "Amazon Linux AMI 2018.03"),
        ["Amazon Linux:1"]
    );
    assert_eq!(
        releases("amzn", "2023", "Amazon Linux 2023"),
        ["Amazon Linux:2023"]
    );
    assert_eq!(
        releases("ol", "9.3", "Oracle Linux Server 9.3"),
        ["Oracle Linux:9"]
    );
}

#[test]
fn rpm_packages_are_asked_by_both_names_and_apk_packages_by_origin() {
    let rocky = os("rocky", "9.3", "Rocky Linux 9.3");
    let libs = Package {
        source_name: Some("openssl".to_owned()),
        source_version: Some("1:3.0.7-24.el9".to_owned()),
        ..package(PackageType::Rpm, "openssl-libs", "1:3.0.7-24.el9")
    };
    assert_eq!(
        asked(&libs, Some(&rocky)),
        [
            "Rocky Linux:9 openssl-libs 1:3.0.7-24.el9 package",
            "Rocky Linux:9 openssl 1:3.0.7-24.el9 source_package",
        ]
    );
    assert!(asked(&libs, None).is_empty());
    assert!(of_type("rpm").is_exempt(&package(PackageType::Rpm, "bash-debuginfo", "5")));
    let sub = Package {
        source_name: Some("openssl".to_owned()),
        ..package(PackageType::Apk, "libssl3", "3.1.4-r0")
    };
    let wolfi = os("wolfi", "20230201", "Wolfi");
    assert_eq!(
        asked(&sub, Some(&wolfi)),
        [
            "Wolfi openssl 3.1.4-r0 origin",
            "Wolfi libssl3 3.1.4-r0 package"
        ]
    );
    for (id, release, expected) in [
        ("alpine", "3.19.1", "Alpine:v3.19 openssl 3.1.4-r0 origin"),
        ("alpaquita", "23", "Alpaquita:23 openssl 3.1.4-r0 origin"),
        (
            "alpaquita",
            "stream",
            "Alpaquita:stream openssl 3.1.4-r0 origin",
        ),
        (
            "bellsoft-hardened-containers",
            "25",
            "BellSoft Hardened Containers:25 openssl 3.1.4-r0 origin",
        ),
    ] {
        assert_eq!(asked(&sub, Some(&os(id, release, id))), [expected]);
    }
}

/// What OSV.dev has exports of, beside what is in no image (`Android`, `FreeBSD`, `Linux`, `VSCode`,
/// `opam`) and what has commits and no versions (`GIT`, `OSS-Fuzz`).
#[test]
fn every_ecosystem_of_osv_that_images_hold_has_its_rules() {
    let names = [
        "AlmaLinux:9",
        "Alpaquita:23",
        "Alpine:v3.20",
        "Azure Linux:3",
        "BellSoft Hardened Containers:23",
        "Bioconductor",
        "Bitnami",
        "CRAN",
        "Chainguard",
        "CleanStart",
        "ConanCenter",
        "Debian:12",
        "Docker Hardened Images:Debian:13",
        "Echo",
        "GHC",
        "GitHub Actions",
        "Go",
        "Hackage",
        "Hex",
        "Julia",
        "Kubernetes",
        "Mageia:9",
        "Maven:https://maven.google.com",
        "MinimOS",
        "NuGet",
        "Packagist:https://packages.drupal.org/8",
        "Photon OS:5.0",
        "Pub",
        "PyPI",
        "Red Hat:enterprise_linux:9::appstream",
        "Rocky Linux:9",
        "Root:Alpine:3.18",
        "RubyGems",
        "SUSE:Linux Enterprise Server 15 SP5",
        "SwiftURL",
        "TuxCare:Alpine:v3.16",
        "Ubuntu:22.04:LTS",
        "Wolfi",
        "crates.io",
        "npm",
        "openEuler:24.03-LTS",
        "openSUSE:Leap 15.6",
    ];
    for name in names {
        assert!(crate::ecosystems::family(name).is_some(), "{name}");
    }
    assert!(crate::ecosystems::family("Android").is_none());
    let cleanstart = ["cleanstart", "clnstrt"].map(|id| os(id, "2026.1", "CleanStart"));
    let openssl = package(PackageType::Apk, "openssl", "3.1.4-r0");
    for os in cleanstart {
        assert_eq!(
            asked(&openssl, Some(&os)),
            ["CleanStart openssl 3.1.4-r0 origin"]
        );
    }
}
