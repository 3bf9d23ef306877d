//! As much of gRPC as reading an image takes: a request of one message, an answer of messages.
//!
//! An answer's messages come one after the other, each behind five bytes: whether it is compressed,
//! and its length (grpc.io, "gRPC over HTTP2"). What stands in the trailers is not seen: an error
//! without any message comes as headers, and an answer that breaks off fails the check of its digest.

use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message;
use reqwest::{Client, Response};

use super::Asked;
use crate::OciError;

/// Bytes of one message of an answer; containerd sends content in pieces of 1 MiB.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

const PREFIX_BYTES: usize = 5;
/// The status of what does not exist.
const NOT_FOUND: &str = "5";

/// A message without anything in it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Empty {}

/// The messages of an answer.
#[derive(Debug)]
pub(super) struct Messages {
    response: Response,
    bytes: BytesMut,
}

/// Sends a request; `None` where the server says that there is no such thing.
pub(super) async fn call(
    asked: &Asked<'_>,
    client: &Client,
    namespace: &str,
    method: &str,
    request: &impl Message,
) -> Result<Option<Messages>, OciError> {
    let mut body = vec![0; PREFIX_BYTES];
    let bytes = request.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    let (_, field) = body.split_at_mut(1);
    field.copy_from_slice(&length);
    body.extend(bytes);
    let sent = client
        .post(format!("http://localhost/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("containerd-namespace", namespace)
        .body(body)
        .send()
        .await;
    let response = sent.map_err(|error| asked.unreachable(&error))?;
    let text = |name: &str| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(value.chars().take(300).collect::<String>())
    };
    match (response.status().is_success(), text("grpc-status")) {
        (true, None) => Ok(Some(Messages {
            response,
            bytes: BytesMut::new(),
        })),
        (true, Some(status)) if status == "0" => Ok(Some(Messages {
            response,
            bytes: BytesMut::new(),
        })),
        (true, Some(status)) if status == NOT_FOUND => Ok(None),
        (_, status) => {
            let status = status.unwrap_or_else(|| response.status().to_string());
            let why = text("grpc-message").unwrap_or_else(|| "no reason given".to_owned());
            Err(asked.away(format!("it answers {status} to `{method}`: {why}")))
        }
    }
}

/// The one message of an answer; `None` where the server says that there is no such thing.
pub(super) async fn one<T: Message + Default>(
    asked: &Asked<'_>,
    client: &Client,
    namespace: &str,
    method: &str,
    request: &impl Message,
) -> Result<Option<T>, OciError> {
    let Some(mut messages) = call(asked, client, namespace, method, request).await? else {
        return Ok(None);
    };
    let message = messages.next().await?;
    // Why there is none stands in the trailers.
    message
        .map(Some)
        .ok_or_else(|| asked.away(format!("it answers nothing to `{method}`")))
}

/// The one message of an answer; an empty one for what is gone by now.
pub(super) async fn one_or_empty<T: Message + Default>(
    asked: &Asked<'_>,
    client: &Client,
    namespace: &str,
    method: &str,
    request: &impl Message,
) -> Result<T, OciError> {
    let answer = one(asked, client, namespace, method, request).await?;
    Ok(answer.unwrap_or_default())
}

// === impl Messages ===

impl Messages {
    /// The next message; `None` at the end.
    pub(super) async fn next<T: Message + Default>(&mut self) -> Result<Option<T>, OciError> {
        loop {
            if let Some(message) = self.take()? {
                let decoded = T::decode(message);
                return decoded
                    .map(Some)
                    .map_err(|error| broken(&error.to_string()));
            }
            match self.response.chunk().await {
                Ok(Some(part)) => self.bytes.extend_from_slice(&part),
                Ok(None) if self.bytes.is_empty() => return Ok(None),
                Ok(None) => return Err(broken("it ends within a message")),
                Err(error) => return Err(broken(&error.to_string())),
            }
        }
    }

    /// A message that is there whole.
    fn take(&mut self) -> Result<Option<Bytes>, OciError> {
        let Some((prefix, rest)) = self.bytes.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let [compressed, length @ ..] = *prefix;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if compressed != 0 {
            return Err(broken("a message is compressed, which was not asked for"));
        }
        if length > MESSAGE_BYTES_MAX {
            let limit = MESSAGE_BYTES_MAX as u64;
            return Err(OciError::too_large("a message of containerd", limit));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.bytes.advance(PREFIX_BYTES);
        Ok(Some(self.bytes.split_to(length).freeze()))
    }
}

fn broken(detail: &str) -> OciError {
    OciError::malformed("an answer of containerd", detail)
}
