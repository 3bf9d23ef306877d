//! Reports that the tests write.

use jiff::Timestamp;
use model::{
    AdvisoryStamp, Confidence, Cvss, Decision, Digest, Feed, Fingerprint, FixState, Gap, GapCode,
    Hides, License, LicenseCategory, Malware, Match, Misconfiguration, Os, Package, PackageId,
    PackageType, Purl, REPORT_SCHEMA, Reason, RemovedPackage, Report, ReportAnalyzer,
    RuntimeConfig, Secret, Severity, Tampered, Target, TargetLayer, Tool, Verdict, Vex,
    Vulnerability, Waived,
};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn empty() -> Report {
    Report {
        schema: REPORT_SCHEMA.to_owned(),
        tool: Tool::tidewaiter("0.1.0"),
        created_at: time("2026-01-02T12:00:00Z"),
        target: Target {
            reference: "registry.example/team/app:1.0".to_owned(),
            index_digest: None,
            manifest_digest: Some(Digest::of(b"manifest")),
            image_id: Digest::of(b"config"),
            platform: "linux/amd64".parse().unwrap(),
            created: None,
            os: Some(Os {
                id: "debian".to_owned(),
                version_id: "12".to_owned(),
                eol: Some(false),
                pretty_name: Some("Debian GNU/Linux 12 (bookworm)".to_owned()),
                codename: Some("bookworm".to_owned()),
            }),
            layers: vec![TargetLayer {
                digest: Digest::of(b"layer"),
                diff_id: Some(Digest::of(b"diff")),
                size: 123,
                created_by: Some("RUN apt-get install".to_owned()),
            }],
            config: RuntimeConfig::default(),
        },
        analyzers: vec![ReportAnalyzer {
            name: "dpkg".to_owned(),
            version: 1,
        }],
        advisories: AdvisoryStamp {
            revision: 7,
            feeds: vec![
                Feed {
                    name: "Debian".to_owned(),
                    fetched_at: time("2026-01-02T09:30:00Z"),
                    coverage: vec!["Debian:12".to_owned()],
                    advisories: 40_000,
                    partial: false,
                },
                Feed {
                    name: "PyPI".to_owned(),
                    fetched_at: time("2025-12-30T09:30:00Z"),
                    coverage: vec!["PyPI".to_owned()],
                    advisories: 9_000,
                    partial: false,
                },
            ],
        },
        packages: Vec::new(),
        vulnerabilities: Vec::new(),
        secrets: Vec::new(),
        misconfigurations: Vec::new(),
        malware: Vec::new(),
        licenses: Vec::new(),
        tampered: Vec::new(),
        removed: Vec::new(),
        gaps: Vec::new(),
        verdict: verdict(Decision::Allow, Vec::new()),
    }
}

pub(crate) fn verdict(decision: Decision, reasons: Vec<Reason>) -> Verdict {
    Verdict {
        decision,
        reasons,
        policy: "default".parse().unwrap(),
        policy_revision: 0,
        advisory_revision: 7,
        evaluated_at: time("2026-01-02T12:00:00Z"),
        valid_until: Some(time("2026-01-09T09:30:00Z")),
    }
}

pub(crate) fn reason(rule: &str, decision: Decision, message: &str, remediation: &str) -> Reason {
    Reason {
        rule: rule.to_owned(),
        decision,
        fingerprints: vec![Fingerprint::of(&[rule])],
        message: message.to_owned(),
        remediation: remediation.to_owned(),
    }
}

