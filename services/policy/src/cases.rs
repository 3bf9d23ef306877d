//! Cases: what a policy must say of made-up images. They stand in the document that they test, so
//! that whoever changes a rule sees at once what else changes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use model::{
    AdvisoryStamp, Assessment, Confidence, Decision, Digest, Facts, Feed, Findings, Fingerprint,
    FixState, Gap, Hides, License, Malware, Match, Misconfiguration, Os, PackageId, PackageType,
    Platform, Reason, RuntimeConfig, Secret, Target, TargetLayer, Vulnerability,
};
use serde::Deserialize;

use crate::{
    document::{Policy, PolicyError},
    judge::judge,
    values::{Age, KnownGap, KnownType, Level, Share, Text},
};

/// Layers of a made-up image.
const LAYERS_MAX: usize = 10_000;

/// A made-up image, and what the policy must say of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, as a sentence.
    pub name: Text,
    /// The image.
    #[serde(default)]
    pub given: Given,
    /// The decision.
    pub expect: Decision,
    /// The rules that fire: all of them, in any order. Left out, any may.
    #[serde(default)]
    pub rules: Option<Vec<Text>>,
    /// The policy's own checks that fail: all of them, in any order. Left out, any may.
    #[serde(default)]
    pub checks: Option<Vec<Text>>,
}

/// A made-up image: a supported Debian with fresh advisories and no findings, but for what is said.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Given {
    /// When it is judged.
    pub at: Timestamp,
    /// Its names, as `registry/repository`.
    pub repositories: Vec<String>,
    /// Its operating system.
    pub os: String,
    /// Whether that is out of support.
    pub end_of_life: bool,
    /// When its support ends, if that is known.
    pub support_ends: Option<Timestamp>,
    /// How old the advisory data are.
    pub advisory_age: Age,
    /// Whether there are none.
    pub no_advisories: bool,
    /// Its vulnerabilities.
    pub vulnerabilities: Vec<GivenVulnerability>,
    /// What could not be looked at.
    pub gaps: Vec<GivenGap>,
    /// Its secrets.
    pub secrets: Vec<GivenFinding>,
    /// Its failed checks.
    pub misconfigurations: Vec<GivenFinding>,
    /// Its malware.
    pub malware: Vec<GivenFinding>,
    /// Its packages' licences.
    pub licenses: Vec<GivenLicense>,
    /// The user that its containers run as.
    pub user: Option<String>,
    /// How many layers it has.
    pub layers: usize,
    /// The image that it says it is built on.
    pub base: Option<String>,
    /// Its other labels.
    pub labels: BTreeMap<String, String>,
    /// When it was built, where it says so.
    pub created: Option<Timestamp>,
}

/// A made-up package's licence.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenLicense {
    /// The package.
    pub package: Text,
    /// Its type.
    #[serde(rename = "type", default = "deb")]
    pub kind: KnownType,
    /// What it declares; nothing where it is left out.
    #[serde(default)]
    pub license: Option<String>,
}

/// A made-up vulnerability.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenVulnerability {
    /// Its id.
    pub id: Text,
    /// Its other names.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The package.
    pub package: Text,
    /// The package's type.
    #[serde(rename = "type", default = "deb")]
    pub kind: KnownType,
    /// The installed version.
    #[serde(default = "some_version")]
    pub version: String,
    /// How bad.
    pub severity: Level,
    /// The version that fixes it, where there is one.
    #[serde(default)]
    pub fixed: Option<String>,
    /// Whether it is known to be exploited.
    #[serde(default)]
    pub kev: bool,
    /// How likely it is to be exploited.
    #[serde(default)]
    pub epss: Option<Share>,
}

/// A made-up gap.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenGap {
    /// Its code.
    pub code: KnownGap,
    /// What it hides.
    #[serde(default = "packages")]
    pub hides: Hides,
}

/// A made-up secret, failed check or piece of malware.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenFinding {
    /// The rule that found it.
    pub rule: Text,
    /// How bad.
    pub severity: Level,
    /// Clauses of benchmarks that a failed check is part of.
    #[serde(default)]
    pub clauses: Vec<String>,
}

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseResult {
    /// The case's name.
    pub name: String,
    /// Whether the policy says what it must.
    pub passed: bool,
    /// The decision that it must give.
    pub expected: Decision,
    /// The rules that must fire, where the case says so.
    pub expected_rules: Option<Vec<String>>,
    /// The policy's own checks that must fail, where the case says so.
    pub expected_checks: Option<Vec<String>>,
    /// The decision that it gives.
    pub decision: Decision,
    /// Why.
    pub reasons: Vec<Reason>,
    /// The policy's own checks that fail.
    pub checks: Vec<String>,
}

/// Runs the cases of a document.
pub fn run_tests(yaml: &str) -> Result<Vec<CaseResult>, PolicyError> {
    let policy = Policy::parse(yaml)?;
    Ok(policy.tests.iter().map(|case| run(&policy, case)).collect())
}

