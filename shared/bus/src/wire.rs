//! One connection to NATS and the few requests that everything else is made of: store a message,
//! read the last one of a subject, ask the `JetStream` API.
//!
//! Every request waits for the connection first and has a deadline. A message is never put into
//! the client's buffer while the connection is down: it would be sent long after its caller gave
//! up.

use std::{collections::VecDeque, str::FromStr, sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectOptions, Event, HeaderMap, HeaderName, HeaderValue, Message, Request,
    RequestErrorKind, ServerError, StatusCode, Subject,
};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use url::Url;

use crate::{
    config::Config, credentials::Credential, envelope::Headers, error::BusError, permissions,
    random, tls,
};

/// How long one request may take.
pub(crate) const REQUEST: Duration = Duration::from_secs(5);
/// How long requests that change nothing are repeated.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between attempts.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

/// How many denials are remembered: more than can come at the same moment.
const DENIALS_MAX: usize = 64;

/// `JetStream`'s code for a compare-and-set that lost.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10_071, 10_070];
/// Codes of a stream that takes no more: messages, bytes, message per subject, storage.
const FULL: [u64; 4] = [10_077, 10_122, 10_047, 10_023];

/// A connection; cheap to clone.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) client: Client,
    link: watch::Receiver<Link>,
    denials: watch::Receiver<Denials>,
    shown_url: Arc<str>,
    /// Who this is, for people.
    who: Arc<str>,
}

/// The state of the connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    /// Grows with each connection made.
    pub(crate) number: u64,
    pub(crate) up: bool,
    /// When the connection was made.
    pub(crate) since: Option<Instant>,
    problem: Option<String>,
    /// Why a server could not be reached; events name only the kind of error.
    cause: Option<String>,
}

/// What the server did not allow lately. It tells the connection and not who asked.
#[derive(Debug, Default)]
struct Denials {
    /// How many there were.
    count: u64,
    /// The last ones: number and subject.
    last: VecDeque<(u64, String)>,
}

/// Where a message was stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
}

/// A message as a stream holds it.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub(crate) sequence: u64,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
}

impl Raw {
    /// When the server stored it, as far as the answer says.
    pub(crate) fn stored_at(&self) -> Option<Timestamp> {
        self.headers.get("Nats-Time-Stamp")?.parse().ok()
    }
}

/// Why a request has no answer, or not the one that was wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("not connected to nats-server")]
    Down,
    #[error("no answer within {} s", REQUEST.as_secs())]
    TimedOut,
    #[error("nobody answers: the stream is missing or not ready")]
    NoResponders,
    #[error("written by another")]
    WrongLastSequence,
    #[error("the stream is full: {0}")]
    Full(String),
    #[error("the stream was made anew")]
    Anew,
    #[error("nats-server does not let `{who}` publish on `{subject}`")]
    Denied { who: Arc<str>, subject: String },
    #[error("refused: {text} (error code {code})")]
    Refused { code: u64, text: String },
    #[error("{0}")]
    Other(String),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    code: u64,
    #[serde(default)]
    description: String,
}

// === impl Wire ===

