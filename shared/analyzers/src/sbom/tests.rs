use archive::Limits;
use model::{Confidence, Package, PackageType, Report};

use super::*;
use crate::{Analyzers, Config, lock::tests::scan};

/// What `report` writes of its sample, and the sample.
const CYCLONEDX: &[u8] = include_bytes!("../../../report/testdata/sbom/sample.cdx.json");
const SPDX: &[u8] = include_bytes!("../../../report/testdata/sbom/sample.spdx.json");
const SAMPLE: &[u8] = include_bytes!("../../../report/testdata/sbom/sample.json");

fn read(text: &str) -> ImageReport {
    read_sbom(text.as_bytes(), "sbom:x").unwrap()
}

fn wrong(text: &str) -> String {
    read_sbom(text.as_bytes(), "sbom:x")
        .unwrap_err()
        .to_string()
}

/// A `CycloneDX` document with these components.
fn cyclonedx(components: &str) -> String {
    format!(r#"{{"bomFormat": "CycloneDX", "specVersion": "1.4", "components": [{components}]}}"#)
}

fn only(report: &ImageReport) -> &Package {
    let [package] = report.packages.as_slice() else {
        panic!("one package: {:?}", report.packages);
    };
    package
}

#[test]
fn what_was_written_here_comes_back_as_it_was() {
    let sample: Report = serde_json::from_slice(SAMPLE).unwrap();
    for document in [CYCLONEDX, SPDX] {
        let report = read_sbom(document, "sbom:x").unwrap();
        assert_eq!(report.packages, sample.packages);
        assert_eq!(report.target.os, sample.target.os);
        assert_eq!(report.target.layers, sample.target.layers);
        assert_eq!(report.target.platform, sample.target.platform);
        assert_eq!(report.gaps, Vec::new());
    }
}

#[test]
fn names_and_versions_are_those_of_the_package_manager() {
    let check = |component: &str, kind: PackageType, name: &str, version: &str| {
        let report = read(&cyclonedx(component));
        let package = only(&report);
        let is = (
            package.kind,
            package.name.as_str(),
            package.version.as_str(),
        );
        assert_eq!(is, (kind, name, version));
    };
    check(
        r#"{"type": "library", "group": "@scope", "name": "tool", "version": "1.0", "purl": "pkg:npm/%40scope/tool@1.0"}"#,
        PackageType::Npm,
        "@scope/tool",
        "1.0",
    );
    check(
        r#"{"type": "library", "name": "Flask_Thing", "version": "1.0", "purl": "pkg:pypi/flask-thing@1.0"}"#,
        PackageType::Pypi,
        "Flask_Thing",
        "1.0",
    );
    check(
        r#"{"type": "library", "group": "org.a", "name": "b", "version": "1", "purl": "pkg:maven/org.a/b@1?type=jar"}"#,
        PackageType::Maven,
        "org.a:b",
        "1",
    );
    check(
        r#"{"type": "library", "name": "bash", "version": "5.1-4", "purl": "pkg:rpm/redhat/bash@5.1-4?arch=x86_64&epoch=1"}"#,
        PackageType::Rpm,
        "bash",
        "1:5.1-4",
    );
    check(
        r#"{"type": "library", "name": "github.com/A/b", "version": "v1", "purl": "pkg:golang/github.com/a/b@v1"}"#,
        PackageType::Golang,
        "github.com/A/b",
        "v1",
    );
}

#[test]
fn what_syft_and_trivy_say_beside_is_understood() {
    let report = read(&cyclonedx(
        r#"{"type": "operating-system", "name": "debian", "version": "12.5"},
           {"type": "library", "bom-ref": "a", "name": "libssl3", "version": "3.0.11-1", "purl": "pkg:deb/debian/libssl3@3.0.11-1?arch=amd64&distro=debian-12.5",
            "properties": [{"name": "aquasecurity:trivy:SrcName", "value": "openssl"}, {"name": "aquasecurity:trivy:SrcVersion", "value": "3.0.11"}, {"name": "aquasecurity:trivy:SrcRelease", "value": "1"}]}"#,
    ));
    let package = only(&report);
    assert_eq!(package.source_name.as_deref(), Some("openssl"));
    assert_eq!(package.source_version.as_deref(), Some("3.0.11-1"));
    assert_eq!(package.distro.as_deref(), Some("debian-12.5"));
    assert_eq!(package.confidence, Confidence::Medium);
    let os = report.target.os.unwrap();
    assert_eq!((os.id.as_str(), os.version_id.as_str()), ("debian", "12.5"));

    let report = read(&cyclonedx(
        r#"{"type": "library", "name": "musl", "version": "1.2.4-r2", "purl": "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64&upstream=musl-src&distro=alpine-3.19.1",
            "properties": [{"name": "syft:location:0:path", "value": "/lib/apk/db/installed"}]},
           {"type": "file", "name": "/lib/apk/db/installed"}"#,
    ));
    let package = only(&report);
    assert_eq!(package.source_name.as_deref(), Some("musl-src"));
    assert_eq!(package.path, "lib/apk/db/installed");
    let os = report.target.os.unwrap();
    assert_eq!(
        (os.id.as_str(), os.version_id.as_str()),
        ("alpine", "3.19.1")
    );
}