fn run(policy: &Policy, case: &Case) -> CaseResult {
    let Given {
        at, repositories, ..
    } = &case.given;
    let (assessment, findings) = case.given.facts();
    let facts = Facts {
        assessment: &assessment,
        findings: &findings,
        target: &case.given.target(),
    };
    let data_at = assessment.advisories.data_at();
    let judgement = judge(policy, &facts, repositories, *at, data_at);
    let own = |id: &String| policy.checks.iter().any(|check| check.id.as_str() == id);
    let failed = judgement.checks.iter().map(|check| check.id.clone());
    let failed: Vec<_> = failed.filter(own).collect();
    let verdict = judgement.verdict;
    let fired: Vec<_> = verdict
        .reasons
        .iter()
        .map(|reason| reason.rule.clone())
        .collect();
    let (expected_rules, expected_checks) =
        (names(case.rules.as_deref()), names(case.checks.as_deref()));
    let is_as = |expected: &Option<Vec<String>>, got: &[String]| {
        expected
            .as_ref()
            .is_none_or(|names| *names == sorted(got.to_vec()))
    };
    CaseResult {
        name: case.name.0.clone(),
        passed: verdict.decision == case.expect
            && is_as(&expected_rules, &fired)
            && is_as(&expected_checks, &failed),
        expected: case.expect,
        expected_rules,
        expected_checks,
        decision: verdict.decision,
        reasons: verdict.reasons,
        checks: failed,
    }
}

