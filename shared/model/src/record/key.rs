//! The key of an image's record: `<tenant>.<digest>.<what>`.

use std::{fmt, str::FromStr};

use crate::{Digest, Slug};

/// A record's key: `<tenant>.<image digest in hex>.<what>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey {
    /// Whose image.
    pub tenant: Slug,
    /// The image: its manifest's digest.
    pub image: Digest,
    /// Which record of it.
    pub what: What,
}

/// Which record of an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// [`super::Known`].
    Known,
    /// [`super::Scanned`].
    Scanned,
    /// [`super::Assessed`].
    Assessed,
    /// [`super::Judged`], one per policy.
    Judged(Slug),
}

/// The text is not a record key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a record key")]
pub struct RecordKeyError(String);

// === impl RecordKey ===

impl RecordKey {
    /// The key of an image's record.
    pub fn new(tenant: &Slug, image: Digest, what: What) -> Self {
        Self {
            tenant: tenant.clone(),
            image,
            what,
        }
    }

    /// The same image's other record.
    #[must_use]
    pub fn sibling(&self, what: What) -> Self {
        Self {
            what,
            ..self.clone()
        }
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.", self.tenant, self.image.hex())?;
        match &self.what {
            What::Known => f.write_str("known"),
            What::Scanned => f.write_str("scanned"),
            What::Assessed => f.write_str("assessed"),
            What::Judged(policy) => write!(f, "judged.{policy}"),
        }
    }
}

impl FromStr for RecordKey {
    type Err = RecordKeyError;

    fn from_str(text: &str) -> Result<Self, RecordKeyError> {
        let fail = || RecordKeyError(text.chars().take(200).collect());
        let parts: Vec<&str> = text.split('.').collect();
        let (tenant, image, what) = match parts.as_slice() {
            [tenant, image, "known"] => (tenant, image, What::Known),
            [tenant, image, "scanned"] => (tenant, image, What::Scanned),
            [tenant, image, "assessed"] => (tenant, image, What::Assessed),
            [tenant, image, "judged", policy] => (
                tenant,
                image,
                What::Judged(policy.parse().map_err(|_| fail())?),
            ),
            _ => return Err(fail()),
        };
        let tenant = tenant.parse().map_err(|_| fail())?;
        Ok(Self {
            tenant,
            image: Digest::from_hex(image).ok_or_else(fail)?,
            what,
        })
    }
}
