//! `POST /hooks/{source}`: what registries send.
//!
//! The order is always the same: the body as it is on the wire, then the secret, then the share,
//! then whether it was sent before, then the content. A request that is authenticated and that we cannot decode is answered with 202
//! all the same, for most senders repeat or give up on anything else; it is counted, and logged as
//! a warning without its body. So is a single event that we cannot decode, and those beside it are
//! taken; the answer names it. It leaves no dead letter: what it would have told is found again
//! when the image is asked for, and by the crawler.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use bus::SpoolError;
use chassis::{
    Cx,
    http::{Access, ApiError, Operation, Route, body_limit},
};
use futures::future::try_join_all;
use jiff::SignedDuration;
use model::{
    Digest,
    event::{ImageDeleted, ImagePushed, Priority},
};
use schemars::JsonSchema;
use serde::Serialize;
use tracing::{info, warn};

use crate::{
    Config, SourceConfig,
    decoders::{Broken, Happened, Heard, HookRequest, Proof, Secrets, Told, Unproven, bearer},
    intake::{Accepted, Intake, refused},
    metrics,
    rate::Buckets,
    senders::Sender,
};

/// How many events of one request that cannot be understood are named.
const BROKEN_NAMED_MAX: usize = 10;

/// What became of a request.
#[derive(Debug, Default)]
struct Taken {
    /// How many events were kept.
    accepted: usize,
    broken: Vec<Broken>,
}

struct Hooks {
    cx: Cx,
    senders: BTreeMap<String, Sender>,
    intake: Arc<dyn Intake>,
    events_max: usize,
    age_max: SignedDuration,
    shares: Buckets,
}

/// What became of a request.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HookAnswer")]
struct Answer {
    /// How many events it told of; 0 where it tells nothing that matters here.
    accepted: usize,
    /// Events that could not be read, beside those that could.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refused>,
}

/// Events of a request that could not be read.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HookRefused")]
struct Refused {
    /// How many.
    count: usize,
    /// The first of them, each with what is wrong with it.
    events: Vec<String>,
}

/// What is to be said of the routes.
pub(crate) fn operations() -> Vec<Operation> {
    chassis::http::operations(table())
}

/// The table of routes.
fn table() -> Vec<Route<Arc<Hooks>>> {
    vec![
        Access::Sender
            .post(
                "/hooks/{source}",
                "receiveHook",
                "What a registry tells",
                receive,
            )
            .detail(
                "The body is what the source's kind of sender sends. A request that is \
                 authenticated and that nobody can decode is answered with 202 all the same.",
            )
            .path::<model::Slug>("source", "a source of the configuration")
            .body_of("*/*")
            .answers::<Answer>(StatusCode::ACCEPTED, "it is on disk, and will be handled")
            .refuses(
                StatusCode::UNAUTHORIZED,
                "the request does not prove who sends it",
            )
            .refuses(StatusCode::NOT_FOUND, "there is no such source")
            .refuses(
                StatusCode::CONFLICT,
                "this very request was accepted before",
            )
            .refuses(
                StatusCode::TOO_MANY_REQUESTS,
                "the source sends more than it may",
            )
            .refuses(
                StatusCode::SERVICE_UNAVAILABLE,
                "the spool is full, or the disk refuses",
            ),
    ]
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
        age_max: SignedDuration::from_secs(i64::from(config.hook_age_s_max)),
        shares: Buckets::new(config.hooks_per_second_max, config.hooks_burst_max),
    };
    chassis::http::router(table(), Arc::new(hooks)).layer(body_limit(config.hook_bytes_max))
}

async fn receive(
    State(hooks): State<Arc<Hooks>>,
    Path(source): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Answer>), ApiError> {
    let request = HookRequest {
        headers: &headers,
        body: &body,
        now: hooks.cx.now(),
        age_max: hooks.age_max,
    };
    let Some(sender) = hooks.senders.get(&source) else {
        // The same work as for a source that exists, so that the time tells nothing.
        let _refused = Secrets::default().are_token(bearer(&headers).unwrap_or_default());
        return Err(ApiError::not_found("there is no such source")
            .hint("the path is `/hooks/<name of a source in the configuration>`"));
    };
    let signature = hooks.admit(sender, &request).await?;
    let accepted = hooks.take(sender, &request).await;
    if let (Err(_), Some(signature)) = (&accepted, signature) {
        sender.forget(signature);
    }
    Ok(answer(&accepted?))
}

