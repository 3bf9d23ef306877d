//! How a value travels: CloudEvents attributes in headers (binary mode), the value as MessagePack
//! with named fields, W3C trace context beside them.

use std::fmt::Write as _;

use bytes::Bytes;
use jiff::Timestamp;
use model::Slug;
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{DecodeError, EncodeError};

/// Nesting beyond this is an attack or a mistake.
const DEPTH_MAX: usize = 64;

pub(crate) const CE_ID: &str = "ce-id";
pub(crate) const CE_TYPE: &str = "ce-type";
pub(crate) const CE_TENANT: &str = "ce-tenant";
/// The message id that JetStream's window of duplicates looks at.
pub(crate) const MESSAGE_ID: &str = "Nats-Msg-Id";
/// Names the object that holds a record's body: `<bucket>/<hex>`.
pub(crate) const BODY_OBJECT: &str = "tw-object";

const CONTENT_TYPE: &str = "application/msgpack";

/// Headers of a message. Names are compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

/// The attributes of a message of ours.
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    pub(crate) id: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) source: &'a str,
    pub(crate) tenant: Option<&'a Slug>,
    pub(crate) time: Timestamp,
}

/// MessagePack with named fields: readers ignore fields they do not know.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, EncodeError> {
    rmp_serde::to_vec_named(value)
        .map(Bytes::from)
        .map_err(|error| EncodeError(error.to_string()))
}

/// Reads what [`encode`] wrote; nesting is bounded.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut deserializer).map_err(|error| DecodeError(error.to_string()))
}

// === impl Headers ===

impl Headers {
    /// The first value of a header, as it is on the wire.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self
            .0
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// A CloudEvents attribute, decoded. `None` also where the encoding is broken.
    pub fn attribute(&self, name: &str) -> Option<String> {
        self.get(name).and_then(percent_decode)
    }

    /// Every header.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.push(name, value);
        self
    }

    /// Sets the CloudEvents attributes and the trace context of the current span.
    pub(crate) fn describe(&mut self, attributes: &Attributes<'_>) {
        self.push("ce-specversion", "1.0");
        self.push(CE_ID, percent_encode(attributes.id));
        self.push("ce-source", percent_encode(attributes.source));
        self.push(CE_TYPE, percent_encode(attributes.kind));
        self.push("ce-time", attributes.time.to_string());
        self.push("ce-datacontenttype", CONTENT_TYPE);
        if let Some(tenant) = attributes.tenant {
            self.push(CE_TENANT, tenant.as_str());
        }
        self.trace();
    }

    /// Sets the trace context of the current span.
    pub(crate) fn trace(&mut self) {
        chassis::telemetry::inject(&mut |name, value| self.push(name, value));
    }
}

impl FromIterator<(String, String)> for Headers {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// CloudEvents: space, quote, percent and all that is not printable ASCII become `%XX`.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, 0x21..=0x7e) && byte != b'"' && byte != b'%' {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    out
}

/// One round of decoding; a value in quotes is accepted as the binding asks. `None` for broken
/// escapes and for bytes that are not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let text = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(text);
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (high, low) = (hex_digit(bytes.next()?)?, hex_digit(bytes.next()?)?);
            out.push(high << 4 | low);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn header_values_are_encoded_as_the_binding_asks() {
        insta::assert_snapshot!(percent_encode("a b\"%ü"), @"a%20b%22%25%C3%BC");
        assert_eq!(percent_decode("\"a%20b\"").as_deref(), Some("a b"));
        for broken in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(percent_decode(broken), None, "{broken}");
        }
    }

    #[test]
    fn names_are_found_in_any_case() {
        let headers = Headers::default().with("Ce-Type", "a%20b");
        assert_eq!(headers.get("ce-type"), Some("a%20b"));
        assert_eq!(headers.attribute("CE-TYPE").as_deref(), Some("a b"));
        assert_eq!(headers.get("ce-id"), None);
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let deep: Vec<u8> = std::iter::repeat_n(0x91, 10_000).chain([0xc0]).collect();
        assert!(decode::<serde_json::Value>(&deep).is_err());
    }

    proptest! {
        #[test]
        fn any_text_survives_a_header(text in any::<String>()) {
            let encoded = percent_encode(&text);
            prop_assert!(encoded.bytes().all(|b| (0x21..=0x7e).contains(&b)));
            if !text.is_empty() {
                prop_assert_eq!(percent_decode(&encoded), Some(text));
            }
        }
    }
}
