//! Our own HTTP client: every body has a bound, every answer a meaning, every redirect is checked.

use std::{sync::OnceLock, time::Duration};

use chassis::{Cx, Secret};
use jiff::fmt::rfc2822;
use reqwest::{
    Certificate, Client, ClientBuilder, Identity, Method, Response, StatusCode,
    header::{self, HeaderMap, HeaderValue},
};
use tokio::time::Instant;
use url::Url;

use super::{
    RegistryConfig, USER_AGENT,
    guard::{Guard, Reach, Refused},
};
use crate::{Missing, OciError, metrics};

/// Longest wait that a registry may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Bytes of an answer that is taken for a sentence.
const PLAIN_BYTES_MAX: usize = 200;

/// A client for one registry.
pub(super) struct Http {
    /// For the registry itself.
    client: Client,
    /// For its token server and its redirects: without the certificate that is for the registry.
    elsewhere: Elsewhere,
    base: Url,
    guard: Guard,
    host: String,
    redirects_max: usize,
    timeout: Duration,
}

/// A client that a registry without TLS seldom needs: reading the system's certificates takes longer
/// than asking such a registry.
struct Elsewhere {
    made: OnceLock<Client>,
    make: Box<dyn Fn() -> Result<Client, OciError> + Send + Sync>,
}

/// A request.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// Goes to the URL's origin and to no other.
    pub(super) authorization: Option<HeaderValue>,
    /// A form with secrets; it goes nowhere but to the URL.
    pub(super) form: Option<Secret>,
    /// Whether the time-out holds for the beginning of the answer only, not for its body.
    pub(super) is_stream: bool,
}

/// What a request is about, for errors.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The registry as references name it.
    pub(super) host: &'a str,
    /// The repository.
    pub(super) repository: &'a str,
    /// Whether we have credentials.
    pub(super) authenticated: bool,
}

/// What a registry says when it refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The protocol's name for it; empty where it is not told.
    code: String,
    /// For a person.
    message: String,
}

// === impl Http ===

impl Http {
    pub(super) fn new(config: &RegistryConfig, base: Url, guard: Guard) -> Result<Self, OciError> {
        let common = builder(config, guard)?;
        let (of_elsewhere, is_plain) = (config.clone(), base.scheme() == "http");
        let elsewhere = Elsewhere {
            made: OnceLock::new(),
            make: Box::new(move || build(builder(&of_elsewhere, guard)?)),
        };
        let client = match &config.client_certificate {
            None if is_plain => build(common.tls_certs_only([]))?,
            None => elsewhere.client()?.clone(),
            Some(ours) => {
                let mut pem = ours.certificate.clone();
                pem.push(b'\n');
                pem.extend_from_slice(ours.key.expose().as_bytes());
                // The error's text comes from a parser that has seen the key.
                let identity = Identity::from_pem(&pem).map_err(|_| {
                    let detail = "the client certificate and its key are not both PEM";
                    OciError::Internal(format!("setting up TLS for `{}`: {detail}", config.host))
                })?;
                build(common.identity(identity))?
            }
        };
        Ok(Self {
            client,
            elsewhere,
            base,
            guard,
            host: config.host.clone(),
            redirects_max: config.limits.redirects_max,
            timeout: config.limits.request_timeout,
        })
    }

    /// A URL of the registry.
    pub(super) fn join(&self, path: &str) -> Result<Url, OciError> {
        self.base
            .join(path)
            .map_err(|error| OciError::malformed(format!("`{path}`"), error))
    }