#[test]
fn a_component_that_cannot_be_compared_is_a_gap() {
    let report = read(&cyclonedx(
        r#"{"type": "library", "name": "a", "version": "1"}, {"type": "library", "name": "b", "purl": "pkg:npm/b"}, {"type": "application", "name": "package-lock.json"}"#,
    ));
    assert!(report.packages.is_empty());
    assert_eq!(report.gaps.len(), 1);
    assert_eq!(report.gaps[0].hides, Hides::Packages);
    assert!(
        report.gaps[0]
            .detail
            .ends_with("cannot be compared: `a`, `b`"),
        "{:?}",
        report.gaps
    );
}

#[test]
fn what_calls_itself_incomplete_is_a_gap() {
    let text = r#"{"bomFormat": "CycloneDX", "compositions": [{"aggregate": "incomplete"}]}"#;
    assert_eq!(read(text).gaps.len(), 1);
    let text = r#"{"spdxVersion": "SPDX-2.3", "relationships": [{"spdxElementId": "a", "relationshipType": "CONTAINS", "relatedSpdxElement": "NOASSERTION"}]}"#;
    assert_eq!(read(text).gaps.len(), 1);
}

#[test]
fn several_operating_systems_are_a_gap() {
    let os =
        |name: &str| format!(r#"{{"type": "operating-system", "name": "{name}", "version": "1"}}"#);
    assert!(
        read(&cyclonedx(&format!("{},{}", os("a"), os("a"))))
            .gaps
            .is_empty()
    );
    let report = read(&cyclonedx(&format!("{},{}", os("a"), os("b"))));
    assert_eq!(report.gaps[0].code, GapCode::UnknownOs);
    assert_eq!(report.target.os.unwrap().id, "a");
}

#[test]
fn the_same_reference_twice_is_two_packages() {
    let one = r#"{"type": "library", "bom-ref": "x", "name": "a", "version": "1", "purl": "pkg:npm/a@1"}"#;
    let report = read(&cyclonedx(&format!("{one},{one}")));
    let [first, second] = report.packages.as_slice() else {
        panic!("two packages");
    };
    assert_ne!(first.id, second.id);
}

const SPDX_3: &str = r#"{"@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld", "@graph": [
    {"type": "SpdxDocument", "spdxId": "urn:d"},
    {"type": "software_Package", "spdxId": "urn:i", "name": "image", "software_primaryPurpose": "container"},
    {"type": "software_Package", "spdxId": "urn:a", "name": "a", "software_packageVersion": "1", "software_packageUrl": "pkg:npm/a@1", "verifiedUsing": [{"type": "Hash", "algorithm": "sha256", "hashValue": "00"}]},
    {"type": "software_Package", "spdxId": "urn:b", "name": "b", "software_packageVersion": "2", "externalIdentifier": [{"externalIdentifierType": "packageUrl", "identifier": "pkg:npm/b@2"}]},
    {"type": "simplelicensing_LicenseExpression", "spdxId": "urn:l", "simplelicensing_licenseExpression": "MIT"},
    {"type": "Relationship", "spdxId": "urn:r1", "from": "urn:a", "relationshipType": "hasDeclaredLicense", "to": ["urn:l"]},
    {"type": "Relationship", "spdxId": "urn:r2", "from": "urn:a", "relationshipType": "dependsOn", "to": ["urn:b", "urn:gone"]}]}"#;

#[test]
fn spdx_3_has_packages_licenses_and_needs() {
    let report = read(SPDX_3);
    let [a, b] = report.packages.as_slice() else {
        panic!("two packages: {:?}", report.packages);
    };
    assert_eq!((a.name.as_str(), b.name.as_str()), ("a", "b"));
    assert_eq!(
        (&a.licenses[..], &a.digests[..]),
        (&["MIT".to_owned()][..], &["sha256:00".to_owned()][..])
    );
    assert_eq!(a.depends_on, std::slice::from_ref(&b.id));
}

#[test]
fn tags_and_values_say_the_same_as_json() {
    let text = "SPDXVersion: SPDX-2.3\n\
        PackageName: app\nSPDXID: SPDXRef-a\nPackageVersion: 1\n\
        PackageChecksum: SHA1: da39a3ee5e6b4b0d3255bfef95601890afd80709\n\
        ExternalRef: PACKAGE-MANAGER purl pkg:npm/app@1\n\
        PackageName: lib\nSPDXID: SPDXRef-b\nPackageVersion: 2\nPackageLicenseDeclared: LicenseRef-1\n\
        ExternalRef: PACKAGE-MANAGER purl pkg:npm/lib@2\n\
        Relationship: SPDXRef-a DEPENDS_ON SPDXRef-b\n\
        Annotator: Tool: x\nAnnotationComment: <text>tidewaiter:package:path: app/package.json</text>\nSPDXREF: SPDXRef-a\n\
        LicenseID: LicenseRef-1\nLicenseName: As Is\n";
    let report = read(text);
    let [app, lib] = report.packages.as_slice() else {
        panic!("two packages: {:?}", report.packages);
    };
    assert_eq!(app.depends_on, std::slice::from_ref(&lib.id));
    assert_eq!(app.path, "app/package.json");
    assert_eq!(
        app.digests,
        ["sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709"]
    );
    assert_eq!(lib.licenses, ["As Is"]);
}

