//! Tokens: asking a registry's token server for one, and how long it holds.

use chassis::Secret;
use jiff::{SignedDuration, Timestamp};
use reqwest::{
    Method,
    header::{self, HeaderMap, HeaderValue},
};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use super::{Credentials, auth::Authorization, endpoint::Endpoint, http::Ask};
use crate::OciError;

/// How long a token holds whose server does not say (distribution's token specification).
const LIFE_SECONDS: i64 = 60;
const LIFE_SECONDS_MAX: i64 = 24 * 3600;
/// A token is renewed so long before its end, or when a quarter of its life is left.
const MARGIN_SECONDS: i64 = 10;

/// Where a registry's tokens are given out, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenServer {
    pub(super) realm: String,
    pub(super) service: Option<String>,
}

/// A token and its end.
pub(super) struct Token {
    pub(super) text: Secret,
    pub(super) until: Timestamp,
}

/// It has no `Debug`: there is a secret in it.
#[derive(Deserialize)]
pub(super) struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<i64>,
}

// === impl TokenServer ===

impl TokenServer {
    /// Fetches a token to pull from a repository, or to list them all where none is named. The scope is the one that we need, never one that
    /// the registry names: it cannot make us fetch a token for something else.
    pub(super) async fn fetch(
        &self,
        endpoint: &Endpoint,
        repository: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Token, OciError> {
        let what = format!("the answer of the token server of `{}`", endpoint.host());
        let ask = self.ask(endpoint, repository, credentials)?;
        let bytes_max = endpoint.limits().token_bytes_max;
        // Whoever needs it for a manifest or a blob tries that again, and then this with it.
        let sent = endpoint.ask(&ask, endpoint.patience()).await?;
        let sent = endpoint.accepted(sent, repository).await?;
        let body = endpoint.body(sent, bytes_max, &what).await?;
        // The parser's own words may repeat a token.
        let parsed: Answer = serde_json::from_slice(&body)
            .map_err(|_| OciError::malformed(&what, "it is no JSON object with a token"))?;
        parsed
            .into_token(endpoint.cx().now())
            .ok_or_else(|| OciError::malformed(what, "there is no token in it"))
    }

    fn ask(
        &self,
        endpoint: &Endpoint,
        repository: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Ask, OciError> {
        let what = || format!("the URL of the token server of `{}`", endpoint.host());
        let mut realm: Url = self
            .realm
            .parse()
            .map_err(|error| OciError::malformed(what(), error))?;
        if !matches!(realm.scheme(), "http" | "https") {
            return Err(OciError::unsupported(what(), "it is not one of HTTP"));
        }
        if credentials.is_some() && !endpoint.http.may_carry_secrets(&realm) {
            return Err(OciError::unsupported(
                what(),
                "it would get the credentials in the clear",
            ));
        }
        let scope = match repository {
            "" => "registry:catalog:*".to_owned(),
            repository => format!("repository:{repository}:pull"),
        };
        let mut pairs = vec![("scope", scope.as_str())];
        pairs.extend(self.service.as_deref().map(|service| ("service", service)));
        let ask = Ask::new(Method::GET, realm.clone());
        match credentials {
            Some(Credentials::IdentityToken(token)) => {
                pairs.push(("grant_type", "refresh_token"));
                pairs.push(("refresh_token", token.expose()));
                pairs.push(("client_id", "tidewaiter"));
                let form = form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(pairs)
                    .finish();
                let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
                Ok(Ask {
                    method: Method::POST,
                    headers: HeaderMap::from_iter([(header::CONTENT_TYPE, form_type)]),
                    form: Some(Secret::from(form)),
                    ..ask
                })
            }
            Some(Credentials::Basic { username, password }) => {
                realm.query_pairs_mut().extend_pairs(pairs);
                let basic = Authorization::Basic(username.clone(), password.clone());
                Ok(Ask {
                    url: realm,
                    authorization: basic.header(),
                    ..ask
                })
            }
            None => {
                realm.query_pairs_mut().extend_pairs(pairs);
                Ok(Ask { url: realm, ..ask })
            }
        }
    }
}

// === impl Answer ===

impl Answer {
    pub(super) fn into_token(self, now: Timestamp) -> Option<Token> {
        let text = self
            .token
            .filter(|text| !text.is_empty())
            .or(self.access_token)?;
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let life = self.expires_in.filter(|seconds| *seconds > 0);
        let life = life.unwrap_or(LIFE_SECONDS).min(LIFE_SECONDS_MAX);
        let margin = MARGIN_SECONDS.min(life.checked_div(4).unwrap_or_default());
        let used = SignedDuration::from_secs(life.saturating_sub(margin));
        Some(Token {
            text: Secret::from(text),
            until: now.checked_add(used).unwrap_or(now),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_end_before_the_server_says() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let check = |answer: &str| {
            let answer: Answer = serde_json::from_str(answer).unwrap();
            let token = answer.into_token(now)?;
            Some((
                token.text.expose().to_owned(),
                token.until.duration_since(now).as_secs(),
            ))
        };
        let token = |text: &str, seconds: i64| Some((text.to_owned(), seconds));
        for (answer, expected) in [
            (r#"{"token": "a", "expires_in": 300}"#, token("a", 290)),
            (r#"{"token": "a", "expires_in": 20}"#, token("a", 15)),
            (r#"{"token": "a", "expires_in": 1}"#, token("a", 1)),
            (r#"{"token": "a", "expires_in": -5}"#, token("a", 50)),
            (
                r#"{"token": "a", "expires_in": 9999999999}"#,
                token("a", 24 * 3600 - 10),
            ),
            (r#"{"access_token": "b"}"#, token("b", 50)),
            (r#"{"token": "", "access_token": "b"}"#, token("b", 50)),
            (r#"{"token": "line\nbreak"}"#, None),
            ("{}", None),
        ] {
            assert_eq!(check(answer), expected, "{answer}");
        }
    }
}
