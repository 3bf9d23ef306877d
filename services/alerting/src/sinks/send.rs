//! Sending: one request or one mail, and what the answer means.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use chassis::{Cx, Secret};
use jiff::{Timestamp, fmt::rfc2822};
use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor,
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use reqwest::{Client, StatusCode, header::RETRY_AFTER, redirect};
use url::Url;

use crate::{
    signature,
    sinks::email::{Encryption, Mail, Server},
};

/// Bytes of an answer that are kept, to say why an alert was refused.
const ANSWER_BYTES_MAX: usize = 300;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Steps of a mail, each of which may take the configured time.
const MAIL_STEPS: u32 = 4;

/// A request to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) url: Url,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) bearer: Option<Secret>,
    /// Secrets to sign it with, at the time when it is sent; none leaves it unsigned.
    pub(crate) signing: Vec<Secret>,
    pub(crate) body: Vec<u8>,
    pub(crate) timeout: Duration,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Sent {
    /// The receiver has it.
    Delivered,
    /// The receiver cannot now.
    Later(Later),
    /// The receiver does not want it.
    Refused(anyhow::Error),
}

/// Why not now, and when.
#[derive(Debug)]
pub(crate) struct Later {
    pub(crate) error: anyhow::Error,
    /// For how long the receiver asks to be left alone.
    pub(crate) asked: Option<Duration>,
}

/// The client of all sinks.
pub(crate) fn client() -> anyhow::Result<Client> {
    builder()
        .build()
        .context("making the client of alert sinks")
}

/// What all clients have in common: redirects are not followed, so that nobody else chooses whom
/// we call.
pub(crate) fn builder() -> reqwest::ClientBuilder {
    Client::builder()
        .user_agent(concat!("tidewaiter/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirect::Policy::none())
}

/// Posts a request. It ends when the process stops: the alert comes again.
pub(crate) async fn send(cx: &Cx, client: &Client, request: &Request) -> Sent {
    let post = post(client, request, cx.now());
    tokio::select! {
        sent = post => sent,
        () = cx.stopped() => Sent::Later(Later::of(anyhow!("stopping"))),
    }
}

/// Gives a mail to its server. A mail that is cut off may have arrived: it comes again under the
/// same `Message-ID`.
pub(crate) async fn mail(cx: &Cx, mail: &Mail) -> Sent {
    let transport = match transport(&mail.server) {
        Ok(transport) => transport,
        Err(error) => return Sent::Later(Later::of(error)),
    };
    let sending = transport.send(mail.message.clone());
    let sending = tokio::time::timeout(mail.server.timeout * MAIL_STEPS, sending);
    let sent = tokio::select! {
        sent = sending => sent,
        () = cx.stopped() => return Sent::Later(Later::of(anyhow!("stopping"))),
    };
    match sent {
        Ok(Ok(_)) => Sent::Delivered,
        // 5xx: the server says that it will never take it.
        Ok(Err(error)) if error.is_permanent() => {
            Sent::Refused(anyhow::Error::new(error).context("the mail server refuses"))
        }
        Ok(Err(error)) => Sent::Later(Later::of(
            anyhow::Error::new(error).context("the mail server does not take it now"),
        )),
        Err(_) => Sent::Later(Later::of(anyhow!("the mail server takes too long"))),
    }
}

fn transport(server: &Server) -> anyhow::Result<AsyncSmtpTransport<Tokio1Executor>> {
    let host = server.host.as_str();
    let parameters = || -> anyhow::Result<TlsParameters> {
        let mut building = TlsParameters::builder(host.to_owned());
        if let Some(pem) = &server.authorities {
            building = building.add_root_certificate(
                Certificate::from_pem(pem).context("reading its certificate authorities")?,
            );
        }
        building.build().context("setting up TLS")
    };
    let tls = match server.encryption {
        Encryption::StartTls => Tls::Required(parameters()?),
        Encryption::Tls => Tls::Wrapper(parameters()?),
        Encryption::None => Tls::None,
    };
    let mut building = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(server.port)
        .tls(tls)
        .timeout(Some(server.timeout));
    if let Some((user, password)) = &server.login {
        let login = Credentials::new(user.clone(), password.expose().to_owned());
        building = building.credentials(login);
    }
    Ok(building.build())
}

async fn post(client: &Client, request: &Request, now: Timestamp) -> Sent {
    let Request {
        url,
        headers,
        bearer,
        signing,
        body,
        timeout,
    } = request;
    let mut building = client
        .post(url.clone())
        .timeout(*timeout)
        .body(body.clone());
    for (name, value) in headers {
        building = building.header(name, value);
    }
    if let Some(signature) = signature::sign(signing, now, body) {
        building = building.header(signature::HEADER, signature);
    }
    if let Some(bearer) = bearer {
        building = building.bearer_auth(bearer.expose());
    }
    let mut response = match building.send().await {
        Ok(response) => response,
        // A header that is none, or an address without a host: it will never work.
        Err(error) if error.is_builder() => return Sent::Refused(without_url(error)),
        Err(error) => return Sent::Later(Later::of(without_url(error))),
    };
    let status = response.status();
    if status.is_success() {
        return Sent::Delivered;
    }
    let asked = response.headers().get(RETRY_AFTER);
    let asked = asked.and_then(|value| retry_after(value.to_str().ok()?, now));
    let answer = response.chunk().await.ok().flatten().unwrap_or_default();
    let answer =
        String::from_utf8_lossy(&answer[..answer.len().min(ANSWER_BYTES_MAX)]).into_owned();
    let error = anyhow!("the receiver answers `{status}`: {}", answer.trim());
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => {
            Sent::Later(Later { error, asked })
        }
        status if status.is_server_error() => Sent::Later(Later { error, asked }),
        status if status.is_redirection() => {
            Sent::Refused(error.context("redirects are not followed"))
        }
        _ => Sent::Refused(error),
    }
}

/// Seconds, or a date (RFC 9110, "Retry-After").
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Duration::try_from(at.duration_since(now)).ok()
}

/// A URL may hold a secret, and this ends in logs.
fn without_url(error: reqwest::Error) -> anyhow::Error {
    anyhow::Error::new(error.without_url()).context("the receiver cannot be reached")
}

// === impl Later ===

impl Later {
    pub(crate) const fn of(error: anyhow::Error) -> Self {
        Self { error, asked: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_says_when_in_seconds_or_as_a_date() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let check = |text: &str| retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(check(" 120 "), Some(120));
        assert_eq!(check("Fri, 02 Jan 2026 03:05:05 GMT"), Some(60));
        assert_eq!(check("Fri, 02 Jan 2026 03:03:05 GMT"), None);
        assert_eq!(check("soon"), None);
    }
}
