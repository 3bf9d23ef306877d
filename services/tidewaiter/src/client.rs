//! The client side of the REST API.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use chassis::{Secret, SecretRef};
use reqwest::{Certificate, Identity, Method, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;

use crate::cli::{Server, Trust};

/// An answer may be this large: a report of the largest image we accept.
const ANSWER_BYTES_MAX: usize = 256 << 20;
const PEM_BYTES_MAX: u64 = 1 << 20;

/// How long a stream may go on before it is asked for again.
const STREAM: Duration = Duration::from_hours(24);

/// A server's answer that is an error.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    message: String,
}

/// Talks to one server.
#[derive(Debug)]
pub(crate) struct Client {
    base: String,
    token: Option<Secret>,
    http: reqwest::Client,
}

// === impl Client ===

impl Client {
    /// A client for the server of the flags.
    pub(crate) fn new(server: &Server) -> anyhow::Result<Self> {
        let token = match &server.token.token_file {
            Some(file) => Some(
                SecretRef::File(file.clone())
                    .read()
                    .with_context(|| format!("reading the token from `{}`", file.display()))?,
            ),
            None => chassis::config::env_var("TIDEWAITER_TOKEN").map(Secret::from),
        };
        let builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_mins(10));
        let http = trusting(builder, &server.trust)?
            .build()
            .context("making the HTTP client")?;
        Ok(Self {
            base: server.url.trim_end_matches('/').to_owned(),
            token,
            http,
        })
    }

    /// `GET path?query`; `None` where the server knows no such thing.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> anyhow::Result<Option<T>> {
        let mut url = self.url(path)?;
        url.query_pairs_mut().extend_pairs(query);
        let answer = self.send(self.request(Method::GET, url)).await?;
        if answer.0 == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.decode(answer).map(Some)
    }

    /// The same without a token, for a server that is not the one whose token it is.
    pub(crate) fn anonymous(self) -> Self {
        Self {
            token: None,
            ..self
        }
    }

    /// `GET path` as bytes; `None` where the server knows no such thing.
    pub(crate) async fn bytes(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let answer = self
            .send(self.request(Method::GET, self.url(path)?))
            .await?;
        match answer.0 {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(answer.1)),
            status => Err(self.refusal(status, &answer.1).into()),
        }
    }

    /// `POST path` with a JSON body.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<T> {
        let request = self.request(Method::POST, self.url(path)?).json(body);
        let answer = self.send(request).await?;
        self.decode(answer)
    }

    /// `POST path?query` with bytes.
    pub(crate) async fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
        body: Vec<u8>,
    ) -> anyhow::Result<T> {
        let mut url = self.url(path)?;
        url.query_pairs_mut().extend_pairs(query);
        let answer = self
            .send(self.request(Method::POST, url).body(body))
            .await?;
        self.decode(answer)
    }

    /// `PUT path?query` with bytes.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
        body: Vec<u8>,
    ) -> anyhow::Result<T> {
        let mut url = self.url(path)?;
        url.query_pairs_mut().extend_pairs(query);
        let answer = self.send(self.request(Method::PUT, url).body(body)).await?;
        self.decode(answer)
    }

    /// `GET path?query` whose answer goes on; perhaps with a header more.
    pub(crate) async fn open(
        &self,
        path: &str,
        query: &[(&str, String)],
        header: Option<(&'static str, &str)>,
    ) -> anyhow::Result<reqwest::Response> {
        let mut url = self.url(path)?;
        url.query_pairs_mut().extend_pairs(query);
        let mut request = self.request(Method::GET, url).timeout(STREAM);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let answer = request
            .send()
            .await
            .map_err(|error| self.unreachable(error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let (status, body) = self.whole(answer).await?;
        Err(self.refusal(status, &body).into())
    }

    /// `DELETE path?query`, whose answer has no body.
    pub(crate) async fn delete(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<()> {
        let mut url = self.url(path)?;
        url.query_pairs_mut().extend_pairs(query);
        let answer = self.send(self.request(Method::DELETE, url)).await?;
        if answer.0.is_success() {
            return Ok(());
        }
        self.decode(answer)
    }

    /// `GET /readyz`: whether the server is ready, and what it says of itself.
    pub(crate) async fn readiness(&self) -> anyhow::Result<(bool, serde_json::Value)> {
        let request = self.request(Method::GET, self.url("/readyz")?);
        let answer = self.send(request).await?;
        // One that is not ready says why; everything else that refuses is none of ours.
        if answer.0 == StatusCode::SERVICE_UNAVAILABLE
            && let Ok(said) = serde_json::from_slice(&answer.1)
        {
            return Ok((false, said));
        }
        Ok((true, self.decode(answer)?))
    }

    fn url(&self, path: &str) -> anyhow::Result<reqwest::Url> {
        let text = format!("{}{path}", self.base);
        reqwest::Url::parse(&text).with_context(|| {
            format!(
                "`{}` is not a server's URL like `http://127.0.0.1:8080`",
                self.base
            )
        })
    }

    fn request(&self, method: Method, url: reqwest::Url) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<(StatusCode, Vec<u8>)> {
        let answer = request
            .send()
            .await
            .map_err(|error| self.unreachable(error))?;
        self.whole(answer).await
    }

    /// Why there is no answer, and what can be done about it.
    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let error = anyhow::Error::from(error);
        let asking = format!("asking the server at `{}`", self.base);
        match advice(&format!("{error:#}")) {
            Some(advice) => error.context(format!("{asking} ({advice})")),
            None => error.context(asking),
        }
    }

    async fn whole(&self, mut answer: reqwest::Response) -> anyhow::Result<(StatusCode, Vec<u8>)> {
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer
            .chunk()
            .await
            .context("reading the server's answer")?
        {
            if body.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
                bail!("the server's answer is larger than {ANSWER_BYTES_MAX} bytes");
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }

    fn decode<T: DeserializeOwned>(
        &self,
        (status, body): (StatusCode, Vec<u8>),
    ) -> anyhow::Result<T> {
        if status.is_success() {
            return serde_json::from_slice(&body).context("reading the server's answer");
        }
        Err(self.refusal(status, &body).into())
    }

    /// What an answer that is an error says.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> Refused {
        let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |field: &str| problem.get(field).and_then(|value| value.as_str());
        let what = text("detail")
            .or(text("error"))
            .unwrap_or("no reason given");
        let hint = match (status, text("hint")) {
            (_, Some(hint)) => format!(" ({hint})"),
            (StatusCode::UNAUTHORIZED, None) => {
                " (give a token with --token-file or TIDEWAITER_TOKEN)".to_owned()
            }
            _ => String::new(),
        };
        let message = format!(
            "the server at `{}` answered {status}: {what}{hint}",
            self.base
        );
        Refused { status, message }
    }
}

/// What can be done about an error of TLS.
fn advice(error: &str) -> Option<&'static str> {
    let has = |text: &str| error.contains(text);
    if has("UnknownIssuer") {
        Some("the authority of its certificate is not known here; name it with --server-ca")
    } else if has("not valid for name") {
        Some("its certificate is for other names than the host of this URL")
    } else if has("InvalidContentType") {
        Some("it does not speak TLS; use `http://`")
    } else if has("CertificateRequired") || has("BadCertificate") || has("UnknownCA") {
        Some("it wants to see a certificate; give one with --client-certificate and --client-key")
    } else if has("https://") && (has("(SendRequest)") || has("(Canceled)")) {
        // Who refuses a certificate says so only when the first request is under way already.
        Some(
            "it closed the connection; if it wants to see a certificate, give one with \
             --client-certificate and --client-key",
        )
    } else {
        None
    }
}

/// Adds who is trusted and what is shown.
fn trusting(
    mut builder: reqwest::ClientBuilder,
    trust: &Trust,
) -> anyhow::Result<reqwest::ClientBuilder> {
    let read = |file: &Path| {
        chassis::files::read_bounded(file, PEM_BYTES_MAX)
            .with_context(|| format!("reading `{}`", file.display()))
    };
    if let Some(file) = &trust.server_ca {
        let found = Certificate::from_pem_bundle(&read(file)?).unwrap_or_default();
        if found.is_empty() {
            bail!("`{}` holds no certificate in PEM", file.display());
        }
        builder = builder.tls_certs_merge(found);
    }
    if let Some((certificate, key)) = trust
        .client_certificate
        .as_ref()
        .zip(trust.client_key.as_ref())
    {
        let pem = [read(certificate)?, read(key)?].join(&b'\n');
        // The cause is left out: it may repeat what the files hold.
        let identity = Identity::from_pem(&pem).map_err(|_| {
            anyhow!(
                "`{}` and `{}` are not a certificate and its private key in PEM",
                certificate.display(),
                key.display()
            )
        })?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}
