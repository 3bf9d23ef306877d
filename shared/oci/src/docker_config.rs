//! Credentials that `docker login` left: the file `config.json` and the helpers that it names.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use chassis::{Cx, Secret, files::read_bounded};
use docker_credential::{CredentialRetrievalError, DockerCredential};

use crate::{OciError, registry::Credentials};

const BYTES_MAX: u64 = 1 << 20;
/// Helpers may ask a keychain, never a person.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

/// A `config.json`. The caller knows where it is: `$DOCKER_CONFIG/config.json`, else
/// `~/.docker/config.json`, or a mounted pull secret.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    path: PathBuf,
}

// === impl DockerConfig ===

impl DockerConfig {
    /// The file at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file that Docker would read.
    pub fn default_path() -> Option<PathBuf> {
        let folder = chassis::config::env_var("DOCKER_CONFIG").map(PathBuf::from);
        let home = || chassis::config::env_var("HOME").map(|home| Path::new(&home).join(".docker"));
        folder
            .or_else(home)
            .map(|folder| folder.join("config.json"))
    }

    /// The credentials for a registry; `None` where there are none. It may run a credential helper,
    /// a program named in the file.
    pub async fn credentials(&self, cx: &Cx, host: &str) -> Result<Option<Credentials>, OciError> {
        let (path, name) = (self.path.clone(), host.to_owned());
        let reading = cx.blocking(move || read(&path, &name));
        tokio::time::timeout(HELPER_TIMEOUT, reading)
            .await
            .map_err(|_| OciError::Credentials {
                host: host.to_owned(),
                from: format!("`{}`", self.path.display()),
                detail: "the credential helper that it names does not answer".to_owned(),
            })??
    }
}

fn read(path: &Path, host: &str) -> Result<Option<Credentials>, OciError> {
    let fail = |detail: String| OciError::Credentials {
        host: host.to_owned(),
        from: format!("`{}`", path.display()),
        detail,
    };
    let bytes = match read_bounded(path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error.to_string())),
    };
    for server in names(host) {
        match docker_credential::get_credential_from_reader(bytes.as_slice(), server) {
            Ok(found) => return Ok(usable(found)),
            Err(CredentialRetrievalError::NoCredentialConfigured) => {}
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(fail(explain(&error))),
        }
    }
    Ok(None)
}

/// What Docker may have filed a registry's credentials under.
fn names(host: &str) -> Vec<&str> {
    match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => {
            vec![
                "https://index.docker.io/v1/",
                "docker.io",
                "index.docker.io",
            ]
        }
        host => vec![host],
    }
}

fn usable(found: DockerCredential) -> Option<Credentials> {
    match found {
        DockerCredential::IdentityToken(token) if !token.is_empty() => {
            Some(Credentials::IdentityToken(Secret::from(token)))
        }
        DockerCredential::UsernamePassword(username, password) if !username.is_empty() => {
            Some(Credentials::Basic {
                username,
                password: Secret::from(password),
            })
        }
        _ => None,
    }
}

/// Helpers say in words that they know nothing of a server.
fn is_absent(error: &CredentialRetrievalError) -> bool {
    let CredentialRetrievalError::HelperFailure { stdout, stderr, .. } = error else {
        return false;
    };
    [stdout, stderr]
        .iter()
        .any(|text| text.contains("credentials not found"))
}

/// The error without what a helper printed to its output, which may be a secret.
fn explain(error: &CredentialRetrievalError) -> String {
    match error {
        CredentialRetrievalError::HelperFailure { helper, stderr, .. } => {
            let said: String = stderr
                .chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect();
            format!("the helper `docker-credential-{helper}` gave up: {said}")
        }
        CredentialRetrievalError::HelperCommunicationError => {
            "the credential helper that it names could not be started; is it on the PATH?"
                .to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &str, host: &str) -> Result<Option<String>, OciError> {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        read(&path, host).map(|found| {
            found.map(|credentials| match credentials {
                Credentials::Basic { username, password } => {
                    format!("{username} {}", password.expose())
                }
                Credentials::IdentityToken(token) => token.expose().to_owned(),
            })
        })
    }

    #[test]
    fn credentials_are_found_under_the_names_docker_uses() {
        // `dXNlcjpwYXNz` is `user:pass`.
        let config =
            |name: &str| format!(r#"{{"auths": {{"{name}": {{"auth": "dXNlcjpwYXNz"}}}}}}"#);
        for (name, host) in [
            ("r.example:5000", "r.example:5000"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
        ] {
            let found = check(&config(name), host).unwrap();
            assert_eq!(found.as_deref(), Some("user pass"), "{name}");
        }
        assert_eq!(check(&config("r.example"), "other.example").unwrap(), None);
        let token = r#"{"auths": {"r.example": {"identitytoken": "abc"}}}"#;
        assert_eq!(check(token, "r.example").unwrap().as_deref(), Some("abc"));
    }

    #[test]
    fn no_file_is_no_credentials_and_a_broken_one_an_error_with_its_name() {
        assert!(
            read(Path::new("/nonexistent/config.json"), "r.example")
                .unwrap()
                .is_none()
        );
        let error = check("{", "r.example").unwrap_err().to_string();
        assert!(error.contains("config.json`"), "{error}");
        let missing = r#"{"credHelpers": {"r.example": "no-such-helper-at-all"}}"#;
        let error = check(missing, "r.example").unwrap_err().to_string();
        assert!(error.contains("could not be started"), "{error}");
    }
}
