//! CNCF Distribution (`registry:2`, `registry:3`) and what is built on it: notifications
//! (distribution documentation, "Work with notifications").
//!
//! The registry is told to send a header `Authorization: Bearer <token>`. Blobs are pushed, pulled
//! and mounted before a manifest is: only manifests and indexes tell of an image.

use jiff::Timestamp;
use model::Digest;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Decoder, Happened, Heard, HookRequest, Proof, Secrets, Told, Undecodable, Unproven, bearer,
    check_names, clip, each,
};

/// The decoder.
#[derive(Debug)]
pub(crate) struct Distribution;

/// The body. What is not here is not looked at; new fields do no harm.
#[derive(Deserialize)]
struct Envelope {
    events: Vec<Value>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    id: String,
    #[serde(default)]
    timestamp: Option<Timestamp>,
    action: String,
    target: Target,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    repository: String,
    #[serde(default)]
    tag: String,
}

impl Decoder for Distribution {
    fn kind(&self) -> &'static str {
        "distribution"
    }

    fn signs(&self) -> bool {
        false
    }

    fn how(&self) -> &'static str {
        "send the source's `hook_token` as `Authorization: Bearer TOKEN`"
    }

    fn authenticate(
        &self,
        request: &HookRequest<'_>,
        secrets: &Secrets,
    ) -> Result<Proof, Unproven> {
        if secrets.are_token(bearer(request.headers).unwrap_or_default()) {
            Ok(Proof::Token)
        } else {
            Err(Unproven::Wrong)
        }
    }

    fn decode(&self, request: &HookRequest<'_>, events_max: usize) -> Result<Heard, Undecodable> {
        let envelope: Envelope = serde_json::from_slice(request.body)
            .map_err(|error| Undecodable::Form(error.to_string()))?;
        each(envelope.events, events_max, told)
    }
}

fn told(event: Event) -> Result<Option<Told>, Undecodable> {
    let Event {
        id,
        timestamp,
        action,
        target,
    } = event;
    let what = match action.as_str() {
        "push" | "mount" if is_manifest(&target.media_type) => Happened::Pushed,
        "delete" => Happened::Deleted,
        _ => return Ok(None),
    };
    let tag = (!target.tag.is_empty()).then_some(target.tag);
    check_names(&target.repository, tag.as_deref())?;
    let digest: Option<Digest> = match target.digest.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| Undecodable::Name(clip(text)))?),
    };
    if what == Happened::Pushed && tag.is_none() && digest.is_none() {
        return Err(Undecodable::Form(
            "a push without tag and digest".to_owned(),
        ));
    }
    let sender_id = (!id.is_empty()).then(|| clip(&id));
    Ok(Some(Told {
        what,
        repository: target.repository,
        tag,
        digest,
        sender_id,
        occurred_at: timestamp,
    }))
}

/// Manifests and indexes of all ages: also those that we cannot read get a verdict.
fn is_manifest(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.distribution.manifest.")
        || media_type.starts_with("application/vnd.oci.image.manifest.")
        || media_type.starts_with("application/vnd.oci.image.index.")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;

    fn decode(body: &str) -> Result<Heard, Undecodable> {
        let headers = HeaderMap::new();
        Distribution.decode(
            &HookRequest {
                headers: &headers,
                body: body.as_bytes(),
                now: Timestamp::UNIX_EPOCH,
                age_max: jiff::SignedDuration::ZERO,
            },
            3,
        )
    }

    fn event(action: &str, target: &str) -> String {
        format!(r#"{{"id": "1", "action": "{action}", "target": {target}}}"#)
    }

    #[test]
    fn a_name_that_no_reference_can_have_is_refused() {
        for target in [
            r#"{"repository": "a", "tag": "x y"}"#,
            r#"{"repository": "../a", "tag": "1"}"#,
            r#"{"repository": "evil.example:80/a:b", "tag": "1"}"#,
            r#"{"repository": "", "tag": "1"}"#,
            r#"{"repository": "a", "digest": "sha256:12"}"#,
        ] {
            let body = format!(r#"{{"events": [{}]}}"#, event("delete", target));
            let heard = decode(&body).unwrap();
            assert_eq!(heard.told, [], "{target}");
            let [broken] = heard.broken.as_slice() else {
                panic!("{target}: {:?}", heard.broken);
            };
            assert!(matches!(broken.why, Undecodable::Name(_)), "{broken}");
        }
    }

    #[test]
    fn a_broken_event_costs_nothing_but_itself() {
        let good = |tag: &str| {
            event(
                "delete",
                &format!(r#"{{"repository": "a", "tag": "{tag}"}}"#),
            )
        };
        for (broken, says) in [
            (
                event("delete", r#"{"repository": "a", "tag": 7}"#),
                "event 1 (`1`): ",
            ),
            (
                event("delete", r#"{"repository": "../a"}"#),
                "event 1 (`1`): it names `../a`",
            ),
            (r#"{"id": "x", "target": {}}"#.to_owned(), "event 1 (`x`): "),
            ("7".to_owned(), "event 1: "),
        ] {
            let body = format!(r#"{{"events": [{}, {broken}, {}]}}"#, good("1"), good("2"));
            let heard = decode(&body).unwrap();
            let tags: Vec<_> = heard.told.iter().map(|told| told.tag.as_deref()).collect();
            assert_eq!(tags, [Some("1"), Some("2")], "{broken}");
            assert_eq!(heard.broken.len(), 1, "{broken}");
            let said = heard.broken[0].to_string();
            assert!(said.starts_with(says), "{said}");
        }
    }

    #[test]
    fn a_body_with_too_many_events_is_refused() {
        let one = event("pull", "{}");
        let body = format!(r#"{{"events": [{}]}}"#, vec![one; 4].join(","));
        assert!(matches!(
            decode(&body),
            Err(Undecodable::TooMany { found: 4, max: 3 })
        ));
    }

    #[test]
    fn other_bodies_are_refused_and_unknown_actions_ignored() {
        for body in ["", "[]", "{}", r#"{"events": 1}"#] {
            assert!(matches!(decode(body), Err(Undecodable::Form(_))), "{body}");
        }
        let body = format!(r#"{{"events": [{}]}}"#, event("frobnicate", "{}"));
        let heard = decode(&body).unwrap();
        assert!(heard.told.is_empty() && heard.broken.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_body_makes_it_panic(body in ".{0,200}") {
            let _outcome = decode(&body);
        }
    }
}
