//! Blobs of a registry as streams that are taken up again where they broke.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use model::Digest;
use oci_distribution::{
    Client, Reference,
    client::{BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    secrets::RegistryAuth,
};
use reqwest::{Method, StatusCode, header};

use super::{Inner, USER_AGENT, auth::Authorization, http};
use crate::{
    OciError,
    reader::{self, Feed},
    source::{BlobReader, Descriptor},
};

/// Clients kept; when there are more, all are dropped.
const CLIENTS_MAX: usize = 32;
/// Wait before a broken stream is taken up again, times the number of tries.
const RESUME_WAIT: Duration = Duration::from_millis(300);

/// A stream that came so far before it broke has all its tries again: a large blob on a bad line
/// arrives, and a server that gives a byte at a time is given up.
const PROGRESS_BYTES: u64 = 4 << 20;

type BlobStream = BoxStream<'static, Result<Bytes, OciError>>;

/// Clients of `oci-distribution`, one per repository and credentials. Such a client keeps the first
/// credentials that it gets for its whole life, so it is replaced when they change.
#[derive(Default)]
pub(super) struct Library(Mutex<BTreeMap<String, (RegistryAuth, Client)>>);

/// A blob on its way from the registry to a reader.
struct Delivery {
    inner: Arc<Inner>,
    repository: String,
    digest: Digest,
    /// Bytes to deliver: one more than announced, so that a longer blob shows.
    limit: u64,
    sent: u64,
}

/// Opens a blob; a task feeds the reader until the blob ends or the reader is dropped.
pub(super) async fn open(
    inner: &Arc<Inner>,
    repository: &str,
    blob: &Descriptor,
) -> Result<BlobReader, OciError> {
    let delivery = Delivery {
        inner: Arc::clone(inner),
        repository: repository.to_owned(),
        digest: blob.digest,
        limit: blob.size.saturating_add(1),
        sent: 0,
    };
    let stream = delivery.open().await.map_err(|error| match error {
        OciError::NotFound { .. } if blob.is_foreign() => OciError::unsupported(
            format!("foreign layer `{}`", blob.digest),
            "it is not in the registry, and the addresses that a manifest names are not contacted",
        ),
        error => error,
    })?;
    let (feed, reader) = reader::channel();
    inner.cx.spawn("oci.blob", delivery.run(stream, feed));
    Ok(Box::new(reader))
}

// === impl Delivery ===

impl Delivery {
    async fn run(mut self, stream: BlobStream, feed: Feed) {
        let end = tokio::select! {
            () = feed.closed() => return,
            end = self.deliver(stream, &feed) => end,
        };
        // The reader may be gone; then nobody wants to know.
        let _gone = feed.send(end.map(|()| None)).await;
    }

    async fn deliver(&mut self, mut stream: BlobStream, feed: &Feed) -> Result<(), OciError> {
        let mut resumes = 0;
        loop {
            let before = self.sent;
            let Err(error) = self.pass(&mut stream, feed).await else {
                return Ok(());
            };
            // What broke after the last byte that was announced does not matter.
            if self.sent.saturating_add(1) >= self.limit && self.sent > 0 {
                return Ok(());
            }
            if self.sent.saturating_sub(before) >= PROGRESS_BYTES {
                resumes = 0;
            }
            stream = self.resume(&mut resumes, error).await?;
        }
    }

    /// Passes bytes on until the blob ends, is longer than it may be, or breaks.
    async fn pass(&mut self, stream: &mut BlobStream, feed: &Feed) -> Result<(), OciError> {
        while let Some(part) = stream.next().await {
            let mut part = part?;
            let left = self.limit.saturating_sub(self.sent);
            part.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            self.sent = self.sent.saturating_add(part.len() as u64);
            if feed.send(Ok(Some(part))).await.is_err() || self.sent >= self.limit {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn resume(&self, resumes: &mut u32, mut error: OciError) -> Result<BlobStream, OciError> {
        while error.is_transient() && *resumes < self.inner.config.limits.blob_resumes_max {
            *resumes = resumes.saturating_add(1);
            tracing::debug!(
                layer.digest = %self.digest,
                offset_bytes = self.sent,
                %error,
                "blob `{}` broke at byte {}, taking it up again", self.digest, self.sent
            );
            let wait = error
                .retry_after()
                .unwrap_or_else(|| RESUME_WAIT.saturating_mul(*resumes));
            if !self.inner.cx.sleep(wait.min(Duration::from_secs(30))).await {
                break;
            }
            match self.open().await {
                Ok(stream) => return Ok(stream),
                Err(next) => error = next,
            }
        }
        Err(error)
    }

    /// The blob from the first byte that was not yet sent.
    async fn open(&self) -> Result<BlobStream, OciError> {
        // The same check of names for both ways.
        let url = self
            .inner
            .url(&self.repository, "blobs", &self.digest.to_string())?;
        // An empty blob has no range that the library could ask for.
        if !self.inner.config.allow_private || self.limit == 1 {
            return self.open_guarded(url).await;
        }
        self.inner
            .auth
            .prepare(&self.inner, &self.repository)
            .await?;
        match self.open_by_library().await {
            Err(OciError::Unauthorized { .. }) => {
                // A token may have been withdrawn before its end, or this repository wants more
                // than the registry's root: our own client answers the challenge.
                self.inner.auth.forget(&self.repository);
                self.open_guarded(url).await
            }
            answer => answer,
        }
    }

    async fn open_by_library(&self) -> Result<BlobStream, OciError> {
        let client = self
            .inner
            .library
            .client(&self.inner, &self.repository)
            .await?;
        let reference = Reference::with_digest(
            self.inner.config.host.clone(),
            self.repository.clone(),
            self.digest.to_string(),
        );
        let digest = self.digest.to_string();
        // A range from the first byte on keeps it from hashing what our reader hashes anyway.
        let opening = client.pull_blob_stream_partial(&reference, digest.as_str(), self.sent, None);
        let host = self.inner.config.host.clone();
        let timeout = self.inner.config.limits.request_timeout;
        let response = tokio::time::timeout(timeout, opening).await.map_err(|_| {
            let detail = "it took too long".to_owned();
            OciError::Unavailable {
                host: host.clone(),
                detail,
                retry_after: None,
            }
        })?;
        match response.map_err(|error| self.refusal(error))? {
            BlobResponse::Partial(partial) => Ok(partial
                .stream
                .map_err(move |error| broken(&host, &error))
                .boxed()),
            BlobResponse::Full(full) => {
                let whole = full
                    .stream
                    .map_err(move |error| broken(&host, &error))
                    .boxed();
                Ok(skip(whole, self.sent))
            }
        }
    }

    async fn open_guarded(&self, url: url::Url) -> Result<BlobStream, OciError> {
        let range = format!("bytes={}-", self.sent);
        let http = &self.inner.http;
        let response = self
            .inner
            .authorized(&self.repository, |headers| {
                let request = http.request(Method::GET, url.clone())?.headers(headers);
                Ok(if self.sent == 0 {
                    request
                } else {
                    request.header(header::RANGE, &range)
                })
            })
            .await?;
        let subject = self.inner.subject(&self.repository);
        let response = http.accepted(response, &subject, &self.inner.cx).await?;
        let is_whole = response.status() != StatusCode::PARTIAL_CONTENT;
        let host = self.inner.config.host.clone();
        let stream = response.bytes_stream();
        let stream = stream
            .map_err(move |error| http::broken(&host, &error))
            .boxed();
        Ok(if is_whole {
            skip(stream, self.sent)
        } else {
            stream
        })
    }

    /// What an error of the library means.
    fn refusal(&self, error: OciDistributionError) -> OciError {
        let subject = self.inner.subject(&self.repository);
        let (status, message) = match error {
            OciDistributionError::RequestError(error) => return self.inner.http.broken(&error),
            OciDistributionError::ServerError { code, message, .. } => {
                let status = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
                (status, message)
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                let first = envelope.errors.into_iter().next();
                let status = first
                    .as_ref()
                    .map_or(StatusCode::BAD_REQUEST, |e| status(&e.code));
                (status, first.map(|error| error.message).unwrap_or_default())
            }
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_) => {
                (StatusCode::UNAUTHORIZED, String::new())
            }
            other => (StatusCode::BAD_GATEWAY, other.to_string()),
        };
        let message: String = message
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        subject.refusal(status, &message, None)
    }
}

// === impl Library ===

impl Library {
    async fn client(&self, inner: &Inner, repository: &str) -> Result<Client, OciError> {
        let auth = match inner.auth.current(repository, inner.cx.now()) {
            Authorization::Anonymous => RegistryAuth::Anonymous,
            Authorization::Basic(username, password) => {
                RegistryAuth::Basic(username, password.expose().to_owned())
            }
            Authorization::Bearer(token) => RegistryAuth::Bearer(token.expose().to_owned()),
        };
        let known = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(repository)
            .cloned();
        if let Some((_, client)) = known.filter(|(known, _)| *known == auth) {
            return Ok(client);
        }
        let client = Client::try_from(client_config(inner))
            .map_err(|error| OciError::Internal(format!("setting up TLS: {error}")))?;
        if auth != RegistryAuth::Anonymous {
            // Its own anonymous flow would ask the registry what we know already.
            client.store_auth_if_needed(&inner.api_host, &auth).await;
        }
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(repository.to_owned(), (auth, client.clone()));
        Ok(client)
    }
}

fn client_config(inner: &Inner) -> ClientConfig {
    let limits = &inner.config.limits;
    let certificate = |pem: &Vec<u8>| Certificate {
        encoding: CertificateEncoding::Pem,
        data: pem.clone(),
    };
    let protocol = if inner.config.plain_http {
        ClientProtocol::Http
    } else {
        ClientProtocol::Https
    };
    ClientConfig {
        protocol,
        extra_root_certificates: inner
            .config
            .ca_certificates
            .iter()
            .map(certificate)
            .collect(),
        read_timeout: Some(limits.idle_timeout),
        connect_timeout: Some(limits.connect_timeout),
        user_agent: USER_AGENT,
        ..ClientConfig::default()
    }
}

fn status(code: &OciErrorCode) -> StatusCode {
    match code {
        OciErrorCode::BlobUnknown
        | OciErrorCode::ManifestUnknown
        | OciErrorCode::ManifestBlobUnknown
        | OciErrorCode::NameUnknown
        | OciErrorCode::NotFound => StatusCode::NOT_FOUND,
        OciErrorCode::Unauthorized | OciErrorCode::Denied => StatusCode::UNAUTHORIZED,
        OciErrorCode::Toomanyrequests => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn broken(host: &str, error: &io::Error) -> OciError {
    let detail = match error.get_ref() {
        Some(inner) => http::causes(inner),
        None => error.to_string(),
    };
    let detail = format!("the connection broke: {detail}");
    OciError::Unavailable {
        host: host.to_owned(),
        detail,
        retry_after: None,
    }
}

/// The stream without its first bytes, for servers that ignore a range.
fn skip(stream: BlobStream, count: u64) -> BlobStream {
    let parts = stream::try_unfold((stream, count), |(mut stream, mut left)| async move {
        while let Some(mut part) = stream.try_next().await? {
            let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(part.len());
            left = left.saturating_sub(skipped as u64);
            let rest = part.split_off(skipped);
            if !rest.is_empty() {
                return Ok(Some((rest, (stream, left))));
            }
        }
        Ok(None)
    });
    parts.boxed()
}
