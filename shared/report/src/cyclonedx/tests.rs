use std::collections::HashSet;

use model::{Gap, GapCode, Hides, Package, PackageId, Report};
use serde_json::Value;

use super::licenses::SPDX_IDS;
use crate::{
    Format, Options,
    tests::{
        samples::{empty, full, package},
        schemas::{SPDX, document, document_of_all, index},
    },
};

fn bom(report: &Report) -> Value {
    document(report, Format::CycloneDx, &Options::default())
}

/// Every `bom-ref` of a document, which must be unique, and every reference to one.
fn refs(value: &Value, defined: &mut Vec<String>, used: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| refs(item, defined, used)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("bom-ref", Value::String(text)) => defined.push(text.clone()),
                    ("ref", Value::String(text)) => used.push(text.clone()),
                    ("dependsOn" | "assemblies", Value::Array(items)) => {
                        used.extend(items.iter().map(|item| item.as_str().unwrap().to_owned()));
                    }
                    _ => refs(value, defined, used),
                }
            }
        }
        _ => {}
    }
}

fn check_refs(document: &Value) {
    let (mut defined, mut used) = (Vec::new(), Vec::new());
    refs(document, &mut defined, &mut used);
    let unique: HashSet<_> = defined.iter().collect();
    assert_eq!(unique.len(), defined.len(), "{defined:?}");
    for one in used {
        assert!(unique.contains(&one), "{one} is not in the document");
    }
}

fn installed(report: &mut Report, name: &str, needs: &[&str]) {
    let id = |name: &str| PackageId(format!("deb:{name}@1"));
    report.packages.push(Package {
        id: id(name),
        name: name.to_owned(),
        depends_on: needs.iter().map(|name| id(name)).collect(),
        ..package()
    });
}