impl Wire {
    /// Starts connecting, and goes on trying for ever.
    pub(crate) async fn open(config: &Config, name: &str) -> Result<Self, BusError> {
        let (address, shown_url, user) = addresses(config)?;
        let credential = config.credentials_file.as_deref();
        let credential = credential.map(Credential::read).transpose()?;
        let (report, link) = watch::channel(Link::default());
        let (deny, denials) = watch::channel(Denials::default());
        // Without the number of the process and of the connection.
        let who: Arc<str> = name.split(' ').next().unwrap_or_default().into();
        let of_events = Arc::clone(&who);
        let mut options = ConnectOptions::new()
            .name(name)
            .custom_inbox_prefix(inbox(config, credential.as_ref(), name))
            .retry_on_initial_connect()
            .connection_timeout(REQUEST)
            .ping_interval(Duration::from_secs(10))
            .reconnect_delay_callback(reconnect_delay)
            .reconnect_to_server_callback({
                let report = report.clone();
                move |servers, _| {
                    note_causes(&report, &servers);
                    std::future::ready(None)
                }
            })
            .event_callback(move |event| {
                note(&report, &event);
                note_denial(&deny, &of_events, &event);
                std::future::ready(())
            });
        if let Some((user, password)) = user {
            options = options.user_and_password(user, password);
        }
        options = tls::apply(options, config, &address)?;
        options = match credential {
            Some(Credential::Seed { seed, .. }) => options.nkey(seed.expose().to_owned()),
            Some(Credential::Jwt(text)) => {
                let read = options.credentials(text.expose());
                read.map_err(|source| BusError::Io {
                    what: "the credentials".to_owned(),
                    source,
                })?
            }
            None => options,
        };
        let client = options
            .connect(address)
            .await
            .map_err(|error| BusError::Unreachable {
                url: shown_url.clone(),
                cause: error.to_string(),
            })?;
        Ok(Self {
            client,
            link,
            denials,
            shown_url: shown_url.into(),
            who,
        })
    }

    /// Waits until there is a connection.
    pub(crate) async fn connected(&self, deadline: Duration) -> Result<(), BusError> {
        if self.up(deadline).await {
            return Ok(());
        }
        let link = self.link.borrow().clone();
        let cause = link
            .cause
            .or(link.problem)
            .unwrap_or_else(|| format!("no answer within {} s", deadline.as_secs()));
        let cause = tls::with_advice(cause);
        Err(BusError::Unreachable {
            url: self.shown_url.to_string(),
            cause,
        })
    }

    /// Whether there is a connection now.
    pub(crate) fn is_up(&self) -> bool {
        self.link.borrow().up
    }

    /// The state of the connection, to watch.
    pub(crate) fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// Waits until there is a connection. False: not in time.
    pub(crate) async fn up(&self, deadline: Duration) -> bool {
        if self.is_up() {
            return true;
        }
        let mut link = self.link.clone();
        matches!(
            timeout(deadline, link.wait_for(|link| link.up)).await,
            Ok(Ok(_))
        )
    }

