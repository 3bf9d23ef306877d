//! Conformance: every sender accepts its own recorded requests, refuses those of others, and keeps
//! quiet about what does not concern images.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use axum::http::{HeaderName, HeaderValue};

use super::*;

/// The secret that the recorded senders were given.
const TOKEN: &str = "demo-hook-token";

/// When the recorded signatures were made.
const SIGNED_AT: &str = "2026-01-02T03:04:05Z";

/// A request as it was on the wire.
struct Recorded {
    name: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

fn recorded(kind: &str) -> Vec<Recorded> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(kind);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "http")
    });
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> Recorded {
    let mut text = Vec::new();
    File::open(file)
        .unwrap()
        .take(1 << 20)
        .read_to_end(&mut text)
        .unwrap();
    let end = text
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .expect("headers end");
    let head = std::str::from_utf8(&text[..end]).unwrap();
    let headers = head.lines().skip(1).map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (
            name.parse::<HeaderName>().unwrap(),
            value.parse::<HeaderValue>().unwrap(),
        )
    });
    Recorded {
        name: file.file_stem().unwrap().to_string_lossy().into_owned(),
        headers: headers.collect(),
        body: text[end + 4..].to_vec(),
    }
}

fn of_case<'a>(requests: &'a [Recorded], case: &str) -> Vec<&'a Recorded> {
    let found: Vec<_> = requests
        .iter()
        .filter(|request| request.name.starts_with(case))
        .collect();
    assert!(!found.is_empty(), "no recorded request `{case}-*`");
    found
}

// === impl Recorded ===

impl Recorded {
    fn request<'a>(&'a self, body: &'a [u8]) -> HookRequest<'a> {
        HookRequest {
            headers: &self.headers,
            body,
            now: SIGNED_AT.parse().unwrap(),
            age_max: SignedDuration::from_mins(5),
        }
    }
}

#[test]
fn every_sender_passes_the_conformance_test() {
    let secrets = Secrets {
        plain: vec![TOKEN.to_owned().into()],
        sha256: None,
    };
    let hashed = Secrets {
        plain: Vec::new(),
        sha256: Some(Digest::of(TOKEN.as_bytes())),
    };
    let nobody = Secrets::default();
    for decoder in DECODERS {
        let requests = recorded(decoder.kind());
        let accepts = |recorded: &Recorded, body: &[u8], secrets| {
            decoder
                .authenticate(&recorded.request(body), secrets)
                .is_ok()
        };
        for recorded in of_case(&requests, "good") {
            let Recorded { name, body, .. } = recorded;
            assert!(accepts(recorded, body, &secrets), "{name}");
            // Who signs cannot be known by a hash of its secret.
            assert_eq!(accepts(recorded, body, &hashed), !decoder.signs(), "{name}");
            assert!(!accepts(recorded, body, &nobody), "{name}");
            let altered = [body.as_slice(), b" "].concat();
            assert_eq!(
                accepts(recorded, &altered, &secrets),
                !decoder.signs(),
                "{name}"
            );
            let Heard { told, broken } = decoder.decode(&recorded.request(body), 100).unwrap();
            assert!(!told.is_empty() && broken.is_empty(), "{name}: {broken:?}");
            insta::assert_json_snapshot!(format!("{}-{name}", decoder.kind()), told);
        }
        for recorded in of_case(&requests, "bad-authentication") {
            let Recorded { name, body, .. } = recorded;
            assert!(!accepts(recorded, body, &secrets), "{name}");
            assert!(!accepts(recorded, body, &hashed), "{name}");
        }
        for recorded in of_case(&requests, "irrelevant") {
            let Recorded { name, body, .. } = recorded;
            assert!(accepts(recorded, body, &secrets), "{name}");
            let Heard { told, broken } = decoder.decode(&recorded.request(body), 100).unwrap();
            assert!(
                told.is_empty() && broken.is_empty(),
                "{name}: {told:?} {broken:?}"
            );
        }
    }
}

#[test]
fn kinds_are_found_by_name_and_are_all_different() {
    for decoder in DECODERS {
        assert_eq!(of_kind(decoder.kind()).unwrap().kind(), decoder.kind());
        assert_eq!(
            DECODERS
                .iter()
                .filter(|other| other.kind() == decoder.kind())
                .count(),
            1
        );
    }
    assert!(of_kind("pigeon").is_none());
}

#[test]
fn any_of_several_secrets_will_do_and_none_does_not() {
    let all = Secrets {
        plain: ["new", "newer"].map(|text| text.to_owned().into()).into(),
        sha256: Some(Digest::of(b"old")),
    };
    for token in ["new", "newer", "old"] {
        assert!(all.are_token(token), "{token}");
    }
    assert!(!all.are_token("other"));
    assert!(Secrets::default().is_empty() && !Secrets::default().are_token(""));
}
