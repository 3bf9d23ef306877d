//! Handshakes: bounded in time and number, and an answer for who speaks plain HTTP.
//!
//! Who opens connections and says nothing must not keep others out. So a handshake beyond the
//! number that may go on does not wait: the *oldest* one is given up. One that is meant ends within
//! a few milliseconds, long before it is the oldest.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use opentelemetry::{KeyValue, global, metrics::Counter};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::Tls;
use crate::http::Limits;

/// Handshakes by `outcome`: `done`, `failed`, `plain` (it was plain HTTP), `late`, `crowded_out`.
const HANDSHAKES: &str = "tidewaiter.http.handshakes";
/// With this byte begins every TLS handshake.
const RECORD_OF_HANDSHAKE: u8 = 0x16;
/// So much of a request that we do not want is read, that its sender sees our answer.
const DISCARDED_BYTES_MAX: u64 = 64 * 1024;
const PLAIN: &str = r#"{"detail":"this listener speaks TLS","error":"bad_request","hint":"use `https://`","status":400}"#;

/// Those that go on, in the order in which they began.
#[derive(Default)]
pub(super) struct Handshakes(Mutex<Going>);

#[derive(Default)]
struct Going {
    next: u64,
    /// Dropping one gives it up.
    by_number: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A place among those that go on.
struct Place<'a> {
    handshakes: &'a Handshakes,
    number: u64,
    given_up: oneshot::Receiver<()>,
}

enum Shaken {
    Done(Box<TlsStream<TcpStream>>),
    Plain,
}

// === impl Tls ===

impl Tls {
    /// The connection with TLS on it; `None` where that did not come about.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        limits: &Limits,
    ) -> Option<Box<TlsStream<TcpStream>>> {
        let mut place = self.0.handshakes.begin(limits.handshakes_max);
        let limit = Duration::from_secs(u64::from(limits.handshake_seconds_max));
        let shaken = tokio::select! {
            biased;
            // A sender that is dropped is an error, and it is the sign.
            _ = &mut place.given_up => {
                count("crowded_out");
                return None;
            }
            shaken = timeout(limit, self.shake(stream)) => shaken,
        };
        let (secured, outcome) = match shaken {
            Ok(Ok(Shaken::Done(stream))) => (Some(stream), "done"),
            Ok(Ok(Shaken::Plain)) => (None, "plain"),
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake: {error}");
                (None, "failed")
            }
            Err(_) => (None, "late"),
        };
        count(outcome);
        secured
    }

    async fn shake(&self, mut stream: TcpStream) -> io::Result<Shaken> {
        let mut first = [0];
        stream.peek(&mut first).await?;
        // Methods are written in capitals; what is neither is for TLS to refuse.
        if first[0] != RECORD_OF_HANDSHAKE && first[0].is_ascii_uppercase() {
            refuse_plain(&mut stream).await?;
            return Ok(Shaken::Plain);
        }
        let acceptor = TlsAcceptor::from(self.current().config);
        let stream = Box::pin(acceptor.accept(stream)).await?;
        Ok(Shaken::Done(Box::new(stream)))
    }
}

/// Tells who speaks plain HTTP what to do instead.
async fn refuse_plain(stream: &mut TcpStream) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{PLAIN}",
        PLAIN.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // What is left unread when the socket closes would take our answer with it.
    let mut rest = stream.take(DISCARDED_BYTES_MAX);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Counts how a handshake ended.
fn count(outcome: &'static str) {
    static COUNTER: OnceLock<Counter<u64>> = OnceLock::new();
    let counter = COUNTER.get_or_init(|| {
        global::meter("chassis")
            .u64_counter(HANDSHAKES)
            .with_unit("{handshake}")
            .with_description("TLS handshakes of the listener")
            .build()
    });
    counter.add(1, &[KeyValue::new("outcome", outcome)]);
}

// === impl Handshakes ===

impl Handshakes {
    /// Begins one; the oldest makes room for it where there is none.
    fn begin(&self, max: usize) -> Place<'_> {
        let (sign, given_up) = oneshot::channel();
        let mut going = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = going.next;
        going.next = number.wrapping_add(1);
        while going.by_number.len() >= max.max(1) {
            going.by_number.pop_first();
        }
        going.by_number.insert(number, sign);
        Place {
            handshakes: self,
            number,
            given_up,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut going = self.handshakes.0.lock();
        let going = going.as_mut().unwrap_or_else(|error| error.get_mut());
        going.by_number.remove(&self.number);
    }
}