    /// One request, one answer.
    pub(crate) async fn call(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        body: Bytes,
    ) -> Result<Message, WireError> {
        let deadline = Instant::now() + REQUEST;
        if !self.up(REQUEST).await {
            return Err(WireError::Down);
        }
        let mut request = Request::new().payload(body).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let subject = Subject::from(subject);
        let mut denials = self.denials.clone();
        let before = denials.borrow_and_update().count;
        let answer = tokio::select! {
            answer = timeout_at(
                deadline,
                self.client.send_request(subject.clone(), request),
            ) => answer,
            Ok(_) = denials.wait_for(|denials| denials.have(&subject, before)) => {
                return Err(WireError::Denied {
                    who: Arc::clone(&self.who),
                    subject: subject.to_string(),
                });
            }
        };
        match answer {
            Err(_) => Err(WireError::TimedOut),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::TimedOut => WireError::TimedOut,
                RequestErrorKind::NoResponders => WireError::NoResponders,
                _ => WireError::Other(error.to_string()),
            }),
            Ok(Ok(message)) => Ok(message),
        }
    }

    /// Stores a message, one attempt. After [`WireError::TimedOut`] it may be stored.
    pub(crate) async fn store(
        &self,
        subject: &str,
        headers: &Headers,
        body: Bytes,
    ) -> Result<Stored, WireError> {
        let reply = self
            .call(subject.to_owned(), Some(header_map(headers)), body)
            .await?;
        let answer: Answer = serde_json::from_slice(&reply.payload)
            .map_err(|error| WireError::Other(format!("answer to a publish: {error}")))?;
        match answer.error {
            Some(error) => Err(error.into()),
            None => Ok(Stored {
                sequence: answer.seq,
            }),
        }
    }

    /// The last message of a subject. Tried again while there is no answer.
    pub(crate) async fn last(&self, stream: &str, subject: &str) -> Result<Option<Raw>, WireError> {
        let asked = format!("$JS.API.DIRECT.GET.{stream}.{subject}");
        self.read(asked, Bytes::new()).await
    }

    /// A message by its sequence, or the first of a subject from a sequence on. Tried again while
    /// there is no answer.
    pub(crate) async fn direct(
        &self,
        stream: &str,
        which: &Value,
    ) -> Result<Option<Raw>, WireError> {
        let asked = format!("$JS.API.DIRECT.GET.{stream}");
        self.read(asked, Bytes::from(which.to_string())).await
    }

    async fn read(&self, asked: String, body: Bytes) -> Result<Option<Raw>, WireError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.call(asked.clone(), None, body.clone()).await {
                Ok(message) if message.status == Some(StatusCode::NOT_FOUND) => return Ok(None),
                Ok(message) => return raw(message).map(Some),
                Err(error) if error.is_transient() && Instant::now() < deadline => {
                    sleep(random::jitter(PAUSE)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks the `JetStream` API. Tried again while there is no answer: what is asked here may be
    /// done twice.
    pub(crate) async fn api(&self, subject: &str, body: &Value) -> Result<Value, WireError> {
        let deadline = Instant::now() + PATIENCE;
        let asked = format!("$JS.API.{subject}");
        let body = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        loop {
            let error = match self.call(asked.clone(), None, body.clone()).await {
                Ok(message) => return api_answer(&message.payload),
                Err(error) => error,
            };
            if !error.is_transient() || Instant::now() >= deadline {
                return Err(error);
            }
            sleep(random::jitter(PAUSE)).await;
        }
    }

    /// Publishes without waiting for an answer: acknowledgments.
    pub(crate) async fn send(&self, subject: Subject, body: Bytes) {
        let sent = timeout(REQUEST, self.client.publish(subject, body)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!("an acknowledgment could not be sent; its message will come again");
        }
    }

    /// Waits until what was sent is with the server.
    pub(crate) async fn flush(&self) -> Result<(), WireError> {
        match timeout(REQUEST, self.client.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(WireError::Other(error.to_string())),
            Err(_) => Err(WireError::TimedOut),
        }
    }
}

#[cfg(test)]
impl Wire {
    /// Waits until the server denied a subject.
    pub(crate) async fn denied(&self, subject: &str) -> bool {
        let mut denials = self.denials.clone();
        let denied = denials.wait_for(|denials| denials.have(subject, 0));
        timeout(REQUEST, denied).await.is_ok()
    }

    /// How often the server denied something.
    pub(crate) fn denied_so_far(&self) -> u64 {
        self.denials.borrow().count
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire")
            .field("url", &self.shown_url)
            .finish_non_exhaustive()
    }
}

// === impl Denials ===

impl Denials {
    /// Whether a subject was denied after so many others.
    fn have(&self, subject: &str, before: u64) -> bool {
        let mut last = self.last.iter();
        last.any(|(number, denied)| *number > before && denied == subject)
    }

    fn push(&mut self, subject: &str) {
        self.count += 1;
        self.last.truncate(DENIALS_MAX - 1);
        self.last.push_front((self.count, subject.to_owned()));
    }
}

// === impl WireError ===

impl WireError {
    /// In a word, for metrics.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Down | Self::NoResponders => "unavailable",
            Self::TimedOut => "timeout",
            Self::WrongLastSequence => "conflict",
            Self::Full(_) => "full",
            Self::Anew => "anew",
            Self::Denied { .. } => "denied",
            Self::Refused { .. } => "refused",
            Self::Other(_) => "_OTHER",
        }
    }

    /// Whether the same request may be answered a little later.
    pub(crate) const fn is_transient(&self) -> bool {
        match self {
            Self::Down | Self::TimedOut | Self::NoResponders => true,
            Self::Refused { code, .. } => *code == 10_008 || *code == 10_074,
            Self::WrongLastSequence
            | Self::Full(_)
            | Self::Anew
            | Self::Denied { .. }
            | Self::Other(_) => false,
        }
    }

    /// With what was asked.
    pub(crate) fn about(self, what: &str) -> BusError {
        match self {
            Self::Refused { code, text } => BusError::Refused {
                what: what.to_owned(),
                code,
                text,
            },
            Self::Denied { .. } => BusError::Denied(self.to_string()),
            other => BusError::Unreachable {
                url: what.to_owned(),
                cause: other.to_string(),
            },
        }
    }
}

