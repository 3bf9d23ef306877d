//! Fetching: bounded, resumed where a connection breaks, compared with the size and checksum that
//! the server names, and never from a host that the configuration does not name.

use std::{io::Write as _, net::IpAddr, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use futures::StreamExt as _;
use jiff::{Timestamp, fmt::rfc2822};
use reqwest::{
    Response, StatusCode, Url,
    header::{ETAG, HeaderMap, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE},
    redirect,
};
use tempfile::NamedTempFile;

use super::checksum::Crc32c;
use crate::FeedLimits;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may be silent.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// How often a download is taken up again where it broke off.
const RESUMES_MAX: usize = 5;
const REDIRECTS_MAX: usize = 5;

/// Exports that can be fetched: those below a base URL, or where it fails below its mirrors.
#[derive(Clone, Debug)]
pub struct Feeds {
    client: reqwest::Client,
    base: Url,
    mirrors: Vec<Url>,
    pub(super) limits: FeedLimits,
}

/// A file that was fetched.
#[derive(Debug)]
pub(crate) struct Download {
    /// The file; it goes when it is dropped.
    pub(crate) file: NamedTempFile,
    /// Its tag.
    pub(crate) etag: Option<String>,
    /// When it changed last.
    pub(crate) modified: Option<Timestamp>,
}

/// The answer to a question for a newer file.
#[derive(Debug)]
pub(crate) enum Newer {
    /// It is as it was.
    Same,
    /// It does not exist.
    Missing,
    /// It is here.
    Here(Download),
}

/// What came of a file so far.
struct Partial {
    file: NamedTempFile,
    size: u64,
    checksum: Crc32c,
}

// === impl Feeds ===

impl Feeds {
    /// Exports below a base URL, and below its mirrors.
    pub fn new(base: &str, mirrors: &[String], limits: &FeedLimits) -> anyhow::Result<Self> {
        let mirrors = mirrors.iter().map(|mirror| checked(mirror));
        let mirrors = mirrors.collect::<anyhow::Result<Vec<_>>>()?;
        let base = checked(base)?;
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(Duration::from_secs(limits.fetch_timeout_s))
            .redirect(redirect::Policy::custom(stay))
            .user_agent(concat!("tidewaiter/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            client,
            base,
            mirrors,
            limits: limits.clone(),
        })
    }

    /// The same of each mirror alone.
    pub(super) fn mirrors(&self) -> impl Iterator<Item = Self> + '_ {
        self.mirrors.iter().map(|mirror| Self {
            base: mirror.clone(),
            mirrors: Vec::new(),
            ..self.clone()
        })
    }

    /// A file below the base URL, unless it still has the tag.
    pub(crate) async fn below(&self, path: &[&str], etag: Option<&str>) -> anyhow::Result<Newer> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("`{}` cannot have a path", self.base))?
            .pop_if_empty()
            .extend(path);
        self.newer(&url, etag).await
    }

    /// The file at the base URL itself.
    pub(crate) async fn whole(&self, etag: Option<&str>) -> anyhow::Result<Newer> {
        self.below(&[], etag).await
    }

    async fn newer(&self, url: &Url, etag: Option<&str>) -> anyhow::Result<Newer> {
        self.try_newer(url, etag)
            .await
            .with_context(|| format!("fetching `{url}`"))
    }

    async fn try_newer(&self, url: &Url, etag: Option<&str>) -> anyhow::Result<Newer> {
        let mut request = self.client.get(url.clone());
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let mut response = request.send().await?;
        match response.status() {
            StatusCode::NOT_MODIFIED if etag.is_some() => return Ok(Newer::Same),
            StatusCode::NOT_FOUND => return Ok(Newer::Missing),
            _ => response = response.error_for_status()?,
        }
        let headers = response.headers().clone();
        let tag = text(&headers, ETAG.as_str()).filter(|tag| !tag.starts_with("W/"));
        let mut partial = Partial::new()?;
        for _ in 0..=RESUMES_MAX {
            let broken = match self.take(response, &mut partial).await {
                Ok(()) => {
                    partial.check(&headers)?;
                    let etag = text(&headers, ETAG.as_str());
                    let modified = text(&headers, LAST_MODIFIED.as_str());
                    let modified = modified.and_then(|text| rfc2822::parse(&text).ok());
                    return Ok(Newer::Here(Download {
                        file: partial.file,
                        etag,
                        modified: modified.map(|at| at.timestamp()),
                    }));
                }
                Err(broken) => broken,
            };
            // Only with a tag is it certain that the rest is of the same file.
            let Some(tag) = tag.as_ref().filter(|_| broken.is::<reqwest::Error>()) else {
                return Err(broken);
            };
            let request = self.client.get(url.clone());
            let request = request.header(RANGE, format!("bytes={}-", partial.size));
            response = request
                .header(IF_RANGE, tag)
                .send()
                .await?
                .error_for_status()?;
            if response.status() != StatusCode::PARTIAL_CONTENT {
                // The file is another one now, or the server does not do ranges: from the start.
                anyhow::ensure!(
                    text(response.headers(), ETAG.as_str()).as_ref() == Some(tag),
                    "it changed while it was fetched"
                );
                partial = Partial::new()?;
            }
        }
        anyhow::bail!("it broke off more than {RESUMES_MAX} times")
    }

    async fn take(&self, response: Response, partial: &mut Partial) -> anyhow::Result<()> {
        let most = self.limits.archive_bytes_max;
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            let chunk: Bytes = chunk?;
            partial.size += chunk.len() as u64;
            anyhow::ensure!(partial.size <= most, "it has more than {most} bytes");
            partial.checksum.update(&chunk);
            // A page-cached write of a network chunk; too short to move to another thread.
            partial.file.write_all(&chunk)?;
        }
        partial.file.flush()?;
        Ok(())
    }
}

