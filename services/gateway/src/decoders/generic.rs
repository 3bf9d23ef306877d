//! Any sender that can sign: a script, a CI system, a registry behind a small adapter.
//!
//! The body is a JSON list, one entry for each thing that happened:
//!
//! ```json
//! [{"action": "pushed", "repository": "team/app", "tag": "1.0", "digest": "sha256:…",
//!   "id": "4711", "occurred_at": "2026-01-02T03:04:05Z"}]
//! ```
//!
//! `action` is `pushed` or `deleted`, others are not looked at. A push has a tag, a digest or both;
//! a deletion without both is that of the whole repository. `id` is the sender's own and the same
//! when it tells of the same thing again; `occurred_at` is the time of the signature where it is
//! missing.
//!
//! The request is signed: `X-Tidewaiter-Signature: t=<unix seconds>,v1=<hex>`, where the hex digits
//! are HMAC-SHA256 with the source's secret over `<t>.<body>`, the body as it is on the wire. While
//! a secret is exchanged for another there may be a `v1` for each. In a shell:
//!
//! ```sh
//! t=$(date +%s); v1=$(printf '%s.%s' "$t" "$body" | openssl dgst -sha256 -hmac "$secret" -r)
//! curl -H "X-Tidewaiter-Signature: t=$t,v1=${v1%% *}" -d "$body" https://tidewaiter/hooks/main
//! ```

use aws_lc_rs::hmac;
use axum::http::HeaderMap;
use jiff::Timestamp;
use model::{Digest, Fingerprint};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Decoder, Happened, Heard, HookRequest, Proof, Secrets, Told, Undecodable, Unproven,
    check_names, clip, each,
};

const HEADER: &str = "x-tidewaiter-signature";
/// Signatures of one request that are looked at.
const SIGNATURES_MAX: usize = 8;
const HEADER_BYTES_MAX: usize = 1024;

/// The decoder.
#[derive(Debug)]
pub(crate) struct Generic;

/// What the header says.
struct Signed<'a> {
    /// As it is written: this is what was signed.
    time: &'a str,
    at: Timestamp,
    signatures: Vec<[u8; 32]>,
}

/// An entry of the body; new fields do no harm.
#[derive(Deserialize)]
struct Entry {
    action: String,
    repository: String,
    #[serde(default)]
    tag: Option<String>,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    occurred_at: Option<Timestamp>,
}

impl Decoder for Generic {
    fn kind(&self) -> &'static str {
        "generic"
    }

    fn signs(&self) -> bool {
        true
    }

    fn how(&self) -> &'static str {
        "sign with one of the source's `hook_secrets`: `X-Tidewaiter-Signature: \
         t=<unix seconds>,v1=<hex of HMAC-SHA256 over t, a dot and the body>`"
    }

    fn authenticate(
        &self,
        request: &HookRequest<'_>,
        secrets: &Secrets,
    ) -> Result<Proof, Unproven> {
        let signed = Signed::read(request.headers).ok_or(Unproven::Wrong)?;
        let message = [signed.time.as_bytes(), b".", request.body].concat();
        let mut is_right = false;
        for secret in &secrets.plain {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
            for signature in &signed.signatures {
                // Compares in constant time.
                is_right |= hmac::verify(&key, &message, signature).is_ok();
            }
        }
        if !is_right {
            return Err(Unproven::Wrong);
        }
        // Only who knows the secret learns what is wrong with its clock.
        if request.now.duration_since(signed.at).abs() > request.age_max {
            return Err(Unproven::Stale);
        }
        Ok(Proof::Signature(Digest::of(&message)))
    }

    fn decode(&self, request: &HookRequest<'_>, events_max: usize) -> Result<Heard, Undecodable> {
        let entries: Vec<Value> = serde_json::from_slice(request.body)
            .map_err(|error| Undecodable::Form(error.to_string()))?;
        let signed_at = Signed::read(request.headers).map_or(request.now, |signed| signed.at);
        each(entries, events_max, |entry| told(entry, signed_at))
    }
}

