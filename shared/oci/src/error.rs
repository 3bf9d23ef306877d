//! What can go wrong between us and a source, told so that a person knows what to do.

use std::{io, path::Path, time::Duration};

use model::{Digest, Platform};

/// Why an image or a blob could not be had from its source.
///
/// Callers act on three questions: [`is_transient`](Self::is_transient) (try again later),
/// [`is_auth`](Self::is_auth) and [`is_not_found`](Self::is_not_found) (another source of the same
/// image may do). Everything else is a property of the image, and holds for ever.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OciError {
    /// The source wants credentials, or does not accept those it got.
    #[error("`{host}` refuses access to `{repository}` ({detail}); {}", advice(*.authenticated, .host))]
    Unauthorized {
        /// The registry.
        host: String,
        /// The repository.
        repository: String,
        /// What it answered.
        detail: String,
        /// Whether credentials were sent.
        authenticated: bool,
    },
    /// Credentials are configured, yet could not be read.
    #[error("reading credentials for `{host}` from {from}: {detail}")]
    Credentials {
        /// The registry.
        host: String,
        /// The file or helper.
        from: String,
        /// What went wrong.
        detail: String,
    },
    /// There is no such thing in the source.
    #[error("`{what}` does not exist in {place}; check the name, the tag and the digest")]
    NotFound {
        /// The reference or digest.
        what: String,
        /// The registry or path.
        place: String,
        /// What of it is missing.
        missing: Missing,
    },
    /// An index has no image for the platform that was asked for.
    #[error("`{reference}` has no image for `{wanted}`, only for: {available}")]
    NoPlatform {
        /// The index.
        reference: String,
        /// What was asked for.
        wanted: Platform,
        /// What there is, separated by commas.
        available: String,
    },
    /// The source does not answer, answers with an error of its own, or wants us to slow down.
    #[error("`{host}` is not available: {detail}{}", wait(*.retry_after))]
    Unavailable {
        /// The registry or path.
        host: String,
        /// What happened.
        detail: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// More bytes or parts than our limits allow.
    #[error("{what} is larger than {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The limit, with its unit.
        limit: String,
    },
    /// Bytes that are not what they should be.
    #[error("{what} is malformed: {detail}")]
    Malformed {
        /// What is malformed.
        what: String,
        /// Why.
        detail: String,
    },
    /// Bytes that have another digest than the one asked for.
    #[error("{what} has digest `{actual}` where `{expected}` was asked for")]
    DigestMismatch {
        /// What was read.
        what: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest computed.
        actual: Digest,
    },
    /// A format, media type or scheme that we do not read.
    #[error("{what} is not supported: {detail}")]
    Unsupported {
        /// What.
        what: String,
        /// Why, and what to do.
        detail: String,
    },
    /// The source, or a redirect of it, leads to an address inside our own network.
    #[error(
        "`{host}` leads to the private address `{address}`; where that is meant, let its source lead there (`allow_private`)"
    )]
    PrivateAddress {
        /// The host asked for.
        host: String,
        /// Where it leads.
        address: String,
    },
    /// A local file or directory could not be read.
    #[error("reading `{path}`: {detail}")]
    Io {
        /// The file or directory.
        path: String,
        /// What happened.
        detail: String,
    },
    /// Our own side: TLS set-up, a task that was lost.
    #[error("{0}")]
    Internal(String),
}

/// What a source says that it does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// It does not say.
    #[default]
    Unsaid,
    /// The repository.
    Repository,
    /// This tag or digest of it.
    Version,
    /// It is no registry that says so: a proxy, or a web site.
    Registry,
}

// === impl OciError ===

impl OciError {
    /// Whether the same request may succeed later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Internal(_))
    }

    /// Whether other credentials would help.
    pub const fn is_auth(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::Credentials { .. })
    }

    /// Whether the source does not have it.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::NoPlatform { .. })
    }

    /// When the source wants to be asked again.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The error that a blob's reader ended with, where it is one of ours.
    pub fn from_read(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers hand over an error or a literal"
    )]
    pub(crate) fn malformed(what: impl Into<String>, detail: impl ToString) -> Self {
        Self::Malformed {
            what: what.into(),
            detail: detail.to_string(),
        }
    }

    pub(crate) fn unsupported(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Unsupported {
            what: what.into(),
            detail: detail.into(),
        }
    }

    pub(crate) fn too_large(what: impl Into<String>, bytes: u64) -> Self {
        Self::TooLarge {
            what: what.into(),
            limit: format!("{bytes} bytes"),
        }
    }

    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            let what = path.display().to_string();
            return Self::NotFound {
                what,
                place: "the file system".to_owned(),
                missing: Missing::Unsaid,
            };
        }
        Self::Io {
            path: path.display().to_string(),
            detail: error.to_string(),
        }
    }
}

impl From<chassis::Lost> for OciError {
    fn from(_: chassis::Lost) -> Self {
        Self::Internal("a task that reads from a source was lost".to_owned())
    }
}

/// Most registries answer so for a repository that they do not have, too, to who may not know.
fn advice(authenticated: bool, host: &str) -> String {
    let first = if authenticated {
        "check that these credentials are valid and may pull it".to_owned()
    } else {
        format!("{}, or give the source credentials", log_in(host))
    };
    format!("{first}; check the name as well, for many answer so where there is no such repository")
}

/// How people log in there.
fn log_in(host: &str) -> String {
    let is_below = |domain: &str| host.ends_with(domain);
    if host.contains(".dkr.ecr.") && (is_below(".amazonaws.com") || is_below(".amazonaws.com.cn")) {
        return format!(
            "log in with `aws ecr get-login-password | docker login --username AWS --password-stdin {host}` (it holds for 12 hours)"
        );
    }
    if is_below(".pkg.dev") || host == "gcr.io" || is_below(".gcr.io") {
        return format!("log in with `gcloud auth configure-docker {host}`");
    }
    if let Some(name) = host.strip_suffix(".azurecr.io") {
        return format!("log in with `az acr login --name {name}`");
    }
    if host == "ghcr.io" {
        return format!("log in with `docker login {host}` and a token that has `read:packages`");
    }
    format!("log in with `docker login {host}`")
}

fn wait(retry_after: Option<Duration>) -> String {
    let text = |after: Duration| format!("; it asks to wait {} s", after.as_secs());
    retry_after.map(text).unwrap_or_default()
}
