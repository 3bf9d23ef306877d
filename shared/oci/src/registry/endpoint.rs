//! One host: the registry itself, or a mirror of it. Requests to it share a pace and a login.

use std::time::Duration;

use chassis::Cx;
use model::Digest;
use oci_distribution::Reference;
use reqwest::{
    Method, Response, StatusCode,
    header::{self, HeaderMap, HeaderValue},
};
use url::Url;

use super::{
    DIGEST_HEADER, RegistryConfig,
    auth::{Auth, Authorization},
    guard::{self, Guard, Reach},
    http::{self, Answer, Ask, Http, Subject},
    library::Library,
    pace::{Admission, Pacer, Paused},
    retry::Retry,
};
use crate::{Limits, OciError, manifest::ACCEPT, resolve::Fetched, source::verify};

/// Bytes of an error's body that are looked at.
const ERROR_BYTES_MAX: u64 = 16 << 10;
/// How long a registry is left alone that says "too many requests" and not for how long.
const UNTOLD_PAUSE: Duration = Duration::from_secs(1);
/// How long a mirror is left alone that does not answer, or does not let us in.
const DOWN_PAUSE: Duration = Duration::from_secs(30);
/// How long a mirror is left alone that gave something else than was asked for.
const DISTRUST_PAUSE: Duration = Duration::from_mins(10);

/// A host that speaks the distribution protocol.
pub(super) struct Endpoint {
    pub(super) config: RegistryConfig,
    pub(super) http: Http,
    pub(super) auth: Auth,
    pub(super) pacer: Pacer,
    pub(super) library: Library,
    /// The host that is contacted: `index.docker.io` for `docker.io`.
    pub(super) api_host: String,
    pub(super) reach: Reach,
    cx: Cx,
    /// Whether somebody else can be asked instead.
    is_mirror: bool,
    /// What stands before the names of repositories.
    prefix: String,
}

/// An answer, and the right to its connection until its body is read.
pub(super) struct Sent {
    pub(super) response: Response,
    pub(super) admission: Admission,
}

/// A manifest, an index or a config that is wanted.
#[derive(Clone, Copy)]
pub(super) struct Lookup<'a> {
    pub(super) method: &'a Method,
    pub(super) repository: &'a str,
    /// `manifests` or `blobs`.
    pub(super) kind: &'a str,
    /// A tag or a digest.
    pub(super) reference: &'a str,
    /// The digest that its bytes must have.
    pub(super) expected: Option<Digest>,
    pub(super) bytes_max: u64,
    /// What it is, for errors.
    pub(super) what: &'a str,
}

