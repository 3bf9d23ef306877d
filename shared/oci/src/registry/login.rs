//! What a registry or its token server lets us in by, and where it is kept.

use chassis::{Cx, Secret, SecretRef};

use crate::{DockerConfig, OciError};

/// What a registry or its token server lets us in by.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A name and a password or access token.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth 2 refresh token, which `docker login` keeps for some registries.
    IdentityToken(Secret),
}

/// Where credentials are kept. They are fetched at each login and not kept beyond what it gives, so
/// that those that are exchanged or live for hours only are picked up.
#[derive(Clone, Debug, Default)]
pub enum Login {
    /// Nowhere: we come as nobody in particular.
    #[default]
    Anonymous,
    /// Here.
    Given(Credentials),
    /// The password in a file or in the environment.
    Password {
        /// The name.
        username: String,
        /// Where the password is.
        password: SecretRef,
    },
    /// In a Docker `config.json`, or with a helper that it names; nobody in particular where it
    /// says nothing of the registry.
    Docker(DockerConfig),
}

// === impl Login ===

impl Login {
    /// Says whether credentials can be had, as far as that is known without a helper.
    pub async fn check(&self, cx: &Cx, host: &str) -> Result<(), OciError> {
        match self {
            Self::Docker(config) => config.check(cx, host).await,
            _ => self.credentials(cx, host).await.map(|_| ()),
        }
    }

    /// The credentials as they are now; `None` to come as nobody in particular.
    pub(super) async fn credentials(
        &self,
        cx: &Cx,
        host: &str,
    ) -> Result<Option<Credentials>, OciError> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Given(credentials) => Ok(Some(credentials.clone())),
            Self::Password { username, password } => {
                let kept = password.clone();
                let read = cx.blocking(move || kept.read()).await?;
                let password = read.map_err(|error| OciError::Credentials {
                    host: host.to_owned(),
                    from: format!("`{password}`"),
                    detail: error.to_string(),
                })?;
                let username = username.clone();
                Ok(Some(Credentials::Basic { username, password }))
            }
            Self::Docker(config) => config.credentials(cx, host).await,
        }
    }
}
