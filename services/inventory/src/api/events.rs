//! `GET /v1/events`: news as server-sent events (HTML Living Standard, section 9.2).
//!
//! | event | data | when |
//! |---|---|---|
//! | the kind, as `image.judged` | the CloudEvent as JSON | something happened |
//! | `gap` | `{stream, from, to, next}` | a part that the client has not read is not held any more; reading goes on at `next`. Without `to` the stream never held it: it was made anew, or its server lost its end |
//! | `caught-up` | `{}` | all that was there at the start has been sent; once |
//! | `end` | `{reason, detail}` | this is the last event: `slow`, `token` or `stopping` |
//!
//! Each `id` is a position in all streams of news. Whoever comes back with it as `Last-Event-ID`
//! goes on exactly behind it, at any process. Comments are signs of life; their `id` says that
//! nothing for this client was passed over.
//!
//! A stream is read at the pace of its client, with a bound on what waits in memory. A client that
//! takes nothing is cut off rather than waited for: nothing is lost by it, for the broker keeps what
//! it has not read. Each stream costs the broker up to three consumers in memory; their number is
//! bounded, and so is each tenant's share.

mod frame;
mod places;
mod pump;

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bus::{Begin, Position, Selection};
use chassis::http::{ApiError, Standing};
use futures::{Stream, stream};
use model::{
    Slug,
    event::{Kind, NEWS},
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::{Api, Caller, bad_parameter, permit};

pub(crate) use self::places::Streams;
use self::pump::Pump;

/// Frames that wait for one client.
const WAITING_MAX: usize = 32;
/// When to ask again where something is not there.
const RETRY_SECONDS: u32 = 5;
/// What a browser sends when it comes back.
const LAST_EVENT_ID: &str = "last-event-id";

/// What a client asks for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Kinds, separated by commas; all where none is named.
    kind: Option<String>,
    /// Where to begin: `start`, `now`, a position or a time. `Last-Event-ID` goes before it.
    from: Option<String>,
    /// The caller's own tenant, or nothing.
    tenant: Option<String>,
}

/// `GET /v1/events`.
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    standing: Option<Extension<Standing>>,
    headers: HeaderMap,
    Query(query): Query<EventsQuery>,
) -> Result<Response, ApiError> {
    let tenant = permit(caller)?;
    let begin = begin(&headers, &query)?;
    let selection = selection(&tenant, &query)?;
    let place = Streams::take(&api.events, &tenant).ok_or_else(|| {
        let detail = "there are as many streams of events as this server gives";
        ApiError::unavailable(detail, RETRY_SECONDS)
    })?;
    let away = |detail: String| ApiError::unavailable(detail, RETRY_SECONDS);
    let bus = api
        .bus
        .as_ref()
        .ok_or_else(|| away("no events here".to_owned()))?;
    let news = bus.news(&api.cx, begin, selection).await;
    let news = news.map_err(|error| away(format!("the events cannot be read now: {error}")))?;
    let (frames, waiting) = mpsc::channel(WAITING_MAX);
    let (last, last_frame) = oneshot::channel();
    let pump = Pump {
        cx: api.cx.clone(),
        position: news.position(),
        frames,
        standing: standing.map(|Extension(standing)| standing),
        tenant,
        pace: api.events.pace(),
    };
    api.cx.spawn("inventory.events", async move {
        let end = pump.run(news).await;
        // Whoever holds the place next must not wait for a client that reads nothing any more.
        drop(place);
        if let Some(frame) = frame::end(end) {
            // An error means that the client has gone.
            let _gone = last.send(frame).is_err();
        }
    });
    Ok(response(Body::from_stream(body(waiting, last_frame))))
}

/// What waits for the client, then the last frame, if there is one.
fn body(
    waiting: mpsc::Receiver<Bytes>,
    last: oneshot::Receiver<Bytes>,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    stream::unfold((waiting, Some(last)), async |(mut waiting, last)| {
        if let Some(frame) = waiting.recv().await {
            return Some((Ok(frame), (waiting, last)));
        }
        let frame = last?.await.ok()?;
        Some((Ok(frame), (waiting, None)))
    })
}

fn response(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let mut response = (StatusCode::OK, headers, body).into_response();
    // Some proxies collect an answer before they pass it on, unless they are told.
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn begin(headers: &HeaderMap, query: &EventsQuery) -> Result<Begin, ApiError> {
    if let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
        let position = id.to_str().ok().and_then(|id| id.parse::<Position>().ok());
        return position.map(Begin::After).ok_or_else(|| {
            ApiError::bad_request("`Last-Event-ID` is not the id of an event of this stream")
        });
    }
    let from = query.from.as_deref().unwrap_or("now");
    from.parse().map_err(|error| bad_parameter("from", error))
}

fn selection(tenant: &Slug, query: &EventsQuery) -> Result<Selection, ApiError> {
    if let Some(asked) = &query.tenant
        && asked != tenant.as_str()
    {
        let detail = format!("this token sees the tenant `{tenant}` only");
        return Err(ApiError::new(StatusCode::FORBIDDEN, detail));
    }
    let names = query.kind.as_deref().unwrap_or_default().split(',');
    let names = names.map(str::trim).filter(|name| !name.is_empty());
    let kinds = names
        .map(|name| {
            Kind::find(name).ok_or_else(|| {
                let known: Vec<&str> = NEWS.iter().map(Kind::name).collect();
                let name: String = name.chars().take(80).collect();
                let detail = format!("`{name}` is none of {}", known.join(", "));
                bad_parameter("kind", detail)
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Selection {
        tenant: Some(tenant.clone()),
        kinds,
    })
}

#[cfg(test)]
mod tests;
