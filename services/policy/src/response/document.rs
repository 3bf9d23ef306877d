//! The document of a response policy: YAML in, a [`ResponsePolicy`] that cannot be wrong out.
//!
//! ```yaml
//! name: shop
//! mode: propose            # observe (default) | dry_run | propose | enforce
//! keep: 1                  # instances of the same owner and image that stay in service
//! wait: 3d                 # how long what needs approval is asked for
//! evidence: true           # collect evidence before a container is taken out
//! protected:               # beside what always is: kube-system, the fabric's own
//!   namespaces: [payments]
//! limits:
//!   rule: { max: 10, per: 10m }
//!   image: { max: 5, per: 10m }
//!   node: { max: 5, per: 10m }
//!   fleet: { max: 10, per: 10m }
//!   replacements_per_hour: 3
//! rules:
//!   - name: shells
//!     when: { rules: ["behavior/reverse-shell"], severity: high, namespaces: ["shop-*"] }
//!     then: [{ quarantine: { allow: ["10.0.0.53:53"] } }, replace]
//!     mode: enforce
//!     for: 1h
//!     renew: 6             # times, each `for` as long again, while the incident is open
//! start_gate:
//!   mode: enforce
//!   refuse: [deny]
//!   unknown: allow
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use model::{
    Decision, Severity, Slug,
    runtime::{Action, ActionKind, Incident, Mode},
};
use serde::{Deserialize, Deserializer, de};

use super::{census::Subject, decide::REMEMBERED, waiting::WAITS};
use crate::{
    document::PolicyError,
    documents,
    values::{Age, Level, NameGlobs, RepositoryGlobs},
};

/// The response policy that comes with the program: it observes.
pub const BUILTIN_RESPONSES: &str = include_str!("../../responses/default.yaml");
/// How long a response is in force where its rule does not say.
const VALID: Age = Age(jiff::SignedDuration::from_hours(24));
/// How long a rule leaves what bears the same name alone after it acted.
const COOL_DOWN: Age = Age(jiff::SignedDuration::from_mins(5));
/// How often what lasts is renewed where its rule does not say, and at most.
const RENEWALS: u32 = 6;
const RENEWALS_MAX: u32 = 100;
/// Addresses that a quarantine may leave.
const ALLOW_MAX: usize = 64;
/// The longest a response may be in force before it is renewed.
pub(crate) const VALID_MAX_S: i64 = 30 * 86_400;

/// What is done about incidents.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponsePolicy {
    /// Its name.
    pub name: Slug,
    /// What it is for, for people.
    #[serde(default)]
    pub description: String,
    /// How far its rules go where they do not say.
    #[serde(default)]
    pub mode: ResponseMode,
    /// How many instances of the same owner and image stay in service.
    #[serde(default = "one")]
    pub keep: u32,
    /// How long something waits for somebody's approval, and is reminded of; then it lapses.
    #[serde(default = "wait")]
    pub wait: Age,
    /// Whether evidence is collected before a container is taken out of service.
    #[serde(default = "yes")]
    pub evidence: bool,
    /// What is left alone, beside what always is.
    #[serde(default)]
    pub protected: Protected,
    /// How much may be done.
    #[serde(default)]
    pub limits: Limits,
    /// What is done when.
    #[serde(default)]
    pub rules: Vec<ResponseRule>,
    /// Which containers may not start.
    #[serde(default)]
    pub start_gate: Option<Gate>,
    /// The KV revision of the document; 0 for files and for the built-in one.
    #[serde(skip)]
    pub revision: u64,
}

/// How far a rule goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseMode {
    /// It is written down.
    #[default]
    Observe,
    /// The agent answers what it would have done.
    DryRun,
    /// Somebody must approve.
    Propose,
    /// It is done.
    Enforce,
}

/// One rule: for what, and what.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseRule {
    /// Its name.
    pub name: Slug,
    /// Which incidents.
    pub when: When,
    /// What is done.
    pub then: Vec<Then>,
    /// How far it goes; the policy's where it does not say.
    #[serde(default)]
    pub mode: Option<ResponseMode>,
    /// For how long.
    #[serde(default = "valid", rename = "for")]
    pub valid: Age,
    /// How often what lasts is renewed while its incident is open; then it is over, which is told.
    #[serde(default = "renewals")]
    pub renew: u32,
    /// How long what bears the same name on the same node is left alone afterwards.
    #[serde(default = "cool_down")]
    pub cool_down: Age,
    /// Whether it may take the last instances that serve.
    #[serde(default)]
    pub even_the_last: bool,
    /// Whether it may touch what is protected.
    #[serde(default)]
    pub even_protected: bool,
}