/// What was found.
pub(super) struct Found {
    pub(super) fetched: Fetched,
    /// The digest that the headers name.
    pub(super) claimed: Option<Digest>,
}

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn new(cx: &Cx, config: RegistryConfig) -> Result<Self, OciError> {
        let is_local = guard::is_this_machine(&config.host);
        let reach = match (config.allow_private, is_local) {
            (true, _) => Reach::Anywhere,
            (false, true) => Reach::ThisMachine,
            (false, false) => Reach::Public,
        };
        let config = RegistryConfig {
            plain_http: config.plain_http || is_local,
            ..config
        };
        let name = Reference::with_tag(config.host.clone(), "x".to_owned(), "x".to_owned());
        let api_host = name.resolve_registry().to_owned();
        let scheme = if config.plain_http { "http" } else { "https" };
        let base = base_url(scheme, &api_host)?;
        Ok(Self {
            http: Http::new(&config, base, Guard { reach })?,
            auth: Auth::new(config.login.clone()),
            pacer: Pacer::new(&config.pace),
            library: Library::default(),
            api_host,
            reach,
            cx: cx.clone(),
            is_mirror: false,
            prefix: String::new(),
            config,
        })
    }

    /// A mirror, where repositories have `prefix` before their names.
    pub(super) fn mirror(
        cx: &Cx,
        config: RegistryConfig,
        prefix: String,
    ) -> Result<Self, OciError> {
        let fits = prefix.is_empty() || is_repository(&prefix);
        if !fits || !config.mirrors.is_empty() {
            let what = format!("the mirror `{}/{prefix}`", config.host);
            return Err(OciError::malformed(
                what,
                "it is a host with a path before it at most, and has no mirrors itself",
            ));
        }
        Ok(Self {
            is_mirror: true,
            prefix,
            ..Self::new(cx, config)?
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.config.host
    }

    pub(super) const fn cx(&self) -> &Cx {
        &self.cx
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.config.limits
    }

    pub(super) const fn is_mirror(&self) -> bool {
        self.is_mirror
    }

    /// What a repository is called here.
    pub(super) fn repository(&self, repository: &str) -> String {
        if self.prefix.is_empty() {
            repository.to_owned()
        } else {
            format!("{}/{repository}", self.prefix)
        }
    }

    /// The tries of a request here: who is not alone gets one.
    pub(super) const fn retry(&self) -> Retry<'_> {
        if self.is_mirror {
            Retry::none(&self.cx, &self.config.limits)
        } else {
            Retry::of_requests(&self.cx, &self.config.limits)
        }
    }

    /// How long a pause is waited for.
    pub(super) const fn patience(&self) -> Duration {
        if self.is_mirror {
            Duration::ZERO
        } else {
            self.config.limits.retry_time_max
        }
    }

    pub(super) fn subject<'a>(&'a self, repository: &'a str) -> Subject<'a> {
        Subject {
            host: &self.config.host,
            repository,
            authenticated: self.auth.has_login(),
        }
    }

    /// Leaves a mirror alone for a while after it failed. That it does not have something is no
    /// failure.
    pub(super) fn demote(&self, error: &OciError) {
        let pause = match error {
            OciError::NotFound { .. } => return,
            OciError::Malformed { .. } | OciError::DigestMismatch { .. } => DISTRUST_PAUSE,
            error => error.retry_after().unwrap_or(DOWN_PAUSE),
        };
        if self.pacer.pause(pause) {
            tracing::warn!(
                mirror = self.host(),
                %error,
                "mirror `{}` is not asked for {} s: {error}", self.host(), pause.as_secs()
            );
        }
    }

    /// Waits for the registry's and our own pace.
    pub(super) async fn admit(&self, patience: Duration) -> Result<Admission, OciError> {
        self.pacer
            .admit(patience)
            .await
            .map_err(|Paused(left)| OciError::Unavailable {
                host: self.host().to_owned(),
                detail: "it asked for a pause".to_owned(),
                retry_after: Some(left),
            })
    }

    /// Sends a request as it is.
    pub(super) async fn ask(&self, ask: &Ask, patience: Duration) -> Result<Sent, OciError> {
        let admission = self.admit(patience).await?;
        let response = self.http.send(ask).await?;
        Ok(Sent {
            response,
            admission,
        })
    }

    /// Sends a request with what lets us in. Where that is no longer enough, logs in and sends it
    /// once more.
    pub(super) async fn authorized(
        &self,
        ask: &Ask,
        repository: &str,
        patience: Duration,
    ) -> Result<Sent, OciError> {
        self.auth.ready(self, repository).await?;
        let with = |authorization: &Authorization| Ask {
            authorization: authorization.header(),
            ..ask.clone()
        };
        let used = self.auth.current(repository, self.cx.now());
        let sent = self.ask(&with(&used), patience).await?;
        if !self.http.is_ours(sent.response.url()) {
            return Ok(sent);
        }
        match (sent.response.status(), &used) {
            (StatusCode::UNAUTHORIZED, _) => {
                let headers = sent.response.headers().clone();
                // Its connection is needed to log in.
                drop(sent);
                self.auth.renew(self, repository, &used, &headers).await?;
            }
            (StatusCode::FORBIDDEN, Authorization::Basic(..)) => {
                if !self.auth.read_again(self, &used).await? {
                    return Ok(sent);
                }
                drop(sent);
            }
            _ => return Ok(sent),
        }
        let fresh = self.auth.current(repository, self.cx.now());
        self.ask(&with(&fresh), patience).await
    }

    /// The answer, if it is a good one; else what it means.
    pub(super) async fn accepted(&self, sent: Sent, repository: &str) -> Result<Sent, OciError> {
        let status = sent.response.status();
        if status.is_success() {
            return Ok(sent);
        }
        let retry_after = http::retry_after(sent.response.headers(), &self.cx);
        self.slow_down(status, retry_after);
        // What the body cannot tell, the status does.
        let body = self.body(sent, ERROR_BYTES_MAX, "error").await;
        let answer = Answer::of(&body.unwrap_or_default());
        Err(self
            .subject(repository)
            .refusal(status, &answer, retry_after))
    }

    /// Leaves the registry alone where it asks for that: all requests of the process to it wait.
    pub(super) fn slow_down(&self, status: StatusCode, retry_after: Option<Duration>) {
        let pause = match status {
            StatusCode::TOO_MANY_REQUESTS => retry_after.unwrap_or(UNTOLD_PAUSE),
            StatusCode::SERVICE_UNAVAILABLE => retry_after.unwrap_or_default(),
            _ => return,
        };
        if !pause.is_zero() && self.pacer.pause(pause) {
            tracing::warn!(
                registry = self.host(),
                "`{}` answers `{status}`: nothing is asked of it for {} s",
                self.host(),
                pause.as_secs()
            );
        }
    }

    /// A whole body of at most so many bytes.
    pub(super) async fn body(
        &self,
        sent: Sent,
        bytes_max: u64,
        what: &str,
    ) -> Result<Vec<u8>, OciError> {
        let body = self.http.body(sent.response, bytes_max, what).await?;
        drop(sent.admission);
        self.pacer.count(body.len());
        Ok(body)
    }

    /// The URL of a manifest or blob. Names come from events, too: nothing in them may lead out of
    /// its place in the path.
    pub(super) fn url(
        &self,
        repository: &str,
        kind: &str,
        reference: &str,
    ) -> Result<Url, OciError> {
        let reference_fits = reference.parse::<Digest>().is_ok() || fits(reference);
        if !is_repository(repository) || !reference_fits {
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

    /// Reads a document whole and verifies it, with as many tries as are to be had here.
    pub(super) async fn document(&self, lookup: &Lookup<'_>) -> Result<Found, OciError> {
        let repository = self.repository(lookup.repository);
        let url = self.url(&repository, lookup.kind, lookup.reference)?;
        let accept = HeaderValue::from_static(ACCEPT);
        let ask = Ask {
            headers: HeaderMap::from_iter([(header::ACCEPT, accept)]),
            ..Ask::new(lookup.method.clone(), url)
        };
        let mut retry = self.retry();
        loop {
            let patience = retry.patience();
            match self.look_up(lookup, &ask, &repository, patience).await {
                Ok(found) => return Ok(found),
                Err(error) => retry.again(error).await?,
            }
        }
    }

    async fn look_up(
        &self,
        lookup: &Lookup<'_>,
        ask: &Ask,
        repository: &str,
        patience: Duration,
    ) -> Result<Found, OciError> {
        let sent = self.authorized(ask, repository, patience).await?;
        let sent = self.accepted(sent, repository).await?;
        let content_type = content_type(sent.response.headers());
        let claimed = claimed_digest(sent.response.headers());
        let is_head = lookup.method == Method::HEAD;
        let bytes = if is_head {
            Vec::new()
        } else {
            self.body(sent, lookup.bytes_max, lookup.what).await?
        };
        // A registry that contradicts itself would give us one image and others another.
        let bytes = match (lookup.kind, claimed.filter(|_| !is_head)) {
            ("manifests", Some(claimed)) => verify(bytes, claimed, lookup.what)?,
            _ => bytes,
        };
        let bytes = match lookup.expected {
            Some(expected) => verify(bytes, expected, lookup.what)?,
            None => bytes,
        };
        let digest = lookup.expected.unwrap_or_else(|| Digest::of(&bytes));
        Ok(Found {
            fetched: Fetched {
                bytes,
                digest,
                content_type,
            },
            claimed,
        })
    }
}

fn is_repository(name: &str) -> bool {
    name.len() <= 255 && name.split('/').all(fits)
}

fn fits(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
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

fn claimed_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(DIGEST_HEADER)?.to_str().ok()?.parse().ok()
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let name = value.split(';').next().unwrap_or_default();
    Some(name.trim().to_owned())
}
