//! What may start: the image of a container that is held, compared with the lists of the document.

use std::collections::BTreeSet;

use chassis::Cx;
use model::{Digest, runtime::StartGate};
use oci::{Engine, EngineCall, EngineVerb, Engines};
use serde_json::Value;

use super::container::{Found, digest};

/// Why a container may not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) image: Option<Digest>,
    pub(crate) why: String,
}

/// Why an image may not start, if it may not; by all digests that it is known by here.
pub(crate) fn judge(gate: &StartGate, digests: &BTreeSet<Digest>) -> Option<Refused> {
    let denied = gate
        .denied
        .iter()
        .find(|image| digests.contains(&image.digest));
    if let Some(denied) = denied {
        let mut why = format!("its image is judged `{}`", denied.decision);
        if !denied.reason.is_empty() {
            why = format!("{why}: {}", denied.reason);
        }
        let image = Some(denied.digest);
        return Some(Refused { image, why });
    }
    let is_known = gate.allowed.iter().any(|image| digests.contains(image));
    if !gate.refuses_unknown || is_known {
        return None;
    }
    Some(Refused {
        image: digests.first().copied(),
        why: "nobody has judged its image".to_owned(),
    })
}

/// All digests that the image of a container is known by.
pub(crate) async fn digests(cx: &Cx, engines: &Engines, found: &Found) -> BTreeSet<Digest> {
    let mut digests: BTreeSet<Digest> = found.image().into_iter().collect();
    digests.extend(of_names(&found.inspected));
    let Some((engine @ (Engine::Docker | Engine::Podman), socket)) = &found.engine else {
        return digests;
    };
    let image = found.text("/Image").unwrap_or_default();
    let call = EngineCall {
        path: &["images", image, "json"],
        query: &[],
        what: EngineVerb::Get,
    };
    let answer = engines.call(cx, (*engine, socket), call).await;
    let image = answer.ok().flatten().unwrap_or_default();
    let id = image.get("Id").and_then(Value::as_str);
    let own = image.get("Digest").and_then(Value::as_str);
    digests.extend(of_names(&image));
    digests.extend(id.into_iter().chain(own).filter_map(digest));
    digests
}

fn of_names(told: &Value) -> impl Iterator<Item = Digest> {
    let names = told.get("RepoDigests").and_then(Value::as_array);
    let names = names.into_iter().flatten().filter_map(Value::as_str);
    names.filter_map(of_name)
}

/// Of `repository@digest`.
fn of_name(name: &str) -> Option<Digest> {
    digest(name.rsplit_once('@')?.1)
}

#[cfg(test)]
mod tests {
    use model::{
        Decision,
        runtime::{DeniedImage, Mode},
    };

    use super::*;

    fn gate(refuses_unknown: bool) -> StartGate {
        StartGate {
            mode: Mode::Enforced,
            denied: vec![DeniedImage {
                digest: Digest::of(b"bad"),
                decision: Decision::Deny,
                reason: "it holds malware".to_owned(),
            }],
            refuses_unknown,
            allowed: vec![Digest::of(b"good")],
        }
    }

    #[test]
    fn a_denied_image_does_not_start_by_any_of_its_digests() {
        let check = |gate: &StartGate, names: &[&str]| {
            let digests = names.iter().map(|name| Digest::of(name.as_bytes()));
            judge(gate, &digests.collect())
        };
        let refused = check(&gate(false), &["index", "bad"]).unwrap();
        assert_eq!(refused.image, Some(Digest::of(b"bad")));
        assert_eq!(refused.why, "its image is judged `deny`: it holds malware");
        assert_eq!(check(&gate(false), &["other"]), None);
        assert_eq!(check(&gate(true), &["good", "index"]), None);
        assert!(check(&gate(true), &["other"]).is_some());
        assert!(check(&gate(true), &[]).is_some());
    }
}