    /// Whether a URL is the registry itself and not something that it redirected to.
    pub(super) fn is_ours(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Whether secrets may be sent to a URL: never in the clear, unless the registry itself is.
    pub(super) fn may_carry_secrets(&self, url: &Url) -> bool {
        url.scheme() == "https" || (self.base.scheme() == "http" && url.scheme() == "http")
    }

    /// Sends a request and follows its redirects: a bounded number, each checked. What lets us in
    /// goes to the first origin; it does not come back into play when a redirect leads back there,
    /// for then somebody else chose what is asked for.
    pub(super) async fn send(&self, ask: &Ask) -> Result<Response, OciError> {
        let now = Instant::now();
        let deadline = now.checked_add(self.timeout).unwrap_or(now);
        let (mut url, mut authorization) = (ask.url.clone(), ask.authorization.as_ref());
        for _ in 0..=self.redirects_max {
            let response = self.hop(ask, &url, authorization, deadline).await?;
            let Some(location) = location(&response) else {
                return Ok(response);
            };
            let target = self.guard.follow(&url, location.as_bytes())?;
            if ask.form.is_some() {
                let host = target.host_str().unwrap_or_default().to_owned();
                return Err(Refused::Redirect(host, "it would carry a refresh token there").into());
            }
            if target.origin() != url.origin() {
                authorization = None;
            }
            url = target;
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        Err(Refused::Redirect(host, "there are too many").into())
    }

    async fn hop(
        &self,
        ask: &Ask,
        url: &Url,
        authorization: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Response, OciError> {
        self.guard.check(url)?;
        let client = if self.is_ours(url) {
            &self.client
        } else {
            self.elsewhere.client()?
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let mut request = client
            .request(ask.method.clone(), url.clone())
            .headers(ask.headers.clone());
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(form) = &ask.form {
            request = request.body(form.expose().to_owned());
        }
        if !ask.is_stream {
            request = request.timeout(left);
        }
        let started = Instant::now();
        let sent = tokio::time::timeout(left, request.send()).await;
        let outcome = match &sent {
            Ok(Ok(response)) => metrics::of_status(response.status()),
            Ok(Err(error)) if !error.is_timeout() => "broken",
            _ => "timeout",
        };
        metrics::asked(&self.host, outcome, started.elapsed());
        match sent {
            Ok(sent) => sent.map_err(|error| self.broken(&error)),
            Err(_) => Err(too_slow(&self.host)),
        }
    }

    /// A whole body of at most so many bytes.
    pub(super) async fn body(
        &self,
        mut response: Response,
        bytes_max: u64,
        what: &str,
    ) -> Result<Vec<u8>, OciError> {
        let mut bytes = Vec::new();
        if response
            .content_length()
            .is_some_and(|length| length > bytes_max)
        {
            return Err(OciError::too_large(what, bytes_max));
        }
        while let Some(part) = response
            .chunk()
            .await
            .map_err(|error| self.broken(&error))?
        {
            bytes.extend_from_slice(&part);
            if bytes.len() as u64 > bytes_max {
                return Err(OciError::too_large(what, bytes_max));
            }
        }
        Ok(bytes)
    }

    /// What an error of the connection means.
    pub(super) fn broken(&self, error: &reqwest::Error) -> OciError {
        broken(&self.host, error)
    }
}

// === impl Elsewhere ===

impl Elsewhere {
    fn client(&self) -> Result<&Client, OciError> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let made = (self.make)()?;
        Ok(self.made.get_or_init(|| made))
    }
}

fn builder(config: &RegistryConfig, guard: Guard) -> Result<ClientBuilder, OciError> {
    let limits = &config.limits;
    let bad = |detail: String| {
        let what = format!("setting up TLS for `{}`", config.host);
        OciError::Internal(format!("{what}: a CA file of it {detail}"))
    };
    let mut certificates = Vec::new();
    for pem in &config.ca_certificates {
        let found = Certificate::from_pem_bundle(pem)
            .map_err(|error| bad(format!("is malformed: {}", causes(&error))))?;
        if found.is_empty() {
            return Err(bad("holds no certificate (PEM is expected)".to_owned()));
        }
        certificates.extend(found);
    }
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        // We follow redirects ourselves, with a look at each.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(limits.connect_timeout)
        .read_timeout(limits.idle_timeout)
        // A body is hashed as it is sent.
        .no_gzip()
        .referer(false);
    if !certificates.is_empty() {
        builder = builder.tls_certs_merge(certificates);
    }
    if guard.reach != Reach::Anywhere {
        // Behind a proxy the proxy resolves names, and ours would be the address checked.
        builder = builder.dns_resolver(guard).no_proxy();
    }
    Ok(builder)
}

fn build(builder: ClientBuilder) -> Result<Client, OciError> {
    builder.build().map_err(|error| {
        OciError::Internal(format!(
            "setting up TLS: {}; is the package `ca-certificates` installed?",
            causes(&error)
        ))
    })
}

fn location(response: &Response) -> Option<&HeaderValue> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(header::LOCATION);
    location.filter(|_| redirects)
}

// === impl Ask ===

impl Ask {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            authorization: None,
            form: None,
            is_stream: false,
        }
    }
}

// === impl Subject ===

