//! Pushing: as much of the distribution protocol as that needs.

use std::time::Duration;

use anyhow::Context as _;
use model::Digest;
use reqwest::{Client, StatusCode, header};

use crate::layout::Image;

/// A registry without TLS and without authentication, as the quickstart's.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    host: String,
    http: Client,
}

// === impl Registry ===

impl Registry {
    /// The registry at `host`.
    pub(crate) fn new(host: &str) -> anyhow::Result<Self> {
        let http = Client::builder().timeout(Duration::from_mins(5)).build()?;
        Ok(Self {
            host: host.to_owned(),
            http,
        })
    }

    /// Pushes everything of an image but its manifest.
    pub(crate) async fn push_blobs(&self, repository: &str, image: &Image) -> anyhow::Result<()> {
        for blob in &image.blobs {
            let digest = Digest::of(blob);
            let url = self.url(repository, &format!("blobs/{digest}"));
            if self.http.head(url).send().await?.status().is_success() {
                continue;
            }
            let start = self
                .http
                .post(self.url(repository, "blobs/uploads/"))
                .send()
                .await?;
            let start = start.error_for_status().context("starting an upload")?;
            let location = start
                .headers()
                .get(header::LOCATION)
                .context("no upload location")?;
            let mut location = start.url().join(location.to_str()?)?;
            location
                .query_pairs_mut()
                .append_pair("digest", &digest.to_string());
            let stored = self.http.put(location).body(blob.clone()).send().await?;
            stored
                .error_for_status()
                .with_context(|| format!("storing blob `{digest}`"))?;
        }
        Ok(())
    }

    /// Pushes the manifest: from now on the image is there.
    pub(crate) async fn push_manifest(
        &self,
        repository: &str,
        tag: &str,
        image: &Image,
    ) -> anyhow::Result<Digest> {
        let request = self
            .http
            .put(self.url(repository, &format!("manifests/{tag}")))
            .header(
                header::CONTENT_TYPE,
                "application/vnd.oci.image.manifest.v1+json",
            )
            .body(image.manifest.clone());
        let status = request.send().await?.status();
        anyhow::ensure!(
            status == StatusCode::CREATED,
            "the registry answered {status}"
        );
        Ok(Digest::of(&image.manifest))
    }

    fn url(&self, repository: &str, rest: &str) -> String {
        format!("http://{}/v2/{repository}/{rest}", self.host)
    }
}