/// What a rule does: an action by its name, or with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Then(pub Action);

/// Which incidents; all that is given must fit.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// This severity or worse.
    pub severity: Option<Level>,
    /// One of these detections fired: `drift/*`, `behavior/reverse-shell`.
    pub rules: NameGlobs,
    /// The orchestrator's namespace.
    pub namespaces: NameGlobs,
    /// The name of the image, as `registry/repository`.
    pub images: RepositoryGlobs,
    /// The node.
    pub nodes: NameGlobs,
    /// Labels of the container, each with a pattern.
    pub labels: BTreeMap<String, NameGlobs>,
    /// Where the image comes from.
    pub sources: Vec<Slug>,
}

/// What is left alone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Protected {
    /// Namespaces of the orchestrator.
    pub namespaces: NameGlobs,
    /// Images, as `registry/repository`.
    pub images: RepositoryGlobs,
    /// Labels of the container, each with a pattern.
    pub labels: BTreeMap<String, NameGlobs>,
}

/// How much may be done.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// By one rule.
    pub rule: Limit,
    /// To containers of one image.
    pub image: Limit,
    /// On one node.
    pub node: Limit,
    /// In the whole fleet: what is more is held, so that a bad rule ends with a few.
    pub fleet: Limit,
    /// How many containers of one owner are replaced within an hour; then they are quarantined.
    pub replacements_per_hour: u32,
}

/// So many containers within a time.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// How many.
    pub max: u32,
    /// Within which time.
    pub per: Age,
}

/// Which containers may not start.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// `enforce`, or `dry_run`, which only tells.
    pub mode: GateMode,
    /// Verdicts whose images may not start.
    #[serde(default = "deny")]
    pub refuse: Vec<Decision>,
    /// What holds for an image that nobody judged.
    #[serde(default)]
    pub unknown: Unknown,
}

/// How far a start gate goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateMode {
    /// It tells what it would have stopped.
    DryRun,
    /// It stops.
    Enforce,
}

/// What holds for an image that nobody judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// It starts.
    #[default]
    Allow,
    /// It does not.
    Refuse,
}

const fn one() -> u32 {
    1
}

const fn wait() -> Age {
    Age(WAITS)
}

const fn yes() -> bool {
    true
}

const fn valid() -> Age {
    VALID
}

const fn renewals() -> u32 {
    RENEWALS
}

const fn cool_down() -> Age {
    COOL_DOWN
}

fn deny() -> Vec<Decision> {
    vec![Decision::Deny]
}

// === impl ResponsePolicy ===

impl ResponsePolicy {
    /// Reads a document.
    pub fn parse(yaml: &str) -> Result<Self, PolicyError> {
        documents::parse(yaml)
    }

    /// The policy that comes with the program.
    pub fn builtin() -> Self {
        Self::parse(BUILTIN_RESPONSES).expect("a test reads it")
    }

    /// The same document at a revision of its bucket.
    #[must_use]
    pub fn at_revision(self, revision: u64) -> Self {
        Self { revision, ..self }
    }

    /// The full name of a rule, as records have it.
    pub(crate) fn rule_name(&self, rule: &ResponseRule) -> String {
        format!("{}/{}", self.name, rule.name)
    }