impl Subject<'_> {
    /// `host/repository`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// What a refusing status means.
    pub(super) fn refusal(
        &self,
        status: StatusCode,
        answer: &Answer,
        retry_after: Option<Duration>,
    ) -> OciError {
        let detail = match answer.message.as_str() {
            "" => status.to_string(),
            message => format!("{status}: {message}"),
        };
        let host = self.host.to_owned();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => OciError::Unauthorized {
                host,
                repository: self.repository.to_owned(),
                detail,
                authenticated: self.authenticated,
            },
            StatusCode::NOT_FOUND | StatusCode::GONE => OciError::NotFound {
                what: self.name(),
                place: format!("`{host}` ({detail})"),
                missing: answer.missing(),
            },
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => {
                OciError::Unavailable {
                    host,
                    detail,
                    retry_after,
                }
            }
            status if status.is_server_error() => OciError::Unavailable {
                host,
                detail,
                retry_after,
            },
            _ => OciError::malformed(format!("the answer of `{host}`"), detail),
        }
    }
}

/// What an error of a connection to `host` means.
pub(super) fn broken(host: &str, error: &reqwest::Error) -> OciError {
    if let Some(refused) = Refused::find(error) {
        return refused.clone().into();
    }
    if error.is_timeout() {
        return too_slow(host);
    }
    let mut detail = causes(error);
    if detail.contains("invalid peer certificate") {
        detail.push_str("; if its certificate is from an authority of your own, give the source that authority's file (`ca_files`)");
    }
    OciError::Unavailable {
        host: host.to_owned(),
        detail,
        retry_after: None,
    }
}

/// A registry that keeps us waiting.
pub(super) fn too_slow(host: &str) -> OciError {
    OciError::Unavailable {
        host: host.to_owned(),
        detail: "it took too long".to_owned(),
        retry_after: None,
    }
}

/// An error with its causes and without its URL, which may hold a signature.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    // The client's own words repeat the URL and say little; the causes below it say what happened.
    let mut words = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        words.push(cause.to_string());
        next = cause.source();
    }
    if words.is_empty() {
        "the request could not be sent".to_owned()
    } else {
        words.join(": ")
    }
}

// === impl Answer ===

impl Answer {
    /// The first error of an error document of the distribution protocol. Token servers have forms of
    /// their own; a short text is taken as it is, but no page.
    pub(super) fn of(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
            let text = std::str::from_utf8(body).unwrap_or_default().trim();
            let is_plain = text.len() <= PLAIN_BYTES_MAX && !text.contains('<');
            return Self {
                code: String::new(),
                message: printable(if is_plain { text } else { "" }),
            };
        };
        let text = |pointer: &str| value.pointer(pointer).and_then(serde_json::Value::as_str);
        let message = text("/errors/0/message").or_else(|| text("/details"));
        Self {
            code: text("/errors/0/code").map(printable).unwrap_or_default(),
            message: message.map(printable).unwrap_or_default(),
        }
    }

    /// What we say ourselves.
    pub(super) fn ours(message: &str) -> Self {
        Self {
            code: String::new(),
            message: printable(message),
        }
    }

    /// With this text where the document had none.
    pub(super) fn or_text(self, text: &str) -> Self {
        if self.message.is_empty() {
            let message = printable(text);
            return Self { message, ..self };
        }
        self
    }

    /// What is missing, by the error's code. Harbor has one code for all, and says it in words.
    pub(super) fn missing(&self) -> Missing {
        match self.code.as_str() {
            "NAME_UNKNOWN" | "NAME_INVALID" => Missing::Repository,
            "MANIFEST_UNKNOWN" | "TAG_EXPIRED" | "TAG_INVALID" => Missing::Version,
            "NOT_FOUND"
                if ["repository ", "project "]
                    .iter()
                    .any(|of| self.message.starts_with(of)) =>
            {
                Missing::Repository
            }
            "NOT_FOUND" if self.message.starts_with("artifact ") => Missing::Version,
            "" => Missing::Registry,
            _ => Missing::Unsaid,
        }
    }
}

fn printable(text: &str) -> String {
    let letters = text.chars().filter(|letter| !letter.is_control());
    letters.take(200).collect()
}

/// How long the registry wants to be left alone, in seconds or until a date (RFC 9110, section
/// 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, cx: &Cx) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let wait = if let Ok(seconds) = value.trim().parse() {
        Duration::from_secs(seconds)
    } else {
        let date = rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
        Duration::try_from(date.duration_since(cx.now())).unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}
