//! Secrets, and where they are kept.

use std::{fmt, io, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{config, files};

const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// A secret text: it cannot be printed, logged or serialized by accident.
#[derive(Clone)]
pub struct Secret(String);

/// Where a secret is kept: `env:NAME` or `file:PATH`. Configuration holds these, never secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file; a newline at its end is not part of the secret.
    File(PathBuf),
}

/// Why there is no secret. The messages never hold what was written where a reference belongs,
/// for it may be the secret itself.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Not `env:NAME` or `file:PATH`.
    #[error("a secret is written as `env:NAME` or `file:PATH`, not as its own text")]
    Form,
    /// No such environment variable.
    #[error("environment variable `{0}` for a secret is not set")]
    NotSet(String),
    /// The file cannot be read.
    #[error("file `{path}` for a secret")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("secret `{0}` is empty")]
    Empty(SecretRef),
}

// === impl Secret ===

impl Secret {
    /// The secret's text; it is for the wire and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

// === impl SecretRef ===

impl SecretRef {
    /// Fetches the secret; called where it is used, so that a rotated one is seen.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let mut text = match self {
            Self::Env(name) => {
                config::env_var(name).ok_or_else(|| SecretError::NotSet(name.clone()))?
            }
            Self::File(path) => {
                files::read_text_bounded(path, SECRET_BYTES_MAX).map_err(|source| {
                    SecretError::File {
                        path: path.clone(),
                        source,
                    }
                })?
            }
        };
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        if text.is_empty() {
            return Err(SecretError::Empty(self.clone()));
        }
        Ok(Secret(text))
    }
}

impl FromStr for SecretRef {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            _ => Err(SecretError::Form),
        }
    }
}

impl TryFrom<String> for SecretRef {
    type Error = SecretError;

    fn try_from(text: String) -> Result<Self, SecretError> {
        text.parse()
    }
}

impl From<SecretRef> for String {
    fn from(reference: SecretRef) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn references_round_trip_and_a_plain_secret_is_refused_without_repeating_it() {
        for text in ["env:TOKEN", "file:/run/secrets/token"] {
            let reference: SecretRef = serde_json::from_value(text.into()).unwrap();
            assert_eq!(serde_json::to_value(&reference).unwrap(), text);
        }
        for text in ["hunter2", "env:", "vault:x"] {
            let error = serde_json::from_value::<SecretRef>(text.into())
                .unwrap_err()
                .to_string();
            assert!(
                !error.contains("hunter2") && error.contains("`env:NAME`"),
                "{error}"
            );
        }
    }

    #[test]
    fn files_are_trimmed_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let reference = SecretRef::File(path.clone());
        std::fs::write(&path, "a b \r\n\n").unwrap();
        assert_eq!(reference.read().unwrap().expose(), "a b ");
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(reference.read(), Err(SecretError::Empty(_))));
        std::fs::write(&path, "x".repeat(70_000)).unwrap();
        assert!(matches!(reference.read(), Err(SecretError::File { .. })));
        let unset = SecretRef::Env("TIDEWAITER_NO_SUCH_SECRET".to_owned());
        assert!(matches!(unset.read(), Err(SecretError::NotSet(_))));
        assert!(SecretRef::Env("PATH".to_owned()).read().is_ok());
    }
}