fn needs_of(document: &Value, from: &str) -> Vec<String> {
    let all = document["dependencies"].as_array().unwrap();
    let one = all.iter().find(|one| one["ref"] == from).unwrap();
    let needs = one["dependsOn"].as_array().unwrap();
    needs
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_document_with_everything() {
    let mut report = full();
    report.packages[0]
        .digests
        .push(format!("sha256:{}", "ab".repeat(32)));
    // Found in two packages: one entry.
    let mut twice = report.vulnerabilities[4].clone();
    twice.package_id = report.packages[0].id.clone();
    report.vulnerabilities.truncate(4);
    let id = PackageId("deb/libssl3".to_owned());
    report.packages.push(Package {
        id: id.clone(),
        name: "libssl3".to_owned(),
        ..package()
    });
    report.vulnerabilities.push(twice.clone());
    twice.package_id = id;
    twice.package = "libssl3".to_owned();
    report.vulnerabilities.push(twice);
    for found in &mut report.vulnerabilities {
        if found.package_id.0 == "deb/zlib1g" || found.package_id.0 == "deb/perl-base" {
            found.package_id = report.packages[0].id.clone();
        }
    }
    let document = bom(&report);
    insta::assert_json_snapshot!(document["metadata"], @r#"
    {
      "component": {
        "bom-ref": "image",
        "name": "registry.example/team/app",
        "properties": [
          {
            "name": "tidewaiter:image:reference",
            "value": "registry.example/team/app:1.0"
          },
          {
            "name": "tidewaiter:image:id",
            "value": "sha256:b79606fb3afea5bd1609ed40b622142f1c98125abcfe89a76a661b0e8e343910"
          },
          {
            "name": "tidewaiter:image:platform",
            "value": "linux/amd64"
          },
          {
            "name": "tidewaiter:advisories:revision",
            "value": "7"
          },
          {
            "name": "tidewaiter:verdict",
            "value": "deny"
          },
          {
            "name": "tidewaiter:layer:digest",
            "value": "sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85"
          },
          {
            "name": "tidewaiter:layer:diffId",
            "value": "sha256:df087996d45b03e7eb8c133c0298fd98d35113fca26aaba58612fef3cc212cad"
          },
          {
            "name": "tidewaiter:layer:createdBy",
            "value": "RUN apt-get install"
          }
        ],
        "purl": "pkg:oci/app@sha256%3A05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f?arch=amd64&repository_url=registry.example%2Fteam%2Fapp&tag=1.0",
        "type": "container",
        "version": "sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f"
      },
      "lifecycles": [
        {
          "phase": "post-build"
        }
      ],
      "timestamp": "2026-01-02T12:00:00Z",
      "tools": {
        "components": [
          {
            "name": "tidewaiter",
            "type": "application",
            "version": "0.1.0"
          }
        ]
      }
    }
    "#);
    insta::assert_json_snapshot!(document["components"][1], @r#"
    {
      "bom-ref": "deb/openssl",
      "evidence": {
        "identity": [
          {
            "confidence": 1.0,
            "field": "purl",
            "methods": [
              {
                "confidence": 1.0,
                "technique": "manifest-analysis",
                "value": "var/lib/dpkg/status"
              }
            ]
          }
        ],
        "occurrences": [
          {
            "additionalContext": "layer 1, sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85",
            "location": "var/lib/dpkg/status"
          }
        ]
      },
      "hashes": [
        {
          "alg": "SHA-256",
          "content": "abababababababababababababababababababababababababababababababab"
        }
      ],
      "licenses": [
        {
          "license": {
            "acknowledgement": "declared",
            "id": "Apache-2.0"
          }
        }
      ],
      "name": "openssl",
      "properties": [
        {
          "name": "tidewaiter:package:type",
          "value": "deb"
        },
        {
          "name": "tidewaiter:layer:digest",
          "value": "sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85"
        },
        {
          "name": "tidewaiter:layer:number",
          "value": "1"
        },
        {
          "name": "tidewaiter:layer:diffId",
          "value": "sha256:df087996d45b03e7eb8c133c0298fd98d35113fca26aaba58612fef3cc212cad"
        },
        {
          "name": "tidewaiter:package:arch",
          "value": "amd64"
        },
        {
          "name": "tidewaiter:package:distro",
          "value": "debian-12"
        },
        {
          "name": "tidewaiter:source:name",
          "value": "openssl"
        },
        {
          "name": "tidewaiter:source:version",
          "value": "3.0.11-1~deb12u1"
        },
        {
          "name": "tidewaiter:package:ownedBy",
          "value": "deb/base"
        },
        {
          "name": "tidewaiter:package:direct",
          "value": "true"
        },
        {
          "name": "tidewaiter:package:dev",
          "value": "false"
        }
      ],
      "purl": "pkg:deb/debian/openssl@3.0.11-1~deb12u1?arch=amd64",
      "type": "library",
      "version": "3.0.11-1~deb12u1"
    }
    "#);
    let both = document["vulnerabilities"].as_array().unwrap();
    let both = both
        .iter()
        .find(|one| one["id"] == "CVE-2025-0001")
        .unwrap();
    insta::assert_json_snapshot!(both, @r#"
    {
      "advisories": [
        {
          "url": "https://security.example/CVE-2025-0001"
        }
      ],
      "affects": [
        {
          "ref": "deb/openssl",
          "versions": [
            {
              "status": "affected",
              "version": "3.0.11-1~deb12u1"
            },
            {
              "status": "unaffected",
              "version": "3.0.11-1~deb12u2"
            }
          ]
        },
        {
          "ref": "deb/libssl3",
          "versions": [
            {
              "status": "affected",
              "version": "3.0.11-1~deb12u1"
            },
            {
              "status": "unaffected",
              "version": "3.0.11-1~deb12u2"
            }
          ]
        }
      ],
      "bom-ref": "vulnerability:4:CVE-2025-0001",
      "description": "a title",
      "id": "CVE-2025-0001",
      "properties": [
        {
          "name": "tidewaiter:fixState",
          "value": "fixed"
        },
        {
          "name": "tidewaiter:kev",
          "value": "true"
        },
        {
          "name": "tidewaiter:epss",
          "value": "0.613"
        },
        {
          "name": "tidewaiter:fingerprint",
          "value": "5a30c73fc66e04bff0de54fd74c5241c"
        },
        {
          "name": "tidewaiter:fingerprint",
          "value": "5a30c73fc66e04bff0de54fd74c5241c"
        }
      ],
      "published": "2025-01-01T00:00:00Z",
      "ratings": [
        {
          "method": "other",
          "severity": "critical",
          "source": {
            "name": "Debian"
          }
        },
        {
          "method": "CVSSv31",
          "score": 9.8,
          "severity": "critical",
          "source": {
            "name": "nvd"
          },
          "vector": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
        }
      ],
      "recommendation": "upgrade libssl3 to 3.0.11-1~deb12u2; upgrade openssl to 3.0.11-1~deb12u2",
      "references": [
        {
          "id": "DEBIAN-CVE-2025-0001",
          "source": {
            "name": "DEBIAN"
          }
        }
      ],
      "source": {
        "name": "Debian",
        "url": "https://security.example/CVE-2025-0001"
      },
      "updated": "2025-06-01T00:00:00Z"
    }
    "#);
    check_refs(&document);
}

#[test]
fn what_was_decided_is_in_the_analysis() {
    let document = bom(&full());
    let analyses: Vec<_> = document["vulnerabilities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{}: {}", one["id"], one["analysis"]))
        .collect();
    insta::assert_snapshot!(analyses.join("\n"), @r#"
    "CVE-2025-0005": {"detail":"not_affected: component_not_present (vendor.vex.json)","justification":"code_not_present","state":"not_affected"}
    "CVE-2025-0002": null
    "CVE-2025-0003": null
    "CVE-2025-0004": {"detail":"accepted by ann until 2026-02-01: not reachable (policy.yaml)","response":["will_not_fix"],"state":"exploitable"}
    "CVE-2025-0001": null
    "#);
}

#[test]
fn everything_is_reached_from_the_image() {
    let mut report = empty();
    installed(&mut report, "app", &["libc", "libc", "gone", "app"]);
    installed(&mut report, "libc", &[]);
    installed(&mut report, "a", &["b"]);
    installed(&mut report, "b", &["c"]);
    installed(&mut report, "c", &["a", "libc"]);
    let document = bom(&report);
    assert_eq!(needs_of(&document, "image"), ["os", "deb:app@1", "deb:a@1"]);
    assert_eq!(needs_of(&document, "deb:app@1"), ["deb:libc@1"]);
    assert_eq!(needs_of(&document, "deb:libc@1"), [""; 0]);
    check_refs(&document);
}

#[test]
fn a_list_that_gaps_cut_is_called_incomplete() {
    let mut report = empty();
    report
        .gaps
        .push(Gap::new(GapCode::LimitFile, Hides::Secrets, "x"));
    assert_eq!(bom(&report)["compositions"], Value::Null);
    report
        .gaps
        .push(Gap::new(GapCode::Truncated, Hides::Entries, "x"));
    assert_eq!(
        bom(&report)["compositions"],
        serde_json::json!([{"aggregate": "incomplete", "assemblies": ["image"]}])
    );
}

#[test]
fn the_serial_number_follows_the_content() {
    let number = |report: &Report| bom(report)["serialNumber"].as_str().unwrap().to_owned();
    let mut report = full();
    let first = number(&report);
    assert_eq!(first, number(&report));
    report.packages[0].version.push('1');
    assert_ne!(first, number(&report));
    assert_eq!(first.as_bytes()["urn:uuid:00000000-0000-".len()], b'8');
}

#[test]
fn an_index_holds_the_images_of_its_platforms() {
    let document = document_of_all(&index(3), Format::CycloneDx);
    check_refs(&document);
    assert_eq!(document["components"].as_array().unwrap().len(), 3);
    let image = &document["components"][1];
    assert_eq!(
        (&image["type"], &image["bom-ref"]),
        (&"container".into(), &"linux/arch1|image".into())
    );
    assert_eq!(image["components"][1]["name"], "openssl");
    assert_eq!(
        needs_of(&document, "index"),
        [
            "linux/arch0|image",
            "linux/arch1|image",
            "linux/arch2|image"
        ]
    );
}

#[test]
fn a_scoped_name_is_divided() {
    let check = |kind, name: &str, expected: (Option<&str>, &str)| {
        let mut report = empty();
        report.packages.push(Package {
            kind,
            name: name.to_owned(),
            ..package()
        });
        let document = bom(&report);
        let one = &document["components"][1];
        assert_eq!(
            (one["group"].as_str(), one["name"].as_str().unwrap()),
            expected
        );
    };
    use model::PackageType::{Deb, Maven, Npm};
    check(Npm, "@babel/core", (Some("@babel"), "core"));
    check(Npm, "left-pad", (None, "left-pad"));
    check(
        Maven,
        "org.slf4j:slf4j-api",
        (Some("org.slf4j"), "slf4j-api"),
    );
    check(Deb, "a:b", (None, "a:b"));
}

#[test]
fn the_license_identifiers_are_those_of_the_schema() {
    let schema: Value = serde_json::from_str(SPDX).unwrap();
    let mut listed: Vec<_> = schema["enum"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();
    listed.sort_unstable();
    assert_eq!(SPDX_IDS.lines().collect::<Vec<_>>(), listed);
}