#[test]
fn other_documents_are_refused_with_a_reason() {
    let check = |text: &str, expected: &str| {
        let error = wrong(text);
        assert!(error.contains(expected), "{text}: {error}");
    };
    check("", "no JSON, no XML");
    check("{", "no JSON object");
    check("{}", "neither CycloneDX nor SPDX");
    check(r#"{"spdxVersion": "SPDX-9.9"}"#, "`SPDX-9.9`");
    check(
        r#"{"bomFormat": "CycloneDX", "components": 1}"#,
        "as CycloneDX it is broken",
    );
    check(r#"{"@context": "x", "@graph": []}"#, "no document of SPDX");
    check("<html/>", "no CycloneDX");
    let nested = |depth: usize| {
        let (open, close) = ("{\"components\": [".repeat(depth), "]}".repeat(depth));
        cyclonedx(&format!("{open}{close}"))
    };
    assert!(read_sbom(nested(50).as_bytes(), "sbom:x").is_ok());
    check(&nested(100), "recursion");
}

#[test]
fn a_document_in_an_image_says_nothing_of_what_has_records_of_its_own() {
    let component = |name: &str, purl: &str| {
        format!(r#"{{"type": "library", "name": "{name}", "version": "1.0.0", "purl": "{purl}"}}"#)
    };
    let components = [
        component("a", "pkg:npm/a@1.0.0"),
        component("b", "pkg:npm/b@1.0.0"),
        component("libc6", "pkg:deb/debian/libc6@1.0.0"),
        component("scikit_learn", "pkg:pypi/scikit_learn@1.0.0"),
    ];
    let document = cyclonedx(&components.join(","));
    let record = r#"{"name": "a", "version": "1.0.0"}"#;
    let metadata = "Metadata-Version: 2.1\nName: scikit-learn\nVersion: 1.0.0\n";
    let analyzers = Analyzers::all(&Config::default(), &Limits::default());
    let files = [
        ("srv/app.cdx.json", document.as_str()),
        ("srv/node_modules/a/package.json", record),
        ("srv/python/scikit_learn-1.0.0.dist-info/METADATA", metadata),
    ];
    let report = scan(&files, &analyzers);
    let shown: Vec<_> = report
        .packages
        .iter()
        .map(|of| (of.name.as_str(), of.path.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (
                "scikit-learn",
                "srv/python/scikit_learn-1.0.0.dist-info/METADATA"
            ),
            ("a", "srv/node_modules/a/package.json"),
            ("b", "srv/app.cdx.json"),
        ]
    );
    // Without the record, the document's word is all there is.
    let report = scan(&files[..1], &analyzers);
    assert_eq!(report.packages.len(), 3);
}

#[test]
fn a_file_that_only_ends_like_a_document_is_left_alone() {
    let analyzers = Analyzers::all(&Config::default(), &Limits::default());
    let report = scan(
        &[
            ("srv/molecule.cdx", "VjCD0100"),
            ("srv/a.spdx", "a licence"),
        ],
        &analyzers,
    );
    assert!(
        report.packages.is_empty() && report.gaps.is_empty(),
        "{:?}",
        report.gaps
    );
}

#[test]
fn components_are_counted_and_cut() {
    let of = |count: usize| {
        let mut bom = Bom::default();
        for _ in 0..count {
            bom.push(Item::default());
        }
        (bom.items.len(), bom.is_cut)
    };
    assert_eq!(of(ITEMS_MAX), (ITEMS_MAX, false));
    assert_eq!(of(ITEMS_MAX + 1), (ITEMS_MAX, true));
    let mut bom = Bom::default();
    for _ in 0..NEEDS_MAX {
        bom.need("", "");
    }
    assert!(!bom.is_cut && gaps_of(&bom).is_empty());
    bom.need("", "");
    assert_eq!(gaps_of(&bom)[0].code, GapCode::LimitResults);
}

#[test]
fn layers_are_counted_and_cut() {
    let of = |count: usize| {
        let property = (
            "tidewaiter:layer:digest".to_owned(),
            Digest::of(b"x").to_string(),
        );
        let bom = Bom {
            subject: Some(Item {
                properties: vec![property; count],
                ..Item::default()
            }),
            ..Bom::default()
        };
        layers(&bom, Digest::of(b"document"), 1).len()
    };
    assert_eq!(
        (of(0), of(LAYERS_MAX), of(LAYERS_MAX + 1)),
        (1, LAYERS_MAX, LAYERS_MAX)
    );
}
