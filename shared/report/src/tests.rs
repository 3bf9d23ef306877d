mod goldens;
pub(crate) mod samples;
pub(crate) mod schemas;

use model::{
    AdvisoryStamp, Decision, Digest, Gap, GapCode, Hides, License, LicenseCategory, REPORTS_SCHEMA,
    Report, Reports, Severity, Vulnerability,
};

use self::samples::{empty, full, reason, verdict};
use super::*;

/// The document that the format's readers were written for. Fields may be added to it; what is
/// there may not change its name or meaning.
const GOLDEN: &str = include_str!("../testdata/report.json");

fn check(report: &Report, format: Format, options: &Options) -> String {
    let mut out = Vec::new();
    render(report, format, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn terminal(width: usize) -> Options {
    Options {
        width: Some(width),
        ..Options::default()
    }
}

#[test]
fn a_report_with_everything() {
    insta::assert_snapshot!(check(&full(), Format::Table, &Options::default()), @r#"
    registry.example/team/app:1.0 (linux/amd64)
    image sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f
    Debian GNU/Linux 12 (bookworm) · 1 layer · 1 package
    advisories revision 7 · Debian 2 hours old, PyPI 3 days old

    PACKAGE  INSTALLED         FIXED IN          TYPE  VULNERABILITY  SEVERITY  NOTE
    openssl  3.0.11-1~deb12u1  3.0.11-1~deb12u2  deb   CVE-2025-0001  critical  KEV, EPSS 61%
                               -                       CVE-2025-0002  low
    zlib1g   1:1.2.13          (won't fix)       deb   CVE-2025-0003  high

    3 vulnerabilities: 1 critical, 1 high, 1 low · 1 with a fix · 1 known to be exploited (KEV)
    1 not counted, accepted by waivers; --show-suppressed lists them
    1 not counted, not affected by VEX documents; --show-suppressed lists them

    1 secret
    SECRET          SEVERITY  WHERE       LAYER         FOUND     NOTE
    AWS access key  high      app/.env:3  dac1d7cfa950  AKIA****  deleted by a later layer, still in the image, revoke it

    1 misconfiguration
    CHECK    SEVERITY  WHAT          DO
    TW-ROOT  medium    runs as root  add USER

    1 malicious file
    MALWARE         SEVERITY  WHERE       LAYER         FILE
    xmrig (miners)  critical  usr/bin/.x  dac1d7cfa950  3b9c358f36f0

    1 file is not as its package made it
    CHANGED FILE     PACKAGE      LAYER
    usr/bin/openssl  deb/openssl  dac1d7cfa950

    1 package was removed or replaced by a later layer
    REMOVED PACKAGE  VERSION      TYPE  LAYER         REMOVED BY
    wget             1.21.3-1+b2  deb   cae662172fd4  dac1d7cfa950

    1 thing that could not be looked at
    GAP         MAY HIDE  WHERE    WHAT HAPPENED
    limit-file  secrets   var/big  file of 2 GiB, limit 1 GiB

    - deny (fixable): 1 vulnerability of level 4 or 5 has a fix: CVE-2025-0001 in openssl
      → upgrade openssl to 3.0.11-1~deb12u2
    - warn (secrets): 1 secret
      → revoke it and build again without it
    DENY: 1 vulnerability of level 4 or 5 has a fix · policy default · holds until 2026-01-09 09:30 UTC
    "#);
}

#[test]
fn a_report_on_a_narrow_terminal() {
    insta::assert_snapshot!(check(&full(), Format::Table, &terminal(72)), @r#"
    registry.example/team/app:1.0 (linux/amd64)
    image
    sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f
    Debian GNU/Linux 12 (bookworm) · 1 layer · 1 package
    advisories revision 7 · Debian 2 hours old, PyPI 3 days old

    PACKAGE  INSTALLED   FIXED IN   TYPE  VULNERABILITY  SEVERITY  NOTE
    openssl  3.0.11-1~…  3.0.11-1…  deb   CVE-2025-0001  critical  KEV, EPS…
                         -                CVE-2025-0002  low
    zlib1g   1:1.2.13    (won't f…  deb   CVE-2025-0003  high

    3 vulnerabilities: 1 critical, 1 high, 1 low · 1 with a fix · 1 known to
    be exploited (KEV)
    1 not counted, accepted by waivers; --show-suppressed lists them
    1 not counted, not affected by VEX documents; --show-suppressed lists
    them

    1 secret
    SECRET        SEVERITY  WHERE       LAYER         FOUND     NOTE
    AWS access …  high      app/.env:3  dac1d7cfa950  AKIA****  deleted by …

    1 misconfiguration
    CHECK    SEVERITY  WHAT          DO
    TW-ROOT  medium    runs as root  add USER

    1 malicious file
    MALWARE         SEVERITY  WHERE       LAYER         FILE
    xmrig (miners)  critical  usr/bin/.x  dac1d7cfa950  3b9c358f36f0

    1 file is not as its package made it
    CHANGED FILE     PACKAGE      LAYER
    usr/bin/openssl  deb/openssl  dac1d7cfa950

    1 package was removed or replaced by a later layer
    REMOVED PACKAGE  VERSION      TYPE  LAYER         REMOVED BY
    wget             1.21.3-1+b2  deb   cae662172fd4  dac1d7cfa950

    1 thing that could not be looked at
    GAP         MAY HIDE  WHERE    WHAT HAPPENED
    limit-file  secrets   var/big  file of 2 GiB, limit 1 GiB

    - deny (fixable): 1 vulnerability of level 4 or 5 has a fix:
      CVE-2025-0001 in openssl
      → upgrade openssl to 3.0.11-1~deb12u2
    - warn (secrets): 1 secret
      → revoke it and build again without it
    DENY: 1 vulnerability of level 4 or 5 has a fix · policy default
    "#);
}

#[test]
fn an_empty_report() {
    insta::assert_snapshot!(check(&empty(), Format::Table, &terminal(100)), @r#"
    registry.example/team/app:1.0 (linux/amd64)
    image sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f
    Debian GNU/Linux 12 (bookworm) · 1 layer · 0 packages
    advisories revision 7 · Debian 2 hours old, PyPI 3 days old

    no known vulnerabilities

    ALLOW: nothing that the policy refuses · policy default · holds until 2026-01-09 09:30 UTC
    "#);
}

#[test]
fn what_could_not_be_looked_at_never_reads_as_nothing_found() {
    let mut report = empty();
    report.advisories = AdvisoryStamp::default();
    report.target.os = None;
    report.target.manifest_digest = None;
    report.gaps = vec![
        Gap::new(GapCode::UnknownOs, Hides::Packages, "no os-release"),
        Gap::new(
            GapCode::Truncated,
            Hides::Entries,
            "the layer ends after 100 of 200 bytes",
        )
        .in_layer(Digest::of(b"layer")),
    ];
    let why = "the layer ends too early, and what it holds is not known";
    report.verdict = verdict(
        Decision::Incomplete,
        vec![reason(
            "gaps",
            Decision::Incomplete,
            why,
            "push the image again",
        )],
    );
    insta::assert_snapshot!(check(&report, Format::Table, &terminal(100)), @r#"
    registry.example/team/app:1.0 (linux/amd64)
    image id sha256:b79606fb3afea5bd1609ed40b622142f1c98125abcfe89a76a661b0e8e343910
    unknown operating system · 1 layer · 0 packages
    no advisories: vulnerabilities were not looked for

    vulnerabilities were not looked for: there are no advisories yet; `tidewaiter db update` gets them

    2 things that could not be looked at
    GAP         MAY HIDE    WHERE               WHAT HAPPENED
    truncated   everything  layer dac1d7cfa950  the layer ends after 100 of 200 bytes
    unknown-os  packages                        no os-release

    - incomplete (gaps): the layer ends too early, and what it holds is not known
      → push the image again
    INCOMPLETE: the layer ends too early, and what it holds is not known · policy default
    "#);
}

#[test]
fn without_advisories_packages_are_listed_and_nothing_is_said_to_be_well() {
    let mut report = full();
    report.advisories = AdvisoryStamp::default();
    report.vulnerabilities.clear();
    let text = check(&report, Format::Table, &terminal(100));
    assert!(text.contains("PACKAGE  VERSION"), "{text}");
    assert!(text.contains("openssl  3.0.11-1~deb12u1"), "{text}");
    assert!(text.contains("`tidewaiter db update` gets them"), "{text}");
    assert!(
        !text.contains("no known vulnerabilities") && !text.contains("0 vuln"),
        "{text}"
    );
}

#[test]
fn a_wide_terminal_has_room_for_titles() {
    let wide = check(&full(), Format::Table, &terminal(140));
    assert!(wide.contains("TITLE") && wide.contains("a title"), "{wide}");
    let narrow = check(&full(), Format::Table, &terminal(100));
    assert!(!narrow.contains("a title"), "{narrow}");
}

#[test]
fn only_what_has_a_fix_is_listed_on_request() {
    let options = Options {
        ignore_unfixed: true,
        ..terminal(100)
    };
    let text = check(&full(), Format::Table, &options);
    assert!(
        text.contains("CVE-2025-0001") && !text.contains("CVE-2025-0002"),
        "{text}"
    );
    assert!(
        text.contains("more are not listed, but counted: they have no fix"),
        "{text}"
    );
    let json: Report = serde_json::from_str(&check(&full(), Format::Json, &options)).unwrap();
    assert!(json.vulnerabilities.iter().all(Vulnerability::is_fixable));
    assert_eq!(json.verdict, full().verdict);
}

#[test]
fn a_list_that_is_not_whole_says_so() {
    let mut report = full();
    let mut milder = report.misconfigurations[0].clone();
    milder.severity = Severity::Negligible;
    report.misconfigurations.push(milder);
    let options = Options {
        severities: vec![report.misconfigurations[0].severity],
        ..terminal(100)
    };
    let text = check(&report, Format::Table, &options);
    let said =
        "2 misconfigurations\n1 of them is shown here; the verdict counts all as policy says\n";
    assert!(text.contains(said), "{text}");
    let text = check(&report, Format::Table, &terminal(100));
    assert!(text.contains("2 misconfigurations\nCHECK"), "{text}");
}

#[test]
fn hostile_text_cannot_steer_the_terminal() {
    let mut report = full();
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\nVerdict: ALLOW\r\u{202e}x";
    report.target.reference = evil.to_owned();
    report.target.os.as_mut().unwrap().pretty_name = Some(evil.to_owned());
    report.advisories.feeds[0].name = evil.to_owned();
    for found in &mut report.vulnerabilities {
        found.package = evil.to_owned();
        found.id = evil.to_owned();
        found.installed_version = evil.to_owned();
        found.fixed_versions = vec![evil.to_owned()];
    }
    report.secrets[0].title = evil.to_owned();
    report.secrets[0].masked = evil.to_owned();
    report.misconfigurations[0].path = Some(evil.to_owned());
    report.malware[0].path = evil.to_owned();
    report.tampered[0].path = evil.to_owned();
    report.gaps[0].detail = evil.to_owned();
    report.gaps[0].path = Some(evil.to_owned());
    report.verdict.reasons[0].message = evil.to_owned();
    report.verdict.reasons[0].remediation = evil.to_owned();
    for format in Format::ALL {
        let text = check(&report, *format, &Options::default());
        assert!(
            !text.chars().any(|c| c != '\n' && clean::is_hostile(c)),
            "{format}: {text}"
        );
        assert!(
            !text.lines().any(|line| line.starts_with("Verdict: ALLOW")),
            "{format}: {text}"
        );
    }
    let json = check(&report, Format::Json, &Options::default());
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

#[test]
fn filters_change_what_is_shown_and_not_the_verdict() {
    let options = Options {
        severities: vec![Severity::Low],
        ..terminal(100)
    };
    let text = check(&full(), Format::Table, &options);
    insta::assert_snapshot!(text, @r#"
    registry.example/team/app:1.0 (linux/amd64)
    image sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f
    Debian GNU/Linux 12 (bookworm) · 1 layer · 1 package
    advisories revision 7 · Debian 2 hours old, PyPI 3 days old

    PACKAGE  INSTALLED         FIXED IN  TYPE  VULNERABILITY  SEVERITY
    openssl  3.0.11-1~deb12u1  -         deb   CVE-2025-0002  low

    3 vulnerabilities: 1 critical, 1 high, 1 low · 1 with a fix · 1 known to be exploited (KEV)
    1 not counted, accepted by waivers; --show-suppressed lists them
    1 not counted, not affected by VEX documents; --show-suppressed lists them
    2 more are not listed, but counted: they have other severities

    1 secret
    none of them is shown here; the verdict counts them as policy says

    1 misconfiguration
    none of them is shown here; the verdict counts them as policy says

    1 malicious file
    none of them is shown here; the verdict counts them as policy says

    1 file is not as its package made it
    CHANGED FILE     PACKAGE      LAYER
    usr/bin/openssl  deb/openssl  dac1d7cfa950

    1 package was removed or replaced by a later layer
    REMOVED PACKAGE  VERSION      TYPE  LAYER         REMOVED BY
    wget             1.21.3-1+b2  deb   cae662172fd4  dac1d7cfa950

    1 thing that could not be looked at
    GAP         MAY HIDE  WHERE    WHAT HAPPENED
    limit-file  secrets   var/big  file of 2 GiB, limit 1 GiB

    - deny (fixable): 1 vulnerability of level 4 or 5 has a fix: CVE-2025-0001 in openssl
      → upgrade openssl to 3.0.11-1~deb12u2
    - warn (secrets): 1 secret
      → revoke it and build again without it
    DENY: 1 vulnerability of level 4 or 5 has a fix · policy default · holds until 2026-01-09 09:30 UTC
    "#);
    let json: Report = serde_json::from_str(&check(&full(), Format::Json, &options)).unwrap();
    assert_eq!(json.vulnerabilities.len(), 1);
    assert_eq!(json.verdict, full().verdict);
}

#[test]
fn malware_that_a_later_layer_deletes_is_told_apart() {
    let mut report = full();
    report.secrets.clear();
    for (deleted, expected) in [(false, 0), (true, 1)] {
        report.malware[0].deleted_later = deleted;
        for (format, words) in [
            (Format::Table, "deleted by a later layer, still in the"),
            (Format::Sarif, "a later layer deletes the file"),
        ] {
            let text = check(&report, format, &Options::default());
            assert_eq!(text.matches(words).count(), expected, "{text}");
        }
    }
}

#[test]
fn suppressed_findings_are_shown_on_request() {
    let options = Options {
        show_suppressed: true,
        ..Options::default()
    };
    let text = check(&full(), Format::Table, &options);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| {
            line.contains("perl") || line.contains("VEX:") || line.contains("not counted")
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    perl-base  5.36.0-7          -                 deb   CVE-2025-0004  high      waived until 2026-02-01: not reachable
                                 -                       CVE-2025-0005  medium    VEX: not affected
    1 not counted, accepted by waivers
    1 not counted, not affected by VEX documents
    "#);
}

#[test]
fn licenses_are_listed_on_request_strictest_first() {
    let mut report = full();
    let license = |name: &str, expression: &str, category| License {
        package: name.to_owned(),
        expression: expression.to_owned(),
        category,
        ..report.licenses[0].clone()
    };
    let more = [
        license("bash", "GPL-3.0-or-later", LicenseCategory::Copyleft),
        license("mystery", "NOASSERTION", LicenseCategory::Unknown),
        license("zstd", "Apache-2.0", LicenseCategory::Permissive),
    ];
    report.licenses.extend(more);
    let options = Options {
        licenses: true,
        ..Options::default()
    };
    let text = check(&report, Format::Table, &options);
    let listed = text
        .split("\n\n")
        .find(|part| part.contains("KIND"))
        .unwrap();
    insta::assert_snapshot!(listed, @r"
    3 licenses
    LICENSE           KIND        PACKAGES  WHICH
    NOASSERTION       unknown     1         mystery
    GPL-3.0-or-later  copyleft    1         bash
    Apache-2.0        permissive  2         openssl, zstd
    ");
    assert!(!check(&report, Format::Table, &Options::default()).contains("KIND"));
}

#[test]
fn colors_are_used_only_when_asked_for_and_take_no_room() {
    let colored = check(
        &full(),
        Format::Table,
        &Options {
            color: true,
            ..terminal(100)
        },
    );
    let plain = check(&full(), Format::Table, &terminal(100));
    assert!(!plain.contains('\u{1b}') && colored.contains("\u{1b}[1m\u{1b}[31mcritical"));
    let mut stripped = String::new();
    let mut rest = colored.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        stripped.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    stripped.push_str(rest);
    assert_eq!(stripped, plain);
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [60, 80, 100, 120] {
        let text = check(&full(), Format::Table, &terminal(width));
        for line in text.lines().filter(|line| !line.contains("sha256:")) {
            assert!(
                unicode_width::UnicodeWidthStr::width(line) <= width,
                "{width}: {line}"
            );
        }
    }
}

#[test]
fn an_index_ends_with_its_worst_verdict() {
    let reports = Reports {
        schema: REPORTS_SCHEMA.to_owned(),
        index_digest: Digest::of(b"index"),
        reports: vec![empty(), empty()],
        verdict: verdict(
            Decision::Deny,
            vec![reason("r", Decision::Deny, "one is bad", "")],
        ),
    };
    let mut out = Vec::new();
    render_all(&reports, Format::Table, &Options::default(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let end: Vec<_> = text.lines().rev().take(4).collect();
    insta::assert_snapshot!(end.into_iter().rev().collect::<Vec<_>>().join("\n"), @r#"
    index sha256:1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6 with 2 platforms

    - deny (r): one is bad
    DENY: one is bad · policy default · holds until 2026-01-09 09:30 UTC
    "#);
    let mut out = Vec::new();
    render_all(&reports, Format::Json, &Options::default(), &mut out).unwrap();
    assert_eq!(serde_json::from_slice::<Reports>(&out).unwrap(), reports);
}

#[test]
fn the_document_has_the_fields_that_readers_know() {
    let json = check(&full(), Format::Json, &Options::default());
    assert_eq!(json, GOLDEN);
    assert_eq!(serde_json::from_str::<Report>(GOLDEN).unwrap(), full());
}

#[test]
fn formats_are_found_by_name() {
    assert_eq!("JSON".parse(), Ok(Format::Json));
    let error = "xml".parse::<Format>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`xml` is not a format: table, json, sarif, cyclonedx, spdx-json"
    );
}
