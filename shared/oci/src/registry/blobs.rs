//! Blobs of a registry, fed to a reader; taken up again where they broke, at a mirror or at the
//! registry itself.

use std::sync::Arc;

use model::Hasher;

use super::{
    Inner,
    endpoint::Endpoint,
    retry::Retry,
    stream::{self, BlobStream, Part},
};
use crate::{
    OciError,
    reader::{self, Feed},
    source::{BlobReader, Descriptor},
};

/// A stream that came so far before it broke has all its tries again: a large blob on a bad line
/// arrives, and a server that gives a byte at a time is given up.
const PROGRESS_BYTES: u64 = 4 << 20;

/// A blob on its way from the registry to a reader.
struct Delivery {
    inner: Arc<Inner>,
    repository: String,
    blob: Descriptor,
    /// Bytes to deliver: one more than announced, so that a longer blob shows.
    limit: u64,
    sent: u64,
    /// Which of the endpoints is asked.
    at: usize,
    /// Which mirrors gave bytes.
    mirrors: Vec<usize>,
    /// Hashes what is sent, where mirrors may be asked: a mirror that lies must be known as one.
    hasher: Option<Hasher>,
}

/// How one connection's worth ended that did not break.
enum End {
    /// There is no more.
    Clean,
    /// There is enough, or nobody listens any more.
    Enough,
}

