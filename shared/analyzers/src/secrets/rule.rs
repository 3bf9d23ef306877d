//! A rule: what a secret looks like, as data.
//!
//! Ours stand in `rules/*.yaml`, those of users in their configuration, in the same words:
//!
//! ```yaml
//! - id: acme-token
//!   title: Acme token
//!   severity: high                 # the default
//!   advice: revoke it at https://acme.example/tokens
//!   keywords: [acme_]              # one of them must be there, in any case, for the rule to look
//!   regex: '\b(acme_[a-z0-9]{32})\b'
//!   entropy: 3                     # bits per character that the secret must have
//!   paths: ['**/*.env']            # only in such files
//!   not_paths: ['**/tests/**']     # not in such files
//!   allow: ['^acme_0+']            # secrets of this form are none
//!   example: 'token = acme_…'
//!   counter_example: 'token = acme_short'
//! ```
//!
//! Instead of `regex` a rule may say `token: {prefix, value}`, which stands alone, or
//! `assigned: {to, value}`, which is given to a name: `ACME_KEY=…`, `"acmeKey": "…"`.

use std::sync::OnceLock;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use model::Severity;
use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::check::Check;

/// Bytes that one compiled expression may take.
const REGEX_BYTES_MAX: usize = 4 << 20;

/// Bytes behind a keyword in which a secret ends, where the rule says nothing else.
const REACH_BYTES: usize = 512;

/// Bytes that a rule may reach.
const REACH_BYTES_MAX: usize = 64 << 10;

/// Bytes of one text of a rule.
const TEXT_BYTES_MAX: usize = 4096;

/// Keywords, patterns of paths and exceptions of one rule.
const LIST_MAX: usize = 50;

/// A rule as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRule {
    /// Its name.
    pub id: String,
    /// What it finds, for a person.
    pub title: String,
    /// How bad that is.
    #[serde(default = "high")]
    pub severity: Severity,
    /// How to revoke the secret.
    pub advice: String,
    /// Texts of which one must be there, in any case; where there are none, all of the files with
    /// such `paths` is looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keywords: Vec<String>,
    /// The expression; its first group is the secret, or all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// A token that stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// A value that is given to a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<Assigned>,
    /// Bits per character that the secret must have at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
    /// What else must be true of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// Bytes behind the keyword in which it must end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<usize>,
    /// Only in files with such paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Not in files with such paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_paths: Vec<String>,
    /// Expressions for secrets, or for all that was matched, that are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// A text in which it finds something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<Example>,
    /// A text in which it finds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter_example: Option<Example>,
}

/// A text that shows what a rule does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Example {
    /// In any file.
    Text(String),
    /// In a file with this path.
    In {
        /// The path.
        path: String,
        /// The text.
        text: String,
    },
}

/// A token that stands alone: neither a letter nor a digit stands before or behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// How it begins.
    pub prefix: String,
    /// The expression of what follows.
    pub value: String,
}

/// A value that is given to a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assigned {
    /// The expression of the name, in any case; without it a keyword, and behind it a word like
    /// `key`, `token` or `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The expression of the value.
    pub value: String,
}

/// A text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("secret rule `{id}`: {why}")]
pub struct SecretRuleError {
    id: String,
    why: String,
}

/// A rule ready for use. What it compiles is compiled when it is needed first: of all rules few are
/// needed, and a scan of known layers needs hardly any.
pub(super) struct Rule {
    pub(super) written: SecretRule,
    pub(super) reach: usize,
    pattern: String,
    compiled: OnceLock<Option<Regex>>,
    places: OnceLock<Places>,
    allow: OnceLock<Vec<Regex>>,
}

/// The files that a rule looks into.
#[derive(Default)]
struct Places {
    only: Option<GlobSet>,
    not: Option<GlobSet>,
}

// === impl SecretRule ===

impl SecretRule {
    /// Refuses what could not be used, and a rule that its own examples contradict.
    ///
    /// # Errors
    /// Says which part of the rule is wrong.
    pub fn check(&self) -> Result<(), SecretRuleError> {
        let rule = Rule::new(self.clone())?;
        let wrong = |why: &str| self.error(why);
        let regex = compile(&rule.pattern).map_err(|error| self.error(error.to_string()))?;
        self.places()?;
        self.excepted()?;
        let finds = |example: &Example| regex.is_match(example.text().as_bytes());
        if self.example.as_ref().is_some_and(|example| !finds(example)) {
            return Err(wrong("it finds nothing in its `example`"));
        }
        if self.counter_example.as_ref().is_some_and(finds) {
            return Err(wrong("it finds something in its `counter_example`"));
        }
        Ok(())
    }

