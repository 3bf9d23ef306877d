//! One connection's worth of a blob: from where it is wanted to where it breaks or ends.

use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use model::Digest;
use reqwest::{
    Method, StatusCode,
    header::{self, HeaderMap, HeaderValue},
};

use super::{
    auth::Authorization,
    endpoint::{Endpoint, Sent},
    http::{self, Ask},
    library,
    pace::Admission,
    retry::Retry,
};
use crate::OciError;

type Bytestream = BoxStream<'static, Result<Bytes, OciError>>;

/// What is wanted of a blob.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) repository: &'a str,
    pub(super) digest: Digest,
    /// The size that the manifest announces.
    pub(super) size: u64,
    /// The first byte wanted.
    pub(super) offset: u64,
}

/// The bytes of a blob as they come, and the connection that they come by.
pub(super) struct BlobStream {
    parts: Bytestream,
    _admission: Admission,
}

/// The header `Content-Range: bytes FIRST-LAST/TOTAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u64,
    total: Option<u64>,
}

/// Opens a part of a blob, with as many tries as there are: the first by way of the library where
/// that can be, all others by our own client, which sees what the registry says in its headers.
pub(super) async fn open(
    endpoint: &Endpoint,
    part: &Part<'_>,
    retry: &mut Retry<'_>,
) -> Result<BlobStream, OciError> {
    // The same check of names for both ways.
    let repository = endpoint.repository(part.repository);
    endpoint.url(&repository, "blobs", &part.digest.to_string())?;
    if library::fits(endpoint, part) {
        match library::open(endpoint, part, retry).await {
            Ok(stream) => return Ok(stream),
            // A token may have been withdrawn before its end, or this repository wants more than
            // the registry's root: our own client answers the challenge.
            Err((OciError::Unauthorized { .. }, used)) => forget(endpoint, &repository, &used),
            Err((error, _)) => retry.again(error).await?,
        }
    }
    loop {
        match open_once(endpoint, part, &repository, retry).await {
            Ok(stream) => return Ok(stream),
            Err(error) => retry.again(error).await?,
        }
    }
}

fn forget(endpoint: &Endpoint, repository: &str, used: &Authorization) {
    endpoint.auth.forget(repository, used, endpoint.cx().now());
}

async fn open_once(
    endpoint: &Endpoint,
    part: &Part<'_>,
    repository: &str,
    retry: &Retry<'_>,
) -> Result<BlobStream, OciError> {
    let url = endpoint.url(repository, "blobs", &part.digest.to_string())?;
    let ask = Ask {
        is_stream: true,
        ..Ask::new(Method::GET, url)
    };
    if part.offset > 0 {
        let ask = Ask {
            headers: range_from(part.offset)?,
            ..ask.clone()
        };
        let sent = endpoint
            .authorized(&ask, repository, retry.patience())
            .await?;
        let range = range(sent.response.headers());
        match sent.response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(BlobStream::nothing(sent.admission)),
            StatusCode::PARTIAL_CONTENT if range.is_some_and(|r| r.first == part.offset) => {
                return streaming(endpoint, part, sent, 0);
            }
            StatusCode::PARTIAL_CONTENT => {
                drop(sent);
                tracing::debug!(
                    registry = endpoint.host(),
                    layer.digest = %part.digest,
                    "`{}` gives another range than was asked for, reading from the start",
                    endpoint.host()
                );
            }
            _ => {
                let sent = endpoint.accepted(sent, repository).await?;
                return streaming(endpoint, part, sent, part.offset);
            }
        }
    }
    let sent = endpoint
        .authorized(&ask, repository, retry.patience())
        .await?;
    let sent = endpoint.accepted(sent, repository).await?;
    if sent.response.status() == StatusCode::PARTIAL_CONTENT {
        let what = format!("the answer of `{}`", endpoint.host());
        let detail = "it is a part of a blob, and the whole was asked for";
        return Err(OciError::malformed(what, detail));
    }
    streaming(endpoint, part, sent, part.offset)
}

