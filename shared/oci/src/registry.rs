//! A registry that speaks the OCI distribution protocol (version 1.1; Docker's registry V2), and
//! its mirrors.
//!
//! Each host is an [`endpoint::Endpoint`] with a pace and a login of its own, which all images of
//! the process share. What may pass by itself is tried again within bounds; where a registry says
//! "later", all requests to it wait, or are told how long it would be.

mod auth;
mod blobs;
mod challenge;
mod endpoint;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod guard;
mod http;
mod library;
mod listing;
mod login;
mod pace;
mod retry;
mod stream;
#[cfg(test)]
mod tests;
mod token;

use std::{fmt, sync::Arc};

use chassis::{Cx, Secret};
use futures::future::BoxFuture;
use model::Digest;
use reqwest::Method;

use self::endpoint::{Endpoint, Found, Lookup};
pub use self::{
    listing::Page,
    login::{Credentials, Login},
    pace::Pace,
};
use crate::{
    Document, DocumentName, DocumentStore, Limits, OciError,
    kept::{Keeping, Kept},
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
    /// Where the credentials are kept.
    pub login: Login,
    /// Whether it, its token server and its redirects may lead to private and link-local addresses:
    /// true where the operator said so. A registry on this machine may always lead to this machine,
    /// and nowhere else inside.
    ///
    /// It decides how blobs are streamed, too: where every address is allowed, `oci-distribution`
    /// does it; where addresses must be checked on every redirect, which it cannot do, our own
    /// guarded client does, and that one uses no proxy.
    pub allow_private: bool,
    /// Further certificate authorities, PEM.
    pub ca_certificates: Vec<Vec<u8>>,
    /// Our own certificate, where the registry wants one. Its redirects and its token server, if
    /// that is another host, do not get to see it.
    pub client_certificate: Option<ClientCertificate>,
    /// Who is asked before it, in this order.
    pub mirrors: Vec<Mirror>,
    /// How fast it and each of its mirrors are asked.
    pub pace: Pace,
    /// Where manifests and configs are kept; not asked for a mirror by itself.
    pub documents: Option<Arc<dyn DocumentStore>>,
    /// The limits.
    pub limits: Limits,
}

/// Somebody who has copies of a registry's images, under the same names. A copy of a blob or of a
/// manifest that is asked for by digest cannot lie: it is verified, and one that differs is
/// reported and fetched elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    /// How it is reached. What is kept for it is sent to no other host. It has no mirrors.
    pub registry: RegistryConfig,
    /// What stands before the names of repositories, as a proxy project of Harbor does; empty for
    /// nothing.
    pub prefix: String,
    /// Whether it is asked where a tag leads, too. A mirror may lag behind; without this, the
    /// registry itself is asked.
    pub tags: bool,
}

/// A certificate to show to a registry.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// It, and those between it and its authority, PEM.
    pub certificate: Vec<u8>,
    /// Its key, PEM.
    pub key: Secret,
}

/// A registry as a source: one per process, so that all its images share one pace and one login.
///
/// Manifests, configs and tokens come through a client of our own, each with a bound on its bytes.
/// Blobs come as [`RegistryConfig::allow_private`] says.
pub struct Registry {
    inner: Arc<Inner>,
}

/// What requests and the tasks that feed blobs share.
struct Inner {
    cx: Cx,
    mirrors: Vec<MirrorEndpoint>,
    origin: Endpoint,
}

/// The tag of who names none.
const LATEST: &str = "latest";

/// Whether what a tag leads to may have been read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// Asking for its digest may spare the download.
    Known,
    /// It would be one request more.
    New,
}

struct MirrorEndpoint {
    endpoint: Endpoint,
    tags: bool,
}

// === impl Registry ===

impl Registry {
    /// A registry. Nothing is contacted yet.
    pub fn new(cx: &Cx, config: RegistryConfig) -> Result<Self, OciError> {
        let mut config = config;
        let mut mirrors = Vec::new();
        for mirror in std::mem::take(&mut config.mirrors) {
            let of_mirror = RegistryConfig {
                pace: config.pace.clone(),
                limits: config.limits.clone(),
                ..mirror.registry
            };
            mirrors.push(MirrorEndpoint {
                endpoint: Endpoint::mirror(cx, of_mirror, mirror.prefix)?,
                tags: mirror.tags,
            });
        }
        Ok(Self {
            inner: Arc::new(Inner {
                cx: cx.clone(),
                mirrors,
                origin: Endpoint::new(cx, config)?,
            }),
        })
    }