impl From<ApiError> for WireError {
    fn from(error: ApiError) -> Self {
        let code = if error.err_code == 0 {
            error.code
        } else {
            error.err_code
        };
        match code {
            code if WRONG_LAST_SEQUENCE.contains(&code) => Self::WrongLastSequence,
            code if FULL.contains(&code) => Self::Full(error.description),
            code => Self::Refused {
                code,
                text: error.description,
            },
        }
    }
}

// === impl Headers ===

/// A NATS message's headers as ours.
pub(crate) fn headers(map: Option<&HeaderMap>) -> Headers {
    let pairs = map.into_iter().flat_map(HeaderMap::iter);
    pairs
        .filter_map(|(name, values)| {
            let name: &str = name.as_ref();
            values
                .first()
                .map(|value| (name.to_owned(), value.as_str().to_owned()))
        })
        .collect()
}

/// Ours as NATS headers. What NATS cannot carry is left out: names and values of ours always fit.
pub(crate) fn header_map(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers.iter() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_str(name), HeaderValue::from_str(value)) {
            map.append(name, value);
        }
    }
    map
}

fn raw(message: Message) -> Result<Raw, WireError> {
    let headers = headers(message.headers.as_ref());
    match headers
        .get("Nats-Sequence")
        .and_then(|text| text.parse().ok())
    {
        Some(sequence) => Ok(Raw {
            sequence,
            headers,
            body: message.payload,
        }),
        None => Err(WireError::Other(format!(
            "answer without a sequence: {:?} {}",
            message.status,
            message.description.unwrap_or_default()
        ))),
    }
}

fn api_answer(payload: &[u8]) -> Result<Value, WireError> {
    let mut value: Value = serde_json::from_slice(payload)
        .map_err(|error| WireError::Other(format!("answer of the API: {error}")))?;
    match value.get_mut("error").map(Value::take) {
        Some(error) => Err(serde_json::from_value::<ApiError>(error)
            .map_or_else(|error| WireError::Other(error.to_string()), WireError::from)),
        None => Ok(value),
    }
}

fn reconnect_delay(attempts: usize) -> Duration {
    let doubled = 10_u64.saturating_mul(1 << attempts.min(8));
    random::jitter(Duration::from_millis(doubled.min(2_000)))
}

/// Servers without credentials, the same for people, and the credentials.
type Addresses = (Vec<String>, String, Option<(String, String)>);

fn addresses(config: &Config) -> Result<Addresses, BusError> {
    let text = config.url.as_deref().unwrap_or("nats://127.0.0.1:4222");
    let (mut servers, mut user) = (Vec::new(), None);
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let whole = if part.contains("://") {
            part.to_owned()
        } else {
            format!("nats://{part}")
        };
        let mut url = Url::parse(&whole).map_err(|error| BusError::Unreachable {
            url: "(not an address)".to_owned(),
            cause: error.to_string(),
        })?;
        if !url.username().is_empty() {
            let password = url.password().unwrap_or_default().to_owned();
            user = Some((url.username().to_owned(), password));
        }
        if url.set_username("").is_ok() && url.set_password(None).is_ok() {
            servers.push(url.to_string());
        }
    }
    let shown = servers.join(",");
    Ok((servers, shown, user))
}

