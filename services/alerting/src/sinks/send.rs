//! Sending: one request, and what its answer means.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use chassis::{Cx, Secret};
use reqwest::{Client, StatusCode, redirect};
use url::Url;

/// Bytes of an answer that are kept, to say why an alert was refused.
const ANSWER_BYTES_MAX: usize = 300;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A request to be sent.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) url: Url,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) bearer: Option<Secret>,
    pub(crate) body: Vec<u8>,
    pub(crate) timeout: Duration,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Sent {
    /// The receiver has it.
    Delivered,
    /// The receiver cannot now.
    Later(anyhow::Error),
    /// The receiver does not want it.
    Refused(anyhow::Error),
}

/// The client of all sinks.
pub(crate) fn client() -> anyhow::Result<Client> {
    Client::builder()
        .user_agent(concat!("tidewaiter/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirect::Policy::none())
        .build()
        .context("making the client of alert sinks")
}

/// Posts a request. It ends when the process stops: the alert comes again.
pub(crate) async fn send(cx: &Cx, client: &Client, request: Request) -> Sent {
    let post = post(client, request);
    tokio::select! {
        sent = post => sent,
        () = cx.stopped() => Sent::Later(anyhow!("stopping")),
    }
}

async fn post(client: &Client, request: Request) -> Sent {
    let Request {
        url,
        headers,
        bearer,
        body,
        timeout,
    } = request;
    let mut building = client.post(url).timeout(timeout).body(body);
    for (name, value) in headers {
        building = building.header(name, value);
    }
    if let Some(bearer) = bearer {
        building = building.bearer_auth(bearer.expose());
    }
    let mut response = match building.send().await {
        Ok(response) => response,
        // A header that is none, or an address without a host: it will never work.
        Err(error) if error.is_builder() => return Sent::Refused(without_url(error)),
        Err(error) => return Sent::Later(without_url(error)),
    };
    let status = response.status();
    if status.is_success() {
        return Sent::Delivered;
    }
    let answer = response.chunk().await.ok().flatten().unwrap_or_default();
    let answer =
        String::from_utf8_lossy(&answer[..answer.len().min(ANSWER_BYTES_MAX)]).into_owned();
    let error = anyhow!("the receiver answers `{status}`: {}", answer.trim());
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => {
            Sent::Later(error)
        }
        status if status.is_server_error() => Sent::Later(error),
        status if status.is_redirection() => {
            Sent::Refused(error.context("redirects are not followed"))
        }
        _ => Sent::Refused(error),
    }
}

/// A URL may hold a secret, and this ends in logs.
fn without_url(error: reqwest::Error) -> anyhow::Error {
    anyhow::Error::new(error.without_url()).context("the receiver cannot be reached")
}