fn told(entry: Entry, signed_at: Timestamp) -> Result<Option<Told>, Undecodable> {
    let what = match entry.action.as_str() {
        "pushed" => Happened::Pushed,
        "deleted" => Happened::Deleted,
        _ => return Ok(None),
    };
    let tag = entry.tag.filter(|tag| !tag.is_empty());
    check_names(&entry.repository, tag.as_deref())?;
    let digest = entry.digest.filter(|digest| !digest.is_empty());
    let digest: Option<Digest> = digest
        .map(|text| text.parse().map_err(|_| Undecodable::Name(clip(&text))))
        .transpose()?;
    if what == Happened::Pushed && tag.is_none() && digest.is_none() {
        return Err(Undecodable::Form(
            "a push without tag and digest".to_owned(),
        ));
    }
    let occurred_at = entry.occurred_at.unwrap_or(signed_at);
    // An id that a sender uses for several things must not make one of them out of all.
    let own = entry.id.filter(|id| !id.is_empty());
    let time = occurred_at.to_string();
    let sender_id = Fingerprint::of(&[
        own.as_deref().unwrap_or(&time),
        &entry.action,
        &entry.repository,
        tag.as_deref().unwrap_or_default(),
        &digest.map(|digest| digest.to_string()).unwrap_or_default(),
    ]);
    Ok(Some(Told {
        what,
        repository: entry.repository,
        tag,
        digest,
        sender_id: Some(sender_id.0),
        occurred_at: Some(occurred_at),
    }))
}

// === impl Signed ===

