//! Bearer tokens: only their digests are stored, so only a digest is looked up.

use std::{
    convert::Infallible,
    fmt::{self, Write as _},
    sync::Arc,
    task::{Context, Poll},
};

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::future::BoxFuture;
use tower::{Layer, Service};

use super::ApiError;

const TOKEN_BYTES_MAX: usize = 1024;
const RETRY_AFTER_SECONDS: u32 = 5;
const CHALLENGE: &str = "Bearer realm=\"tidewaiter\"";

/// Where tokens are known.
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

/// Lets through who has a token with a scope; made by [`require`].
#[derive(Clone)]
pub struct Require {
    tokens: Arc<dyn Tokens>,
    scope: &'static str,
}

/// [`Require`] around a service.
#[derive(Clone)]
pub struct RequireService<S> {
    inner: S,
    require: Require,
}

/// A layer that lets through requests with a bearer token that has `scope`, and puts its [`Grant`]
/// into the request's extensions. Others get 401 or 403.
pub fn require(tokens: Arc<dyn Tokens>, scope: &'static str) -> Require {
    Require { tokens, scope }
}

/// The hex digits of a token's sha256: how tokens are stored and found.
pub fn token_digest(token: &str) -> String {
    let digest = digest(&SHA256, token.as_bytes());
    digest
        .as_ref()
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
            text
        })
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

// === impl Require ===

impl Require {
    async fn check(&self, token: Option<String>) -> Result<Grant, ApiError> {
        let Some(token) = token else {
            return Err(unauthorized("this needs a token", CHALLENGE));
        };
        let grant = self.tokens.find(&token_digest(&token)).await?;
        let grant = grant.ok_or_else(|| {
            let challenge = format!("{CHALLENGE}, error=\"invalid_token\"");
            unauthorized("nobody knows this token, or it ran out", &challenge)
        })?;
        if !grant.allows(self.scope) {
            let detail = format!("token `{}` lacks the scope `{}`", grant.name, self.scope);
            let challenge = format!(
                "{CHALLENGE}, error=\"insufficient_scope\", scope=\"{}\"",
                self.scope
            );
            return Err(ApiError::new(StatusCode::FORBIDDEN, detail).challenge(&challenge));
        }
        Ok(grant)
    }
}

impl<S> Layer<S> for Require {
    type Service = RequireService<S>;

    fn layer(&self, inner: S) -> RequireService<S> {
        RequireService {
            inner,
            require: self.clone(),
        }
    }
}

impl fmt::Debug for Require {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Require")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

// === impl RequireService ===

impl<S> Service<Request> for RequireService<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        // The service that was polled ready is the one to call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let require = self.require.clone();
        Box::pin(async move {
            match require.check(bearer(request.headers())).await {
                Ok(grant) => {
                    request.extensions_mut().insert(grant);
                    inner.call(request).await
                }
                Err(error) => Ok(error.into_response()),
            }
        })
    }
}

impl<S> fmt::Debug for RequireService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.require, f)
    }
}

/// The token of a request (RFC 6750, "Authorization Request Header Field").
fn bearer(headers: &HeaderMap) -> Option<String> {
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

fn unauthorized(detail: &str, challenge: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, detail)
        .hint("send `Authorization: Bearer TOKEN`")
        .challenge(challenge)
}
