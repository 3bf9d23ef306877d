//! The claim check: a body that is too large for its message is stored as an object under its
//! sha256, and the message's header says so. Everybody who reads messages gets the body back here.
//!
//! Claims expire: they live a day longer than any message that can name them, and storing one
//! again begins its life anew.

use bytes::Bytes;
use model::{Digest, event::CLAIM_OBJECTS};

use super::Store;
use crate::{envelope::Headers, error::StoreError};

/// Names the object that holds a message's body: the hex digits of its sha256.
pub(crate) const CLAIM: &str = "tw-claim";
/// Bodies up to this size stay in their message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// The largest body.
const CLAIM_BYTES_MAX: u64 = 64 * 1024 * 1024;

impl Store {
    /// What of a body goes into its message: all of it, or nothing and a header instead.
    pub(crate) async fn check_in(
        &self,
        headers: &mut Headers,
        body: Bytes,
    ) -> Result<Bytes, StoreError> {
        if body.len() <= MESSAGE_BYTES_MAX {
            return Ok(body);
        }
        let digest = self.put_claim(body).await?;
        headers.push(CLAIM, digest.hex());
        Ok(Bytes::new())
    }

    /// The body of a message, its own or the one that it claims.
    pub(crate) async fn claimed(
        &self,
        subject: &str,
        headers: &Headers,
        inline: Bytes,
    ) -> Result<Bytes, StoreError> {
        let Some(digest) = claim(subject, headers)? else {
            return Ok(inline);
        };
        let found = self
            .object_bytes(CLAIM_OBJECTS, &digest, CLAIM_BYTES_MAX)
            .await?;
        found.ok_or_else(|| StoreError::Dangling {
            what: subject.to_owned(),
            digest,
        })
    }

    /// Begins the life of a message's claim anew, for a message that will live on.
    pub(crate) async fn renew_claim(
        &self,
        subject: &str,
        headers: &Headers,
    ) -> Result<(), StoreError> {
        if claim(subject, headers)?.is_some() {
            let body = self.claimed(subject, headers, Bytes::new()).await?;
            self.put_claim(body).await?;
        }
        Ok(())
    }

    async fn put_claim(&self, body: Bytes) -> Result<Digest, StoreError> {
        let (digest, size) = (Digest::of(&body), body.len() as u64);
        if size > CLAIM_BYTES_MAX {
            return Err(StoreError::TooLarge {
                what: format!("{CLAIM_OBJECTS}/{digest}"),
                size,
                max: CLAIM_BYTES_MAX,
            });
        }
        self.backend
            .put_object(CLAIM_OBJECTS, &digest, body, None)
            .await?;
        Ok(digest)
    }
}

fn claim(subject: &str, headers: &Headers) -> Result<Option<Digest>, StoreError> {
    let Some(hex) = headers.get(CLAIM) else {
        return Ok(None);
    };
    let digest = Digest::from_hex(hex).ok_or_else(|| StoreError::Malformed {
        what: subject.to_owned(),
        cause: format!("header `{CLAIM}` is not a sha256"),
    })?;
    Ok(Some(digest))
}
