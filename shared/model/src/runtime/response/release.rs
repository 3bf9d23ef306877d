//! The way out when the fabric is away: a signed text that lifts what a node enforces.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Signature, SignatureError, SigningKey, Slug, VerifyingKey, hex};

/// What a signature of a token is about.
const CONTEXT: &[u8] = b"tidewaiter emergency release/1\n";
/// What every token begins with.
const PREFIX: &str = "twr1.";
/// The longest token that is read.
const TEXT_BYTES_MAX: usize = 4_096;

/// Lifts every response that a node holds, without NATS: what
/// `tidewaiter response release-token` signs and `tidewaiter-agent release` takes. It lifts what was
/// decided before it was signed and nothing later, so who finds an old one cannot disarm a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseToken {
    /// Whose nodes.
    pub tenant: Slug,
    /// The node; `None`: every one.
    #[serde(default)]
    pub node: Option<Slug>,
    /// When it was signed: responses issued later stay.
    pub issued_at: Timestamp,
    /// Until when it is taken.
    pub expires_at: Timestamp,
    /// Who signed it, for the record.
    #[serde(default)]
    pub by: String,
}

/// Why a token is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// The text is no token.
    #[error("it is no release token: one begins with `{PREFIX}`")]
    Form,
    /// The signature is wrong or nobody's here.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It is for another node.
    #[error("the token is for node `{node}` of `{tenant}`")]
    OtherNode {
        /// Whose.
        tenant: Slug,
        /// Which; `*` for every one.
        node: String,
    },
    /// It is over, or not valid yet by this clock.
    #[error("the token is valid from {from} until {until}")]
    Expired {
        /// From when.
        from: Timestamp,
        /// Until when.
        until: Timestamp,
    },
}

#[derive(Serialize, Deserialize)]
struct Signed {
    document: String,
    signature: Signature,
}

// === impl ReleaseToken ===

impl ReleaseToken {
    /// How far the clocks of who signs and of a node may be apart, seconds.
    pub const SKEW_S: i64 = 300;

    /// Signs it: one word of printable characters.
    pub fn sign(&self, key: &SigningKey) -> Result<String, serde_json::Error> {
        let document = serde_json::to_string(self)?;
        let signature = key.sign(CONTEXT, document.as_bytes());
        let signed = serde_json::to_vec(&Signed {
            document,
            signature,
        })?;
        Ok(format!("{PREFIX}{}", hex(&signed)))
    }

    /// Reads it as the agent of a node does.
    pub fn open(
        text: &str,
        (tenant, node): (&Slug, &Slug),
        keys: &[VerifyingKey],
        now: Timestamp,
    ) -> Result<Self, TokenRefused> {
        let text = text.trim();
        let digits = text.strip_prefix(PREFIX).ok_or(TokenRefused::Form)?;
        let bytes = unhex(digits).ok_or(TokenRefused::Form)?;
        let signed: Signed = serde_json::from_slice(&bytes).map_err(|_| TokenRefused::Form)?;
        let document = signed.document.as_bytes();
        signed.signature.check(CONTEXT, document, (keys, false))?;
        let token: Self = serde_json::from_slice(document).map_err(|_| TokenRefused::Form)?;
        let fits = token.node.as_ref().is_none_or(|wanted| wanted == node);
        if token.tenant != *tenant || !fits {
            return Err(TokenRefused::OtherNode {
                node: token.node.map_or("*".to_owned(), String::from),
                tenant: token.tenant,
            });
        }
        let early = token.issued_at.as_second() > now.as_second() + Self::SKEW_S;
        if early || now >= token.expires_at {
            return Err(TokenRefused::Expired {
                from: token.issued_at,
                until: token.expires_at,
            });
        }
        Ok(token)
    }

    /// Whether it lifts a response that was decided then.
    pub fn lifts(&self, issued_at: Timestamp) -> bool {
        issued_at <= self.issued_at
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() > TEXT_BYTES_MAX || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks_exact(2);
    pairs
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn slug(name: &str) -> Slug {
        name.parse().unwrap()
    }

    fn token(node: Option<&str>) -> ReleaseToken {
        ReleaseToken {
            tenant: slug("default"),
            node: node.map(slug),
            issued_at: at(1_000),
            expires_at: at(4_600),
            by: "alice".to_owned(),
        }
    }

    #[test]
    fn a_token_is_taken_by_its_node_in_its_time_and_lifts_what_was_before_it() {
        let key = SigningKey::generate().unwrap();
        let keys = [key.verifying()];
        let open = |text: &str, tenant: &str, node: &str, now| {
            ReleaseToken::open(text, (&slug(tenant), &slug(node)), &keys, at(now))
        };
        let one = token(Some("node-1")).sign(&key).unwrap();
        assert!(one.len() < TEXT_BYTES_MAX, "{}", one.len());
        let opened = open(&format!("{one}\n"), "default", "node-1", 2_000).unwrap();
        assert_eq!(opened, token(Some("node-1")));
        assert!(opened.lifts(at(1_000)) && !opened.lifts(at(1_001)));

        let other = open(&one, "default", "node-2", 2_000).unwrap_err();
        assert!(matches!(other, TokenRefused::OtherNode { .. }), "{other}");
        let all = token(None).sign(&key).unwrap();
        assert!(open(&all, "default", "node-2", 2_000).is_ok());
        assert!(open(&all, "acme", "node-2", 2_000).is_err());

        // The clock of the node may be behind by a little.
        assert!(open(&one, "default", "node-1", 700).is_ok());
        for now in [699, 4_600] {
            let late = open(&one, "default", "node-1", now).unwrap_err();
            assert!(matches!(late, TokenRefused::Expired { .. }), "{late}");
        }
    }

    #[test]
    fn a_token_that_was_changed_or_signed_by_others_is_refused() {
        let key = SigningKey::generate().unwrap();
        let (tenant, node) = (slug("default"), slug("node-1"));
        let open = |text: &str, key: &SigningKey| {
            ReleaseToken::open(text, (&tenant, &node), &[key.verifying()], at(2_000))
        };
        let text = token(None).sign(&key).unwrap();
        let other = SigningKey::generate().unwrap();
        let refused = open(&text, &other).unwrap_err();
        assert!(matches!(
            refused,
            TokenRefused::Signature(SignatureError::Untrusted(_))
        ));
        let forged = text.replace(&hex(b"node\\\":null"), &hex(b"node\\\":1234"));
        assert_ne!(forged, text);
        let refused = open(&forged, &key).unwrap_err();
        assert!(matches!(
            refused,
            TokenRefused::Signature(SignatureError::Wrong(_))
        ));
        let long = format!("{PREFIX}{}", "00".repeat(TEXT_BYTES_MAX));
        for text in ["", "twr1.", "twr1.0", "twr1.zz", "twr2.00", &long] {
            assert_eq!(open(text, &key).unwrap_err(), TokenRefused::Form, "{text}");
        }
    }
}
