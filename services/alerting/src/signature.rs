//! Signatures on what we send, by which a receiver knows that it comes from us and is new.
//!
//! `X-Tidewaiter-Signature: t=<unix seconds>,v1=<hex>`: the hex digits are HMAC-SHA256 with the
//! shared secret over `<t>.<body>`, the body as it is on the wire. It is what the gateway asks of
//! its own senders. While one secret is exchanged for another there is a `v1` for each. A receiver
//! refuses a `t` that is more than five minutes away from its own clock, and drops ids that it has
//! had. In Python:
//!
//! ```python
//! import hashlib, hmac, time
//!
//! def is_ours(header, body, secret):                  # `body` is bytes, as received
//!     parts = [part.split("=", 1) for part in header.split(",")]
//!     t = next(value for name, value in parts if name == "t")
//!     if abs(time.time() - int(t)) > 300:
//!         return False
//!     right = hmac.new(secret.encode(), t.encode() + b"." + body, hashlib.sha256).hexdigest()
//!     return any(name == "v1" and hmac.compare_digest(value, right) for name, value in parts)
//! ```

use aws_lc_rs::hmac;
use chassis::Secret;
use jiff::Timestamp;

pub(crate) const HEADER: &str = "x-tidewaiter-signature";

/// The header's value; `None` without a secret.
pub(crate) fn sign(secrets: &[Secret], now: Timestamp, body: &[u8]) -> Option<String> {
    if secrets.is_empty() {
        return None;
    }
    let time = now.as_second().to_string();
    let mut value = format!("t={time}");
    for secret in secrets {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(time.as_bytes());
        context.update(b".");
        context.update(body);
        value.push_str(",v1=");
        value.push_str(&model::hex(context.sign().as_ref()));
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_what_an_independent_computation_gives() {
        let secrets = ["one".to_owned(), "two".to_owned()].map(Secret::from);
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let sign = |count: usize| sign(&secrets[..count], now, br#"{"a": 1}"#);
        assert_eq!(sign(0), None);
        // printf '%s' '1700000000.{"a": 1}' | openssl dgst -sha256 -hmac one
        insta::assert_snapshot!(sign(1).unwrap(), @"t=1700000000,v1=640fd79586db452f3ab5756da56baf06780bfa0d5de1405e7a95135a47de7dbd");
        insta::assert_snapshot!(sign(2).unwrap(), @"t=1700000000,v1=640fd79586db452f3ab5756da56baf06780bfa0d5de1405e7a95135a47de7dbd,v1=1fff667848d97236ffc25e5dc27fbe6750f37f7b82926cea4ca1b65dcf359323");
    }
}
