//! The key under which secrets get their fingerprints, and baselines of secrets that are accepted.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use analyzers::FingerprintKey;
use anyhow::{Context as _, ensure};
use model::{Fingerprint, Secret};
use policy::{LastDay, NameGlobs, RepositoryGlobs, Text, Waiver};
use serde::Deserialize;

/// Bytes of a file with a key.
const KEY_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a baseline.
const BASELINE_BYTES_MAX: u64 = 4 << 20;
/// The name of a key that nobody named.
const KEY_FILE: &str = "secrets.key";

/// Secrets that somebody accepted.
#[derive(Clone, Debug)]
pub(crate) struct Baseline {
    file: PathBuf,
    secrets: Vec<Known>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The id of the key that the fingerprints are under.
    #[serde(default)]
    key: Option<String>,
    secrets: Vec<Known>,
}

/// An accepted secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    fingerprint: Text,
    reason: Text,
    author: Text,
    expires: LastDay,
}

/// The key in a file.
pub(crate) fn read_key(file: &Path) -> anyhow::Result<FingerprintKey> {
    let bytes = chassis::files::read_bounded(file, KEY_BYTES_MAX);
    let bytes = bytes.with_context(|| format!("reading the key `{}`", file.display()))?;
    FingerprintKey::new(&bytes).with_context(|| format!("in the key `{}`", file.display()))
}

/// The key of a directory, made where there is none.
pub(crate) fn own_key(dir: &Path) -> anyhow::Result<FingerprintKey> {
    make_key(&dir.join(KEY_FILE))
}

/// A key for this process alone.
pub(crate) fn passing_key() -> anyhow::Result<FingerprintKey> {
    Ok(FingerprintKey::new(random()?.as_bytes())?)
}

/// The key in a file, made where there is none. Of several processes that make it at once all get
/// the same.
pub(crate) fn make_key(file: &Path) -> anyhow::Result<FingerprintKey> {
    if !file.exists() {
        place(file).with_context(|| format!("writing the key `{}`", file.display()))?;
    }
    read_key(file)
}

/// Writes a new key, whole or not at all, unless another process was first.
fn place(file: &Path) -> anyhow::Result<()> {
    let key = random()?;
    let mut part = file.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    crate::tokens::write_secret(&part, &key)?;
    let placed = std::fs::hard_link(&part, file);
    let removed = std::fs::remove_file(&part);
    if let Err(error) = placed
        && error.kind() != ErrorKind::AlreadyExists
    {
        return Err(error.into());
    }
    Ok(removed?)
}

/// From the system itself: our library for cryptography gathers entropy of its own first, which takes
/// 30 ms of somebody's first scan.
fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("asking the system for random bytes")?;
    Ok(model::hex(&bytes))
}

/// The key of a directory; `None` where it has none.
pub(crate) fn key_of(dir: &Path) -> anyhow::Result<Option<FingerprintKey>> {
    let file = dir.join(KEY_FILE);
    file.exists().then(|| read_key(&file)).transpose()
}

/// The key beside a baseline.
pub(crate) fn key_beside(baseline: &Path) -> anyhow::Result<FingerprintKey> {
    let mut file = baseline.as_os_str().to_owned();
    file.push(".key");
    read_key(Path::new(&file)).context(
        "a baseline needs the key that its fingerprints are under: in the file of that name, or as `scanner.secret_key_file` of the configuration",
    )
}

// === impl Baseline ===

impl Baseline {
    /// Reads a file; its fingerprints must be under this key, where it says which.
    pub(crate) fn read(file: &Path, key: &FingerprintKey) -> anyhow::Result<Self> {
        let text = chassis::files::read_text_bounded(file, BASELINE_BYTES_MAX)
            .with_context(|| format!("reading the secret baseline `{}`", file.display()))?;
        let written: Written = serde_saphyr::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}", error.without_snippet()))
            .with_context(|| format!("in the secret baseline `{}`", file.display()))?;
        if let Some(id) = written.key {
            let ours = key.id();
            ensure!(
                id == ours,
                "the secret baseline `{}` is under the key {id}, and this one is {ours}",
                file.display()
            );
        }
        Ok(Self {
            file: file.to_owned(),
            secrets: written.secrets,
        })
    }

    /// What a policy has to accept.
    pub(crate) fn waivers(&self) -> impl Iterator<Item = Waiver> {
        self.secrets.iter().map(|known| Waiver {
            cve: None,
            fingerprint: Some(known.fingerprint.clone()),
            license: None,
            image: None,
            packages: NameGlobs::default(),
            repositories: RepositoryGlobs::default(),
            reason: known.reason.clone(),
            author: known.author.clone(),
            expires: known.expires,
        })
    }

    /// Says of what is accepted here that it is so here, and not in the policy.
    pub(crate) fn sign(&self, secrets: &mut [Secret]) {
        let is_known = |fingerprint: &Fingerprint| {
            let mut known = self.secrets.iter();
            known.any(|known| known.fingerprint.0 == fingerprint.0)
        };
        for secret in secrets {
            if let Some(waived) = secret
                .waived
                .as_mut()
                .filter(|_| is_known(&secret.fingerprint))
            {
                waived.source = format!("secret baseline {}", self.file.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once() {
        let dir = testkit::temp_dir();
        assert_eq!(key_of(dir.path()).unwrap(), None);
        let key = own_key(dir.path()).unwrap();
        assert_eq!(own_key(dir.path()).unwrap(), key);
        assert_eq!(key_of(dir.path()).unwrap(), Some(key));
        let file = dir.path().join(KEY_FILE);
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_baseline_says_what_is_wrong_with_it() {
        let dir = testkit::temp_dir();
        let file = dir.path().join("known.yaml");
        let key = FingerprintKey::default();
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Baseline::read(&file, &key).map_err(|error| format!("{error:#}"))
        };
        let known = "{fingerprint: f, reason: r, author: a, expires: 2026-01-01}";
        assert_eq!(
            read(&format!("secrets: [{known}]"))
                .unwrap()
                .waivers()
                .count(),
            1
        );
        assert!(read(&format!("key: {}\nsecrets: [{known}]", key.id())).is_ok());
        let error = read("key: other\nsecrets: []").unwrap_err();
        assert!(
            error.contains("is under the key other, and this one is"),
            "{error}"
        );
        let error =
            read("secrets: [{fingerprint: f, author: a, expires: 2026-01-01}]").unwrap_err();
        assert!(error.contains("missing field `reason`"), "{error}");
        let error = format!("{:#}", key_beside(&file).unwrap_err());
        assert!(error.contains("known.yaml.key"), "{error}");
    }
}
