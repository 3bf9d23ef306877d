//! A registry that speaks the OCI distribution protocol (version 1.1; Docker's registry V2).

mod auth;
mod blobs;
mod challenge;
mod guard;
mod http;
mod listing;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use chassis::{Cx, Secret};
use futures::future::BoxFuture;
use model::Digest;
use oci_distribution::Reference;
use reqwest::{Method, Response, StatusCode, header};
use url::Url;

pub use self::listing::Page;
use self::{auth::Auth, blobs::Library, guard::Guard, http::Http};
use crate::{
    Limits, OciError,
    manifest::ACCEPT,
    resolve::{self, Documents, Fetched},
    source::{BlobReader, Descriptor, Resolved, Source, Wanted, verify},
};

/// How we call ourselves, so that a registry's log and webhooks tell our pulls from others'.
pub const USER_AGENT: &str = concat!("tidewaiter/", env!("CARGO_PKG_VERSION"));

const DIGEST_HEADER: &str = "docker-content-digest";

/// A registry and how to reach it.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// Host and port, as in a reference: `docker.io`, `registry.example:5000`.
    pub host: String,
    /// Whether it speaks plain HTTP. `localhost` and loopback addresses always do, as for Docker.
    pub plain_http: bool,
    /// Credentials; anonymous without.
    pub credentials: Option<Credentials>,
    /// Whether it, its token server and its redirects may lead to private and link-local addresses:
    /// true where the operator named it. `localhost` and loopback addresses always may, for nobody
    /// gets there who did not name them.
    ///
    /// It decides how blobs are streamed, too: where every address is allowed, `oci-distribution`
    /// does it; where addresses must be checked on every redirect, which it cannot do, our own
    /// guarded client does, and that one uses no proxy.
    pub allow_private: bool,
    /// Further certificate authorities, PEM.
    pub ca_certificates: Vec<Vec<u8>>,
    /// The limits.
    pub limits: Limits,
}

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

/// A registry as a source: one short-lived client per registry and credentials.
///
/// Manifests, configs and tokens come through a client of our own, each with a bound on its bytes.
/// Blobs come as [`RegistryConfig::allow_private`] says.
pub struct Registry {
    inner: Arc<Inner>,
}

/// What requests and the tasks that feed blobs share.
struct Inner {
    cx: Cx,
    config: RegistryConfig,
    /// The host that is contacted: `index.docker.io` for `docker.io`.
    api_host: String,
    http: Http,
    auth: Auth,
    library: Library,
}

// === impl Registry ===

impl Registry {
    /// A registry. Nothing is contacted yet.
    pub fn new(cx: &Cx, config: RegistryConfig) -> Result<Self, OciError> {
        let local = guard::is_this_machine(&config.host);
        let config = RegistryConfig {
            plain_http: config.plain_http || local,
            allow_private: config.allow_private || local,
            ..config
        };
        let name = Reference::with_tag(config.host.clone(), "x".to_owned(), "x".to_owned());
        let api_host = name.resolve_registry().to_owned();
        let scheme = if config.plain_http { "http" } else { "https" };
        let base = base_url(scheme, &api_host)?;
        let guard = Guard {
            allow_private: config.allow_private,
        };
        let http = Http::new(&config, base, guard)?;
        let auth = Auth::new(config.credentials.clone());
        let library = Library::default();
        let cx = cx.clone();
        Ok(Self {
            inner: Arc::new(Inner {
                cx,
                config,
                api_host,
                http,
                auth,
                library,
            }),
        })
    }

