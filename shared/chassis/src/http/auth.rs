//! Bearer tokens: only their digests are stored, so only a digest is looked up.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use futures::future::BoxFuture;

use super::ApiError;

const TOKEN_BYTES_MAX: usize = 1024;
const RETRY_AFTER_SECONDS: u32 = 5;
const CHALLENGE: &str = "Bearer realm=\"tidewaiter\"";

/// Where tokens are known; requests carry it as an `Extension<Arc<dyn Tokens>>`.
pub trait Tokens: Send + Sync {
    /// What a token grants, by the hex digits of its sha256; `None` for a token nobody knows.
    fn find(&self, token_sha256_hex: &str) -> BoxFuture<'_, Result<Option<Grant>, TokensAway>>;
}

/// Nobody can say just now whether a token is known: it is neither accepted nor refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tokens cannot be looked up just now")]
pub struct TokensAway;

/// What a token allows; handlers find it as `Extension<Grant>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The token's name, for logs.
    pub name: String,
    /// The tenant that the token belongs to.
    pub tenant: String,
    /// What it may do, as `scans:write`; `*` is everything.
    pub scopes: Vec<String>,
}

/// A caller's token while his answer goes on: it can be asked again whether it still stands.
/// Handlers of long answers find it as `Extension<Standing>`.
#[derive(Clone)]
pub struct Standing {
    tokens: Arc<dyn Tokens>,
    token_sha256_hex: String,
}

/// The hex digits of a token's sha256: how tokens are stored and found.
pub fn token_digest(token: &str) -> String {
    sha256_hex(token.as_bytes())
}

pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    text
}

// === impl TokensAway ===

impl From<TokensAway> for ApiError {
    fn from(away: TokensAway) -> Self {
        Self::unavailable(away.to_string(), RETRY_AFTER_SECONDS)
            .hint("send the same request again a little later")
    }
}

// === impl Grant ===

impl Grant {
    /// Whether it may do this.
    pub fn allows(&self, scope: &str) -> bool {
        self.scopes.iter().any(|own| own == scope || own == "*")
    }
}

// === impl Standing ===

impl Standing {
    /// That of a token.
    pub fn new(tokens: Arc<dyn Tokens>, token_sha256_hex: String) -> Self {
        Self {
            tokens,
            token_sha256_hex,
        }
    }

    /// That of whoever sends a request, if a token tells it.
    pub(super) fn of(headers: &HeaderMap, extensions: &Extensions) -> Option<Self> {
        let tokens = extensions.get::<Arc<dyn Tokens>>().cloned();
        let token = bearer(headers);
        tokens
            .zip(token)
            .map(|(tokens, token)| Self::new(tokens, token_digest(&token)))
    }

    /// What the token grants now; `None` where it ran out or was revoked.
    pub async fn grant(&self) -> Result<Option<Grant>, TokensAway> {
        self.tokens.find(&self.token_sha256_hex).await
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").finish_non_exhaustive()
    }
}

/// The token of a request (RFC 6750, "Authorization Request Header Field").
pub fn bearer(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values
        .next()
        .filter(|_| values.next().is_none())?
        .to_str()
        .ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    let fits = !token.is_empty() && token.len() <= TOKEN_BYTES_MAX;
    (scheme.eq_ignore_ascii_case("bearer") && fits).then(|| token.to_owned())
}

/// Finds out whether somebody may do what needs a scope. Who calls may be known already.
pub(super) fn permit(
    headers: &HeaderMap,
    extensions: &Extensions,
    scope: &'static str,
) -> impl Future<Output = Result<Grant, ApiError>> + use<> {
    let known = extensions.get::<Grant>().cloned();
    let tokens = extensions.get::<Arc<dyn Tokens>>().cloned();
    let token = bearer(headers);
    async move {
        let grant = match (known, tokens, token) {
            (Some(grant), _, _) => Some(grant),
            (None, Some(tokens), Some(token)) => tokens.find(&token_digest(&token)).await?,
            _ => return Err(unauthorized("this needs a token", "")),
        };
        let grant = grant.ok_or_else(|| {
            unauthorized("nobody knows this token, or it ran out", "invalid_token")
        })?;
        if grant.allows(scope) {
            Ok(grant)
        } else {
            Err(forbidden(&grant, scope))
        }
    }
}

/// 401, with the error code of RFC 6750 where a token was sent.
fn unauthorized(detail: &str, code: &str) -> ApiError {
    let challenge = match code {
        "" => CHALLENGE.to_owned(),
        code => format!("{CHALLENGE}, error=\"{code}\""),
    };
    ApiError::new(StatusCode::UNAUTHORIZED, detail)
        .hint("send `Authorization: Bearer TOKEN`")
        .challenge(&challenge)
}

/// 403.
fn forbidden(grant: &Grant, scope: &str) -> ApiError {
    let detail = format!("token `{}` lacks the scope `{scope}`", grant.name);
    let challenge = format!("{CHALLENGE}, error=\"insufficient_scope\", scope=\"{scope}\"");
    ApiError::new(StatusCode::FORBIDDEN, detail).challenge(&challenge)
}