/// The answer as a stream, without its first bytes where it begins too early.
fn streaming(
    endpoint: &Endpoint,
    part: &Part<'_>,
    sent: Sent,
    skipped: u64,
) -> Result<BlobStream, OciError> {
    let Sent {
        response,
        admission,
    } = sent;
    let total = match range(response.headers()) {
        Some(range) => range.total,
        None => response.content_length(),
    };
    let host = endpoint.host().to_owned();
    let parts = response.bytes_stream();
    let parts = parts
        .map_err(move |error| http::broken(&host, &error))
        .boxed();
    BlobStream::new(endpoint, part, skip(parts, skipped), total, admission)
}

fn range_from(offset: u64) -> Result<HeaderMap, OciError> {
    let value = HeaderValue::from_str(&format!("bytes={offset}-"))
        .map_err(|error| OciError::Internal(format!("asking for a range: {error}")))?;
    Ok(HeaderMap::from_iter([(header::RANGE, value)]))
}

fn range(headers: &HeaderMap) -> Option<Range> {
    let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    (first <= last).then_some(Range { first, total })
}

/// The stream without its first bytes.
fn skip(parts: Bytestream, count: u64) -> Bytestream {
    if count == 0 {
        return parts;
    }
    let parts = stream::try_unfold((parts, count), |(mut parts, mut left)| async move {
        while let Some(mut part) = parts.try_next().await? {
            let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(part.len());
            left = left.saturating_sub(skipped as u64);
            let rest = part.split_off(skipped);
            if !rest.is_empty() {
                return Ok(Some((rest, (parts, left))));
            }
        }
        Ok(None)
    });
    parts.boxed()
}

// === impl BlobStream ===

impl BlobStream {
    /// `total` is the size of the whole blob, as far as the answer tells. A mirror that has another
    /// size than the manifest announces is not read: somebody else may have the blob itself.
    pub(super) fn new(
        endpoint: &Endpoint,
        part: &Part<'_>,
        parts: Bytestream,
        total: Option<u64>,
        admission: Admission,
    ) -> Result<Self, OciError> {
        let differs = total.filter(|total| *total != part.size && endpoint.is_mirror());
        if let Some(total) = differs {
            let what = format!("blob `{}` at the mirror `{}`", part.digest, endpoint.host());
            let detail = format!("it has {total} bytes where {} are announced", part.size);
            return Err(OciError::malformed(what, detail));
        }
        Ok(Self {
            parts,
            _admission: admission,
        })
    }

    fn nothing(admission: Admission) -> Self {
        Self {
            parts: stream::empty().boxed(),
            _admission: admission,
        }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Bytes, OciError>> {
        self.parts.next().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_registries_write_them() {
        let check = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            range(&HeaderMap::from_iter([(header::CONTENT_RANGE, value)]))
        };
        let known = |first, total| Some(Range { first, total });
        for (value, expected) in [
            ("bytes 5-9/10", known(5, Some(10))),
            ("bytes 5-9/*", known(5, None)),
            ("bytes 0-0/1", known(0, Some(1))),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("items 5-9/10", None),
            ("bytes 5-9", None),
            ("bytes x-9/10", None),
            ("", None),
        ] {
            assert_eq!(check(value), expected, "{value}");
        }
    }

    #[tokio::test]
    async fn what_comes_twice_is_skipped_across_parts() {
        for count in 0..12_usize {
            let parts =
                ["ab", "", "cdef", "g", "hij"].map(|part| Ok(Bytes::from_static(part.as_bytes())));
            let rest = skip(stream::iter(parts).boxed(), count as u64);
            let rest: Vec<Bytes> = rest.try_collect().await.unwrap();
            let expected = "abcdefghij".get(count..).unwrap_or_default();
            assert_eq!(rest.concat(), expected.as_bytes());
        }
    }
}