    /// The expression, of whichever form it is written in.
    fn pattern(&self) -> Result<String, SecretRuleError> {
        let Self {
            regex,
            token,
            assigned,
            ..
        } = self;
        match (regex, token, assigned) {
            (Some(regex), None, None) => Ok(regex.clone()),
            (None, Some(Token { prefix, value }), None) => {
                let prefix = regex::escape(prefix);
                Ok(format!(
                    "(?:^|[^A-Za-z0-9])({prefix}{value})(?:[^A-Za-z0-9_-]|$)"
                ))
            }
            (None, None, Some(Assigned { to, value })) => {
                let names: Vec<_> = self
                    .keywords
                    .iter()
                    .map(|word| regex::escape(word))
                    .collect();
                let to = to.clone().unwrap_or_else(|| {
                    let names = names.join("|");
                    format!(
                        r"(?:{names})[\w.\-]{{0,24}}(?:key|token|secret|pass|pwd|auth|cred|pat)[\w.\-]{{0,16}}"
                    )
                });
                Ok(format!(
                    "(?i:{to})[\"'`]?\\s{{0,4}}(?:=>|:=|\\?=|=|:|,)\\s{{0,4}}(?i:bearer |token |basic )?[\"'`]?({value})(?:[\"'`\\s,;<&)\\]}}\\\\]|$)"
                ))
            }
            _ => Err(self.error("it needs one of `regex`, `token` and `assigned`")),
        }
    }

    fn error(&self, why: impl Into<String>) -> SecretRuleError {
        SecretRuleError {
            id: self.id.chars().take(100).collect(),
            why: why.into(),
        }
    }

    fn check_texts(&self) -> Result<(), SecretRuleError> {
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.id.is_empty() || self.id.len() > 100 || !self.id.chars().all(is_word) {
            return Err(self.error("an id has 1 to 100 characters `a-z`, `0-9`, `-`"));
        }
        let lists = [&self.keywords, &self.paths, &self.not_paths, &self.allow];
        if lists.iter().any(|list| list.len() > LIST_MAX) {
            return Err(self.error(format!("a list has more than {LIST_MAX} items")));
        }
        let is_short = |word: &String| word.len() < 3;
        if (self.keywords.is_empty() && self.paths.is_empty()) || self.keywords.iter().any(is_short)
        {
            return Err(self.error("it needs keywords of at least 3 characters, or paths"));
        }
        let texts = lists.into_iter().flatten().chain(&self.regex);
        let texts = texts.chain([&self.title, &self.advice]);
        if texts.into_iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(self.error(format!("a text has more than {TEXT_BYTES_MAX} bytes")));
        }
        if self.reach.is_some_and(|reach| reach > REACH_BYTES_MAX) {
            return Err(self.error(format!("`reach` is more than {REACH_BYTES_MAX}")));
        }
        Ok(())
    }

    fn places(&self) -> Result<Places, SecretRuleError> {
        Ok(Places {
            only: self.globs(&self.paths)?,
            not: self.globs(&self.not_paths)?,
        })
    }

    fn excepted(&self) -> Result<Vec<Regex>, SecretRuleError> {
        let allow = self.allow.iter().map(|text| compile(text));
        let allow = allow.collect::<Result<_, _>>();
        allow.map_err(|error| self.error(error.to_string()))
    }

    fn globs(&self, texts: &[String]) -> Result<Option<GlobSet>, SecretRuleError> {
        if texts.is_empty() {
            return Ok(None);
        }
        let mut set = GlobSetBuilder::new();
        for text in texts {
            let glob = GlobBuilder::new(text.trim_start_matches('/'))
                .literal_separator(true)
                .build();
            set.add(glob.map_err(|error| self.error(error.to_string()))?);
        }
        let set = set.build();
        set.map(Some).map_err(|error| self.error(error.to_string()))
    }
}

// === impl Example ===

impl Example {
    /// The text.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::In { text, .. } => text,
        }
    }

    /// The path of the file that it stands in.
    #[cfg(test)]
    pub(super) fn path(&self) -> &str {
        match self {
            Self::Text(_) => "srv/app/settings",
            Self::In { path, .. } => path,
        }
    }
}

// === impl Rule ===

impl Rule {
    pub(super) fn new(written: SecretRule) -> Result<Self, SecretRuleError> {
        written.check_texts()?;
        Ok(Self {
            pattern: written.pattern()?,
            reach: written.reach.unwrap_or(REACH_BYTES),
            compiled: OnceLock::new(),
            places: OnceLock::new(),
            allow: OnceLock::new(),
            written,
        })
    }

    /// Whether it looks into a file at all.
    pub(super) fn applies(&self, path: &str) -> bool {
        let made = || self.written.places().unwrap_or_default();
        let Places { only, not } = self.places.get_or_init(made);
        only.as_ref().is_none_or(|globs| globs.is_match(path))
            && !not.as_ref().is_some_and(|globs| globs.is_match(path))
    }

    /// The compiled expression. Like all of a rule, those of users were compiled when they were read,
    /// ours by a test.
    pub(super) fn regex(&self) -> Option<&Regex> {
        self.compiled
            .get_or_init(|| compile(&self.pattern).ok())
            .as_ref()
    }

    /// Whether a secret, or all that the expression matched, is what the rule excepts.
    pub(super) fn allows(&self, secret: &[u8], matched: &[u8]) -> bool {
        let is_excepted = |regex: &Regex| regex.is_match(secret) || regex.is_match(matched);
        let made = || self.written.excepted().unwrap_or_default();
        self.allow.get_or_init(made).iter().any(is_excepted)
    }
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .build()
}

const fn high() -> Severity {
    Severity::High
}
