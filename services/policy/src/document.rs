//! The policy document: YAML in, a [`Policy`] that cannot be wrong out.
//!
//! ```yaml
//! name: web
//! repositories: ["registry.example/web/*"]   # which images; `default` has none and takes the rest
//! defaults:                                  # what always applies; each line can be left out
//!   max_advisory_age: 3d
//!   undecided_versions: incomplete
//! rules:
//!   - name: fixable
//!     when: { vulnerability: { severity: high, fixable: true } }
//!     then: deny
//! checks:                                    # of your own: they fail as the built-in ones do
//!   - id: own-base
//!     title: the image is not built on one of ours
//!     severity: high
//!     clauses: ["House rules 3"]
//!     when: { image: { base_other_than: ["registry.example/base/*"] } }
//!     remediation: build it on an image of registry.example/base
//! waivers:
//!   - cve: CVE-2024-0001
//!     packages: [libfoo]
//!     reason: the parser is never given foreign documents
//!     author: ada@example.com
//!     expires: 2026-12-31
//! tests:
//!   - name: a fixable one is refused
//!     given:
//!       vulnerabilities: [{ id: CVE-2024-0002, package: bar, severity: high, fixed: "2" }]
//!     expect: deny
//! ```

use std::collections::{BTreeMap, BTreeSet};

use model::{Decision, Slug};
use serde::Deserialize;

use crate::{
    cases::Case,
    checks::{self, OwnCheck},
    condition::Condition,
    defaults, documents,
    values::{Age, AgeLimit, KnownGap, RepositoryGlobs, Text},
    waivers::{EXPIRED_RULE, Waiver},
};

/// Name of the policy of images that no other policy selects.
pub const DEFAULT: &str = "default";
/// Bytes of a document.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// The policy that comes with the program.
pub const BUILTIN: &str = include_str!("../rules/default.yaml");

/// What decides over images.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name.
    pub name: Slug,
    /// What it is for, for people.
    #[serde(default)]
    pub description: String,
    /// The images it is for, as patterns over `registry/repository`.
    #[serde(default)]
    pub repositories: RepositoryGlobs,
    /// What always applies.
    #[serde(default)]
    pub defaults: Defaults,
    /// What else applies. The order does not matter.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Checks of the operator's own, beside the built-in ones.
    #[serde(default)]
    pub checks: Vec<OwnCheck>,
    /// Accepted findings.
    #[serde(default)]
    pub waivers: Vec<Waiver>,
    /// What the policy must say of made-up images.
    #[serde(default)]
    pub tests: Vec<Case>,
    /// The KV revision of the document; 0 for files and for the built-in one.
    #[serde(skip)]
    pub revision: u64,
}

/// A rule: what to look for, and what follows where it is found.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, which reasons give.
    pub name: Slug,
    /// What it looks for.
    pub when: Condition,
    /// What follows.
    pub then: Decision,
    /// How reasons begin; what was found stands behind it.
    #[serde(default)]
    pub message: Option<Text>,
    /// What to do; without it reasons say what they can.
    #[serde(default)]
    pub remediation: Option<Text>,
}

/// What applies in every policy, so that what was not looked at never reads as "nothing found". A
/// policy changes it by saying so; `allow` turns a line off.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// Gaps that hide packages or files of the image.
    pub hidden: Decision,
    /// Gaps because a limit cut the image short.
    pub limits: Decision,
    /// Operating system packages, and no way to tell of which system.
    pub unknown_os: Decision,
    /// An operating system without security updates.
    pub end_of_life_os: Decision,
    /// No advisories at all, or none for these packages.
    pub missing_advisories: Decision,
    /// Advisory data older than `max_advisory_age`.
    pub stale_advisories: Decision,
    /// The greatest age of advisory data; `never` where any age will do.
    pub max_advisory_age: AgeLimit,
    /// Packages that advisories are about, in versions that cannot be compared with theirs. Both are
    /// named, so nothing is hidden; and somebody must look.
    pub undecided_versions: Decision,
    /// Decisions for single codes of gaps, before all of the above.
    pub gaps: BTreeMap<KnownGap, Decision>,
}

/// Why a text is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is too large.
    #[error("the policy has {0} bytes, more than the {DOCUMENT_BYTES_MAX} that are allowed")]
    TooLarge(usize),
    /// The text is not what it must be; the message names line and column.
    #[error("{0}")]
    Text(String),
    /// The parts do not fit together.
    #[error("policy `{policy}`: {why}")]
    Parts {
        /// The policy's name.
        policy: Slug,
        /// What does not fit.
        why: String,
    },
}

// === impl Policy ===

impl Policy {
    /// Reads a document.
    pub fn parse(yaml: &str) -> Result<Self, PolicyError> {
        documents::parse(yaml)
    }

