//! Bearer tokens: kept as sha256 in KV `tw_config`, so that neither NATS nor a backup holds one.
//!
//! Every request that needs a token looks it up, so a token that is revoked is refused from the next
//! request on, by every process. While NATS is away, a token that this process saw within the
//! last 15 minutes is still believed, for CI must be answered from the spool then; of any other
//! nobody knows, and its request is told to come again (503), never that it is wrong (401).

mod api;
mod lately;
mod ledger;
mod used;

use std::{
    fmt, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc, time::Duration,
};

use anyhow::Context as _;
use bus::{Bus, Store};
use chassis::{
    Cx, Secret,
    http::{Grant, Tokens, TokensAway},
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use model::{Digest, Scope, Slug, TokenRecord, event::CONFIG};
use tracing::{debug, warn};

pub(crate) use self::{
    api::{MadeToken, Token, TokenRole, operations, routes},
    ledger::Ledger,
};
use self::{lately::Lately, used::Uses};

/// How long a look-up may take where the token was seen lately, and where it was not.
const PATIENCE_SEEN: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(3);
/// How often all tokens are read, so that those that were never used here are known as well.
const REFRESH: Duration = Duration::from_mins(1);
/// What the keys of tokens begin with.
const KEYS: &str = "tokens.";
/// The lease of who makes the first token of an installation.
const FIRST_TOKEN: &str = "first_token";

/// Looks tokens up in KV.
pub(crate) struct StoredTokens {
    cx: Cx,
    store: Store,
    /// Whether NATS is there now.
    is_up: Box<dyn Fn() -> bool + Send + Sync>,
    lately: Lately,
    uses: Arc<Uses>,
}

// === impl StoredTokens ===

impl StoredTokens {
    /// Tokens in `store`; `is_up` tells whether asking it makes sense.
    pub(crate) fn new(
        cx: &Cx,
        store: Store,
        is_up: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            cx: cx.clone(),
            store,
            is_up: Box::new(is_up),
            lately: Lately::default(),
            uses: Arc::default(),
        }
    }

    /// Reads all tokens from time to time: for processes that answer while NATS is away.
    pub(crate) fn keep(self: &Arc<Self>) {
        let (tokens, cx) = (Arc::clone(self), self.cx.clone());
        self.cx.spawn("tokens", async move {
            loop {
                tokens.refresh().await;
                if !cx.sleep(REFRESH).await {
                    return;
                }
            }
        });
    }

    async fn refresh(&self) {
        if !(self.is_up)() {
            return;
        }
        match self.store.list::<TokenRecord>(CONFIG, KEYS).await {
            Ok(all) => {
                let all = all.into_iter().filter_map(|(key, stored)| {
                    Some((key.strip_prefix(KEYS)?.to_owned(), stored.body))
                });
                self.lately.note_all(all, self.cx.now());
            }
            Err(error) => debug!("tokens are read later: {error}"),
        }
    }

    /// The record of a token, as it is or as it was lately.
    async fn record(&self, token: &str) -> Result<Option<TokenRecord>, TokensAway> {
        let now = self.cx.now();
        let lately = self.lately.get(token, now);
        if (self.is_up)() {
            let patience = if lately.is_some() {
                PATIENCE_SEEN
            } else {
                PATIENCE
            };
            let key = key(token);
            let asked = self.store.get::<TokenRecord>(CONFIG, &key);
            match tokio::time::timeout(patience, asked).await {
                Ok(Ok(found)) => {
                    let found = found.map(|stored| stored.body);
                    self.lately.note(token, found.as_ref(), now);
                    return Ok(found);
                }
                Ok(Err(error)) => warn!("a token could not be looked up: {error:#}"),
                Err(_) => debug!("a token could not be looked up in {patience:?}"),
            }
        }
        lately.map(Some).ok_or(TokensAway)
    }
}

impl fmt::Debug for StoredTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredTokens").finish_non_exhaustive()
    }
}

impl Tokens for StoredTokens {
    fn find(&self, token_sha256_hex: &str) -> BoxFuture<'_, Result<Option<Grant>, TokensAway>> {
        let token = token_sha256_hex.to_owned();
        Box::pin(async move {
            let record = self.record(&token).await?;
            let now = self.cx.now();
            let record = record.filter(|record| is_live(record, now));
            if record.is_some() && (self.is_up)() && self.uses.is_due(&token, now) {
                let (uses, store) = (Arc::clone(&self.uses), self.store.clone());
                // The request does not wait for it.
                self.cx.spawn("token use", async move {
                    uses.note(&store, &token, now).await;
                });
            }
            Ok(record.map(grant))
        })
    }
}

