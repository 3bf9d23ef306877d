//! Senders of webhooks: who may speak, and what they say. One file per sender.

mod distribution;
mod generic;

use axum::http::{HeaderMap, header};
use chassis::Secret;
use jiff::{SignedDuration, Timestamp};
use model::{Digest, ImageRef};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Characters that are kept of a text that may be anything.
const TEXT_CHARS_MAX: usize = 200;

/// Understands one kind of sender.
pub(crate) trait Decoder: Send + Sync {
    /// As in a source's `kind`.
    fn kind(&self) -> &'static str;
    /// Whether it signs with its secret, so that the secret's hash is not enough to know it by.
    fn signs(&self) -> bool;
    /// How it proves who it is, for who failed to.
    fn how(&self) -> &'static str;
    /// Whether the request comes from who knows the source's secret. The body is as it arrived,
    /// for senders that sign it.
    fn authenticate(&self, request: &HookRequest<'_>, secrets: &Secrets)
    -> Result<Proof, Unproven>;
    /// What the request tells of images; nothing where it tells of other things.
    fn decode(&self, request: &HookRequest<'_>, events_max: usize) -> Result<Heard, Undecodable>;
}

/// Every sender that we understand.
pub(crate) static DECODERS: &[&dyn Decoder] = &[&distribution::Distribution, &generic::Generic];

/// A request as it arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HookRequest<'a> {
    /// The headers.
    pub(crate) headers: &'a HeaderMap,
    /// The body.
    pub(crate) body: &'a [u8],
    /// When it arrived.
    pub(crate) now: Timestamp,
    /// How far its own time may be from ours, where it has one.
    pub(crate) age_max: SignedDuration,
}

/// What proved who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A secret that comes with every request.
    Token,
    /// A signature of this request, named by what was signed: it counts once.
    Signature(Digest),
}

/// Why a request does not prove who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unproven {
    /// No secret, or a wrong one.
    Wrong,
    /// Its signature is right, and was made too long ago or is from the future.
    Stale,
}

/// What a sender may prove its identity with. Any will do where there are several.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets {
    /// The secrets themselves.
    pub(crate) plain: Vec<Secret>,
    /// Its sha256, which is enough for senders that send the secret and do not sign with it.
    pub(crate) sha256: Option<Digest>,
}

/// What a request tells: a broken event costs nothing but itself.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) told: Vec<Told>,
    pub(crate) broken: Vec<Broken>,
}

/// An event that cannot be understood.
#[derive(Debug)]
pub(crate) struct Broken {
    /// Its place in the request, from 0.
    pub(crate) at: usize,
    /// The sender's own id of it, if it has one.
    pub(crate) id: Option<String>,
    pub(crate) why: Undecodable,
}

/// One thing that a sender tells of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(crate) struct Told {
    pub(crate) what: Happened,
    /// A repository's name, as references may have it.
    pub(crate) repository: String,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<Digest>,
    /// The sender's own id of the event, which is the same when it sends it again.
    pub(crate) sender_id: Option<String>,
    pub(crate) occurred_at: Option<Timestamp>,
}

/// What happened to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(crate) enum Happened {
    Pushed,
    Deleted,
}

/// Why an authenticated request, or an event in it, tells us nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undecodable {
    #[error("it is not what this kind of source sends: {0}")]
    Form(String),
    #[error("it has {found} events, more than {max}")]
    TooMany { found: usize, max: usize },
    #[error("it names `{0}`, which no reference can have")]
    Name(String),
}

/// The decoder of a kind of source.
pub(crate) fn of_kind(kind: &str) -> Option<&'static dyn Decoder> {
    DECODERS
        .iter()
        .copied()
        .find(|decoder| decoder.kind() == kind)
}

/// The bearer token of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Understands one event after the other; `told` gives nothing where one does not concern us.
pub(crate) fn each<E: DeserializeOwned>(
    events: Vec<Value>,
    events_max: usize,
    told: impl Fn(E) -> Result<Option<Told>, Undecodable>,
) -> Result<Heard, Undecodable> {
    let found = events.len();
    if found > events_max {
        return Err(Undecodable::TooMany {
            found,
            max: events_max,
        });
    }
    let mut heard = Heard::default();
    for (at, event) in events.into_iter().enumerate() {
        let id = event.get("id").and_then(Value::as_str).map(clip);
        let read = serde_json::from_value(event);
        let read = read.map_err(|error| Undecodable::Form(error.to_string()));
        match read.and_then(&told) {
            Ok(event) => heard.told.extend(event),
            Err(why) => heard.broken.push(Broken { at, id, why }),
        }
    }
    Ok(heard)
}

/// Checks that names are such as references can have, so that nothing else gets any further.
pub(crate) fn check_names(repository: &str, tag: Option<&str>) -> Result<(), Undecodable> {
    let name = format!("registry.invalid/{repository}:{}", tag.unwrap_or("latest"));
    let fits = |parsed: ImageRef| {
        parsed.repository == repository && tag.is_none_or(|tag| parsed.tag.as_deref() == Some(tag))
    };
    if name.parse().is_ok_and(fits) {
        Ok(())
    } else {
        let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
        Err(Undecodable::Name(
            format!("{repository}{tag}").chars().take(200).collect(),
        ))
    }
}

// === impl Broken ===

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "event {}", self.at)?;
        if let Some(id) = &self.id {
            write!(f, " (`{id}`)")?;
        }
        write!(f, ": {}", self.why)
    }
}

// === impl Secrets ===

impl Secrets {
    /// Whether a sender can prove anything at all.
    pub(crate) const fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.sha256.is_none()
    }

    /// Whether `token` is one of the secrets. Digests are compared, in constant time and all of
    /// them, so that neither the length nor the beginning of a secret shows in the time it takes.
    pub(crate) fn are_token(&self, token: &str) -> bool {
        let token = Digest::of(token.as_bytes());
        let plain = self.plain.iter();
        let plain = plain.map(|secret| Some(Digest::of(secret.expose().as_bytes())));
        plain.chain([self.sha256]).fold(false, |found, known| {
            let known = known.as_ref().unwrap_or(&NOTHING);
            let fits = same(known, &token);
            found || (fits && *known != NOTHING)
        })
    }
}

/// Stands in where there is no secret, so that the work is the same.
const NOTHING: Digest = Digest::from_bytes([0; 32]);

fn same(left: &Digest, right: &Digest) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(left.as_bytes(), right.as_bytes()).is_ok()
}

/// Text of a sender that is kept: at most so many characters of it.
fn clip(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