    /// The digest that a tag leads to now, as the registry's headers say, without a download.
    /// `None` where there is no such tag, or where the registry does not say.
    pub async fn peek(&self, repository: &str, tag: &str) -> Result<Option<Digest>, OciError> {
        match self.inner.tag(&Method::HEAD, repository, tag).await {
            Ok(found) => Ok(found.claimed),
            Err(OciError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What [`Source::resolve`] gives, with the small documents that were read on the way: for who
    /// has not seen it before, so that a tag's manifest is asked for at once.
    pub async fn resolve_keeping(&self, wanted: &Wanted) -> Result<(Resolved, Kept), OciError> {
        let root = self.root(wanted, Expect::New).await?;
        let keeping = Keeping::new(&*self.inner, &root);
        let resolved = resolve::follow(&keeping, wanted, self.reference(wanted), root).await?;
        Ok((resolved, keeping.kept()))
    }

    /// The manifest or index that is asked for.
    async fn root(&self, wanted: &Wanted, expect: Expect) -> Result<Fetched, OciError> {
        let repository = &wanted.repository;
        let found = match (&wanted.digest, &wanted.tag) {
            (Some(digest), _) => self.inner.manifest(repository, *digest).await,
            (None, tag) => {
                let tag = tag.as_deref().unwrap_or(LATEST);
                self.inner.tagged(repository, tag, expect).await
            }
        };
        // What is missing is what was asked for, and not the repository.
        found.map_err(|error| match error {
            OciError::NotFound { place, missing, .. } => OciError::NotFound {
                what: self.asked_for(wanted),
                place,
                missing,
            },
            error => error,
        })
    }

    fn asked_for(&self, wanted: &Wanted) -> String {
        let reference = self.reference(wanted);
        match (&wanted.digest, &wanted.tag) {
            (None, None) => format!("{reference}:{LATEST}"),
            _ => reference,
        }
    }

    fn reference(&self, wanted: &Wanted) -> String {
        format!("{}/{}", self.inner.origin.host(), wanted.name())
    }
}

impl Source for Registry {
    fn resolve<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Resolved, OciError>> {
        Box::pin(async move {
            let root = self.root(wanted, Expect::Known).await?;
            resolve::follow(&*self.inner, wanted, self.reference(wanted), root).await
        })
    }

    fn resolve_from<'a>(
        &'a self,
        wanted: &'a Wanted,
        kept: &'a Kept,
    ) -> BoxFuture<'a, Result<Resolved, OciError>> {
        Box::pin(async move {
            let root = match wanted.digest.and_then(|digest| kept.fetched(digest)) {
                Some(root) => root,
                None => self.root(wanted, Expect::Known).await?,
            };
            resolve::follow(&*self.inner, wanted, self.reference(wanted), root).await
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
            .field("config", &self.inner.origin.config)
            .finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    const fn has_mirrors(&self) -> bool {
        !self.mirrors.is_empty()
    }

    /// The endpoint at a place of the order: mirrors, then the registry itself for ever.
    fn endpoint(&self, at: usize) -> &Endpoint {
        let mirror = self.mirrors.get(at);
        mirror.map_or(&self.origin, |mirror| &mirror.endpoint)
    }

    /// The first place from `at` on whose endpoint can be asked now.
    fn usable(&self, at: usize) -> usize {
        let mut at = at;
        while let Some(mirror) = self.mirrors.get(at) {
            if mirror.endpoint.pacer.paused().is_none() {
                break;
            }
            at = at.saturating_add(1);
        }
        at
    }

    /// What a tag leads to. The registry itself is asked where, and whoever has it for what.
    async fn tagged(
        &self,
        repository: &str,
        tag: &str,
        expect: Expect,
    ) -> Result<Fetched, OciError> {
        let has_readers = self.mirrors.iter().any(|mirror| !mirror.tags);
        let may_know = self.origin.config.documents.is_some() && expect == Expect::Known;
        if has_readers || may_know {
            let claimed = match self.tag(&Method::HEAD, repository, tag).await {
                Ok(found) => found.claimed,
                Err(error) if error.is_transient() => return Err(error),
                // An answer to HEAD has no body: the one to GET says why.
                Err(_) => None,
            };
            if let Some(digest) = claimed {
                return self.manifest(repository, digest).await;
            }
        }
        let fetched = self.tag(&Method::GET, repository, tag).await?.fetched;
        let name = self.manifest_name(repository, fetched.digest);
        self.keep(&name, &fetched).await;
        Ok(fetched)
    }

    fn manifest_name<'a>(&'a self, repository: &'a str, digest: Digest) -> DocumentName<'a> {
        DocumentName {
            host: self.origin.host(),
            repository,
            is_manifest: true,
            digest,
        }
    }

    /// The document, if it was read before. A store that lies is a store that has nothing.
    async fn known(&self, name: &DocumentName<'_>, bytes_max: u64) -> Option<Fetched> {
        let store = self.origin.config.documents.as_ref()?;
        let Document { text, content_type } = store.get(name).await?;
        let fits = text.len() as u64 <= bytes_max;
        let bytes = verify(text.into_bytes(), name.digest, "a kept document").ok()?;
        fits.then_some(Fetched {
            bytes,
            digest: name.digest,
            content_type,
        })
    }

    async fn keep(&self, name: &DocumentName<'_>, fetched: &Fetched) {
        let Some(store) = &self.origin.config.documents else {
            return;
        };
        // What is no text is no JSON either, and is refused by who reads it.
        let Ok(text) = std::str::from_utf8(&fetched.bytes) else {
            return;
        };
        let document = Document {
            text: text.to_owned(),
            content_type: fetched.content_type.clone(),
        };
        store.put(name, document).await;
    }

    async fn tag(&self, method: &Method, repository: &str, tag: &str) -> Result<Found, OciError> {
        let host = self.origin.host();
        let what = format!("manifest of `{host}/{repository}:{tag}`");
        let lookup = Lookup {
            method,
            repository,
            kind: "manifests",
            reference: tag,
            expected: None,
            bytes_max: self.origin.limits().manifest_bytes_max,
            what: &what,
        };
        self.document(&lookup).await
    }

    /// The document from the first endpoint that has it and that may be asked for it.
    async fn document(&self, lookup: &Lookup<'_>) -> Result<Found, OciError> {
        for mirror in &self.mirrors {
            let is_asked = lookup.expected.is_some() || mirror.tags;
            if !is_asked || mirror.endpoint.pacer.paused().is_some() {
                continue;
            }
            match mirror.endpoint.document(lookup).await {
                Ok(found) => return Ok(found),
                Err(error) => mirror.endpoint.demote(&error),
            }
        }
        self.origin.document(lookup).await
    }

    async fn by_digest(
        &self,
        repository: &str,
        (kind, digest): (&str, Digest),
        bytes_max: u64,
        what: &str,
    ) -> Result<Fetched, OciError> {
        let name = DocumentName {
            is_manifest: kind == "manifests",
            ..self.manifest_name(repository, digest)
        };
        if let Some(known) = self.known(&name, bytes_max).await {
            return Ok(known);
        }
        let lookup = Lookup {
            method: &Method::GET,
            repository,
            kind,
            reference: &digest.to_string(),
            expected: Some(digest),
            bytes_max,
            what,
        };
        let fetched = self.document(&lookup).await?.fetched;
        self.keep(&name, &fetched).await;
        Ok(fetched)
    }
}

impl Documents for Inner {
    fn manifest<'a>(
        &'a self,
        repository: &'a str,
        digest: Digest,
    ) -> BoxFuture<'a, Result<Fetched, OciError>> {
        Box::pin(async move {
            let what = format!("manifest `{digest}`");
            let bytes_max = self.origin.limits().manifest_bytes_max;
            self.by_digest(repository, ("manifests", digest), bytes_max, &what)
                .await
        })
    }

    fn config<'a>(
        &'a self,
        repository: &'a str,
        config: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<u8>, OciError>> {
        Box::pin(async move {
            let what = format!("config `{}`", config.digest);
            let bytes_max = self.origin.limits().config_bytes_max;
            let fetched = self
                .by_digest(repository, ("blobs", config.digest), bytes_max, &what)
                .await?;
            Ok(fetched.bytes)
        })
    }

    fn limits(&self) -> &Limits {
        self.origin.limits()
    }
}