fn grant(record: TokenRecord) -> Grant {
    let mut scopes: Vec<String> = record
        .scopes
        .iter()
        .map(|scope| scope_name(*scope).to_owned())
        .collect();
    // Who changes what is decided by itself decides.
    if record.scopes.contains(&Scope::Admin) && !record.scopes.contains(&Scope::Respond) {
        scopes.push(scope_name(Scope::Respond).to_owned());
    }
    Grant {
        scopes,
        name: record.name,
        tenant: record.tenant.to_string(),
    }
}

/// Makes a token for an installation that nobody can administer, as at its first start, and writes it
/// where only its owner can read it. False: somebody can. Of several processes that start at the
/// same moment one makes it, and the others wait for that.
pub(crate) async fn bootstrap(cx: &Cx, bus: &Bus, file: &Path) -> anyhow::Result<bool> {
    let store = bus.store();
    if has_admin(&store, cx.now()).await? {
        return Ok(false);
    }
    let lease = bus.lease_wait(cx, FIRST_TOKEN).await;
    let lease = lease.context("waiting for the right to make the first token")?;
    let lease = lease.context("stopped before there was an admin token")?;
    let made = if has_admin(&store, cx.now()).await? {
        Ok(false)
    } else {
        make_first(cx, &store, file).await.map(|()| true)
    };
    lease.release().await;
    made
}

async fn has_admin(store: &Store, now: Timestamp) -> anyhow::Result<bool> {
    let tokens = store
        .list::<TokenRecord>(CONFIG, KEYS)
        .await
        .context("listing tokens")?;
    let mut tokens = tokens.iter().map(|(_, stored)| &stored.body);
    Ok(tokens.any(|token| ledger::is_admin(token) && is_live(token, now)))
}

async fn make_first(cx: &Cx, store: &Store, file: &Path) -> anyhow::Result<()> {
    let token = random_token()?;
    let record = TokenRecord {
        name: "admin".to_owned(),
        scopes: vec![Scope::Read, Scope::Scan, Scope::Admin],
        tenant: Slug::default_tenant(),
        created_at: cx.now(),
        expires_at: None,
        created_by: None,
    };
    // The file first: a token that nobody can read would lock everybody out.
    write_secret(file, token.expose())
        .with_context(|| format!("writing the admin token to `{}`", file.display()))?;
    let hash = Digest::of(token.expose().as_bytes()).hex();
    store
        .put(CONFIG, &key(&hash), &record, Some(0))
        .await
        .context("storing the admin token")?;
    Ok(())
}

/// 32 random bytes as hex.
fn random_token() -> anyhow::Result<Secret> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("asking the system for random bytes")?;
    Ok(Secret::from(model::hex(&bytes)))
}

pub(crate) fn write_secret(file: &Path, secret: &str) -> std::io::Result<()> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut options = std::fs::OpenOptions::new();
    let mut out = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)?;
    writeln!(out, "{secret}")?;
    out.sync_all()
}

fn is_live(record: &TokenRecord, now: Timestamp) -> bool {
    record.expires_at.is_none_or(|end| end > now)
}

fn key(token_sha256_hex: &str) -> String {
    format!("{KEYS}{token_sha256_hex}")
}

const fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "read",
        Scope::Scan => "scan",
        Scope::Respond => "respond",
        Scope::Admin => "admin",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use chassis::{Clock as _, CxLimits, FixedClock, http::token_digest};
    use jiff::SignedDuration;

    use super::*;

    struct World {
        clock: Arc<FixedClock>,
        store: Store,
        tokens: StoredTokens,
        is_up: Arc<AtomicBool>,
    }

    impl World {
        fn new() -> Self {
            let clock = Arc::new(FixedClock::default());
            let cx = Cx::new(
                Arc::<FixedClock>::clone(&clock),
                CxLimits {
                    compute_threads: 1,
                    blocking_threads: 1,
                },
            );
            let (store, is_up) = (Store::memory(), Arc::new(AtomicBool::new(true)));
            let asked = Arc::clone(&is_up);
            let tokens =
                StoredTokens::new(&cx, store.clone(), move || asked.load(Ordering::Relaxed));
            Self {
                clock,
                store,
                tokens,
                is_up,
            }
        }

        async fn put(&self, token: &str) {
            let record = TokenRecord {
                name: token.to_owned(),
                scopes: vec![Scope::Scan],
                tenant: Slug::default_tenant(),
                created_at: self.clock.now(),
                expires_at: None,
                created_by: None,
            };
            let key = key(&token_digest(token));
            self.store.put(CONFIG, &key, &record, None).await.unwrap();
        }

        async fn find(&self, token: &str) -> Result<Option<String>, TokensAway> {
            let found = self.tokens.find(&token_digest(token)).await?;
            Ok(found.map(|grant| grant.name))
        }

        fn nats_is_up(&self, up: bool) {
            self.is_up.store(up, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_token_that_was_seen_lately_is_believed_while_nats_is_away() {
        let world = World::new();
        world.put("ci").await;
        assert_eq!(world.find("ci").await, Ok(Some("ci".to_owned())));
        assert_eq!(world.find("guess").await, Ok(None));
        world.nats_is_up(false);
        assert_eq!(world.find("ci").await, Ok(Some("ci".to_owned())));
        assert_eq!(world.find("guess").await, Err(TokensAway));
        world.clock.advance(SignedDuration::from_mins(16));
        assert_eq!(world.find("ci").await, Err(TokensAway));
    }

    #[tokio::test]
    async fn the_last_use_is_noted_at_most_every_ten_minutes() {
        let world = World::new();
        world.put("ci").await;
        let id = token_digest("ci");
        let noted = async || {
            let uses = used::all(&world.store).await.unwrap();
            uses.get(&id).map(|at| at.as_second())
        };
        let use_at = async |seconds: i64, expected: i64| {
            world.clock.set(Timestamp::from_second(seconds).unwrap());
            assert_eq!(world.find("ci").await, Ok(Some("ci".to_owned())));
            for _ in 0..1_000 {
                if noted().await == Some(expected) {
                    return;
                }
                tokio::task::yield_now().await;
            }
            panic!("at {seconds}: {:?}", noted().await);
        };
        assert_eq!(world.find("guess").await, Ok(None));
        assert!(used::all(&world.store).await.unwrap().is_empty());
        use_at(1_000, 1_000).await;
        use_at(1_599, 1_000).await;
        use_at(1_600, 1_600).await;
        // What another process has noted of late is not noted again.
        let other = Uses::default();
        other
            .note(&world.store, &id, Timestamp::from_second(2_100).unwrap())
            .await;
        assert_eq!(noted().await, Some(1_600));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_processes_that_start_together_one_makes_the_first_token() {
        let Some(server) = testkit::NatsServer::start() else {
            return;
        };
        let (dir, mut starts) = (testkit::temp_dir(), tokio::task::JoinSet::new());
        let config = bus::Config {
            url: Some(server.url()),
            ..bus::Config::default()
        };
        let cx = Cx::for_tests();
        let bus = Bus::connect(&cx, &config, "watcher").await.unwrap();
        bus.provision().await.unwrap();
        for number in 0..4 {
            let (config, file) = (config.clone(), dir.path().join(number.to_string()));
            starts.spawn(async move {
                let cx = Cx::for_tests();
                let bus = Bus::connect(&cx, &config, "starting").await.unwrap();
                bootstrap(&cx, &bus, &file).await.unwrap()
            });
        }
        let made = starts.join_all().await;
        assert_eq!(made.iter().filter(|made| **made).count(), 1, "{made:?}");
        let stored = bus.store().list::<TokenRecord>(CONFIG, KEYS).await.unwrap();
        assert_eq!(stored.len(), 1);
        // The file of the one who made it holds it, and the others have written none.
        let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(files.len(), 1);
        let file = files[0].as_ref().unwrap().path();
        let secret = chassis::files::read_bounded(&file, 1_000).unwrap();
        let secret = String::from_utf8(secret).unwrap();
        assert_eq!(stored[0].0, key(&token_digest(secret.trim())));
        cx.stop();
    }

    #[tokio::test]
    async fn a_token_that_was_never_used_here_is_known_too() {
        let world = World::new();
        world.put("ci").await;
        world.tokens.refresh().await;
        world.nats_is_up(false);
        assert_eq!(world.find("ci").await, Ok(Some("ci".to_owned())));
    }

    #[tokio::test]
    async fn a_revoked_token_is_refused_at_once_and_for_good() {
        let world = World::new();
        world.put("ci").await;
        assert_eq!(world.find("ci").await, Ok(Some("ci".to_owned())));
        let key = key(&token_digest("ci"));
        world.store.delete(CONFIG, &key).await.unwrap();
        assert_eq!(world.find("ci").await, Ok(None));
        world.nats_is_up(false);
        assert_eq!(world.find("ci").await, Err(TokensAway));
    }
}
