//! Sources as clients: how the configured registries are reached.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use chassis::{Cx, files::read_bounded};
use futures::future::BoxFuture;
use model::{Digest, Slug, runtime::OnNode};
use oci::{
    ClientCertificate, DockerConfig, DocumentStore, Kept, Login, Mirror, NodeLine, NodeSource,
    OciError, Page, Registry, RegistryConfig, Resolved, Source, Wanted,
};

use crate::{ClientCertificateConfig, Config, CredentialsConfig, MirrorConfig, SourceConfig};

/// Bytes of a file with certificates.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// A client for each configured source. A host that is not in here is never contacted.
pub struct Sources {
    clients: BTreeMap<Slug, Arc<dyn Client>>,
    nodes: Option<Nodes>,
}

/// How an image on a node of a tenant is read.
type Nodes = Arc<dyn Fn(&Slug, OnNode) -> Arc<dyn Source> + Send + Sync>;

/// A source that can tell cheaply where a tag leads, and what else it has.
pub(crate) trait Client: Source {
    /// The digest that a tag names now; `None` where there is no such tag, or where the source
    /// does not say it.
    fn peek<'a>(
        &'a self,
        repository: &'a str,
        tag: &'a str,
    ) -> BoxFuture<'a, Result<Option<Digest>, OciError>>;

    /// [`Source::resolve`], with the documents that were read on the way, where it keeps any.
    fn resolve_keeping<'a>(
        &'a self,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<(Resolved, Kept), OciError>> {
        Box::pin(async { Ok((self.resolve(wanted).await?, Kept::default())) })
    }

    /// A page of its repositories.
    fn repositories<'a>(&'a self, page: Option<&'a str>) -> BoxFuture<'a, Result<Page, OciError>>;

    /// A page of a repository's tags.
    fn tags<'a>(
        &'a self,
        repository: &'a str,
        page: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, OciError>>;
}

/// How one host is reached, a registry or a mirror.
struct Access<'a> {
    host: &'a str,
    plain_http: bool,
    allow_private: bool,
    credentials: Option<&'a CredentialsConfig>,
    docker_config: Option<&'a Path>,
    ca_files: &'a [PathBuf],
    client_certificate: Option<&'a ClientCertificateConfig>,
}

/// Makes the client of a source; nothing is contacted yet, and no credential helper is run. `docker`
/// is a Docker `config.json` for sources that name neither credentials nor such a file; a mirror's
/// credentials are its own and looked for in nothing that it does not name. `documents` keeps its
/// manifests and configs.
pub async fn open_source(
    cx: &Cx,
    source: &SourceConfig,
    docker: Option<&Path>,
    documents: Option<Arc<dyn DocumentStore>>,
) -> anyhow::Result<Arc<Registry>> {
    let docker_config = source.docker_config.as_deref().or(docker);
    let access = Access {
        host: &source.registry,
        plain_http: source.plain_http,
        allow_private: source.allow_private,
        credentials: source.credentials.as_ref(),
        docker_config,
        ca_files: &source.ca_files,
        client_certificate: source.client_certificate.as_ref(),
    };
    let mut mirrors = Vec::new();
    for mirror in &source.mirrors {
        mirrors.push(
            open_mirror(cx, mirror)
                .await
                .with_context(|| format!("mirror `{}`", mirror.registry))?,
        );
    }
    let config = RegistryConfig {
        mirrors,
        pace: source.pace.clone().into(),
        documents,
        ..access.config(cx).await?
    };
    let client = Registry::new(cx, config)
        .with_context(|| format!("making a client for `{}`", source.registry))?;
    Ok(Arc::new(client))
}

async fn open_mirror(cx: &Cx, mirror: &MirrorConfig) -> anyhow::Result<Mirror> {
    let (host, prefix) = mirror.place();
    let access = Access {
        host,
        plain_http: mirror.plain_http,
        allow_private: mirror.allow_private,
        credentials: mirror.credentials.as_ref(),
        docker_config: mirror.docker_config.as_deref(),
        ca_files: &mirror.ca_files,
        client_certificate: mirror.client_certificate.as_ref(),
    };
    Ok(Mirror {
        registry: access.config(cx).await?,
        prefix: prefix.to_owned(),
        tags: mirror.tags,
    })
}

// === impl Access ===

impl Access<'_> {
    async fn config(&self, cx: &Cx) -> anyhow::Result<RegistryConfig> {
        let login = self.login();
        login.check(cx, self.host).await?;
        let mut ca_certificates = Vec::new();
        for path in self.ca_files {
            ca_certificates.push(pem(cx, path).await?);
        }
        let client_certificate = match self.client_certificate.cloned() {
            None => None,
            Some(ours) => {
                let certificate = pem(cx, &ours.file).await?;
                let key = cx.blocking(move || ours.key.read()).await?;
                let key = key.context("reading the key of the client certificate")?;
                Some(ClientCertificate { certificate, key })
            }
        };
        Ok(RegistryConfig {
            host: self.host.to_owned(),
            plain_http: self.plain_http,
            allow_private: self.allow_private,
            login,
            ca_certificates,
            client_certificate,
            ..RegistryConfig::default()
        })
    }

    fn login(&self) -> Login {
        match (self.credentials, self.docker_config) {
            (Some(given), _) => Login::Password {
                username: given.username.clone(),
                password: given.password.clone(),
            },
            (None, Some(path)) => Login::Docker(DockerConfig::new(path)),
            (None, None) => Login::Anonymous,
        }
    }
}