    /// The policy that comes with the program.
    pub fn builtin() -> Self {
        Self::parse(BUILTIN).expect("a test reads it")
    }

    /// The same document at a revision of its bucket.
    #[must_use]
    pub fn at_revision(self, revision: u64) -> Self {
        Self { revision, ..self }
    }

    /// The greatest age of advisory data with which an image may be used.
    pub fn age_max(&self) -> Option<Age> {
        let Defaults {
            stale_advisories,
            max_advisory_age,
            ..
        } = &self.defaults;
        let default = max_advisory_age
            .0
            .filter(|_| *stale_advisories >= Decision::Incomplete);
        let strict = self
            .rules
            .iter()
            .filter(|rule| rule.then >= Decision::Incomplete);
        let limits = strict.filter_map(|rule| rule.when.age_max()).chain(default);
        limits.min_by_key(|limit| limit.0)
    }

    /// The age of advisory data up to which a rule has nothing to say; `None` for rules that do not
    /// ask for it.
    pub(crate) fn age_limit_of(&self, rule: &str) -> Option<Age> {
        if rule == defaults::STALE_ADVISORIES {
            return self.defaults.max_advisory_age.0;
        }
        self.rules
            .iter()
            .find(|own| own.name.as_str() == rule)?
            .when
            .age_max()
    }

    /// Everything that is asked.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        let rules = self.rules.iter().map(|rule| &rule.when);
        rules.chain(self.checks.iter().map(|check| &check.when))
    }

    pub(crate) fn misfit(&self) -> Option<String> {
        let takes_the_rest = self.name.as_str() == DEFAULT;
        if takes_the_rest && !self.repositories.is_empty() {
            return Some(format!(
                "`{DEFAULT}` is for all other images: it has no `repositories`"
            ));
        }
        if !takes_the_rest && self.repositories.is_empty() {
            return Some("it selects no image: give it `repositories`".to_owned());
        }
        let mut names = BTreeSet::new();
        for rule in &self.rules {
            let name = rule.name.as_str();
            if defaults::RULES.contains(&name) || name == EXPIRED_RULE {
                return Some(format!(
                    "rule `{name}`: the name is taken by what always applies"
                ));
            }
            if !names.insert(name) {
                return Some(format!("there are two rules `{name}`"));
            }
            if let Some(why) = rule.when.misfit() {
                return Some(format!("rule `{name}`: {why}"));
            }
        }
        checks::misfit(&self.checks)
    }
}

// === impl Defaults ===

