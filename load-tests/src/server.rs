//! Asking the server for verdicts.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use chassis::{Secret, SecretRef};
use model::Digest;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

/// Between two questions: small beside what is measured.
const POLL: Duration = Duration::from_millis(10);

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    base: String,
    token: Secret,
    http: Client,
}

// === impl Server ===

impl Server {
    /// The server at `base`.
    pub(crate) fn new(base: &str, token_file: &Path) -> anyhow::Result<Self> {
        let token = SecretRef::File(token_file.to_owned());
        let token = token
            .read()
            .with_context(|| format!("reading `{}`", token_file.display()))?;
        let http = Client::builder().timeout(Duration::from_secs(30)).build()?;
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            token,
            http,
        })
    }

    /// What it answers to `GET path`.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.base);
        let request = self.http.get(url).bearer_auth(self.token.expose());
        let answer = request.send().await.context("asking the server")?;
        let answer = answer.error_for_status().context("asking the server")?;
        answer.json().await.context("reading the answer")
    }

    /// Sends JSON or a document; gives an error unless it is taken.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> anyhow::Result<()> {
        let url = format!("{}{path}", self.base);
        let request = self
            .http
            .request(method, url)
            .bearer_auth(self.token.expose())
            .header("content-type", "application/json")
            .body(body);
        let answer = request.send().await.context("asking the server")?;
        let status = answer.status();
        if !status.is_success() {
            let why = answer.text().await.unwrap_or_default();
            bail!("the server answered {status} to `{path}`: {why}");
        }
        Ok(())
    }

    /// Returns when the image has a verdict.
    pub(crate) async fn wait_for_verdict(
        &self,
        image: Digest,
        timeout: Duration,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let url = format!("{}/v1/verdicts?image={image}", self.base);
            let request = self.http.get(url).bearer_auth(self.token.expose());
            let answer = request.send().await.context("asking the server")?;
            match answer.status() {
                StatusCode::OK => {
                    let verdict: Value = answer.json().await.context("reading the answer")?;
                    if verdict["decision"].is_string() {
                        return Ok(());
                    }
                }
                StatusCode::NOT_FOUND => {}
                status => bail!("the server answered {status}"),
            }
            if start.elapsed() > timeout {
                bail!("no verdict on `{image}` after {} s", timeout.as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
