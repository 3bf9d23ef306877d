//! Which secrets are looked for, and the key that names them.

use std::fmt;

use aws_lc_rs::hmac;
use model::hex;
use serde::{Deserialize, Serialize};

use super::{engine::built_in_rules, keystore, rule::SecretRule};

/// Rules of users.
const RULES_MAX: usize = 1000;

/// Bytes of a key.
const KEY_BYTES_MIN: usize = 16;

/// What comes before a secret whose fingerprint is taken, so that the key names nothing else.
const PURPOSE: &[u8] = b"tidewaiter.secret/1\0";

/// What users say of secrets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretsConfig {
    /// Rules beside the built-in ones. One with the id of a built-in rule takes its place.
    #[serde(deserialize_with = "checked")]
    pub rules: Vec<SecretRule>,
    /// Ids of rules that are not asked.
    #[serde(deserialize_with = "known")]
    pub disable: Vec<String>,
    /// The key of fingerprints; who runs the analyzers reads it from its file.
    #[serde(skip)]
    pub key: FingerprintKey,
}

/// The key under which secrets get their fingerprints. It belongs to an installation: whoever has it
/// gives the same secret the same name, and nobody else can try passwords against a report.
#[derive(Clone, PartialEq, Eq)]
pub struct FingerprintKey(Vec<u8>);

/// The bytes are no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key has {0} bytes, less than {KEY_BYTES_MIN}")]
pub struct FingerprintKeyError(usize);

// === impl SecretsConfig ===

// Keys are compared byte by byte and rules hold no NaN that `config` could read.
impl Eq for SecretsConfig {}

impl SecretsConfig {
    /// What a section depends on, without the key.
    pub(super) fn digest_parts(&self) -> (&[SecretRule], &[String], String) {
        (&self.rules, &self.disable, self.key.id())
    }
}

fn checked<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<SecretRule>, D::Error> {
    let rules = Vec::<SecretRule>::deserialize(deserializer)?;
    if rules.len() > RULES_MAX {
        let error = format!("there are more than {RULES_MAX} rules");
        return Err(serde::de::Error::custom(error));
    }
    for rule in &rules {
        rule.check().map_err(serde::de::Error::custom)?;
    }
    Ok(rules)
}

fn known<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let ids = Vec::<String>::deserialize(deserializer)?;
    if ids.is_empty() {
        return Ok(ids);
    }
    let rules = built_in_rules().map_err(serde::de::Error::custom)?;
    let mut unknown = ids.iter();
    match unknown.find(|id| *id != keystore::RULE && !rules.iter().any(|rule| rule.id == **id)) {
        Some(id) => {
            let error = format!("there is no built-in secret rule `{id}`");
            Err(serde::de::Error::custom(error))
        }
        None => Ok(ids),
    }
}

// === impl FingerprintKey ===

impl FingerprintKey {
    /// A key of these bytes; blanks around them do not matter, for it comes from a file.
    ///
    /// # Errors
    /// Where they are too few to be a key.
    pub fn new(bytes: &[u8]) -> Result<Self, FingerprintKeyError> {
        let bytes = bytes.trim_ascii();
        if bytes.len() < KEY_BYTES_MIN {
            return Err(FingerprintKeyError(bytes.len()));
        }
        Ok(Self(bytes.to_vec()))
    }

    /// Names the key without telling it.
    pub fn id(&self) -> String {
        self.tag(b"tidewaiter.key-id/1\0", b"")
            .chars()
            .take(16)
            .collect()
    }

    /// The fingerprint of a secret: hex.
    pub fn fingerprint(&self, secret: &[u8]) -> String {
        self.tag(PURPOSE, secret).chars().take(32).collect()
    }

    fn tag(&self, purpose: &[u8], text: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut context = hmac::Context::with_key(&key);
        context.update(purpose);
        context.update(text);
        hex(context.sign().as_ref())
    }
}

impl Default for FingerprintKey {
    /// A key that everybody knows, for where there is nothing to protect: tests, and lists of rules.
    fn default() -> Self {
        Self(b"tidewaiter: no key was given".to_vec())
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FingerprintKey({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_secrets_and_is_never_told() {
        let key = FingerprintKey::new(b"0123456789abcdef\n").unwrap();
        let other = FingerprintKey::new(b"fedcba9876543210").unwrap();
        assert_eq!(key, FingerprintKey::new(b"0123456789abcdef").unwrap());
        assert_eq!(key.fingerprint(b"a").len(), 32);
        assert_eq!(key.fingerprint(b"a"), key.clone().fingerprint(b"a"));
        assert_ne!(key.fingerprint(b"a"), key.fingerprint(b"b"));
        assert_ne!(key.fingerprint(b"a"), other.fingerprint(b"a"));
        assert_ne!(key.id(), other.id());
        assert!(!format!("{key:?}").contains("0123456789abcdef"));
        assert_eq!(FingerprintKey::new(b"short"), Err(FingerprintKeyError(5)));
    }

    #[test]
    fn only_rules_that_there_are_can_be_disabled() {
        let read = serde_saphyr::from_str::<SecretsConfig>;
        assert!(read("disable: [json-web-token, keystore-private-key]").is_ok());
        let error = read("disable: [json-web-tokens]").unwrap_err().to_string();
        assert!(
            error.contains("no built-in secret rule `json-web-tokens`"),
            "{error}"
        );
    }

    #[test]
    fn rules_of_users_are_checked_when_they_are_read() {
        let read = |rule: &str| {
            serde_saphyr::from_str::<SecretsConfig>(&format!("rules:\n  - {rule}\n"))
                .map_err(|error| error.without_snippet().to_string())
        };
        let good = "{id: acme, title: t, advice: a, keywords: [acme_], regex: 'acme_[0-9]{4}'}";
        assert_eq!(read(good).unwrap().rules[0].id, "acme");
        let check = |rule: &str, expected: &str| {
            let error = read(rule).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(
            "{id: acme, title: t, advice: a, keywords: [acme_], regex: 'a('}",
            "secret rule `acme`: regex",
        );
        check(
            "{id: acme, title: t, advice: a, keywords: [acme_]}",
            "needs one of `regex`, `token` and `assigned`",
        );
        check(
            "{id: Acme, title: t, advice: a, keywords: [acme_], regex: a}",
            "an id has 1 to 100",
        );
        check(
            "{id: acme, title: t, advice: a, regex: a}",
            "it needs keywords",
        );
        check(
            "{id: acme, title: t, advice: a, keywords: [abc], regex: a, example: b}",
            "finds nothing in its `example`",
        );
        check(
            "{id: acme, title: t, advice: a, keywords: [abc], regex: a, counter_example: a}",
            "finds something in its",
        );
        check(
            "{id: acme, titel: t, advice: a, keywords: [abc], regex: a}",
            "unknown field `titel`",
        );
        check(
            "{id: acme, title: t, advice: a, keywords: [abc], regex: a, paths: ['a[']}",
            "unclosed character class",
        );
        check(
            "{id: acme, title: t, advice: a, keywords: [abc], regex: '(a{1000}){1000}'}",
            "exceeds",
        );
    }
}