    /// Why its parts do not go together.
    pub(super) fn misfit(&self) -> Option<String> {
        if !(1..=VALID_MAX_S).contains(&self.wait.0.as_secs()) {
            return Some("`wait` is at least `1s` and at most `30d`".to_owned());
        }
        let mut names = BTreeSet::new();
        for rule in &self.rules {
            let name = &rule.name;
            if !names.insert(name) {
                return Some(format!("there are two rules `{name}`"));
            }
            if rule.then.is_empty() {
                return Some(format!("rule `{name}`: `then` says nothing"));
            }
            let kinds: BTreeSet<ActionKind> = rule.then.iter().map(|then| then.0.kind()).collect();
            if kinds.len() < rule.then.len() {
                return Some(format!("rule `{name}`: `then` says the same twice"));
            }
            if rule.then.iter().any(|then| peers(&then.0) > ALLOW_MAX) {
                return Some(format!(
                    "rule `{name}`: `allow` has more than {ALLOW_MAX} addresses"
                ));
            }
            if rule.cool_down.0 > REMEMBERED {
                return Some(format!("rule `{name}`: `cool_down` is at most `24h`"));
            }
            if !(1..=VALID_MAX_S).contains(&rule.valid.0.as_secs()) {
                return Some(format!(
                    "rule `{name}`: `for` is at least `1s` and at most `30d`"
                ));
            }
            if rule.renew > RENEWALS_MAX {
                return Some(format!("rule `{name}`: `renew` is at most {RENEWALS_MAX}"));
            }
        }
        let Limits {
            rule,
            image,
            node,
            fleet,
            ..
        } = self.limits;
        for (scope, limit) in [
            ("rule", rule),
            ("image", image),
            ("node", node),
            ("fleet", fleet),
        ] {
            // What is forgotten cannot be counted.
            if limit.per.0 > REMEMBERED {
                return Some(format!("`limits.{scope}` looks back `24h` at most"));
            }
        }
        let gate = self.start_gate.as_ref();
        if gate.is_some_and(|gate| gate.refuse.contains(&Decision::Allow)) {
            return Some("`start_gate` cannot refuse what is allowed".to_owned());
        }
        None
    }
}

// === impl Then ===

impl<'de> Deserialize<'de> for Then {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Then;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an action")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Then, E> {
                named(name).map(Then).ok_or_else(|| {
                    let all = ActionKind::ALL.map(ActionKind::as_str).join(", ");
                    E::custom(format!("`{name}` is not an action: {all}"))
                })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Then, A::Error> {
                Action::deserialize(de::value::MapAccessDeserializer::new(map)).map(Then)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// How many addresses an action leaves.
const fn peers(action: &Action) -> usize {
    match action {
        Action::Quarantine { allow } => allow.len(),
        _ => 0,
    }
}

/// An action by its name alone.
fn named(name: &str) -> Option<Action> {
    let all = [
        Action::Observe,
        Action::CollectEvidence,
        Action::Block,
        Action::Pause,
        Action::Quarantine { allow: Vec::new() },
        Action::Replace,
        Action::Kill,
    ];
    all.into_iter()
        .find(|action| action.kind().as_str() == name)
}

// === impl ResponseMode ===

impl ResponseMode {
    /// As it is written.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::DryRun => "dry_run",
            Self::Propose => "propose",
            Self::Enforce => "enforce",
        }
    }

    /// How a response of this mode is carried out.
    pub(crate) const fn carried_out(self) -> Mode {
        match self {
            Self::Observe | Self::DryRun => Mode::DryRun,
            Self::Propose | Self::Enforce => Mode::Enforced,
        }
    }
}

// === impl When ===

impl When {
    /// Whether it is about this incident.
    pub(crate) fn fits(&self, incident: &Incident, subject: &Subject, sources: &[Slug]) -> bool {
        let severity = self.severity.map_or(Severity::Unknown, |level| level.0);
        let named = |globs: &NameGlobs, name: &str| globs.is_empty() || globs.fits(name);
        let fired = || incident.rules.iter().any(|rule| self.rules.fits(rule));
        incident.severity >= severity
            && (self.rules.is_empty() || fired())
            && named(
                &self.namespaces,
                subject.namespace.as_deref().unwrap_or_default(),
            )
            && (self.images.is_empty() || self.images.fits(repository(&subject.image_name)))
            && named(&self.nodes, subject.node.as_str())
            && labels_fit(&self.labels, &subject.labels)
            && (self.sources.is_empty() || sources.iter().any(|one| self.sources.contains(one)))
    }

    /// Whether it asks where an image comes from.
    pub(crate) const fn asks_sources(&self) -> bool {
        !self.sources.is_empty()
    }
}

/// Whether each label is there and fits its pattern.
pub(crate) fn labels_fit(
    wanted: &BTreeMap<String, NameGlobs>,
    labels: &BTreeMap<String, String>,
) -> bool {
    wanted.iter().all(|(name, globs)| {
        let value = labels.get(name);
        value.is_some_and(|value| globs.is_empty() || globs.fits(value))
    })
}

