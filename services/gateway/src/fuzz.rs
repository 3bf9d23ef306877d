//! What the fuzz target calls that nobody else can: what senders and clients send.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use model::ImageRef;

use crate::{
    decoders::{DECODERS, HookRequest, Secrets},
    scans::ScanRequest,
};

const EVENTS_MAX: usize = 100;

/// Reads it as a request to each sender's hook, headers and body, and as one to scan an image.
pub fn request(bytes: &[u8]) {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, rest) = bytes.split_at(end.unwrap_or_default());
    let body = rest.strip_prefix(b"\r\n\r\n").unwrap_or(rest);
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n').take(20) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        let name = HeaderName::from_bytes(name).ok();
        if let Some((name, value)) = name.zip(HeaderValue::from_bytes(value).ok()) {
            headers.append(name, value);
        }
    }
    let request = HookRequest {
        headers: &headers,
        body,
        now: Timestamp::UNIX_EPOCH,
        age_max: SignedDuration::from_mins(5),
    };
    let secrets = Secrets {
        plain: vec!["secret".to_owned().into()],
        sha256: None,
    };
    for decoder in DECODERS {
        let _proof = decoder.authenticate(&request, &secrets);
        let Ok(heard) = decoder.decode(&request, EVENTS_MAX) else {
            continue;
        };
        assert!(heard.told.len() + heard.broken.len() <= EVENTS_MAX);
        for told in heard.told {
            let tag = told.tag.as_deref().unwrap_or("latest");
            let name = format!("registry.example/{}:{tag}", told.repository);
            let parsed: Result<ImageRef, _> = name.parse();
            let parsed = parsed.expect("what a decoder tells is the name of an image");
            assert_eq!(parsed.repository, told.repository);
        }
        for broken in heard.broken {
            assert!(broken.to_string().len() < 10_000);
        }
    }
    if let Ok(asked) = serde_json::from_slice::<ScanRequest>(body) {
        let _reference: Result<ImageRef, _> = asked.image.parse();
    }
}
