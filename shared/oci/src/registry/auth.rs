//! Being let in: which of name and password, token or nothing goes with a request, and one login
//! for all who wait for it.
//!
//! A token is kept per repository until shortly before its end, and then renewed before the next
//! request rather than after a refusal. Credentials are fetched anew for each login, so that those
//! that are exchanged are picked up.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chassis::Secret;
use jiff::Timestamp;
use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, HeaderValue},
};
use tokio::time::Instant;

use super::{
    Credentials, Login,
    challenge::{self, Challenge},
    endpoint::Endpoint,
    http::{Answer, Ask},
    token::{Token, TokenServer},
};
use crate::{OciError, base64};

/// Tokens kept; when there are more, all are dropped and fetched again.
const TOKENS_MAX: usize = 1024;
/// A name and a password that were refused are not looked up again sooner than this.
const REREAD_MIN: Duration = Duration::from_secs(10);

/// The state of being let in.
pub(super) struct Auth {
    login: Login,
    state: Mutex<State>,
    gates: Mutex<BTreeMap<String, Arc<Gate>>>,
}

/// One login at a time for a repository, and when and how the last one failed.
type Gate = tokio::sync::Mutex<Option<(Instant, OciError)>>;

#[derive(Default)]
struct State {
    /// What the registry was last given by name and password, since it asked for that.
    basic: Option<Basic>,
    /// Whether the registry lets us in without anything.
    is_open: bool,
    /// Where it gives out tokens, once it said so.
    server: Option<TokenServer>,
    tokens: BTreeMap<String, Token>,
}

struct Basic {
    username: String,
    password: Secret,
    read_at: Instant,
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

// === impl Auth ===

impl Auth {
    pub(super) fn new(login: Login) -> Self {
        Self {
            login,
            state: Mutex::default(),
            gates: Mutex::default(),
        }
    }

    /// Whether the operator gave credentials.
    pub(super) const fn has_login(&self) -> bool {
        !matches!(self.login, Login::Anonymous)
    }

    /// What goes with the next request for a repository, as far as it is known.
    pub(super) fn current(&self, repository: &str, now: Timestamp) -> Authorization {
        let state = self.state();
        let token = state.tokens.get(repository);
        if let Some(token) = token.filter(|token| now < token.until) {
            return Authorization::Bearer(token.text.clone());
        }
        state
            .basic
            .as_ref()
            .map_or(Authorization::Anonymous, |basic| {
                Authorization::Basic(basic.username.clone(), basic.password.clone())
            })
    }

    /// Renews a token that is about to end, or fetches the first one of a repository, where the
    /// registry's token server is known. A token server that fails for good is forgotten: the
    /// registry may have another one now.
    pub(super) async fn ready(
        &self,
        endpoint: &Endpoint,
        repository: &str,
    ) -> Result<(), OciError> {
        let used = self.current(repository, endpoint.cx().now());
        let server = self.state().server.clone();
        let (Authorization::Anonymous, Some(server)) = (&used, server) else {
            return Ok(());
        };
        match self.log_in(endpoint, repository, &used, &server).await {
            Err(error) if !error.is_transient() => {
                self.state().server = None;
                Ok(())
            }
            done => done,
        }
    }

    /// Asks the registry, unless it is known, what it wants to see. For those who cannot answer a
    /// challenge themselves.
    pub(super) async fn prepare(
        &self,
        endpoint: &Endpoint,
        repository: &str,
    ) -> Result<(), OciError> {
        self.ready(endpoint, repository).await?;
        let used = self.current(repository, endpoint.cx().now());
        if !matches!(used, Authorization::Anonymous) || self.state().is_open {
            return Ok(());
        }
        let ask = Ask::new(Method::GET, endpoint.http.join("v2/")?);
        let sent = endpoint.ask(&ask, endpoint.patience()).await?;
        if sent.response.status() == StatusCode::UNAUTHORIZED {
            let headers = sent.response.headers().clone();
            drop(sent);
            return self.renew(endpoint, repository, &used, &headers).await;
        }
        self.state().is_open = true;
        Ok(())
    }

    /// Forgets what the registry no longer accepts, unless there is something newer already.
    pub(super) fn forget(&self, repository: &str, used: &Authorization, now: Timestamp) {
        let is_newest = self.current(repository, now).is(used);
        let mut state = self.state();
        state.is_open = false;
        if is_newest {
            state.tokens.remove(repository);
        }
    }

