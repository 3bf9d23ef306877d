//! Sources as clients: how the configured registries are reached.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use anyhow::Context as _;
use chassis::Cx;
use futures::future::BoxFuture;
use model::{Digest, Slug};
use oci::{Credentials, DockerConfig, OciError, Page, Registry, RegistryConfig, Source};

use crate::{Config, SourceConfig};

/// A client for each configured source. A host that is not in here is never contacted.
pub struct Sources {
    clients: BTreeMap<Slug, Arc<dyn Client>>,
}

/// A source that can tell cheaply where a tag leads, and what else it has.
pub(crate) trait Client: Source {
    /// The digest that a tag names now; `None` where there is no such tag, or where the source
    /// does not say it.
    fn peek<'a>(
        &'a self,
        repository: &'a str,
        tag: &'a str,
    ) -> BoxFuture<'a, Result<Option<Digest>, OciError>>;

    /// A page of its repositories.
    fn repositories<'a>(&'a self, page: Option<&'a str>) -> BoxFuture<'a, Result<Page, OciError>>;

    /// A page of a repository's tags.
    fn tags<'a>(
        &'a self,
        repository: &'a str,
        page: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, OciError>>;
}

/// Makes the client of a source; nothing is contacted yet. `docker` is a Docker `config.json` for
/// sources that name neither credentials nor such a file.
pub async fn open_source(
    cx: &Cx,
    source: &SourceConfig,
    docker: Option<&Path>,
) -> anyhow::Result<Arc<Registry>> {
    let config = RegistryConfig {
        host: source.registry.clone(),
        plain_http: source.plain_http,
        allow_private: source.allow_private,
        credentials: credentials(cx, source, docker).await?,
        ..RegistryConfig::default()
    };
    let client = Registry::new(cx, config)
        .with_context(|| format!("making a client for `{}`", source.registry))?;
    Ok(Arc::new(client))
}

async fn credentials(
    cx: &Cx,
    source: &SourceConfig,
    docker: Option<&Path>,
) -> anyhow::Result<Option<Credentials>> {
    if let Some(given) = source.credentials.clone() {
        let password = cx.blocking(move || given.password.read()).await?;
        let password = password.context("reading the password")?;
        return Ok(Some(Credentials::Basic {
            username: given.username,
            password,
        }));
    }
    let Some(path) = source.docker_config.as_deref().or(docker) else {
        return Ok(None);
    };
    let found = DockerConfig::new(path)
        .credentials(cx, &source.registry)
        .await;
    found.with_context(|| format!("reading credentials from `{}`", path.display()))
}

// === impl Sources ===

impl Sources {
    /// Makes the clients; see [`open_source`].
    pub async fn open(cx: &Cx, config: &Config, docker: Option<&Path>) -> anyhow::Result<Self> {
        let mut clients: BTreeMap<Slug, Arc<dyn Client>> = BTreeMap::new();
        for source in &config.sources {
            let client = open_source(cx, source, docker)
                .await
                .with_context(|| format!("opening source `{}`", source.name))?;
            clients.insert(source.name.clone(), client);
        }
        Ok(Self { clients })
    }

    /// The source, or `None` where nobody configured it.
    pub fn source(&self, name: &Slug) -> Option<Arc<dyn Source>> {
        let client = Arc::clone(self.clients.get(name)?);
        Some(client)
    }

    pub(crate) fn client(&self, name: &Slug) -> Option<&Arc<dyn Client>> {
        self.clients.get(name)
    }

    #[cfg(test)]
    pub(crate) fn of(name: &str, client: Arc<dyn Client>) -> Self {
        Self {
            clients: BTreeMap::from([(name.parse().unwrap(), client)]),
        }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.clients.keys()).finish()
    }
}

impl Client for Registry {
    fn peek<'a>(
        &'a self,
        repository: &'a str,
        tag: &'a str,
    ) -> BoxFuture<'a, Result<Option<Digest>, OciError>> {
        Box::pin(Self::peek(self, repository, tag))
    }

    fn repositories<'a>(&'a self, page: Option<&'a str>) -> BoxFuture<'a, Result<Page, OciError>> {
        Box::pin(Self::repositories(self, page))
    }

    fn tags<'a>(
        &'a self,
        repository: &'a str,
        page: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, OciError>> {
        Box::pin(Self::tags(self, repository, page))
    }
}
