//! Names that may stand in a subject, a key or a path.

use std::{borrow::Borrow, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A name of 1 to 64 characters `a-z 0-9 _ -`: tenants, sources, nodes, policies, CI systems.
///
/// Nothing else may become part of a NATS subject or KV key, so a dot, a star or a space in
/// somebody's input can never widen a subscription.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[a-z0-9_-]{1,64}$"))]
pub struct Slug(String);

/// The text is not a slug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name of 1 to 64 characters `a-z`, `0-9`, `_`, `-`")]
pub struct SlugError(String);

// === impl Slug ===

impl Slug {
    /// The tenant of installations where nobody asked for tenants.
    pub fn default_tenant() -> Self {
        Self("default".to_owned())
    }

    /// The source of images that only nodes have; no configured one may be called so.
    pub fn node_source() -> Self {
        Self("node".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = SlugError;

    fn from_str(text: &str) -> Result<Self, SlugError> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(SlugError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Slug {
    type Error = SlugError;

    fn try_from(text: String) -> Result<Self, SlugError> {
        text.parse()
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> Self {
        slug.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Slug {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Slug {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_metacharacters_are_refused() {
        for text in ["", "a.b", "*", ">", "A", "ä", &"a".repeat(65)] {
            assert!(text.parse::<Slug>().is_err(), "{text}");
        }
        assert_eq!("team-1_x".parse::<Slug>().unwrap().as_str(), "team-1_x");
    }
}
