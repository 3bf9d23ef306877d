//! What is known and accepted: detections that are not raised.

use std::fmt;

use globset::{Glob, GlobMatcher};
use jiff::Timestamp;
use model::runtime::Container;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Says that something is no cause for an alarm, and why. Every pattern that is given must fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// Rules, as `behavior/package-manager` or `drift/*`.
    pub rule: Pattern,
    /// Why.
    pub reason: String,
    /// Names of images, as `registry.example/ci/*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Pattern>,
    /// Names of containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Pattern>,
    /// Namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Pattern>,
    /// What the rule is about: the path of the file that ran or was opened, or the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Pattern>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A glob: `*` stands for any text.
#[derive(Clone)]
pub struct Pattern(GlobMatcher);

// === impl Exception ===

impl Exception {
    /// Whether it accepts a detection; `container` is what its runtime tells of it, if anything.
    pub(crate) fn accepts(
        &self,
        (rule, subject): (&str, &str),
        container: Option<&Container>,
        at: Timestamp,
    ) -> bool {
        let fits = |pattern: &Option<Pattern>, text: Option<&str>| {
            let Some(pattern) = pattern else { return true };
            text.is_some_and(|text| pattern.fits(text))
        };
        self.rule.fits(rule)
            && self.until.is_none_or(|until| at < until)
            && fits(&self.subject, Some(subject))
            && fits(&self.image, container.map(|one| one.image.as_str()))
            && fits(&self.container, container.map(|one| one.name.as_str()))
            && fits(
                &self.namespace,
                container.and_then(|one| one.namespace.as_deref()),
            )
    }
}

// === impl Pattern ===

impl Pattern {
    fn fits(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.glob() == other.0.glob()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.glob().glob())
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.glob().glob())
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let glob = Glob::new(&text).map_err(de::Error::custom)?;
        Ok(Self(glob.compile_matcher()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_pattern_that_is_given_must_fit() {
        let exception: Exception = serde_json::from_value(json!({
            "rule": "behavior/package-*",
            "reason": "it builds",
            "image": "registry.example/ci/*",
            "until": "2026-02-01T00:00:00Z",
        }))
        .unwrap();
        let container: Container = serde_json::from_value(json!({
            "id": "c", "runtime": "podman", "state": "running",
            "image": "registry.example/ci/build:1",
        }))
        .unwrap();
        let accepts = |rule: &str, container: Option<&Container>, at: &str| {
            exception.accepts((rule, "usr/bin/apt"), container, at.parse().unwrap())
        };
        let (before, after) = ("2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z");
        let rule = "behavior/package-manager";
        assert!(accepts(rule, Some(&container), before));
        assert!(!accepts(rule, Some(&container), after));
        assert!(!accepts("behavior/ptrace", Some(&container), before));
        // A container of which nothing is known yet is none of an image's.
        assert!(!accepts(rule, None, before));
    }
}
