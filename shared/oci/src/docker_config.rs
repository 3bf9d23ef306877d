//! Credentials that `docker login` left: the file `config.json` and the helpers that it names.

mod helper;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use chassis::{Cx, Secret, files::read_bounded};
use serde::Deserialize;

use crate::{OciError, base64, registry::Credentials};

const BYTES_MAX: u64 = 1 << 20;
/// How Docker files its own registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A `config.json`. The caller knows where it is: `$DOCKER_CONFIG/config.json`, else
/// `~/.docker/config.json`, or a mounted pull secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerConfig {
    path: PathBuf,
    /// Where the helpers are; on the `PATH` without it.
    helpers: Option<PathBuf>,
}

/// What of the file we look at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

/// One registry's entry. It has no `Debug`: there are secrets in it.
#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
}

// === impl DockerConfig ===

impl DockerConfig {
    /// The file at `path`, which need not exist. The helpers that it names are on the `PATH`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            helpers: None,
        }
    }

    /// The file at `path`, with the helpers that it names in `folder`.
    pub fn with_helpers(path: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            helpers: Some(folder.into()),
        }
    }

    /// The file that Docker would read.
    pub fn default_path() -> Option<PathBuf> {
        let folder = chassis::config::env_var("DOCKER_CONFIG").map(PathBuf::from);
        let home = || chassis::config::env_var("HOME").map(|home| Path::new(&home).join(".docker"));
        folder
            .or_else(home)
            .map(|folder| folder.join("config.json"))
    }

    /// Says whether the file can be read, if it is there, and whether what it says of a registry
    /// makes sense. No helper is run.
    pub async fn check(&self, cx: &Cx, host: &str) -> Result<(), OciError> {
        let Some(document) = self.read(cx, host).await? else {
            return Ok(());
        };
        if let Some((name, _)) = document.helper(host) {
            helper::check_name(name).map_err(|detail| self.fail(host, detail))?;
        }
        document
            .entry(host)
            .map(|_| ())
            .map_err(|detail| self.fail(host, detail))
    }

    /// The credentials for a registry; `None` where there are none. It reads the file anew each
    /// time, and may run a credential helper, a program named in the file. Where the helper knows
    /// nothing of the registry, the file's own entry holds.
    pub async fn credentials(&self, cx: &Cx, host: &str) -> Result<Option<Credentials>, OciError> {
        let Some(document) = self.read(cx, host).await? else {
            return Ok(None);
        };
        if let Some((name, server)) = document.helper(host) {
            let found = helper::get(name, self.helpers.as_deref(), server, helper::TIMEOUT)
                .await
                .map_err(|detail| self.fail(host, detail))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        document
            .entry(host)
            .map_err(|detail| self.fail(host, detail))
    }

    /// The file, unless there is none.
    async fn read(&self, cx: &Cx, host: &str) -> Result<Option<Document>, OciError> {
        let path = self.path.clone();
        let bytes = cx.blocking(move || read_bounded(&path, BYTES_MAX)).await?;
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.fail(host, error.to_string())),
        };
        let document = serde_json::from_slice(&bytes).map_err(|error| {
            // The parser's own words may repeat what stands there, which may be a secret.
            let detail = format!(
                "it is not a Docker `config.json` (line {}, column {})",
                error.line(),
                error.column()
            );
            self.fail(host, detail)
        })?;
        Ok(Some(document))
    }

    fn fail(&self, host: &str, detail: String) -> OciError {
        OciError::Credentials {
            host: host.to_owned(),
            from: format!("`{}`", self.path.display()),
            detail,
        }
    }
}

// === impl Document ===

impl Document {
    /// The helper for a registry, and what it calls the registry. As with Docker, the one for this
    /// registry goes before the one for all.
    fn helper<'a>(&'a self, host: &'a str) -> Option<(&'a str, &'a str)> {
        let own = self
            .cred_helpers
            .iter()
            .find(|(key, name)| is_of(key, host) && !name.is_empty());
        let all = self.creds_store.as_deref().filter(|name| !name.is_empty());
        let name = own.map(|(_, name)| name.as_str()).or(all)?;
        let server = match (own, is_docker_hub(host)) {
            (Some((key, _)), _) => key.as_str(),
            (None, true) => DOCKER_HUB,
            (None, false) => host,
        };
        Some((name, server))
    }

    /// What the file itself holds for a registry.
    fn entry(&self, host: &str) -> Result<Option<Credentials>, String> {
        let entries = self.auths.iter().filter(|(key, _)| is_of(key, host));
        for (_, entry) in entries {
            if let Some(found) = entry.credentials()? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

// === impl Entry ===

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, String> {
        if let Some(token) = filled(self.identitytoken.as_ref()) {
            return Ok(Some(Credentials::IdentityToken(Secret::from(token))));
        }
        if let Some(auth) = filled(self.auth.as_ref()) {
            let decoded = base64::decode(&auth);
            let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
            let (username, password) =
                pair.ok_or("an `auth` in it is not `name:password` in base 64")?;
            return Ok(pair_of(username, password));
        }
        let password = self.password.as_deref().unwrap_or_default();
        Ok(pair_of(
            self.username.as_deref().unwrap_or_default(),
            password,
        ))
    }
}

fn filled(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}

/// `None` without a name.
fn pair_of(username: &str, password: &str) -> Option<Credentials> {
    (!username.is_empty()).then(|| Credentials::Basic {
        username: username.to_owned(),
        password: Secret::from(password.to_owned()),
    })
}

/// Whether an entry is about a registry: Docker files them with and without scheme and path.
fn is_of(key: &str, host: &str) -> bool {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    let name = key.split('/').next().unwrap_or_default();
    name == host || (is_docker_hub(name) && is_docker_hub(host))
}

fn is_docker_hub(host: &str) -> bool {
    matches!(
        host,
        "docker.io" | "index.docker.io" | "registry-1.docker.io"
    )
}