fn unauthenticated(sender: &Sender, unproven: Unproven, age_max: SignedDuration) -> ApiError {
    let hint = match unproven {
        _ if !sender.source.has_hook() => {
            "the source has no `hook_token` in the configuration, so nobody can send for it"
                .to_owned()
        }
        Unproven::Wrong => sender.decoder.how().to_owned(),
        Unproven::Stale => format!(
            "the signature is right, and its time is more than {} s from ours: sign every request \
             when it is sent, and set the clock",
            age_max.as_secs()
        ),
    };
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "the request does not prove who sends it",
    )
    .hint(hint)
}

fn answer(taken: &Taken) -> (StatusCode, Json<Answer>) {
    let Taken { accepted, broken } = taken;
    let named = broken.iter().take(BROKEN_NAMED_MAX);
    let refused = (!broken.is_empty()).then(|| Refused {
        count: broken.len(),
        events: named.map(ToString::to_string).collect(),
    });
    let answer = Answer {
        accepted: *accepted,
        refused,
    };
    (StatusCode::ACCEPTED, Json(answer))
}

// === impl Hooks ===

impl Hooks {
    /// Whether a request may go on: who sent it, whether that is its share, and whether it came
    /// before. The signature is noted; it is to be forgotten if the request is not accepted.
    async fn admit(
        &self,
        sender: &Sender,
        request: &HookRequest<'_>,
    ) -> Result<Option<Digest>, ApiError> {
        let name = sender.source.name.as_str();
        let secrets = sender.secrets(&self.cx).await;
        let proof = if secrets.is_empty() {
            Err(Unproven::Wrong)
        } else {
            sender.decoder.authenticate(request, &secrets)
        };
        let proof = proof.map_err(|unproven| {
            metrics::hook(name, "unauthenticated");
            warn!(
                source = name,
                "refused a webhook for source `{name}`: it is not authenticated"
            );
            unauthenticated(sender, unproven, self.age_max)
        })?;
        self.shares.take(name, request.now).map_err(|wait| {
            metrics::hook(name, "too_many");
            let detail = "this source sends more requests than it may";
            ApiError::too_many(detail, wait).hint("send the same request again later")
        })?;
        let Proof::Signature(signature) = proof else {
            return Ok(None);
        };
        // From its earliest to its latest moment a signature is good for twice the age.
        if sender.is_new(signature, request.now, self.age_max.saturating_mul(2)) {
            return Ok(Some(signature));
        }
        metrics::hook(name, "replayed");
        warn!(
            source = name,
            "refused a webhook for source `{name}`: the same signature came before"
        );
        Err(ApiError::conflict("this very request was accepted before")
            .hint("there is nothing to do; what happens next is signed anew"))
    }

    /// Takes what an admitted request tells.
    async fn take(&self, sender: &Sender, request: &HookRequest<'_>) -> Result<Taken, ApiError> {
        let name = sender.source.name.as_str();
        let Heard { told, broken } = match sender.decoder.decode(request, self.events_max) {
            Ok(heard) => heard,
            Err(error) => {
                metrics::hook(name, "undecodable");
                warn!(
                    source = name,
                    "a webhook of source `{name}` tells us nothing: {error}"
                );
                return Ok(Taken::default());
            }
        };
        let accepted = self.accept(&sender.source, told).await?;
        metrics::hook_events_refused(name, broken.len());
        for broken in broken.iter().take(BROKEN_NAMED_MAX) {
            warn!(
                source = name,
                "a webhook of source `{name}` has an event that tells us nothing: {broken}"
            );
        }
        let outcome = match (accepted, broken.len()) {
            (0, 0) => "irrelevant",
            (0, _) => "undecodable",
            _ => "accepted",
        };
        metrics::hook(name, outcome);
        Ok(Taken { accepted, broken })
    }

    /// Keeps what was told, all of it at once, so that it goes to disk together.
    async fn accept(&self, source: &SourceConfig, told: Vec<Told>) -> Result<usize, ApiError> {
        let kept = told.into_iter().map(async |told| {
            let name = name_of(&told);
            let event = self.event(source, told);
            self.intake.accept(&source.tenant, &event).await?;
            info!(source = %source.name, "source `{}` tells of {name}", source.name);
            Ok::<_, SpoolError>(())
        });
        let kept = try_join_all(kept).await;
        kept.map(|kept| kept.len()).map_err(|error| {
            metrics::hook(source.name.as_str(), "refused");
            refused(&error)
        })
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
                priority: Priority::Norm,
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
pub(crate) mod tests;
