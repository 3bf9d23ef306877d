//! What an engine is told to do: requests of Docker's API that change something, as podman takes
//! them, too.
//!
//! Only shape and size are looked at here; what is asked for is its caller's to decide.

use std::path::Path;

use chassis::Cx;
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;

use super::{Asked, build};
use crate::{Engine, Engines, Limits, OciError};

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Characters of a refusal.
const REFUSAL_MAX: usize = 300;

/// A request to an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineCall<'a> {
    /// Below the API's root: its parts are escaped here.
    pub path: &'a [&'a str],
    /// Parameters.
    pub query: &'a [(&'a str, &'a str)],
    /// What is done.
    pub what: EngineVerb,
}

/// What a request does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineVerb {
    /// It asks.
    Get,
    /// It changes something.
    Post(Option<Value>),
}

// === impl Engines ===

impl Engines {
    /// Asks Docker or podman; `None` where that does not know what the request is about.
    pub async fn call(
        &self,
        cx: &Cx,
        (engine, socket): (Engine, &Path),
        call: EngineCall<'_>,
    ) -> Result<Option<Value>, OciError> {
        let asked = Asked {
            cx,
            engine,
            socket,
            limits: Limits::default(),
        };
        if !matches!(engine, Engine::Docker | Engine::Podman) {
            return Err(asked.away("it has no such API"));
        }
        let client = build(asked.client())?;
        let (url, shown) = (url(&call)?, call.path.join("/"));
        let request = match call.what {
            EngineVerb::Get => client.get(url),
            EngineVerb::Post(None) => client.request(Method::POST, url),
            EngineVerb::Post(Some(body)) => client.post(url).json(&body),
        };
        let sent = request.send().await;
        let mut response = sent.map_err(|error| asked.unreachable(&error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(part)) => bytes.extend_from_slice(&part),
                Ok(None) => break,
                Err(error) => return Err(asked.unreachable(&error)),
            }
            if bytes.len() > ANSWER_BYTES_MAX {
                let what = format!("the answer to `{shown}`");
                return Err(OciError::too_large(what, ANSWER_BYTES_MAX as u64));
            }
        }
        let answer: Option<Value> = serde_json::from_slice(&bytes).ok();
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            // Nothing to do: it is so already.
            StatusCode::NOT_MODIFIED => Ok(Some(Value::Null)),
            status if status.is_success() => Ok(Some(answer.unwrap_or_default())),
            status => {
                let why = answer.as_ref().and_then(|answer| {
                    let said = answer.get("message").or_else(|| answer.get("cause"));
                    said.and_then(Value::as_str)
                });
                let why: String = why
                    .unwrap_or("no reason given")
                    .chars()
                    .take(REFUSAL_MAX)
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .collect();
                Err(asked.away(format!("it answers {status} to `{shown}`: {why}")))
            }
        }
    }
}

fn url(call: &EngineCall<'_>) -> Result<Url, OciError> {
    // The host is not looked up: the socket is where the request goes.
    let root = "http://localhost/";
    let malformed = |why: &str| OciError::malformed(format!("`{root}`"), why);
    let mut url = Url::parse(root).map_err(|error| malformed(&error.to_string()))?;
    url.path_segments_mut()
        .map_err(|()| malformed("it has no path"))?
        .pop_if_empty()
        .extend(call.path);
    if !call.query.is_empty() {
        url.query_pairs_mut().extend_pairs(call.query);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_lead_to_another_path() {
        let call = EngineCall {
            path: &["containers", "../a?b", "rename"],
            query: &[("name", "x&y")],
            what: EngineVerb::Post(None),
        };
        let url = url(&call).unwrap();
        assert_eq!(
            url.as_str(),
            "http://localhost/containers/..%2Fa%3Fb/rename?name=x%26y"
        );
    }
}
