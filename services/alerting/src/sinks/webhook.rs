//! The sink `webhook`: an event in `CloudEvents` JSON, structured mode, posted to a URL
//! (`CloudEvents` 1.0, "HTTP Protocol Binding").
//!
//! Every copy has the id of the event, by which the receiver drops what it has had. Alerts that go
//! together are an event of the type `io.tidewaiter.alerts.v1`, whose id is computed from theirs,
//! with the id of each beside it. With `signing_secrets` the request is signed (`signature`). The
//! URL is the operator's; nothing of an image or an event ever becomes part of it, and redirects
//! are not followed, so that nobody else chooses whom we call.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use chassis::{Secret, SecretRef};
use model::event::{Alert, Event as _};
use reqwest::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use crate::{
    config::check_secrets,
    sinks::{Item, Outgoing, send::Request},
};

/// The type of several alerts at once.
const ALERTS_TYPE: &str = "io.tidewaiter.alerts.v1";

/// Where to post, and as whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The URL, `https` or `http`.
    pub url: Url,
    /// A token to send as `Authorization: Bearer …`; read for each alert, so it may be renewed.
    #[serde(default)]
    pub bearer: Option<SecretRef>,
    /// The secrets that sign each request: none, one, or two while one is exchanged for the other.
    #[serde(default)]
    pub signing_secrets: Vec<SecretRef>,
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
        check_secrets(&self.signing_secrets)
    }

    pub(crate) fn render(&self, outgoing: &Outgoing) -> anyhow::Result<Request> {
        let body = match outgoing.single() {
            Some(item) => one(outgoing, &item.alert),
            None => several(outgoing)?,
        };
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
            signing: read_secrets(&self.signing_secrets)?,
            body: serde_json::to_vec(&body).context("writing the alert")?,
            timeout: Duration::from_millis(self.timeout_ms),
        })
    }
}

/// The secrets behind their references.
pub(crate) fn read_secrets(references: &[SecretRef]) -> anyhow::Result<Vec<Secret>> {
    let secrets: Result<_, _> = references.iter().map(SecretRef::read).collect();
    secrets.context("reading its signing secrets")
}

fn one(outgoing: &Outgoing, alert: &Alert) -> Value {
    json!({
        "specversion": "1.0",
        "id": outgoing.id,
        "source": alert.origin(),
        "type": Alert::TYPE,
        "subject": alert.fingerprint,
        "time": alert.at,
        "tenant": outgoing.tenant,
        "datacontenttype": "application/json",
        "data": alert,
    })
}

fn several(outgoing: &Outgoing) -> anyhow::Result<Value> {
    let (listed, more) = outgoing.listed();
    let mut alerts = Vec::with_capacity(listed.len());
    for Item { id, alert } in listed {
        let mut value = serde_json::to_value(alert).context("writing an alert")?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("id".to_owned(), json!(id));
        }
        alerts.push(value);
    }
    Ok(json!({
        "specversion": "1.0",
        "id": outgoing.id,
        "source": "/alerting",
        "type": ALERTS_TYPE,
        "subject": outgoing.about,
        "time": outgoing.at(),
        "tenant": outgoing.tenant,
        "datacontenttype": "application/json",
        "data": {
            "title": outgoing.title(),
            "severity": outgoing.severity(),
            "total": outgoing.total(),
            "more": more,
            "alerts": alerts,
        },
    }))
}

const fn timeout_ms() -> u64 {
    10_000
}
