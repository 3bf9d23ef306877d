//! The sink `webhook`: an event in `CloudEvents` JSON, structured mode, posted to a URL
//! (`CloudEvents` 1.0, "HTTP Protocol Binding").
//!
//! Every copy has the id of the event, by which the receiver drops what it has had. The URL is the
//! operator's; nothing of an image or an event ever becomes part of it, and redirects are not
//! followed, so that nobody else chooses whom we call.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use chassis::SecretRef;
use model::event::Event as _;
use reqwest::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use crate::sinks::{Outgoing, send::Request};

/// Where to post, and as whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The URL, `https` or `http`.
    pub url: Url,
    /// A token to send as `Authorization: Bearer …`; read for each alert, so it may be renewed.
    #[serde(default)]
    pub bearer: Option<SecretRef>,
    /// More headers, with values that are no secrets.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How long the receiver may take, milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

// === impl Config ===

impl Config {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let scheme = self.url.scheme();
        let known = matches!(scheme, "https" | "http");
        ensure!(
            known,
            "its URL begins with `https` or `http`, not with `{scheme}`"
        );
        for (name, value) in &self.headers {
            let wrong = || format!("header `{name}`");
            HeaderName::from_bytes(name.as_bytes()).with_context(wrong)?;
            HeaderValue::from_str(value).with_context(wrong)?;
        }
        Ok(())
    }

    pub(crate) fn render(&self, outgoing: &Outgoing<'_>) -> anyhow::Result<Request> {
        let Outgoing { id, tenant, alert } = outgoing;
        let body = json!({
            "specversion": "1.0",
            "id": id,
            "source": alert.origin(),
            "type": model::event::Alert::TYPE,
            "subject": alert.fingerprint,
            "time": alert.at,
            "tenant": tenant,
            "datacontenttype": "application/json",
            "data": alert,
        });
        let mut headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        headers.push((
            "content-type".to_owned(),
            "application/cloudevents+json".to_owned(),
        ));
        chassis::telemetry::inject(&mut |name, value| headers.push((name.to_owned(), value)));
        let bearer = self.bearer.as_ref().map(SecretRef::read).transpose();
        Ok(Request {
            url: self.url.clone(),
            headers,
            bearer: bearer.context("reading its bearer token")?,
            body: serde_json::to_vec(&body).context("writing the alert")?,
            timeout: Duration::from_millis(self.timeout_ms),
        })
    }
}

const fn timeout_ms() -> u64 {
    10_000
}