/// What the subjects of answers begin with: the one that only this key's holder may subscribe to,
/// else a name for people.
fn inbox(config: &Config, credential: Option<&Credential>, name: &str) -> String {
    match (&config.inbox_prefix, credential) {
        (Some(prefix), _) => prefix.clone(),
        (None, Some(Credential::Seed { public_key, .. })) => permissions::inbox(public_key),
        (None, _) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            let token = name.chars().map(|c| if plain(c) { c } else { '_' });
            format!("_INBOX_{}", token.collect::<String>())
        }
    }
}

/// Keeps why servers could not be reached.
fn note_causes(report: &watch::Sender<Link>, servers: &[async_nats::Server]) {
    let mut causes = servers
        .iter()
        .filter_map(|server| server.last_error.clone());
    if let Some(cause) = causes.next_back() {
        report.send_modify(|link| link.cause = Some(plain(cause)));
    }
}

/// What the server's words mean.
fn plain(text: String) -> String {
    if text.contains("authorization violation") {
        "it does not know this key, user or password".to_owned()
    } else {
        text
    }
}

/// Keeps the state of the connection, and says what an operator must know.
fn note(report: &watch::Sender<Link>, event: &Event) {
    match event {
        Event::Connected => {
            report.send_modify(|link| {
                (link.up, link.number) = (true, link.number + 1);
                link.since = Some(Instant::now());
            });
            tracing::info!("connected to nats-server");
        }
        Event::Disconnected | Event::Closed => {
            report.send_modify(|link| (link.up, link.since) = (false, None));
            tracing::info!("disconnected from nats-server");
        }
        Event::SlowConsumer(_) => tracing::warn!("a subscription is too slow and lost messages"),
        Event::ServerError(_) | Event::ClientError(_) => {
            let problem = plain(event.to_string());
            report.send_modify(|link| link.problem = Some(problem));
            tracing::debug!("nats: {event}");
        }
        Event::LameDuckMode | Event::Draining => tracing::debug!("nats: {event}"),
    }
}

/// Tells who waits for an answer that none will come, and says what an operator must know.
fn note_denial(deny: &watch::Sender<Denials>, who: &str, event: &Event) {
    let Event::ServerError(ServerError::Other(text)) = event else {
        return;
    };
    let Some((what, subject)) = denial(text) else {
        return;
    };
    tracing::error!(
        subject,
        "nats-server does not let `{who}` {what} `{subject}`: its credential has no right to it"
    );
    deny.send_modify(|denials| denials.push(subject));
}

/// What was denied, and its subject.
fn denial(text: &str) -> Option<(&'static str, &str)> {
    let (_, denied) = text.split_once("ermissions Violation for ")?;
    let (what, rest) = denied.split_once(" to \"")?;
    let (subject, _) = rest.split_once('"')?;
    let what = if what.starts_with("Publish") {
        "publish on"
    } else {
        "subscribe to"
    };
    Some((what, subject))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_told_with_its_subject() {
        let check = |text| denial(text).unwrap();
        let text = r#"Permissions Violation for Publish to "$KV.tw_refs.a""#;
        assert_eq!(check(text), ("publish on", "$KV.tw_refs.a"));
        let text = r#"Permissions Violation for Subscription to "tw.>" using queue "q""#;
        assert_eq!(check(text), ("subscribe to", "tw.>"));
        assert_eq!(denial("Unknown Protocol Operation"), None);
    }

    #[test]
    fn credentials_leave_the_address() {
        let config = Config {
            url: Some("nats://me:pw@h1:4222, h2:4223".to_owned()),
            ..Config::default()
        };
        let (servers, shown, user) = addresses(&config).unwrap();
        assert_eq!(servers, ["nats://h1:4222", "nats://h2:4223"]);
        insta::assert_snapshot!(shown, @"nats://h1:4222,nats://h2:4223");
        assert_eq!(user, Some(("me".to_owned(), "pw".to_owned())));
    }

    #[test]
    fn reconnecting_backs_off() {
        assert!(reconnect_delay(0) <= Duration::from_millis(10));
        assert!((1..100).all(|n| reconnect_delay(n) <= Duration::from_secs(2)));
    }
}
