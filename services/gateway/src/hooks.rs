//! `POST /hooks/{source}`: what registries send.
//!
//! The order is always the same: the body as it is on the wire, then the secret, then the share,
//! then the content. A request that is authenticated and that we cannot decode is answered with 202
//! all the same, for most senders repeat or give up on anything else; it is counted, and logged as
//! a warning without its body. It leaves no dead letter: what it would have told is found again
//! when the image is asked for.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};
use chassis::{
    Cx,
    http::{ApiError, body_limit},
};
use model::event::{ImageDeleted, ImagePushed};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::{
    Config, SourceConfig,
    decoders::{Happened, HookRequest, Secrets, Told, bearer},
    intake::{Accepted, Intake, refused},
    metrics,
    senders::Sender,
};

struct Hooks {
    cx: Cx,
    senders: BTreeMap<String, Sender>,
    intake: Arc<dyn Intake>,
    events_max: usize,
    per_second_max: u32,
}

/// The routes of senders.
pub(crate) fn routes(cx: &Cx, config: &Config, intake: Arc<dyn Intake>) -> Router {
    let senders = config.sources.iter().filter_map(|source| {
        let sender = Sender::new(source)?;
        Some((source.name.to_string(), sender))
    });
    let hooks = Hooks {
        cx: cx.clone(),
        senders: senders.collect(),
        intake,
        events_max: config.hook_events_max,
        per_second_max: config.hooks_per_second_max,
    };
    Router::new()
        .route("/hooks/{source}", post(receive))
        .layer(body_limit(config.hook_bytes_max))
        .with_state(Arc::new(hooks))
}

async fn receive(
    State(hooks): State<Arc<Hooks>>,
    Path(source): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let request = HookRequest {
        headers: &headers,
        body: &body,
    };
    let Some(sender) = hooks.senders.get(&source) else {
        // The same work as for a source that exists, so that the time tells nothing.
        let _refused = Secrets::default().are_token(bearer(&headers).unwrap_or_default());
        return Err(ApiError::not_found("there is no such source")
            .hint("the path is `/hooks/<name of a source in the configuration>`"));
    };
    let name = sender.source.name.as_str();
    let secrets = sender.secrets(&hooks.cx).await;
    if secrets.is_empty() || !sender.decoder.authenticate(&request, &secrets) {
        metrics::hook(name, "unauthenticated");
        warn!(
            source = name,
            "refused a webhook for source `{name}`: it is not authenticated"
        );
        return Err(unauthenticated(&sender.source));
    }
    if !sender.admit(hooks.cx.now(), hooks.per_second_max) {
        metrics::hook(name, "too_many");
        let detail = "this source sends more requests than it may";
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, detail)
            .hint("send the same request again after a second"));
    }
    let told = match sender.decoder.decode(&request, hooks.events_max) {
        Ok(told) => told,
        Err(error) => {
            metrics::hook(name, "undecodable");
            warn!(
                source = name,
                "a webhook of source `{name}` tells us nothing: {error}"
            );
            return Ok(answer(0));
        }
    };
    let accepted = hooks.accept(&sender.source, told).await?;
    metrics::hook(
        name,
        if accepted == 0 {
            "irrelevant"
        } else {
            "accepted"
        },
    );
    Ok(answer(accepted))
}

fn unauthenticated(source: &SourceConfig) -> ApiError {
    let hint = if source.hook_token.is_none() && source.hook_token_sha256.is_none() {
        "the source has no `hook_token` in the configuration, so nobody can send for it"
    } else {
        "send the source's `hook_token` as `Authorization: Bearer TOKEN`"
    };
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "the request does not prove who sends it",
    )
    .hint(hint)
}

fn answer(accepted: usize) -> (StatusCode, Json<Value>) {
    (StatusCode::ACCEPTED, Json(json!({ "accepted": accepted })))
}

// === impl Hooks ===

impl Hooks {
    /// Keeps what was told; returns how many events that are.
    async fn accept(&self, source: &SourceConfig, told: Vec<Told>) -> Result<usize, ApiError> {
        let count = told.len();
        for told in told {
            let name = name_of(&told);
            let event = self.event(source, told);
            self.intake
                .accept(&source.tenant, &event)
                .await
                .map_err(|error| refused(&error))?;
            info!(source = %source.name, "source `{}` tells of {name}", source.name);
        }
        Ok(count)
    }

    fn event(&self, source: &SourceConfig, told: Told) -> Accepted {
        let Told {
            what,
            repository,
            tag,
            digest,
            sender_id,
            occurred_at,
        } = told;
        // A sender's clock may be wrong, but an event of the future would outdo all that follow.
        let now = self.cx.now();
        let occurred_at = occurred_at.map_or(now, |at| at.min(now));
        let source = source.name.clone();
        match what {
            Happened::Pushed => Accepted::Pushed(ImagePushed {
                source,
                repository,
                tag,
                digest,
                sender_id,
                occurred_at,
            }),
            Happened::Deleted => Accepted::Deleted(ImageDeleted {
                source,
                repository,
                tag,
                digest,
                sender_id,
                occurred_at,
            }),
        }
    }
}

/// For logs. Names were checked when they were decoded.
fn name_of(told: &Told) -> String {
    let tag = told
        .tag
        .as_ref()
        .map(|tag| format!(":{tag}"))
        .unwrap_or_default();
    let digest = told
        .digest
        .map(|digest| format!("@{digest}"))
        .unwrap_or_default();
    format!("`{}{tag}{digest}`", told.repository)
}

#[cfg(test)]
mod tests;