    /// Answers a challenge that came although `used` was sent; afterwards [`Auth::current`] is
    /// something else.
    pub(super) async fn renew(
        &self,
        endpoint: &Endpoint,
        repository: &str,
        used: &Authorization,
        headers: &HeaderMap,
    ) -> Result<(), OciError> {
        let challenges = challenge::parse_all(headers);
        let server = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service } => Some(TokenServer {
                realm: realm.clone(),
                service: service.clone(),
            }),
            Challenge::Basic => None,
        });
        if let Some(server) = server {
            return self.log_in(endpoint, repository, used, &server).await;
        }
        let refusal = |why: &str| {
            let subject = endpoint.subject(repository);
            Err(subject.refusal(StatusCode::UNAUTHORIZED, &Answer::ours(why), None))
        };
        if !challenges.contains(&Challenge::Basic) {
            return refusal("it names no way to authenticate that we know");
        }
        if !self.has_login() {
            return refusal("it wants a name and a password");
        }
        if self.read_again(endpoint, used).await? {
            Ok(())
        } else if matches!(used, Authorization::Basic(..)) {
            refusal("it does not accept this name and password")
        } else {
            refusal("it wants a name and a password, and the credentials have none for it")
        }
    }

    /// Fetches name and password anew; false where they are still those that were used. Some
    /// registries answer `403 Forbidden` when a password of theirs has ended.
    pub(super) async fn read_again(
        &self,
        endpoint: &Endpoint,
        used: &Authorization,
    ) -> Result<bool, OciError> {
        let gate = self.gate("");
        let _one_at_a_time = gate.lock().await;
        if let Some(basic) = &self.state().basic {
            let known = Authorization::Basic(basic.username.clone(), basic.password.clone());
            if !known.is(used) {
                return Ok(true);
            }
            if basic.read_at.elapsed() < REREAD_MIN {
                return Ok(false);
            }
        }
        let found = self
            .login
            .credentials(endpoint.cx(), endpoint.host())
            .await?;
        let Some(Credentials::Basic { username, password }) = found else {
            return Ok(false);
        };
        let fresh = Authorization::Basic(username.clone(), password.clone());
        self.state().basic = Some(Basic {
            username,
            password,
            read_at: Instant::now(),
        });
        Ok(!fresh.is(used))
    }

    /// Fetches a token, unless somebody else has done so since `used` was sent. Who waited for a
    /// login that failed takes its error and does not try in its turn.
    async fn log_in(
        &self,
        endpoint: &Endpoint,
        repository: &str,
        used: &Authorization,
        server: &TokenServer,
    ) -> Result<(), OciError> {
        let came = Instant::now();
        let gate = self.gate(repository);
        let mut failed = gate.lock().await;
        let current = self.current(repository, endpoint.cx().now());
        if matches!(current, Authorization::Bearer(_)) && !current.is(used) {
            return Ok(());
        }
        if let Some((_, error)) = failed.as_ref().filter(|(at, _)| *at > came) {
            return Err(error.clone());
        }
        let fetched = self.fetch(endpoint, repository, server).await;
        *failed = fetched
            .as_ref()
            .err()
            .map(|error| (Instant::now(), error.clone()));
        let token = fetched?;
        let mut state = self.state();
        if state.tokens.len() >= TOKENS_MAX {
            state.tokens.clear();
        }
        state.tokens.insert(repository.to_owned(), token);
        state.server = Some(server.clone());
        Ok(())
    }

    async fn fetch(
        &self,
        endpoint: &Endpoint,
        repository: &str,
        server: &TokenServer,
    ) -> Result<Token, OciError> {
        let credentials = self
            .login
            .credentials(endpoint.cx(), endpoint.host())
            .await?;
        server
            .fetch(endpoint, repository, credentials.as_ref())
            .await
    }

    fn gate(&self, repository: &str) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.len() >= TOKENS_MAX {
            // Who waits at one keeps it; at worst a token is fetched twice.
            gates.clear();
        }
        Arc::clone(gates.entry(repository.to_owned()).or_default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in the lock's scope can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Authorization ===

impl Authorization {
    /// As a header; none for [`Authorization::Anonymous`].
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let value = match self {
            Self::Anonymous => return None,
            Self::Basic(username, password) => {
                let pair = format!("{username}:{}", password.expose());
                format!("Basic {}", base64::encode(&pair))
            }
            Self::Bearer(token) => format!("Bearer {}", token.expose()),
        };
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Whether both are the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Anonymous, Self::Anonymous) => true,
            (Self::Basic(name, password), Self::Basic(other, secret)) => {
                name == other && password.expose() == secret.expose()
            }
            (Self::Bearer(token), Self::Bearer(other)) => token.expose() == other.expose(),
            _ => false,
        }
    }
}