async fn pem(cx: &Cx, path: &Path) -> anyhow::Result<Vec<u8>> {
    let file = path.to_owned();
    let read = cx
        .blocking(move || read_bounded(&file, PEM_BYTES_MAX))
        .await?;
    read.with_context(|| format!("reading `{}`", path.display()))
}

// === impl Sources ===

impl Sources {
    /// Makes the clients; see [`open_source`].
    pub async fn open(
        cx: &Cx,
        config: &Config,
        docker: Option<&Path>,
        documents: Option<Arc<dyn DocumentStore>>,
    ) -> anyhow::Result<Self> {
        let mut clients: BTreeMap<Slug, Arc<dyn Client>> = BTreeMap::new();
        for source in &config.sources {
            let client = open_source(cx, source, docker, documents.clone())
                .await
                .with_context(|| format!("opening source `{}`", source.name))?;
            clients.insert(source.name.clone(), client);
        }
        Ok(Self {
            clients,
            nodes: None,
        })
    }

    /// The same, and the nodes at the other end of a line.
    #[must_use]
    pub fn with_nodes(self, cx: &Cx, line: Arc<dyn NodeLine>) -> Self {
        let cx = cx.clone();
        let nodes: Nodes = Arc::new(move |tenant: &Slug, at| {
            Arc::new(NodeSource::new(&cx, Arc::clone(&line), tenant, at))
        });
        Self {
            nodes: Some(nodes),
            ..self
        }
    }

    /// An image on a node of a tenant; `None` where no line leads to nodes.
    pub fn on_node(&self, tenant: &Slug, at: OnNode) -> Option<Arc<dyn Source>> {
        let nodes = self.nodes.as_ref()?;
        Some(nodes(tenant, at))
    }

    /// The source, or `None` where nobody configured it.
    pub fn source(&self, name: &Slug) -> Option<Arc<dyn Source>> {
        let client = Arc::clone(self.clients.get(name)?);
        Some(client)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.clients.len()
    }

    pub(crate) fn client(&self, name: &Slug) -> Option<&Arc<dyn Client>> {
        self.clients.get(name)
    }

    #[cfg(test)]
    pub(crate) fn of(name: &str, client: Arc<dyn Client>) -> Self {
        Self {
            clients: BTreeMap::from([(name.parse().unwrap(), client)]),
            nodes: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn and_nodes(mut self, nodes: Nodes) -> Self {
        self.nodes = Some(nodes);
        self
    }

    #[cfg(test)]
    pub(crate) fn and(mut self, name: &str, client: Arc<dyn Client>) -> Self {
        self.clients.insert(name.parse().unwrap(), client);
        self
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

    fn resolve_keeping<'a>(
        &'a self,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<(Resolved, Kept), OciError>> {
        Box::pin(Self::resolve_keeping(self, wanted))
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(source: &str) -> Result<Arc<Registry>, String> {
        let source: SourceConfig = serde_json::from_str(source).unwrap();
        let opened = open_source(&Cx::for_tests(), &source, None, None).await;
        opened.map_err(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn a_source_with_mirrors_pace_and_helpers_is_opened_without_asking_anybody() {
        let source = r#"{
            "name": "hub", "registry": "docker.io", "docker_config": "/nonexistent/config.json",
            "pace": {"requests_per_second_max": 5, "bytes_per_second_max": 1000000},
            "mirrors": [{"registry": "harbor.example/proxy"}, {"registry": "m.example", "tags": true}]
        }"#;
        open(source).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_source_needs_and_is_not_there_is_named() {
        let check = async |rest: &str, expected: &str| {
            let source = format!(r#"{{"name": "main", "registry": "r.example", {rest}}}"#);
            let error = open(&source).await.unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(
            r#""ca_files": ["/nonexistent/ca.pem"]"#,
            "`/nonexistent/ca.pem`",
        )
        .await;
        check(
            r#""credentials": {"username": "u", "password": "file:/nonexistent/word"}"#,
            "`file:/nonexistent/word`",
        )
        .await;
        check(
            r#""mirrors": [{"registry": "m.example", "ca_files": ["/dev/null"]}]"#,
            "a CA file of it holds no certificate",
        )
        .await;
        check(
            r#""mirrors": [{"registry": "m.example", "client_certificate": {"file": "/nonexistent/c", "key": "env:NONE"}}]"#,
            "mirror `m.example`: reading `/nonexistent/c`",
        )
        .await;
    }
}