/// Opens a blob; a task feeds the reader until the blob ends or the reader is dropped.
pub(super) async fn open(
    inner: &Arc<Inner>,
    repository: &str,
    blob: &Descriptor,
) -> Result<BlobReader, OciError> {
    let mut delivery = Delivery {
        inner: Arc::clone(inner),
        repository: repository.to_owned(),
        blob: blob.clone(),
        limit: blob.size.saturating_add(1),
        sent: 0,
        at: 0,
        mirrors: Vec::new(),
        hasher: inner.has_mirrors().then(Hasher::default),
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
    /// The blob's beginning, from the first endpoint that has it.
    async fn open(&mut self) -> Result<BlobStream, OciError> {
        let inner = Arc::clone(&self.inner);
        loop {
            self.at = inner.usable(self.at);
            let endpoint = inner.endpoint(self.at);
            let mut retry = endpoint.retry();
            match stream::open(endpoint, &self.part(), &mut retry).await {
                Ok(stream) => return Ok(stream),
                Err(error) if endpoint.is_mirror() => self.give_up(endpoint, &error),
                Err(error) => return Err(error),
            }
        }
    }

    async fn run(mut self, stream: BlobStream, feed: Feed) {
        let end = tokio::select! {
            () = feed.closed() => return,
            end = self.deliver(stream, &feed) => end,
        };
        // The reader may be gone; then nobody wants to know.
        let _gone = feed.send(end.map(|()| None)).await;
    }

    async fn deliver(&mut self, stream: BlobStream, feed: &Feed) -> Result<(), OciError> {
        let inner = Arc::clone(&self.inner);
        let mut retry = Retry::of_streams(&inner.cx, inner.origin.limits());
        let (mut stream, mut resumed) = (stream, false);
        loop {
            let before = self.sent;
            let end = self.pass(stream, feed).await;
            let came = self.sent.saturating_sub(before);
            // What broke after the last byte that was announced does not matter.
            if self.sent >= self.blob.size && (self.sent > 0 || end.is_ok()) {
                break;
            }
            let is_clean = matches!(end, Ok(End::Clean));
            let error = match end {
                Ok(End::Enough) => break,
                // It is shorter than announced, and says so twice.
                Ok(End::Clean) if resumed && came == 0 => break,
                Ok(End::Clean) => self.too_short(&inner),
                Err(error) => error,
            };
            if came >= PROGRESS_BYTES {
                retry.renew();
            }
            stream = match self.resume(&inner, &mut retry, error).await {
                Ok(stream) => stream,
                // Who cannot give a part may well have said the truth about the whole.
                Err(error) if is_clean && !error.is_transient() => break,
                Err(error) => return Err(error),
            };
            resumed = true;
        }
        self.check(&inner)
    }

    /// Passes bytes on until the blob ends, is longer than it may be, or breaks. Then its
    /// connection is free for others.
    async fn pass(&mut self, mut stream: BlobStream, feed: &Feed) -> Result<End, OciError> {
        let inner = Arc::clone(&self.inner);
        let endpoint = inner.endpoint(self.at);
        while let Some(part) = stream.next().await {
            let mut part = part?;
            let left = self.limit.saturating_sub(self.sent);
            part.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            endpoint.pacer.take(part.len()).await;
            self.sent = self.sent.saturating_add(part.len() as u64);
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&part);
            }
            if endpoint.is_mirror() && !self.mirrors.contains(&self.at) {
                self.mirrors.push(self.at);
            }
            if feed.send(Ok(Some(part))).await.is_err() || self.sent >= self.limit {
                return Ok(End::Enough);
            }
        }
        Ok(End::Clean)
    }

    /// The blob from the first byte that was not yet sent; at the next endpoint where this one is a
    /// mirror and has had its tries.
    async fn resume(
        &mut self,
        inner: &Inner,
        retry: &mut Retry<'_>,
        error: OciError,
    ) -> Result<BlobStream, OciError> {
        let mut error = error;
        loop {
            let endpoint = inner.endpoint(self.at);
            tracing::debug!(
                layer.digest = %self.blob.digest,
                offset_bytes = self.sent,
                %error,
                "blob `{}` broke at byte {}, taking it up again", self.blob.digest, self.sent
            );
            match retry.again(error).await {
                Ok(()) => {}
                Err(error) if endpoint.is_mirror() => {
                    self.give_up(endpoint, &error);
                    retry.renew();
                }
                Err(error) => return Err(error),
            }
            self.at = inner.usable(self.at);
            let endpoint = inner.endpoint(self.at);
            let mut once = Retry::none(&inner.cx, endpoint.limits());
            match stream::open(endpoint, &self.part(), &mut once).await {
                Ok(stream) => return Ok(stream),
                Err(next) => error = next,
            }
        }
    }

    fn give_up(&mut self, mirror: &Endpoint, error: &OciError) {
        mirror.demote(error);
        self.at = self.at.saturating_add(1);
    }

    fn part(&self) -> Part<'_> {
        Part {
            repository: &self.repository,
            digest: self.blob.digest,
            size: self.blob.size,
            offset: self.sent,
        }
    }

    fn too_short(&self, inner: &Inner) -> OciError {
        let detail = format!(
            "blob `{}` ended at byte {} of {}",
            self.blob.digest, self.sent, self.blob.size
        );
        OciError::Unavailable {
            host: inner.endpoint(self.at).host().to_owned(),
            detail,
            retry_after: None,
        }
    }

    /// Whether mirrors gave the blob that was asked for. What was delivered cannot be taken back,
    /// so the reader's next try asks others.
    fn check(&mut self, inner: &Inner) -> Result<(), OciError> {
        let Some(hasher) = self.hasher.take() else {
            return Ok(());
        };
        let (expected, actual) = (self.blob.digest, hasher.finish());
        if self.mirrors.is_empty() || actual == expected {
            return Ok(());
        }
        let mut hosts = Vec::new();
        for at in &self.mirrors {
            let mirror = inner.endpoint(*at);
            let what = format!("blob `{expected}` from the mirror `{}`", mirror.host());
            mirror.demote(&OciError::DigestMismatch {
                what,
                expected,
                actual,
            });
            hosts.push(mirror.host());
        }
        Err(OciError::Unavailable {
            host: hosts.join("`, `"),
            detail: format!(
                "it gave bytes with digest `{actual}` for blob `{expected}`; the next try asks others"
            ),
            retry_after: None,
        })
    }
}
