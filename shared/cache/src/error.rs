//! What can go wrong with a local store.

use std::{io, path::PathBuf};

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Somebody else has it open.
    #[error("`{dir}` is in use by another process")]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// It cannot be opened.
    #[error("opening `{dir}`: {why}")]
    Open {
        /// The folder.
        dir: PathBuf,
        /// What the store says.
        why: String,
    },
    /// The folder cannot be made.
    #[error("making folder `{dir}`")]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A read or write went wrong.
    #[error("store `{dir}`: {why}")]
    Store {
        /// The folder.
        dir: PathBuf,
        /// What the store says.
        why: String,
    },
    /// There is no store, and nothing can be kept.
    #[error("there is no store: {0}")]
    Without(String),
    /// What was read is damaged.
    #[error("damaged value: {0}")]
    Damaged(String),
    /// A value that cannot be written as MessagePack, or that is too large.
    #[error("value cannot be stored: {0}")]
    Encode(String),
    /// The schema does not have this family: a mistake in the program.
    #[error("no family `{0}` in this database's schema")]
    Family(String),
}
