//! Our own HTTP client: every body has a bound, every answer a meaning.

use std::time::Duration;

use chassis::Cx;
use jiff::fmt::rfc2822;
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, StatusCode, header};
use url::Url;

use super::{
    RegistryConfig, USER_AGENT,
    guard::{Guard, Refused},
};
use crate::OciError;

/// Bytes of an error's body that are looked at.
const ERROR_BYTES_MAX: u64 = 16 << 10;
/// Longest wait that a registry may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// A client for one registry.
pub(super) struct Http {
    client: Client,
    base: Url,
    guard: Guard,
    host: String,
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

// === impl Http ===

impl Http {
    pub(super) fn new(config: &RegistryConfig, base: Url, guard: Guard) -> Result<Self, OciError> {
        let limits = &config.limits;
        let set_up = |detail: String| OciError::Internal(format!("setting up TLS: {detail}"));
        let certificates: Vec<Certificate> = config
            .ca_certificates
            .iter()
            .map(|pem| Certificate::from_pem_bundle(pem))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| set_up(causes(&error)))?
            .into_iter()
            .flatten()
            .collect();
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(guard.redirects(limits.redirects_max))
            .connect_timeout(limits.connect_timeout)
            .read_timeout(limits.idle_timeout)
            // A body is hashed as it is sent.
            .no_gzip()
            .referer(false);
        if !certificates.is_empty() {
            builder = builder.tls_certs_merge(certificates);
        }
        if !guard.allow_private {
            // Behind a proxy the proxy resolves names, and ours would be the address checked.
            builder = builder.dns_resolver(guard).no_proxy();
        }
        let client = builder.build().map_err(|error| {
            set_up(format!(
                "{}; is the package `ca-certificates` installed?",
                causes(&error)
            ))
        })?;
        Ok(Self {
            client,
            base,
            guard,
            host: config.host.clone(),
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

    pub(super) fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, OciError> {
        self.guard.check(&url)?;
        Ok(self.client.request(method, url))
    }

    /// The answer, if it is a good one; else what it means.
    pub(super) async fn accepted(
        &self,
        response: Response,
        subject: &Subject<'_>,
        cx: &Cx,
    ) -> Result<Response, OciError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = retry_after(response.headers(), cx);
        // What the body cannot tell, the status does.
        let body = self
            .body(response, ERROR_BYTES_MAX, "error")
            .await
            .unwrap_or_default();
        Err(subject.refusal(status, &message(&body), retry_after))
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
        message: &str,
        retry_after: Option<Duration>,
    ) -> OciError {
        let detail = match message {
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
    let detail = if error.is_timeout() {
        "it took too long".to_owned()
    } else {
        causes(error)
    };
    OciError::Unavailable {
        host: host.to_owned(),
        detail,
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

/// The first message of an error document of the distribution protocol.
fn message(body: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let message = value
        .pointer("/errors/0/message")
        .or_else(|| value.get("details"));
    let message = message
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default();
    message
        .chars()
        .filter(|letter| !letter.is_control())
        .take(200)
        .collect()
}

fn retry_after(headers: &header::HeaderMap, cx: &Cx) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let wait = if let Ok(seconds) = value.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
        Duration::try_from(date.duration_since(cx.now())).unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}