pub(crate) fn vulnerability(
    id: &str,
    package: &str,
    version: &str,
    severity: Severity,
) -> Vulnerability {
    Vulnerability {
        id: id.to_owned(),
        aliases: vec![format!("DEBIAN-{id}")],
        package_id: PackageId(format!("deb/{package}")),
        package: package.to_owned(),
        kind: PackageType::Deb,
        installed_version: version.to_owned(),
        fixed_versions: Vec::new(),
        fix_state: FixState::NotFixed,
        severity,
        severity_level: severity.level(),
        cvss: Vec::new(),
        epss: None,
        kev: false,
        title: "a title".to_owned(),
        url: format!("https://security.example/{id}"),
        source: "Debian".to_owned(),
        published: Some(time("2025-01-01T00:00:00Z")),
        modified: Some(time("2025-06-01T00:00:00Z")),
        path: "var/lib/dpkg/status".to_owned(),
        layer: Digest::of(b"layer"),
        matched: Match {
            method: "source_package".to_owned(),
            confidence: Confidence::High,
            evidence: vec!["DSA-1: < 1.2".to_owned()],
        },
        vex: None,
        waived: None,
        fingerprint: Fingerprint::of(&[id, package]),
    }
}

fn fixed_in(mut found: Vulnerability, versions: &[&str]) -> Vulnerability {
    found.fixed_versions = versions
        .iter()
        .map(|version| (*version).to_owned())
        .collect();
    found.fix_state = FixState::Fixed;
    found
}

pub(crate) fn waived() -> Waived {
    Waived {
        reason: "not reachable".to_owned(),
        author: "ann".to_owned(),
        expires: "2026-02-01".parse().unwrap(),
        source: "policy.yaml".to_owned(),
    }
}

fn secret() -> Secret {
    Secret {
        rule: "aws-access-key".to_owned(),
        title: "AWS access key".to_owned(),
        severity: Severity::High,
        path: "app/.env".to_owned(),
        line: 3,
        column: 9,
        end_line: 3,
        layer: Digest::of(b"layer"),
        instruction: Some("COPY . /app".to_owned()),
        deleted_later: true,
        masked: "AKIA****".to_owned(),
        advice: "revoke it".to_owned(),
        expires_at: None,
        waived: None,
        fingerprint: Fingerprint::of(&["secret"]),
    }
}

fn misconfiguration() -> Misconfiguration {
    Misconfiguration {
        id: "TW-ROOT".to_owned(),
        title: "runs as root".to_owned(),
        severity: Severity::Medium,
        clauses: vec!["CIS Docker 4.1".to_owned()],
        evidence: "no USER".to_owned(),
        path: None,
        line: None,
        remediation: "add USER".to_owned(),
        waived: None,
        fingerprint: Fingerprint::of(&["root"]),
    }
}

fn vulnerabilities() -> Vec<Vulnerability> {
    let mut first = fixed_in(
        vulnerability(
            "CVE-2025-0001",
            "openssl",
            "3.0.11-1~deb12u1",
            Severity::Critical,
        ),
        &["3.0.11-1~deb12u2"],
    );
    first.kev = true;
    first.epss = Some(0.613);
    first.cvss = vec![Cvss {
        source: "nvd".to_owned(),
        version: "3.1".to_owned(),
        vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H".to_owned(),
        score: 9.8,
    }];
    let second = vulnerability(
        "CVE-2025-0002",
        "openssl",
        "3.0.11-1~deb12u1",
        Severity::Low,
    );
    let mut third = vulnerability("CVE-2025-0003", "zlib1g", "1:1.2.13", Severity::High);
    third.fix_state = FixState::WontFix;
    let mut fourth = vulnerability("CVE-2025-0004", "perl-base", "5.36.0-7", Severity::High);
    fourth.waived = Some(waived());
    let mut fifth = vulnerability("CVE-2025-0005", "perl-base", "5.36.0-7", Severity::Medium);
    fifth.vex = Some(Vex {
        status: "not_affected".to_owned(),
        justification: Some("component_not_present".to_owned()),
        source: "vendor.vex.json".to_owned(),
    });
    vec![fifth, second, third, fourth, first]
}