/// The names of a case in the order in which they are compared.
fn names(written: Option<&[Text]>) -> Option<Vec<String>> {
    let all = |names: &[Text]| sorted(names.iter().map(ToString::to_string).collect());
    written.map(all)
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

/// Rules and checks of a document that none of its cases makes fire: nothing shows that they do.
pub fn untested(yaml: &str) -> Result<Vec<String>, PolicyError> {
    let policy = Policy::parse(yaml)?;
    let mut fired = BTreeSet::new();
    for result in policy.tests.iter().map(|case| run(&policy, case)) {
        fired.extend(result.reasons.into_iter().map(|reason| reason.rule));
        fired.extend(result.checks);
    }
    let rules = policy.rules.iter().map(|rule| &rule.name);
    let all = rules.chain(policy.checks.iter().map(|check| &check.id));
    let silent = all.filter(|name| !fired.contains(name.as_str()));
    Ok(silent.map(ToString::to_string).collect())
}

// === impl CaseResult ===

impl CaseResult {
    /// What went wrong, in one sentence; `None` where nothing did.
    pub fn failure(&self) -> Option<String> {
        if self.passed {
            return None;
        }
        let named = |names: &[String], word: &str| match names {
            [] => String::new(),
            names => format!(" {word} {}", names.join(", ")),
        };
        let expected = |names: &Option<Vec<String>>, word: &str| {
            named(names.as_deref().unwrap_or_default(), word)
        };
        let fired: Vec<_> = self
            .reasons
            .iter()
            .map(|reason| reason.rule.clone())
            .collect();
        Some(format!(
            "`{}`: expected {}{}{}, got {}{}{}",
            self.name,
            self.expected,
            expected(&self.expected_rules, "by"),
            expected(&self.expected_checks, "failing"),
            self.decision,
            named(&fired, "by"),
            named(&self.checks, "failing"),
        ))
    }
}

// === impl Given ===

impl Default for Given {
    fn default() -> Self {
        Self {
            // Any fixed day will do: a case must not change its outcome as time goes by.
            at: Timestamp::from_second(1_767_225_600).expect("2026-01-01 is a time"),
            repositories: vec!["registry.example/app".to_owned()],
            os: "debian:12".to_owned(),
            end_of_life: false,
            support_ends: None,
            advisory_age: Age(jiff::SignedDuration::ZERO),
            no_advisories: false,
            vulnerabilities: Vec::new(),
            gaps: Vec::new(),
            secrets: Vec::new(),
            misconfigurations: Vec::new(),
            malware: Vec::new(),
            licenses: Vec::new(),
            user: Some("app".to_owned()),
            layers: 1,
            base: None,
            labels: BTreeMap::new(),
            created: None,
        }
    }
}

impl Given {
    /// The made-up image itself.
    pub(crate) fn target(&self) -> Target {
        let layer = TargetLayer {
            digest: Digest::of(b"layer"),
            diff_id: None,
            size: 0,
            created_by: None,
        };
        let mut labels = self.labels.clone();
        if let Some(base) = &self.base {
            let label = "org.opencontainers.image.base.name";
            labels.insert(label.to_owned(), base.clone());
        }
        Target {
            reference: "registry.example/app".to_owned(),
            index_digest: None,
            manifest_digest: None,
            image_id: Digest::of(b"made-up"),
            platform: Platform {
                os: "linux".to_owned(),
                architecture: "amd64".to_owned(),
                variant: None,
            },
            created: self.created,
            os: None,
            layers: vec![layer; self.layers.min(LAYERS_MAX)],
            config: RuntimeConfig {
                user: self.user.clone(),
                labels,
                ..RuntimeConfig::default()
            },
        }
    }

    /// The facts of the made-up image.
    pub(crate) fn facts(&self) -> (Assessment, Findings) {
        let (id, version) = self.os.split_once(':').unwrap_or((&self.os, ""));
        let feed = || Feed {
            name: "made-up".to_owned(),
            fetched_at: self.at - self.advisory_age.0,
            coverage: Vec::new(),
            advisories: 1,
            partial: false,
        };
        let assessment = Assessment {
            image: Digest::of(b"made-up"),
            scan: 0,
            advisories: AdvisoryStamp {
                revision: u64::from(!self.no_advisories),
                feeds: (!self.no_advisories).then(feed).into_iter().collect(),
            },
            os: Some(Os {
                id: id.to_owned(),
                version_id: version.to_owned(),
                eol: Some(self.end_of_life),
                pretty_name: None,
                codename: None,
            }),
            os_ends: self.support_ends,
            vulnerabilities: self.vulnerabilities.iter().map(vulnerability).collect(),
            gaps: self.gaps.iter().map(gap).collect(),
        };
        let findings = Findings {
            secrets: self.secrets.iter().map(secret).collect(),
            misconfigurations: self
                .misconfigurations
                .iter()
                .map(misconfiguration)
                .collect(),
            malware: self.malware.iter().map(malware).collect(),
            licenses: self.licenses.iter().map(license).collect(),
            ..Findings::default()
        };
        (assessment, findings)
    }
}

fn vulnerability(given: &GivenVulnerability) -> Vulnerability {
    let GivenVulnerability {
        id,
        aliases,
        package,
        kind,
        version,
        severity,
        fixed,
        kev,
        epss,
    } = given;
    Vulnerability {
        id: id.0.clone(),
        aliases: aliases.clone(),
        package_id: PackageId(format!("{}@{version}", package.0)),
        package: package.0.clone(),
        kind: kind.0,
        installed_version: version.clone(),
        fixed_versions: fixed.iter().cloned().collect(),
        fix_state: if fixed.is_some() {
            FixState::Fixed
        } else {
            FixState::NotFixed
        },
        severity: severity.0,
        severity_level: severity.0.level(),
        cvss: Vec::new(),
        epss: epss.map(|Share(epss)| epss),
        kev: *kev,
        title: String::new(),
        url: String::new(),
        source: "made-up".to_owned(),
        published: None,
        modified: None,
        path: String::new(),
        layer: Digest::of(b"layer"),
        matched: Match {
            method: "package".to_owned(),
            confidence: Confidence::High,
            evidence: Vec::new(),
        },
        vex: None,
        waived: None,
        fingerprint: Fingerprint::of(&[&id.0, &package.0]),
    }
}

fn gap(given: &GivenGap) -> Gap {
    Gap::new(given.code.0, given.hides, "made up")
}

fn secret(given: &GivenFinding) -> Secret {
    Secret {
        rule: given.rule.0.clone(),
        title: given.rule.0.clone(),
        severity: given.severity.0,
        path: "made-up".to_owned(),
        line: 1,
        column: 1,
        end_line: 1,
        layer: Digest::of(b"layer"),
        instruction: None,
        deleted_later: false,
        masked: "****".to_owned(),
        advice: "revoke it".to_owned(),
        expires_at: None,
        waived: None,
        fingerprint: Fingerprint::of(&["secret", &given.rule.0]),
    }
}

fn misconfiguration(given: &GivenFinding) -> Misconfiguration {
    Misconfiguration {
        id: given.rule.0.clone(),
        title: given.rule.0.clone(),
        severity: given.severity.0,
        clauses: given.clauses.clone(),
        evidence: String::new(),
        path: None,
        line: None,
        remediation: "correct it".to_owned(),
        waived: None,
        fingerprint: Fingerprint::of(&["misconfiguration", &given.rule.0]),
    }
}

fn malware(given: &GivenFinding) -> Malware {
    Malware {
        rule: given.rule.0.clone(),
        ruleset: "made-up".to_owned(),
        severity: given.severity.0,
        path: "made-up".to_owned(),
        layer: Digest::of(b"layer"),
        digest: Digest::of(b"malware"),
        deleted_later: false,
        waived: None,
        fingerprint: Fingerprint::of(&["malware", &given.rule.0]),
    }
}

fn license(given: &GivenLicense) -> License {
    let GivenLicense {
        package,
        kind: KnownType(kind),
        license,
    } = given;
    let declared: Vec<_> = license.iter().cloned().collect();
    let expression = analyzers::licenses::expression(*kind, &declared);
    let expression = expression.unwrap_or_else(|| "NOASSERTION".to_owned());
    License {
        package_id: PackageId(package.0.clone()),
        package: package.0.clone(),
        kind: *kind,
        category: analyzers::licenses::category(&expression),
        fingerprint: Fingerprint::of(&["license", &package.0, &expression]),
        expression,
        waived: None,
    }
}

fn deb() -> KnownType {
    KnownType(PackageType::Deb)
}

fn some_version() -> String {
    "1.0".to_owned()
}

fn packages() -> Hides {
    Hides::Packages
}
