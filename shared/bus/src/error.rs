//! What can go wrong, one enum per family of operations.

use model::Digest;

/// Connecting, provisioning, publishing, leasing.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The servers cannot be reached, or do not answer.
    #[error("nats-server at `{url}` is not reachable: {cause}")]
    Unreachable {
        /// Where, without credentials.
        url: String,
        /// Why.
        cause: String,
    },
    /// What exists differs from what this version needs. Nothing was changed.
    #[error(
        "`{object}` exists with `{field}` = `{found}`, but `{wanted}` is needed; change the \
         configuration or the stream, nothing was changed"
    )]
    Conflict {
        /// The stream, or `stream/consumer`.
        object: String,
        /// The field as JetStream calls it.
        field: String,
        /// What is needed.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// What the provisioner makes is not there.
    #[error("`{object}` does not exist; `tidewaiter nats provision` makes it")]
    Missing {
        /// The stream, or `stream/consumer`.
        object: String,
    },
    /// The credential has no right to do this.
    #[error("{0}")]
    Denied(String),
    /// The server refused.
    #[error("{what}: refused by nats-server: {text} (error code {code})")]
    Refused {
        /// What was asked.
        what: String,
        /// JetStream's error code.
        code: u64,
        /// Its text.
        text: String,
    },
    /// The stream is full: try again later.
    #[error("stream of `{0}` is full")]
    Full(String),
    /// The servers have no room for what a stream may take.
    #[error(
        "nats-server has no room for stream `{stream}`, which may take {bytes} bytes: lower \
         `bus.{setting}`, or raise `max_file_store` of the servers or the limit of the account; all \
         streams together may take {all} bytes"
    )]
    NoRoom {
        /// The stream.
        stream: String,
        /// What it may take.
        bytes: u64,
        /// The setting that says so.
        setting: &'static str,
        /// What all of them may take.
        all: u64,
    },
    /// No `nats-server` to start, or it does not start.
    #[error("{0}")]
    Server(String),
    /// A file.
    #[error("{what}: {source}")]
    Io {
        /// Which.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// Reading or writing state.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reading and writing state.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer: trying again may help.
    #[error("{what}: {cause}")]
    Unavailable {
        /// What was asked.
        what: String,
        /// Why there is no answer.
        cause: String,
    },
    /// The bytes are not what they should be.
    #[error("`{what}` cannot be decoded: {cause}")]
    Malformed {
        /// Bucket and key, or bucket and digest.
        what: String,
        /// Why.
        cause: String,
    },
    /// An object's bytes do not have its digest.
    #[error("object `{digest}` in `{bucket}` is corrupt")]
    Corrupt {
        /// The bucket.
        bucket: String,
        /// The object.
        digest: Digest,
    },
    /// A record names an object that is gone.
    #[error("`{what}` names object `{digest}`, which is gone")]
    Dangling {
        /// Bucket and key.
        what: String,
        /// The object.
        digest: Digest,
    },
    /// Over a limit.
    #[error("`{what}` has {size} bytes, at most {max} are allowed")]
    TooLarge {
        /// Bucket and key, or bucket and digest.
        what: String,
        /// Its size.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// A key that NATS does not allow.
    #[error("`{0}` is not a key: tokens of `A-Z a-z 0-9 - _ = /`, joined by dots")]
    Key(String),
    /// Something of ours that does not serialize.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// A compare-and-set write.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// Somebody else wrote since: read again and decide again.
    #[error("written by another since it was read")]
    Conflict,
    /// Everything else.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A value of ours does not serialize.
#[derive(Debug, thiserror::Error)]
#[error("cannot be encoded: {0}")]
pub struct EncodeError(pub(crate) String);

/// Bytes are not the value they should be.
#[derive(Debug, thiserror::Error)]
#[error("cannot be decoded: {0}")]
pub struct DecodeError(pub(crate) String);

// === impl StoreError ===

impl StoreError {
    /// Whether trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Malformed { .. } | Self::TooLarge { .. } | Self::Key(_) | Self::Encode(_)
        )
    }

    pub(crate) fn unavailable(what: impl Into<String>, cause: &impl ToString) -> Self {
        Self::Unavailable {
            what: what.into(),
            cause: cause.to_string(),
        }
    }
}

// === impl PutError ===

impl From<EncodeError> for PutError {
    fn from(error: EncodeError) -> Self {
        Self::Store(error.into())
    }
}
