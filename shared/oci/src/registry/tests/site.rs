//! A server that answers as a function says, over real sockets, and remembers what it was asked.

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderValue, Response, StatusCode, header},
};
use chassis::Cx;
use futures::{StreamExt as _, stream};
use model::Digest;

use crate::Descriptor;

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: String,
    /// The first byte wanted.
    pub(super) from: Option<usize>,
    pub(super) authorization: Option<String>,
}

pub(super) type Answer = Response<Body>;

pub(super) struct Site {
    pub(super) host: String,
    cx: Cx,
    seen: Arc<Mutex<Vec<Seen>>>,
    busy_max: Arc<AtomicUsize>,
}

impl Site {
    /// `answer` gets the request and how many came before it.
    pub(super) async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Seen, usize) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Answer> + Send,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (busy, busy_max) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let (log, most) = (Arc::clone(&seen), Arc::clone(&busy_max));
        let router = Router::new().fallback(move |request: Request| {
            let (log, most, busy) = (Arc::clone(&log), Arc::clone(&most), Arc::clone(&busy));
            let answer = answer.clone();
            async move {
                let now = busy.fetch_add(1, Ordering::SeqCst) + 1;
                AtomicUsize::fetch_max(&most, now, Ordering::SeqCst);
                let (request, number) = {
                    let mut log = log.lock().unwrap();
                    log.push(seen_in(&request));
                    (seen_in(&request), log.len() - 1)
                };
                let answered = answer(request, number).await;
                busy.fetch_sub(1, Ordering::SeqCst);
                answered
            }
        });
        let cx = Cx::for_tests();
        let stop = cx.clone();
        cx.spawn("site", async move {
            let stopped = async move { stop.stopped().await };
            let serving = axum::serve(listener, router).with_graceful_shutdown(stopped);
            serving.await.unwrap();
        });
        Self {
            host,
            cx,
            seen,
            busy_max,
        }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// First bytes that were asked for.
    pub(super) fn ranges(&self) -> Vec<usize> {
        let seen = self.seen();
        seen.iter().map(|seen| seen.from.unwrap_or(0)).collect()
    }

    /// How many requests were answered at the same time at most.
    pub(super) fn busy_max(&self) -> usize {
        self.busy_max.load(Ordering::SeqCst)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.cx.stop();
    }
}

fn seen_in(request: &Request) -> Seen {
    let text = |name| {
        let value = request.headers().get(name)?;
        value.to_str().ok().map(ToOwned::to_owned)
    };
    let from = text(header::RANGE).and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    });
    Seen {
        path: request.uri().path().to_owned(),
        from,
        authorization: text(header::AUTHORIZATION),
    }
}

/// Bytes that do not repeat within any read.
pub(super) fn bytes(count: u32) -> Vec<u8> {
    (0..count).flat_map(u32::to_be_bytes).collect()
}

pub(super) fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        media_type: String::new(),
    }
}

pub(super) fn whole(bytes: impl Into<Body>) -> Answer {
    Response::new(bytes.into())
}

pub(super) fn status(status: StatusCode, headers: &[(&'static str, &str)]) -> Answer {
    let mut answer = whole("");
    *answer.status_mut() = status;
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).unwrap();
        answer.headers_mut().insert(*name, value);
    }
    answer
}

/// The part from `start` on as registries answer to a range, cut off before the byte `cut`.
pub(super) fn part(bytes: &[u8], start: Option<usize>, cut: usize) -> Answer {
    let from = start.unwrap_or(0);
    let given = Bytes::copy_from_slice(&bytes[from..cut.max(from)]);
    let broken = stream::once(async {
        // What was sent before shall arrive.
        tokio::time::sleep(Duration::from_millis(30)).await;
        Err(std::io::Error::other("cut"))
    });
    let is_cut = cut < bytes.len();
    let parts = stream::once(async { Ok(given) })
        .chain(broken)
        .take(if is_cut { 2 } else { 1 });
    let mut answer = whole(Body::from_stream(parts));
    if let Some(from) = start {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
        let range = HeaderValue::from_str(&range).unwrap();
        answer.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    answer
}