pub(crate) fn package() -> Package {
    Package {
        id: PackageId("deb/openssl".to_owned()),
        kind: PackageType::Deb,
        name: "openssl".to_owned(),
        version: "3.0.11-1~deb12u1".to_owned(),
        purl: Purl("pkg:deb/debian/openssl@3.0.11-1~deb12u1?arch=amd64".to_owned()),
        path: "var/lib/dpkg/status".to_owned(),
        within: None,
        layer: Digest::of(b"layer"),
        arch: Some("amd64".to_owned()),
        distro: Some("debian-12".to_owned()),
        source_name: Some("openssl".to_owned()),
        source_version: Some("3.0.11-1~deb12u1".to_owned()),
        vendor: None,
        modularity: None,
        licenses: vec!["Apache-2.0".to_owned()],
        depends_on: vec![PackageId("deb/libc6".to_owned())],
        digests: vec!["md5:00".to_owned()],
        owned_by: Some(PackageId("deb/base".to_owned())),
        direct: Some(true),
        dev: Some(false),
        confidence: Confidence::High,
    }
}

fn malware() -> Malware {
    Malware {
        rule: "xmrig".to_owned(),
        ruleset: "miners".to_owned(),
        severity: Severity::Critical,
        path: "usr/bin/.x".to_owned(),
        layer: Digest::of(b"layer"),
        digest: Digest::of(b"file"),
        deleted_later: false,
        waived: None,
        fingerprint: Fingerprint::of(&["malware"]),
    }
}

fn runtime() -> RuntimeConfig {
    RuntimeConfig {
        user: Some("app".to_owned()),
        entrypoint: vec!["/app".to_owned()],
        cmd: vec!["--serve".to_owned()],
        workdir: Some("/".to_owned()),
        exposed_ports: vec!["80/tcp".to_owned()],
        volumes: vec!["/data".to_owned()],
        healthcheck: Some(vec!["CMD".to_owned(), "true".to_owned()]),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        env_names: vec!["PATH".to_owned()],
    }
}

fn removed() -> RemovedPackage {
    RemovedPackage {
        kind: PackageType::Deb,
        name: "wget".to_owned(),
        version: "1.21.3-1+b2".to_owned(),
        purl: Purl("pkg:deb/debian/wget@1.21.3-1%2Bb2?arch=amd64&distro=debian-12".to_owned()),
        path: "var/lib/dpkg/status".to_owned(),
        layer: Digest::of(b"base"),
        removed_by: Digest::of(b"layer"),
    }
}

/// A report in which every list has something and every optional field is set.
pub(crate) fn full() -> Report {
    let id = PackageId("deb/openssl".to_owned());
    let tampered = Tampered {
        path: "usr/bin/openssl".to_owned(),
        package_id: id.clone(),
        layer: Digest::of(b"layer"),
    };
    let license = License {
        package_id: id,
        package: "openssl".to_owned(),
        kind: PackageType::Deb,
        expression: "Apache-2.0".to_owned(),
        category: LicenseCategory::Permissive,
        waived: None,
        fingerprint: Fingerprint::of(&["license", "openssl"]),
    };
    let gap = Gap::new(
        GapCode::LimitFile,
        Hides::Secrets,
        "file of 2 GiB, limit 1 GiB",
    );
    let deny = reason(
        "fixable",
        Decision::Deny,
        "1 vulnerability of level 4 or 5 has a fix: CVE-2025-0001 in openssl",
        "upgrade openssl to 3.0.11-1~deb12u2",
    );
    let warn = reason(
        "secrets",
        Decision::Warn,
        "1 secret",
        "revoke it and build again without it",
    );
    let mut report = Report {
        packages: vec![package()],
        vulnerabilities: vulnerabilities(),
        secrets: vec![secret()],
        misconfigurations: vec![misconfiguration()],
        malware: vec![malware()],
        licenses: vec![license],
        tampered: vec![tampered],
        removed: vec![removed()],
        gaps: vec![gap.at("var/big").in_layer(Digest::of(b"layer"))],
        verdict: verdict(Decision::Deny, vec![warn, deny]),
        ..empty()
    };
    report.target.index_digest = Some(Digest::of(b"index"));
    report.target.config = runtime();
    report
}
