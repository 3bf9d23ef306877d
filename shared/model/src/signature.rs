//! Signatures (Ed25519) over documents that are handed on by whom nobody needs to trust: advisories,
//! rules for malware, what nodes shall do.
//!
//! What is signed begins with a text that says what it is, so that a signature of one kind of document
//! means nothing for another.

use std::{fmt, str::FromStr};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::{Digest, hex};

const SIGNATURE_BYTES: usize = 64;

/// A key that signs: 32 bytes, in hex.
pub struct SigningKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

/// A key whose signature is believed: 32 bytes, in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VerifyingKey(Digest);

/// Who signed a document, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Signature {
    /// The key to verify it with.
    pub key: VerifyingKey,
    signature: String,
}

/// The text is no key, or there are no random numbers for a new one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A secret key has another form.
    #[error("a key is 64 hex digits")]
    Secret,
    /// A public key has another form.
    #[error("`{0}` is not a key of 64 hex digits")]
    Public(String),
    /// The key cannot be used.
    #[error("the key cannot be used: {0}")]
    Unusable(String),
    /// The system gives no random numbers.
    #[error("there are no random numbers")]
    Random,
}

/// Why a signature is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It has another form.
    #[error("its signature is not hex")]
    Form,
    /// It is of other bytes.
    #[error("its signature by `{0}` is wrong: it was changed after it was signed")]
    Wrong(VerifyingKey),
    /// It is right, and nobody here knows whose it is.
    #[error("it is signed by `{0}`, which is not trusted here")]
    Untrusted(VerifyingKey),
}

// === impl SigningKey ===

impl SigningKey {
    /// A new key.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| KeyError::Random)?;
        Self::of(seed)
    }

    fn of(seed: [u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
        let pair = pair.map_err(|error| KeyError::Unusable(error.to_string()))?;
        Ok(Self { seed, pair })
    }

    /// The secret, to be kept in a file.
    pub fn secret(&self) -> String {
        hex(&self.seed)
    }

    /// Its public half.
    pub fn verifying(&self) -> VerifyingKey {
        let public = hex(self.pair.public_key().as_ref());
        VerifyingKey(Digest::from_hex(&public).unwrap_or_else(|| Digest::of(b"")))
    }

    /// Signs a document of the kind that `context` names.
    pub fn sign(&self, context: &[u8], document: &[u8]) -> Signature {
        let signature = self.pair.sign(&[context, document].concat());
        Signature {
            key: self.verifying(),
            signature: hex(signature.as_ref()),
        }
    }
}

impl FromStr for SigningKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let seed = Digest::from_hex(text.trim()).ok_or(KeyError::Secret)?;
        Self::of(*seed.as_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verifying())
    }
}

// === impl VerifyingKey ===

impl FromStr for VerifyingKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let key = Digest::from_hex(text.trim());
        key.map(Self)
            .ok_or_else(|| KeyError::Public(text.escape_debug().to_string()))
    }
}

impl TryFrom<String> for VerifyingKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<VerifyingKey> for String {
    fn from(key: VerifyingKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.hex())
    }
}

// === impl Signature ===

impl Signature {
    /// Whether it is one of `keys` over this document, or with `unsigned` anybody's.
    pub fn check(
        &self,
        context: &[u8],
        document: &[u8],
        (keys, unsigned): (&[VerifyingKey], bool),
    ) -> Result<(), SignatureError> {
        let bytes = bytes_of(&self.signature).ok_or(SignatureError::Form)?;
        let message = [context, document].concat();
        let public = UnparsedPublicKey::new(&ED25519, self.key.0.as_bytes());
        if public.verify(&message, &bytes).is_err() {
            return Err(SignatureError::Wrong(self.key));
        }
        if unsigned || keys.contains(&self.key) {
            Ok(())
        } else {
            Err(SignatureError::Untrusted(self.key))
        }
    }
}

fn bytes_of(text: &str) -> Option<Vec<u8>> {
    if text.len() != SIGNATURE_BYTES * 2 || !text.is_ascii() {
        return None;
    }
    let (front, back) = text.split_at(SIGNATURE_BYTES);
    let halves = [Digest::from_hex(front)?, Digest::from_hex(back)?];
    Some(halves.iter().flat_map(|half| *half.as_bytes()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_one_key_one_kind_of_document_and_its_bytes() {
        let (key, other) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let signature = key.sign(b"rules\n", b"text");
        let (mine, nobody) = ([key.verifying()], [other.verifying()]);
        let check = |context: &[u8], document: &[u8], keys: &[VerifyingKey], unsigned| {
            signature.check(context, document, (keys, unsigned))
        };
        assert_eq!(check(b"rules\n", b"text", &mine, false), Ok(()));
        assert_eq!(check(b"rules\n", b"text", &nobody, true), Ok(()));
        let wrong = Err(SignatureError::Wrong(key.verifying()));
        assert_eq!(check(b"rules\n", b"Text", &mine, true), wrong);
        assert_eq!(check(b"other\n", b"text", &mine, true), wrong);
        let untrusted = Err(SignatureError::Untrusted(key.verifying()));
        assert_eq!(check(b"rules\n", b"text", &nobody, false), untrusted);
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let key = SigningKey::generate().unwrap();
        let read: SigningKey = format!("{}\n", key.secret()).parse().unwrap();
        assert_eq!(read.verifying(), key.verifying());
        assert_eq!(key.verifying().to_string().parse(), Ok(key.verifying()));
        assert_eq!("x".parse::<SigningKey>().unwrap_err(), KeyError::Secret);
        assert!("x".parse::<VerifyingKey>().is_err());
        assert!(!format!("{key:?}").contains(&key.secret()));
    }
}
