//! Asking the server for verdicts.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use chassis::{Secret, SecretRef};
use model::Digest;
use reqwest::{Client, StatusCode};
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
                    if verdict["state"] == "judged" {
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