impl Default for Defaults {
    fn default() -> Self {
        Self {
            hidden: Decision::Incomplete,
            limits: Decision::Incomplete,
            unknown_os: Decision::Incomplete,
            end_of_life_os: Decision::Incomplete,
            missing_advisories: Decision::Incomplete,
            stale_advisories: Decision::Incomplete,
            max_advisory_age: AgeLimit(Some(Age(jiff::SignedDuration::from_hours(7 * 24)))),
            undecided_versions: Decision::Warn,
            gaps: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(yaml: &str) -> String {
        Policy::parse(yaml).unwrap_err().to_string()
    }

    #[test]
    fn the_builtin_policy_is_one() {
        let policy = Policy::builtin();
        assert_eq!((policy.name.as_str(), policy.revision), (DEFAULT, 0));
        assert_eq!(policy.age_max().unwrap().to_string(), "7 days");
    }

    #[test]
    fn errors_say_what_is_wrong_and_where() {
        insta::assert_snapshot!(refused("name: default\nrulez: []\n"), @"unknown field `rulez`, expected one of name, description, repositories, defaults, rules, checks, waivers, tests at line 2, column 1");
        insta::assert_snapshot!(refused("name: Default\n"), @"`Default` is not a name of 1 to 64 characters `a-z`, `0-9`, `_`, `-` at line 1, column 7");
        insta::assert_snapshot!(refused("name: default\nrules:\n  - name: a\n    then: deny\n"), @"missing field `when` at line 4, column 5");
        let rule = |when: &str, then: &str| {
            refused(&format!(
                "name: default\nrules:\n  - name: a\n    when: {when}\n    then: {then}\n"
            ))
        };
        insta::assert_snapshot!(rule("{ vulnerability: { severity: grave } }", "deny"), @"`grave` is not a severity: critical, high, medium, low, negligible, unknown, or a level 5 to 0 at line 4, column 40");
        insta::assert_snapshot!(rule("{ vulnerability: { severity: 9 } }", "deny"), @"`9` is not a severity: critical, high, medium, low, negligible, unknown, or a level 5 to 0 at line 4, column 40");
        insta::assert_snapshot!(rule("{ vulnerability: { fixed: true } }", "deny"), @"unknown field `fixed`, expected one of severity, fixable, cves, packages, types, kev, epss at line 4, column 30");
        insta::assert_snapshot!(rule("{ vulnerability: { packages: ['a[b'] } }", "deny"), @"error parsing glob 'a[b': unclosed character class; missing ']' at line 4, column 41");
        insta::assert_snapshot!(rule("{ gap: { codes: [truncted] } }", "deny"), @"`truncted` is not the code of a gap at line 4, column 28");
        insta::assert_snapshot!(rule("{ advisories_older_than: 7 days }", "deny"), @"`7 days` is not a length of time like `90m`, `12h` or `7d` at line 4, column 36");
        insta::assert_snapshot!(rule("{ malware: {} }", "refuse"), @"unknown variant `refuse`, expected one of allow, warn, incomplete, deny at line 5, column 11");
        insta::assert_snapshot!(rule("{ virus: {} }", "deny"), @"unknown variant `virus`, expected one of vulnerability, secret, misconfiguration, malware, license, package, image, gap, advisories_older_than at line 4, column 13");
    }

    #[test]
    fn a_waiver_has_a_reason_an_author_an_end_and_a_subject() {
        let waiver =
            |fields: &str| refused(&format!("name: default\nwaivers:\n  - {{ {fields} }}\n"));
        insta::assert_snapshot!(waiver("cve: CVE-1, reason: r, author: a"), @"missing field `expires` at line 3, column 30");
        insta::assert_snapshot!(waiver("cve: CVE-1, reason: '', author: a, expires: 2026-01-01"), @"must not be empty at line 3, column 27");
        insta::assert_snapshot!(waiver("reason: r, author: a, expires: 2026-01-01"), @"a waiver must name a `cve`, a `license`, an `image`, a `fingerprint` or `packages` at line 3, column 5");
        insta::assert_snapshot!(waiver("cve: CVE-1, license: MIT, reason: r, author: a, expires: 2026-01-01"), @"a waiver names one of `cve`, `license` and `image`: write another at line 3, column 5");
        insta::assert_snapshot!(waiver("cve: CVE-1, reason: r, author: a, expires: soon"), @"`soon` is not a date like `2026-12-31` at line 3, column 50");
    }

    #[test]
    fn parts_that_do_not_fit_together_are_refused() {
        insta::assert_snapshot!(refused("name: web"), @"policy `web`: it selects no image: give it `repositories`");
        insta::assert_snapshot!(refused("name: default\nrepositories: [a]"), @"policy `default`: `default` is for all other images: it has no `repositories`");
        let twice = "{ name: a, when: { malware: {} }, then: deny }";
        insta::assert_snapshot!(refused(&format!("name: default\nrules: [{twice}, {twice}]")), @"policy `default`: there are two rules `a`");
        let empty = "{ name: a, when: { image: {} }, then: deny }";
        insta::assert_snapshot!(refused(&format!("name: default\nrules: [{empty}]")), @"policy `default`: rule `a`: `image` asks for nothing, which every image is");
        let clauses = "{ name: a, when: { secret: { clauses: [x] } }, then: deny }";
        insta::assert_snapshot!(refused(&format!("name: default\nrules: [{clauses}]")), @"policy `default`: rule `a`: only a `misconfiguration` has `clauses`");
        let check = |id: &str| {
            format!(
                "{{ id: {id}, title: t, severity: low, when: {{ malware: {{}} }}, remediation: r }}"
            )
        };
        let checks =
            |checks: &[String]| refused(&format!("name: default\nchecks: [{}]", checks.join(", ")));
        insta::assert_snapshot!(checks(&[check("user-root")]), @"policy `default`: check `user-root`: a built-in check has this id");
        insta::assert_snapshot!(checks(&[check("a"), check("a")]), @"policy `default`: there are two checks `a`");
        let many: Vec<_> = (0..=200)
            .map(|number| check(&format!("c{number}")))
            .collect();
        insta::assert_snapshot!(checks(&many), @"policy `default`: it has more than 200 checks");
        let most = format!("name: default\nchecks: [{}]", many[..200].join(", "));
        assert_eq!(Policy::parse(&most).unwrap().checks.len(), 200);
        let taken = "{ name: limits, when: { malware: {} }, then: deny }";
        insta::assert_snapshot!(refused(&format!("name: default\nrules: [{taken}]")), @"policy `default`: rule `limits`: the name is taken by what always applies");
    }

    #[test]
    fn a_document_is_bounded() {
        let large = format!(
            "name: default\ndescription: {}\n",
            "x".repeat(DOCUMENT_BYTES_MAX)
        );
        assert!(matches!(
            Policy::parse(&large),
            Err(PolicyError::TooLarge(_))
        ));
        let bomb: String = (0..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
            let last = format!("*a{n}, ").repeat(9);
            format!("{text}a{}: &a{} [{last}]\n", n + 1, n + 1)
        });
        assert!(Policy::parse(&format!("name: default\n{bomb}")).is_err());
    }
}
