//! Accepting connections, with limits on what a slow or greedy client can hold.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tower::ServiceExt as _;

use super::{layers, tls::Tls};
use crate::Cx;

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_field_names,
    reason = "what a bound is of comes first, `max` last"
)]
pub struct Limits {
    /// Bytes of a request's body, where a route has no limit of its own.
    pub body_bytes_max: usize,
    /// Seconds until TLS is agreed upon.
    pub handshake_seconds_max: u32,
    /// Connections that may be agreeing upon TLS at the same time; the oldest makes room.
    pub handshakes_max: usize,
    /// Seconds until a request's head is complete, and until a connection has its first request.
    pub head_seconds_max: u32,
    /// Seconds between two pieces of a request's body.
    pub body_idle_seconds_max: u32,
    /// Seconds until the answer begins; longer than the longest wait that the API offers.
    pub request_seconds_max: u32,
    /// Connections at the same time; further ones wait to be accepted.
    pub connections_max: usize,
    /// Seconds that requests may go on when the process stops.
    pub drain_seconds_max: u32,
}

/// The server.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// What a client may use.
    pub limits: Limits,
    /// Where the listener speaks TLS.
    pub tls: Option<Tls>,
}

/// [`Server::serve`] with the default limits, without TLS.
pub async fn serve(cx: &Cx, listener: TcpListener, router: Router) {
    Server::default().serve(cx, listener, router).await;
}

// === impl Server ===

impl Server {
    /// Answers requests until the context stops and what is being answered has ended.
    pub async fn serve(&self, cx: &Cx, listener: TcpListener, router: Router) {
        let router = layers::wrap(router, &self.limits);
        let permits = Arc::new(Semaphore::new(self.limits.connections_max.max(1)));
        let mut connections = JoinSet::new();
        while let Some((stream, permit)) = accept(cx, &listener, &permits).await {
            // Ended connections are let go as new ones come, so the set stays bounded.
            while connections.try_join_next().is_some() {}
            let (server, cx, router) = (self.clone(), cx.clone(), router.clone());
            connections.spawn(async move {
                server.connection(&cx, stream, router).await;
                drop(permit);
            });
        }
        drop(listener);
        let drain = Duration::from_secs(u64::from(self.limits.drain_seconds_max));
        let ended = timeout(drain, async {
            while connections.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            let left = connections.len();
            tracing::warn!(
                connections = left,
                "{left} connections cut off after {drain:?}"
            );
        }
    }

    async fn connection(&self, cx: &Cx, stream: TcpStream, router: Router) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "setting TCP_NODELAY: {error}");
        }
        let Some(tls) = &self.tls else {
            return answer(cx, stream, router, &self.limits).await;
        };
        let stream = tokio::select! {
            stream = tls.accept(stream, &self.limits) => stream,
            () = cx.stopped() => None,
        };
        if let Some(stream) = stream {
            answer(cx, stream, router, &self.limits).await;
        }
    }
}

type Permit = tokio::sync::OwnedSemaphorePermit;

/// The next connection; `None` when stopping.
async fn accept(
    cx: &Cx,
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, Permit)> {
    let next = async {
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, permit)),
                Err(error) => {
                    // Mostly: too many open files. Others may close some meanwhile.
                    tracing::warn!(%error, "accepting a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = cx.stopped() => None,
        accepted = next => accepted,
    }
}

/// Answers the requests of a connection.
async fn answer<I>(cx: &Cx, stream: I, router: Router, limits: &Limits)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let begun = Arc::new(Notify::new());
    let first = Arc::clone(&begun);
    let service = TowerToHyperService::new(router.map_request(move |request: Request<_>| {
        first.notify_one();
        request.map(axum::body::Body::new)
    }));
    let head = Duration::from_secs(u64::from(limits.head_seconds_max));
    let builder = protocols(head);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // hyper waits for ever for the bytes that tell HTTP/2 from HTTP/1.
    let no_request = async {
        if timeout(head, begun.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = no_request => Ok(()),
        () = cx.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // A client that goes away is no event.
        tracing::debug!(%error, "connection ended: {error}");
    }
}

/// HTTP/1 and HTTP/2, with what a client may take of each.
fn protocols(head: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_headers(100);
    builder.http1().max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(head)
        .keep_alive_timeout(head);
    builder
        .http2()
        .max_concurrent_streams(128)
        .max_header_list_size(32 * 1024);
    builder
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1024 * 1024,
            handshake_seconds_max: 10,
            handshakes_max: 512,
            head_seconds_max: 10,
            body_idle_seconds_max: 10,
            request_seconds_max: 330,
            connections_max: 4096,
            drain_seconds_max: 10,
        }
    }
}
