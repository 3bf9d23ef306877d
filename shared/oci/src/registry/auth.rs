//! Being let in: basic authentication, and tokens from a registry's token server.
//!
//! A token is kept per repository until shortly before its end. It is asked for with the scope that
//! we need, never with the one that the challenge names: a registry cannot make us fetch a token
//! for something else.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chassis::Secret;
use jiff::{SignedDuration, Timestamp};
use reqwest::{
    Method, RequestBuilder, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use super::{Credentials, Inner, challenge, challenge::Challenge};
use crate::OciError;

/// Tokens kept; when there are more, all are dropped and fetched again.
const TOKENS_MAX: usize = 1024;
/// How long a token holds whose server does not say (distribution's token specification).
const LIFE_SECONDS: i64 = 60;
/// A token is renewed so long before its end.
const MARGIN_SECONDS: i64 = 10;

/// The state of being let in.
pub(super) struct Auth {
    credentials: Option<Credentials>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether the registry asked for basic authentication.
    basic: bool,
    /// Whether the registry let us in without anything.
    known: bool,
    tokens: BTreeMap<String, Token>,
}

struct Token {
    text: Secret,
    until: Timestamp,
}

/// What goes with a request.
#[derive(Clone)]
pub(super) enum Authorization {
    /// Nothing.
    Anonymous,
    /// Name and password.
    Basic(String, Secret),
    /// A token.
    Bearer(Secret),
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<i64>,
}

// === impl Auth ===

impl Auth {
    pub(super) fn new(credentials: Option<Credentials>) -> Self {
        Self {
            credentials,
            state: Mutex::default(),
        }
    }

    /// What goes with the next request for a repository, as far as it is known.
    pub(super) fn current(&self, repository: &str, now: Timestamp) -> Authorization {
        let state = self.state();
        if let Some(token) = state
            .tokens
            .get(repository)
            .filter(|token| now < token.until)
        {
            return Authorization::Bearer(token.text.clone());
        }
        match &self.credentials {
            Some(Credentials::Basic { username, password }) if state.basic => {
                Authorization::Basic(username.clone(), password.clone())
            }
            _ => Authorization::Anonymous,
        }
    }

    /// The same as headers.
    pub(super) fn headers(&self, repository: &str, now: Timestamp) -> HeaderMap {
        let value = match self.current(repository, now) {
            Authorization::Anonymous => None,
            Authorization::Basic(username, password) => Some(format!(
                "Basic {}",
                base64(&format!("{username}:{}", password.expose()))
            )),
            Authorization::Bearer(token) => Some(format!("Bearer {}", token.expose())),
        };
        let value = value.and_then(|value| HeaderValue::from_str(&value).ok());
        let pairs = value.map(|mut value| {
            value.set_sensitive(true);
            (AUTHORIZATION, value)
        });
        pairs.into_iter().collect()
    }

    /// Asks the registry, unless it is known, what it wants to see.
    pub(super) async fn prepare(&self, inner: &Inner, repository: &str) -> Result<(), OciError> {
        let now = inner.cx.now();
        let is_ready = !matches!(self.current(repository, now), Authorization::Anonymous);
        if is_ready || self.state().known {
            return Ok(());
        }
        let timeout = inner.config.limits.request_timeout;
        let url = inner.http.join("v2/")?;
        let request = inner.http.request(Method::GET, url)?.timeout(timeout);
        let response = request
            .send()
            .await
            .map_err(|error| inner.http.broken(&error))?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return self.answer(inner, repository, response.headers()).await;
        }
        self.state().known = true;
        Ok(())
    }

    /// Forgets what the registry no longer accepts.
    pub(super) fn forget(&self, repository: &str) {
        let mut state = self.state();
        state.tokens.remove(repository);
        state.known = false;
    }

    /// Answers a challenge; afterwards [`Auth::headers`] has what the registry wants.
    pub(super) async fn answer(
        &self,
        inner: &Inner,
        repository: &str,
        headers: &HeaderMap,
    ) -> Result<(), OciError> {
        let challenges = challenge::parse_all(headers);
        let subject = inner.subject(repository);
        let refusal = |why: &str| subject.refusal(StatusCode::UNAUTHORIZED, why, None);
        for challenge in &challenges {
            if let Challenge::Bearer { realm, service } = challenge {
                let token = self
                    .fetch(inner, repository, realm, service.as_deref())
                    .await?;
                let mut state = self.state();
                if state.tokens.len() >= TOKENS_MAX {
                    state.tokens.clear();
                }
                state.tokens.insert(repository.to_owned(), token);
                return Ok(());
            }
        }
        let mut state = self.state();
        match &self.credentials {
            _ if !challenges.contains(&Challenge::Basic) => {
                Err(refusal("it names no way to authenticate that we know"))
            }
            None => Err(refusal("it wants a name and a password")),
            Some(Credentials::IdentityToken(_)) => Err(refusal(
                "it wants a name and a password, the credentials are a token",
            )),
            Some(Credentials::Basic { .. }) if state.basic => {
                Err(refusal("it does not accept this name and password"))
            }
            Some(Credentials::Basic { .. }) => {
                state.basic = true;
                Ok(())
            }
        }
    }

    /// Fetches a token from the registry's token server.
    async fn fetch(
        &self,
        inner: &Inner,
        repository: &str,
        realm: &str,
        service: Option<&str>,
    ) -> Result<Token, OciError> {
        let what = format!("the token server of `{}`", inner.config.host);
        let realm: Url = realm
            .parse()
            .map_err(|error| OciError::malformed(format!("{what}'s URL"), error))?;
        let request = self.token_request(inner, repository, realm, service)?;
        let request = request.timeout(inner.config.limits.request_timeout);
        let response = request
            .send()
            .await
            .map_err(|error| inner.http.broken(&error))?;
        let response = inner
            .http
            .accepted(response, &inner.subject(repository), &inner.cx)
            .await?;
        let bytes_max = inner.config.limits.token_bytes_max;
        let body = inner.http.body(response, bytes_max, &what).await?;
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|error| OciError::malformed(&what, error))?;
        answer
            .into_token(inner.cx.now())
            .ok_or_else(|| OciError::malformed(what, "no token"))
    }

    fn token_request(
        &self,
        inner: &Inner,
        repository: &str,
        mut realm: Url,
        service: Option<&str>,
    ) -> Result<RequestBuilder, OciError> {
        if self.credentials.is_some() && !inner.http.may_carry_secrets(&realm) {
            let what = format!("the token server `{realm}`");
            return Err(OciError::unsupported(
                what,
                "it would get the credentials in the clear",
            ));
        }
        let scope = format!("repository:{repository}:pull");
        let mut pairs = vec![("scope", scope.as_str())];
        pairs.extend(service.map(|service| ("service", service)));
        match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                pairs.push(("grant_type", "refresh_token"));
                pairs.push(("refresh_token", token.expose()));
                pairs.push(("client_id", "tidewaiter"));
                let body = form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(pairs)
                    .finish();
                let request = inner.http.request(Method::POST, realm)?;
                Ok(request
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(body))
            }
            Some(Credentials::Basic { username, password }) => {
                realm.query_pairs_mut().extend_pairs(pairs);
                let request = inner.http.request(Method::GET, realm)?;
                Ok(request.basic_auth(username, Some(password.expose())))
            }
            None => {
                realm.query_pairs_mut().extend_pairs(pairs);
                inner.http.request(Method::GET, realm)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in the lock's scope can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

// === impl TokenAnswer ===

impl TokenAnswer {
    fn into_token(self, now: Timestamp) -> Option<Token> {
        let text = self
            .token
            .filter(|text| !text.is_empty())
            .or(self.access_token)?;
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let life = self
            .expires_in
            .unwrap_or(LIFE_SECONDS)
            .clamp(LIFE_SECONDS, 24 * 3600);
        let life = SignedDuration::from_secs(life.saturating_sub(MARGIN_SECONDS));
        Some(Token {
            text: Secret::from(text),
            until: now.checked_add(life).unwrap_or(now),
        })
    }
}

/// Base 64 as RFC 4648 section 4 has it.
fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |bits: u32| {
        let at = usize::try_from(bits & 63).unwrap_or_default();
        char::from(LETTERS.get(at).copied().unwrap_or(b'='))
    };
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        let letters = [
            letter(bits >> 18),
            letter(bits >> 12),
            letter(bits >> 6),
            letter(bits),
        ];
        let used = chunk.len().saturating_add(1);
        encoded.extend(letters.iter().take(used));
        encoded.extend(std::iter::repeat_n('=', 4_usize.saturating_sub(used)));
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("Aladdin:open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ] {
            assert_eq!(base64(text), expected);
        }
    }

    #[test]
    fn tokens_end_before_the_server_says() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let check = |answer: &str| {
            let answer: TokenAnswer = serde_json::from_str(answer).unwrap();
            let token = answer.into_token(now)?;
            Some((
                token.text.expose().to_owned(),
                token.until.duration_since(now).as_secs(),
            ))
        };
        let token = |text: &str, seconds: i64| Some((text.to_owned(), seconds));
        assert_eq!(
            check(r#"{"token": "a", "expires_in": 300}"#),
            token("a", 290)
        );
        assert_eq!(check(r#"{"access_token": "b"}"#), token("b", 50));
        assert_eq!(
            check(r#"{"token": "", "access_token": "b"}"#),
            token("b", 50)
        );
        assert_eq!(check(r#"{"token": "line\nbreak"}"#), None);
        assert_eq!(check("{}"), None);
    }
}
