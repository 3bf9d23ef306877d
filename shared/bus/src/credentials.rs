//! Credential files: an nkey seed of ours, or a standard `.creds` file with a JWT and a seed.

use std::{io, path::Path};

use chassis::Secret;
use nkeys::{KeyPair, KeyPairType};

use crate::{error::BusError, private_server::write_private};

/// No file of this kind is larger.
const BYTES_MAX: u64 = 64 * 1024;
/// Stands in `.creds` files.
const JWT: &str = "-----BEGIN NATS USER JWT-----";
/// What the seed of a user begins with.
const SEED: &str = "SU";

/// What a process shows to `nats-server`.
#[derive(Debug)]
pub(crate) enum Credential {
    /// The seed of a user that the server knows by its public key.
    Seed { seed: Secret, public_key: String },
    /// The text of a `.creds` file.
    Jwt(Secret),
}

/// The key of a user, in a file that its owner alone can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserKey {
    /// The public half: it says who the user is and opens nothing.
    pub public_key: String,
    /// Whether the file was not there before.
    pub is_new: bool,
}

// === impl Credential ===

impl Credential {
    /// Reads a file of either kind.
    pub(crate) fn read(path: &Path) -> Result<Self, BusError> {
        let text = chassis::files::read_text_bounded(path, BYTES_MAX);
        let text = text.map_err(|source| failed(path, source))?;
        if text.contains(JWT) {
            return Ok(Self::Jwt(Secret::from(text)));
        }
        let mut lines = text.lines().map(str::trim);
        let seed = lines.find(|line| line.starts_with(SEED));
        let pair = seed.and_then(|seed| Some((seed, KeyPair::from_seed(seed).ok()?)));
        match pair {
            Some((seed, pair)) if pair.key_pair_type() == KeyPairType::User => Ok(Self::Seed {
                seed: Secret::from(seed.to_owned()),
                public_key: pair.public_key(),
            }),
            _ => {
                let what = "neither the nkey seed of a user (`SU…`) nor a `.creds` file";
                Err(failed(path, io::Error::other(what)))
            }
        }
    }
}

// === impl UserKey ===

impl UserKey {
    /// The key in a file; a new one where there is no such file.
    pub fn open(path: &Path) -> Result<Self, BusError> {
        if !path.exists() {
            let pair = KeyPair::new_user();
            let seed = pair.seed().map_err(io::Error::other);
            let seed = seed.map_err(|source| failed(path, source))?;
            let written = write_private(path, format!("{seed}\n").as_bytes());
            written.map_err(|source| failed(path, source))?;
            return Ok(Self {
                public_key: pair.public_key(),
                is_new: true,
            });
        }
        match Credential::read(path)? {
            Credential::Seed { public_key, .. } => Ok(Self {
                public_key,
                is_new: false,
            }),
            Credential::Jwt(_) => {
                let what = "a `.creds` file, whose rights stand in its JWT";
                Err(failed(path, io::Error::other(what)))
            }
        }
    }
}

fn failed(path: &Path, source: io::Error) -> BusError {
    BusError::Io {
        what: format!("`{}`", path.display()),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("scanner.nk");
        let first = UserKey::open(&path).unwrap();
        assert!(first.is_new && first.public_key.starts_with('U'));
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = UserKey::open(&path).unwrap();
        assert_eq!((again.public_key, again.is_new), (first.public_key, false));
        let files = dir.path().read_dir().unwrap().count();
        assert_eq!(files, 1);
    }

    #[test]
    fn other_files_are_refused_without_showing_them() {
        let dir = tempfile::TempDir::new().unwrap();
        let account = KeyPair::new_account().seed().unwrap();
        for text in ["", "SUNOTASEED", &account, "password"] {
            let path = dir.path().join("bad");
            std::fs::write(&path, text).unwrap();
            let error = Credential::read(&path).unwrap_err().to_string();
            assert!(error.ends_with("nor a `.creds` file"), "{error}");
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
        let missing = Credential::read(&dir.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("none"), "{missing}");
    }
}