// === impl Partial ===

impl Partial {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            file: NamedTempFile::new()?,
            size: 0,
            checksum: Crc32c::default(),
        })
    }

    /// Compares with what the server said of the whole file.
    fn check(&self, headers: &HeaderMap) -> anyhow::Result<()> {
        let size = text(headers, "content-length").and_then(|size| size.parse::<u64>().ok());
        anyhow::ensure!(
            size.is_none_or(|size| size == self.size),
            "it has {} bytes and should have {}",
            self.size,
            size.unwrap_or_default()
        );
        let computed = self.checksum.base64();
        for header in headers.get_all("x-goog-hash") {
            let said = header.to_str().unwrap_or_default().split(',');
            for sum in said.filter_map(|part| part.trim().strip_prefix("crc32c=")) {
                anyhow::ensure!(
                    sum == computed,
                    "its CRC-32C is `{computed}` and should be `{}`",
                    sum.escape_debug()
                );
            }
        }
        Ok(())
    }
}

/// A URL that may be fetched: encrypted, unless it is of this machine.
fn checked(text: &str) -> anyhow::Result<Url> {
    let url: Url = text
        .parse()
        .with_context(|| format!("reading URL `{text}`"))?;
    let is_fine = match url.scheme() {
        "https" => true,
        "http" => is_loopback(&url),
        _ => false,
    };
    anyhow::ensure!(
        is_fine,
        "`{text}` is not an https URL (http only to this machine's own addresses)"
    );
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Follows a redirect only to where the configuration sent us: the same scheme, host and port.
fn stay(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let origin = |url: &Url| {
        let port = url.port_or_known_default();
        (
            url.scheme().to_owned(),
            url.host_str().map(ToOwned::to_owned),
            port,
        )
    };
    let from = attempt.previous().first().map(origin);
    if attempt.previous().len() > REDIRECTS_MAX || from != Some(origin(attempt.url())) {
        return attempt.error("it redirects to another host");
    }
    attempt.follow()
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for fine in [
            "https://osv.example/x",
            "http://127.0.0.1:80",
            "http://localhost:1/",
            "http://[::1]:1",
        ] {
            assert!(checked(fine).is_ok(), "{fine}");
        }
        for wrong in [
            "http://osv.example",
            "ftp://osv.example",
            "file:///etc",
            "http://127.0.0.1.example",
        ] {
            assert!(checked(wrong).is_err(), "{wrong}");
        }
    }
}