/// An image's name without tag and digest.
pub(crate) fn repository(name: &str) -> &str {
    let (name, _) = name.split_once('@').unwrap_or((name, ""));
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        let limit = |max| Limit {
            max,
            per: Age(jiff::SignedDuration::from_mins(10)),
        };
        Self {
            rule: limit(10),
            image: limit(5),
            node: limit(5),
            fleet: limit(10),
            replacements_per_hour: 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::DOCUMENT_BYTES_MAX;

    #[test]
    fn the_builtin_policy_observes() {
        let policy = ResponsePolicy::builtin();
        assert_eq!((policy.name.as_str(), policy.revision), ("default", 0));
        let modes = policy
            .rules
            .iter()
            .map(|rule| rule.mode.unwrap_or(policy.mode));
        assert!(modes.clone().count() > 0);
        assert!(modes.into_iter().all(|mode| mode == ResponseMode::Observe));
    }

    #[test]
    fn the_document_of_the_module_is_one() {
        let doc = include_str!("document.rs");
        let yaml: String = doc
            .lines()
            .skip_while(|line| *line != "//! ```yaml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .flat_map(|line| [line.strip_prefix("//! ").unwrap_or_default(), "\n"])
            .collect();
        let policy = ResponsePolicy::parse(&yaml).unwrap();
        assert_eq!(policy.rules[0].mode, Some(ResponseMode::Enforce));
        assert_eq!(policy.rules[0].then.len(), 2);
        assert_eq!(policy.start_gate.unwrap().refuse, [Decision::Deny]);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let refused = |yaml: &str| ResponsePolicy::parse(yaml).unwrap_err().to_string();
        let rule = |text: &str| refused(&format!("name: a\nrules: [{{ name: r, {text} }}]\n"));
        insta::assert_snapshot!(refused("name: a\nmode: kill\n"), @"unknown variant `kill`, expected one of observe, dry_run, propose, enforce at line 2, column 7");
        insta::assert_snapshot!(rule("when: {}, then: []"), @"policy `a`: rule `r`: `then` says nothing");
        insta::assert_snapshot!(rule("when: {}, then: [pause, pause]"), @"policy `a`: rule `r`: `then` says the same twice");
        insta::assert_snapshot!(rule("when: {}, then: [pause], for: 31d"), @"policy `a`: rule `r`: `for` is at least `1s` and at most `30d`");
        insta::assert_snapshot!(refused("name: a\nwait: 31d\n"), @"policy `a`: `wait` is at least `1s` and at most `30d`");
        insta::assert_snapshot!(rule("when: {}, then: [pause], renew: 101"), @"policy `a`: rule `r`: `renew` is at most 100");
        assert!(
            ResponsePolicy::parse(
                "name: a\nrules: [{ name: r, when: {}, then: [pause], renew: 100 }]\n"
            )
            .is_ok()
        );
        let allow = ["10.0.0.1"; 65].join(", ");
        assert!(
            rule(&format!(
                "when: {{}}, then: [{{ quarantine: {{ allow: [{allow}] }} }}]"
            ))
            .contains("more than 64 addresses")
        );
        assert!(rule("when: {}, then: [pause], cool_down: 2d").contains("at most `24h`"));
        assert!(
            refused("name: a\nlimits: { fleet: { max: 1, per: 2d } }\n")
                .contains("`limits.fleet` looks back `24h`")
        );
        assert!(rule("when: {}, then: [explode]").contains("`explode` is not an action"));
        assert!(
            refused("name: a\nstart_gate: { mode: enforce, refuse: [allow] }")
                .contains("cannot refuse")
        );
        let large = format!("name: a\ndescription: {}\n", "x".repeat(DOCUMENT_BYTES_MAX));
        assert!(matches!(
            ResponsePolicy::parse(&large),
            Err(PolicyError::TooLarge(_))
        ));
    }

    #[test]
    fn an_image_is_known_by_its_repository() {
        assert_eq!(
            repository("r.example:5000/web/app:1.2"),
            "r.example:5000/web/app"
        );
        assert_eq!(
            repository("r.example:5000/web/app"),
            "r.example:5000/web/app"
        );
        assert_eq!(repository("r.example/app@sha256:00"), "r.example/app");
    }
}