impl<'a> Signed<'a> {
    /// Reads the header; `None` where it is missing, more than one, or not of this form.
    fn read(headers: &'a HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(HEADER).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        let value = value.to_str().ok()?;
        if value.len() > HEADER_BYTES_MAX {
            return None;
        }
        let (mut time, mut signatures) = (None, Vec::new());
        for part in value.split(',') {
            match part.trim().split_once('=')? {
                ("t", text) if time.is_none() => time = Some(text),
                ("v1", hex) if signatures.len() < SIGNATURES_MAX => {
                    signatures.push(*Digest::from_hex(hex)?.as_bytes());
                }
                // Other versions of the signature may follow one day; another time may not.
                ("t" | "v1", _) => return None,
                _ => {}
            }
        }
        let time = time?;
        let at = Timestamp::from_second(time.parse().ok()?).ok()?;
        Some(Self {
            time,
            at,
            signatures,
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use chassis::Secret;
    use jiff::SignedDuration;

    use super::*;

    const NOW: i64 = 1_767_323_045;
    const BODY: &str = r#"[{"action": "pushed", "repository": "a", "tag": "1"}]"#;

    fn sign(secret: &str, time: i64, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let message = format!("{time}.{body}");
        model::hex(hmac::sign(&key, message.as_bytes()).as_ref())
    }

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            HEADER.parse().unwrap(),
            HeaderValue::from_str(value).unwrap(),
        )])
    }

    fn request<'a>(headers: &'a HeaderMap, body: &'a str) -> HookRequest<'a> {
        HookRequest {
            headers,
            body: body.as_bytes(),
            now: Timestamp::from_second(NOW).unwrap(),
            age_max: SignedDuration::from_mins(5),
        }
    }

    fn check(header: &str, body: &str) -> Result<Proof, Unproven> {
        let plain = ["old", "new"].map(|text| Secret::from(text.to_owned()));
        let secrets = Secrets {
            plain: plain.into(),
            sha256: None,
        };
        let headers = headers(header);
        Generic.authenticate(&request(&headers, body), &secrets)
    }

    fn decode(body: &str) -> Result<Heard, Undecodable> {
        let headers = headers(&format!("t={NOW},v1={}", sign("new", NOW, body)));
        Generic.decode(&request(&headers, body), 3)
    }

    #[test]
    fn either_of_two_secrets_signs_and_others_do_not() {
        let signed = |secret| format!("t={NOW},v1={}", sign(secret, NOW, BODY));
        assert!(check(&signed("old"), BODY).is_ok() && check(&signed("new"), BODY).is_ok());
        assert_eq!(check(&signed("other"), BODY), Err(Unproven::Wrong));
        assert_eq!(check(&signed("new"), "[]"), Err(Unproven::Wrong));
        let both = format!(
            "t={NOW},v1={},v1={}",
            sign("next", NOW, BODY),
            sign("old", NOW, BODY)
        );
        assert!(check(&both, BODY).is_ok());
        let Ok(Proof::Signature(one)) = check(&signed("old"), BODY) else {
            panic!("it is signed")
        };
        // The same request under another secret is the same request.
        assert_eq!(check(&signed("new"), BODY), Ok(Proof::Signature(one)));
    }

    #[test]
    fn a_signature_of_another_time_is_stale_or_wrong() {
        for (seconds, expected) in [
            (0, None),
            (-300, None),
            (300, None),
            (-301, Some(Unproven::Stale)),
            (301, Some(Unproven::Stale)),
        ] {
            let time = NOW + seconds;
            let header = format!("t={time},v1={}", sign("new", time, BODY));
            assert_eq!(check(&header, BODY).err(), expected, "{seconds}");
        }
        // The time is signed.
        let header = format!("t={},v1={}", NOW + 1, sign("new", NOW, BODY));
        assert_eq!(check(&header, BODY), Err(Unproven::Wrong));
    }

    #[test]
    fn headers_of_another_form_prove_nothing() {
        let v1 = sign("new", NOW, BODY);
        for header in [
            String::new(),
            "t=".to_owned(),
            format!("t={NOW}"),
            format!("v1={v1}"),
            format!("t={NOW},v1={}", &v1[..62]),
            format!("t={NOW},v1=zz{}", &v1[2..]),
            format!("t={NOW},t={NOW},v1={v1}"),
            format!("t=99999999999999999999,v1={v1}"),
            format!("t={NOW},{}", vec![format!("v1={v1}"); 9].join(",")),
        ] {
            assert_eq!(check(&header, BODY), Err(Unproven::Wrong), "{header}");
        }
    }

    #[test]
    fn ids_follow_from_content() {
        let ids = |body: &str| -> Vec<_> {
            let heard = decode(body).unwrap();
            assert!(heard.broken.is_empty(), "{:?}", heard.broken);
            heard
                .told
                .into_iter()
                .map(|told| told.sender_id.unwrap())
                .collect()
        };
        let entry =
            |more: &str| format!(r#"{{"action": "pushed", "repository": "a", "tag": "1"{more}}}"#);
        let list = |entries: &[String]| format!("[{}]", entries.join(","));
        let one = ids(&list(&[entry(r#", "id": "7""#)]));
        assert_eq!(one, ids(&list(&[entry(r#", "id": "7", "note": "again""#)])));
        assert_ne!(one, ids(&list(&[entry(r#", "id": "8""#)])));
        let both = ids(&list(&[
            entry(r#", "id": "7""#),
            r#"{"action": "deleted", "repository": "a", "id": "7"}"#.to_owned(),
        ]));
        assert_eq!(both[0], one[0]);
        assert_ne!(both[0], both[1]);
        // Without an id the time tells two pushes apart.
        let at = |second: u8| {
            entry(&format!(
                r#", "occurred_at": "2026-01-02T03:04:0{second}Z""#
            ))
        };
        assert_ne!(ids(&list(&[at(1)])), ids(&list(&[at(2)])));
    }

    #[test]
    fn what_is_no_list_of_entries_is_refused() {
        for body in ["", "{}", "1"] {
            assert!(matches!(decode(body), Err(Undecodable::Form(_))), "{body}");
        }
        let many = format!("[{}]", [&BODY[1..BODY.len() - 1]; 4].join(","));
        assert!(matches!(
            decode(&many),
            Err(Undecodable::TooMany { found: 4, max: 3 })
        ));
    }

    #[test]
    fn a_broken_entry_costs_nothing_but_itself() {
        for broken in [
            r#"{"action": "pushed"}"#,
            r#"{"action": "pushed", "repository": "a"}"#,
            r#"{"action": "deleted", "repository": "evil.example:80/a:b"}"#,
            r#"{"action": "pushed", "repository": "a", "tag": "1", "occurred_at": "soon"}"#,
            "1",
        ] {
            let body = format!("[{broken}, {}", &BODY[1..]);
            let heard = decode(&body).unwrap();
            assert_eq!(heard.told.len(), 1, "{broken}");
            let places: Vec<_> = heard.broken.iter().map(|broken| broken.at).collect();
            assert_eq!(places, [0], "{broken}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_and_no_body_makes_it_panic(header in "[ -~]{0,80}", body in ".{0,200}") {
            let _proof = check(&header, &body);
            let _told = decode(&body);
        }
    }
}