    /// The digest that a tag leads to now, as the registry's headers say, without a download.
    /// `None` where there is no such tag, or where the registry does not say.
    pub async fn peek(&self, repository: &str, tag: &str) -> Result<Option<Digest>, OciError> {
        let url = self.inner.manifest_url(repository, tag)?;
        let answer = self.inner.document(Method::HEAD, url, repository).await;
        match answer {
            Ok(response) => Ok(claimed_digest(&response)),
            Err(OciError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Source for Registry {
    fn resolve<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Resolved, OciError>> {
        Box::pin(async move {
            let reference = format!("{}/{}", self.inner.config.host, wanted.name());
            let root = match (&wanted.digest, &wanted.tag) {
                (Some(digest), _) => self.inner.manifest(&wanted.repository, *digest).await?,
                (None, Some(tag)) => self.inner.fetch(&wanted.repository, tag).await?,
                (None, None) => self.inner.fetch(&wanted.repository, "latest").await?,
            };
            resolve::follow(&*self.inner, wanted, reference, root).await
        })
    }

    fn open_blob<'a>(
        &'a self,
        repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobReader, OciError>> {
        Box::pin(blobs::open(&self.inner, repository, blob))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    /// Sends a request for a document, with what the registry wants to see to let us in.
    async fn document(
        &self,
        method: Method,
        url: Url,
        repository: &str,
    ) -> Result<Response, OciError> {
        let timeout = self.config.limits.request_timeout;
        let response = self
            .authorized(repository, |headers| {
                let request = self.http.request(method.clone(), url.clone())?;
                Ok(request
                    .headers(headers)
                    .header(header::ACCEPT, ACCEPT)
                    .timeout(timeout))
            })
            .await?;
        self.http
            .accepted(response, &self.subject(repository), &self.cx)
            .await
    }

    /// Sends a request; where the registry answers with a challenge, answers it and sends again.
    async fn authorized(
        &self,
        repository: &str,
        request: impl Fn(header::HeaderMap) -> Result<reqwest::RequestBuilder, OciError>,
    ) -> Result<Response, OciError> {
        let send = async |request: reqwest::RequestBuilder| {
            request
                .send()
                .await
                .map_err(|error| self.http.broken(&error))
        };
        let headers = self.auth.headers(repository, self.cx.now());
        let response = send(request(headers)?).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !self.http.is_ours(response.url()) {
            return Ok(response);
        }
        self.auth
            .answer(self, repository, response.headers())
            .await?;
        send(request(self.auth.headers(repository, self.cx.now()))?).await
    }

    async fn fetch(&self, repository: &str, reference: &str) -> Result<Fetched, OciError> {
        let url = self.manifest_url(repository, reference)?;
        let response = self.document(Method::GET, url, repository).await?;
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type
            .and_then(|value| value.to_str().ok())
            .map(|value| {
                value
                    .split(';')
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            });
        let claimed = claimed_digest(&response);
        let what = format!(
            "manifest of `{}:{reference}`",
            self.subject(repository).name()
        );
        let bytes_max = self.config.limits.manifest_bytes_max;
        let bytes = self.http.body(response, bytes_max, &what).await?;
        let digest = Digest::of(&bytes);
        // A registry that contradicts itself would give us one image and others another.
        let bytes = match claimed {
            Some(claimed) => verify(bytes, claimed, &what)?,
            None => bytes,
        };
        Ok(Fetched {
            bytes,
            digest,
            content_type,
        })
    }

    fn subject<'a>(&'a self, repository: &'a str) -> http::Subject<'a> {
        let authenticated = self.config.credentials.is_some();
        http::Subject {
            host: &self.config.host,
            repository,
            authenticated,
        }
    }

    fn manifest_url(&self, repository: &str, reference: &str) -> Result<Url, OciError> {
        self.url(repository, "manifests", reference)
    }

    /// The URL of a manifest or blob. Names come from events, too: nothing in them may lead out of
    /// its place in the path.
    fn url(&self, repository: &str, kind: &str, reference: &str) -> Result<Url, OciError> {
        let fits = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let tag_fits = reference.parse::<Digest>().is_ok() || fits(reference);
        if repository.len() > 255 || !repository.split('/').all(fits) || !tag_fits {
            let what: String = format!("{repository}:{reference}")
                .chars()
                .take(300)
                .collect();
            return Err(OciError::malformed(
                format!("`{what}`"),
                "it is not a name of an image",
            ));
        }
        self.http
            .join(&format!("v2/{repository}/{kind}/{reference}"))
    }
}

impl Documents for Inner {
    fn manifest<'a>(
        &'a self,
        repository: &'a str,
        digest: Digest,
    ) -> BoxFuture<'a, Result<Fetched, OciError>> {
        Box::pin(async move {
            let fetched = self.fetch(repository, &digest.to_string()).await?;
            let bytes = verify(fetched.bytes, digest, &format!("manifest `{digest}`"))?;
            Ok(Fetched { bytes, ..fetched })
        })
    }

    fn config<'a>(
        &'a self,
        repository: &'a str,
        config: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<u8>, OciError>> {
        Box::pin(async move {
            let what = format!("config `{}`", config.digest);
            let url = self.url(repository, "blobs", &config.digest.to_string())?;
            let response = self.document(Method::GET, url, repository).await?;
            let bytes_max = self.config.limits.config_bytes_max;
            let bytes = self.http.body(response, bytes_max, &what).await?;
            verify(bytes, config.digest, &what)
        })
    }

    fn limits(&self) -> &Limits {
        &self.config.limits
    }
}

fn base_url(scheme: &str, host: &str) -> Result<Url, OciError> {
    let bad = || OciError::malformed(format!("`{host}`"), "it is not a registry's host and port");
    let url = Url::parse(&format!("{scheme}://{host}/")).map_err(|_| bad())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    if plain && url.host_str().is_some_and(|host| !host.is_empty()) {
        Ok(url)
    } else {
        Err(bad())
    }
}

fn claimed_digest(response: &Response) -> Option<Digest> {
    response
        .headers()
        .get(DIGEST_HEADER)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
